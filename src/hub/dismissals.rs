//! Connections that have to come back, but not all at once: they are asked to go one after the other, over the drain.
//!
//! All of them when the node stops. And when an engine has lost what it may lose, those of every duel in which nothing has
//! happened since: they lack nothing yet, and come back to the duel's new epoch.
//!
//! Bound: an entry for each connection that the node has, or had within the last drain.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use super::Hub;
use super::connection::{Connection, Dismissal};

impl Hub {
    /// Tells every connection to come back later, spread evenly over `spread`.
    pub async fn dismiss_all(&self, spread: Duration) {
        let duels: Vec<_> = self.duels.read().values().cloned().collect();
        let mut connections: Vec<_> =
            duels.iter().flat_map(|duel| duel.all_connections()).collect();
        // By age, not by duel: the two players of a duel do not go in the same instant.
        connections.sort_by_key(|connection| connection.id);
        let started = Instant::now();
        let pause = spread.checked_div(u32::try_from(connections.len()).unwrap_or(u32::MAX));
        for (connection, nth) in connections.iter().zip(0..) {
            tokio::time::sleep_until(started + pause.unwrap_or_default() * nth).await;
            connection.dismiss(Dismissal::Restart);
        }
    }

    /// The connections' epoch has ended: each gets its turn at some time within the drain.
    pub(super) fn renew(&self, connections: Vec<Arc<Connection>>) {
        let now = Instant::now();
        for connection in connections.into_iter().filter(|connection| connection.begin_renewal()) {
            let turn = now + self.config.drain.mul_f64(rand::random());
            self.renewed.add(turn, connection.id, Arc::downgrade(&connection));
        }
    }

    pub(super) async fn run_renewals(&self) {
        let mut connections = 0_u64;
        loop {
            let (_, connection) = self.renewed.next().await;
            if let Some(connection) = connection.upgrade() {
                connection.dismiss(Dismissal::Restart);
                connections += 1;
            }
            if self.renewed.is_empty() {
                info!(connections, "duels had new epochs; their connections were sent away");
                connections = 0;
            }
        }
    }
}
