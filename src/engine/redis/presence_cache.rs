//! Who is online in one duel, as this node knows it: put together from each node's part, and compared with what the sink
//! was told.

use std::collections::BTreeMap;

use prost::Message as _;
use redis::Value;
use tokio::time::Instant;

use super::local_presence::{
    Connection, Connections, DisconnectOrder, Entry, LocalPresence, User, Users, list_order,
};
use super::message;
use super::reply::Parts;
use crate::engine::event_row::Malformed;
use crate::engine::{OfflineReason, Online, SignalKind};
use crate::id::UserId;
use crate::limits;

/// The presence of a duel as Redis has it.
#[derive(Debug, Default)]
pub(super) struct Whole {
    version: u64,
    nodes: Vec<NodePresence>,
    orders: Vec<DisconnectOrder>,
}

/// One node's part.
#[derive(Debug, Default, Clone)]
pub(super) struct NodePresence {
    pub(super) node: Box<str>,
    /// As Redis has it.
    pub(super) fields: [Vec<u8>; 2],
    online: Vec<(Online, u64)>,
    connections: Vec<Connection>,
    /// The number of the connection that had entered last when the node wrote this.
    seen: u64,
}

/// The cached presence of one duel.
#[derive(Debug, Default)]
pub(super) struct CachedPresence {
    /// This node's part. It is always true.
    pub(super) local: LocalPresence,
    others: Vec<NodePresence>,
    /// The last change that was read.
    version: u64,
    /// What the sink was told, by user id.
    told: Vec<Online>,
    /// Why users are about to be found offline, as far as a hint has said. At most [`limits::ONLINE_LISTED_MAX`].
    reasons: BTreeMap<UserId, OfflineReason>,
    /// How many connections a user may have; 0: not known.
    pub(super) connections_max: usize,
    /// Writes of this node's part that are not answered.
    pub(super) writes: usize,
    /// When the last of this node's users went. A Redis that loses the newest writes, as at a failover, has them again.
    left_at: Option<Instant>,
    /// Redis may have something else than this node's part.
    pub(super) is_unwritten: bool,
}

impl Whole {
    /// Reads the fields of the hash.
    pub(super) fn read(value: Value) -> Result<Self, Malformed> {
        let (mut whole, mut nodes) = (Self::default(), BTreeMap::<Box<str>, NodePresence>::new());
        let mut fields = Parts::of(value)?;
        while let Ok(field) = fields.text() {
            match field.split_once(':') {
                Some(("u", node)) => {
                    nodes.entry(node.into()).or_default().fields[0] = fields.bytes()?
                }
                Some(("c", node)) => {
                    nodes.entry(node.into()).or_default().fields[1] = fields.bytes()?
                }
                Some(("s", node)) => {
                    nodes.entry(node.into()).or_default().seen = fields.number()?
                }
                Some(("x", whose)) => {
                    whole.orders.push(message::disconnect_order(whose, &fields.text()?)?);
                }
                _ if field == "v" => whole.version = fields.number()?,
                _ => drop(fields.value()?),
            }
        }
        for (node, part) in nodes {
            whole
                .nodes
                .push(NodePresence { seen: part.seen, ..NodePresence::read(node, part.fields)? });
        }
        Ok(whole)
    }
}

impl NodePresence {
    fn read(node: Box<str>, fields: [Vec<u8>; 2]) -> Result<Self, Malformed> {
        let users = Users::decode(&fields[0][..]).map_err(|_| Malformed("a node's users"))?;
        let connections =
            Connections::decode(&fields[1][..]).map_err(|_| Malformed("a node's connections"))?;
        let online = users.users.iter().map(|user: &User| Ok((user.online()?, user.number)));
        let online = online.collect::<Result<_, Malformed>>()?;
        Ok(Self { node, fields, online, connections: connections.connections, seen: 0 })
    }
}

impl CachedPresence {
    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn told(&self) -> &[Online] {
        &self.told
    }

