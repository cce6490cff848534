//! Users whose last connection went: offline only if they stay away for longer than the grace, so that a phone that
//! changes cells does not flap.
//!
//! Bound: one entry for each connection that closed within the last grace.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::warn;

use super::Hub;
use super::connection::Connection;
use super::duel::LiveDuel;
use crate::engine::{Signal, SignalKind};
use crate::id::{ConnectionId, DuelId, UserId};

/// Goings that are said at a time.
const UNDER_WAY_MAX: usize = 64;

/// A user within their grace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Departure {
    duel: DuelId,
    user: UserId,
    last: ConnectionId,
}

impl Hub {
    /// The user's last connection has left `live`.
    pub(super) fn begin_grace(&self, live: &LiveDuel, connection: &Connection) {
        let ends_at = Instant::now() + live.presence_grace().unwrap_or(self.config.presence_grace);
        let (user, last) = (connection.viewer.user, connection.id);
        self.departures.add(ends_at, Departure { duel: live.id, user, last }, ());
    }

    /// Several at a time, since an engine may take its time.
    pub(super) async fn run_departures(self: &Arc<Self>) {
        let mut under_way = JoinSet::new();
        loop {
            let (departure, ()) = self.departures.next().await;
            if under_way.len() >= UNDER_WAY_MAX {
                let _done = under_way.join_next().await;
            }
            while under_way.try_join_next().is_some() {}
            under_way.spawn(Arc::clone(self).depart(departure));
        }
    }

    async fn depart(self: Arc<Self>, Departure { duel, user, last }: Departure) {
        let Some(live) = self.live(duel) else { return };
        if let Some(reason) = live.end_grace(user, last) {
            let kind = SignalKind::Offline { user, reason };
            if let Err(error) = self.engine.signal(Signal { duel, kind }).await {
                warn!(duel_id = duel.get(), %error, "a user's going was not passed on");
            }
        }
        self.retire(&live);
    }
}
