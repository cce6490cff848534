//! A node's lease: renewed while it lives; when it has ended, whoever notices takes the node's users out of its duels.
//!
//! A node whose own lease had ended, as after a pause, says again who is online on it, and judges nobody: Redis itself may have
//! been away.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::answer::{self, Parts};
use super::message;
use super::roster::{NODE_KEPT, Rosters, answered, millis, understood};
use super::script::{self, Args as _, EXPEL, HEARTBEAT};
use crate::engine::{EngineError, OfflineReason};
use crate::id::DuelId;
use crate::limits;

/// Duels of a node that is no more, looked after at a time.
const EXPEL_BATCH: usize = 64;

/// This node's lease, and those that have ended.
#[derive(Debug)]
pub(super) struct Leases {
    rosters: Arc<Rosters>,
    ended: Mutex<BTreeSet<String>>,
    changed: Notify,
}

impl Leases {
    pub(super) fn new(rosters: Arc<Rosters>) -> Arc<Self> {
        Arc::new(Self { rosters, ended: Mutex::default(), changed: Notify::new() })
    }

    /// Renews the lease. Ends only by being dropped.
    pub(super) async fn run(self: Arc<Self>) {
        let mut ticks = interval(limits::NODE_LEASE / 5);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Ok((lapsed, ended)) = self.renew(limits::NODE_LEASE).await else { continue };
            self.rosters.say_unsaid();
            if lapsed {
                warn!("this node's lease had ended; it says again who is online on it");
                self.rosters.again.notify_one();
            }
            if !ended.is_empty() {
                self.ended.lock().extend(ended);
                self.changed.notify_one();
            }
        }
    }

    /// Renews the lease: whether it had ended, and which others have.
    async fn renew(&self, lease: Duration) -> Result<(bool, Vec<String>), EngineError> {
        let (links, keys) = (&self.rosters.links, &self.rosters.keys);
        let command = script::call(&HEARTBEAT, &[keys.nodes()]).with(&keys.node);
        let own = keys.duels_of_node(&keys.node);
        links.ask(redis::cmd("PEXPIRE").with(own).with(millis(NODE_KEPT)), |_| {});
        let value = answered(links, command.with(millis(lease))).await?;
        let read = || {
            let mut parts = Parts::of(value)?;
            Ok((parts.number()? == 1, parts.parts()?.each(answer::text)?))
        };
        understood(read())
    }

    /// Shortens the lease, so that who does not come back elsewhere is soon offline.
    pub(super) async fn end(&self) {
        let _unreachable = self.renew(limits::NODE_LEASE / 3).await;
    }

    /// Takes out the users of nodes that are no more. Ends only by being dropped.
    pub(super) async fn run_expulsions(self: Arc<Self>) {
        loop {
            self.changed.notified().await;
            while let Some(node) = { self.ended.lock().pop_first() } {
                if let Err(error) = self.expel(&node).await {
                    warn!(%error, node, "the users of a node that is no more were not all taken out");
                }
            }
        }
    }

    /// Takes the users of a node out of its duels, some at a time. Several nodes may do so at once.
    async fn expel(&self, node: &str) -> Result<(), EngineError> {
        let (links, keys) = (&self.rosters.links, &self.rosters.keys);
        let key = keys.duels_of_node(node);
        let mut count = 0;
        loop {
            let some = redis::cmd("SRANDMEMBER").with(&key).with(EXPEL_BATCH);
            let some = answered(links, some).await?;
            let ids = understood(Parts::of(some).and_then(|parts| parts.each(answer::number)))?;
            if ids.is_empty() {
                break;
            }
            let mut asked = Vec::with_capacity(ids.len());
            for id in &ids {
                let Ok(duel) = DuelId::try_from(*id) else { continue };
                let reason = message::show_reason(OfflineReason::Lost);
                // In its own name, so that this node hears of it as the others do.
                let command = self.rosters.script_as(node, &EXPEL, duel).with(node).with(reason);
                asked.push(answered(links, command));
            }
            for answer in asked {
                answer.await?;
            }
            count += ids.len();
            answered(links, redis::cmd("SREM").with(&key).with(ids)).await?;
        }
        answered(links, redis::cmd("ZREM").with(keys.nodes()).with(node)).await?;
        info!(node, duels = count, "a node is no more; its users were taken out");
        Ok(())
    }
}
