//! One live duel: its tail, its connections, who is online. All under one short lock.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::OnlineUser;
use super::connection::{Connection, Dismissal};
use super::fan_out::{self, FanOut, Piece};
use super::presence::{Came, Presence, PresenceChange};
use super::tail::Tail;
use crate::engine::{Head, OfflineReason, Online, SignalKind, Target};
use crate::event::{Audience, Epoch, Event, Position, Viewer};
use crate::id::{ConnectionId, DuelId, UserId};
use crate::limits;

/// One duel that somebody follows on this node.
#[derive(Debug)]
pub(super) struct LiveDuel {
    pub(super) id: DuelId,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tail: Tail,
    /// In the order of their ids, which is the order in which they came.
    connections: Vec<Arc<Connection>>,
    presence: Presence,
    /// Users who were let in here, as what; those within their grace included.
    here: Vec<Viewer>,
    /// Users whose last connection went, within their grace.
    leaving: Vec<Leaving>,
    /// The duel's own; `None`: the node's.
    presence_grace: Option<Duration>,
    /// The event that tasks are handing over.
    fan_out: FanOut,
    /// A connection lacks events that the engine did not give.
    read_deferred: bool,
    /// Sweeps that the engine has answered.
    sweeps: u64,
    /// The duel has left the hub's map; whoever still holds it must look there again.
    retired: bool,
}

#[derive(Debug)]
struct Leaving {
    user: UserId,
    /// The connection that went: a later departure of the same user is another one.
    last: ConnectionId,
    reason: OfflineReason,
}

/// What became of a connection that wants in.
pub(super) enum Joined {
    /// It is in.
    In,
    /// The duel has left the map meanwhile.
    Retired,
}

/// What the engine's word on where the log stands was to a live duel.
#[derive(Debug)]
pub(super) enum Noted {
    /// Nothing new.
    Known,
    /// Events had been missed, whether or not the epoch has changed.
    Missed,
    /// Its epoch has ended, and nothing has happened since: these connections have time to come back.
    Renewed(Vec<Arc<Connection>>),
}

/// What a cursor finds.
pub(super) struct Look {
    pub(super) newest: Option<Position>,
    /// The epoch of the cursor has ended, but it lacks nothing yet.
    pub(super) lacks_nothing_yet: bool,
    /// The events after the cursor, or `None` if they are not at hand.
    pub(super) events: Option<Vec<Arc<Event>>>,
    /// The changes after the cursor, or `None` if they are kept no longer.
    pub(super) presence: Option<Vec<PresenceChange>>,
}

impl LiveDuel {
    pub(super) fn new(id: DuelId) -> Self {
        Self { id, state: Mutex::default() }
    }

    /// Puts a connection into the list, so that whatever happens from now on wakes it. It is not let in yet.
    pub(super) fn join(&self, connection: &Arc<Connection>) -> Joined {
        let mut state = self.state.lock();
        if state.retired {
            return Joined::Retired;
        }
        // Ids are handed out before this lock is taken, so a later one may be in already.
        let at = state.connections.partition_point(|other| other.id < connection.id);
        state.connections.insert(at, Arc::clone(connection));
        Joined::In
    }

    /// Lets a connection in: whether its user was not here before in that role. Past `per_user_max` connections of the
    /// user, the oldest are asked to go.
    pub(super) fn let_in(&self, connection: &Connection, per_user_max: usize) -> bool {
        let mut state = self.state.lock();
        let viewer = connection.viewer;
        let mine: Vec<_> = state.let_in_of(viewer.user).cloned().collect();
        let excess = (mine.len() + 1).saturating_sub(per_user_max);
        mine.iter().take(excess).for_each(|oldest| oldest.dismiss(Dismissal::Replaced));
        connection.let_in();
        state.leaving.retain(|leaving| leaving.user != viewer.user);
        if state.here.contains(&viewer) {
            return false;
        }
        state.here.retain(|other| other.user != viewer.user);
        state.here.push(viewer);
        true
    }

    /// Takes a connection out: whether it was the last that was let in of its user, who is now within their grace.
    pub(super) fn leave(&self, connection: &Connection, reason: OfflineReason) -> bool {
        let mut state = self.state.lock();
        if let Ok(at) = state.connections.binary_search_by_key(&connection.id, |c| c.id) {
            state.connections.remove(at);
        }
        let user = connection.viewer.user;
        let last = connection.is_let_in() && state.let_in_of(user).next().is_none();
        if last {
            state.leaving.push(Leaving { user, last: connection.id, reason });
        }
        last
    }

