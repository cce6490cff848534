//! What the nodes share: the logs of the duels, their declarations and states, and which tickets are spent.
//!
//! The hub is the only caller. An engine numbers events, stores them, and tells the hub what was stored through the
//! [`Sink`]; live connections are no concern of it. The contract that every engine keeps, and that one test suite holds
//! over all of them:
//!
//! 1. `seq` is dense per duel, from 1. A position once given out is never given to another event. An epoch is one life of
//!    what orders the events; a duel that goes on in a new epoch says from which, and how far they were kept ([`Head`]).
//! 2. An event is readable, and told to the sink, only once it is stored; [`LogEngine::append`] answers after that.
//! 3. Notices of one duel reach a node's sink in the order of `seq`. They may be missing: the hub notices the gap by
//!    `seq`, or at its next sweep by [`LogEngine::heads`], and reads what it lacks.
//! 4. The log keeps a duel's newest events within the bounds of [`EngineConfig`](crate::config::EngineConfig). What
//!    falls off it is gone for resuming, and [`LogEngine::read`] says so.
//! 5. A backend's ticket is admitted once, whatever the node, for as long as it lives; a resume ticket until its successor is used.
//! 6. A closed duel takes no further event. It is forgotten after the closed retention, an open one after the idle
//!    retention without event or sweep; a duel that is created again has a new epoch, which goes on from none. A closed one is
//!    forgotten and created again in one step if a [`Declaration`] says so: nobody is given an event of the one as the other's.
//!
//! The sink is called from inside the engine's own critical section, so it must not call the engine back and must not
//! block.

mod embedded;
mod event_row;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod head;
mod memory;
mod notice;
mod redis;
mod rules;

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub use self::embedded::{EmbeddedEngine, StoreError, export};
pub use self::event_row::stored_size;
pub use self::head::{EpochHistory, Head};
pub use self::memory::MemoryEngine;
pub use self::notice::{
    NewConnection, Notice, OfflineReason, Online, OnlineByDuel, Signal, SignalKind, Target,
};
pub use self::redis::{RedisEngine, RedisUrlError};
use crate::clock::UnixMs;
use crate::event::{DuelStatus, Event, Outcome, Position, Push, Role, Viewer};
use crate::id::{ConnectionId, DuelId, Jti, TelegramId, TicketKey, UserId};
use crate::ticket::{Revision, Stamp, Ticket};

/// The answer of an engine.
pub type EngineFuture<'a, T, E = EngineError> =
    Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;

/// Where an engine tells its node what happened, and hears to how many connections it was handed. See the module's
/// contract for what it may do.
pub type Sink = Box<dyn Fn(Notice) -> usize + Send + Sync>;

/// The logs of the duels: what happened, in order.
///
/// A call that changes a duel takes its place in the duel's order when it is made, not when its answer is awaited.
/// Dropping the answer does not undo the call. [`LogEngine::get_or_create`] acts while it is awaited.
pub trait LogEngine: Debug + Send + Sync {
    /// Tells this node's sink what happens in the duel, whichever node did it: from the answer until
    /// [`LogEngine::unsubscribe`].
    fn subscribe(&self, _duel: DuelId) -> EngineFuture<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Ends a subscription. Returns at once, and must not be called under a lock that the sink takes.
    fn unsubscribe(&self, _duel: DuelId) {}

    /// Declares a duel. Creates it if it does not exist, and anew if it is closed and the declaration says so.
    fn open(&self, duel: DuelId, declaration: Declaration) -> EngineFuture<'_, Opened, OpenError>;

    /// Returns the duel as it stands, for a connection that enters it. Creates it if it does not exist.
    fn get_or_create(&self, duel: DuelId) -> EngineFuture<'_, DuelRecord>;

    /// Stores an event. Creates the duel if it does not exist.
    fn append(
        &self,
        duel: DuelId,
        push: Push,
        idempotency_key: Option<Box<str>>,
    ) -> EngineFuture<'static, Appended, AppendError>;

