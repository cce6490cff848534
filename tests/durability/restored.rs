//! Files that are not those of the last run begin a new history: nobody is told "recovered" who has seen another one.

use std::path::Path;
use std::process::Command;

use crate::kit::{Away, Backend, HowToEnd, Hub, Join, Player, Site};

/// `cp -a`: what an operator restores a backup with.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    let copied = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
    assert!(copied.success());
}

/// How the older files come back.
#[derive(Debug, Clone, Copy)]
enum Restored {
    /// Into a directory that was removed before.
    Afresh,
    /// Over the files that are there.
    InPlace,
    /// Not at all: the directory is gone.
    Deleted,
}

fn restore(site: &Site, how: Restored, backup: &Path) {
    match how {
        Restored::Afresh => {
            std::fs::remove_dir_all(site.data_dir()).unwrap();
            copy(backup, &site.data_dir());
        }
        Restored::InPlace => copy(backup, &site.data_dir()),
        Restored::Deleted => std::fs::remove_dir_all(site.data_dir()).unwrap(),
    }
}

async fn begin(site: &Site) -> (Hub, Backend) {
    let hub = site.start().await;
    let backend = Backend::connect(&hub).await;
    (hub, backend)
}

#[tokio::test]
async fn an_older_copy_of_the_files_begins_a_new_history() {
    begins_a_new_history(Restored::Afresh).await;
}

#[tokio::test]
async fn an_older_copy_over_the_newer_files_begins_a_new_history() {
    begins_a_new_history(Restored::InPlace).await;
}

#[tokio::test]
async fn files_that_are_gone_begin_a_new_history() {
    begins_a_new_history(Restored::Deleted).await;
}

async fn begins_a_new_history(how: Restored) {
    let site = Site::new();
    let (hub, backend) = begin(&site).await;
    for n in 1..=5 {
        backend.push(77, &format!(r#"{{"n":{n}}}"#)).await;
    }
    let early = Player::join(&hub, Join::ticket(backend.ticket(77, 1).await)).await;
    assert_eq!(early.connected["seq"], 5);
    let early = Away::leave(early);
    hub.end(HowToEnd::Term).await;
    let backup = site.path().join("backup");
    copy(&site.data_dir(), &backup);

    let (hub, backend) = begin(&site).await;
    let mut late = early.back(&hub).await;
    let epoch = late.connected["epoch"].clone();
    assert_eq!(late.connected["recovered"], true, "copying harms nobody");
    for n in 6..=8 {
        backend.push(77, &format!(r#"{{"n":{n}}}"#)).await;
    }
    late.until_events(3).await;
    drop(late);
    hub.end(HowToEnd::Term).await;
    restore(&site, how, &backup);

    let (hub, backend) = begin(&site).await;
    // The events 6 to 8 of the new history are not those that the player has seen.
    for n in 16..=18 {
        backend.push(77, &format!(r#"{{"n":{n}}}"#)).await;
    }
    let position = backend.duel(77).await.position.unwrap();
    assert_ne!(position.epoch, epoch.as_str().unwrap(), "{how:?}: {}", hub.output());
    for seen in [0, 5, 8] {
        let join = Join::ticket(backend.ticket(77, 1).await);
        let resume = format!("{}:{seen}", epoch.as_str().unwrap());
        let mut player = Player::join(&hub, join.resume(resume)).await;
        assert_eq!(player.connected["recovered"], false, "{how:?}, from {seen}");
        assert_eq!(player.connected["epoch"], position.epoch);
        player.until_events(1).await;
        assert_eq!(player.events[0]["payload"]["n"], 18, "the present state follows");
    }
    let output = hub.output();
    let warned = output.lines().any(|line| line.contains("\"WARN\"") && line.contains("new epoch"));
    // Where there is nothing, nobody knows that there was something.
    assert!(warned || matches!(how, Restored::Deleted), "{how:?}: {output}");
    // From here on it is a history like any other.
    let mut player = Player::join(&hub, Join::ticket(backend.ticket(77, 2).await)).await;
    player.ping().await;
    let away = Away::leave(player);
    hub.end(HowToEnd::Kill).await;
    let (hub, _) = begin(&site).await;
    assert_eq!(away.back(&hub).await.connected["recovered"], true, "{how:?}");
    hub.end(HowToEnd::Term).await;
}
