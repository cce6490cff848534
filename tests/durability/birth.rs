//! Killed, or without power, before it has served for the first time: whatever it had begun to write, the next start
//! makes a store of it.

use std::time::Duration;

use rand::RngExt as _;

use crate::kit::{Backend, Disk, Facts, HowToEnd, Site, dice, number, say};

/// Stores that are begun.
const BIRTHS: u64 = 40;

#[tokio::test]
async fn a_store_begun_and_not_finished_is_no_obstacle() {
    let mut dice = dice("birth");
    let births = number("DUELHUB_BIRTHS", BIRTHS);
    let mut died_early = 0;
    for nth in 0..births {
        let mut site = Site::new();
        let disk = Disk::under(&mut site);
        for _ in 0..dice.random_range(1..3) {
            let starting = site.begin_start();
            // In a debug build it serves after 20 ms or so, most of which is none of the store's.
            let pause = Duration::from_micros(dice.random_range(2_000..25_000));
            tokio::time::sleep(pause).await;
            starting.send(HowToEnd::Kill);
            let exit = starting.ended().await;
            assert!(exit.code.is_none() && !exit.panicked(), "birth {nth}: {exit}");
            died_early += u32::from(!exit.output.contains("\"serving\""));
            if dice.random_bool(0.5) {
                disk.lose_power(&mut dice);
            }
        }
        let hub = site.start().await;
        let mut facts = Facts::default();
        facts.push(&Backend::connect(&hub).await, 77, 3, 100).await;
        hub.end(HowToEnd::Kill).await;
        let hub = site.start().await;
        facts.hold(&hub).await.unwrap_or_else(|missing| panic!("birth {nth}: {missing}"));
        hub.end(HowToEnd::Kill).await;
    }
    say(&format!("birth: {births} stores, {died_early} deaths before serving"));
}
