//! One live duel: its tail, its connections, who is online. One short lock guards them all.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::OnlineUser;
use super::connection::{CloseRequest, Connection};
use super::fan_out::{Chunk, FanOut};
use super::presence::{Came, Presence, PresenceChange};
use super::tail::Tail;
use crate::engine::{Head, OfflineReason, Online, SignalKind, Target};
use crate::event::{Audience, Epoch, Event, Position, Viewer};
use crate::id::{ConnectionId, DuelId, UserId};
use crate::limits;

/// A duel that somebody follows on this node.
#[derive(Debug)]
pub(super) struct LiveDuel {
    pub(super) id: DuelId,
    state: Mutex<LiveState>,
}

#[derive(Debug, Default)]
struct LiveState {
    tail: Tail,
    /// In the order of their ids, which is the order in which they came.
    connections: Vec<Arc<Connection>>,
    presence: Presence,
    /// Users with an attached connection on this node, or in their grace period.
    local: Vec<Viewer>,
    grace_periods: Vec<LocalGracePeriod>,
    /// The duel's own grace period. `None`: the node's.
    presence_grace: Option<Duration>,
    fan_out: FanOut,
    /// A connection lacks events that the engine failed to read.
    read_deferred: bool,
    /// Sweeps that the engine has answered.
    sweeps: u64,
    /// Nobody is left, and the duel leaves the hub's map. No connection is added any more.
    retired: bool,
}

#[derive(Debug)]
struct LocalGracePeriod {
    user: UserId,
    /// The connection that closed. Tells this grace period from a later one of the same user.
    last: ConnectionId,
    reason: OfflineReason,
}

/// What a head that the engine reported meant to a live duel.
#[derive(Debug)]
pub(super) enum HeadChange {
    /// The head was known.
    None,
    /// Events had been missed, whether or not the epoch has changed.
    Missed,
    /// The epoch has ended, and nothing has happened since. These connections have time to reconnect.
    EpochEnded(Vec<Arc<Connection>>),
}

/// What a live duel holds after a cursor.
pub(super) struct View {
    pub(super) newest: Option<Position>,
    /// The cursor's epoch has ended, but nothing has happened since.
    pub(super) up_to_date: bool,
    /// `None`: the events are not in the tail.
    pub(super) events: Option<Vec<Arc<Event>>>,
    /// `None`: the changes are no longer kept.
    pub(super) presence: Option<Vec<PresenceChange>>,
}

impl LiveDuel {
    pub(super) fn new(id: DuelId) -> Self {
        Self { id, state: Mutex::default() }
    }

    /// Adds a connection to the list, so that whatever happens from now on wakes it. Its user is not online yet. Returns
    /// whether it was added: a retired duel takes none.
    pub(super) fn add(&self, connection: &Arc<Connection>) -> bool {
        let mut state = self.state.lock();
        if !state.retired {
            // Ids are given out before this lock is taken, so a later one may be in already.
            let at = state.connections.partition_point(|other| other.id < connection.id);
            state.connections.insert(at, Arc::clone(connection));
        }
        !state.retired
    }

    /// Attaches a connection. Asks those to close whose session it has taken over and, past `per_user_max` connections of its
    /// user, the oldest. If its own session was taken over meanwhile, it is asked itself. Returns whether the user was not on
    /// this node before in that role.
    pub(super) fn attach(&self, connection: &Connection, per_user_max: usize) -> bool {
        let mut state = self.state.lock();
        let viewer = connection.viewer;
        let staying =
            state.attached_of(viewer.user).filter(|other| other.close_request().is_none());
        let mut staying: Vec<_> = staying.cloned().collect();
        staying
            .extract_if(.., |other| connection.supersedes(other))
            .for_each(|older| older.request_close(CloseRequest::Replaced));
        if staying.iter().any(|other| other.supersedes(connection)) {
            connection.request_close(CloseRequest::Replaced);
        } else {
            let excess = (staying.len() + 1).saturating_sub(per_user_max);
            let oldest = staying.iter().take(excess);
            oldest.for_each(|oldest| oldest.request_close(CloseRequest::Replaced));
        }
        connection.set_attached();
        state.grace_periods.retain(|grace_period| grace_period.user != viewer.user);
        if state.local.contains(&viewer) {
            return false;
        }
        state.local.retain(|other| other.user != viewer.user);
        state.local.push(viewer);
        true
    }

