//! A loss of power: what was on the disk at that instant is all there is afterwards, whole or not.

use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::kit::{
    Backend, Disk, Facts, Fault, HowToEnd, Join, Loop, Player, Site, dice, noise, number, push, say,
};

/// Losses until another store is begun, which is smaller.
const LOSSES_PER_STORE: u64 = 50;

/// The last batch of a journal reaches the disk in pieces, in any order. Nobody was told of it, so nobody may be kept from
/// starting by it.
#[tokio::test]
async fn a_batch_of_which_a_part_was_lost_is_no_obstacle() {
    let mut dice = dice("torn batches");
    let losses = number("DUELHUB_TORN", 20);
    for _ in 0..losses.div_ceil(LOSSES_PER_STORE) {
        tear_batches(&mut dice, losses.min(LOSSES_PER_STORE)).await;
    }
    say(&format!("torn batches: {losses}"));
}

async fn tear_batches(dice: &mut StdRng, losses: u64) {
    let mut site = Site::new();
    let disk = Disk::under(&mut site);
    let mut facts = Facts::default();
    for loss in 0..losses {
        let hub = site.start().await;
        let backend = Backend::connect(&hub).await;
        facts.push(&backend, 1, 3, 300).await;
        disk.set(Fault::Sync);
        let pushes = (0..dice.random_range(1..8)).map(|nth| {
            let length = dice.random_range(10..6000);
            // Of noise, and of what the library makes smaller, which it stores in another way.
            let fill =
                if nth % 2 == 0 { noise(nth, length).to_owned() } else { "x".repeat(length) };
            let payload = format!(r#"{{"fill":"{fill}"}}"#);
            let client = backend.client.clone();
            async move { { client }.push_event(push(2, &payload)).await }
        });
        for refused in futures_util::future::join_all(pushes).await {
            assert!(refused.is_err(), "no sync has succeeded");
        }
        hub.kill().await;
        disk.lose_power(dice);
        disk.set(Fault::None);
        let hub = site.try_start().await;
        let hub = hub.unwrap_or_else(|exit| panic!("loss {loss}: {exit}"));
        facts.hold(&hub).await.unwrap_or_else(|missing| panic!("loss {loss}: {missing}"));
        hub.end(HowToEnd::Kill).await;
    }
}

/// With `DURABILITY=os` the newest pushes may be gone with the power. Who has seen them is not told "recovered", and who has
/// seen no more than what was kept is.
#[tokio::test]
async fn with_durability_os_the_newest_may_be_gone_and_nobody_is_told_otherwise() {
    let mut dice = dice("power loss with DURABILITY=os");
    let mut lost_some = 0;
    for loss in 0..number("DUELHUB_TORN", 20) {
        let mut site = Site::new().with("DURABILITY", "os");
        let disk = Disk::under(&mut site);
        let hub = site.start().await;
        let backend = Backend::connect(&hub).await;
        let pushed = dice.random_range(1..30);
        for n in 1..=pushed {
            backend.push(77, &format!(r#"{{"n":{n}}}"#)).await;
        }
        let before = backend.duel(77).await.position.unwrap();
        hub.kill().await;
        disk.lose_power(&mut dice);
        let hub = site.try_start().await;
        let hub = hub.unwrap_or_else(|exit| panic!("loss {loss}: {exit}"));
        let backend = Backend::connect(&hub).await;
        let new = backend.push(77, r#"{"n":0}"#).await;
        let kept = new - 1;
        lost_some += u64::from(kept < pushed);
        for seen in 0..=pushed {
            let join = Join::ticket(backend.ticket(77, 1).await);
            let resume = format!("{}:{seen}", before.epoch);
            let mut player = Player::join(&hub, join.resume(resume)).await;
            // If nothing was kept, it is another duel.
            let recovered = seen <= kept && kept > 0;
            assert_eq!(player.connected["recovered"], recovered, "{seen} of {kept} of {pushed}");
            player.ping().await;
            let missed: Vec<_> = if recovered { (seen + 1..=new).collect() } else { vec![new] };
            assert_eq!(player.seqs(), missed, "{seen} of {kept} of {pushed}");
        }
        hub.end(HowToEnd::Kill).await;
    }
    say(&format!("power loss with DURABILITY=os: {lost_some} lost some"));
}

/// On a file system of its own.
#[tokio::test]
async fn what_was_acknowledged_before_a_loss_of_power_goes_on_after_it() {
    let mut site = Site::new()
        .with("ENGINE_MAX_LOG_EVENTS", "1000000")
        .with("ENGINE_MAX_LOG_BYTES", "1073741824");
    let mut disk = match Loop::mount(site.path()) {
        Ok(disk) => disk,
        Err(why) => {
            return say(&format!(
                "NOT TESTED: a loss of power on a real file system, which needs root and a loop device: {why}\n\
                 (torture has tested it with faults.c)"
            ));
        }
    };
    site.set("DATA_DIR", disk.point().join("data").to_str().unwrap());
    let mut facts = Facts::default();
    for life in 0..number("DUELHUB_LOSSES", 2) {
        let hub = site.start().await;
        let backend = Backend::connect(&hub).await;
        facts
            .hold(&hub)
            .await
            .unwrap_or_else(|missing| panic!("life {life}: {missing}: {}", hub.output()));
        // Long enough for the file system to have written some of what nobody asked it to sync.
        let until = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
        let mut nth = 0;
        while tokio::time::Instant::now() < until {
            facts.push(&backend, 1 + nth % 3, 1, 300).await;
            nth += 1;
        }
        facts.use_ticket(&hub, &backend, 1).await;
        facts.close(&backend, 100 + life).await;
        disk.lose_power(|| hub.kill()).await;
    }
    let hub = site.start().await;
    facts.hold(&hub).await.unwrap();
    hub.end(HowToEnd::Kill).await;
}
