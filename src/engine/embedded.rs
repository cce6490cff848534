//! The engine of one node that loses nothing: everything is in a store under `DATA_DIR` before anybody hears of it.
//!
//! Changes go through one thread ([`writer`]) that commits in groups; reads see what was committed. In memory are the
//! duels as they stand, without their events ([`duel_state`]), and what the store caches. With `DURABILITY=fsync` an
//! answer means that the disk has it; with `os`, that the kernel has it, which survives the end of the process and not
//! that of the machine.
//!
//! Invariants: the sink is told, and callers are answered, after the commit, in the order of the calls. Every start
//! begins a new epoch for each duel, which goes on from those before it ([`open`]). Bounds: [`limits::ENGINE_QUEUE_MAX`]
//! requests wait; [`READERS_MAX`] reads run at a time.

mod acknowledged;
mod check;
mod duel_state;
mod error;
pub mod export;
mod journal_tail;
mod log;
mod open;
mod rows;
mod store;
mod ticket_ledger;
mod writer;

use std::fmt;
use std::fs;
use std::future::ready;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, oneshot};
use tracing::error;

use self::acknowledged::Note;
use self::error::Fault;
use self::error::StepError;
pub use self::error::StoreError;
use self::log::IdempotencyKey;
use self::open::CheckedStore;
use self::rows::{DuelRow, Lives};
use self::store::{Snapshot, Store, StoreHints, WriteBatch};
use self::writer::{Call, DiskPriority, Writer, WriterMessage};
use super::event_row::Unnumbered;
use super::{
    AppendError, Appended, Declaration, DuelRecord, Engine, EngineCounts, EngineError,
    EngineFuture, Head, LogEngine, Notice, Obstacle, OpenError, Page, PresenceEngine, RedeemError,
    Revocation, Signal, Sink, StatusFilter, StoreCounts, TicketEngine, rules,
};
use crate::clock::{self, UnixMs};
use crate::config::{EngineConfig, StoreConfig};
use crate::event::{Content, Event, Outcome, Position, Push, Viewer};
use crate::id::{DuelId, TicketKey, UserId};
use crate::limits;
use crate::ticket::{Revision, Stamp, Ticket};

/// Reads at a time: a few keep the disk busy, more would only wait on it.
const READERS_MAX: usize = 8;

/// Steps of pruning in one call of [`Engine::prune`].
const PRUNE_STEPS: usize = 128;

/// See the module.
pub struct EmbeddedEngine {
    shared: Arc<Shared>,
    requests: Mutex<Option<SyncSender<WriterMessage>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    readers: Arc<Semaphore>,
}

/// What the writer and its callers share.
struct Shared {
    config: EngineConfig,
    sink: OnceLock<Sink>,
    /// `None`: it has failed, and is being opened again; or the engine has stopped.
    store: RwLock<Option<Arc<Store>>>,
    counts: Mutex<EngineCounts>,
    /// `usable` says whether there is room on the disk. `waiting` is elsewhere.
    store_counts: Mutex<StoreCounts>,
    waiting: AtomicU64,
    /// Nobody is left who could hear an answer.
    abandoned: AtomicBool,
}

impl Shared {
    fn notify(&self, notice: Notice) -> usize {
        self.sink.get().map_or(0, |sink| sink(notice))
    }
}

impl fmt::Debug for EmbeddedEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedEngine")
            .field("counts", &Engine::counts(self))
            .finish_non_exhaustive()
    }
}

/// Bytes on the disk, holes in files left out.
fn disk_bytes(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
        // In units of 512 bytes, whatever the file system's own (stat(2)).
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(bytes).sum()
}

/// How far the store may lag behind in what it knows of a duel's last use.
fn touch_interval(config: &EngineConfig) -> Duration {
    config.idle_retention / 8
}

fn record(lives: &Lives, row: &DuelRow) -> Result<DuelRecord, EngineError> {
    row.record(lives).map_err(|fault| {
        error!(%fault, "a duel could not be read");
        EngineError::UNAVAILABLE
    })
}

/// Reads a row of the store: of a duel, or of the ledger.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(kind: u8, row: &[u8]) {
    let mut meta = rows::MetaRow::new();
    meta.begin_life();
    if kind == 2 {
        let Ok(row) = rows::decode::<DuelRow>(row) else { return };
        drop((row.record(&meta.lives()), row.participants()));
    } else {
        let _record = rows::decode::<ticket_ledger::TicketRow>(row).and_then(|row| row.record());
        drop(rows::decode::<rows::MetaRow>(row).map(|row| row.lives()));
    }
}