    /// Stores the last event, if any, and the end of the duel, in one step.
    fn close(
        &self,
        duel: DuelId,
        outcome: Outcome,
        last: Option<Push>,
    ) -> EngineFuture<'_, Appended, AppendError>;

    /// Returns at most `count` events after `after`, in order, without a gap.
    fn read(&self, duel: DuelId, after: Position, count: usize) -> EngineFuture<'_, Page>;

    /// Returns what a connection starts with that does not resume: of the events addressed to `viewer` the latest of each
    /// type that are not transient, in order, none after `up_to`. Returns `None` if the duel is not in that epoch, or no longer.
    fn latest(
        &self,
        duel: DuelId,
        viewer: Viewer,
        up_to: Position,
    ) -> EngineFuture<'_, Option<Vec<Arc<Event>>>>;

    /// Returns the duel as it stands, if it exists.
    fn get(&self, duel: DuelId) -> EngineFuture<'_, Option<DuelRecord>>;

    /// Returns at most `count` duels whose id is above `after`, in the order of their ids.
    fn list(
        &self,
        after: Option<DuelId>,
        status: StatusFilter,
        count: usize,
    ) -> EngineFuture<'_, Vec<(DuelId, Head)>>;

    /// Returns the heads of those of the duels that exist and whose store answers. Asking counts as a sign of life: an open
    /// duel that is asked about is not idle.
    fn heads(&self, duels: Vec<DuelId>) -> EngineFuture<'_, Vec<(DuelId, Head)>>;

    /// Returns those of the duels, which this node subscribes to, whose heads have to be asked for now: something may have happened of
    /// which the node was not told, or it is time for a sign of life. Of the others it was told everything.
    fn in_doubt(&self, duels: Vec<DuelId>) -> EngineFuture<'_, Vec<DuelId>> {
        Box::pin(std::future::ready(Ok(duels)))
    }
}

/// Which tickets have been used or revoked, and how far each session has come. `rules/tickets.rs` has the rules.
///
/// A call takes its place in order when it is made. Dropping the answer does not undo the call.
pub trait TicketEngine: Debug + Send + Sync {
    /// Returns what a ticket issued now has to say.
    fn stamp(&self) -> EngineFuture<'_, Stamp>;

    /// Uses a ticket. Returns what the session's next ticket has to say.
    fn redeem(&self, ticket: &Ticket) -> EngineFuture<'_, Stamp, RedeemError>;

    /// Returns what a resume ticket issued now has to say, for a connection whose last ticket was issued at `revision`.
    /// Returns `None` if that was revoked, or the session has ended.
    fn renew(
        &self,
        session: TicketKey,
        owner: (DuelId, UserId),
        revision: Revision,
    ) -> EngineFuture<'_, Option<Stamp>>;

    /// Revokes tickets from now on. When it answers, none of them is accepted, and one stamped later is.
    fn revoke(&self, revocation: Revocation) -> EngineFuture<'_, ()>;
}

/// Who is online, over all nodes, and what nodes tell each other about connections.
pub trait PresenceEngine: Debug + Send + Sync {
    /// Numbers a connection that enters: its place in the order in which those of all nodes enter the duel. 0 if there is only
    /// this node. It has to be numbered before its ticket is redeemed.
    fn enter(&self, _duel: DuelId) -> EngineFuture<'_, u64> {
        Box::pin(std::future::ready(Ok(0)))
    }

    /// Adds a connection. If this node is subscribed to the duel, the sink is told who is online before this answers. If the
    /// user has too many connections over all nodes, the sinks of the oldest ones' nodes are told to close them.
    fn attach(&self, new: NewConnection) -> EngineFuture<'_, ()> {
        let NewConnection { duel, viewer, since, first, .. } = new;
        match first {
            true => self.signal(Signal { duel, kind: SignalKind::Online { viewer, since } }),
            false => Box::pin(std::future::ready(Ok(()))),
        }
    }

    /// Removes a connection. Its user stays online until a [`SignalKind::Offline`].
    fn detach(&self, _duel: DuelId, _user: UserId, _connection: ConnectionId) {}

    /// Returns who is online in those of the duels in which somebody is. Returns `None` if there is only this node, whose
    /// hub knows.
    fn presence(&self, _duels: Vec<DuelId>) -> EngineFuture<'_, Option<OnlineByDuel>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Returns duels in which somebody is online although the store may have lost them. Returns at once.
    fn cached_duels(&self) -> Vec<DuelId> {
        Vec::new()
    }

    /// Turns on or off that this node's sink is told what is created and closed, and who comes and goes, in all duels.
    fn watch(&self, _on: bool) -> EngineFuture<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Tells the sinks of all nodes, this one's included.
    fn signal(&self, signal: Signal) -> EngineFuture<'_, ()>;
}

