//! An attached connection, as the task that owns its socket uses it.

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::Hub;
use super::connection::{CloseRequest, Connection, DirectWriter};
use super::duel::LiveDuel;
use super::follow::{Batch, Cursor, ResyncRequired};
use crate::engine::{OfflineReason, Signal, SignalKind};

/// A connection's place in its duel's list. Dropping it takes the connection out.
#[derive(Debug)]
pub(super) struct ListedConnection {
    pub(super) hub: Arc<Hub>,
    pub(super) live: Arc<LiveDuel>,
    pub(super) connection: Arc<Connection>,
    /// Why the connection closes: lost, unless somebody says otherwise.
    offline_reason: OfflineReason,
}

impl ListedConnection {
    pub(super) const fn new(
        hub: Arc<Hub>,
        live: Arc<LiveDuel>,
        connection: Arc<Connection>,
    ) -> Self {
        Self { hub, live, connection, offline_reason: OfflineReason::Lost }
    }
}

impl Drop for ListedConnection {
    fn drop(&mut self) {
        // A direct write under way comes before the close frame, and none after it.
        self.connection.disarm();
        let Connection { id, duel, viewer, .. } = &*self.connection;
        if self.connection.is_attached() {
            self.hub.engine.detach(*duel, viewer.user, *id);
        }
        if self.live.remove(&self.connection, self.offline_reason) {
            self.hub.begin_grace_period(&self.live, &self.connection);
        } else {
            self.hub.retire(&self.live);
        }
    }
}

/// An attached connection. Dropping it detaches the connection.
#[derive(Debug)]
pub struct Attachment {
    listed: ListedConnection,
    cursor: Cursor,
    acked_seq: u64,
}

impl Attachment {
    pub(super) const fn new(listed: ListedConnection, cursor: Cursor) -> Self {
        Self { listed, cursor, acked_seq: 0 }
    }

    /// Returns the connection.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.listed.connection
    }

    /// Waits until [`Attachment::next`] or [`Attachment::close_request`] may have something new. Cancel safe.
    pub async fn woken(&self) {
        self.connection().woken().await;
    }

    /// Returns why the hub wants the connection to close, if it does.
    #[must_use]
    pub fn close_request(&self) -> Option<&CloseRequest> {
        self.connection().close_request()
    }

    /// Waits until the hub wants the connection to close. Cancel safe.
    pub async fn close_requested(&self) -> &CloseRequest {
        // What wakes for another reason is not for whoever waits here.
        let _wakes = WakeOnDrop(self.connection());
        loop {
            if let Some(request) = self.close_request() {
                return request;
            }
            self.woken().await;
        }
    }

    /// Returns when the client should come back if it is closed for a reason that concerns many at once.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        self.listed.hub.any_turn(Duration::ZERO)
    }

    /// Returns the seq up to which the client was served.
    #[must_use]
    pub fn served_seq(&self) -> u64 {
        self.connection().armed_cursor().unwrap_or(self.cursor.position).seq
    }

    /// Returns what lies after the cursor and moves the cursor past it. An empty batch arms the fast path: the connection
    /// has everything, or is woken when the engine is back. Not cancel safe: if it is dropped while it waits for the engine,
    /// the cursor has not moved.
    ///
    /// # Errors
    /// [`ResyncRequired`]: the client would miss something, and has to connect again.
    pub async fn next(&mut self) -> Result<Batch, ResyncRequired> {
        let ListedConnection { hub, live, connection, .. } = &self.listed;
        if let Some(position) = connection.disarm() {
            self.cursor.position = position;
        }
        let batch = self.cursor.next(&*hub.engine, live, connection.viewer).await?;
        if batch.is_empty() {
            connection.arm(self.cursor.position);
        }
        Ok(batch)
    }

    /// Sets how events are written without waking the task, whenever [`Attachment::next`] was last empty.
    pub fn set_direct_writer(&self, writer: Arc<dyn DirectWriter>) {
        self.connection().set_direct_writer(writer);
    }

    /// Records that the client has everything up to `seq`. Ignores a seq that it was not served, or has acked before.
    pub async fn ack(&mut self, seq: u64) {
        if seq <= self.acked_seq || seq > self.served_seq() {
            return;
        }
        self.acked_seq = seq;
        let Connection { duel, viewer, .. } = *self.connection();
        let kind = SignalKind::Acked { user: viewer.user, seq };
        if let Err(error) = self.listed.hub.engine.signal(Signal { duel, kind }).await {
            warn!(duel_id = duel.get(), %error, "an ack could not be passed on");
        }
    }

    /// Sets why the connection closes, for those who watch the duel.
    pub const fn set_offline_reason(&mut self, reason: OfflineReason) {
        self.listed.offline_reason = reason;
    }
}

/// Gives back the wake-ups that somebody took for another one.
struct WakeOnDrop<'a>(&'a Connection);

impl Drop for WakeOnDrop<'_> {
    fn drop(&mut self) {
        self.0.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::super::connection::WriteOutcome;
    use super::*;
    use crate::config::Config;
    use crate::engine::MemoryEngine;
    use crate::event::{Event, Role, Viewer};
    use crate::id::UserId;
    use crate::metrics::Metrics;

    #[derive(Debug)]
    struct NullWriter;

    impl DirectWriter for NullWriter {
        fn try_write(&self, _connection: &Connection, _event: &Event) -> WriteOutcome {
            WriteOutcome::Written
        }
    }

    #[tokio::test]
    async fn nothing_is_written_to_a_detached_connection() {
        let config = Config::read(&|_| None).unwrap();
        let engine = Arc::new(MemoryEngine::new(config.engine));
        let hub = Hub::new(engine, config.hub, Arc::new(Metrics::new()));
        let viewer = Viewer { user: UserId::try_from(1).unwrap(), role: Role::Player };
        let mut attachment = hub.attach_probe(viewer).await.unwrap();
        attachment.set_direct_writer(Arc::new(NullWriter));
        while !attachment.next().await.unwrap().is_empty() {}
        let connection = Arc::clone(&attachment.listed.connection);
        assert!(connection.armed_cursor().is_some());
        drop(attachment);
        assert_eq!(connection.armed_cursor(), None);
    }
}
