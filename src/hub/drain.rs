//! Draining: connections that have to reconnect are closed, and told when to come back, so that they do not return all at once.
//!
//! | when | which connections | are closed |
//! |---|---|---|
//! | the node stops, and is alone | all | at once |
//! | the node stops, and is one of several | all | spread over the drain |
//! | an epoch has ended | those of each duel in which nothing has happened since: they lack nothing, and reconnect to the new epoch | spread over the drain |
//!
//! They are told to come back at `HubConfig::reconnects_per_second`; of a node alone, from when it should be there again. Where
//! the drain is slower than that, they are told to come back at once.
//!
//! Bound: one entry for each connection that the node has, or had within the last drain.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use super::Hub;
use super::connection::{CloseRequest, Connection};

impl Hub {
    /// Asks every connection to reconnect. Who attaches after [`Readiness::stop`] is asked as well, at once.
    ///
    /// [`Readiness::stop`]: super::Readiness::stop
    pub async fn drain(&self) {
        let duels: Vec<_> = self.duels.read().values().cloned().collect();
        let mut connections: Vec<_> =
            duels.iter().flat_map(|duel| duel.all_connections()).collect();
        // By age, not by duel: the two players of a duel are not closed in the same instant.
        connections.sort_by_key(|connection| connection.id);
        let started = Instant::now();
        let count = u32::try_from(connections.len()).unwrap_or(u32::MAX);
        let pause = self.config.drain.checked_div(count).unwrap_or_default();
        for (connection, nth) in connections.iter().zip(0..) {
            let closed_after = pause * nth;
            if !closed_after.is_zero() {
                tokio::time::sleep_until(started + closed_after).await;
            }
            let retry_after = self.config.restart_gap + self.turn(nth).saturating_sub(closed_after);
            connection.request_close(CloseRequest::Restart { retry_after });
        }
    }

    /// Returns when the `nth` client may come back, if one comes after the other.
    fn turn(&self, nth: u32) -> Duration {
        Duration::from_secs(nth.into()) / self.config.reconnects_per_second
    }

    /// Returns when a client should come back if the others that are closed are not known: at some time within that in which
    /// all of the node's clients could. They are closed within `closed_over`.
    pub(super) fn any_turn(&self, closed_over: Duration) -> Duration {
        let all = u32::try_from(self.metrics.connections.get()).unwrap_or_default();
        self.turn(all).saturating_sub(closed_over).mul_f64(rand::random())
    }

    /// Asks a connection to reconnect that was attached while the node is stopping.
    pub(super) fn turn_away(&self, connection: &Connection) {
        let retry_after = self.config.restart_gap + self.any_turn(Duration::ZERO);
        connection.request_close(CloseRequest::Restart { retry_after });
    }

    /// Has each connection of an ended epoch closed at some time within the drain.
    pub(super) fn drain_ended_epoch(&self, connections: Vec<Arc<Connection>>) {
        let now = Instant::now();
        for connection in connections.into_iter().filter(|connection| connection.begin_draining()) {
            let closes_at = now + self.config.drain.mul_f64(rand::random());
            self.epoch_drain.add(closes_at, connection.id, Arc::downgrade(&connection));
        }
    }

    pub(super) async fn run_epoch_drain(&self) {
        let mut connections = 0_u64;
        loop {
            let (_, connection) = self.epoch_drain.next().await;
            if let Some(connection) = connection.upgrade() {
                let retry_after = self.any_turn(self.config.drain);
                connection.request_close(CloseRequest::Restart { retry_after });
                connections += 1;
            }
            if self.epoch_drain.is_empty() {
                info!(connections, "connections were closed because their duels' epochs ended");
                connections = 0;
            }
        }
    }
}