    /// Whether this node has a part to write, or to write away.
    pub(super) fn is_own(&self) -> bool {
        !self.local.is_empty() || self.left_at.is_some() || self.writes > 0 || self.is_unwritten
    }

    /// Whether everybody of this node left a lease ago, and it was not read since then that Redis knows. A Redis that has lost its
    /// newest writes would have them online again.
    pub(super) fn is_to_be_confirmed(&self) -> bool {
        self.local.is_empty() && self.left_at.is_some_and(|at| at.elapsed() >= limits::NODE_LEASE)
    }

    /// Removes a user of this node, unless they are back.
    pub(super) fn remove(&mut self, user: UserId, reason: OfflineReason) {
        self.note_reason(user, reason);
        self.local.remove(user);
        if self.local.is_empty() {
            self.left_at = Some(Instant::now());
        }
    }

    /// Notes why a user goes of whom the sink was told.
    pub(super) fn note_reason(&mut self, user: UserId, reason: OfflineReason) {
        if self.told.binary_search_by_key(&user, |known| known.viewer.user).is_ok() {
            self.reasons.insert(user, reason);
        }
    }

    /// Whether a user is on another node.
    pub(super) fn is_elsewhere(&self, user: UserId) -> bool {
        let mut online = self.others.iter().flat_map(|other| &other.online);
        online.any(|(online, _)| online.viewer.user == user)
    }

    /// The parts of nodes that are gone.
    pub(super) fn gone(
        &self,
        is_gone: impl Fn(&str) -> bool,
    ) -> impl Iterator<Item = &NodePresence> {
        self.others.iter().filter(move |other| is_gone(&other.node))
    }

    /// Takes the whole, as it was at one moment after every whole that was taken before. Returns the connections of this node that
    /// have to go.
    pub(super) fn take(&mut self, whole: Whole, node: &str) -> Vec<SignalKind> {
        let Whole { version, mut nodes, orders } = whole;
        let own = nodes.iter().position(|other| *other.node == *node);
        let own = own.map(|at| nodes.remove(at).fields).unwrap_or_default();
        (self.version, self.others) = (version, nodes);
        self.is_unwritten = own != self.local.fields();
        if !self.is_unwritten && self.is_to_be_confirmed() {
            self.left_at = None;
        }
        orders.iter().flat_map(|order| self.local.ordered_away(order)).collect()
    }

    /// Who is online, by user id, but for nodes that are gone.
    fn online(&self, is_gone: impl Fn(&str) -> bool) -> Vec<Online> {
        let others = self.others.iter().filter(|other| !is_gone(&other.node));
        let others = others.flat_map(|other| other.online.iter().copied());
        let mut users: BTreeMap<UserId, (Online, u64)> = BTreeMap::new();
        for (online, number) in self.local.listed().chain(others) {
            let (known, latest) = users.entry(online.viewer.user).or_insert((online, number));
            known.since = known.since.min(online.since);
            known.acked_seq = known.acked_seq.max(online.acked_seq);
            if *latest < number {
                (known.viewer, *latest) = (online.viewer, number);
            }
        }
        let mut online: Vec<_> = users.into_values().map(|(online, _)| online).collect();
        if online.len() > limits::ONLINE_LISTED_MAX {
            online.sort_unstable_by_key(list_order);
            online.truncate(limits::ONLINE_LISTED_MAX);
            online.sort_unstable_by_key(|online| online.viewer.user);
        }
        online
    }

