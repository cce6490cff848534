//! The store: one keyspace of rows ([`super::rows`]). It is read through a [`Snapshot`] and changed through a
//! [`WriteBatch`].
//!
//! Bounds: 8 MiB of rows not yet in tables, and twice as much that is being written; 8 MiB of cache, 128 MiB of journals, 64
//! descriptors. The tables hold what the engine's bounds allow.

use std::collections::BTreeMap;
use std::collections::hash_map::{Entry, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fjall::compaction::Leveled;
use fjall::{
    AbstractTree as _, Database, Iter, Keyspace, KeyspaceCreateOptions, PersistMode, Readable as _,
    UserKey, UserValue,
};
use prost::Message;

use super::duel_state::DuelStates;
use super::error::Fault;
use super::rows::{self, DuelRow, Kind, Lives, META, MetaRow};
use crate::clock::UnixMs;
use crate::config::{Durability, EngineConfig};
use crate::engine::event_row;
use crate::engine::{EngineCounts, Notice};
use crate::event::Event;
use crate::id::DuelId;

/// Rows that are not yet in tables, in bytes; reached, they become a table. In memory a small row takes twice what it has.
const MEMTABLE_BYTES: u64 = 8 << 20;

/// A table; four of them make a level that is merged as a whole, which is what needs room on the disk.
const TABLE_BYTES: u64 = 8 << 20;

/// Tables that wait to be written, and to be merged, beyond which a commit waits. Far below where the library would stop
/// by itself, for as long as it takes, whether or not it can ever go on.
const UNWRITTEN_MAX: usize = 2;
const UNMERGED_MAX: usize = 16;

/// Between two checks whether there are fewer.
const BACKLOG_PAUSE: Duration = Duration::from_millis(1);

/// Blocks of tables kept in memory, in bytes. What is read often are filters and indexes, a hundredth of the tables. The kernel
/// keeps the files as well.
const CACHE_BYTES: u64 = 8 << 20;

/// So many closed snapshots later the library looks which instants are still read.
const SNAPSHOTS_UNTIL_LOOK: usize = 10_000;

/// Journals of rows that are not yet in tables, in bytes.
const JOURNAL_BYTES: u64 = 128 << 20;

/// Descriptors of tables.
const TABLES_OPEN_MAX: usize = 64;

/// An open store.
pub(super) struct Store {
    // The keyspace before the database, which waits for its own threads when it is dropped.
    rows: Keyspace,
    database: Database,
    persist: PersistMode,
    pub(super) lives: Lives,
    /// The duels as they stand; none before all of the store was read.
    pub(super) duels: DuelStates,
}

impl Store {
    /// Opens the store in `directory`, which is made if it is not there. Nothing is checked yet but what the library checks.
    pub(super) fn open(directory: &Path, durability: Durability) -> Result<Self, fjall::Error> {
        let database = Database::builder(directory)
            .cache_size(CACHE_BYTES)
            .max_cached_files(Some(TABLES_OPEN_MAX))
            .max_journaling_size(JOURNAL_BYTES)
            // Nothing reaches the journal but by a commit, which says how it is persisted.
            .manual_journal_persist(true)
            // A second one would spin while the first one merges.
            .worker_threads(1)
            .open()?;
        let options = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(MEMTABLE_BYTES)
                .compaction_strategy(Arc::new(
                    Leveled::default().with_table_target_size(TABLE_BYTES),
                ))
                .manual_journal_persist(true)
        };
        let rows = database.keyspace("rows", options)?;
        let persist = match durability {
            Durability::Fsync => PersistMode::SyncData,
            Durability::Os => PersistMode::Buffer,
        };
        let (lives, duels) = (Lives::default(), DuelStates::default());
        let mut store = Self { rows, database, persist, lives, duels };
        store.lives = store.snapshot().meta()?.unwrap_or_default().lives();
        Ok(store)
    }

    /// Returns what was committed until now.
    pub(super) fn snapshot(&self) -> Snapshot<'_> {
        Snapshot { store: self, rows: self.database.snapshot() }
    }

    /// Begins changes.
    pub(super) fn batch<'a>(
        &'a self,
        config: &'a EngineConfig,
        hints: StoreHints,
        now: UnixMs,
    ) -> WriteBatch<'a> {
        WriteBatch {
            snapshot: self.snapshot(),
            lives: &self.lives,
            config,
            now,
            hints,
            notices: Vec::new(),
            changes: BTreeMap::new(),
            duels: HashMap::new(),
        }
    }

    /// Waits until the library has caught up with what was committed. It gives no signal, so it is polled.
    pub(super) fn wait_for_backlog(&self) -> Result<(), fjall::Error> {
        while self.rows.sealed_memtable_count() > UNWRITTEN_MAX
            || self.rows.l0_table_count() > UNMERGED_MAX
        {
            // Fails once the library has given up.
            self.database.persist(PersistMode::Buffer)?;
            std::thread::park_timeout(BACKLOG_PAUSE);
        }
        Ok(())
    }

    /// Lets go of rows in memory that have become a table. Takes some 2 ms if there are any.
    ///
    /// The library keeps them for snapshots of earlier instants, and asks for those when the next rows become a table, which in
    /// a quiet hour is never. It counts closed snapshots to know when to look for the earliest.
    pub(super) fn forget_written_rows(&self) -> Result<(), fjall::Error> {
        let (tree, snapshots) = (&self.rows.tree, &self.database.supervisor.snapshot_tracker);
        let is_kept = || tree.version_memtable_size_sum() > tree.active_memtable().size();
        if self.rows.sealed_memtable_count() > 0 || !is_kept() {
            return Ok(());
        }
        let looked_at = snapshots.get_seqno_safe_to_gc();
        for _ in 0..SNAPSHOTS_UNTIL_LOOK {
            if snapshots.get_seqno_safe_to_gc() != looked_at {
                break;
            }
            drop(self.database.snapshot());
        }
        let unread_before = snapshots.get_seqno_safe_to_gc();
        Ok(tree.get_version_history_lock().maintenance(self.rows.path(), unread_before)?)
    }

    /// Has the disk have everything that was committed.
    pub(super) fn sync(&self) -> Result<(), fjall::Error> {
        self.database.persist(PersistMode::SyncAll)
    }
}

