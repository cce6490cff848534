//! The node proves its own path: it follows a duel of its own, pushes to it, and waits for the delivery.
//!
//! So readiness says that events pass from push through the engine to a connection, and not merely that a port is open.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{info, warn};

use super::Hub;
use super::attach::Attachment;
use crate::event::{Audience, EventType, Payload, Push, Role, Viewer};
use crate::id::{DuelId, UserId};
use crate::limits;

/// Whether the path works.
#[derive(Debug, Default)]
pub struct Readiness {
    state: Mutex<State>,
    proof: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// When the last delivery arrived, and how long it took.
    proved: Option<(Instant, Duration)>,
    stopping: bool,
}

impl Readiness {
    /// How long the last proof took, if it is fresh and the node is not stopping.
    #[must_use]
    pub fn ready(&self) -> Option<Duration> {
        let state = self.state.lock();
        let (at, took) = state.proved?;
        let fresh = at.elapsed() <= limits::PROBE_INTERVAL + limits::PROBE_TIMEOUT;
        (fresh && !state.stopping).then_some(took)
    }

    /// Waits until it is. Cancel safe.
    pub async fn until_ready(&self) {
        loop {
            // Before the look, so that no proof falls between the two.
            let proof = self.proof.notified();
            if self.ready().is_some() {
                return;
            }
            proof.await;
        }
    }

    /// From now on the node is not ready.
    pub fn stop(&self) {
        self.state.lock().stopping = true;
    }

    /// Whether the node is stopping.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.state.lock().stopping
    }

    fn prove(&self, took: Duration) {
        self.state.lock().proved = Some((Instant::now(), took));
        self.proof.notify_waiters();
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
            let proof = tokio::time::timeout(limits::PROBE_TIMEOUT, self.probe(&mut attachment));
            let failure = match proof.await {
                Ok(Ok(took)) => {
                    self.readiness.prove(took);
                    None
                }
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("no delivery in time".to_owned()),
            };
            match (&failure, failing) {
                (Some(error), false) => {
                    warn!(error, "not ready: the path from push to delivery fails")
                }
                (None, true) => info!("ready again"),
                _ => {}
            }
            failing = failure.is_some();
            if failing {
                // Whatever is wrong with it, the next attempt starts with a new one.
                attachment = None;
            }
        }
    }

    async fn probe(self: &Arc<Self>, slot: &mut Option<Attachment>) -> anyhow::Result<Duration> {
        if slot.is_none() {
            let viewer = Viewer { user: UserId::PROBE, role: Role::Spectator };
            let (attachment, _) = self.enter(DuelId::PROBE, viewer, None, None).await?;
            *slot = Some(attachment);
        }
        let Some(attachment) = slot else { return Ok(Duration::ZERO) };
        let push = Push {
            event_type: EventType::duel_update(),
            payload: Payload::parse(DuelId::PROBE, "{}", limits::PUSH_BYTES_MAX)?,
            audience: Audience::All,
            views: Box::default(),
            coalesce_key: None,
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
