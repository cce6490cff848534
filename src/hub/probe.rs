//! The readiness probe: the node attaches to a duel of its own, pushes to it, and waits for the delivery.
//!
//! So readiness means that events pass from a push through the engine to a connection, not merely that a port is open.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{info, warn};

use super::Hub;
use super::attachment::Attachment;
use crate::event::{Audience, EventType, Payload, Push, Role, Viewer};
use crate::id::{DuelId, UserId};
use crate::limits;

/// Whether the node is ready.
#[derive(Debug, Default)]
pub struct Readiness {
    state: Mutex<ProbeState>,
    succeeded: Notify,
}

#[derive(Debug, Default)]
struct ProbeState {
    /// When the last probe succeeded, and how long it took.
    last_success: Option<(Instant, Duration)>,
    stopping: bool,
}

impl Readiness {
    /// Returns how long the last probe took. Returns `None` if none succeeded of late, or the node is stopping.
    #[must_use]
    pub fn ready(&self) -> Option<Duration> {
        let state = self.state.lock();
        let (at, took) = state.last_success?;
        let fresh = at.elapsed() <= limits::PROBE_INTERVAL + limits::PROBE_TIMEOUT;
        (fresh && !state.stopping).then_some(took)
    }

    /// Waits until the node is ready. Cancel safe.
    pub async fn until_ready(&self) {
        loop {
            // Before the check, so that no success falls between the two.
            let succeeded = self.succeeded.notified();
            if self.ready().is_some() {
                return;
            }
            succeeded.await;
        }
    }

    /// Marks the node as stopping. It is not ready from now on.
    pub fn stop(&self) {
        self.state.lock().stopping = true;
    }

    /// Returns whether the node is stopping.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.state.lock().stopping
    }

    fn succeed(&self, took: Duration) {
        self.state.lock().last_success = Some((Instant::now(), took));
        self.succeeded.notify_waiters();
    }
}

impl Hub {
    pub(super) async fn run_probe(self: &Arc<Self>) {
        let mut ticks = tokio::time::interval(limits::PROBE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut attachment = None;
        let mut failing = false;
        loop {
            ticks.tick().await;
            let probe = tokio::time::timeout(limits::PROBE_TIMEOUT, self.probe(&mut attachment));
            let failure = match probe.await {
                Ok(Ok(took)) => {
                    self.readiness.succeed(took);
                    None
                }
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("no delivery in time".to_owned()),
            };
            match (&failure, failing) {
                (Some(error), false) => {
                    warn!(error, "not ready: the probe failed")
                }
                (None, true) => info!("ready again"),
                _ => {}
            }
            failing = failure.is_some();
            if failing {
                // The next attempt starts with a new one, in case the old one is at fault.
                attachment = None;
            }
        }
    }

    async fn probe(self: &Arc<Self>, slot: &mut Option<Attachment>) -> anyhow::Result<Duration> {
        if slot.is_none() {
            let viewer = Viewer { user: UserId::PROBE, role: Role::Spectator };
            *slot = Some(self.attach_probe(viewer).await?);
        }
        let Some(attachment) = slot else { return Ok(Duration::ZERO) };
        let push = Push {
            event_type: EventType::duel_update(),
            payload: Payload::parse(DuelId::PROBE, "{}", limits::PUSH_BYTES_MAX)?,
            audience: Audience::All,
            views: Box::default(),
            coalesce_key: None,
            transient: true,
        };
        let started = Instant::now();
        let pushed = self.push(DuelId::PROBE, push, None).await?;
        while attachment.served_seq() < pushed.position.seq {
            if attachment.next().await?.is_empty() {
                attachment.woken().await;
            }
        }
        Ok(started.elapsed())
    }
}
