//! Those who watch what happens in the duels.
//!
//! A watch starts with the present state and goes on with changes, which are gathered from before the state is read, so
//! that nothing falls between: a change may be told twice, once within the state. Bounds: [`limits::WATCH_CHANGES_MAX`]
//! changes wait for a watcher; past that the watch is ended, and says so.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::RwLock;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Hub, OnlineUser};
use crate::clock::UnixMs;
use crate::engine::{EngineError, Head, OfflineReason, Signal, SignalKind, StatusFilter};
use crate::event::{DuelStatus, Epoch, Outcome, Position, Viewer};
use crate::id::{DuelId, UserId};
use crate::limits;
use crate::metrics::Metrics;

/// Something happened in a duel, or is so from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The duel.
    pub duel: DuelId,
    /// It is part of the state at the start.
    pub initial: bool,
    /// What.
    pub kind: ChangeKind,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// The duel came into being.
    Opened(Position),
    /// The duel was closed; the position is its last.
    Closed(Outcome, Position),
    /// A user came online.
    Online(Viewer, UnixMs),
    /// A user went offline.
    Offline(UserId, OfflineReason),
    /// A user acked up to a seq.
    Acked(UserId, u64),
    /// A session of a user ended, because one of its tickets was copied.
    SessionEnded(UserId),
}

/// Which duels are watched.
#[derive(Debug, Clone)]
pub enum WatchFilter {
    /// All.
    All,
    /// These.
    Only(HashSet<DuelId>),
}

impl WatchFilter {
    fn includes(&self, duel: DuelId) -> bool {
        match self {
            Self::All => duel != DuelId::PROBE,
            Self::Only(duels) => duels.contains(&duel),
        }
    }
}

/// Why a watch does not begin, or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// There are as many as may be.
    #[error("CONTROL_MAX_WATCHERS is reached")]
    TooMany,
    /// The watcher reads too slowly, and would miss changes.
    #[error("the watcher reads too slowly")]
    TooSlow,
    /// Changes on other nodes were not heard for a while.
    #[error("changes on other nodes were missed")]
    Interrupted,
    /// The engine's own reasons.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// All of them.
#[derive(Debug)]
pub(super) struct Watchers {
    list: RwLock<Vec<Arc<Watcher>>>,
    count: AtomicUsize,
    count_max: usize,
    /// Calls in flight that turn the engine's notices for watches off. Raised under the list's lock.
    turning_off: AtomicUsize,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Watcher {
    filter: WatchFilter,
    /// Changes are gathered.
    has_begun: AtomicBool,
    changes_tx: mpsc::Sender<Change>,
    too_slow: AtomicBool,
    interrupted: CancellationToken,
}

/// One watch. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    hub: Arc<Hub>,
    watcher: Arc<Watcher>,
    changes_rx: mpsc::Receiver<Change>,
}

impl Watcher {
    fn includes(&self, duel: DuelId) -> bool {
        self.has_begun.load(Ordering::SeqCst) && self.filter.includes(duel)
    }
}

impl Watchers {
    pub(super) fn new(count_max: usize, metrics: Arc<Metrics>) -> Self {
        let (count, turning_off) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { list: RwLock::default(), count, count_max, turning_off, metrics }
    }

    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub(super) fn watch(&self, hub: Arc<Hub>, filter: WatchFilter) -> Result<Watch, WatchError> {
        let (changes_tx, changes_rx) = mpsc::channel(limits::WATCH_CHANGES_MAX);
        let (too_slow, interrupted) = (AtomicBool::new(false), CancellationToken::new());
        let has_begun = AtomicBool::new(false);
        let watcher = Watcher { filter, has_begun, changes_tx, too_slow, interrupted };
        let watcher = Arc::new(watcher);
        let mut list = self.list.write();
        if list.len() >= self.count_max {
            return Err(WatchError::TooMany);
        }
        list.push(Arc::clone(&watcher));
        self.count.store(list.len(), Ordering::Relaxed);
        drop(list);
        Ok(Watch { hub, watcher, changes_rx })
    }