    /// Removes a connection. Returns whether it was the last attached one of its user, whose grace period begins.
    pub(super) fn remove(&self, connection: &Connection, reason: OfflineReason) -> bool {
        let mut state = self.state.lock();
        if let Ok(at) = state.connections.binary_search_by_key(&connection.id, |c| c.id) {
            state.connections.remove(at);
        }
        let user = connection.viewer.user;
        let last = connection.is_attached() && state.attached_of(user).next().is_none();
        if last {
            state.grace_periods.push(LocalGracePeriod { user, last: connection.id, reason });
        }
        last
    }

    /// Ends the grace period that began when `last` closed. Returns why it closed, or `None` if the user is back.
    pub(super) fn end_grace_period(
        &self,
        user: UserId,
        last: ConnectionId,
    ) -> Option<OfflineReason> {
        let mut state = self.state.lock();
        let at = state.grace_periods.iter().position(|g| g.user == user && g.last == last)?;
        state.local.retain(|viewer| viewer.user != user);
        Some(state.grace_periods.swap_remove(at).reason)
    }

    /// Retires the duel if nobody is left in it. Returns `true` once, to whoever retired it.
    pub(super) fn retire(&self) -> bool {
        let mut state = self.state.lock();
        let empty = state.connections.is_empty() && state.grace_periods.is_empty();
        empty && !std::mem::replace(&mut state.retired, empty)
    }

    /// Returns what lies after a cursor, at most `count` events.
    pub(super) fn view(&self, position: Position, presence: u64, count: usize) -> View {
        let state = self.state.lock();
        let newest = state.tail.newest();
        let has_all = newest.is_none_or(|newest| newest.seq <= position.seq);
        View {
            newest,
            up_to_date: has_all && state.tail.ended_at_newest().contains(&position.epoch),
            events: state.tail.after(position.seq, count),
            presence: state.presence.after(presence),
        }
    }

    /// Returns whether this node was told too late of what follows `seq`.
    pub(super) fn missed_after(&self, seq: u64) -> bool {
        self.state.lock().tail.missed_after(seq)
    }

    /// Takes a stored event and delivers it: directly, unless many notices come in `bulk`; through `tasks` if there are many
    /// connections. Returns to how many connections it is addressed.
    pub(super) fn append(
        self: &Arc<Self>,
        epoch: Epoch,
        event: &Arc<Event>,
        bulk: bool,
        tasks: &Handle,
    ) -> usize {
        let state = &mut *self.state.lock();
        state.tail.push(epoch, event);
        if state.connections.len() > limits::DIRECT_WRITES_MAX {
            match state.fan_out.begin(&state.connections) {
                Some(chunks) => {
                    let live = Arc::clone(self);
                    chunks.deliver(epoch, event, tasks, move |chunk| live.chunk(chunk));
                }
                None => state.wake_all(),
            }
        } else if bulk {
            state.wake_all();
        } else {
            state.connections.iter().for_each(|connection| connection.deliver(epoch, event));
        }
        match event.push() {
            Some(push) if push.audience != Audience::All => {
                let included = |c: &&Arc<Connection>| push.audience.includes(c.viewer);
                state.connections.iter().filter(included).count()
            }
            _ => state.connections.len(),
        }
    }

    /// Takes a head that the engine reported.
    pub(super) fn observe_head(&self, head: &Head) -> HeadChange {
        let mut state = self.state.lock();
        let before = state.tail.newest().map(|newest| newest.epoch);
        if !state.tail.observe_head(head) {
            return HeadChange::None;
        }
        state.wake_all();
        if !before.is_some_and(|before| state.tail.ended_at_newest().contains(&before)) {
            return HeadChange::Missed;
        }
        let attached = state.connections.iter().filter(|connection| connection.is_attached());
        HeadChange::EpochEnded(attached.cloned().collect())
    }

