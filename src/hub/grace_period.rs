//! Grace periods: a user whose last connection closed is offline only after a while, so that a phone that changes cells does
//! not flap.
//!
//! Bound: one entry for each connection that closed within the last grace period.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::warn;

use super::Hub;
use super::connection::Connection;
use super::duel::LiveDuel;
use crate::engine::{Signal, SignalKind};
use crate::id::{ConnectionId, DuelId, UserId};

/// Grace periods that end at a time, since an engine may take its time.
const IN_FLIGHT_MAX: usize = 64;

/// The grace period of a user, which began when the connection `last` closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GracePeriod {
    duel: DuelId,
    user: UserId,
    last: ConnectionId,
}

impl Hub {
    /// Begins the grace period of the user whose last connection this was.
    pub(super) fn begin_grace_period(&self, live: &LiveDuel, connection: &Connection) {
        let ends_at = Instant::now() + live.presence_grace().unwrap_or(self.config.presence_grace);
        let (user, last) = (connection.viewer.user, connection.id);
        self.grace_periods.add(ends_at, GracePeriod { duel: live.id, user, last }, ());
    }

    pub(super) async fn run_grace_periods(self: &Arc<Self>) {
        let mut in_flight = JoinSet::new();
        loop {
            let (grace_period, ()) = self.grace_periods.next().await;
            if in_flight.len() >= IN_FLIGHT_MAX {
                let _done = in_flight.join_next().await;
            }
            while in_flight.try_join_next().is_some() {}
            in_flight.spawn(Arc::clone(self).end_grace_period(grace_period));
        }
    }

    async fn end_grace_period(self: Arc<Self>, GracePeriod { duel, user, last }: GracePeriod) {
        let Some(live) = self.live(duel) else { return };
        if let Some(reason) = live.end_grace_period(user, last) {
            let kind = SignalKind::Offline { user, reason };
            if let Err(error) = self.engine.signal(Signal { duel, kind }).await {
                warn!(duel_id = duel.get(), %error, "a user's going offline could not be passed on");
            }
        }
        self.retire(&live);
    }
}
