//! Draining: connections that have to reconnect are closed one after the other, so that they do not return all at once.
//!
//! | when | which connections |
//! |---|---|
//! | the node stops | all |
//! | an epoch has ended | those of each duel in which nothing has happened since: they lack nothing, and reconnect to the new epoch |
//!
//! Bound: one entry for each connection that the node has, or had within the last drain.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use super::Hub;
use super::connection::{CloseRequest, Connection};

impl Hub {
    /// Asks every connection to reconnect, spread evenly over `spread`.
    pub async fn drain(&self, spread: Duration) {
        let duels: Vec<_> = self.duels.read().values().cloned().collect();
        let mut connections: Vec<_> =
            duels.iter().flat_map(|duel| duel.all_connections()).collect();
        // By age, not by duel: the two players of a duel are not closed in the same instant.
        connections.sort_by_key(|connection| connection.id);
        let started = Instant::now();
        let pause = spread.checked_div(u32::try_from(connections.len()).unwrap_or(u32::MAX));
        for (connection, nth) in connections.iter().zip(0..) {
            tokio::time::sleep_until(started + pause.unwrap_or_default() * nth).await;
            connection.request_close(CloseRequest::Restart);
        }
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
                connection.request_close(CloseRequest::Restart);
                connections += 1;
            }
            if self.epoch_drain.is_empty() {
                info!(connections, "connections were closed because their duels' epochs ended");
                connections = 0;
            }
        }
    }
}