    /// Ends the grace that began when `last` went: why, unless the user is back.
    pub(super) fn end_grace(&self, user: UserId, last: ConnectionId) -> Option<OfflineReason> {
        let mut state = self.state.lock();
        let at = state.leaving.iter().position(|l| l.user == user && l.last == last)?;
        state.here.retain(|viewer| viewer.user != user);
        Some(state.leaving.swap_remove(at).reason)
    }

    /// Marks the duel as retired if nobody is left in it: whether it is now.
    pub(super) fn retire(&self) -> bool {
        let mut state = self.state.lock();
        if state.retired {
            // Somebody else has; there may be another in its place by now.
            return false;
        }
        state.retired = state.connections.is_empty() && state.leaving.is_empty();
        state.retired
    }

    pub(super) fn look(&self, position: Position, presence: u64, count: usize) -> Look {
        let state = self.state.lock();
        let newest = state.tail.newest();
        let has_all = newest.is_none_or(|newest| newest.seq <= position.seq);
        Look {
            newest,
            lacks_nothing_yet: has_all && state.tail.ended_here().contains(&position.epoch),
            events: state.tail.after(position.seq, count),
            presence: state.presence.after(presence),
        }
    }

    /// Takes an event that was stored, and has every connection receive it: at once, where that is possible and not
    /// `crowded`; through `tasks`, where there are many. To how many it is addressed.
    pub(super) fn append(
        self: &Arc<Self>,
        epoch: Epoch,
        event: &Arc<Event>,
        crowded: bool,
        tasks: &Handle,
    ) -> usize {
        let state = &mut *self.state.lock();
        state.tail.push(epoch, event);
        if state.connections.len() > limits::HANDED_AT_ONCE_MAX {
            match state.fan_out.begin(&state.connections) {
                Some(pieces) => fan_out::hand(self, epoch, event, pieces, tasks),
                None => state.wake_all(),
            }
        } else if crowded {
            state.wake_all();
        } else {
            state.connections.iter().for_each(|connection| connection.offer(epoch, event));
        }
        match event.push() {
            Some(push) if push.audience != Audience::All => {
                let included = |c: &&Arc<Connection>| push.audience.includes(c.viewer);
                state.connections.iter().filter(included).count()
            }
            _ => state.connections.len(),
        }
    }

    /// Takes what the engine reported of the log.
    pub(super) fn note(&self, head: &Head) -> Noted {
        let mut state = self.state.lock();
        let before = state.tail.newest().map(|newest| newest.epoch);
        if !state.tail.note(head) {
            return Noted::Known;
        }
        state.wake_all();
        if !before.is_some_and(|before| state.tail.ended_here().contains(&before)) {
            return Noted::Missed;
        }
        let let_in = state.connections.iter().filter(|connection| connection.is_let_in());
        Noted::Renewed(let_in.cloned().collect())
    }

    /// A connection lacks events that the engine did not give, and looks again at the next sweep: which one was the last.
    pub(super) fn defer_read(&self) -> u64 {
        let mut state = self.state.lock();
        state.read_deferred = true;
        state.sweeps
    }

    /// A sweep was tried, and maybe answered: who lacks events looks again.
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
                if state.here.iter().any(|viewer| viewer.user == *user) {
                    return;
                }
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
                    connection.dismiss(Dismissal::Disconnected { reconnect, reason });
                }
            }
            SignalKind::Replace { connection } => {
                let at = state.connections.binary_search_by_key(connection, |c| c.id);
                if let Ok(at) = at {
                    state.connections[at].dismiss(Dismissal::Replaced);
                }
            }
            SignalKind::Revoked { user } => {
                state.of_user(*user).for_each(|connection| connection.revoke());
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

    /// The connections of a piece that are still there.
    pub(super) fn piece(&self, piece: &Piece) -> Vec<Arc<Connection>> {
        let state = self.state.lock();
        let begin = state.connections.partition_point(|c| c.id < *piece.start());
        let end = state.connections.partition_point(|c| c.id <= *piece.end());
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

    /// The users listed as online, and `viewer` in any case, by user id; and the cursor that has seen them come.
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

impl State {
    fn of_user(&self, user: UserId) -> impl Iterator<Item = &Arc<Connection>> {
        self.connections.iter().filter(move |connection| connection.viewer.user == user)
    }

    fn let_in_of(&self, user: UserId) -> impl Iterator<Item = &Arc<Connection>> {
        self.of_user(user).filter(|connection| connection.is_let_in())
    }

    fn wake_all(&self) {
        self.connections.iter().for_each(|connection| connection.wake());
    }
}
