//! Opening the store: everything in it is read once and checked, so that a damaged one is refused and not found out by a
//! player. Reading it all takes about a second for a gigabyte.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Instant;

use tracing::{info, warn};

use super::Fault;
use super::lineage::{self, Acknowledged};
use super::rows::{self, DuelRow, EventRow, FORMAT, Kind, MetaRow, RevokedUserRow, TicketRow};
use super::store::{Held, KnownDuels, Store};
use crate::clock;
use crate::config::{Durability, EngineConfig, StoreConfig};
use crate::engine::EngineCounts;
use crate::id::DuelId;

/// The directory of the store, inside `DATA_DIR`.
const STORE: &str = "store";

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("DATA_DIR: {0} is in use by another duelhub")]
    InUse(PathBuf),
    /// The directory cannot be made or read.
    #[error("DATA_DIR: {directory}: {error}")]
    Directory {
        /// Which.
        directory: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It was written by another version.
    #[error(
        "DATA_DIR: the store in {directory} has format {found}, and this version reads {FORMAT}: \
         use the version that wrote it"
    )]
    Format {
        /// Which.
        directory: PathBuf,
        /// What it says of itself.
        found: String,
    },
    /// It does not hold what it must.
    #[error(
        "DATA_DIR: the store in {directory} is damaged: {what}. duelhub store export saves what can be \
         read of it, duelhub store check tells whether it is whole; restore a copy, or move the \
         directory away to start empty"
    )]
    Damaged {
        /// Which.
        directory: PathBuf,
        /// What is wrong.
        what: String,
    },
}

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
    /// They are the same, and end before what was acknowledged.
    Cut {
        /// The last commit in the store.
        ends: u64,
        /// The last commit that was acknowledged.
        acknowledged: u64,
    },
}

/// Opens the store under `config.data_dir`, which is made if it is not there.
pub(super) fn open(engine: &EngineConfig, config: &StoreConfig) -> Result<Opened, StoreError> {
    let directory = &config.data_dir;
    let failed = |error| StoreError::Directory { directory: directory.clone(), error };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    let is_new = !directory.join(STORE).try_exists().map_err(failed)?;
    let store = open_unchecked(config)?;
    let (meta, counts) = check(&store, directory)?;
    let acknowledged = Acknowledged::open(directory).map_err(failed)?;
    let answered = acknowledged.read().map_err(failed)?;
    let Some(meta) = meta else {
        if !is_new && (answered > 0 || counts != EngineCounts::default()) {
            return Err(damaged(directory, "it has no beginning"));
        }
        if answered > 0 {
            warn!(directory = %directory.display(), "the store is gone: starting with an empty one");
        }
        let meta = MetaRow { format: FORMAT, ..MetaRow::default() };
        return begin(engine, config, Opened { store, meta, counts, acknowledged });
    };
    let continuity = compare(directory, &meta, answered).map_err(failed)?;
    let opened = Opened { store, meta, counts, acknowledged };
    match continuity {
        Continuity::Same => return Ok(opened),
        Continuity::Copy => {
            warn!("the store was restored from a copy: every duel goes on under a new epoch");
        }
        Continuity::Cut { ends, acknowledged } if config.durability == Durability::Os => warn!(
            ends,
            acknowledged,
            "with DURABILITY=os the last commits were lost: every duel goes on under a new epoch"
        ),
        Continuity::Cut { ends, acknowledged } => return Err(cut(directory, ends, acknowledged)),
    }
    begin(engine, config, opened)
}

fn compare(directory: &Path, meta: &MetaRow, answered: u64) -> io::Result<Continuity> {
    let ends = meta.commit;
    Ok(match lineage::mark(directory)? {
        Some(mark) if mark == meta.mark && ends < answered => {
            Continuity::Cut { ends, acknowledged: answered }
        }
        Some(mark) if mark == meta.mark => Continuity::Same,
        _ => Continuity::Copy,
    })
}

