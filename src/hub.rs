//! The hub: the live duels of this node, and the connections that follow them.
//!
//! A duel is a log, and a connection is a cursor over it. A push appends to the log in the engine. The engine's notice adds
//! the event to the live duel's tail, writes it to the connections that are caught up, and wakes the others. Each of these
//! takes whatever lies after its own cursor ([`follow`]). Live delivery, resuming, slow clients, lost notices and the repair
//! sweep all take that one path, so no connection has a queue of events that could overflow.
//!
//! Called by the control plane and the data plane. Calls the engine. Invariants:
//!
//! 1. A connection is in its duel's list before the log's head is read for it, so it misses nothing in between.
//! 2. A duel is in the map exactly as long as it has connections, or users in their grace period.
//! 3. No hub lock is held while the engine is called. A subscription ends before its duel leaves the map, and a new one
//!    begins only after that.
//!
//! Locks, in the order in which one thread may take them. None is held across an await.
//!
//! | lock | guards | while it is held, may be taken |
//! |---|---|---|
//! | an engine's own | the duel's log, while the sink is told | all below |
//! | [`Hub::duels`] | the map of live duels | none |
//! | [`LiveDuel`]'s | tail, connections, presence | the three below |
//! | [`Watchers`]' list | who watches | none |
//! | [`Connection`]'s fast path | the cursor while it is armed | the next |
//! | a [`DirectWriter`]'s | what the socket has not taken | none |
//! | [`DelayQueue`]'s, [`Readiness`]'s | their own state | none |
//!
//! Deliberately absent: WebSocket frames, protobuf, sockets.

mod attach;
mod attachment;
mod connection;
mod delay_queue;
mod drain;
mod duel;
mod fan_out;
mod follow;
mod grace_period;
mod presence;
mod probe;
mod sweep;
mod tail;
mod watch;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::RwLock;
use tokio::runtime::Handle;
use tracing::debug;

pub use self::attach::{AttachError, Recovery, Welcome};
pub use self::attachment::Attachment;
pub use self::connection::{CloseRequest, Connection, DirectWriter, WriteOutcome};
use self::delay_queue::DelayQueue;
use self::duel::{HeadChange, LiveDuel};
pub use self::follow::{Batch, ResyncRequired};
use self::grace_period::GracePeriod;
pub use self::presence::PresenceChange;
pub use self::probe::Readiness;
use self::watch::Watchers;
pub use self::watch::{Change, ChangeKind, Watch, WatchError, WatchFilter};
use crate::config::HubConfig;
use crate::engine::{
    AppendError, Appended, Declaration, DuelRecord, DuelSettings, Engine, EngineCounts,
    EngineError, Head, Notice, Online, OpenError, Opened, Page, Revocation, Signal, SignalKind,
    StatusFilter, StoreCounts, Target,
};
use crate::event::{Content, Outcome, Position, Push, Role};
use crate::id::{ConnectionId, DuelId, TicketKey, UserId};
use crate::metrics::Metrics;
use crate::ticket::{Revision, Stamp};

/// The node's live duels. Shared by `Arc`; every method may be called from anywhere.
#[derive(Debug)]
pub struct Hub {
    engine: Arc<dyn Engine>,
    config: HubConfig,
    metrics: Arc<Metrics>,
    duels: RwLock<HashMap<DuelId, Arc<LiveDuel>>>,
    watchers: Watchers,
    grace_periods: DelayQueue<GracePeriod, ()>,
    /// Connections whose epoch has ended.
    epoch_drain: DelayQueue<ConnectionId, Weak<Connection>>,
    readiness: Readiness,
    next_connection: AtomicU64,
    /// The runtime that fan-out tasks run on: the players'.
    tasks: Handle,
}

/// A stored event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// The event's position.
    pub position: Position,
    /// Whether it had been stored before, and nothing was stored now.
    pub duplicate: bool,
    /// Connections of this node that it is addressed to.
    pub connections: usize,
    /// Whether the duel was declared.
    pub declared: bool,
}

impl From<Appended> for Pushed {
    fn from(appended: Appended) -> Self {
        Self {
            position: appended.position,
            duplicate: appended.event.is_none(),
            connections: appended.connections,
            declared: appended.declared,
        }
    }
}

