//! Checks that a store is whole: its files before the library sees them, then every row, and every log without a gap. On
//! the way it finds the duels as they stand.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Instant;

use tracing::info;
use xxhash_rust::xxh3::xxh3_128;

use super::duel_state::DuelStates;
use super::error::{Fault, StoreError};
use super::rows::{self, DuelRow, FORMAT, Kind, META, MetaRow};
use super::store::Store;
use super::ticket_ledger::{LedgerRow, TicketRow, UserRow};
use crate::engine::EngineCounts;
use crate::engine::event_row;
use crate::id::DuelId;

/// Checks that the files are there without which the library would take the others for leftovers, and remove them.
pub(super) fn check_files(directory: &Path, store: &Path) -> Result<(), StoreError> {
    let failed = StoreError::directory(directory);
    for name in ["version", "keyspaces/0/current", "keyspaces/1/current"] {
        if !store.join(name).try_exists().map_err(failed)? {
            return Err(StoreError::damaged(directory, format!("{name} is missing")));
        }
    }
    for entry in fs::read_dir(store.join("keyspaces")).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if name != "0" && name != "1" {
            let what = format!("keyspaces/{} is none of its own", name.display());
            return Err(StoreError::damaged(directory, what));
        }
    }
    for keyspace in ["0", "1"] {
        let keyspace = store.join("keyspaces").join(keyspace);
        if !is_version_whole(&keyspace).map_err(failed)? {
            return Err(StoreError::damaged(directory, "its list of tables is damaged"));
        }
    }
    let is_journal = |entry: io::Result<fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.path().extension().is_some_and(|known| known == "jnl"))
    };
    if fs::read_dir(store).map_err(failed)?.any(is_journal) {
        return Ok(());
    }
    Err(StoreError::damaged(directory, "its journal is missing"))
}

/// Returns whether a keyspace's list of tables has the checksum that `current` says: the list's number, 8 bytes in little-endian,
/// and the XXH3 of the file, 16.
///
/// The library reads the list before it looks at the checksum, and panics at some of what a damaged one says, once more while it
/// unwinds: that would end the process without a word. Which is why the format is known here; the version of fjall is pinned.
fn is_version_whole(keyspace: &Path) -> io::Result<bool> {
    let current = fs::read(keyspace.join("current"))?;
    let number = current.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    let checksum = current.get(8..24).and_then(|bytes| bytes.try_into().ok());
    let (Some(number), Some(checksum)) = (number, checksum.map(u128::from_le_bytes)) else {
        return Ok(false);
    };
    match fs::read(keyspace.join(format!("v{number}"))) {
        Ok(version) => Ok(xxh3_128(&version) == checksum),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads everything in a store, which knows its duels from then on. Returns what it says of itself, and how much it holds.
pub(super) fn check_rows(
    directory: &Path,
    store: &mut Store,
) -> Result<(MetaRow, EngineCounts), StoreError> {
    let failed = |fault: Fault| StoreError::of(directory, &fault);
    let meta = store.snapshot().meta().map_err(|error| failed(error.into()))?;
    let meta = meta.ok_or_else(|| StoreError::damaged(directory, "it has no beginning"))?;
    if meta.format != FORMAT {
        let found = meta.format.to_string();
        return Err(StoreError::Format { directory: directory.to_owned(), found });
    }
    let started = Instant::now();
    let (counts, duels) = Fault::catch(|| read_all(store)).map_err(failed)?;
    store.duels = DuelStates::new(duels);
    let (duels, tickets) = (counts.duels, counts.remembered_tickets);
    info!(duels, tickets, took = ?started.elapsed(), "every row of the store was read");
    Ok((meta, counts))
}

/// Reads every row. Fails if one is malformed, or a log has a gap.
fn read_all(store: &Store) -> Result<(EngineCounts, BTreeMap<DuelId, DuelRow>), Fault> {
    let snapshot = store.snapshot();
    let (mut counts, mut duels) = (EngineCounts::default(), BTreeMap::new());
    for guard in snapshot.everything() {
        let (key, bytes) = guard.into_inner()?;
        match Kind::of(&key) {
            Some(Kind::Duel) => {
                let duel = rows::duel_id(rows::number(&key, 0)?)?;
                let mut row = rows::decode(&bytes)?;
                follow_log(store, duel, &mut row)?;
                counts.duels += usize::from(duel != DuelId::PROBE);
                duels.insert(duel, row);
            }
            Some(Kind::Ticket) => {
                rows::decode::<TicketRow>(&bytes)?.record()?;
                counts.remembered_tickets += 1;
            }
            Some(Kind::Ledger) => {
                rows::decode::<LedgerRow>(&bytes)?;
            }
            Some(Kind::User) => {
                let row: UserRow = rows::decode(&bytes)?;
                row.user_sessions()?;
                counts.remembered_tickets += row.entries();
            }
            // Behind all the duels.
            Some(Kind::KeyOrder) => {
                if let Some(row) = duels.get_mut(&rows::duel_id(rows::number(&key, 0)?)?) {
                    row.count_key(rows::number(&key, 1)?);
                }
            }
            // The logs are read with their duels. Events of no duel are of files that do not belong together.
            Some(Kind::Event) => {
                if !duels.contains_key(&rows::duel_id(rows::number(&key, 0)?)?) {
                    return Err(Fault::Malformed("a log without its duel"));
                }
            }
            // They have no contents that could be wrong.
            Some(Kind::Key | Kind::DuelDue | Kind::TicketDue) => {}
            None if *key == *META => {}
            None => return Err(Fault::Malformed("a key")),
        }
    }
    Ok((counts, duels))
}

/// Reads a log, and makes of the duel's row what it is after the last event.
fn follow_log(store: &Store, duel: DuelId, row: &mut DuelRow) -> Result<(), Fault> {
    row.record(&store.lives)?;
    row.forget_keys();
    let mut expected = row.oldest_seq.max(1);
    let mut retained: Vec<_> = row.retained.iter().map(|retained| retained.seq).collect();
    for guard in store.snapshot().all(Kind::Event, &[duel.get()]) {
        let (key, bytes) = guard.into_inner()?;
        let seq = rows::number(&key, 1)?;
        let event = event_row::read(&bytes, seq)?;
        if seq < row.oldest_seq {
            retained.retain(|other| *other != seq);
        } else if seq == expected {
            expected += 1;
            if seq > row.seq {
                row.follow(&event);
            }
        } else {
            return Err(Fault::Malformed("a log with a gap"));
        }
    }
    if !retained.is_empty() {
        return Err(Fault::Malformed("a log without the latest of a kind"));
    }
    if expected == row.seq + 1 { Ok(()) } else { Err(Fault::Malformed("a log without its end")) }
}