    /// Has a connection whose read failed woken at the next sweep. Returns how many sweeps the engine has answered.
    pub(super) fn defer_read(&self) -> u64 {
        let mut state = self.state.lock();
        state.read_deferred = true;
        state.sweeps
    }

    /// Takes the outcome of a sweep, and wakes the connections if one of them lacks events.
    pub(super) fn resume_reads(&self, answered: bool) {
        let mut state = self.state.lock();
        state.sweeps += u64::from(answered);
        if std::mem::take(&mut state.read_deferred) {
            state.wake_all();
        }
    }

    /// Takes what a node said, and has it told if it is news, both before anything else can be said of the duel. A user who is back
    /// by the time that their going is told has not gone.
    pub(super) fn apply(&self, signal: &SignalKind, tell: impl FnOnce()) {
        let mut state = self.state.lock();
        match signal {
            SignalKind::Online { viewer, since } => match state.presence.come(*viewer, *since) {
                Came::Known => return,
                Came::Unlisted => {}
                Came::Listed => state.wake_all(),
            },
            SignalKind::Offline { user, .. } => {
                if state.local.iter().any(|viewer| viewer.user == *user) {
                    return;
                }
                if state.presence.go(*user) {
                    state.wake_all();
                }
            }
            SignalKind::Unlisted { user } => {
                if state.presence.go(*user) {
                    state.wake_all();
                }
            }
            SignalKind::Acked { user, seq } => state.presence.ack(*user, *seq),
            SignalKind::Disconnect { whom, reconnect, reason } => {
                let meant = |connection: &Connection| match whom {
                    Target::Everybody => true,
                    Target::User(user) => *user == connection.viewer.user,
                    Target::Connection(id) => *id == connection.id,
                };
                for connection in state.connections.iter().filter(|connection| meant(connection)) {
                    let (reconnect, reason) = (*reconnect, reason.clone());
                    connection.request_close(CloseRequest::Disconnected { reconnect, reason });
                }
            }
            SignalKind::Replace { connection } => {
                let at = state.connections.binary_search_by_key(connection, |c| c.id);
                if let Ok(at) = at {
                    state.connections[at].request_close(CloseRequest::Replaced);
                }
            }
            SignalKind::SessionEnded { user, session } => {
                let of_session =
                    |c: &&Arc<Connection>| c.generation.is_some_and(|g| g.session == *session);
                state
                    .of_user(*user)
                    .filter(of_session)
                    .for_each(|connection| connection.request_close(CloseRequest::SessionEnded));
            }
        }
        tell();
    }

    /// Takes who was online before the duel was live here. Watchers have been told.
    pub(super) fn introduce(&self, online: &[Online]) {
        let mut state = self.state.lock();
        for Online { viewer, since, acked_seq } in online.iter().copied() {
            state.presence.come(viewer, since);
            state.presence.ack(viewer.user, acked_seq);
        }
        state.wake_all();
    }

    /// Returns the connections of a chunk that are still in the list.
    pub(super) fn chunk(&self, chunk: &Chunk) -> Vec<Arc<Connection>> {
        let state = self.state.lock();
        let begin = state.connections.partition_point(|c| c.id < *chunk.start());
        let end = state.connections.partition_point(|c| c.id <= *chunk.end());
        state.connections[begin..end].to_vec()
    }

    pub(super) fn connections(&self) -> usize {
        self.state.lock().connections.len()
    }

    pub(super) fn count_connections(&self, wanted: impl Fn(&Connection) -> bool) -> usize {
        self.state.lock().connections.iter().filter(|connection| wanted(connection)).count()
    }

    pub(super) fn all_connections(&self) -> Vec<Arc<Connection>> {
        self.state.lock().connections.clone()
    }

    pub(super) fn presence_grace(&self) -> Option<Duration> {
        self.state.lock().presence_grace
    }