/// Stores and orders events. The contract is the module's.
pub trait Engine: LogEngine + TicketEngine + PresenceEngine {
    /// Returns the name by which the configuration chooses it.
    fn name(&self) -> &'static str;

    /// Sets the sink. Must be called once, before anything else.
    fn connect(&self, sink: Sink);

    /// Forgets what is past its retention, a bounded number of duels at a time. Acts while it is awaited.
    fn prune(&self, now: UnixMs) -> EngineFuture<'_, ()>;

    /// Returns what the engine holds: roughly, and at once.
    fn counts(&self) -> EngineCounts;

    /// Returns how the store does. Returns `None` if there is no store.
    fn store(&self) -> Option<StoreCounts> {
        None
    }

    /// Returns why the engine must not be relied on, although it may answer, as far as is known: at once.
    fn obstacle(&self) -> Option<Obstacle> {
        None
    }

    /// Does what was asked before and lets go of the files, if there are any. Whatever is asked later is
    /// [`EngineError::Unavailable`].
    fn stop(&self) -> EngineFuture<'_, ()>;
}

/// Why an engine must not be relied on. A node that knows of one is not ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// What it was given may be thrown away.
    #[error("Redis may evict what is stored: its maxmemory-policy must be noeviction")]
    Evicts,
    /// Nothing can be acknowledged.
    #[error("Redis has fewer replicas than REDIS_WAIT_REPLICAS, or they do not answer")]
    TooFewReplicas,
    /// Soon no session can begin.
    #[error("nearly as many tickets are remembered as ENGINE_MAX_REMEMBERED_TICKETS allows")]
    TicketsNearlyFull,
}

/// The engine could not do it, for its own reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// It holds as much as it may; nothing has taken effect.
    #[error("{limit} is reached")]
    Full {
        /// The variable that bounds it, or the disk.
        limit: &'static str,
    },
    /// It is away, or cannot store.
    #[error("the engine is unavailable")]
    Unavailable {
        /// Whether the call may have taken effect all the same.
        may_have_taken_effect: bool,
    },
}

impl EngineError {
    /// Unavailable, and nothing has taken effect.
    pub const UNAVAILABLE: Self = Self::Unavailable { may_have_taken_effect: false };

    /// Unavailable, and the call may have taken effect.
    pub const IN_DOUBT: Self = Self::Unavailable { may_have_taken_effect: true };
}

/// Why a declaration was refused; nothing has taken effect, unless the engine says that it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The duel is closed, and is not to begin anew.
    #[error("the duel is closed")]
    Closed,
    /// With those there before, there would be too many participants, or two with one Telegram id.
    #[error("the participants contradict those declared before")]
    Participants,
    /// The engine's own reasons.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Why an event was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The duel is closed.
    #[error("the duel is closed")]
    Closed,
    /// The idempotency key was used for another content.
    #[error("the idempotency key was used for another content")]
    KeyReused,
    /// The engine's own reasons.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Why a ticket was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RedeemError {
    /// A newer ticket of its session was used; or nobody knows, because its user has begun too many sessions since.
    #[error("a newer ticket of the session was used")]
    AlreadyUsed,
    /// It is the backend's, and was used before; no other ticket of its session was.
    #[error("the ticket was used before")]
    Spent,
    /// Another ticket of its generation was used, so one of the two is a copy. The session has ended.
    #[error("the session has two tickets of one generation")]
    Copied,
    /// It was revoked, or its session has ended.
    #[error("the ticket was revoked")]
    Revoked,
    /// It has expired.
    #[error("the ticket has expired")]
    Expired,
    /// The engine's own reasons.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Somebody who takes part in a duel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Participant {
    /// Who.
    pub user: UserId,
    /// By which id Telegram knows them.
    pub telegram: TelegramId,
}

