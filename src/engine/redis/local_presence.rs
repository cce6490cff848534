//! A node's part of a duel's presence: its users, and their connections.
//!
//! Bounds: the node's connections, and users within their grace. Others read at most [`limits::ONLINE_LISTED_MAX`] users of it,
//! players first.

use std::sync::Arc;

use prost::Message as _;

use crate::clock::UnixMs;
use crate::engine::event_row::Malformed;
use crate::engine::{NewConnection, Online, SignalKind, Target};
use crate::event::{Role, Viewer};
use crate::id::{ConnectionId, TicketKey, UserId};
use crate::limits;
use crate::ticket::Generation;

/// The users of one node in one duel, as the others read them.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Users {
    #[prost(message, repeated, tag = "1")]
    pub(super) users: Vec<User>,
}

/// One of them.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct User {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(bool, tag = "2")]
    pub(super) spectator: bool,
    /// Milliseconds since 1970, by the node's clock.
    #[prost(uint64, tag = "3")]
    pub(super) since: u64,
    /// 0: none.
    #[prost(uint64, tag = "4")]
    pub(super) acked_seq: u64,
    /// The number of the connection that gave the user the role.
    #[prost(uint64, tag = "5")]
    pub(super) number: u64,
}

/// The connections of those users.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Connections {
    #[prost(message, repeated, tag = "1")]
    pub(super) connections: Vec<Connection>,
}

/// One of them.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Connection {
    #[prost(uint64, tag = "1")]
    pub(super) user: u64,
    /// Its place in the order in which the connections of all nodes entered.
    #[prost(uint64, tag = "2")]
    pub(super) number: u64,
    /// Its session. Empty: none.
    #[prost(bytes = "vec", tag = "3")]
    session: Vec<u8>,
    #[prost(uint32, tag = "4")]
    generation: u32,
}

impl Connection {
    fn new(user: UserId, Entry { number, generation }: Entry) -> Self {
        let mut row = Self { user: user.get(), number, ..Self::default() };
        if let Some(Generation { session, number }) = generation {
            (row.session, row.generation) = (session.0.to_vec(), number);
        }
        row
    }

    pub(super) fn entry(&self) -> Entry {
        let session = self.session[..].try_into().ok().map(TicketKey);
        let generation = session.map(|session| Generation { session, number: self.generation });
        Entry { number: self.number, generation }
    }
}

/// How a connection entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its place in the order in which the connections of all nodes entered.
    pub(super) number: u64,
    generation: Option<Generation>,
}

impl Entry {
    /// Whether it takes the place of another in their session.
    pub(super) fn supersedes(&self, other: &Self) -> bool {
        let generations = self.generation.zip(other.generation);
        generations.is_some_and(|(own, others)| own.supersedes(others, self.number > other.number))
    }
}

impl User {
    pub(super) fn online(&self) -> Result<Online, Malformed> {
        let user = UserId::try_from(self.id).map_err(|_| Malformed("a user's id"))?;
        let role = if self.spectator { Role::Spectator } else { Role::Player };
        let (since, acked_seq) = (UnixMs(self.since), self.acked_seq);
        Ok(Online { viewer: Viewer { user, role }, since, acked_seq })
    }
}

/// Users in the order in which they are listed: players first, then who has been there longest. It decides nothing else, so it
/// may compare what several nodes' clocks say.
pub(super) fn list_order(online: &Online) -> (bool, UnixMs, UserId) {
    (online.viewer.role == Role::Spectator, online.since, online.viewer.user)
}

/// The users of this node in one duel, in the order in which they are listed.
#[derive(Debug, Default)]
pub(super) struct LocalPresence(Vec<LocalUser>);

#[derive(Debug)]
struct LocalUser {
    online: Online,
    number: u64,
    /// Empty: within their grace.
    connections: Vec<LocalConnection>,
}

#[derive(Debug)]
struct LocalConnection {
    id: ConnectionId,
    entry: Entry,
    /// The hub knows that it has to go.
    leaving: bool,
}

/// Which connections have to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DisconnectOrder {
    pub(super) whose: Target,
    /// Those that entered before.
    pub(super) below: u64,
    pub(super) reconnect: bool,
    pub(super) reason: Option<Arc<str>>,
}

impl LocalPresence {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn online(&self) -> impl Iterator<Item = &Online> {
        self.0.iter().map(|user| &user.online)
    }

    /// Those whom the others read, and the numbers that gave them their roles.
    pub(super) fn listed(&self) -> impl Iterator<Item = (Online, u64)> {
        self.0.iter().take(limits::ONLINE_LISTED_MAX).map(|user| (user.online, user.number))
    }

    pub(super) fn has(&self, user: UserId) -> bool {
        self.online().any(|online| online.viewer.user == user)
    }

    fn find(&mut self, user: UserId) -> Option<&mut LocalUser> {
        self.0.iter_mut().find(|local| local.online.viewer.user == user)
    }

