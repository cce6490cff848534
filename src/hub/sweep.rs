//! The repair sweep: a connection receives whatever it lacks at the next sweep at the latest.
//!
//! A sweep compares the positions of this node's live duels with the engine's, in batches: of all of which something may have been
//! missed. Then it prunes the engine.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use super::Hub;
use super::duel::LiveDuel;
use crate::clock;
use crate::engine::EngineError;

/// Duels in one call of the engine.
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
            // One line for all duels: after an engine was away, there may be many.
            let repairs_before = std::mem::replace(&mut repairs, self.metrics.sweep_repairs.get());
            if repairs > repairs_before {
                let duels = repairs - repairs_before;
                info!(duels, "the sweep found missed events");
            }
            if let Err(error) = &swept
                && !failing
            {
                warn!(%error, "the sweep failed; retrying silently");
            }
            failing = swept.is_err();
        }
    }

    async fn sweep_all(&self) -> Result<(), EngineError> {
        let swept = self.sweep_live().await;
        // Even if that failed: pruning makes the room that the engine may lack.
        self.engine.prune(clock::now()).await.and(swept)
    }

    /// Tries every batch: only some masters of a Cluster may be away.
    async fn sweep_live(&self) -> Result<(), EngineError> {
        let live: Vec<_> = self.duels.read().values().cloned().collect();
        let in_doubt = self.engine.in_doubt(live.iter().map(|live| live.id).collect()).await?;
        let in_doubt: HashSet<_> = in_doubt.into_iter().collect();
        let (live, sure): (Vec<_>, Vec<_>) =
            live.into_iter().partition(|live| in_doubt.contains(&live.id));
        sure.iter().for_each(|live| live.resume_reads(true));
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
        known.iter().for_each(|(duel, head)| self.observe_head(*duel, head));
        let answered: HashSet<_> = known.iter().map(|(duel, _)| *duel).collect();
        batch.iter().for_each(|live| live.resume_reads(answered.contains(&live.id)));
        heads.map(|_| ())
    }
}
