//! The engine of one node that loses nothing: everything is in a store under `DATA_DIR` before anybody hears of it.
//!
//! Changes go through one thread ([`writer`]) that commits in groups; reads look at what was committed. In memory are the
//! duels as they stand, without their events ([`duels`]), and what the store caches. With `DURABILITY=fsync` an
//! answer means that the disk has it; with `os`, that the kernel has it, which survives the end of the process and not
//! that of the machine.
//!
//! Invariants: the sink is told, and callers are answered, after the commit, in the order of the calls. Positions go on
//! after a restart under the same epoch; they get another one when the files are not those that the last process left
//! ([`lineage`]). Bounds: [`limits::ENGINE_QUEUE_MAX`] orders wait; [`READERS_MAX`] reads run at a time.

mod check;
mod duels;
pub mod inspect;
mod lineage;
mod log;
mod open;
mod refusal;
mod rows;
mod spent;
mod store;
mod torn;
mod writer;

use std::fmt;
use std::fs;
use std::future::ready;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, oneshot};
use tracing::error;

use self::log::Key;
use self::open::Opened;
pub use self::refusal::StoreError;
use self::rows::DuelRow;
use self::store::Fault;
use self::store::{Draft, Held, Store, View};
use self::writer::{Message, Pending, Room, Writer};
use super::event_row::Unnumbered;
use super::{
    AppendError, Appended, Declaration, DuelRecord, Engine, EngineCounts, EngineError,
    EngineFuture, Head, Latest, LogEngine, Notice, OpenError, Page, PresenceEngine, RedeemError,
    Revocation, Signal, Sink, StatusFilter, StoreCounts, TicketEngine,
};
use crate::clock::{self, UnixMs};
use crate::config::{EngineConfig, StoreConfig};
use crate::event::{Content, Event, Outcome, Position, Push, Viewer};
use crate::id::DuelId;
use crate::limits;
use crate::ticket::Ticket;

/// Reads at a time: a few keep the disk busy, more would only wait on it.
const READERS_MAX: usize = 8;

/// Steps of pruning in one call of [`Engine::prune`].
const PRUNE_STEPS: usize = 128;

/// Nothing has taken effect.
const UNAVAILABLE: EngineError = EngineError::Unavailable { may_have_taken_effect: false };

/// See the module.
pub struct EmbeddedEngine {
    shared: Arc<Shared>,
    orders: Mutex<Option<SyncSender<Message>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    readers: Arc<Semaphore>,
}

/// What the writer and its callers share.
struct Shared {
    config: EngineConfig,
    sink: OnceLock<Sink>,
    /// `None`: it has failed, and is being opened again; or the engine has stopped.
    store: RwLock<Option<Arc<Store>>>,
    duels: AtomicUsize,
    remembered_tickets: AtomicUsize,
    full: AtomicBool,
    /// Nobody is left who could hear an answer.
    abandoned: AtomicBool,
    commits: AtomicU64,
    failures: AtomicU64,
    waiting: AtomicU64,
    disk_bytes: AtomicU64,
}

impl Shared {
    fn notify(&self, notice: Notice) -> usize {
        self.sink.get().map_or(0, |sink| sink(notice))
    }

    fn counts(&self) -> EngineCounts {
        EngineCounts {
            duels: self.duels.load(Ordering::Relaxed),
            remembered_tickets: self.remembered_tickets.load(Ordering::Relaxed),
        }
    }

    fn set_counts(&self, counts: EngineCounts) {
        self.duels.store(counts.duels, Ordering::Relaxed);
        self.remembered_tickets.store(counts.remembered_tickets, Ordering::Relaxed);
    }
}

impl fmt::Debug for EmbeddedEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedEngine").field("counts", &self.counts()).finish_non_exhaustive()
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

fn record(lineage: u64, row: &DuelRow) -> Result<DuelRecord, EngineError> {
    row.record(lineage).map_err(|fault| {
        error!(%fault, "a duel could not be read");
        UNAVAILABLE
    })
}

fn set_connections(appended: &mut Appended, connections: usize) {
    appended.connections = connections;
}