/// Opens a store that is there, and reads all of it.
pub(super) fn open_existing(config: &StoreConfig) -> Result<(Store, EngineCounts), StoreError> {
    let directory = &config.data_dir;
    let failed = |error| StoreError::Directory { directory: directory.clone(), error };
    directory.join(STORE).metadata().map_err(failed)?;
    let store = open_unchecked(config)?;
    let (meta, counts) = check(&store, directory)?;
    let meta = meta.ok_or_else(|| damaged(directory, "it has no beginning"))?;
    let answered = Acknowledged::open(directory).and_then(|file| file.read()).map_err(failed)?;
    match compare(directory, &meta, answered).map_err(failed)? {
        Continuity::Cut { ends, acknowledged } => Err(cut(directory, ends, acknowledged)),
        Continuity::Same | Continuity::Copy => Ok((store, counts)),
    }
}

/// The first commit under a new lineage.
fn begin(
    engine: &EngineConfig,
    config: &StoreConfig,
    mut opened: Opened,
) -> Result<Opened, StoreError> {
    let directory = &config.data_dir;
    let failed = |error| StoreError::Directory { directory: directory.clone(), error };
    let Opened { store, meta, acknowledged, .. } = &mut opened;
    meta.mark = lineage::make_mark(directory).map_err(failed)?;
    meta.lineage = rand::random();
    meta.commit += 1;
    store.lineage = meta.lineage;
    // Before the commit: what it says of an older store must not refuse this one.
    acknowledged.write(0).map_err(failed)?;
    let known = KnownDuels::default();
    let draft = store.draft(engine, &known, Held::default(), clock::now());
    draft.commit(meta).map_err(|error| refusal(directory, &error))?;
    Ok(opened)
}

/// Opens the store, and checks nothing but what the library checks.
pub(super) fn open_unchecked(config: &StoreConfig) -> Result<Store, StoreError> {
    let directory = &config.data_dir;
    // The library may trip over a damaged file.
    let open = || Store::open(&directory.join(STORE), config.durability);
    let opened = catch_unwind(AssertUnwindSafe(open));
    opened
        .map_err(|_| damaged(directory, "it cannot be read"))?
        .map_err(|error| refusal(directory, &error))
}

/// Reads everything in a store.
fn check(store: &Store, directory: &Path) -> Result<(Option<MetaRow>, EngineCounts), StoreError> {
    let meta = store.view().meta().map_err(|error| refusal(directory, &error))?;
    if let Some(meta) = &meta
        && meta.format != FORMAT
    {
        let found = meta.format.to_string();
        return Err(StoreError::Format { directory: directory.to_owned(), found });
    }
    let started = Instant::now();
    let read = catch_unwind(AssertUnwindSafe(|| read_all(store)));
    let counts = read
        .map_err(|_| damaged(directory, "it cannot be read"))?
        .map_err(|fault| damaged(directory, &fault.to_string()))?;
    let (duels, tickets) = (counts.duels, counts.remembered_tickets);
    info!(duels, tickets, bytes = store.disk_bytes(), took = ?started.elapsed(), "the store is whole");
    Ok((meta, counts))
}

/// Why the library does not open the store.
fn refusal(directory: &Path, error: &fjall::Error) -> StoreError {
    if matches!(error, fjall::Error::Locked) {
        return StoreError::InUse(directory.to_owned());
    }
    if let fjall::Error::InvalidVersion(found) = error {
        let found = found.map_or_else(|| "unknown".to_owned(), |found| format!("fjall {found}"));
        return StoreError::Format { directory: directory.to_owned(), found };
    }
    damaged(directory, &error.to_string())
}

fn damaged(directory: &Path, what: &str) -> StoreError {
    StoreError::Damaged { directory: directory.to_owned(), what: what.to_owned() }
}

fn cut(directory: &Path, ends: u64, acknowledged: u64) -> StoreError {
    let what = format!("it ends with commit {ends}, and commit {acknowledged} was acknowledged");
    damaged(directory, &what)
}

