//! The model test: random schedules of pushes, players and restarts against one node or three, checked against a model that
//! is too simple to be wrong.
//!
//! A schedule is made from its seed alone (`schedule.rs`), run against the real thing (`world.rs`, `devices.rs`), and
//! everything that a backend is answered and a player is shown is held against what must be (`history.rs`, `ledger.rs`,
//! `check.rs`).
//! `check_self_test.rs` proves that the checks object to what they are there for.
//!
//! A failure names its seed; `MODEL_SEED=17 cargo test --test model` runs that schedule alone, against every deployment.
//! `MODEL_SCHEDULES` is how many run in all.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod check;
mod check_self_test;
mod deployment;
mod devices;
mod history;
mod ledger;
mod node;
mod schedule;
mod spec;
mod world;

use std::collections::BTreeMap;

use duelhub_testkit::store::Kind;
use tokio::task::JoinSet;

use crate::check::Violation;
use crate::deployment::Deployment;
use crate::schedule::Schedule;
use crate::world::World;

/// What the schedules are run against, and how many of a thousand: a node in this process takes milliseconds for one, three
/// processes a second.
const DEPLOYMENTS: &[(Deployment, u64)] = &[
    (Deployment::OneNode(Kind::Memory), 250),
    (Deployment::OneNode(Kind::Embedded), 250),
    (Deployment::OneNode(Kind::Redis), 200),
    (Deployment::ThreeNodes, 250),
    (Deployment::ThreeProcesses, 50),
];

/// Schedules in all, unless the environment says otherwise.
const SCHEDULES: u64 = 1000;

/// How often what happened.
pub(crate) type Tally = BTreeMap<&'static str, u64>;

/// What no run of many schedules may leave out.
const MUST_HAPPEN: [&str; 22] = [
    "a duplicate",
    "a key reused for another content",
    "a push to a closed duel",
    "a fresh start",
    "recovered, with something missed",
    "not recovered",
    "too slow",
    "closed while away",
    "the end of a duel shown",
    "left out for a newer one",
    "handed over",
    "acked",
    "a ticket used again",
    "a lost welcome",
    "a copied ticket",
    "the end by a used ticket",
    "a revoked ticket",
    "a replaced connection",
    "a disconnected connection",
    "a stranger kept out",
    "killed with pushes unanswered",
    "restarted",
];

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

/// Runs one schedule, and says what happened in it.
async fn run(deployment: Deployment, seed: u64) -> Result<Tally, Violation> {
    let schedule = Schedule::from_seed(seed);
    let mut world = World::new(deployment, &schedule).await;
    for (step, nth) in schedule.steps.iter().zip(0..) {
        let done = world.step(step).await;
        world = done.map_err(|violation| violation.at(&format!("step {nth}, {step:?}")))?;
    }
    world.finish().await.map_err(|violation| violation.at("the end"))
}

/// Runs one schedule, and fails the test with its seed if anything is wrong.
async fn run_or_fail(deployment: Deployment, seed: u64) -> Tally {
    // In a task of its own, so that a panic inside the hub is reported with the seed, too.
    let problem = match tokio::spawn(run(deployment, seed)).await {
        Ok(Ok(tally)) => return tally,
        Ok(Err(violation)) => violation.to_string(),
        Err(panicked) => panicked.to_string(),
    };
    panic!("{deployment:?}: {problem}\nalone: MODEL_SEED={seed} cargo test --test model");
}

async fn run_many(deployment: Deployment, seeds: impl Iterator<Item = u64>) -> Tally {
    let mut under_way = JoinSet::new();
    let mut total = Tally::new();
    let mut add = |tally: Result<Tally, tokio::task::JoinError>| match tally {
        Ok(tally) => tally.into_iter().for_each(|(what, count)| {
            *total.entry(what).or_default() += count;
        }),
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    };
    for seed in seeds {
        if under_way.len() == deployment.at_a_time()
            && let Some(tally) = under_way.join_next().await
        {
            add(tally);
        }
        under_way.spawn(run_or_fail(deployment, seed));
    }
    while let Some(tally) = under_way.join_next().await {
        add(tally);
    }
    total
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_every_player_is_shown_what_the_model_says() {
    for (deployment, of_a_thousand) in DEPLOYMENTS.iter().copied() {
        if !deployment.kind().is_here() {
            continue;
        }
        if let Some(seed) = from_environment("MODEL_SEED") {
            run_or_fail(deployment, seed).await;
            continue;
        }
        let schedules = from_environment("MODEL_SCHEDULES").unwrap_or(SCHEDULES);
        let schedules = (schedules * of_a_thousand).div_ceil(1000);
        let total = run_many(deployment, 1..=schedules).await;
        let late = total.get("heard late").copied().unwrap_or_default();
        assert!(
            late <= schedules.div_ceil(10),
            "{deployment:?}: {late} were sent away by what came late"
        );
        // Few schedules may well miss something; many that do test less than they seem to.
        let missed: Vec<_> = MUST_HAPPEN.iter().filter(|what| !total.contains_key(*what)).collect();
        let many = schedules >= of_a_thousand;
        assert!(!many || missed.is_empty(), "{deployment:?} never saw {missed:?}: {total:#?}");
    }
}

#[test]
fn a_seed_stands_for_one_schedule() {
    let shown = |seed| format!("{:?}", Schedule::from_seed(seed));
    assert_eq!(shown(1), shown(1));
    assert_ne!(shown(1), shown(2));
}
