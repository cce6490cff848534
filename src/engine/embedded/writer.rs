//! The one thread that changes the store.
//!
//! All requests that wait at one moment are one group: one batch, one commit, one sync. There is no timer, so a lone push
//! waits for nothing but its own sync, and under load the groups grow by themselves. After the commit, and only then, the
//! sink is told and the callers are answered, in the order of the calls.
//!
//! Bounds: [`limits::ENGINE_QUEUE_MAX`] requests wait. A group has at most [`GROUP_REQUESTS_MAX`] requests and, but for the
//! last one, [`GROUP_BYTES_MAX`] bytes of rows.
//!
//! When a commit fails, the store is closed and opened again, at most once in [`REOPEN_PAUSE`], read from the disk and
//! not from what the kernel still remembers of it. Until then every request is refused. Nobody was told of the failed
//! commit. So what it left behind is either whole, and found by the next sweep, or was never there, and the life goes on
//! ([`open::reopen`]).

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::fs::{Advice, fadvise, statvfs};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::Shared;
use super::acknowledged::{Acknowledged, Note};
use super::error::{Fault, StepError};
use super::open::{self, CheckedStore, DirectoryLock};
use super::rows::MetaRow;
use super::store::{Store, StoreHints, WriteBatch};
use crate::clock;
use crate::config::{Durability, StoreConfig};
use crate::engine::{EngineCounts, EngineError, Notice};
use crate::limits;

/// Requests of one group.
const GROUP_REQUESTS_MAX: usize = 1024;

/// Bytes of rows of one group.
const GROUP_BYTES_MAX: usize = 4 << 20;

/// Between two attempts to open the store again.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);

/// Between two measurements of the store's size.
const MEASURE_PAUSE: Duration = Duration::from_secs(5);

/// Which part of the disk a request may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DiskPriority {
    /// All but [`limits::DISK_ROOM_MIN`].
    Normal,
    /// Most of that as well. The request is small, and makes room or lets a player come back.
    High,
}