/// Reads every row, and counts: an error if one is malformed, or a log has a gap.
fn read_all(store: &Store) -> Result<EngineCounts, Fault> {
    let view = store.view();
    let mut counts = EngineCounts::default();
    for guard in view.everything() {
        let (key, bytes) = guard.into_inner()?;
        match key.first().copied() {
            Some(b'd') => {
                let duel = rows::duel_id(rows::number(&key, 0)?)?;
                check_log(store, duel, &rows::decode(&bytes)?)?;
                counts.duels += usize::from(duel != DuelId::PROBE);
            }
            Some(b't') => {
                rows::decode::<TicketRow>(&bytes)?;
                counts.remembered_tickets += 1;
            }
            Some(b'u') => {
                rows::decode::<RevokedUserRow>(&bytes)?;
                counts.remembered_tickets += 1;
            }
            // The logs are read with their duels; the rest has no contents that could be wrong.
            Some(b'e' | b'k' | b'o' | b'x' | b'y' | b'm') => {}
            _ => return Err(Fault::Malformed("a key")),
        }
    }
    Ok(counts)
}

fn check_log(store: &Store, duel: DuelId, row: &DuelRow) -> Result<(), Fault> {
    row.record(store.lineage)?;
    let mut expected = row.oldest_seq;
    let mut fallen: Vec<_> = row.fallen.iter().map(|fallen| fallen.seq).collect();
    for guard in store.view().all(Kind::Event, &[duel.get()]) {
        let (key, bytes) = guard.into_inner()?;
        let seq = rows::number(&key, 1)?;
        rows::decode::<EventRow>(&bytes)?.into_event(seq)?;
        if seq < row.oldest_seq {
            fallen.retain(|other| *other != seq);
        } else if seq == expected {
            expected += 1;
        } else {
            return Err(Fault::Malformed("a log with a gap"));
        }
    }
    if !fallen.is_empty() {
        return Err(Fault::Malformed("a log without the latest of a kind"));
    }
    let whole = if row.seq == 0 { row.oldest_seq == 0 } else { expected == row.seq + 1 };
    if whole { Ok(()) } else { Err(Fault::Malformed("a log without its end")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(directory: &tempfile::TempDir) -> (EngineConfig, StoreConfig) {
        let engine = crate::config::Config::read(&|_| None).unwrap().engine;
        let data_dir = directory.path().to_owned();
        (engine, StoreConfig { data_dir, durability: Durability::Fsync })
    }

    #[test]
    fn a_store_of_a_later_format_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (engine, store) = config(&directory);
        let mut opened = open(&engine, &store).unwrap();
        opened.meta.format = FORMAT + 1;
        drop(begin(&engine, &store, opened).unwrap());
        let refused = open(&engine, &store).err().unwrap();
        assert!(matches!(refused, StoreError::Format { .. }), "{refused}");
    }

    #[test]
    fn the_lineage_stays_while_the_files_do() {
        let directory = tempfile::tempdir().unwrap();
        let (engine, store) = config(&directory);
        let lineage = || open(&engine, &store).unwrap().store.lineage;
        let first = lineage();
        assert_eq!(lineage(), first);
        // Whoever restores the file gives it another ctime.
        lineage::make_mark(directory.path()).unwrap();
        let second = lineage();
        assert_ne!(second, first);
        std::fs::remove_file(directory.path().join("lineage")).unwrap();
        assert_ne!(lineage(), second);
    }

    #[test]
    fn a_store_that_ends_before_what_was_acknowledged_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (engine, store) = config(&directory);
        let opened = open(&engine, &store).unwrap();
        opened.acknowledged.write(opened.meta.commit + 1).unwrap();
        drop(opened);
        let refused = open(&engine, &store).err().unwrap();
        assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
        let os = StoreConfig { durability: Durability::Os, ..store };
        assert!(open(&engine, &os).is_ok(), "that is what DURABILITY=os does not promise");
    }
}
