//! What this node's sink is told: each thing once and in order, whichever way it comes by first.
//!
//! What this node has done itself is told when Redis answers; what other nodes have done comes by on the duel's channel, and,
//! while somebody watches, on that of all duels, too. A duel that is followed remembers up to where it was told: of its log, and of
//! the changes of who is online. What is missing in the log the hub notices and reads; what is missing of the changes is
//! noticed here, and the whole roster is read again.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc;

use super::here::Here;
use crate::engine::{Head, Notice, Online, Signal, SignalKind, Sink};
use crate::event::{Epoch, Event, Position};
use crate::id::DuelId;

/// The way to the sink.
pub(super) struct Teller {
    sink: OnceLock<Sink>,
    followed: RwLock<HashMap<DuelId, Arc<Mutex<Followed>>>>,
    /// Duels whose rosters are to be read again. What does not fit is found by the next sweep.
    stale_tx: mpsc::Sender<DuelId>,
    here: Arc<Here>,
}

/// A duel that this node follows.
#[derive(Debug, Default)]
struct Followed {
    /// Up to where it was told.
    position: Option<Position>,
    /// To how many connections the last event was handed.
    handed: usize,
    /// The last change of the roster that was told; `None`: the roster has to be read.
    version: Option<u64>,
    /// The last change that came by while the roster was not known.
    passed: u64,
}

impl std::fmt::Debug for Teller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Teller")
            .field("followed", &self.followed.read().len())
            .finish_non_exhaustive()
    }
}

impl Teller {
    pub(super) fn new(stale_tx: mpsc::Sender<DuelId>, here: Arc<Here>) -> Self {
        Self { sink: OnceLock::new(), followed: RwLock::default(), stale_tx, here }
    }

    pub(super) fn connect(&self, sink: Sink) {
        let connected = self.sink.set(sink);
        assert!(connected.is_ok(), "an engine is connected once");
    }

    pub(super) fn follow(&self, duel: DuelId) {
        self.followed.write().entry(duel).or_default();
    }

    /// Whether it was followed.
    pub(super) fn leave(&self, duel: DuelId) -> bool {
        self.followed.write().remove(&duel).is_some()
    }

    pub(super) fn follows(&self, duel: DuelId) -> bool {
        self.followed.read().contains_key(&duel)
    }

    pub(super) fn all_followed(&self) -> Vec<DuelId> {
        self.followed.read().keys().copied().collect()
    }

    fn followed(&self, duel: DuelId) -> Option<Arc<Mutex<Followed>>> {
        self.followed.read().get(&duel).cloned()
    }

    fn tell(&self, notice: Notice) -> usize {
        self.sink.get().map_or(0, |sink| sink(notice))
    }

    pub(super) fn opened(&self, duel: DuelId, position: Position) {
        self.tell(Notice::Opened { duel, position });
    }

    /// An event was stored. To how many connections it was handed.
    pub(super) fn event(&self, duel: DuelId, epoch: Epoch, event: Arc<Event>, bulk: bool) -> usize {
        let position = Position { epoch, seq: event.seq };
        let notice = Notice::Appended { duel, epoch, event, bulk };
        let Some(followed) = self.followed(duel) else { return self.tell(notice) };
        let mut followed = followed.lock();
        let told = |told: Position| told.epoch == epoch && told.seq >= position.seq;
        if followed.position.is_some_and(told) {
            return followed.handed;
        }
        followed.position = Some(position);
        // Under the lock, so that none overtakes another.
        followed.handed = self.tell(notice);
        followed.handed
    }

    /// A log stands there, and with it the roster.
    pub(super) fn head(&self, duel: DuelId, head: Head, version: u64) {
        let Some(followed) = self.followed(duel) else { return };
        let stale = {
            let mut followed = followed.lock();
            let stale = followed.version.is_some_and(|known| known != version);
            if stale {
                (followed.version, followed.passed) = (None, 0);
            }
            stale || followed.version.is_none()
        };
        self.tell(Notice::Head { duel, head });
        if stale {
            self.refresh(duel);
        }
    }

    fn refresh(&self, duel: DuelId) {
        let _full = self.stale_tx.try_send(duel);
    }

    /// What a node said of a duel.
    pub(super) fn signal(&self, signal: Signal) {
        self.tell(Notice::Signal(signal));
    }

    /// A change of who is online, of what they have acked, or of who has to go.
    pub(super) fn presence(&self, version: u64, signal: Signal) {
        let Some(followed) = self.followed(signal.duel) else {
            return self.signal(signal);
        };
        let mut followed = followed.lock();
        // Who has to go does so, whatever else was missed.
        let at_once = matches!(signal.kind, SignalKind::Disconnect { .. });
        if at_once {
            self.signal(signal.clone());
        }
        let Some(known) = followed.version else {
            followed.passed = followed.passed.max(version);
            return;
        };
        if version <= known {
            return;
        }
        // Somebody who is here has not gone, whatever was said: it has to be said again that they are.
        let wrong = matches!(&signal.kind, SignalKind::Offline { user, .. }
            if self.here.has(signal.duel, *user));
        if version > known + 1 || wrong {
            (followed.version, followed.passed) = (None, version);
            drop(followed);
            return self.refresh(signal.duel);
        }
        followed.version = Some(version);
        if !at_once {
            self.signal(signal);
        }
    }

    /// The whole roster was read.
    pub(super) fn roster(&self, duel: DuelId, version: u64, online: Vec<Online>) {
        let Some(followed) = self.followed(duel) else { return };
        let mut followed = followed.lock();
        if followed.version.is_some_and(|known| known >= version) {
            return;
        }
        followed.version = Some(version);
        self.tell(Notice::Roster { duel, online });
        if followed.passed > version {
            // More has changed since. It is told so far, so that presence does not stand still where much changes.
            (followed.version, followed.passed) = (None, 0);
            drop(followed);
            self.refresh(duel);
        }
    }

    /// Up to which change the node knows who is online.
    pub(super) fn roster_version(&self, duel: DuelId) -> Option<u64> {
        self.followed(duel).and_then(|followed| followed.lock().version)
    }

    /// The roster has to be read again before anything of it is told.
    pub(super) fn forget_roster(&self, duel: DuelId) {
        if let Some(followed) = self.followed(duel) {
            let mut followed = followed.lock();
            (followed.version, followed.passed) = (None, 0);
        }
    }

    /// What happened in all duels was not heard for a while.
    pub(super) fn interrupted(&self) {
        self.tell(Notice::Interrupted);
    }
}
