//! What the nodes share: the logs of the duels, their declarations and states, and which tickets are spent.
//!
//! The hub is the only caller. An engine numbers events, stores them, and tells the hub what was stored through the
//! [`Sink`]; live connections are no concern of it. The contract that every engine keeps, and that one test suite holds
//! over all of them:
//!
//! 1. `seq` is dense per duel and epoch, from 1. A position once given out is never given to another event.
//! 2. An event is readable, and told to the sink, only once it is stored; [`Engine::append`] answers after that.
//! 3. Notices of one duel reach a node's sink in the order of `seq`. They may be missing: the hub notices the gap by
//!    `seq`, or at its next sweep by [`Engine::heads`], and reads what it lacks.
//! 4. The log keeps a duel's newest events within the bounds of [`EngineConfig`](crate::config::EngineConfig). What
//!    falls off it is gone for resuming, and [`Engine::read`] says so.
//! 5. A ticket is admitted once, whatever the node, for as long as it lives.
//! 6. A closed duel takes no further event. It is forgotten after the closed retention, an open one after the idle
//!    retention without event or sweep; a duel that comes into being again has a new epoch.
//!
//! The sink is called from inside the engine's own critical section, so it must not call the engine back and must not
//! block.

mod duel;
mod embedded;
mod event_row;
mod head;
mod ledger;
mod memory;
mod notice;
mod redis;
mod rules;

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub use self::embedded::{EmbeddedEngine, StoreError, inspect};
pub use self::head::{Head, Past};
pub use self::memory::MemoryEngine;
pub use self::notice::{Arrival, Notice, OfflineReason, Online, Rosters, Signal, SignalKind, Whom};
pub use self::redis::{RedisEngine, RedisUrlError};
use crate::clock::UnixMs;
use crate::event::{DuelStatus, Ending, Event, Position, Push, Role, Viewer};
use crate::id::{ConnectionId, DuelId, Jti, TelegramId, UserId};
use crate::ticket::Ticket;

/// What an engine answers, in time.
pub type Answer<'a, T, E = EngineError> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;

/// Where an engine tells its node what happened, and hears to how many connections it was handed. See the module's
/// contract for what it may do.
pub type Sink = Box<dyn Fn(Notice) -> usize + Send + Sync>;

/// Stores and orders events. The contract is the module's.
///
/// What changes a duel or a ticket takes its place in the order of its duel when it is called, not when its answer is
/// awaited; an answer that is dropped does not undo the call. [`Engine::enter`] and [`Engine::prune`] act while they are
/// awaited.
pub trait Engine: Debug + Send + Sync {
    /// As it stands in the configuration.
    fn name(&self) -> &'static str;

    /// Names the sink. Called once, before anything else.
    fn connect(&self, sink: Sink);

    /// Declares a duel, bringing it into being if need be.
    fn open(&self, duel: DuelId, declaration: Declaration) -> Answer<'_, Opened, OpenError>;

    /// From the answer until [`Engine::leave`] this node's sink is told what happens in the duel, whichever node did it.
    fn follow(&self, _duel: DuelId) -> Answer<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Nobody on this node follows the duel any more.
    fn leave(&self, _duel: DuelId) {}

    /// The duel as it stands, brought into being if need be. Who is online on other nodes the sink of one that follows it is
    /// told before this answers.
    fn enter(&self, duel: DuelId) -> Answer<'_, DuelRecord>;

    /// Stores an event, bringing the duel into being if need be.
    fn append(
        &self,
        duel: DuelId,
        push: Push,
        idempotency_key: Option<Box<str>>,
    ) -> Answer<'static, Appended, AppendError>;

    /// Stores the last event, if any, and the end of the duel, in one step.
    fn close(
        &self,
        duel: DuelId,
        ending: Ending,
        last: Option<Push>,
    ) -> Answer<'_, Appended, AppendError>;

    /// At most `count` events after `after`, in order, without a gap.
    fn read(&self, duel: DuelId, after: Position, count: usize) -> Answer<'_, Page>;

    /// What a connection starts with that does not resume: the latest events addressed to `viewer`, in order, none
    /// after `up_to`. `None`: the duel is not in that epoch, or not any more.
    fn latest(
        &self,
        duel: DuelId,
        viewer: Viewer,
        up_to: Position,
        which: Latest,
    ) -> Answer<'_, Option<Vec<Arc<Event>>>>;

    /// The duel as it stands.
    fn duel(&self, duel: DuelId) -> Answer<'_, Option<DuelRecord>>;

