//! Who is on this node, as it has said to Redis, or is about to.
//!
//! What is said and what is remembered change under one lock, so that what is said last is what is so. Bound: the node's
//! connections, and users within their grace.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::clock::UnixMs;
use crate::event::Viewer;
use crate::id::{ConnectionId, DuelId, UserId};

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Here(Mutex<HashMap<DuelId, Vec<Local>>>);

/// One of them.
#[derive(Debug, Clone)]
pub(super) struct Local {
    pub(super) viewer: Viewer,
    pub(super) since: UnixMs,
    /// None: within their grace.
    pub(super) connections: Vec<ConnectionId>,
}

impl Here {
    /// A connection has come; `say` says so.
    pub(super) fn arrive(
        &self,
        duel: DuelId,
        (viewer, since): (Viewer, UnixMs),
        connection: Option<ConnectionId>,
        say: impl FnOnce(),
    ) {
        let mut here = self.0.lock();
        let locals = here.entry(duel).or_default();
        match locals.iter_mut().find(|local| local.viewer.user == viewer.user) {
            Some(local) => {
                local.viewer = viewer;
                local.connections.extend(connection);
            }
            None => {
                let connections = connection.into_iter().collect();
                locals.push(Local { viewer, since, connections });
            }
        }
        say();
    }

    /// A connection has gone; `say` says so.
    pub(super) fn depart(
        &self,
        duel: DuelId,
        user: UserId,
        connection: ConnectionId,
        say: impl FnOnce(),
    ) {
        let mut here = self.0.lock();
        let local = here.get_mut(&duel).and_then(|locals| find(locals, user));
        if let Some(local) = local {
            local.connections.retain(|other| *other != connection);
        }
        say();
    }

    /// A user's grace has ended. Unless they are back, `say` says so: whether it did.
    pub(super) fn go(&self, duel: DuelId, user: UserId, say: impl FnOnce()) -> bool {
        let mut here = self.0.lock();
        if let Some(locals) = here.get_mut(&duel) {
            if find(locals, user).is_some_and(|local| !local.connections.is_empty()) {
                return false;
            }
            locals.retain(|local| local.viewer.user != user);
            if locals.is_empty() {
                here.remove(&duel);
            }
        }
        say();
        true
    }

    pub(super) fn has(&self, duel: DuelId, user: UserId) -> bool {
        let mut here = self.0.lock();
        here.get_mut(&duel).is_some_and(|locals| find(locals, user).is_some())
    }

    pub(super) fn has_any(&self, duel: DuelId) -> bool {
        self.0.lock().contains_key(&duel)
    }

    /// `say` says again who of a duel is here.
    pub(super) fn again(&self, duel: DuelId, mut say: impl FnMut(&Local)) {
        self.0.lock().get(&duel).into_iter().flatten().for_each(&mut say);
    }

    /// Who of a duel is here.
    pub(super) fn of(&self, duel: DuelId) -> Vec<Local> {
        self.0.lock().get(&duel).cloned().unwrap_or_default()
    }

    /// The duels in which somebody is here.
    pub(super) fn duels(&self) -> Vec<DuelId> {
        self.0.lock().keys().copied().collect()
    }
}

fn find(locals: &mut [Local], user: UserId) -> Option<&mut Local> {
    locals.iter_mut().find(|local| local.viewer.user == user)
}