    /// Removes a watcher. If it was the last, calls `turn_off`, without the lock.
    fn remove(&self, watcher: &Arc<Watcher>, turn_off: impl FnOnce()) {
        let mut list = self.list.write();
        list.retain(|other| !Arc::ptr_eq(other, watcher));
        self.count.store(list.len(), Ordering::Relaxed);
        let last = list.is_empty();
        if last {
            self.turning_off.fetch_add(1, Ordering::Relaxed);
        }
        drop(list);
        if last {
            turn_off();
            self.turning_off.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits until every `turn_off` that was begun before this watcher was added has returned.
    async fn until_turned_off(&self) {
        while self.turning_off.load(Ordering::Acquire) > 0 {
            tokio::task::yield_now().await;
        }
    }

    /// Ends all of them: they would be told less than there is.
    pub(super) fn interrupt(&self) {
        self.list.read().iter().for_each(|watcher| watcher.interrupted.cancel());
    }

    pub(super) fn opened(&self, duel: DuelId, position: Position) {
        self.tell(duel, ChangeKind::Opened(position));
    }

    pub(super) fn closed(&self, duel: DuelId, outcome: Outcome, epoch: Epoch, seq: u64) {
        self.tell(duel, ChangeKind::Closed(outcome, Position { epoch, seq }));
    }

    pub(super) fn signaled(&self, signal: &Signal) {
        let kind = match signal.kind {
            SignalKind::Online { viewer, since } => ChangeKind::Online(viewer, since),
            SignalKind::Offline { user, reason } => ChangeKind::Offline(user, reason),
            SignalKind::Unlisted { user } => ChangeKind::Offline(user, OfflineReason::Lost),
            SignalKind::Acked { user, seq } => ChangeKind::Acked(user, seq),
            SignalKind::SessionEnded { user, .. } => ChangeKind::SessionEnded(user),
            SignalKind::Disconnect { .. } | SignalKind::Replace { .. } => return,
        };
        self.tell(signal.duel, kind);
    }

    fn tell(&self, duel: DuelId, kind: ChangeKind) {
        // Most nodes have no watcher, and every connection comes by here.
        if self.len() == 0 {
            return;
        }
        for watcher in self.list.read().iter().filter(|watcher| watcher.includes(duel)) {
            let told = watcher.changes_tx.try_send(Change { duel, initial: false, kind });
            if told.is_err() && !watcher.too_slow.swap(true, Ordering::Relaxed) {
                self.metrics.watchers_too_slow.inc();
            }
        }
    }
}

impl Watch {
    /// The next change. Cancel safe.
    ///
    /// # Errors
    /// [`WatchError::TooSlow`], once a change did not fit; [`WatchError::Interrupted`]. Nothing more comes then.
    pub async fn next(&mut self) -> Result<Change, WatchError> {
        if self.watcher.too_slow.load(Ordering::Relaxed) {
            return Err(WatchError::TooSlow);
        }
        tokio::select! {
            biased;
            () = self.watcher.interrupted.cancelled() => Err(WatchError::Interrupted),
            change = self.changes_rx.recv() => change.ok_or(WatchError::TooSlow),
        }
    }

    /// The next page of the present state after `after`: the changes, how many duels they are of, and where the page
    /// after it begins, if there is one.
    ///
    /// # Errors
    /// The engine's own.
    pub async fn state(
        &self,
        after: Option<DuelId>,
    ) -> Result<(Vec<Change>, u64, Option<DuelId>), WatchError> {
        let engine = &self.hub.engine;
        if after.is_none() {
            self.hub.watchers.until_turned_off().await;
            engine.watch(true).await?;
            // What was told before may lack something. The state is read after this, so that nothing falls between.
            self.watcher.has_begun.store(true, Ordering::SeqCst);
        }
        let (heads, next) = match &self.watcher.filter {
            WatchFilter::All => {
                let count = limits::LIST_PAGE_MAX;
                let heads = engine.list(after, StatusFilter::Any, count).await?;
                let next = heads.last().map(|(duel, _)| *duel);
                (heads, next)
            }
            WatchFilter::Only(duels) => {
                let mut duels: Vec<_> = duels.iter().copied().collect();
                duels.sort_unstable();
                (engine.heads(duels).await?, None)
            }
        };
        let lost: Vec<_> = match &self.watcher.filter {
            WatchFilter::All => engine.cached_duels(),
            WatchFilter::Only(duels) => duels.iter().copied().collect(),
        };
        let is_here = |duel: &DuelId| Some(*duel) > after && next.is_none_or(|last| *duel <= last);
        let is_lost = |duel: &DuelId| is_here(duel) && heads.iter().all(|(head, _)| head != duel);
        let lost: Vec<_> = lost.into_iter().filter(is_lost).collect();
        let duels = heads.iter().map(|(duel, _)| *duel).chain(lost.iter().copied());
        let mut online = self.hub.online(duels.collect()).await?;
        let mut online = |duel| online.remove(&duel).unwrap_or_default();
        let mut state = Vec::new();
        for (duel, head) in &heads {
            state.extend(Self::state_of(*duel, head, online(*duel)));
        }
        for duel in lost {
            state.extend(Self::online_of(duel, online(duel)));
        }
        Ok((state, heads.len() as u64, next))
    }

    fn state_of(
        duel: DuelId,
        head: &Head,
        online: Vec<OnlineUser>,
    ) -> impl Iterator<Item = Change> {
        let ended = match head.status {
            DuelStatus::Open => None,
            DuelStatus::Closed(outcome) => Some(ChangeKind::Closed(outcome, head.position)),
        };
        let kinds = std::iter::once(ChangeKind::Opened(head.position)).chain(ended);
        kinds
            .map(move |kind| Change { duel, initial: true, kind })
            .chain(Self::online_of(duel, online))
    }

    fn online_of(duel: DuelId, online: Vec<OnlineUser>) -> impl Iterator<Item = Change> {
        let kinds = online.into_iter().flat_map(|online| {
            let viewer = Viewer { user: online.user, role: online.role };
            let acked =
                (online.acked_seq > 0).then_some(ChangeKind::Acked(online.user, online.acked_seq));
            std::iter::once(ChangeKind::Online(viewer, online.since)).chain(acked)
        });
        kinds.map(move |kind| Change { duel, initial: true, kind })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The call takes effect at once. Its answer is not needed.
        self.hub.watchers.remove(&self.watcher, || drop(self.hub.engine.watch(false)));
    }
}