/// Rows that [`fuzz`] reads, each after its kind.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz_rows() -> Vec<Vec<u8>> {
    use prost::Message as _;
    let mut meta = rows::MetaRow::new();
    meta.begin_life();
    let duel = DuelRow::new(UnixMs(1), &meta.lives());
    vec![[vec![2], duel.encode_to_vec()].concat(), [vec![3], meta.encode_to_vec()].concat()]
}

impl EmbeddedEngine {
    /// Opens the store and reads all of it, which blocks: 1 to 2 s for 100 MB.
    ///
    /// # Errors
    /// [`StoreError`]; a store that is damaged is refused.
    pub fn open(config: EngineConfig, store_config: &StoreConfig) -> Result<Self, StoreError> {
        let lock = open::acquire(store_config)?;
        let (CheckedStore { store, meta, counts }, acknowledged) =
            open::open(&config, store_config)?;
        let shared = Arc::new(Shared {
            config,
            sink: OnceLock::new(),
            store: RwLock::new(Some(Arc::new(store))),
            counts: Mutex::new(counts),
            store_counts: Mutex::new(StoreCounts { usable: true, ..StoreCounts::default() }),
            waiting: AtomicU64::new(0),
            abandoned: AtomicBool::new(false),
        });
        let (requests, messages) = mpsc::sync_channel(limits::ENGINE_QUEUE_MAX);
        let writer = Writer {
            shared: Arc::clone(&shared),
            config: store_config.clone(),
            answered: Note::of(&meta),
            meta,
            hints: StoreHints { counts, ..StoreHints::default() },
            acknowledged,
            reopened_at: None,
            measured_at: None,
            _lock: lock,
        };
        let thread = std::thread::Builder::new().name("duelhub-store".to_owned());
        let failed = StoreError::directory(&store_config.data_dir);
        let writer = thread.spawn(move || writer.run(&messages)).map_err(failed)?;
        Ok(Self {
            shared,
            requests: Mutex::new(Some(requests)),
            writer: Mutex::new(Some(writer)),
            readers: Arc::new(Semaphore::new(READERS_MAX)),
        })
    }

    /// Queues a change that is handed to no connection.
    fn write<T, E>(
        &self,
        priority: DiskPriority,
        work: impl FnOnce(&mut WriteBatch<'_>) -> Result<T, StepError<E>> + Send + 'static,
    ) -> EngineFuture<'static, T, E>
    where
        T: Send + 'static,
        E: From<EngineError> + Send + 'static,
    {
        let answer = self.queue(priority, 0, work);
        Box::pin(async move { Ok(answer.await?.0) })
    }

    /// Queues a change that stores `bytes` of events.
    fn write_events(
        &self,
        bytes: usize,
        work: impl FnOnce(&mut WriteBatch<'_>) -> Result<Appended, StepError<AppendError>>
        + Send
        + 'static,
    ) -> EngineFuture<'static, Appended, AppendError> {
        let answer = self.queue(DiskPriority::Normal, bytes, work);
        Box::pin(async move {
            let (appended, connections) = answer.await?;
            Ok(Appended { connections, ..appended })
        })
    }

    /// Queues a change. The answer comes after the commit, with to how many connections it was handed.
    fn queue<T, E, W>(
        &self,
        priority: DiskPriority,
        bytes: usize,
        work: W,
    ) -> impl Future<Output = Result<(T, usize), E>> + Send + use<T, E, W>
    where
        T: Send + 'static,
        E: From<EngineError> + Send + 'static,
        W: FnOnce(&mut WriteBatch<'_>) -> Result<T, StepError<E>> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let call = Call { bytes, priority, work: Some(work), result: None, reply };
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        let sent = match &*self.requests.lock() {
            Some(requests) => requests.try_send(WriterMessage::Write(Box::new(call))).is_ok(),
            None => false,
        };
        if !sent {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        async move {
            if !sent {
                return Err(EngineError::UNAVAILABLE.into());
            }
            // Without an answer the writer went away: nobody knows what became of it.
            let lost = EngineError::IN_DOUBT;
            answer.await.unwrap_or_else(|_| Err(lost.into()))
        }
    }

    /// Reads what is in memory.
    fn with_store<T>(
        &self,
        read: impl FnOnce(&Store) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        read(&*self.shared.store.read().clone().ok_or(EngineError::UNAVAILABLE)?)
    }

    /// Reads what was committed, off the runtime's threads.
    fn read_blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Snapshot<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> EngineFuture<'static, T> {
        let readers = Arc::clone(&self.readers);
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let permit = readers.acquire_owned().await.map_err(|_| EngineError::UNAVAILABLE)?;
            let done = tokio::task::spawn_blocking(move || {
                // Given back when it has read, whether or not somebody still waits for it.
                let _permit = permit;
                let store = shared.store.read().clone().ok_or(EngineError::UNAVAILABLE)?;
                read(&store.snapshot()).map_err(|fault| {
                    error!(%fault, "the store could not be read");
                    EngineError::UNAVAILABLE
                })
            });
            done.await.unwrap_or(Err(EngineError::UNAVAILABLE))
        })
    }

    /// Returns whether the store should be told that the duel is in use.
    fn is_stale(&self, used_at: u64) -> bool {
        clock::now().since(UnixMs(used_at)) >= touch_interval(&self.shared.config)
    }

    fn touch(&self, duels: Vec<DuelId>) {
        // Nobody waits for it: the next sweep asks again.
        drop(self.write::<(), EngineError>(DiskPriority::Normal, move |batch| {
            duels.iter().for_each(|duel| batch.touch(*duel));
            Ok(())
        }));
    }
}

