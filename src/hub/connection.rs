//! One connection, as the hub knows it: who it is, how to hand it an event or wake it, and whether it has to go.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::event::{Epoch, Event, Position, Viewer};
use crate::id::{ConnectionId, DuelId};

/// Why the hub wants a connection to close.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dismissal {
    /// The user has opened too many others since.
    Replaced,
    /// The backend wants it.
    Disconnected {
        /// Whether the client may come back at once.
        reconnect: bool,
        /// The backend's words.
        reason: Option<Arc<str>>,
    },
    /// The node is stopping, or the duel's epoch has changed.
    Restart,
}

/// Where an event can be handed over without waiting: the socket, as far as the hub knows it.
///
/// Whoever stores an event calls it under the duel's lock, and so do the tasks to which that is left, without it; it must not block,
/// and must not call the hub back.
pub trait Outlet: std::fmt::Debug + Send + Sync {
    /// Hands the event over, if that needs no waiting.
    fn hand(&self, connection: &Connection, event: &Event) -> Handed;
}

/// What became of an event that was offered to an [`Outlet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handed {
    /// The client has it, or will.
    Whole,
    /// So it has, once the connection's task has done the rest.
    Partly,
    /// Nothing of it: it is the task's.
    Not,
}

/// A connection's cursor while the task has nothing to send: then whoever stores the next event moves it.
#[derive(Debug, Default)]
struct Lent {
    outlet: Option<Arc<dyn Outlet>>,
    /// `None`: the task has it.
    cursor: Option<Position>,
}

/// One connection. The task that owns the socket waits on it; everybody else wakes it.
#[derive(Debug)]
pub struct Connection {
    /// Its id.
    pub id: ConnectionId,
    /// The duel it follows.
    pub duel: DuelId,
    /// Who it is.
    pub viewer: Viewer,
    /// One permit: whatever happens while the task is busy is seen when it looks again.
    wake: Notify,
    dismissal: OnceLock<Dismissal>,
    let_in: AtomicBool,
    revoked: AtomicBool,
    renewing: AtomicBool,
    lent: Mutex<Lent>,
}

impl Connection {
    pub(super) fn new(id: ConnectionId, duel: DuelId, viewer: Viewer) -> Self {
        Self {
            id,
            duel,
            viewer,
            wake: Notify::new(),
            dismissal: OnceLock::new(),
            let_in: AtomicBool::new(false),
            revoked: AtomicBool::new(false),
            renewing: AtomicBool::new(false),
            lent: Mutex::default(),
        }
    }

    /// Through which events are handed over from now on, whenever the cursor is lent.
    pub(super) fn set_outlet(&self, outlet: Arc<dyn Outlet>) {
        self.lent.lock().outlet = Some(outlet);
    }

    /// The task has nothing to send: the next event may be handed over by whoever stores it.
    pub(super) fn lend_cursor(&self, cursor: Position) {
        let mut lent = self.lent.lock();
        if lent.outlet.is_some() {
            lent.cursor = Some(cursor);
        }
    }

    /// Takes the cursor back, if it was lent: no event is handed over from now on.
    pub(super) fn take_cursor(&self) -> Option<Position> {
        self.lent.lock().cursor.take()
    }

    /// Where the cursor is, if it is lent.
    pub(super) fn lent_cursor(&self) -> Option<Position> {
        self.lent.lock().cursor
    }

    /// Hands an event over at once if it is the next after the cursor; otherwise, and for the rest of it, wakes the task.
    pub(super) fn offer(&self, epoch: Epoch, event: &Event) {
        let mut lent = self.lent.lock();
        if let Lent { outlet: Some(outlet), cursor: Some(cursor) } = &mut *lent
            && cursor.epoch == epoch
            && cursor.seq + 1 == event.seq
        {
            let handed = outlet.hand(self, event);
            if handed != Handed::Not {
                cursor.seq = event.seq;
            }
            if handed == Handed::Whole {
                return;
            }
        }
        drop(lent);
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
    pub(super) fn dismiss(&self, dismissal: Dismissal) {
        if self.dismissal.set(dismissal).is_ok() {
            self.wake();
        }
    }

    pub(super) fn dismissal(&self) -> Option<&Dismissal> {
        self.dismissal.get()
    }

    /// Called by the duel, under its lock.
    pub(super) fn let_in(&self) {
        self.let_in.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_let_in(&self) -> bool {
        self.let_in.load(Ordering::Relaxed)
    }

    /// The connection will be asked to come back: whether that is news.
    pub(super) fn begin_renewal(&self) -> bool {
        !self.renewing.swap(true, Ordering::Relaxed)
    }

    pub(super) fn revoke(&self) {
        self.revoked.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Relaxed)
    }
}
