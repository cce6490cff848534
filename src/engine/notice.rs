//! What nodes tell each other, and what an engine tells its node: events, and who is online.

use std::sync::Arc;

use super::Head;
use crate::clock::UnixMs;
use crate::event::{Epoch, Event, Position, Viewer};
use crate::id::{ConnectionId, DuelId, TicketKey, UserId};
use crate::ticket::Generation;

/// A user who is online.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Online {
    /// Who, in the role of the latest connection.
    pub viewer: Viewer,
    /// Since when.
    pub since: UnixMs,
    /// The highest seq acked; 0: none.
    pub acked_seq: u64,
}

/// A connection that was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewConnection {
    /// The duel.
    pub duel: DuelId,
    /// Who.
    pub viewer: Viewer,
    /// When.
    pub since: UnixMs,
    /// Whether the user was not on this node before, in that role.
    pub first: bool,
    /// See [`super::PresenceEngine::enter`].
    pub number: u64,
    /// Which connection of this node it is.
    pub connection: ConnectionId,
    /// By which ticket of which session it came. `None`: by none.
    pub generation: Option<Generation>,
    /// How many the user may have in the duel.
    pub connections_max: usize,
}

/// Who is online in each of several duels.
pub type OnlineByDuel = Vec<(DuelId, Vec<Online>)>;

/// What nodes tell each other about a duel; soft state, never stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signal {
    /// The duel concerned.
    pub duel: DuelId,
    /// What happened.
    pub kind: SignalKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignalKind {
    /// A user has their first connection anywhere, or a connection in another role.
    Online {
        /// Who, as what.
        viewer: Viewer,
        /// When.
        since: UnixMs,
    },
    /// A user has no connection anywhere, for longer than the grace.
    Offline {
        /// Who.
        user: UserId,
        /// Why the last one went.
        reason: OfflineReason,
    },
    /// A user who is online is named no longer: there are too many who come before them.
    Unlisted {
        /// Who.
        user: UserId,
    },
    /// A client has everything up to here.
    Acked {
        /// Who.
        user: UserId,
        /// Up to where.
        seq: u64,
    },
    /// Connections must close.
    Disconnect {
        /// Which.
        whom: Target,
        /// Whether the clients may come back at once.
        reconnect: bool,
        /// The backend's words for the close frame.
        reason: Option<Arc<str>>,
    },
    /// A user has too many connections over all nodes, and this one of this node is among the oldest; or another node has a
    /// newer one of its session.
    Replace {
        /// Which.
        connection: ConnectionId,
    },
    /// A session has ended, because one of its tickets was copied.
    SessionEnded {
        /// Whose.
        user: UserId,
        /// Which.
        session: TicketKey,
    },
}

/// Which connections of a duel must close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// All of them.
    Everybody,
    /// All of a user.
    User(UserId),
    /// One of this node: an engine says so of one that did not hear of it in time.
    Connection(ConnectionId),
}

/// Why a user went offline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfflineReason {
    /// The client closed its last connection.
    ClientClosed,
    /// The network dropped it, or the client fell silent.
    Lost,
    /// The hub closed it for what the client did.
    ClientFault,
    /// The backend asked for it.
    Disconnected,
    /// The duel was closed.
    DuelClosed,
    /// The node is stopping, or the duel has a new epoch.
    ServerRestart,
}

/// What an engine tells its node's sink.
#[derive(Debug, Clone)]
pub enum Notice {
    /// A duel came into being.
    Opened {
        /// The duel.
        duel: DuelId,
        /// Its epoch, and `seq` 0.
        position: Position,
    },
    /// An event was stored.
    Appended {
        /// The duel.
        duel: DuelId,
        /// The event's epoch.
        epoch: Epoch,
        /// The event.
        event: Arc<Event>,
        /// So many are told at once that who is told should not spend time on each.
        bulk: bool,
    },
    /// A node has said something.
    Signal(Signal),
    /// Who is online in a duel that this node has just subscribed to, as watchers have been told before. Further changes come as
    /// signals.
    Introduced {
        /// The duel.
        duel: DuelId,
        /// All of them.
        online: Vec<Online>,
    },
    /// What happens in duels that this node does not follow was not heard for a while.
    Interrupted,
    /// Where the log of a duel stands that this node follows: something of it may have been missed.
    Head {
        /// The duel.
        duel: DuelId,
        /// Where it stands.
        head: Head,
    },
}
