//! The one thread that changes the store.
//!
//! Everything that waits at the moment it looks is one group: one draft, one commit, one sync. There is no timer, so a
//! lone push waits for nothing but its own sync, and under load the groups grow by themselves. After the commit, and only
//! then, the sink is told and the callers are answered, in the order of the calls.
//!
//! Bounds: [`limits::ENGINE_QUEUE_MAX`] orders wait; a group has at most [`GROUP_ORDERS_MAX`] orders and, but for the
//! last one, [`GROUP_BYTES_MAX`] bytes of payloads.
//!
//! When a commit fails, the store is closed and opened again, at most once in [`REOPEN_PAUSE`], read from the disk and
//! not from what the kernel still remembers of it; until then every order is refused. So whatever the failed commit has
//! left behind is either whole and found by the next sweep, or was never there.

use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::fs::{Advice, fadvise, statvfs};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::lineage::Acknowledged;
use super::open::{self, Opened};
use super::rows::MetaRow;
use super::store::{Draft, Held, Store};
use super::{Fault, Shared};
use crate::clock;
use crate::config::StoreConfig;
use crate::engine::{EngineError, Notice};
use crate::limits;

/// Orders of one group.
const GROUP_ORDERS_MAX: usize = 1024;

/// Bytes of payloads of one group.
const GROUP_BYTES_MAX: usize = 4 << 20;

/// Between two attempts to open the store again.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);

/// Between two looks at how large the store is.
const MEASURE_PAUSE: Duration = Duration::from_secs(5);

/// What of the disk an order may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// All but [`limits::DISK_ROOM_MIN`].
    Usual,
    /// Most of that as well: it is small, and makes room, or lets a player come back.
    Last,
}

/// Something to be done in a draft, and somebody who waits for it.
pub(super) trait Order: Send {
    /// Bytes that it brings.
    fn bytes(&self) -> usize;
    /// What of the disk it may use.
    fn room(&self) -> Room;
    /// Does it. An error undoes the whole group.
    fn run(&mut self, draft: &mut Draft<'_>) -> Result<(), Fault>;
    /// Answers: what came of it, told to so many connections, or why nothing did.
    fn settle(self: Box<Self>, outcome: Result<usize, EngineError>);
}

/// An [`Order`] by a closure.
pub(super) struct Pending<T, E, W> {
    pub(super) bytes: usize,
    pub(super) room: Room,
    pub(super) work: Option<W>,
    pub(super) result: Option<Result<T, E>>,
    /// Puts into the result to how many connections it was handed.
    pub(super) handed: fn(&mut T, usize),
    pub(super) reply: oneshot::Sender<Result<T, E>>,
}

impl<T, E, W> Order for Pending<T, E, W>
where
    T: Send,
    E: From<EngineError> + Send,
    W: FnOnce(&mut Draft<'_>) -> Result<Result<T, E>, Fault> + Send,
{
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn room(&self) -> Room {
        self.room
    }

    fn run(&mut self, draft: &mut Draft<'_>) -> Result<(), Fault> {
        if let Some(work) = self.work.take() {
            self.result = Some(work(draft)?);
        }
        Ok(())
    }

    fn settle(mut self: Box<Self>, outcome: Result<usize, EngineError>) {
        let undone = EngineError::Unavailable { may_have_taken_effect: false };
        let result = match outcome {
            Ok(connections) => {
                if let Some(Ok(value)) = &mut self.result {
                    (self.handed)(value, connections);
                }
                self.result.unwrap_or_else(|| Err(undone.into()))
            }
            Err(error) => Err(error.into()),
        };
        // Who does not wait any more has still been served.
        let _unheard = self.reply.send(result);
    }
}

/// What waits for the writer.
pub(super) enum Message {
    Order(Box<dyn Order>),
    /// Let go of the store; no order after it is done.
    Stop(oneshot::Sender<()>),
}

/// What the thread owns.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) config: StoreConfig,
    pub(super) meta: MetaRow,
    pub(super) held: Held,
    pub(super) acknowledged: Acknowledged,
    pub(super) reopened_at: Option<Instant>,
    pub(super) measured_at: Option<Instant>,
}

/// Why a group came to nothing.
enum Failure {
    /// Before anything was written.
    Refused(EngineError),
    /// While it was written: the store has to be opened again.
    Broken(String),
}

impl Writer {
    /// Works until it is told to stop, or nobody is left who could give an order.
    pub(super) fn run(mut self, messages: &Receiver<Message>) {
        let mut stop = None;
        while stop.is_none() {
            let Some(first) = self.next(messages) else { break };
            let mut group = Vec::new();
            let mut bytes = 0;
            let more = std::iter::from_fn(|| messages.try_recv().ok());
            for message in std::iter::once(first).chain(more) {
                match message {
                    Message::Order(order) => {
                        bytes += order.bytes();
                        group.push(order);
                    }
                    Message::Stop(told) => stop = Some(told),
                }
                if stop.is_some() || group.len() >= GROUP_ORDERS_MAX || bytes >= GROUP_BYTES_MAX {
                    break;
                }
            }
            let waiting = u64::try_from(group.len()).unwrap_or(u64::MAX);
            self.shared.waiting.fetch_sub(waiting, Ordering::Relaxed);
            if self.shared.abandoned.load(Ordering::Relaxed) {
                break;
            }
            self.serve(group);
        }
        if stop.is_some() {
            self.settle_down();
        }
        drop(self.shared.store.write().take());
        // With the files, so that who hears of it can open them.
        drop(self);
        if let Some(told) = stop {
            let _unheard = told.send(());
        }
    }