    fn take(&mut self, user: UserId) -> Option<LocalUser> {
        let at = self.0.iter().position(|local| local.online.viewer.user == user)?;
        Some(self.0.remove(at))
    }

    fn insert(&mut self, local: LocalUser) {
        let order = list_order(&local.online);
        let at = self.0.partition_point(|other| list_order(&other.online) < order);
        self.0.insert(at, local);
    }

    /// Adds a connection. `elsewhere`: its user is on other nodes as well, so that it matters who was the last.
    pub(super) fn attach(&mut self, new: &NewConnection, elsewhere: bool) {
        let NewConnection { viewer, since, number, generation, connection: id, .. } = *new;
        let mut local = self.take(viewer.user).unwrap_or_else(|| LocalUser {
            online: Online { viewer, since, acked_seq: 0 },
            number,
            connections: Vec::new(),
        });
        if elsewhere || local.online.viewer != viewer {
            (local.online.viewer, local.number) = (viewer, number);
        }
        let entry = Entry { number, generation };
        local.connections.push(LocalConnection { id, entry, leaving: false });
        self.insert(local);
    }

    /// Removes a connection. Its user stays.
    pub(super) fn detach(&mut self, user: UserId, id: ConnectionId) {
        if let Some(local) = self.find(user) {
            local.connections.retain(|connection| connection.id != id);
        }
    }

    /// Removes a user, unless they have a connection.
    pub(super) fn remove(&mut self, user: UserId) {
        self.0.retain(|local| local.online.viewer.user != user || !local.connections.is_empty());
    }

    pub(super) fn ack(&mut self, user: UserId, seq: u64) {
        if let Some(local) = self.find(user) {
            local.online.acked_seq = local.online.acked_seq.max(seq);
        }
    }

    /// Takes over what is known of a user from other nodes, so that it outlasts them. Returns whether it was news.
    pub(super) fn adopt(&mut self, known: &Online) -> bool {
        let Some(local) = self.find(known.viewer.user) else { return false };
        let is_acked = local.online.acked_seq < known.acked_seq;
        local.online.acked_seq = known.acked_seq.max(local.online.acked_seq);
        let is_earlier = known.since < local.online.since;
        if is_earlier && let Some(mut local) = self.take(known.viewer.user) {
            local.online.since = known.since;
            self.insert(local);
        }
        is_acked || is_earlier
    }

    /// The fields that others read: the users, empty if there are none, and their connections.
    pub(super) fn fields(&self) -> [Vec<u8>; 2] {
        let listed = || self.0.iter().take(limits::ONLINE_LISTED_MAX);
        let users = listed().map(|LocalUser { online, number, .. }| User {
            id: online.viewer.user.get(),
            spectator: online.viewer.role == Role::Spectator,
            since: online.since.0,
            acked_seq: online.acked_seq,
            number: *number,
        });
        let connections = listed().flat_map(|local| {
            let user = local.online.viewer.user;
            local.connections.iter().map(move |connection| Connection::new(user, connection.entry))
        });
        let connections = Connections { connections: connections.collect() };
        [Users { users: users.collect() }.encode_to_vec(), connections.encode_to_vec()]
    }

    /// How those connections of a user entered that stay.
    pub(super) fn entries(&self, user: UserId) -> impl Iterator<Item = Entry> {
        let of_user = self.0.iter().filter(move |local| local.online.viewer.user == user);
        let connections = of_user.flat_map(|local| &local.connections);
        connections.filter(|connection| !connection.leaving).map(|connection| connection.entry)
    }

    /// The number of the connection that entered last; 0 if there is none.
    pub(super) fn highest_number(&self) -> u64 {
        let connections = self.0.iter().flat_map(|local| &local.connections);
        connections.map(|connection| connection.entry.number).max().unwrap_or(0)
    }

    /// Connections that have to go and have not been told so, and what they are told.
    pub(super) fn ordered_away(&mut self, order: &DisconnectOrder) -> Vec<SignalKind> {
        let meant = |user| order.whose == Target::Everybody || order.whose == Target::User(user);
        let users = self.0.iter_mut().filter(|local| meant(local.online.viewer.user));
        let connections = users.flat_map(|local| &mut local.connections);
        let meant = connections.filter(|c| c.entry.number < order.below && !c.leaving);
        let kinds = meant.map(|connection| {
            connection.leaving = true;
            let (whom, reconnect) = (Target::Connection(connection.id), order.reconnect);
            SignalKind::Disconnect { whom, reconnect, reason: order.reason.clone() }
        });
        kinds.collect()
    }

    /// The same of those of a user that have to make room.
    pub(super) fn replaced(
        &mut self,
        user: UserId,
        meant: impl Fn(&Entry) -> bool,
    ) -> Vec<SignalKind> {
        let Some(local) = self.find(user) else { return Vec::new() };
        let leaving = local.connections.iter_mut().filter(|c| !c.leaving && meant(&c.entry));
        let kinds = leaving.map(|connection| {
            connection.leaving = true;
            SignalKind::Replace { connection: connection.id }
        });
        kinds.collect()
    }
}
