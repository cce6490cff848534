//! One connection, as the hub knows it: how to write to it or wake its task, and whether it must close.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::event::{Epoch, Event, Position, Viewer};
use crate::id::{ConnectionId, DuelId};
use crate::ticket::Generation;

/// Why the hub wants a connection to close.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseRequest {
    /// The user has opened too many other connections since, or has come back in this connection's session.
    Replaced,
    /// The connection's session has ended, because one of its tickets was copied.
    SessionEnded,
    /// The backend disconnects it.
    Disconnected {
        /// Whether the client may come back at once.
        reconnect: bool,
        /// The backend's reason, for the close frame.
        reason: Option<Arc<str>>,
    },
    /// The node is stopping, or the duel's epoch has changed.
    Restart {
        /// When the client should come back, counted from the close.
        retry_after: Duration,
    },
}

/// Writes an event to the client without waiting: the socket, as far as the hub knows it.
pub trait DirectWriter: std::fmt::Debug + Send + Sync {
    /// Writes the event, if that needs no waiting.
    ///
    /// Called by the storing thread under the duel's lock, and by fan-out tasks without it. Must not block or call the hub.
    fn try_write(&self, connection: &Connection, event: &Event) -> WriteOutcome;
}

/// The outcome of [`DirectWriter::try_write`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOutcome {
    /// All of it was written, or it is not addressed to this client.
    Written,
    /// A part was written. The writer keeps the rest, and the connection's task sends it.
    Partial,
    /// Nothing was written. The connection's task sends it.
    Busy,
}

/// Lets the storing thread write to the socket while the connection's task has nothing to send.
#[derive(Debug, Default)]
struct FastPath {
    writer: Option<Arc<dyn DirectWriter>>,
    /// The connection's cursor while the path is armed. `None`: the task has the cursor.
    cursor: Option<Position>,
}

/// One connection. The task that owns the socket waits on it. Everybody else wakes it.
#[derive(Debug)]
pub struct Connection {
    /// The connection's id.
    pub id: ConnectionId,
    /// The duel that it follows.
    pub duel: DuelId,
    /// The user, and their role.
    pub viewer: Viewer,
    /// By which ticket of which session it comes. The probe comes by none.
    pub(super) generation: Option<Generation>,
    /// Holds one permit, so that the task sees what happens while it is busy.
    wake: Notify,
    close_request: OnceLock<CloseRequest>,
    attached: AtomicBool,
    draining: AtomicBool,
    fast_path: Mutex<FastPath>,
}

impl Connection {
    pub(super) fn new(
        id: ConnectionId,
        duel: DuelId,
        viewer: Viewer,
        generation: Option<Generation>,
    ) -> Self {
        Self {
            id,
            duel,
            viewer,
            generation,
            wake: Notify::new(),
            close_request: OnceLock::new(),
            attached: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            fast_path: Mutex::default(),
        }
    }

    pub(super) fn set_direct_writer(&self, writer: Arc<dyn DirectWriter>) {
        self.fast_path.lock().writer = Some(writer);
    }

    /// Arms the fast path at `cursor`. Without a writer it stays disarmed, and the task is woken for each event.
    pub(super) fn arm(&self, cursor: Position) {
        let mut fast_path = self.fast_path.lock();
        if fast_path.writer.is_some() {
            fast_path.cursor = Some(cursor);
        }
    }

    /// Disarms the fast path. Returns the cursor if it was armed.
    pub(super) fn disarm(&self) -> Option<Position> {
        self.fast_path.lock().cursor.take()
    }

    /// Returns the cursor if the fast path is armed.
    pub(super) fn armed_cursor(&self) -> Option<Position> {
        self.fast_path.lock().cursor
    }

    /// Writes the event directly if the fast path is armed and the event is the next after the cursor. Otherwise, or if it was
    /// not written whole, wakes the task.
    pub(super) fn deliver(&self, epoch: Epoch, event: &Event) {
        let mut fast_path = self.fast_path.lock();
        if let FastPath { writer: Some(writer), cursor: Some(cursor) } = &mut *fast_path
            && cursor.epoch == epoch
            && cursor.seq + 1 == event.seq
        {
            let outcome = writer.try_write(self, event);
            if outcome != WriteOutcome::Busy {
                cursor.seq = event.seq;
            }
            if outcome == WriteOutcome::Written {
                return;
            }
        }
        drop(fast_path);
        self.wake();
    }

    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits until there may be something to do. Cancel safe.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Asks the connection to close. The first reason stands.
    pub(super) fn request_close(&self, request: CloseRequest) {
        if self.close_request.set(request).is_ok() {
            self.wake();
        }
    }

    pub(super) fn close_request(&self) -> Option<&CloseRequest> {
        self.close_request.get()
    }

    /// Called by the duel, under its lock.
    pub(super) fn set_attached(&self) {
        self.attached.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_attached(&self) -> bool {
        self.attached.load(Ordering::Relaxed)
    }

    /// Marks the connection as one that will be asked to reconnect. Returns whether it was not marked before.
    pub(super) fn begin_draining(&self) -> bool {
        !self.draining.swap(true, Ordering::Relaxed)
    }

    /// Returns whether this connection takes the place of `other`, which is of the same node.
    pub(super) fn supersedes(&self, other: &Self) -> bool {
        let generations = self.generation.zip(other.generation);
        generations.is_some_and(|(own, others)| own.supersedes(others, self.id > other.id))
    }
}
