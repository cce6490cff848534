//! Opening the store: how its files go on from those that the last process left, and under which lineage.
//!
//! Everything in it is read once and checked, so that a damaged one is refused and not found out by a player. That takes 1
//! to 2 s for 100 MB.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use tracing::warn;

use super::check::{check_files, check_rows};
use super::lineage::{self, Acknowledged, Unavailable};
use super::refusal::StoreError;
use super::rows::{FORMAT, MetaRow};
use super::store::{Held, Store};
use super::torn;
use crate::clock::{self, UnixMs};
use crate::config::{Durability, EngineConfig, StoreConfig};
use crate::engine::EngineCounts;

/// The directory of the store, inside `DATA_DIR`.
const STORE: &str = "store";

/// A store that is being made.
const UNFINISHED: &str = "store.unfinished";

/// A store that was checked.
pub(super) struct Opened {
    pub(super) store: Store,
    pub(super) meta: MetaRow,
    pub(super) counts: EngineCounts,
    pub(super) acknowledged: Acknowledged,
}

/// How the files go on from those that the last process left.
enum Continuity {
    /// They are the same.
    Same,
    /// They come from elsewhere, or are new.
    Copy,
    /// They are the same, and the machine may have lost what was never synced.
    Unsynced,
    /// They are the same, and end before what was acknowledged.
    Cut {
        /// The last commit in the store.
        ends: u64,
        /// The last commit that was acknowledged.
        acknowledged: u64,
    },
}

fn cut(directory: &Path, ends: u64, acknowledged: u64) -> StoreError {
    let what = format!("it ends with commit {ends}, and commit {acknowledged} was acknowledged");
    StoreError::damaged(directory, what)
}

/// Has `config.data_dir` for this process alone. It is made if it is not there.
pub(super) fn acquire(config: &StoreConfig) -> Result<Acknowledged, StoreError> {
    let directory = &config.data_dir;
    let failed = StoreError::directory(directory);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    Acknowledged::open(directory).map_err(|unavailable| match unavailable {
        Unavailable::InUse => StoreError::InUse(directory.clone()),
        Unavailable::Io(error) => failed(error),
    })
}

/// Opens the store under `config.data_dir`, and makes an empty one if there is none.
pub(super) fn open(
    engine: &EngineConfig,
    config: &StoreConfig,
    acknowledged: Acknowledged,
) -> Result<Opened, StoreError> {
    let directory = &config.data_dir;
    let failed = StoreError::directory(directory);
    if !directory.join(STORE).try_exists().map_err(failed)? {
        if acknowledged.read().map_err(failed)?.is_some() {
            warn!(directory = %directory.display(), "the store is gone: starting with an empty one");
            acknowledged.clear().map_err(failed)?;
        }
        make(directory)?;
    }
    reopen(engine, config, acknowledged)
}

/// Opens the store under `config.data_dir`, where there must be one.
pub(super) fn reopen(
    engine: &EngineConfig,
    config: &StoreConfig,
    acknowledged: Acknowledged,
) -> Result<Opened, StoreError> {
    let directory = &config.data_dir;
    let failed = StoreError::directory(directory);
    let mut store = open_unchecked(config)?;
    let (meta, counts) = check_rows(directory, &mut store)?;
    let Some(meta) = meta else {
        let note = acknowledged.read().map_err(failed)?;
        if note.is_some() || counts != EngineCounts::default() {
            return Err(StoreError::damaged(directory, "it has no beginning"));
        }
        let meta = MetaRow { format: FORMAT, ..MetaRow::default() };
        return begin(engine, config, Opened { store, meta, counts, acknowledged });
    };
    let continuity = compare(directory, &meta, &acknowledged).map_err(failed)?;
    let opened = Opened { store, meta, counts, acknowledged };
    match continuity {
        Continuity::Same => return go_on(engine, config, opened),
        Continuity::Cut { ends, acknowledged } => return Err(cut(directory, ends, acknowledged)),
        Continuity::Copy => {
            warn!("the store was restored from a copy: every duel goes on under a new epoch");
        }
        Continuity::Unsynced => warn!(
            "the machine was restarted without a sync, as DURABILITY=os risks: every duel goes on \
             under a new epoch"
        ),
    }
    begin(engine, config, opened)
}

