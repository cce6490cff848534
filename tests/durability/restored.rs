//! Files of an earlier instant are gone on from, in a new epoch: nobody is told "recovered" who has seen more than they
//! hold, and everybody else is.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Command;

use crate::kit::{Away, Backend, HowToEnd, Hub, Join, Player, Site};

/// When the copy is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// While no hub runs.
    Cold,
    /// While a hub runs, all at one instant: a snapshot of the disk.
    Running,
}

/// How the older files come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Restored {
    /// Into a directory that was removed before.
    Afresh,
    /// By `cp -a`, over the files that are there.
    Over,
    /// As `rsync --inplace` does, and a disk that is rolled back: the bytes change, and the inodes stay.
    InPlace,
    /// Without what is beside the store.
    StoreAlone,
    /// Not at all: the directory is gone.
    Deleted,
}

/// `cp -a`: what an operator restores a backup with.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let copied = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
    assert!(copied.success());
}

/// Makes the files below `to` what those below `from` are, byte by byte.
fn write_over(from: &Path, to: &Path) {
    for entry in fs::read_dir(to).unwrap() {
        let name = entry.unwrap().file_name();
        if !from.join(&name).exists() {
            fs::remove_file(to.join(&name)).unwrap();
        }
    }
    for entry in fs::read_dir(from).unwrap() {
        let name = entry.unwrap().file_name();
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            write_over(&from, &to);
            continue;
        }
        let bytes = fs::read(&from).unwrap();
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(to).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
    }
}

fn restore(site: &Site, how: Restored, backup: &Path) {
    let data_dir = site.data_dir();
    let inode = || fs::metadata(data_dir.join("store/version")).unwrap().ino();
    match how {
        Restored::Afresh => {
            fs::remove_dir_all(&data_dir).unwrap();
            copy(backup, &data_dir);
        }
        Restored::Over => copy(backup, &data_dir),
        Restored::InPlace => {
            let before = inode();
            write_over(backup, &data_dir);
            assert_eq!(inode(), before);
        }
        Restored::StoreAlone => {
            fs::remove_dir_all(data_dir.join("store")).unwrap();
            copy(&backup.join("store"), &data_dir.join("store"));
        }
        Restored::Deleted => fs::remove_dir_all(&data_dir).unwrap(),
    }
}

async fn begin(site: &Site) -> (Hub, Backend) {
    let hub = site.start().await;
    let backend = Backend::connect(&hub).await;
    (hub, backend)
}

async fn push(backend: &Backend, numbers: std::ops::RangeInclusive<u64>) {
    for n in numbers {
        backend.push(77, &format!(r#"{{"n":{n}}}"#)).await;
    }
}

#[tokio::test]
async fn a_cold_copy_is_gone_on_from_however_it_is_restored() {
    for how in [Restored::Afresh, Restored::Over, Restored::InPlace, Restored::StoreAlone] {
        goes_on_from(Taken::Cold, how).await;
    }
}

#[tokio::test]
async fn a_snapshot_of_the_disk_is_gone_on_from_however_it_is_restored() {
    for how in [Restored::Afresh, Restored::Over, Restored::InPlace, Restored::StoreAlone] {
        goes_on_from(Taken::Running, how).await;
    }
}

#[tokio::test]
async fn files_that_are_gone_begin_a_new_history() {
    goes_on_from(Taken::Cold, Restored::Deleted).await;
}

async fn goes_on_from(taken: Taken, how: Restored) {
    let case = format!("{taken:?}, {how:?}");
    let site = Site::new();
    let backup = site.path().join("backup");
    let (hub, backend) = begin(&site).await;
    push(&backend, 1..=5).await;
    let kept = backend.duel(77).await.position.unwrap();
    let (hub, backend) = match taken {
        Taken::Cold => {
            hub.end(HowToEnd::Term).await;
            copy(&site.data_dir(), &backup);
            begin(&site).await
        }
        Taken::Running => {
            copy(&site.data_dir(), &backup);
            (hub, backend)
        }
    };
    // The events 6 to 8 that are seen are not those that the copy will go on with.
    push(&backend, 6..=8).await;
    let lost = backend.duel(77).await.position.unwrap();
    assert_eq!(lost.epoch == kept.epoch, taken == Taken::Running, "{case}");
    hub.end(HowToEnd::Kill).await;
    restore(&site, how, &backup);

    let (hub, backend) = begin(&site).await;
    push(&backend, 16..=18).await;
    let head = backend.duel(77).await.position.unwrap();
    assert!(head.epoch != lost.epoch && head.epoch != kept.epoch, "{case}: {}", hub.output());
    let is_kept = how != Restored::Deleted;
    let same = lost.epoch == kept.epoch;
    let seen = [
        (&kept.epoch, 0, is_kept),
        (&kept.epoch, 5, is_kept),
        (&kept.epoch, 6, false),
        (&lost.epoch, 5, is_kept && same),
        (&lost.epoch, 0, is_kept && same),
        (&lost.epoch, 8, false),
    ];
    for (epoch, seq, recovered) in seen {
        let join = Join::ticket(backend.ticket(77, 1).await);
        let mut player = Player::join(&hub, join.resume(format!("{epoch}:{seq}"))).await;
        assert_eq!(player.connected["recovered"], recovered, "{case}, from {epoch}:{seq}");
        assert_eq!(player.connected["epoch"], head.epoch, "{case}");
        player.ping().await;
        assert_eq!(player.events.last().unwrap()["payload"]["n"], 18, "{case}");
        let missed: Vec<_> =
            if recovered { (seq + 1..=head.seq).collect() } else { vec![head.seq] };
        assert_eq!(player.seqs(), missed, "{case}: what was missed, or the present state");
    }
    // From here on it is a history like any other.
    let mut player = Player::join(&hub, Join::ticket(backend.ticket(77, 2).await)).await;
    player.ping().await;
    let away = Away::leave(player);
    hub.end(HowToEnd::Kill).await;
    let (hub, _) = begin(&site).await;
    assert_eq!(away.back(&hub).await.connected["recovered"], true, "{case}");
    hub.end(HowToEnd::Term).await;
}