/// What can be read at one instant.
pub(super) struct Snapshot<'a> {
    pub(super) store: &'a Store,
    rows: fjall::Snapshot,
}

impl Snapshot<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<UserValue>, fjall::Error> {
        self.rows.get(&self.store.rows, key)
    }

    pub(super) fn meta(&self) -> Result<Option<MetaRow>, fjall::Error> {
        // A row that cannot be read is of no format that this version knows.
        Ok(self.get(META)?.map(|bytes| MetaRow::decode(&*bytes).unwrap_or_default()))
    }

    /// The row at `key`.
    pub(super) fn row<M: Message + Default>(&self, key: &[u8]) -> Result<Option<M>, Fault> {
        self.get(key)?.map(|bytes| rows::decode(&bytes)).transpose()
    }

    /// Returns the duel as it stands, which may be after an event or two that this snapshot does not have. Returns `None` as well
    /// if the duel began anew between the two: its number then stands for other events here.
    pub(super) fn duel(&self, duel: DuelId) -> Result<Option<DuelRow>, Fault> {
        let Some(row) = self.store.duels.get(duel) else { return Ok(None) };
        let stored: Option<DuelRow> = self.row(&Kind::Duel.key(&[duel.get()]))?;
        Ok(stored.is_some_and(|stored| stored.is_same_duel(&row)).then_some(row))
    }

    /// The rows of a kind whose keys begin with `numbers`, in order.
    pub(super) fn all(&self, kind: Kind, numbers: &[u64]) -> Iter {
        self.rows.prefix(&self.store.rows, kind.key(numbers))
    }

    /// The rows of a kind from one key on and before another, in order.
    pub(super) fn between(&self, kind: Kind, from: &[u64], before: &[u64]) -> Iter {
        self.rows.range(&self.store.rows, kind.key(from)..kind.key(before))
    }

    /// Every row there is, in order.
    pub(super) fn everything(&self) -> Iter {
        self.rows.iter(&self.store.rows)
    }
}