fn compare(
    directory: &Path,
    meta: &MetaRow,
    acknowledged: &Acknowledged,
) -> io::Result<Continuity> {
    let (Some(note), Some(marks)) = (acknowledged.read()?, lineage::marks(directory)?) else {
        return Ok(Continuity::Copy);
    };
    if note.marks != marks {
        return Ok(Continuity::Copy);
    }
    if meta.unsynced && note.written_at < booted_at() {
        return Ok(Continuity::Unsynced);
    }
    if meta.marks != marks || meta.commit < note.commit {
        return Ok(Continuity::Cut { ends: meta.commit, acknowledged: note.commit });
    }
    Ok(Continuity::Same)
}

/// When the machine was started, by its present clock.
fn booted_at() -> UnixMs {
    let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let up_ms = u64::try_from(up.tv_sec).unwrap_or(0).saturating_mul(1000);
    UnixMs(clock::now().0.saturating_sub(up_ms))
}

/// Opens a store that is there, and reads all of it.
pub(super) fn open_existing(
    config: &StoreConfig,
    acknowledged: &Acknowledged,
) -> Result<(Store, EngineCounts), StoreError> {
    let directory = &config.data_dir;
    let failed = StoreError::directory(directory);
    let mut store = open_unchecked(config)?;
    let (meta, counts) = check_rows(directory, &mut store)?;
    let meta = meta.ok_or_else(|| StoreError::damaged(directory, "it has no beginning"))?;
    match compare(directory, &meta, acknowledged).map_err(failed)? {
        Continuity::Cut { ends, acknowledged } => Err(cut(directory, ends, acknowledged)),
        Continuity::Same | Continuity::Copy | Continuity::Unsynced => Ok((store, counts)),
    }
}

/// That there is a store.
pub(super) fn exists(config: &StoreConfig) -> Result<(), StoreError> {
    let directory = &config.data_dir;
    directory.join(STORE).metadata().map(drop).map_err(StoreError::directory(directory))
}

/// Makes an empty store beside where it belongs, and puts it there when it is whole: who is interrupted leaves none.
fn make(directory: &Path) -> Result<(), StoreError> {
    let failed = StoreError::directory(directory);
    let path = directory.join(UNFINISHED);
    match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let store = Store::open(&path, Durability::Fsync);
    let made = store.and_then(|store| store.sync());
    made.map_err(|error| StoreError::of(directory, &error))?;
    fs::rename(&path, directory.join(STORE)).map_err(failed)?;
    fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}

/// Goes on where the last process stopped, once the store says of which format it is and how it is synced from now on.
fn go_on(
    engine: &EngineConfig,
    config: &StoreConfig,
    mut opened: Opened,
) -> Result<Opened, StoreError> {
    let unsynced = config.durability == Durability::Os;
    if (opened.meta.unsynced, opened.meta.format) != (unsynced, FORMAT) {
        (opened.meta.unsynced, opened.meta.format) = (unsynced, FORMAT);
        opened.meta.commit += 1;
        commit_meta(engine, &opened).map_err(|error| StoreError::of(&config.data_dir, &error))?;
    }
    Ok(opened)
}

/// The first commit under a new lineage.
fn begin(
    engine: &EngineConfig,
    config: &StoreConfig,
    mut opened: Opened,
) -> Result<Opened, StoreError> {
    let directory = &config.data_dir;
    let failed = StoreError::directory(directory);
    lineage::renew(directory).map_err(failed)?;
    let marks = lineage::marks(directory).map_err(failed)?;
    let marks = marks.ok_or_else(|| StoreError::damaged(directory, "it has no marker"))?;
    opened.meta.format = FORMAT;
    opened.meta.marks = marks.to_vec();
    opened.meta.lineage = rand::random();
    opened.meta.commit += 1;
    opened.meta.unsynced = config.durability == Durability::Os;
    opened.store.lineage = opened.meta.lineage;
    commit_meta(engine, &opened).map_err(|error| StoreError::of(directory, &error))?;
    // Last: until it is there, the next start takes everything for a copy and begins anew.
    opened.acknowledged.begin(opened.meta.commit, &marks).map_err(failed)?;
    Ok(opened)
}

/// Stores what the store says of itself, and syncs it, whatever is asked of pushes.
fn commit_meta(engine: &EngineConfig, opened: &Opened) -> Result<(), fjall::Error> {
    opened.store.draft(engine, Held::default(), clock::now()).commit(&opened.meta)?;
    opened.store.sync()
}