/// A duel, and who is online in it.
#[derive(Debug)]
pub struct DuelView {
    /// The engine's record.
    pub record: DuelRecord,
    /// The users who are online, in the order of their ids.
    pub online: Vec<OnlineUser>,
    /// This node's connections, spectators included.
    pub connections: usize,
}

/// A user who is online.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnlineUser {
    /// The user's id.
    pub user: UserId,
    /// The role of the latest connection.
    pub role: Role,
    /// When the user came online.
    pub since: crate::clock::UnixMs,
    /// The user's connections on this node.
    pub connections: usize,
    /// The highest seq that a client of the user acked. 0: none.
    pub acked_seq: u64,
}

impl OnlineUser {
    fn new(online: &Online, connections: usize) -> Self {
        Self {
            user: online.viewer.user,
            role: online.viewer.role,
            since: online.since,
            connections,
            acked_seq: online.acked_seq,
        }
    }
}

/// The sizes of what the hub holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HubCounts {
    /// The engine's counts.
    pub engine: EngineCounts,
    /// The counts of the engine's store, if it has one.
    pub store: Option<StoreCounts>,
    /// Duels with a connection or a user in their grace period, without the probe's.
    pub live_duels: usize,
    /// Watches.
    pub watchers: usize,
}

impl Hub {
    /// Creates a hub over `engine` and becomes its sink. Fan-out tasks run on the present runtime. Needs [`Hub::run`].
    ///
    /// # Panics
    /// Outside of a runtime.
    #[must_use]
    pub fn new(engine: Arc<dyn Engine>, config: HubConfig, metrics: Arc<Metrics>) -> Arc<Self> {
        let hub = Arc::new(Self {
            watchers: Watchers::new(config.watchers_max, Arc::clone(&metrics)),
            engine,
            config,
            metrics,
            duels: RwLock::default(),
            grace_periods: DelayQueue::default(),
            epoch_drain: DelayQueue::default(),
            readiness: Readiness::default(),
            next_connection: AtomicU64::new(1),
            tasks: Handle::current(),
        });
        let sink = Arc::downgrade(&hub);
        hub.engine
            .connect(Box::new(move |notice| sink.upgrade().map_or(0, |hub| hub.notice(notice))));
        hub
    }

    /// Does the background work: sweeps, grace periods, drains, probes. Ends only by being dropped.
    pub async fn run(self: Arc<Self>) {
        tokio::join!(
            self.run_sweeps(),
            self.run_grace_periods(),
            self.run_epoch_drain(),
            self.run_probe()
        );
    }

    /// Declares a duel.
    ///
    /// # Errors
    /// [`OpenError`]. Nothing has taken effect, unless the engine says that it may have.
    pub async fn open(&self, duel: DuelId, declaration: Declaration) -> Result<Opened, OpenError> {
        let settings = declaration.settings;
        let opened = self.engine.open(duel, declaration).await?;
        // A duel that begins anew has the defaults, whatever it had before.
        let settings = settings.or(opened.created.then(DuelSettings::default));
        if let (Some(settings), Some(live)) = (settings, self.live(duel)) {
            live.set_presence_grace(settings.presence_grace);
        }
        Ok(opened)
    }

    /// Stores an event and delivers it. Pushes take effect in the order of the calls, whichever answer is awaited first. A
    /// dropped answer does not undo the push.
    ///
    /// # Errors
    /// [`AppendError`]. Nothing has taken effect, unless the engine says that it may have.
    pub fn push(
        &self,
        duel: DuelId,
        push: Push,
        idempotency_key: Option<Box<str>>,
    ) -> impl Future<Output = Result<Pushed, AppendError>> + use<> {
        let answer = self.engine.append(duel, push, idempotency_key);
        async move { Ok(answer.await?.into()) }
    }

    /// Stores the last event, if any, and closes the duel. Not cancel safe: if it is dropped, it may have taken effect.
    ///
    /// # Errors
    /// [`AppendError`]. Nothing has taken effect, unless the engine says that it may have.
    pub async fn close(
        &self,
        duel: DuelId,
        outcome: Outcome,
        last: Option<Push>,
    ) -> Result<Pushed, AppendError> {
        Ok(self.engine.close(duel, outcome, last).await?.into())
    }