    /// At most `count` duels whose id is above `after`, in the order of their ids.
    fn duels(
        &self,
        after: Option<DuelId>,
        status: StatusFilter,
        count: usize,
    ) -> Answer<'_, Vec<(DuelId, Head)>>;

    /// The heads of these duels, as far as they exist and who keeps them is there. Being asked about counts as a sign of life.
    fn heads(&self, duels: Vec<DuelId>) -> Answer<'_, Vec<(DuelId, Head)>>;

    /// A connection was let in; of its user's others, the oldest have to go if there are too many over all nodes.
    fn arrive(&self, arrival: Arrival) -> Answer<'_, ()> {
        let Arrival { duel, viewer, since, first, .. } = arrival;
        match first {
            true => self.signal(Signal { duel, kind: SignalKind::Online { viewer, since } }),
            false => Box::pin(std::future::ready(Ok(()))),
        }
    }

    /// A connection that was let in has gone. Its user stays online until they are said to be offline.
    fn depart(&self, _duel: DuelId, _user: UserId, _connection: ConnectionId) {}

    /// Who is online in these duels, over all nodes, as far as somebody is. `None`: there is only this node, which knows.
    fn rosters(&self, _duels: Vec<DuelId>) -> Answer<'_, Option<Rosters>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Whether this node's sink is told what comes into being, closes, and who comes and goes in all duels.
    fn watch(&self, _on: bool) -> Answer<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Spends a ticket.
    fn admit(&self, ticket: &Ticket) -> Answer<'_, (), AdmitError>;

    /// Makes tickets worthless from now on.
    fn revoke(&self, revocation: Revocation) -> Answer<'_, ()>;

    /// Tells all nodes' sinks, this one's included.
    fn signal(&self, signal: Signal) -> Answer<'_, ()>;

    /// Forgets what is past its retention, a bounded number of duels at a time.
    fn prune(&self, now: UnixMs) -> Answer<'_, ()>;

    /// What it holds, roughly and at once.
    fn counts(&self) -> EngineCounts;

    /// How its store does. `None`: it has none.
    fn store(&self) -> Option<StoreCounts> {
        None
    }

    /// Does what it was asked before, and lets go of its files, if it has any; then whatever is asked later is
    /// [`EngineError::Unavailable`].
    fn stop(&self) -> Answer<'_, ()>;
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

/// Why a declaration was refused; nothing has taken effect, unless the engine says that it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The duel is closed.
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
pub enum AdmitError {
    /// It was used before.
    #[error("the ticket was used before")]
    AlreadyUsed,
    /// It was revoked.
    #[error("the ticket was revoked")]
    Revoked,
    /// It expired on the way.
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

/// What [`Engine::open`] is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declaration {
    /// Added to those there before.
    pub participants: Vec<Participant>,
    /// `None`: unchanged.
    pub settings: Option<DuelSettings>,
}

/// Settings of one duel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DuelSettings {
    /// `None`: the node's.
    pub presence_grace: Option<Duration>,
}

/// What [`Engine::open`] answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// The last event's.
    pub position: Position,
    /// Whether the duel came into being.
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

/// What [`Engine::append`] and [`Engine::close`] answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Appended {
    /// The event's.
    pub position: Position,
    /// What was stored; `None`: it had been before, and nothing was stored now.
    pub event: Option<Arc<Event>>,
    /// To how many connections of this node it was handed.
    pub connections: usize,
}

/// What [`Engine::read`] answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Page {
    /// The events; empty if there are none after that.
    Events(Vec<Arc<Event>>),
    /// The log does not reach back that far, or is of another epoch.
    Gone,
}

/// Which events [`Engine::latest`] looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Latest {
    /// The latest `duel_update`.
    Update,
    /// The latest of each type.
    EachType,
}

/// Which duels [`Engine::duels`] lists.
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

/// Which tickets [`Engine::revoke`] makes worthless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revocation {
    /// One.
    Ticket(Jti),
    /// All that were issued until `issued_until`, that instant included, for one user in one duel.
    User {
        /// The duel.
        duel: DuelId,
        /// The user.
        user: UserId,
        /// The last instant concerned.
        issued_until: UnixMs,
    },
}

/// What an engine holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineCounts {
    /// Duels, without the node's own probe.
    pub duels: usize,
    /// Used and revoked tickets that have not expired.
    pub remembered_tickets: usize,
}

/// How an engine's store does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
