//! The repair sweep: whatever a connection should have and has not, it gets at the sweep at the latest.
//!
//! Compares the positions of this node's live duels with the engine's, in batches. The same rhythm drives the engine's
//! pruning.

use std::sync::Arc;

use tokio::time::MissedTickBehavior;
use tracing::warn;

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
        loop {
            ticks.tick().await;
            let swept = self.sweep_all().await;
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

    async fn sweep_live(&self) -> Result<(), EngineError> {
        let live: Vec<_> = self.duels.read().values().cloned().collect();
        for batch in live.chunks(BATCH) {
            self.sweep(batch).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn sweep(&self, batch: &[Arc<LiveDuel>]) -> Result<(), EngineError> {
        let heads = self.engine.heads(batch.iter().map(|live| live.id).collect()).await?;
        heads.into_iter().for_each(|(duel, head)| self.note(duel, head.position));
        batch.iter().for_each(|live| live.resume_reads());
        Ok(())
    }
}
