//! What this node's sink is told: each thing once and in order, whichever way it comes by first.
//!
//! What this node has done itself is told when Redis answers; what other nodes have done comes by on the duel's channel, and,
//! while somebody watches, on that of all duels, too. A duel that is subscribed to remembers up to which position of its log it was
//! told. What is missing in the log the hub notices and reads. Who is online is the concern of [`super::presence`].

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use crate::engine::{Head, Notice, Online, Signal, Sink};
use crate::event::{Epoch, Event, Position};
use crate::id::DuelId;

/// The way to the sink.
pub(super) struct Dispatcher {
    sink: OnceLock<Sink>,
    subscriptions: RwLock<HashMap<DuelId, Arc<Mutex<Subscription>>>>,
    /// What was found before this is in doubt: something may have happened in any duel that was not told.
    in_doubt_until: Mutex<Instant>,
}

/// A duel that is subscribed to.
#[derive(Debug, Default)]
struct Subscription {
    /// Up to where it was told.
    position: Option<Position>,
    /// To how many connections the last event was handed.
    handed: usize,
    /// It was told who was online when it began.
    is_introduced: bool,
    /// When it was last asked where the log stands, of those times that were answered.
    found_at: Option<Instant>,
}

impl std::fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatcher")
            .field("subscriptions", &self.subscriptions.read().len())
            .finish_non_exhaustive()
    }
}

impl Dispatcher {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            sink: OnceLock::new(),
            subscriptions: RwLock::default(),
            in_doubt_until: Mutex::new(Instant::now()),
        })
    }

    pub(super) fn connect(&self, sink: Sink) {
        let connected = self.sink.set(sink);
        assert!(connected.is_ok(), "an engine is connected once");
    }

    pub(super) fn subscribe(&self, duel: DuelId) {
        self.subscriptions.write().entry(duel).or_default();
    }

    /// Returns whether it was subscribed to.
    pub(super) fn unsubscribe(&self, duel: DuelId) -> bool {
        self.subscriptions.write().remove(&duel).is_some()
    }

    pub(super) fn is_subscribed(&self, duel: DuelId) -> bool {
        self.subscriptions.read().contains_key(&duel)
    }

    pub(super) fn all_subscribed(&self) -> Vec<DuelId> {
        self.subscriptions.read().keys().copied().collect()
    }

    fn subscription(&self, duel: DuelId) -> Option<Arc<Mutex<Subscription>>> {
        self.subscriptions.read().get(&duel).cloned()
    }

    fn dispatch(&self, notice: Notice) -> usize {
        self.sink.get().map_or(0, |sink| sink(notice))
    }

    pub(super) fn opened(&self, duel: DuelId, position: Position) {
        self.dispatch(Notice::Opened { duel, position });
    }

    /// An event was stored. Returns to how many connections it was handed.
    pub(super) fn event(&self, duel: DuelId, epoch: Epoch, event: Arc<Event>, bulk: bool) -> usize {
        let position = Position { epoch, seq: event.seq };
        let notice = Notice::Appended { duel, epoch, event, bulk };
        let Some(subscription) = self.subscription(duel) else { return self.dispatch(notice) };
        let mut subscription = subscription.lock();
        let told = |told: Position| told.epoch == epoch && told.seq >= position.seq;
        if subscription.position.is_some_and(told) {
            return subscription.handed;
        }
        subscription.position = Some(position);
        // Under the lock, so that none overtakes another.
        subscription.handed = self.dispatch(notice);
        subscription.handed
    }

    /// A log stands there, as was asked at `asked_at`.
    pub(super) fn head(&self, duel: DuelId, head: Head, asked_at: Instant) {
        if let Some(subscription) = self.subscription(duel) {
            self.dispatch(Notice::Head { duel, head });
            subscription.lock().found_at = Some(asked_at);
        }
    }

    /// Something may have happened that was not told: in any duel.
    pub(super) fn doubt_all(&self) {
        *self.in_doubt_until.lock() = Instant::now();
    }

    /// Returns those of the duels of which something may have been missed, or that were not asked about for as long as `asked_every`
    /// says.
    pub(super) fn in_doubt(
        &self,
        duels: Vec<DuelId>,
        asked_every: impl Fn(DuelId) -> Duration,
    ) -> Vec<DuelId> {
        let (in_doubt_until, now) = (*self.in_doubt_until.lock(), Instant::now());
        let subscriptions = self.subscriptions.read();
        let is_sure = |duel: &DuelId| {
            let found_at = subscriptions.get(duel).and_then(|known| known.lock().found_at);
            found_at.is_some_and(|at| at > in_doubt_until && now - at < asked_every(*duel))
        };
        duels.into_iter().filter(|duel| !is_sure(duel)).collect()
    }

    /// Calls `note` with each duel that is subscribed to and was found.
    pub(super) fn each_found(&self, mut note: impl FnMut(DuelId)) {
        for (duel, subscription) in &*self.subscriptions.read() {
            if subscription.lock().found_at.is_some() {
                note(*duel);
            }
        }
    }

    pub(super) fn signal(&self, signal: Signal) {
        self.dispatch(Notice::Signal(signal));
    }

    /// Tells a new subscription who is online, as far as watchers have been told; what changes is told by signals.
    pub(super) fn introduce(&self, duel: DuelId, online: &[Online]) {
        let Some(subscription) = self.subscription(duel) else { return };
        let was_introduced = std::mem::replace(&mut subscription.lock().is_introduced, true);
        if !was_introduced && !online.is_empty() {
            self.dispatch(Notice::Introduced { duel, online: online.to_vec() });
        }
    }

    /// What happened in all duels was not heard for a while.
    pub(super) fn interrupted(&self) {
        self.dispatch(Notice::Interrupted);
    }
}
