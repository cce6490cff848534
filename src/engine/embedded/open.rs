//! Opening the store: lock, open, check, begin a life.
//!
//! Everything in it is read once and checked, so that damage is found here and not by a player. That takes 1 to 2 s for
//! 100 MB. Then a random *life* is committed and synced, which gives every duel a new epoch ([`Lives`](super::rows::Lives)).
//! So no position of this process can be taken for one of another, whatever happened to the files in between:
//!
//! - `kill -9`: all that was answered or seen is there, so no life ends before what a client saw of it.
//! - Power loss: with `fsync` the same. With `os` the newest commits may be gone: who saw them is past the life's end.
//! - A copy, cold or hot, restored afresh, over the newer files, byte by byte (`rsync --inplace`), as the directory
//!   `store` alone, or by a snapshot of the disk: it knows the lives up to the copy, and where they end in it. A life
//!   begun after it is unknown to it; one that went on after it ended earlier in it. Who saw more is told so.
//! - Answered commits are missing (a lost end, rot, files of two instants): the store lacks the life or the number in its
//!   [`Note`], and is refused. The note is inside `store`, so it travels with every copy. A hot copy may have taken the
//!   note last, and is refused then; without the file `acknowledged` it is opened with what it has.
//! - Files of a newer store that a copy was put over and did not replace (a journal with a higher number): they do not fit,
//!   unless nothing of them concerns a duel of the copy. What does not fit is damage, and refused.
//! - Not covered: a virtual machine that is rolled back while it runs, because its process begins no new life.
//! - `duelhub store` begins no life. Two stores started from one copy begin different lives.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use tracing::{info, warn};

use super::acknowledged::{Acknowledged, Note};
use super::check::{check_files, check_rows};
use super::error::{Fault, StoreError};
use super::journal_tail;
use super::rows::MetaRow;
use super::store::{Store, StoreHints};
use crate::clock;
use crate::config::{Durability, EngineConfig, StoreConfig};
use crate::engine::EngineCounts;

/// The directory of the store, inside `DATA_DIR`.
const STORE: &str = "store";

/// A store that is being made.
const UNFINISHED: &str = "store.unfinished";

/// The file, inside `DATA_DIR`, that the process has locked to which the directory belongs.
const LOCK: &str = "lock";

/// A store that was checked.
pub(super) struct CheckedStore {
    pub(super) store: Store,
    pub(super) meta: MetaRow,
    pub(super) counts: EngineCounts,
}