/// What is known of the store without reading it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct StoreHints {
    pub(super) counts: EngineCounts,
    /// No [`Kind::DuelDue`] is of an earlier instant, so pruning does not search through tombstones.
    pub(super) duels_due: u64,
    /// The same of [`Kind::TicketDue`].
    pub(super) tickets_due: u64,
}

/// A duel as a batch leaves it.
struct ChangedDuel {
    /// `None`: taken out.
    row: Option<DuelRow>,
    /// Whether the row is to be stored; otherwise its events say what has changed.
    stored: bool,
}

/// Changes that become true together, or not at all.
///
/// Reading through it finds what it has changed. Dropped, nothing has happened.
pub(super) struct WriteBatch<'a> {
    snapshot: Snapshot<'a>,
    pub(super) lives: &'a Lives,
    pub(super) config: &'a EngineConfig,
    pub(super) now: UnixMs,
    /// What will be known.
    pub(super) hints: StoreHints,
    /// What is to be told once it is true.
    pub(super) notices: Vec<Notice>,
    /// Rows by key; `None`: taken out.
    changes: BTreeMap<UserKey, Option<UserValue>>,
    /// Duels, which are encoded once, however often they change.
    duels: HashMap<DuelId, ChangedDuel>,
}

impl WriteBatch<'_> {
    /// The row at `key`.
    pub(super) fn row<M: Message + Default>(&self, key: &[u8]) -> Result<Option<M>, Fault> {
        let bytes = match self.changes.get(key) {
            Some(changed) => changed.clone(),
            None => self.snapshot.get(key)?,
        };
        bytes.map(|bytes| rows::decode(&bytes)).transpose()
    }

    pub(super) fn duel(&self, duel: DuelId) -> Option<DuelRow> {
        self.duels
            .get(&duel)
            .map_or_else(|| self.snapshot.store.duels.get(duel), |changed| changed.row.clone())
    }

    /// The first `count` rows from one key on and before another, in order.
    pub(super) fn first(
        &self,
        kind: Kind,
        from: &[u64],
        before: &[u64],
        count: usize,
    ) -> Result<Vec<(UserKey, UserValue)>, Fault> {
        let mut found = Vec::new();
        for guard in self.snapshot.between(kind, from, before) {
            if found.len() == count {
                break;
            }
            let (key, value) = guard.into_inner()?;
            if !self.changes.contains_key(&*key) {
                found.push((key, value));
            }
        }
        let changed = self.changes.range(kind.key(from)..kind.key(before));
        let put = changed.filter_map(|(key, value)| Some((key.clone(), value.clone()?)));
        found.extend(put);
        found.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        found.truncate(count);
        Ok(found)
    }

    /// The first `count` rows that are due by `now`, of which none is of an instant before `from`.
    pub(super) fn due(
        &self,
        kind: Kind,
        from: u64,
        now: UnixMs,
        count: usize,
    ) -> Result<Vec<(UserKey, UserValue)>, Fault> {
        let before = now.0.saturating_add(1);
        self.first(kind, &[from.min(before)], &[before], count)
    }

    pub(super) fn put(&mut self, key: UserKey, row: &impl Message) {
        self.put_bytes(key, row.encode_to_vec());
    }

    pub(super) fn put_bytes(&mut self, key: UserKey, bytes: impl Into<UserValue>) {
        self.changes.insert(key, Some(bytes.into()));
    }

    pub(super) fn remove(&mut self, key: UserKey) {
        self.changes.insert(key, None);
    }

    pub(super) fn put_duel(&mut self, duel: DuelId, row: DuelRow) {
        self.duels.insert(duel, ChangedDuel { row: Some(row), stored: true });
    }

    /// A duel that has changed by nothing but what its new events say.
    pub(super) fn follow_duel(&mut self, duel: DuelId, row: DuelRow) {
        match self.duels.entry(duel) {
            Entry::Occupied(mut changed) => changed.get_mut().row = Some(row),
            Entry::Vacant(unchanged) => {
                unchanged.insert(ChangedDuel { row: Some(row), stored: false });
            }
        }
    }

    pub(super) fn remove_duel(&mut self, duel: DuelId) {
        self.duels.insert(duel, ChangedDuel { row: None, stored: true });
    }

    /// Whether there is anything to commit.
    pub(super) fn is_changed(&self) -> bool {
        !self.changes.is_empty() || !self.duels.is_empty()
    }

    /// Makes the changes true, as durably as the store was opened. A failure leaves the store unusable, and the changes may
    /// be found in it when it is opened again.
    ///
    /// The store's [`DuelStates`] are told when they are true.
    pub(super) fn commit(mut self, meta: &MetaRow) -> Result<Committed, fjall::Error> {
        self.put(META.into(), meta);
        let store = self.snapshot.store;
        let mut batch = store.database.batch().durability(Some(store.persist));
        for (duel, changed) in self.duels.iter().filter(|(_, changed)| changed.stored) {
            let key = Kind::Duel.key(&[duel.get()]);
            match &changed.row {
                Some(row) => batch.insert(&store.rows, key, row.encode_to_vec()),
                None => batch.remove(&store.rows, key),
            }
        }
        for (key, change) in self.changes {
            match change {
                Some(value) => batch.insert(&store.rows, key, value),
                None => batch.remove(&store.rows, key),
            }
        }
        batch.commit()?;
        store.duels.learn(self.duels.into_iter().map(|(duel, changed)| (duel, changed.row)));
        Ok(Committed { hints: self.hints, notices: self.notices })
    }

    /// Returns what a batch without changes has become.
    pub(super) fn unchanged(self) -> Committed {
        Committed { hints: self.hints, notices: self.notices }
    }
}

