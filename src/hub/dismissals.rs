//! Connections that have to come back, but not all at once: they are asked to go one after the other, over the drain.
//!
//! All of them when the node stops. And when an engine has lost what it may lose, those of every duel in which nothing has
//! happened since: they lack nothing yet, and come back to the duel's new epoch.
//!
//! Bound: an entry for each connection that the node has, or had within the last drain.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::info;

use super::Hub;
use super::connection::{Connection, Dismissal};
use crate::id::ConnectionId;

/// Connections that are of an epoch that has ended, and have not been asked to go yet.
#[derive(Debug, Default)]
pub(super) struct Renewed {
    connections: Mutex<BTreeMap<ConnectionId, Arc<Connection>>>,
    added: Notify,
}

impl Renewed {
    pub(super) fn add(&self, connections: Vec<Arc<Connection>>) {
        let by_id = connections.into_iter().map(|connection| (connection.id, connection));
        self.connections.lock().extend(by_id);
        self.added.notify_one();
    }

    /// Waits for some, and takes them all. Cancel safe.
    async fn take(&self) -> Vec<Arc<Connection>> {
        loop {
            let connections = std::mem::take(&mut *self.connections.lock());
            if !connections.is_empty() {
                return connections.into_values().collect();
            }
            self.added.notified().await;
        }
    }
}

impl Hub {
    /// Tells every connection to come back later, spread evenly over `spread`.
    pub async fn dismiss_all(&self, spread: Duration) {
        let duels: Vec<_> = self.duels.read().values().cloned().collect();
        let mut connections: Vec<_> =
            duels.iter().flat_map(|duel| duel.all_connections()).collect();
        // By age, not by duel: the two players of a duel do not go in the same instant.
        connections.sort_by_key(|connection| connection.id);
        dismiss_evenly(&connections, spread).await;
    }

    pub(super) async fn run_renewals(&self) {
        loop {
            let connections = self.renewed.take().await;
            let count = connections.len();
            info!(connections = count, "duels have new epochs; their connections are sent away");
            dismiss_evenly(&connections, self.config.drain).await;
        }
    }
}

async fn dismiss_evenly(connections: &[Arc<Connection>], spread: Duration) {
    let started = Instant::now();
    let pause = spread.checked_div(u32::try_from(connections.len()).unwrap_or(u32::MAX));
    for (connection, nth) in connections.iter().zip(0..) {
        tokio::time::sleep_until(started + pause.unwrap_or_default() * nth).await;
        connection.dismiss(Dismissal::Restart);
    }
}