impl EmbeddedEngine {
    /// Opens the store and reads all of it, which blocks: 1 to 2 s for 100 MB.
    ///
    /// # Errors
    /// [`StoreError`]; a store that is damaged is refused.
    pub fn open(config: EngineConfig, store_config: &StoreConfig) -> Result<Self, StoreError> {
        let Opened { store, meta, counts, acknowledged } =
            open::open(&config, store_config, open::acquire(store_config)?)?;
        let shared = Arc::new(Shared {
            config,
            sink: OnceLock::new(),
            store: RwLock::new(Some(Arc::new(store))),
            duels: AtomicUsize::new(counts.duels),
            remembered_tickets: AtomicUsize::new(counts.remembered_tickets),
            full: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            commits: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            disk_bytes: AtomicU64::new(0),
        });
        let (orders, messages) = mpsc::sync_channel(limits::ENGINE_QUEUE_MAX);
        let writer = Writer {
            shared: Arc::clone(&shared),
            config: store_config.clone(),
            meta,
            held: Held { counts, ..Held::default() },
            acknowledged,
            reopened_at: None,
            measured_at: None,
        };
        let thread = std::thread::Builder::new().name("duelhub-store".to_owned());
        let failed = StoreError::directory(&store_config.data_dir);
        let writer = thread.spawn(move || writer.run(&messages)).map_err(failed)?;
        Ok(Self {
            shared,
            orders: Mutex::new(Some(orders)),
            writer: Mutex::new(Some(writer)),
            readers: Arc::new(Semaphore::new(READERS_MAX)),
        })
    }

    /// Puts work that tells no connection in its place; see [`Self::order_heard`].
    fn order<T, E>(
        &self,
        room: Room,
        work: impl FnOnce(&mut Draft<'_>) -> Result<Result<T, E>, Fault> + Send + 'static,
    ) -> EngineFuture<'static, T, E>
    where
        T: Send + 'static,
        E: From<EngineError> + Send + 'static,
    {
        self.order_heard(room, 0, work, |_, _| ())
    }

    /// Puts work that brings so many bytes in its place; the answer comes after the commit, when `handed` has put into it
    /// how many connections were told.
    fn order_heard<T, E>(
        &self,
        room: Room,
        bytes: usize,
        work: impl FnOnce(&mut Draft<'_>) -> Result<Result<T, E>, Fault> + Send + 'static,
        handed: fn(&mut T, usize),
    ) -> EngineFuture<'static, T, E>
    where
        T: Send + 'static,
        E: From<EngineError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let order =
            Box::new(Pending { bytes, room, work: Some(work), result: None, handed, reply });
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        let sent = match &*self.orders.lock() {
            Some(orders) => orders.try_send(Message::Order(order)).is_ok(),
            None => false,
        };
        if !sent {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        Box::pin(async move {
            if !sent {
                return Err(UNAVAILABLE.into());
            }
            // Without an answer the writer went away: nobody knows what became of it.
            let lost = EngineError::Unavailable { may_have_taken_effect: true };
            answer.await.unwrap_or_else(|_| Err(lost.into()))
        })
    }

    /// Looks at what of the committed is in memory.
    fn glance<T>(
        &self,
        look: impl FnOnce(&Store) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        look(&*self.shared.store.read().clone().ok_or(UNAVAILABLE)?)
    }

    /// Looks at what was committed, off the runtime's threads.
    fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&View<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> EngineFuture<'static, T> {
        let readers = Arc::clone(&self.readers);
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let permit = readers.acquire_owned().await.map_err(|_| UNAVAILABLE)?;
            let looked = tokio::task::spawn_blocking(move || {
                // Given back when it has looked, whether or not somebody still waits for it.
                let _permit = permit;
                let store = shared.store.read().clone().ok_or(UNAVAILABLE)?;
                look(&store.view()).map_err(|fault| {
                    error!(%fault, "the store could not be read");
                    UNAVAILABLE
                })
            });
            looked.await.unwrap_or(Err(UNAVAILABLE))
        })
    }

    /// Whether the store should be told that the duel is in use.
    fn is_stale(&self, used_at: u64) -> bool {
        clock::now().since(UnixMs(used_at)) >= touch_interval(&self.shared.config)
    }

    fn touch(&self, duels: Vec<DuelId>) {
        // Nobody waits for it: the next sweep asks again.
        drop(self.order::<(), EngineError>(Room::Usual, move |draft| {
            duels.iter().for_each(|duel| draft.touch(*duel));
            Ok(Ok(()))
        }));
    }
}

impl Drop for EmbeddedEngine {
    /// Ends as a kill would: waits for the commit under way, and drops what is queued.
    fn drop(&mut self) {
        self.shared.abandoned.store(true, Ordering::Relaxed);
        drop(self.orders.lock().take());
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
        self.order(Room::Usual, move |draft| draft.open(duel, declaration))
    }