/// What [`LogEngine::open`] is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declaration {
    /// Added to those there before.
    pub participants: Vec<Participant>,
    /// `None`: unchanged.
    pub settings: Option<DuelSettings>,
    /// A closed duel begins anew, as if it had never been. An open one goes on.
    pub reopen: bool,
}

/// Settings of one duel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DuelSettings {
    /// `None`: the node's.
    pub presence_grace: Option<Duration>,
}

/// What [`LogEngine::open`] answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// The last event's.
    pub position: Position,
    /// Whether the duel came into being, or began anew.
    pub created: bool,
}

/// A duel as it stands.
#[derive(Debug, Clone)]
pub struct DuelRecord {
    /// Where its log stands.
    pub head: Head,
    /// Who takes part. `None`: it was not declared.
    pub participants: Option<Arc<[Participant]>>,
    /// Its settings.
    pub settings: DuelSettings,
    /// When it came into being.
    pub created_at: UnixMs,
    /// When its last event was stored.
    pub updated_at: Option<UnixMs>,
}

impl DuelRecord {
    /// Whether `viewer` may enter: a declared duel refuses a player who is not a participant.
    #[must_use]
    pub fn allows(&self, viewer: Viewer) -> bool {
        let Some(participants) = &self.participants else { return true };
        viewer.role == Role::Spectator || participants.iter().any(|p| p.user == viewer.user)
    }
}

/// What [`LogEngine::append`] and [`LogEngine::close`] answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Appended {
    /// The event's.
    pub position: Position,
    /// What was stored; `None`: it had been before, and nothing was stored now.
    pub event: Option<Arc<Event>>,
    /// To how many connections of this node it was handed.
    pub connections: usize,
    /// Whether the duel was declared.
    pub declared: bool,
}

/// What [`LogEngine::read`] answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Page {
    /// The events; empty if there are none after that.
    Events(Vec<Arc<Event>>),
    /// The log does not reach back that far.
    Gone,
    /// The log is of another epoch, or there is none.
    Ended,
}

/// Which duels [`LogEngine::list`] lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusFilter {
    /// All.
    Any,
    /// Those of this status.
    Only(DuelStatus),
}

impl StatusFilter {
    /// Whether `status` passes.
    #[must_use]
    pub fn admits(self, status: DuelStatus) -> bool {
        match self {
            Self::Any => true,
            Self::Only(wanted) => wanted == status,
        }
    }
}

/// Which tickets [`TicketEngine::revoke`] makes worthless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revocation {
    /// One, and those of the session that it began.
    Ticket(Jti),
    /// All that were issued so far for one user in one duel.
    User {
        /// The duel.
        duel: DuelId,
        /// The user.
        user: UserId,
    },
}

/// What an engine holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineCounts {
    /// Duels, without the node's own probe.
    pub duels: usize,
    /// Sessions, revocations and watermarks that are remembered.
    pub remembered_tickets: usize,
    /// Sessions that were forgotten early, by this node since it started, because their users began too many.
    pub sessions_crowded_out: u64,
}

/// How an engine's store does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreCounts {
    /// Whether it takes pushes: it is open, and the disk has room.
    pub usable: bool,
    /// Commits since the process started.
    pub commits: u64,
    /// Commits that failed since then.
    pub failures: u64,
    /// Calls that wait for a commit.
    pub waiting: u64,
    /// Bytes on the disk, as of some seconds ago.
    pub disk_bytes: u64,
}