    /// Returns a duel as it stands, if it exists.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn duel(&self, duel: DuelId) -> Result<Option<DuelView>, EngineError> {
        let Some(record) = self.engine.get(duel).await? else { return Ok(None) };
        let online = self.online(vec![duel]).await?.remove(&duel).unwrap_or_default();
        let connections = self.live(duel).map_or(0, |live| live.connections());
        Ok(Some(DuelView { record, online, connections }))
    }

    /// Returns at most `count` events of a duel's log after a position, in order.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn log(
        &self,
        duel: DuelId,
        after: Position,
        count: usize,
    ) -> Result<Page, EngineError> {
        self.engine.read(duel, after, count).await
    }

    /// Returns who is online in those of the duels in which somebody is, over all nodes.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn online(
        &self,
        duels: Vec<DuelId>,
    ) -> Result<HashMap<DuelId, Vec<OnlineUser>>, EngineError> {
        let local = |duel: &DuelId| self.live(*duel).map(|live| live.online());
        let Some(online) = self.engine.presence(duels.clone()).await? else {
            let local = duels.iter().filter_map(|duel| Some((*duel, local(duel)?)));
            return Ok(local.collect());
        };
        let on_node = |live: &Option<Arc<LiveDuel>>, user| {
            let of_user = |c: &Connection| c.viewer.user == user;
            live.as_ref().map_or(0, |live| live.count_connections(of_user))
        };
        let all = online.into_iter().map(|(duel, users)| {
            let live = self.live(duel);
            let mut users: Vec<_> = (users.iter())
                .map(|online| OnlineUser::new(online, on_node(&live, online.viewer.user)))
                .collect();
            users.sort_unstable_by_key(|online| online.user);
            (duel, users)
        });
        Ok(all.collect())
    }

    /// Returns at most `count` duels whose id is above `after`, in the order of their ids, with the number of this node's
    /// connections.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn duels(
        &self,
        after: Option<DuelId>,
        status: StatusFilter,
        count: usize,
    ) -> Result<Vec<(DuelId, Head, usize)>, EngineError> {
        Ok(self.with_connections(self.engine.list(after, status, count).await?))
    }

    /// Returns the same of those duels that have a connection on this node, or a user in their grace period.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn live_duels(
        &self,
        after: Option<DuelId>,
        count: usize,
    ) -> Result<Vec<(DuelId, Head, usize)>, EngineError> {
        let is_next = |duel: &DuelId| Some(*duel) > after && *duel != DuelId::PROBE;
        let mut ids: Vec<_> = self.duels.read().keys().copied().filter(is_next).collect();
        if ids.len() > count {
            ids.select_nth_unstable(count);
            ids.truncate(count);
        }
        let mut heads = self.engine.heads(ids).await?;
        heads.sort_unstable_by_key(|(duel, _)| *duel);
        Ok(self.with_connections(heads))
    }

    fn with_connections(&self, heads: Vec<(DuelId, Head)>) -> Vec<(DuelId, Head, usize)> {
        let connections = |duel| self.live(duel).map_or(0, |live| live.connections());
        heads.into_iter().map(|(duel, head)| (duel, head, connections(duel))).collect()
    }

    /// Returns what a ticket issued now has to say.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn ticket_stamp(&self) -> Result<Stamp, EngineError> {
        self.engine.stamp().await
    }

    /// Returns what a resume ticket issued now has to say. See [`crate::engine::TicketEngine::renew`].
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn renew_ticket(
        &self,
        session: TicketKey,
        owner: (DuelId, UserId),
        revision: Revision,
    ) -> Result<Option<Stamp>, EngineError> {
        self.engine.renew(session, owner, revision).await
    }

    /// Revokes tickets. When it returns, no such ticket opens a connection, and one stamped later does.
    ///
    /// # Errors
    /// [`EngineError`]. Nothing has taken effect, unless it says that it may have.
    pub async fn revoke(&self, revocation: Revocation) -> Result<(), EngineError> {
        self.engine.revoke(revocation).await
    }

    /// Closes the connections of a duel, or of one user in it, on all nodes. Returns how many this node had.
    ///
    /// # Errors
    /// [`EngineError`]. Nothing has taken effect, unless it says that it may have.
    pub async fn disconnect(
        &self,
        duel: DuelId,
        user: Option<UserId>,
        reconnect: bool,
        reason: Option<Arc<str>>,
    ) -> Result<usize, EngineError> {
        let meant = |connection: &Connection| user.is_none_or(|u| u == connection.viewer.user);
        let count = self.live(duel).map_or(0, |live| live.count_connections(meant));
        let whom = user.map_or(Target::Everybody, Target::User);
        let kind = SignalKind::Disconnect { whom, reconnect, reason };
        self.engine.signal(Signal { duel, kind }).await?;
        Ok(count)
    }

    /// Begins a watch of the duels that `filter` includes.
    ///
    /// # Errors
    /// [`WatchError::TooMany`].
    pub fn watch(self: &Arc<Self>, filter: WatchFilter) -> Result<Watch, WatchError> {
        self.watchers.watch(Arc::clone(self), filter)
    }

    /// Returns roughly what the hub holds, at once.
    #[must_use]
    pub fn counts(&self) -> HubCounts {
        HubCounts {
            engine: self.engine.counts(),
            store: self.engine.store(),
            live_duels: {
                let duels = self.duels.read();
                duels.len() - usize::from(duels.contains_key(&DuelId::PROBE))
            },
            watchers: self.watchers.len(),
        }
    }

    /// Returns the engine's name.
    #[must_use]
    pub fn engine_name(&self) -> &'static str {
        self.engine.name()
    }

    /// Returns whether the node is ready.
    #[must_use]
    pub const fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    fn live(&self, duel: DuelId) -> Option<Arc<LiveDuel>> {
        self.duels.read().get(&duel).cloned()
    }

    fn live_or_new(&self, duel: DuelId) -> Arc<LiveDuel> {
        self.live(duel).unwrap_or_else(|| {
            let mut duels = self.duels.write();
            Arc::clone(duels.entry(duel).or_insert_with(|| Arc::new(LiveDuel::new(duel))))
        })
    }

    /// Takes the duel out of the map if nobody is left in it.
    fn retire(&self, live: &LiveDuel) {
        if live.retire() {
            // Whoever attaches meanwhile waits until the duel has left the map, and so subscribes after this.
            self.engine.unsubscribe(live.id);
            self.duels.write().remove(&live.id);
        }
    }

    /// Takes a notice of the engine, under the engine's own lock; see [`crate::engine`]. Returns to how many connections an
    /// event is addressed.
    fn notice(&self, notice: Notice) -> usize {
        let mut connections = 0;
        match notice {
            Notice::Opened { duel, position } => self.watchers.opened(duel, position),
            Notice::Appended { duel, epoch, event, bulk } => {
                if let Some(live) = self.live(duel) {
                    connections = live.append(epoch, &event, bulk, &self.tasks);
                }
                if let Content::Closed(outcome) = event.content {
                    self.watchers.closed(duel, outcome, epoch, event.seq);
                }
            }
            Notice::Signal(signal) => {
                let tell = || self.watchers.signaled(&signal);
                match self.live(signal.duel) {
                    Some(live) => live.apply(&signal.kind, tell),
                    None => tell(),
                }
            }
            Notice::Introduced { duel, online } => {
                if let Some(live) = self.live(duel) {
                    live.introduce(&online);
                }
            }
            Notice::Head { duel, head } => self.observe_head(duel, &head),
            Notice::Interrupted => self.watchers.interrupt(),
        }
        connections
    }

    /// Takes a head that the engine reported. The probe's duel is left out: repaired, it would prove nothing.
    fn observe_head(&self, duel: DuelId, head: &Head) {
        let live = self.live(duel).filter(|_| duel != DuelId::PROBE);
        match live.map_or(HeadChange::None, |live| live.observe_head(head)) {
            HeadChange::None => {}
            HeadChange::Missed => {
                let seq = head.position.seq;
                self.metrics.sweep_repairs.inc();
                debug!(duel_id = duel.get(), seq, "found missed events");
            }
            HeadChange::EpochEnded(connections) => self.drain_ended_epoch(connections),
        }
    }

    fn next_connection_id(&self) -> ConnectionId {
        ConnectionId(self.next_connection.fetch_add(1, Ordering::Relaxed))
    }
}