    fn get_or_create(&self, duel: DuelId) -> EngineFuture<'_, DuelRecord> {
        let known = self.glance(|store| Ok(store.duels.get(duel).map(|row| (store.lineage, row))));
        Box::pin(async move {
            if let Some((lineage, row)) = known? {
                if self.is_stale(row.used_at) {
                    self.touch(vec![duel]);
                }
                return record(lineage, &row);
            }
            let entered = self.order(Room::Usual, move |draft| match draft.enter(duel)? {
                Ok(row) => Ok(Ok(row.record(draft.lineage)?)),
                Err(full) => Ok(Err(full)),
            });
            entered.await
        })
    }

    fn append(
        &self,
        duel: DuelId,
        push: Push,
        idempotency_key: Option<Box<str>>,
    ) -> EngineFuture<'static, Appended, AppendError> {
        // Whatever can be done by the caller is not left to the one writer.
        let key = idempotency_key.map(|key| Key::new(&key, &push));
        let (bytes, event) = (push.size(), Unnumbered::of(Content::Pushed(push)));
        let work = move |draft: &mut Draft<'_>| draft.append(duel, event, key.as_ref());
        self.order_heard(Room::Usual, bytes, work, set_connections)
    }

    fn close(
        &self,
        duel: DuelId,
        outcome: Outcome,
        last: Option<Push>,
    ) -> EngineFuture<'_, Appended, AppendError> {
        let bytes = last.as_ref().map_or(0, Push::size);
        let work = move |draft: &mut Draft<'_>| draft.close(duel, outcome, last);
        self.order_heard(Room::Usual, bytes, work, set_connections)
    }

    fn read(&self, duel: DuelId, after: Position, count: usize) -> EngineFuture<'_, Page> {
        self.look(move |view| view.read(duel, after, count))
    }

    fn latest(
        &self,
        duel: DuelId,
        viewer: Viewer,
        up_to: Position,
        which: Latest,
    ) -> EngineFuture<'_, Option<Vec<Arc<Event>>>> {
        self.look(move |view| view.latest(duel, viewer, up_to, which))
    }

    fn get(&self, duel: DuelId) -> EngineFuture<'_, Option<DuelRecord>> {
        let look = |store: &Store| {
            store.duels.get(duel).map(|row| record(store.lineage, &row)).transpose()
        };
        Box::pin(ready(self.glance(look)))
    }

    fn list(
        &self,
        after: Option<DuelId>,
        status: StatusFilter,
        count: usize,
    ) -> EngineFuture<'_, Vec<(DuelId, Head)>> {
        let list = |store: &Store| Ok(store.duels.list(after, status, count, store.lineage));
        Box::pin(ready(self.glance(list)))
    }

    fn heads(&self, duels: Vec<DuelId>) -> EngineFuture<'_, Vec<(DuelId, Head)>> {
        let look = |store: &Store| {
            let head = |duel, row: &DuelRow| (duel, row.head(store.lineage), row.used_at);
            Ok(store.duels.look_at(duels, head))
        };
        let heads = self.glance(look).map(|heads| {
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
    fn redeem(&self, ticket: &Ticket) -> EngineFuture<'_, (), RedeemError> {
        let ticket = ticket.clone();
        self.order(Room::Last, move |draft| draft.admit(&ticket))
    }

    fn revoke(&self, revocation: Revocation) -> EngineFuture<'_, ()> {
        self.order(Room::Last, move |draft| draft.revoke(&revocation))
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
                let step = self.order::<_, EngineError>(Room::Last, move |draft| {
                    let more_duels = draft.prune_duels(now)?;
                    Ok(Ok(draft.prune_tickets(now)? || more_duels))
                });
                if !step.await? {
                    break;
                }
            }
            Ok(())
        })
    }

    fn counts(&self) -> EngineCounts {
        self.shared.counts()
    }

    fn store(&self) -> Option<StoreCounts> {
        let shared = &self.shared;
        let is_open = shared.store.read().is_some();
        Some(StoreCounts {
            usable: is_open && !shared.full.load(Ordering::Relaxed),
            commits: shared.commits.load(Ordering::Relaxed),
            failures: shared.failures.load(Ordering::Relaxed),
            waiting: shared.waiting.load(Ordering::Relaxed),
            disk_bytes: shared.disk_bytes.load(Ordering::Relaxed),
        })
    }

    fn stop(&self) -> EngineFuture<'_, ()> {
        let (told, stopped) = oneshot::channel();
        let orders = self.orders.lock().take();
        Box::pin(async move {
            let Some(orders) = orders else { return Ok(()) };
            // The queue may be full for a moment; the writer empties it.
            let mut message = Message::Stop(told);
            while let Err(mpsc::TrySendError::Full(back)) = orders.try_send(message) {
                message = back;
                tokio::task::yield_now().await;
            }
            let _gone = stopped.await;
            Ok(())
        })
    }
}