    /// Returns how who is online differs from what the sink was told, which is as it is from now on.
    pub(super) fn changes(&mut self, is_gone: impl Fn(&str) -> bool) -> Vec<SignalKind> {
        let mut online = self.online(is_gone);
        let mut changes = Vec::new();
        let mut told = BTreeMap::new();
        for known in std::mem::take(&mut self.told) {
            let user = known.viewer.user;
            let at = online.binary_search_by_key(&user, |online| online.viewer.user);
            let now = at.ok().map(|at| &mut online[at]);
            let (is_local, is_listed) = (self.local.has(user), now.is_some());
            if let Some(now) = now.filter(|now| is_local || known.acked_seq <= now.acked_seq) {
                now.acked_seq = now.acked_seq.max(known.acked_seq);
                told.insert(user, known);
            } else if is_local && !is_listed {
                changes.push(SignalKind::Unlisted { user });
            } else {
                // Who has acked less than before has left meanwhile, and is back.
                let reason = self.reasons.remove(&user).unwrap_or(OfflineReason::Lost);
                changes.push(SignalKind::Offline { user, reason });
            }
        }
        for Online { viewer, since, acked_seq } in online.iter().copied() {
            let known = told.get(&viewer.user);
            if known.is_none_or(|known| known.viewer != viewer) {
                self.reasons.remove(&viewer.user);
                changes.push(SignalKind::Online { viewer, since });
            }
            if known.map_or(0, |known| known.acked_seq) < acked_seq {
                changes.push(SignalKind::Acked { user: viewer.user, seq: acked_seq });
            }
        }
        self.told = online;
        changes
    }

    /// Takes into this node's part what is known of its users from others, which may be gone.
    pub(super) fn settle(&mut self) {
        for known in &self.told {
            self.is_unwritten |= self.local.adopt(known);
        }
    }

    /// Of sessions with several connections, all but the one that entered it last have to go; of users who then still have more than
    /// they may over all nodes, all but the newest. Returns those of this node.
    ///
    /// Connections of other nodes count only if the node has written them since the user's newest one entered. Until then it may be
    /// dead, whatever its lease says, and what it has left takes no place from anybody. What has entered a session later is newer in
    /// any case.
    pub(super) fn replaced(&mut self, is_gone: impl Fn(&str) -> bool) -> Vec<SignalKind> {
        let mut replaced = Vec::new();
        if self.connections_max == 0 {
            return replaced;
        }
        let users = self.local.listed().map(|(online, _)| online.viewer.user);
        let users: Vec<_> = users.filter(|user| self.is_elsewhere(*user)).collect();
        for user in users {
            let elsewhere: Vec<_> = self.elsewhere(user, |other| !is_gone(&other.node)).collect();
            let is_superseded =
                |entry: &Entry| elsewhere.iter().any(|other| other.supersedes(entry));
            replaced.extend(self.local.replaced(user, is_superseded));
            let all = self.local.entries(user).chain(self.elsewhere(user, |_| true));
            let newest = all.map(|entry| entry.number).max();
            let lives = |other: &NodePresence| Some(other.seen) >= newest && !is_gone(&other.node);
            let staying = self.local.entries(user).chain(self.elsewhere(user, lives));
            let mut numbers = not_superseded(staying);
            numbers.sort_unstable_by(|one, other| other.cmp(one));
            if let Some(oldest_kept) = numbers.get(self.connections_max.saturating_sub(1)) {
                replaced.extend(self.local.replaced(user, |entry| entry.number < *oldest_kept));
            }
        }
        replaced
    }

    /// How a user's connections entered on those of the other nodes.
    fn elsewhere(
        &self,
        user: UserId,
        counts: impl Fn(&NodePresence) -> bool,
    ) -> impl Iterator<Item = Entry> {
        let others = self.others.iter().filter(move |other| counts(other));
        let others = others.flat_map(|other| &other.connections);
        others.filter(move |other| other.user == user.get()).map(Connection::entry)
    }

    /// Whether a user has more connections than they may have over all nodes, those of dead ones included, or has taken over a session
    /// from another node.
    pub(super) fn replaces_elsewhere(&self, user: UserId) -> bool {
        let here: Vec<_> = self.local.entries(user).collect();
        let elsewhere: Vec<_> = self.elsewhere(user, |_| true).collect();
        let staying = not_superseded(here.iter().chain(&elsewhere).copied()).len();
        let takes_over =
            elsewhere.iter().any(|other| here.iter().any(|entry| entry.supersedes(other)));
        !elsewhere.is_empty() && staying > self.connections_max || takes_over
    }
}