/// A change that somebody waits for.
pub(super) trait WriteRequest: Send {
    /// Returns the bytes that it brings.
    fn bytes(&self) -> usize;
    /// Returns which part of the disk it may use.
    fn priority(&self) -> DiskPriority;
    /// Does it. An error undoes the whole group.
    fn run(&mut self, batch: &mut WriteBatch<'_>) -> Result<(), Fault>;
    /// Answers. `outcome` is to how many connections it was handed, or why nothing came of it.
    fn answer(self: Box<Self>, outcome: Result<usize, EngineError>);
}

/// A [`WriteRequest`] by a closure.
pub(super) struct Call<T, E, W> {
    pub(super) bytes: usize,
    pub(super) priority: DiskPriority,
    pub(super) work: Option<W>,
    pub(super) result: Option<Result<T, E>>,
    /// Hears the result, and to how many connections it was handed.
    pub(super) reply: oneshot::Sender<Result<(T, usize), E>>,
}

impl<T, E, W> WriteRequest for Call<T, E, W>
where
    T: Send,
    E: From<EngineError> + Send,
    W: FnOnce(&mut WriteBatch<'_>) -> Result<T, StepError<E>> + Send,
{
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn priority(&self) -> DiskPriority {
        self.priority
    }

    fn run(&mut self, batch: &mut WriteBatch<'_>) -> Result<(), Fault> {
        let Some(work) = self.work.take() else { return Ok(()) };
        self.result = Some(match work(batch) {
            Ok(value) => Ok(value),
            Err(StepError::Refused(error)) => Err(error),
            Err(StepError::Fault(fault)) => return Err(fault),
        });
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<usize, EngineError>) {
        let result = match outcome {
            Ok(connections) => {
                let result = self.result.unwrap_or_else(|| Err(EngineError::UNAVAILABLE.into()));
                result.map(|value| (value, connections))
            }
            Err(error) => Err(error.into()),
        };
        // Who does not wait any more has still been served.
        let _unheard = self.reply.send(result);
    }
}

/// What waits for the writer.
pub(super) enum WriterMessage {
    Write(Box<dyn WriteRequest>),
    /// Let go of the store; no request after it is done.
    Stop(oneshot::Sender<()>),
}

/// What the thread owns.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) config: StoreConfig,
    pub(super) meta: MetaRow,
    pub(super) hints: StoreHints,
    /// The last commit that was answered.
    pub(super) answered: Note,
    pub(super) acknowledged: Acknowledged,
    pub(super) reopened_at: Option<Instant>,
    pub(super) measured_at: Option<Instant>,
    pub(super) _lock: DirectoryLock,
}

/// Why a group came to nothing.
enum Failure {
    /// Before anything was written.
    Refused(EngineError),
    /// While it was written: the store has to be opened again.
    Broken(Fault),
}

impl Writer {
    /// Works until it is told to stop, or nobody is left who could make a request.
    pub(super) fn run(mut self, messages: &Receiver<WriterMessage>) {
        let mut stop = None;
        while stop.is_none() {
            let Some(first) = self.next(messages) else { break };
            let mut group = Vec::new();
            let mut bytes = 0;
            let more = std::iter::from_fn(|| messages.try_recv().ok());
            for message in std::iter::once(first).chain(more) {
                match message {
                    WriterMessage::Write(request) => {
                        bytes += request.bytes();
                        group.push(request);
                    }
                    WriterMessage::Stop(told) => stop = Some(told),
                }
                if stop.is_some() || group.len() >= GROUP_REQUESTS_MAX || bytes >= GROUP_BYTES_MAX {
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
            self.sync();
        }
        drop(self.shared.store.write().take());
        // With the files, so that who hears of it can open them.
        drop(self);
        if let Some(told) = stop {
            let _unheard = told.send(());
        }
    }

    /// Waits for something to do; a store that has failed is opened again in the meantime.
    fn next(&mut self, messages: &Receiver<WriterMessage>) -> Option<WriterMessage> {
        while self.store().is_none() {
            match messages.recv_timeout(REOPEN_PAUSE) {
                Ok(message) => return Some(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
        messages.recv().ok()
    }

    fn serve(&mut self, group: Vec<Box<dyn WriteRequest>>) {
        let mut group = self.refuse_without_room(group);
        if group.is_empty() {
            return;
        }
        let outcome = match self.store() {
            // A panic in the library is as good as a failed write: what it left is found out by opening it again.
            Some(store) => Fault::catch(|| Ok(self.commit(&store, &mut group)))
                .unwrap_or_else(|fault| Err(Failure::Broken(fault))),
            None => Err(Failure::Refused(EngineError::UNAVAILABLE)),
        };
        let error = match outcome {
            Ok(connections) => {
                let answers = group.into_iter().zip(connections);
                return answers.for_each(|(request, connections)| request.answer(Ok(connections)));
            }
            Err(Failure::Refused(error)) => error,
            Err(Failure::Broken(what)) => {
                error!(%what, "the store failed; it will be opened again");
                self.shared.store_counts.lock().failures += 1;
                drop(self.shared.store.write().take());
                self.reopened_at = Some(Instant::now());
                EngineError::IN_DOUBT
            }
        };
        group.into_iter().for_each(|request| request.answer(Err(error)));
    }

    /// Syncs what `DURABILITY=os` has left to the kernel, and notes that it is there.
    fn sync(&self) {
        if self.config.durability == Durability::Fsync {
            return;
        }
        let Some(store) = self.shared.store.read().clone() else { return };
        match store.sync() {
            Ok(()) => self.note(),
            Err(error) => warn!(%error, "the store could not be synced"),
        }
    }

    /// Measures the store's size for the metrics, and has it give back memory, now and then.
    fn measure(&mut self, store: &Store) -> Result<(), fjall::Error> {
        if self.measured_at.is_some_and(|at| at.elapsed() < MEASURE_PAUSE) {
            return Ok(());
        }
        self.measured_at = Some(Instant::now());
        let bytes = super::disk_bytes(&self.config.data_dir);
        self.shared.store_counts.lock().disk_bytes = bytes;
        store.forget_written_rows()
    }

    /// Commits a group, then tells the sink. Returns for each request to how many connections it was handed.
    fn commit(
        &mut self,
        store: &Store,
        group: &mut [Box<dyn WriteRequest>],
    ) -> Result<Vec<usize>, Failure> {
        self.measure(store).map_err(|error| Failure::Broken(error.into()))?;
        let mut batch = store.batch(&self.shared.config, self.hints, clock::now());
        // How many notices each request has made.
        let mut made = Vec::with_capacity(group.len());
        for request in group {
            let before = batch.notices.len();
            request.run(&mut batch).map_err(|fault| {
                error!(%fault, "a group of calls could not be prepared");
                Failure::Refused(EngineError::UNAVAILABLE)
            })?;
            made.push(batch.notices.len() - before);
        }
        let committed = if batch.is_changed() {
            let broken = |error: fjall::Error| Failure::Broken(error.into());
            store.wait_for_backlog().map_err(broken)?;
            self.meta.commit += 1;
            self.shared.store_counts.lock().commits += 1;
            let committed = batch.commit(&self.meta).map_err(broken)?;
            // Before anybody is answered, so that no answer is missed should the store lose its end.
            self.answered = Note::of(&self.meta);
            if self.config.durability == Durability::Fsync {
                self.note();
            }
            committed
        } else {
            batch.unchanged()
        };
        self.hints = committed.hints;
        *self.shared.counts.lock() = self.hints.counts;
        let bulk = committed.notices.len() > limits::BULK_ABOVE;
        let mut handed = committed.notices.into_iter().map(|notice| self.tell(notice, bulk));
        // A request's own event is its last notice.
        let of_request = |made: usize| handed.by_ref().take(made).last().unwrap_or(0);
        Ok(made.into_iter().map(of_request).collect())
    }

    /// Tells the sink. Returns to how many connections the notice was handed.
    fn tell(&self, mut notice: Notice, many: bool) -> usize {
        if let Notice::Appended { bulk, .. } = &mut notice {
            *bulk = many;
        }
        self.shared.notify(notice)
    }

    fn note(&self) {
        if let Err(error) = self.acknowledged.write(self.answered) {
            // It stays a lower bound.
            warn!(%error, "the number of the last commit could not be noted");
        }
    }

    /// Refuses what there is no room for: whoever is left. A store that runs out of room for its tables cannot go on from
    /// there, so it stops taking pushes before; pruning, which makes room, and tickets, by which players come back, go
    /// on for longer.
    fn refuse_without_room(&self, group: Vec<Box<dyn WriteRequest>>) -> Vec<Box<dyn WriteRequest>> {
        let free = statvfs(&self.config.data_dir).map_or(u64::MAX, |fs| fs.f_bavail * fs.f_frsize);
        let full = free < limits::DISK_ROOM_MIN;
        if std::mem::replace(&mut self.shared.store_counts.lock().usable, !full) == full {
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
            group.into_iter().partition(|request| some && request.priority() == DiskPriority::High);
        let full = EngineError::Full { limit: "DISK_ROOM_MIN" };
        refused.into_iter().for_each(|request| request.answer(Err(full)));
        kept
    }

    /// Returns the store, opened again if it had failed and may have recovered.
    fn store(&mut self) -> Option<Arc<Store>> {
        if let Some(store) = self.shared.store.read().clone() {
            return Some(store);
        }
        if self.reopened_at.is_some_and(|at| at.elapsed() < REOPEN_PAUSE) {
            return None;
        }
        self.reopened_at = Some(Instant::now());
        forget_pages(&self.config.data_dir);
        let acknowledged = &mut self.acknowledged;
        match open::reopen(&self.shared.config, &self.config, self.answered, acknowledged) {
            Ok(CheckedStore { store, meta, counts }) => {
                let sessions_crowded_out = self.hints.counts.sessions_crowded_out;
                let counts = EngineCounts { sessions_crowded_out, ..counts };
                info!("the store is open again");
                let store = Arc::new(store);
                self.answered = Note::of(&meta);
                self.meta = meta;
                self.hints = StoreHints { counts, ..StoreHints::default() };
                *self.shared.counts.lock() = counts;
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