    /// Waits for something to do; a store that has failed is opened again in the meantime.
    fn next(&mut self, messages: &Receiver<Message>) -> Option<Message> {
        while self.store().is_none() {
            match messages.recv_timeout(REOPEN_PAUSE) {
                Ok(message) => return Some(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
        messages.recv().ok()
    }

    fn serve(&mut self, group: Vec<Box<dyn Order>>) {
        let mut group = self.refuse_without_room(group);
        if group.is_empty() {
            return;
        }
        let refused = EngineError::Unavailable { may_have_taken_effect: false };
        let outcome = match self.store() {
            // A panic in the library is as good as a failed write: what it left is found out by opening it again.
            Some(store) => catch_unwind(AssertUnwindSafe(|| self.commit(&store, &mut group)))
                .unwrap_or_else(|_| Err(Failure::Broken("it panicked".to_owned()))),
            None => Err(Failure::Refused(refused)),
        };
        let error = match outcome {
            Ok(connections) => {
                let settled = group.into_iter().zip(connections);
                return settled.for_each(|(order, connections)| order.settle(Ok(connections)));
            }
            Err(Failure::Refused(error)) => error,
            Err(Failure::Broken(what)) => {
                error!(what, "the store failed; it will be opened again");
                self.shared.failures.fetch_add(1, Ordering::Relaxed);
                drop(self.shared.store.write().take());
                self.reopened_at = Some(Instant::now());
                EngineError::Unavailable { may_have_taken_effect: true }
            }
        };
        group.into_iter().for_each(|order| order.settle(Err(error)));
    }

    /// Syncs what `DURABILITY=os` has left to the kernel, and says so in the store.
    fn settle_down(&mut self) {
        let Some(store) = self.shared.store.read().clone() else { return };
        if !self.meta.unsynced {
            return;
        }
        self.meta.unsynced = false;
        self.meta.commit += 1;
        let draft = store.draft(&self.shared.config, self.held, clock::now());
        match draft.commit(&self.meta).and_then(|_| store.sync()) {
            Ok(()) => self.acknowledge(),
            Err(error) => warn!(%error, "the store could not be synced"),
        }
    }

    /// Has the metrics know how large the store is, now and then.
    fn measure(&mut self) {
        if self.measured_at.is_none_or(|at| at.elapsed() >= MEASURE_PAUSE) {
            self.measured_at = Some(Instant::now());
            let bytes = super::disk_bytes(&self.config.data_dir);
            self.shared.disk_bytes.store(bytes, Ordering::Relaxed);
        }
    }

    /// One group in one commit; then the sink is told: to how many connections, for each order.
    fn commit(
        &mut self,
        store: &Store,
        group: &mut [Box<dyn Order>],
    ) -> Result<Vec<usize>, Failure> {
        self.measure();
        let mut draft = store.draft(&self.shared.config, self.held, clock::now());
        // Up to which notice each order goes.
        let mut notices = Vec::with_capacity(group.len());
        for order in group {
            order.run(&mut draft).map_err(|fault| {
                error!(%fault, "a group of calls could not be prepared");
                Failure::Refused(EngineError::Unavailable { may_have_taken_effect: false })
            })?;
            notices.push(draft.notices.len());
        }
        let committed = if draft.is_changed() {
            store.wait_for_backlog().map_err(|error| Failure::Broken(error.to_string()))?;
            self.meta.commit += 1;
            self.shared.commits.fetch_add(1, Ordering::Relaxed);
            let committed = draft.commit(&self.meta);
            let committed = committed.map_err(|error| Failure::Broken(error.to_string()))?;
            self.acknowledge();
            committed
        } else {
            draft.unchanged()
        };
        self.held = committed.held;
        let handed = self.publish(committed.notices);
        let mut from = 0;
        let mut of_order = |to| {
            let last = handed[from..to].last().copied();
            from = to;
            last.unwrap_or(0)
        };
        Ok(notices.into_iter().map(&mut of_order).collect())
    }

    /// Before anybody is answered, so that no answer is missed should the store lose its end.
    fn acknowledge(&self) {
        if let Err(error) = self.acknowledged.write(self.meta.commit) {
            // It stays a lower bound.
            warn!(%error, "the number of the last commit could not be noted");
        }
    }

    /// Tells the sink: to how many connections each notice was handed.
    fn publish(&self, notices: Vec<Notice>) -> Vec<usize> {
        self.shared.set_counts(self.held.counts);
        let many = notices.len() > limits::UNCROWDED_MAX;
        let tell = |mut notice| {
            if let Notice::Appended { bulk, .. } = &mut notice {
                *bulk = many;
            }
            self.shared.notify(notice)
        };
        notices.into_iter().map(tell).collect()
    }

    /// Refuses what there is no room for: whoever is left. A store that runs out of room for its tables cannot go on from
    /// there, so it stops taking pushes before; pruning, which makes room, and tickets, by which players come back, go
    /// on for longer.
    fn refuse_without_room(&self, group: Vec<Box<dyn Order>>) -> Vec<Box<dyn Order>> {
        let free = statvfs(&self.config.data_dir).map_or(u64::MAX, |fs| fs.f_bavail * fs.f_frsize);
        let full = free < limits::DISK_ROOM_MIN;
        if self.shared.full.swap(full, Ordering::Relaxed) != full {
            match full {
                true => {
                    warn!(free, min = limits::DISK_ROOM_MIN, "the disk is full: no push is stored")
                }
                false => info!(free, "there is room on the disk again"),
            }
        }
        if !full {
            return group;
        }
        let some = free >= limits::DISK_ROOM_MIN / 4;
        let (kept, refused): (Vec<_>, Vec<_>) =
            group.into_iter().partition(|order| some && order.room() == Room::Last);
        let full = EngineError::Full { limit: "the minimum of free disk space in DATA_DIR" };
        refused.into_iter().for_each(|order| order.settle(Err(full)));
        kept
    }

    /// The store, opened again if it had failed and may have recovered.
    fn store(&mut self) -> Option<Arc<Store>> {
        if let Some(store) = self.shared.store.read().clone() {
            return Some(store);
        }
        if self.reopened_at.is_some_and(|at| at.elapsed() < REOPEN_PAUSE) {
            return None;
        }
        self.reopened_at = Some(Instant::now());
        forget_pages(&self.config.data_dir);
        match open::reopen(&self.shared.config, &self.config, self.acknowledged.clone()) {
            Ok(Opened { store, meta, counts, acknowledged }) => {
                info!("the store is open again");
                let store = Arc::new(store);
                (self.meta, self.acknowledged) = (meta, acknowledged);
                self.held = Held { counts, ..Held::default() };
                self.shared.set_counts(counts);
                *self.shared.store.write() = Some(Arc::clone(&store));
                Some(store)
            }
            Err(error) => {
                warn!(%error, "the store cannot be opened again yet");
                None
            }
        }
    }
}

/// Has the kernel forget what it remembers of the files: after a failed sync it may remember what the disk never got.
fn forget_pages(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            forget_pages(&path);
        } else if let Ok(file) = File::open(&path) {
            let _advice = fadvise(&file, 0, None, Advice::DontNeed);
        }
    }
}
