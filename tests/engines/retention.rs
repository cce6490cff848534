//! Duels are forgotten after their retention, not before; what comes into being again is another history.
//!
//! An engine stamps with its own clock and is told of a later "now" when it prunes. It may keep an idle duel for up to an
//! eighth longer than it must, so a rule asks before the retention is over, and after twice as long.

use std::time::Duration;

use duelhub::clock::{self, UnixMs};
use duelhub::config::EngineConfig;
use duelhub::event::{Outcome, Position};

use crate::kit::{DUEL, Subject, id_of, player, roomy, update};
use crate::store::Kind;

/// Prunes until nothing more goes: one call looks at a bounded number of duels.
async fn prune(engine: &Subject, now: UnixMs) {
    let mut quiet = 0;
    while quiet < 3 {
        let before = engine.counts().duels;
        engine.prune(now).await.unwrap();
        quiet = if engine.counts().duels == before { quiet + 1 } else { 0 };
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

async fn an_idle_duel_is_forgotten_after_its_retention(kind: Kind) {
    let engine = Subject::with(kind, EngineConfig { closed_retention: seconds(5), ..roomy() });
    let before = clock::now();
    engine.get_or_create(id_of(1)).await.unwrap();
    engine.push(2, 1).await;
    let after = clock::now();
    prune(&engine, before.plus(seconds(99))).await;
    assert!(engine.has(1).await && engine.has(2).await);
    prune(&engine, after.plus(seconds(250))).await;
    assert!(!engine.has(1).await && !engine.has(2).await);
    assert_eq!(engine.counts().duels, 0);
}

async fn a_closed_duel_is_forgotten_after_its_own_retention(kind: Kind) {
    let config = EngineConfig { idle_retention: seconds(10_000), ..roomy() };
    let engine = Subject::with(kind, config);
    engine.push(1, 1).await;
    engine.push(2, 1).await;
    let before = clock::now();
    engine.close(id_of(1), Outcome::Finished, None).await.unwrap();
    let after = clock::now();
    prune(&engine, before.plus(seconds(99))).await;
    assert!(engine.has(1).await);
    prune(&engine, after.plus(seconds(250))).await;
    assert!(!engine.has(1).await);
    assert!(engine.has(2).await, "an open one stays");
}

async fn a_closed_duel_is_kept_also_when_an_idle_one_would_go(kind: Kind) {
    let config = EngineConfig { closed_retention: seconds(1000), ..roomy() };
    let engine = Subject::with(kind, config);
    let before = clock::now();
    engine.close(id_of(1), Outcome::Finished, None).await.unwrap();
    prune(&engine, before.plus(seconds(999))).await;
    assert!(engine.has(1).await);
    prune(&engine, clock::now().plus(seconds(2000))).await;
    assert!(!engine.has(1).await);
}

async fn asking_for_its_head_does_not_keep_a_closed_duel(engine: Subject) {
    engine.close(id_of(1), Outcome::Finished, None).await.unwrap();
    let after = clock::now();
    engine.heads(vec![id_of(1)]).await.unwrap();
    prune(&engine, after.plus(seconds(250))).await;
    assert!(!engine.has(1).await);
}

/// Signs of life are stamped with the real clock, so it has to move; the retention is short for that, and long enough
/// for an engine that rounds by an eighth to tell the two instants apart. Redis looks ahead of its own clock by as much as
/// it is told, so what is late on its way there looks further ahead: an eighth of the retention leaves room for that.
async fn an_event_or_a_sweep_is_a_sign_of_life(kind: Kind) {
    let retention = seconds(8);
    let engine = Subject::with(kind, EngineConfig { idle_retention: retention, ..roomy() });
    for duel in 1..=3 {
        engine.push(duel, 1).await;
    }
    let born_until = clock::now();
    while clock::now() <= born_until.plus(retention / 4) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let sign_of_life = clock::now();
    engine.push(1, 2).await;
    assert_eq!(engine.heads(vec![id_of(2), id_of(9)]).await.unwrap().len(), 1);
    let last_sign = clock::now();
    prune(&engine, sign_of_life.plus(retention - retention / 8)).await;
    assert!(engine.has(1).await, "an event was stored");
    assert!(engine.has(2).await, "a sweep has asked");
    prune(&engine, last_sign.plus(2 * retention)).await;
    assert_eq!(engine.counts().duels, 0);
}

async fn what_comes_into_being_again_is_another_history(engine: Subject) {
    let key = || Some("key".into());
    let before = engine.append(id_of(DUEL), update(DUEL, 1), key()).await.unwrap().position;
    engine.push(DUEL, 2).await;
    engine.close(id_of(DUEL), Outcome::Finished, None).await.unwrap();
    prune(&engine, clock::now().plus(seconds(250))).await;
    let again = engine.append(id_of(DUEL), update(DUEL, 3), key()).await.unwrap();
    assert!(again.event.is_some(), "its keys are forgotten with it");
    assert_eq!(again.position.seq, 1);
    assert_ne!(again.position.epoch, before.epoch);
    assert_eq!(engine.told_opened(DUEL).len(), 2);
    for seq in [0, 1, 2] {
        let old = Position { seq, ..before };
        assert_eq!(engine.seqs(DUEL, old, 10).await, None, "nothing goes on from before");
        assert_eq!(engine.latest_up_to(player(1), old).await, [0; 0]);
    }
    assert_eq!(engine.latest_seqs(player(1)).await, [1]);
}

async fn what_is_forgotten_makes_room(kind: Kind) {
    let engine = Subject::with(kind, EngineConfig { duels_max: 2, ..roomy() });
    engine.close(id_of(1), Outcome::Finished, None).await.unwrap();
    engine.push(2, 1).await;
    assert!(engine.append(id_of(3), update(3, 1), None).await.is_err());
    prune(&engine, clock::now().plus(seconds(250))).await;
    engine.push(3, 1).await;
}

async fn many_are_forgotten_by_and_by(kind: Kind) {
    let engine = Subject::with(kind, EngineConfig { duels_max: 6000, ..roomy() });
    let calls: Vec<_> =
        (1..=6000).map(|duel| engine.pinned().append(id_of(duel), update(duel, 1), None)).collect();
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!(engine.counts().duels, 6000);
    prune(&engine, clock::now().plus(seconds(250))).await;
    assert_eq!(engine.counts().duels, 0);
}

on_every_engine!(
    an_idle_duel_is_forgotten_after_its_retention,
    a_closed_duel_is_forgotten_after_its_own_retention,
    a_closed_duel_is_kept_also_when_an_idle_one_would_go,
    asking_for_its_head_does_not_keep_a_closed_duel,
    an_event_or_a_sweep_is_a_sign_of_life,
    what_comes_into_being_again_is_another_history,
    many_are_forgotten_by_and_by;
    // A node counts what others bring into being when it prunes.
    each node:
    what_is_forgotten_makes_room,
);