/// Returns the numbers of those that no other one of their session has taken the place of.
fn not_superseded(entries: impl Iterator<Item = Entry>) -> Vec<u64> {
    let entries: Vec<_> = entries.collect();
    let stays = |entry: &&Entry| !entries.iter().any(|other| other.supersedes(entry));
    entries.iter().filter(stays).map(|entry| entry.number).collect()
}

/// Who is online in a duel that is not cached.
pub(super) fn online(whole: Whole, is_gone: impl Fn(&str) -> bool) -> Vec<Online> {
    CachedPresence { others: whole.nodes, ..CachedPresence::default() }.online(is_gone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMs;
    use crate::engine::NewConnection;
    use crate::event::{Role, Viewer};
    use crate::id::{ConnectionId, DuelId, TicketKey};
    use crate::ticket::Generation;

    fn connection(number: u64, viewer: Viewer, generation: Option<Generation>) -> NewConnection {
        NewConnection {
            duel: DuelId::try_from(77).unwrap(),
            viewer,
            since: UnixMs(number),
            first: true,
            number,
            connection: ConnectionId(number),
            generation,
            connections_max: 3,
        }
    }

    #[test]
    fn who_makes_room_for_a_player_is_unlisted_and_does_not_go_twice() {
        let user = |id| UserId::try_from(id).unwrap();
        let mut cached = CachedPresence::default();
        let mut attach = |id, role| {
            cached.local.attach(&connection(id, Viewer { user: user(id), role }, None), false);
            cached.changes(|_| false)
        };
        let listed = limits::ONLINE_LISTED_MAX as u64;
        for id in 1..=listed {
            assert_eq!(attach(id, Role::Spectator).len(), 1);
        }
        let changes = attach(1000, Role::Player);
        let [SignalKind::Unlisted { user: unlisted }, SignalKind::Online { viewer, .. }] =
            changes[..]
        else {
            panic!("{changes:?}")
        };
        assert_eq!(viewer.user, user(1000));
        cached.local.detach(unlisted, ConnectionId(unlisted.get()));
        cached.remove(unlisted, OfflineReason::ClientClosed);
        assert_eq!(cached.changes(|_| false), []);
        assert!(cached.reasons.is_empty(), "nobody waits for the reason");
    }

    #[test]
    fn what_a_user_has_acked_elsewhere_is_written_although_the_other_node_has_gone_meanwhile() {
        let user = UserId::try_from(1).unwrap();
        let viewer = Viewer { user, role: Role::Player };
        let acked = Online { viewer, since: UnixMs(1), acked_seq: 4 };
        let mut cached = CachedPresence { told: vec![acked], ..CachedPresence::default() };
        cached.local.attach(&connection(2, viewer, None), true);
        assert_eq!(cached.changes(|_| false), [], "the user was online, and is");
        cached.settle();
        assert!(cached.is_unwritten);
        assert!(cached.local.online().eq(cached.told()), "every node reads what this one says");
    }

    #[test]
    fn of_two_connections_of_a_session_on_two_nodes_the_one_that_entered_last_stays() {
        let session = TicketKey([7; 16]);
        let generation = Some(Generation { session, number: 1 });
        let user = UserId::try_from(1).unwrap();
        let viewer = Viewer { user, role: Role::Player };
        let node_with = |number| {
            let mut cached = CachedPresence { connections_max: 3, ..CachedPresence::default() };
            cached.local.attach(&connection(number, viewer, generation), false);
            cached
        };
        let (mut older, mut newer) = (node_with(1), node_with(2));
        let seen_by = |other: &CachedPresence| NodePresence {
            node: "other".into(),
            seen: 9,
            online: other.local.listed().collect(),
            connections: Connections::decode(&other.local.fields()[1][..]).unwrap().connections,
            fields: other.local.fields(),
        };
        (older.others, newer.others) = (vec![seen_by(&newer)], vec![seen_by(&older)]);
        assert!(newer.replaces_elsewhere(user) && !older.replaces_elsewhere(user));
        assert_eq!(newer.replaced(|_| false), []);
        assert_eq!(older.replaced(|_| false).len(), 1);
    }
}
