//! The live duels of this node, and the connections that follow them.
//!
//! A duel is a log, a connection is a cursor over it. Pushing appends to the log in the engine; the engine's notice puts
//! the event at the end of the live duel's tail, hands it to the connections that wait for it, and wakes the others; each
//! of these takes whatever lies after its own cursor ([`follow`]). Live delivery, resume, a slow client, a lost notice and
//! the repair sweep are all that one path, so there is no queue of events per connection, and none to overflow.
//!
//! Called by the control plane (push, close, look) and the data plane (attach, follow); calls the engine. Invariants:
//!
//! 1. A connection is in its duel's list before the log's head is read for it, so nothing falls between the two.
//! 2. No hub lock is held while the engine is called; the engine calls the sink while it holds a duel's own.
//! 3. A duel is in the map exactly as long as it has connections, or users within their grace.
//!
//! Deliberately absent: WebSocket frames, protobuf, sockets.

mod attach;
mod connection;
mod departures;
mod dismissals;
mod due;
mod duel;
mod fan_out;
mod follow;
mod presence;
mod probe;
mod sweep;
mod tail;
mod watch;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::runtime::Handle;
use tracing::debug;

pub use self::attach::{AttachError, Attachment, Recovery, Welcome};
pub use self::connection::{Connection, Dismissal, Handed, Outlet};
use self::departures::Departure;
use self::due::Due;
use self::duel::{LiveDuel, Noted};
pub use self::follow::{Batch, Lost};
pub use self::presence::PresenceChange;
pub use self::probe::Readiness;
use self::watch::Watchers;
pub use self::watch::{Change, ChangeKind, Watch, WatchError, WatchFilter};
use crate::config::HubConfig;
use crate::engine::{
    AppendError, Appended, Declaration, DuelRecord, Engine, EngineCounts, EngineError, Head,
    Notice, Online, OpenError, Opened, Revocation, Signal, SignalKind, StatusFilter, StoreCounts,
    Target,
};
use crate::event::{Content, Outcome, Position, Push, Role};
use crate::id::{ConnectionId, DuelId, UserId};
use crate::metrics::Metrics;

/// The node's live duels. Shared by `Arc`; every method may be called from anywhere.
#[derive(Debug)]
pub struct Hub {
    engine: Arc<dyn Engine>,
    config: HubConfig,
    metrics: Arc<Metrics>,
    duels: RwLock<HashMap<DuelId, Arc<LiveDuel>>>,
    watchers: Watchers,
    departures: Due<Departure, ()>,
    /// Connections of an epoch that has ended.
    renewed: Due<ConnectionId, Weak<Connection>>,
    readiness: Readiness,
    next_connection: AtomicU64,
    /// The players' runtime.
    tasks: Handle,
}

/// An event was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// Where it stands.
    pub position: Position,
    /// It had been stored before; nothing was stored now.
    pub duplicate: bool,
    /// To how many connections of this node it was handed.
    pub connections: usize,
}

impl From<Appended> for Pushed {
    fn from(appended: Appended) -> Self {
        Self {
            position: appended.position,
            duplicate: appended.event.is_none(),
            connections: appended.connections,
        }
    }
}

/// A duel and who is in it.
#[derive(Debug)]
pub struct DuelView {
    /// As the engine has it.
    pub record: DuelRecord,
    /// Who is online, by user id.
    pub online: Vec<OnlineUser>,
    /// This node's connections, spectators included.
    pub connections: usize,
}

/// Somebody who is online.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnlineUser {
    /// Who.
    pub user: UserId,
    /// The role of the latest connection.
    pub role: Role,
    /// Since when.
    pub since: crate::clock::UnixMs,
    /// Connections on this node.
    pub connections: usize,
    /// The highest seq acked; 0: none.
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

/// What the hub holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HubCounts {
    /// The engine's.
    pub engine: EngineCounts,
    /// Its store's, if it has one.
    pub store: Option<StoreCounts>,
    /// Duels with a connection, or a user within their grace.
    pub live_duels: usize,
    /// Streams of changes.
    pub watchers: usize,
}