impl Drop for EmbeddedEngine {
    /// Ends as a kill would: waits for the commit under way, and drops what is queued.
    fn drop(&mut self) {
        self.shared.abandoned.store(true, Ordering::Relaxed);
        drop(self.requests.lock().take());
        if let Some(writer) = self.writer.lock().take()
            // The last to let go may be the writer itself, telling the sink.
            && writer.thread().id() != std::thread::current().id()
        {
            let _ended = writer.join();
        }
    }
}

impl LogEngine for EmbeddedEngine {
    fn open(
        &self,
        duel: DuelId,
        declaration: Declaration,
    ) -> EngineFuture<'_, super::Opened, OpenError> {
        self.write(DiskPriority::Normal, move |batch| batch.open(duel, declaration))
    }

    fn get_or_create(&self, duel: DuelId) -> EngineFuture<'_, DuelRecord> {
        let known = self.with_store(|store| match store.duels.get(duel) {
            Some(row) => Ok(Some((row.used_at, record(&store.lives, &row)?))),
            None => Ok(None),
        });
        Box::pin(async move {
            if let Some((used_at, record)) = known? {
                if self.is_stale(used_at) {
                    self.touch(vec![duel]);
                }
                return Ok(record);
            }
            let created = self.write(DiskPriority::Normal, move |batch| {
                Ok(batch.get_or_create(duel)?.record(batch.lives)?)
            });
            created.await
        })
    }

    fn append(
        &self,
        duel: DuelId,
        push: Push,
        idempotency_key: Option<Box<str>>,
    ) -> EngineFuture<'static, Appended, AppendError> {
        // Whatever can be done by the caller is not left to the one writer.
        let key = idempotency_key.map(|key| IdempotencyKey::new(&key, &push));
        let event = Unnumbered::of(Content::Pushed(push));
        let bytes = event.row().len();
        self.write_events(bytes, move |batch| batch.append(duel, event, key.as_ref()))
    }

    fn close(
        &self,
        duel: DuelId,
        outcome: Outcome,
        last: Option<Push>,
    ) -> EngineFuture<'_, Appended, AppendError> {
        let last = last.map(|push| Unnumbered::of(Content::Pushed(push)));
        let bytes = last.as_ref().map_or(0, |last| last.row().len());
        self.write_events(bytes, move |batch| batch.close(duel, outcome, last))
    }

    fn read(&self, duel: DuelId, after: Position, count: usize) -> EngineFuture<'_, Page> {
        self.read_blocking(move |snapshot| snapshot.read(duel, after, count))
    }

    fn latest(
        &self,
        duel: DuelId,
        viewer: Viewer,
        up_to: Position,
    ) -> EngineFuture<'_, Option<Vec<Arc<Event>>>> {
        self.read_blocking(move |snapshot| snapshot.latest(duel, viewer, up_to))
    }

    fn get(&self, duel: DuelId) -> EngineFuture<'_, Option<DuelRecord>> {
        let read =
            |store: &Store| store.duels.get(duel).map(|row| record(&store.lives, &row)).transpose();
        Box::pin(ready(self.with_store(read)))
    }

    fn list(
        &self,
        after: Option<DuelId>,
        status: StatusFilter,
        count: usize,
    ) -> EngineFuture<'_, Vec<(DuelId, Head)>> {
        let list = |store: &Store| Ok(store.duels.list(after, status, count, &store.lives));
        Box::pin(ready(self.with_store(list)))
    }

    fn heads(&self, duels: Vec<DuelId>) -> EngineFuture<'_, Vec<(DuelId, Head)>> {
        let read = |store: &Store| {
            let head = |duel, row: &DuelRow| (duel, row.head(&store.lives), row.used_at);
            Ok(store.duels.map(duels, head))
        };
        let heads = self.with_store(read).map(|heads| {
            let stale = heads.iter().filter(|(_, _, used_at)| self.is_stale(*used_at));
            let stale: Vec<_> = stale.map(|(duel, ..)| *duel).collect();
            if !stale.is_empty() {
                self.touch(stale);
            }
            heads.into_iter().map(|(duel, head, _)| (duel, head)).collect()
        });
        Box::pin(ready(heads))
    }
}

