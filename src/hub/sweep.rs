//! The repair sweep: whatever a connection should have and has not, it gets at the sweep at the latest.
//!
//! Compares the positions of this node's live duels with the engine's, in batches. The same rhythm drives the engine's
//! pruning.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use super::Hub;
use super::duel::LiveDuel;
use crate::clock;
use crate::engine::EngineError;

/// Duels that are asked about in one call.
const BATCH: usize = 512;

impl Hub {
    pub(super) async fn run_sweeps(self: &Arc<Self>) {
        let mut ticks = tokio::time::interval(self.config.sync_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        let mut repairs = 0;
        loop {
            ticks.tick().await;
            let swept = self.sweep_all().await;
            // One line for all of them: after an engine was away it may be every duel.
            let repairs_before = std::mem::replace(&mut repairs, self.metrics.sweep_repairs.get());
            if repairs > repairs_before {
                let duels = repairs - repairs_before;
                info!(duels, "events that were missed were found");
            }
            if let Err(error) = &swept
                && !failing
            {
                warn!(%error, "the repair sweep or pruning failed; it is tried again, in silence");
            }
            failing = swept.is_err();
        }
    }

    async fn sweep_all(&self) -> Result<(), EngineError> {
        let swept = self.sweep_live().await;
        // Also when that failed: what is pruned may be what is missing.
        self.engine.prune(clock::now()).await.and(swept)
    }

    /// Every batch is tried: of a Cluster only some masters may be away.
    async fn sweep_live(&self) -> Result<(), EngineError> {
        let live: Vec<_> = self.duels.read().values().cloned().collect();
        let mut swept = Ok(());
        for batch in live.chunks(BATCH) {
            swept = swept.and(self.sweep(batch).await);
            tokio::task::yield_now().await;
        }
        swept
    }

    async fn sweep(&self, batch: &[Arc<LiveDuel>]) -> Result<(), EngineError> {
        let heads = self.engine.heads(batch.iter().map(|live| live.id).collect()).await;
        let known = heads.as_deref().unwrap_or_default();
        known.iter().for_each(|(duel, head)| self.note(*duel, head));
        let answered: HashSet<_> = known.iter().map(|(duel, _)| *duel).collect();
        batch.iter().for_each(|live| live.resume_reads(answered.contains(&live.id)));
        heads.map(|_| ())
    }
}