impl Hub {
    /// A hub over `engine`, connected to it, on the runtime of its players. Its background work is [`Hub::run`].
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
            departures: Due::default(),
            renewed: Due::default(),
            readiness: Readiness::default(),
            next_connection: AtomicU64::new(1),
            tasks: Handle::current(),
        });
        let sink = Arc::downgrade(&hub);
        hub.engine
            .connect(Box::new(move |notice| sink.upgrade().map_or(0, |hub| hub.notice(notice))));
        hub
    }

    /// Sweeps, counts absent users out, sends away who has to come back, and proves its own path. Ends only by being dropped.
    pub async fn run(self: Arc<Self>) {
        tokio::join!(
            self.run_sweeps(),
            self.run_departures(),
            self.run_renewals(),
            self.run_probe()
        );
    }

    /// Declares a duel.
    ///
    /// # Errors
    /// [`OpenError`]; nothing has taken effect, unless the engine says that it may have.
    pub async fn open(&self, duel: DuelId, declaration: Declaration) -> Result<Opened, OpenError> {
        let settings = declaration.settings;
        let opened = self.engine.open(duel, declaration).await?;
        if let (Some(settings), Some(live)) = (settings, self.live(duel)) {
            live.set_presence_grace(settings.presence_grace);
        }
        Ok(opened)
    }

    /// Stores an event and hands it to the connections. Pushes take effect in the order of the calls, whichever answer is
    /// awaited first; a dropped answer does not undo the push.
    ///
    /// # Errors
    /// [`AppendError`]; nothing has taken effect, unless the engine says that it may have.
    pub fn push(
        &self,
        duel: DuelId,
        push: Push,
        idempotency_key: Option<Box<str>>,
    ) -> impl Future<Output = Result<Pushed, AppendError>> + use<> {
        let answer = self.engine.append(duel, push, idempotency_key);
        async move { Ok(answer.await?.into()) }
    }

    /// Stores the last event, if any, and the end of the duel. Not cancel safe: dropped, it may have been stored.
    ///
    /// # Errors
    /// [`AppendError`]; nothing has taken effect, unless the engine says that it may have.
    pub async fn close(
        &self,
        duel: DuelId,
        ending: Outcome,
        last: Option<Push>,
    ) -> Result<Pushed, AppendError> {
        Ok(self.engine.close(duel, ending, last).await?.into())
    }

    /// A duel as it stands.
    ///
    /// # Errors
    /// The engine's own.
    pub async fn duel(&self, duel: DuelId) -> Result<Option<DuelView>, EngineError> {
        let Some(record) = self.engine.get(duel).await? else { return Ok(None) };
        let online = self.online(vec![duel]).await?.remove(&duel).unwrap_or_default();
        let connections = self.live(duel).map_or(0, |live| live.connections());
        Ok(Some(DuelView { record, online, connections }))
    }

    /// Who is online in duels, over all nodes.
    async fn online(
        &self,
        duels: Vec<DuelId>,
    ) -> Result<HashMap<DuelId, Vec<OnlineUser>>, EngineError> {
        let here = |duel: &DuelId| self.live(*duel).map(|live| live.online());
        let Some(online) = self.engine.presence(duels.clone()).await? else {
            let here = duels.iter().filter_map(|duel| Some((*duel, here(duel)?)));
            return Ok(here.collect());
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

    /// At most `count` duels with an id above `after`, in the order of their ids, with this node's connections.
    ///
    /// # Errors
    /// The engine's own.
    pub async fn duels(
        &self,
        after: Option<DuelId>,
        status: StatusFilter,
        count: usize,
    ) -> Result<Vec<(DuelId, Head, usize)>, EngineError> {
        let heads = self.engine.list(after, status, count).await?;
        let connections = |duel| self.live(duel).map_or(0, |live| live.connections());
        Ok(heads.into_iter().map(|(duel, head)| (duel, head, connections(duel))).collect())
    }

    /// Makes tickets worthless. When it returns, no such ticket opens a connection, and one issued later does.
    ///
    /// # Errors
    /// The engine's own; nothing has taken effect, unless it says that it may have.
    pub async fn revoke(&self, revocation: Revocation) -> Result<(), EngineError> {
        let user = match &revocation {
            Revocation::Ticket(_) => None,
            Revocation::User { duel, user, .. } => Some((*duel, *user)),
        };
        self.engine.revoke(revocation).await?;
        if let Some((duel, user)) = user {
            let told = self.engine.signal(Signal { duel, kind: SignalKind::Revoked { user } });
            // The tickets are revoked already.
            told.await.map_err(|_| EngineError::Unavailable { may_have_taken_effect: true })?;
            // Once more: a connection may have received a resume ticket between the instant and the signal.
            let issued_until = crate::clock::now();
            let again = self.engine.revoke(Revocation::User { duel, user, issued_until }).await;
            // The first one has taken effect.
            again.map_err(|_| EngineError::Unavailable { may_have_taken_effect: true })?;
            // Tickets tell instants apart by the millisecond: the next one issued must be of a later one.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// Closes connections of a duel, or of one user in it: how many there are on this node.
    ///
    /// # Errors
    /// The engine's own; nothing has taken effect, unless it says that it may have.
    pub async fn disconnect(
        &self,
        duel: DuelId,
        user: Option<UserId>,
        reconnect: bool,
        reason: Option<Arc<str>>,
    ) -> Result<usize, EngineError> {
        let concerned = |connection: &Connection| user.is_none_or(|u| u == connection.viewer.user);
        let count = self.live(duel).map_or(0, |live| live.count_connections(concerned));
        let whom = user.map_or(Target::Everybody, Target::User);
        let kind = SignalKind::Disconnect { whom, reconnect, reason };
        self.engine.signal(Signal { duel, kind }).await?;
        Ok(count)
    }

    /// Follows the changes in the duels that `filter` names.
    ///
    /// # Errors
    /// [`WatchError::TooMany`].
    pub fn watch(self: &Arc<Self>, filter: WatchFilter) -> Result<Watch, WatchError> {
        self.watchers.watch(Arc::clone(self), filter)
    }

    /// What it holds, roughly and at once.
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

    /// The engine's name.
    #[must_use]
    pub fn engine_name(&self) -> &'static str {
        self.engine.name()
    }

    /// Whether the path from push to delivery works.
    #[must_use]
    pub const fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    fn live(&self, duel: DuelId) -> Option<Arc<LiveDuel>> {
        self.duels.read().get(&duel).cloned()
    }

    /// What the engine tells; see [`crate::engine`] for what must not be done here. Answers to how many connections an
    /// event was handed.
    fn notice(&self, notice: Notice) -> usize {
        let mut connections = 0;
        match notice {
            Notice::Opened { duel, position } => self.watchers.opened(duel, position),
            Notice::Appended { duel, epoch, event, bulk } => {
                if let Some(live) = self.live(duel) {
                    connections = live.append(epoch, &event, bulk, &self.tasks);
                }
                if let Content::Closed(ending) = event.content {
                    self.watchers.closed(duel, ending, epoch, event.seq);
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
            Notice::Head { duel, head } => self.note(duel, &head),
            Notice::Interrupted => self.watchers.interrupt(),
        }
        connections
    }

    /// Takes what the engine reported of a log. The probe has to do without, or it would prove nothing.
    fn note(&self, duel: DuelId, head: &Head) {
        let live = self.live(duel).filter(|_| duel != DuelId::PROBE);
        match live.map_or(Noted::Known, |live| live.note(head)) {
            Noted::Known => {}
            Noted::Missed => {
                let seq = head.position.seq;
                self.metrics.sweep_repairs.inc();
                debug!(duel_id = duel.get(), seq, "events that were missed were found");
            }
            Noted::Renewed(connections) => self.renew(connections),
        }
    }

    fn next_connection_id(&self) -> ConnectionId {
        ConnectionId(self.next_connection.fetch_add(1, Ordering::Relaxed))
    }
}