/// What a batch has become.
pub(super) struct Committed {
    pub(super) hints: StoreHints,
    pub(super) notices: Vec<Notice>,
}

/// The event in a row of a log.
pub(super) fn event(guard: fjall::Guard) -> Result<Arc<Event>, Fault> {
    let (key, bytes) = guard.into_inner()?;
    Ok(event_row::read(&bytes, rows::number(&key, 1)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::config::Config;

    #[test]
    fn rows_that_have_become_a_table_leave_the_memory() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), Durability::Os).unwrap();
        let config = Config::read(&|_| None).unwrap().engine;
        let kept = || {
            let tree = &store.rows.tree;
            tree.version_memtable_size_sum() - tree.active_memtable().size()
        };
        let commit = |number| {
            let mut batch = store.batch(&config, StoreHints::default(), clock::now());
            batch.put_bytes(Kind::Event.key(&[1, number]), vec![0; 16 * 1024]);
            drop(batch.commit(&MetaRow::default()).unwrap());
        };
        // Enough for one table, and not for the second.
        (1..600).for_each(commit);
        while store.rows.table_count() == 0 || store.rows.sealed_memtable_count() > 0 {
            std::thread::park_timeout(BACKLOG_PAUSE);
        }
        // Until then the instant of the table may be read.
        (0..2).for_each(commit);
        assert!(kept() >= MEMTABLE_BYTES, "the library gives them back by itself");
        store.forget_written_rows().unwrap();
        // A second, small table may have come about just now.
        assert!(kept() < MEMTABLE_BYTES / 2, "{} bytes are kept", kept());
    }
}