    pub(super) fn set_presence_grace(&self, grace: Option<Duration>) {
        self.state.lock().presence_grace = grace;
    }

    /// Returns the users listed as online and `viewer` in any case, in the order of their ids, and the cursor after the
    /// changes that brought them.
    pub(super) fn online_with(&self, viewer: Viewer) -> (Vec<UserId>, u64) {
        let state = self.state.lock();
        let listed = state.presence.listed().iter().map(|listed| listed.viewer.user);
        let mut users: Vec<_> = listed.chain([viewer.user]).collect();
        users.sort_unstable();
        users.dedup();
        (users, state.presence.end())
    }

    pub(super) fn online(&self) -> Vec<OnlineUser> {
        let state = self.state.lock();
        let mut users: Vec<_> = (state.presence.listed().iter())
            .map(|listed| OnlineUser::new(listed, state.of_user(listed.viewer.user).count()))
            .collect();
        users.sort_unstable_by_key(|online| online.user);
        users
    }
}

impl LiveState {
    fn of_user(&self, user: UserId) -> impl Iterator<Item = &Arc<Connection>> {
        self.connections.iter().filter(move |connection| connection.viewer.user == user)
    }

    fn attached_of(&self, user: UserId) -> impl Iterator<Item = &Arc<Connection>> {
        self.of_user(user).filter(|connection| connection.is_attached())
    }

    fn wake_all(&self) {
        self.connections.iter().for_each(|connection| connection.wake());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Role;
    use crate::id::TicketKey;
    use crate::ticket::Generation;

    const USER: u64 = 1;

    fn duel() -> LiveDuel {
        LiveDuel::new(DuelId::try_from(77).unwrap())
    }

    /// A connection that came into the list as the `id`th, by ticket `number` of a session.
    fn listed(live: &LiveDuel, id: u64, session: u8, number: u32) -> Arc<Connection> {
        let viewer = Viewer { user: UserId::try_from(USER).unwrap(), role: Role::Player };
        let generation = Some(Generation { session: TicketKey([session; 16]), number });
        let connection = Arc::new(Connection::new(ConnectionId(id), live.id, viewer, generation));
        assert!(live.add(&connection));
        connection
    }

    fn replaced(connections: &[&Arc<Connection>]) -> Vec<bool> {
        let is_replaced = |c: &&Arc<Connection>| c.close_request() == Some(&CloseRequest::Replaced);
        connections.iter().map(is_replaced).collect()
    }

    #[test]
    fn of_two_connections_of_a_session_the_one_that_entered_last_stays_whichever_attaches_last() {
        for [first, second] in [[0, 1], [1, 0]] {
            let live = duel();
            let connections = [listed(&live, 1, 7, 1), listed(&live, 2, 7, 1)];
            live.attach(&connections[first], 3);
            live.attach(&connections[second], 3);
            assert_eq!(replaced(&connections.each_ref()), [true, false]);
        }
        let live = duel();
        let (newer, older) = (listed(&live, 1, 7, 2), listed(&live, 2, 7, 1));
        live.attach(&newer, 3);
        live.attach(&older, 3);
        assert_eq!(replaced(&[&newer, &older]), [false, true], "a generation counts for more");
    }

    #[test]
    fn a_connection_that_has_to_go_takes_no_place_from_another() {
        let live = duel();
        let other = listed(&live, 1, 1, 0);
        let [older, newer] = [2, 3].map(|id| listed(&live, id, 7, 1));
        for connection in [&other, &older, &newer] {
            live.attach(connection, 2);
        }
        assert_eq!(replaced(&[&other, &older, &newer]), [false, true, false]);
        let late = listed(&live, 4, 7, 0);
        live.attach(&late, 2);
        assert_eq!(replaced(&[&other, &newer, &late]), [false, false, true]);
        let third = listed(&live, 5, 9, 0);
        live.attach(&third, 2);
        assert_eq!(replaced(&[&other, &newer, &third]), [true, false, false], "the oldest");
    }
}