/// Opens the store, and checks nothing but what the library checks.
pub(super) fn open_unchecked(config: &StoreConfig) -> Result<Store, StoreError> {
    let directory = &config.data_dir;
    check_files(directory, &directory.join(STORE))?;
    let opened = open_once(config);
    let torn = matches!(opened, Ok(Err(fjall::Error::JournalRecovery(_))));
    let failed = StoreError::directory(directory);
    let opened =
        if torn && torn::cut_last_batch(directory, &directory.join(STORE)).map_err(failed)? {
            warn!("the journal ended in a batch that had not reached the disk as a whole");
            open_once(config)
        } else {
            opened
        };
    opened
        .map_err(|_| StoreError::damaged(directory, "it cannot be read"))?
        .map_err(|error| StoreError::of(directory, &error))
}

/// The library may trip over a damaged file.
fn open_once(config: &StoreConfig) -> std::thread::Result<Result<Store, fjall::Error>> {
    let open = || Store::open(&config.data_dir.join(STORE), config.durability);
    catch_unwind(AssertUnwindSafe(open))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::engine::embedded::rows::{FORMAT_BEFORE, Kind};

    fn config(directory: &tempfile::TempDir) -> (EngineConfig, StoreConfig) {
        let engine = crate::config::Config::read(&|_| None).unwrap().engine;
        let data_dir = directory.path().to_owned();
        (engine, StoreConfig { data_dir, durability: Durability::Fsync })
    }

    fn open_again(engine: &EngineConfig, store: &StoreConfig) -> Result<Opened, StoreError> {
        open(engine, store, acquire(store)?)
    }

    #[test]
    fn a_store_that_was_not_finished_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let (engine, store) = config(&directory);
        std::fs::create_dir_all(directory.path().join(UNFINISHED).join("keyspaces")).unwrap();
        std::fs::write(directory.path().join(UNFINISHED).join("version"), "FJ").unwrap();
        assert!(open_again(&engine, &store).is_ok());
        assert!(!directory.path().join(UNFINISHED).exists());
    }

    /// Every file below a directory, with its contents.
    fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(files(&path));
            } else {
                found.push((path.clone(), std::fs::read(path).unwrap()));
            }
        }
        found.sort();
        found
    }

    #[test]
    fn a_store_that_lacks_a_file_is_refused_and_left_as_it_is() {
        for name in ["version", "keyspaces/0/current", "keyspaces/1/current", "0.jnl"] {
            let directory = tempfile::tempdir().unwrap();
            let (engine, store) = config(&directory);
            drop(open_again(&engine, &store).unwrap());
            std::fs::remove_file(directory.path().join(STORE).join(name)).unwrap();
            let before = files(directory.path());
            for _ in 0..2 {
                let refused = open_again(&engine, &store).err().unwrap();
                assert!(matches!(refused, StoreError::Damaged { .. }), "{name}: {refused}");
            }
            assert!(files(directory.path()) == before, "{name}");
        }
    }

    #[test]
    fn a_store_of_a_later_format_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (engine, store) = config(&directory);
        let mut opened = open_again(&engine, &store).unwrap();
        opened.meta.format = FORMAT + 1;
        commit_meta(&engine, &opened).unwrap();
        drop(opened);
        let refused = open_again(&engine, &store).err().unwrap();
        assert!(matches!(refused, StoreError::Format { .. }), "{refused}");
    }

    #[test]
    fn a_store_of_the_format_before_is_read_and_becomes_one_of_this() {
        let directory = tempfile::tempdir().unwrap();
        let (engine, store) = config(&directory);
        let mut opened = open_again(&engine, &store).unwrap();
        opened.meta.format = FORMAT_BEFORE;
        commit_meta(&engine, &opened).unwrap();
        let lineage = opened.store.lineage;
        drop(opened);
        for _ in 0..2 {
            let opened = open_again(&engine, &store).unwrap();
            assert_eq!((opened.store.lineage, opened.meta.format), (lineage, FORMAT));
            let stored = opened.store.view().meta().unwrap().unwrap();
            assert_eq!(stored.format, FORMAT);
        }
    }

    #[test]
    fn the_lineage_stays_while_the_files_do() {
        let directory = tempfile::tempdir().unwrap();
        let (engine, store) = config(&directory);
        let lineage = || open_again(&engine, &store).unwrap().store.lineage;
        let first = lineage();
        assert_eq!(lineage(), first);
        // Whoever restores the file gives it another ctime, once the kernel's clock has ticked.
        let marks = || lineage::marks(directory.path()).unwrap();
        let before = marks();
        while marks() == before {
            lineage::renew(directory.path()).unwrap();
        }
        let second = lineage();
        assert_ne!(second, first);
        std::fs::remove_file(directory.path().join("lineage")).unwrap();
        let third = lineage();
        assert_ne!(third, second);
        // Or, if a tool skips what looks the same, the file that never does.
        let path = directory.path().join("acknowledged");
        std::fs::copy(&path, path.with_extension("new")).unwrap();
        std::fs::rename(path.with_extension("new"), &path).unwrap();
        assert_ne!(lineage(), third);
    }

    #[test]
    fn a_store_that_ends_before_what_was_acknowledged_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (engine, store) = config(&directory);
        let opened = open_again(&engine, &store).unwrap();
        opened.acknowledged.write(opened.meta.commit + 1).unwrap();
        drop(opened);
        let refused = open_again(&engine, &store).err().unwrap();
        assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
    }

    /// Commits some rows of sevens, and zeroes a part of them on the disk, so many bytes before their end.
    fn tear(
        (engine, store): (&EngineConfig, &StoreConfig),
        (rows, size): (u64, usize),
        hole: std::ops::Range<usize>,
        acknowledged: bool,
    ) {
        let mut opened = open_again(engine, store).unwrap();
        let mut draft = opened.store.draft(engine, Held::default(), clock::now());
        for seq in 0..rows {
            draft.put_bytes(Kind::KeyOrder.key(&[1, seq]), vec![7; size]);
        }
        opened.meta.commit += 1;
        drop(draft.commit(&opened.meta).unwrap());
        if acknowledged {
            opened.acknowledged.write(opened.meta.commit).unwrap();
        }
        drop(opened);
        let journal = store.data_dir.join(STORE).join("0.jnl");
        let mut bytes = std::fs::read(&journal).unwrap();
        let end = bytes.iter().rposition(|byte| *byte == 7).unwrap();
        bytes[end - hole.end..end - hole.start].fill(0);
        std::fs::write(&journal, bytes).unwrap();
    }

    #[test]
    fn a_batch_torn_in_its_middle_is_cut_off_unless_it_was_acknowledged() {
        // A hole over many rows, which the library cuts off, and one inside a row, which it does not.
        let tears = [((100, 200), 4900..9000), ((1, 4000), 1000..3000)];
        for ((rows, hole), acknowledged) in
            tears.iter().flat_map(|tear| [(tear, false), (tear, true)])
        {
            let directory = tempfile::tempdir().unwrap();
            let (engine, store) = config(&directory);
            let before = open_again(&engine, &store).unwrap();
            let (lineage, commit) = (before.store.lineage, before.meta.commit);
            drop(before);
            tear((&engine, &store), *rows, hole.clone(), acknowledged);
            match open_again(&engine, &store) {
                Ok(after) => {
                    assert!(!acknowledged);
                    assert_eq!((after.store.lineage, after.meta.commit), (lineage, commit));
                }
                Err(refused) => {
                    assert!(acknowledged, "{refused}");
                    assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
                }
            }
            let kept = directory.path().join("store.torn").exists();
            assert_eq!(kept, rows.0 == 1, "only what the library leaves is cut off here");
        }
    }

    #[test]
    fn what_was_not_synced_before_the_machine_started_is_in_doubt() {
        let directory = tempfile::tempdir().unwrap();
        let (engine, store) = config(&directory);
        let os = StoreConfig { durability: Durability::Os, ..store };
        let opened = open_again(&engine, &os).unwrap();
        assert!(opened.meta.unsynced);
        let note = opened.acknowledged.read().unwrap().unwrap();
        assert!(note.written_at >= booted_at());
        let first = opened.store.lineage;
        drop(opened);
        let again = open_again(&engine, &os).unwrap();
        assert_eq!(again.store.lineage, first, "the process alone ended");
        drop(again);
        // As if the machine had been started since: the note says when the last commit was.
        let mut note = std::fs::OpenOptions::new();
        let note = note.write(true).open(directory.path().join("acknowledged")).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&note, &1_u64.to_be_bytes(), 8).unwrap();
        drop(note);
        assert_ne!(open_again(&engine, &os).unwrap().store.lineage, first);
    }
}