/// `DATA_DIR`, held by this process alone for as long as this lives.
#[derive(Debug)]
pub(super) struct DirectoryLock(#[expect(dead_code, reason = "it is held, not used")] File);

/// Locks `config.data_dir`, which is made if it does not exist.
pub(super) fn acquire(config: &StoreConfig) -> Result<DirectoryLock, StoreError> {
    let directory = &config.data_dir;
    let failed = StoreError::directory(directory);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    let mode = directory.metadata().map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        warn!(directory = %directory.display(), mode = %format_args!("{:04o}", mode & 0o7777),
            "DATA_DIR is open to other users of this machine: chmod 700");
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(directory.join(LOCK)).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(DirectoryLock(file)),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(directory.clone())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Locks `config.data_dir` if there is a store. None is made for being looked at.
pub(super) fn acquire_existing(config: &StoreConfig) -> Result<DirectoryLock, StoreError> {
    let directory = &config.data_dir;
    directory.join(STORE).metadata().map_err(StoreError::directory(directory))?;
    acquire(config)
}

/// Opens the store under `config.data_dir` and begins a life. An empty store is made if there is none.
pub(super) fn open(
    engine: &EngineConfig,
    config: &StoreConfig,
) -> Result<(CheckedStore, Acknowledged), StoreError> {
    let directory = &config.data_dir;
    let failed = StoreError::directory(directory);
    if !directory.join(STORE).try_exists().map_err(failed)? {
        info!(directory = %directory.display(), "there is no store: starting with an empty one");
        make(engine, directory)?;
    }
    let mut opened = open_checked(config)?;
    let acknowledged = begin_life(engine, config, &mut opened)?;
    Ok((opened, acknowledged))
}

/// Opens the store again in the same process, after a commit has failed.
///
/// The life goes on, and so does every connection: whatever anybody was told is there, and of the failed commit nobody was
/// told. The one exception is `DURABILITY=os` on a disk that has lost what the kernel was to write. Then a life begins.
pub(super) fn reopen(
    engine: &EngineConfig,
    config: &StoreConfig,
    answered: Note,
    acknowledged: &mut Acknowledged,
) -> Result<CheckedStore, StoreError> {
    let mut opened = open_checked(config)?;
    if answered.is_missing_from(&opened.meta) {
        if config.durability == Durability::Fsync {
            return Err(missing(&config.data_dir, &opened.meta, answered));
        }
        warn!("answered commits are gone: every duel goes on under a new epoch");
        *acknowledged = begin_life(engine, config, &mut opened)?;
    }
    // What was found of the failed commit may be seen from now on.
    opened.store.sync().map_err(|error| StoreError::of(&config.data_dir, &error.into()))?;
    Ok(opened)
}

/// Opens a store that exists, reads all of it, and refuses it if an acknowledged commit is missing.
pub(super) fn open_checked(config: &StoreConfig) -> Result<CheckedStore, StoreError> {
    let directory = &config.data_dir;
    let mut store = open_unchecked(config)?;
    let (meta, counts) = check_rows(directory, &mut store)?;
    match Note::read(&directory.join(STORE)).map_err(StoreError::directory(directory))? {
        Some(note) if note.is_missing_from(&meta) => Err(missing(directory, &meta, note)),
        Some(_) => Ok(CheckedStore { store, meta, counts }),
        None => {
            if meta.commit > 0 {
                warn!("the file acknowledged is missing: the store counts as whole");
            }
            Ok(CheckedStore { store, meta, counts })
        }
    }
}

/// Opens a store, and checks nothing but what the library checks.
pub(super) fn open_unchecked(config: &StoreConfig) -> Result<Store, StoreError> {
    let directory = &config.data_dir;
    let path = directory.join(STORE);
    check_files(directory, &path)?;
    let open = || Fault::catch(|| Ok(Store::open(&path, config.durability)?));
    let mut opened = open();
    if matches!(opened, Err(Fault::Library(fjall::Error::JournalRecovery(_))))
        && journal_tail::cut_torn_end(directory, &path, config.durability)
            .map_err(StoreError::directory(directory))?
    {
        warn!("the journal ended in batches that had not reached the disk as a whole");
        opened = open();
    }
    opened.map_err(|fault| StoreError::of(directory, &fault))
}

fn missing(directory: &Path, meta: &MetaRow, note: Note) -> StoreError {
    let (ends, acknowledged) = (meta.commit, note.commit);
    let what = format!("it ends with commit {ends}, and commit {acknowledged} was acknowledged");
    StoreError::damaged(directory, what)
}

/// Makes an empty store beside where it belongs, and puts it there when it is whole. An interruption leaves none.
fn make(engine: &EngineConfig, directory: &Path) -> Result<(), StoreError> {
    let failed = StoreError::directory(directory);
    let path = directory.join(UNFINISHED);
    match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let meta = MetaRow::new();
    Store::open(&path, Durability::Fsync)
        .and_then(|store| commit_meta(engine, &store, &meta))
        .map_err(|error| StoreError::of(directory, &error.into()))?;
    fs::rename(&path, directory.join(STORE)).map_err(failed)?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}

/// The first commit of a life.
fn begin_life(
    engine: &EngineConfig,
    config: &StoreConfig,
    opened: &mut CheckedStore,
) -> Result<Acknowledged, StoreError> {
    let directory = &config.data_dir;
    let failed = StoreError::directory(directory);
    opened.meta.begin_life();
    opened.meta.commit += 1;
    opened.store.lives = opened.meta.lives();
    // Before the commit: a life that is spent without a note of it makes the last one known grow old.
    let acknowledged = Acknowledged::open(&directory.join(STORE)).map_err(failed)?;
    commit_meta(engine, &opened.store, &opened.meta)
        .map_err(|error| StoreError::of(directory, &error.into()))?;
    acknowledged.begin(Note::of(&opened.meta)).map_err(failed)?;
    Ok(acknowledged)
}

/// Stores what the store says of itself, and syncs it, whatever is asked of pushes.
fn commit_meta(engine: &EngineConfig, store: &Store, meta: &MetaRow) -> Result<(), fjall::Error> {
    store.batch(engine, StoreHints::default(), clock::now()).commit(meta)?;
    store.sync()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::engine::embedded::rows::{FORMAT, Kind};

    fn config(directory: &tempfile::TempDir) -> (EngineConfig, StoreConfig) {
        let engine = crate::config::Config::read(&|_| None).unwrap().engine;
        let data_dir = directory.path().to_owned();
        (engine, StoreConfig { data_dir, durability: Durability::Fsync })
    }

    /// Commits a row of sevens, of so many bytes.
    fn commit(engine: &EngineConfig, opened: &mut CheckedStore, rows: u64, size: usize) {
        let mut batch = opened.store.batch(engine, StoreHints::default(), clock::now());
        for seq in 0..rows {
            batch.put_bytes(Kind::KeyOrder.key(&[1, seq]), vec![7; size]);
        }
        opened.meta.commit += 1;
        drop(batch.commit(&opened.meta).unwrap());
    }

    #[test]
    fn a_store_that_was_not_finished_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let (engine, store) = config(&directory);
        fs::create_dir_all(directory.path().join(UNFINISHED).join("keyspaces")).unwrap();
        fs::write(directory.path().join(UNFINISHED).join("version"), "FJ").unwrap();
        assert!(open(&engine, &store).is_ok());
        assert!(!directory.path().join(UNFINISHED).exists());
    }

    /// Every file below a directory, with its contents.
    fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(files(&path));
            } else {
                found.push((path.clone(), fs::read(path).unwrap()));
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
            drop(open(&engine, &store).unwrap());
            fs::remove_file(directory.path().join(STORE).join(name)).unwrap();
            let before = files(directory.path());
            for _ in 0..2 {
                let refused = open(&engine, &store).err().unwrap();
                assert!(matches!(refused, StoreError::Damaged { .. }), "{name}: {refused}");
            }
            assert!(files(directory.path()) == before, "{name}");
        }
    }

    #[test]
    fn a_damaged_list_of_tables_is_refused_whichever_byte_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let (engine, store) = config(&directory);
        drop(open(&engine, &store).unwrap());
        let keyspaces = directory.path().join(STORE).join("keyspaces");
        let lists: Vec<_> = files(&keyspaces)
            .into_iter()
            .filter(|(path, _)| path.file_name().unwrap().as_encoded_bytes().starts_with(b"v"))
            .collect();
        assert!(lists.len() >= 2, "{lists:?}");
        for (path, whole) in &lists {
            for at in 0..whole.len() {
                let mut damaged = whole.clone();
                damaged[at] ^= 0x75;
                fs::write(path, damaged).unwrap();
                let refused = open(&engine, &store).err().unwrap();
                assert!(matches!(refused, StoreError::Damaged { .. }), "{at}: {refused}");
            }
            fs::write(path, whole).unwrap();
        }
        assert!(open(&engine, &store).is_ok());
    }

    #[test]
    fn a_store_of_another_format_is_refused() {
        for format in [FORMAT - 1, FORMAT + 1] {
            let directory = tempfile::tempdir().unwrap();
            let (engine, store) = config(&directory);
            let (mut opened, _) = open(&engine, &store).unwrap();
            opened.meta.format = format;
            commit_meta(&engine, &opened.store, &opened.meta).unwrap();
            drop(opened);
            let refused = open(&engine, &store).err().unwrap();
            assert!(matches!(refused, StoreError::Format { .. }), "{refused}");
        }
    }

    #[test]
    fn every_start_begins_a_life_and_checking_begins_none() {
        let directory = tempfile::tempdir().unwrap();
        let (engine, store) = config(&directory);
        let mut lives = Vec::new();
        for _ in 0..20 {
            let life = open(&engine, &store).unwrap().0.meta.present_life();
            assert!(!lives.contains(&life));
            lives.push(life);
            let checked = open_checked(&store).unwrap();
            assert_eq!(checked.meta.present_life(), life);
            assert!(lives.iter().rev().take(17).all(|life| checked.meta.knows_life(*life)));
        }
        let meta = open_checked(&store).unwrap().meta;
        assert!(!lives[..3].iter().any(|life| meta.knows_life(*life)));
    }

    #[test]
    fn a_store_without_what_was_acknowledged_is_refused_unless_nobody_knows() {
        let directory = tempfile::tempdir().unwrap();
        let (engine, store) = config(&directory);
        let (opened, acknowledged) = open(&engine, &store).unwrap();
        let note = Note::of(&opened.meta);
        drop(opened);
        let too_new = Note { commit: note.commit + 1, ..note };
        for lost in [too_new, Note { life: note.life ^ 1, ..note }] {
            acknowledged.write(lost).unwrap();
            let refused = open(&engine, &store).err().unwrap();
            assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
        }
        fs::remove_file(directory.path().join(STORE).join("acknowledged")).unwrap();
        assert!(open(&engine, &store).is_ok());
    }

    #[test]
    fn opened_again_in_a_process_the_life_goes_on_unless_answers_were_lost() {
        for durability in [Durability::Fsync, Durability::Os] {
            let directory = tempfile::tempdir().unwrap();
            let (engine, store) = config(&directory);
            let store = StoreConfig { durability, ..store };
            let (mut opened, mut acknowledged) = open(&engine, &store).unwrap();
            commit(&engine, &mut opened, 1, 10);
            let answered = Note::of(&opened.meta);
            drop(opened);
            let mut again = |answered| reopen(&engine, &store, answered, &mut acknowledged);
            let opened = again(answered).unwrap();
            assert_eq!(opened.meta.present_life(), answered.life);
            drop(opened);
            let lost = again(Note { commit: answered.commit + 1, ..answered });
            match durability {
                Durability::Fsync => assert!(lost.is_err()),
                Durability::Os => assert_ne!(lost.unwrap().meta.present_life(), answered.life),
            }
        }
    }

    /// Commits some rows of sevens, and zeroes a part of them on the disk, so many bytes before their end.
    fn tear(
        (engine, store): (&EngineConfig, &StoreConfig),
        (rows, size): (u64, usize),
        hole: std::ops::Range<usize>,
        answered: bool,
    ) {
        let (mut opened, acknowledged) = open(engine, store).unwrap();
        commit(engine, &mut opened, rows, size);
        if answered {
            acknowledged.write(Note::of(&opened.meta)).unwrap();
        }
        drop(opened);
        let journal = store.data_dir.join(STORE).join("0.jnl");
        let mut bytes = fs::read(&journal).unwrap();
        let end = bytes.iter().rposition(|byte| *byte == 7).unwrap();
        bytes[end - hole.end..end - hole.start].fill(0);
        fs::write(&journal, bytes).unwrap();
    }

    #[test]
    fn events_of_no_duel_are_damage() {
        let directory = tempfile::tempdir().unwrap();
        let (engine, store) = config(&directory);
        let (opened, _) = open(&engine, &store).unwrap();
        let mut batch = opened.store.batch(&engine, StoreHints::default(), clock::now());
        batch.put_bytes(Kind::Event.key(&[5, 1]), []);
        drop(batch.commit(&opened.meta).unwrap());
        drop(opened);
        let refused = open(&engine, &store).err().unwrap();
        assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
    }

    #[test]
    fn a_hole_before_the_last_batch_is_damage_unless_nothing_was_synced() {
        for durability in [Durability::Fsync, Durability::Os] {
            let directory = tempfile::tempdir().unwrap();
            let (engine, store) = config(&directory);
            let store = StoreConfig { durability, ..store };
            let (mut opened, _) = open(&engine, &store).unwrap();
            (0..3).for_each(|_| commit(&engine, &mut opened, 1, 4000));
            drop(opened);
            let journal = directory.path().join(STORE).join("0.jnl");
            let mut bytes = fs::read(&journal).unwrap();
            let value = bytes.windows(4000).position(|value| value == [7; 4000]).unwrap();
            bytes[value + 1000..value + 2000].fill(0);
            fs::write(&journal, bytes).unwrap();
            let before = files(directory.path());
            for _ in 0..2 {
                match (durability, open(&engine, &store)) {
                    (Durability::Fsync, Err(refused)) => {
                        assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
                        assert!(files(directory.path()) == before, "it is left as it is");
                    }
                    (Durability::Os, Ok(_)) => {}
                    (_, opened) => panic!("{durability:?}: {:?}", opened.err()),
                }
            }
            let kept = directory.path().join("store.torn").exists();
            assert_eq!(kept, durability == Durability::Os);
        }
    }

    #[test]
    fn a_batch_torn_in_its_middle_is_cut_off_unless_it_was_acknowledged() {
        // A hole over many rows, which the library cuts off, and one inside a row, which it does not.
        let tears = [((100, 200), 4900..9000), ((1, 4000), 1000..3000)];
        for ((rows, hole), answered) in tears.iter().flat_map(|tear| [(tear, false), (tear, true)])
        {
            let directory = tempfile::tempdir().unwrap();
            let (engine, store) = config(&directory);
            tear((&engine, &store), *rows, hole.clone(), answered);
            match open(&engine, &store) {
                // The second life's first commit is the one after the first life's.
                Ok((opened, _)) => assert_eq!((answered, opened.meta.commit), (false, 2)),
                Err(refused) => {
                    assert!(answered, "{refused}");
                    assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
                }
            }
            let kept = directory.path().join("store.torn").exists();
            assert_eq!(kept, rows.0 == 1, "only what the library leaves is cut off here");
        }
    }
}
