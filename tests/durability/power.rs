//! A loss of power, on a file system of its own: what was on its device at that instant is all there is afterwards.

use crate::kit::{Backend, Facts, HowToEnd, Loop, Site, number, say};

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
