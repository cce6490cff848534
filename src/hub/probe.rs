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
use crate::engine::Obstacle;
use crate::event::{EventType, Payload, Push, Role, Viewer};
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
    /// Why the last probe failed, if the engine knows.
    obstacle: Option<Obstacle>,
    stopping: bool,
}

impl Readiness {
    /// Returns how long the last probe took. Returns `None` if none succeeded of late, or the node is stopping.
    #[must_use]
    pub fn ready(&self) -> Option<Duration> {
        let state = self.state.lock();
        let (at, took) = state.last_success?;
        let fresh = at.elapsed() <= limits::PROBE_INTERVAL + limits::PROBE_TIMEOUT;
        (fresh && state.obstacle.is_none() && !state.stopping).then_some(took)
    }

    /// Returns why the engine cannot be relied on, if it says so.
    #[must_use]
    pub fn obstacle(&self) -> Option<Obstacle> {
        self.state.lock().obstacle
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
        let mut state = self.state.lock();
        (state.last_success, state.obstacle) = (Some((Instant::now(), took)), None);
        drop(state);
        self.succeeded.notify_waiters();
    }

    fn fail(&self, obstacle: Option<Obstacle>) {
        self.state.lock().obstacle = obstacle;
    }
}

impl Hub {
    pub(super) async fn run_probe(self: &Arc<Self>) {
        let mut ticks = tokio::time::interval(limits::PROBE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut attachment = None;
        // Whether the last one failed, and which reason the engine gave for that.
        let mut failing = None;
        loop {
            ticks.tick().await;
            let probe = tokio::time::timeout(limits::PROBE_TIMEOUT, self.probe(&mut attachment));
            let probed = match probe.await {
                Ok(probed) => probed.map_err(|error| error.to_string()),
                Err(_) => Err("no delivery in time".to_owned()),
            };
            // The engine may know the reason, or what no probe can see.
            let obstacle = self.engine.obstacle();
            let probed = obstacle.map_or(probed, |obstacle| Err(obstacle.to_string()));
            match &probed {
                Ok(took) => self.readiness.succeed(*took),
                Err(_) => self.readiness.fail(obstacle),
            }
            match (&probed, failing) {
                (Err(error), None) => warn!(error, "not ready: the probe failed"),
                // The reason is known later than the failure.
                (Err(error), Some(known)) if obstacle.is_some() && known != obstacle => {
                    warn!(error, "not ready");
                }
                (Ok(_), Some(_)) => info!("ready again"),
                _ => {}
            }
            failing = probed.is_err().then_some(obstacle);
            if failing.is_some() {
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
        let payload = Payload::parse(DuelId::PROBE, "{}", limits::PUSH_BYTES_MAX)?;
        let push = Push { transient: true, ..Push::new(EventType::duel_update(), payload) };
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