impl TicketEngine for EmbeddedEngine {
    fn stamp(&self) -> EngineFuture<'_, Stamp> {
        self.read_blocking(|snapshot| snapshot.stamp(clock::now()))
    }

    fn renew(
        &self,
        session: TicketKey,
        owner: (DuelId, UserId),
        revision: Revision,
    ) -> EngineFuture<'_, Option<Stamp>> {
        self.read_blocking(move |snapshot| snapshot.renew(session, owner, revision, clock::now()))
    }

    fn redeem(&self, ticket: &Ticket) -> EngineFuture<'_, Stamp, RedeemError> {
        let ticket = ticket.clone();
        self.write(DiskPriority::High, move |batch| batch.redeem(&ticket))
    }

    fn revoke(&self, revocation: Revocation) -> EngineFuture<'_, ()> {
        self.write(DiskPriority::High, move |batch| batch.revoke(&revocation))
    }
}

impl PresenceEngine for EmbeddedEngine {
    fn signal(&self, signal: Signal) -> EngineFuture<'_, ()> {
        self.shared.notify(Notice::Signal(signal));
        Box::pin(ready(Ok(())))
    }
}

impl Engine for EmbeddedEngine {
    fn name(&self) -> &'static str {
        "embedded"
    }

    fn connect(&self, sink: Sink) {
        let connected = self.shared.sink.set(sink);
        assert!(connected.is_ok(), "an engine is connected once");
    }

    fn prune(&self, now: UnixMs) -> EngineFuture<'_, ()> {
        Box::pin(async move {
            for _ in 0..PRUNE_STEPS {
                let step = self.write::<_, EngineError>(DiskPriority::High, move |batch| {
                    let more_duels = batch.prune_duels(now)?;
                    Ok(batch.prune_tickets(now)? || more_duels)
                });
                if !step.await? {
                    break;
                }
            }
            Ok(())
        })
    }

    fn counts(&self) -> EngineCounts {
        *self.shared.counts.lock()
    }

    fn obstacle(&self) -> Option<Obstacle> {
        let remembered = self.counts().remembered_tickets;
        rules::ledger_obstacle(remembered, self.shared.config.tickets_max)
    }

    fn store(&self) -> Option<StoreCounts> {
        let counts = *self.shared.store_counts.lock();
        let usable = counts.usable && self.shared.store.read().is_some();
        let waiting = self.shared.waiting.load(Ordering::Relaxed);
        Some(StoreCounts { usable, waiting, ..counts })
    }

    fn stop(&self) -> EngineFuture<'_, ()> {
        let (told, stopped) = oneshot::channel();
        let requests = self.requests.lock().take();
        Box::pin(async move {
            let Some(requests) = requests else { return Ok(()) };
            // The queue may be full for a moment; the writer empties it.
            let mut message = WriterMessage::Stop(told);
            while let Err(mpsc::TrySendError::Full(back)) = requests.try_send(message) {
                message = back;
                tokio::task::yield_now().await;
            }
            let _gone = stopped.await;
            Ok(())
        })
    }
}
