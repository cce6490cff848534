//! One connection, as the hub knows it: who it is, how to wake it, and whether it has to go.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use std::sync::Arc;
use tokio::sync::Notify;

use crate::event::Viewer;
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
    /// The node is stopping.
    Restart,
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
        }
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

    pub(super) fn revoke(&self) {
        self.revoked.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Relaxed)
    }
}
