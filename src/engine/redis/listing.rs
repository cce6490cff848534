//! All duels: listed, looked at together, counted and forgotten.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::answer::{self, Parts};
use super::keys::BUCKETS;
use super::link::Outcome;
use super::roster::{answered, millis, understood};
use super::script::{self, Args as _};
use super::{IN_DOUBT, RedisEngine};
use crate::clock::{self, UnixMs};
use crate::engine::{Answer, EngineError, Head, StatusFilter};
use crate::id::DuelId;
use crate::limits;

/// Duels that are compared in one step.
const HEADS_AT_ONCE: usize = 32;

/// Duels that are forgotten at a time in each bucket.
const PRUNE_AT_ONCE: usize = 64;

impl RedisEngine {
    /// The next ids of each bucket, together: all up to the least of the buckets' last ones.
    async fn ids_after(&self, after: u64, count: usize) -> Result<Vec<DuelId>, EngineError> {
        let each = count / usize::try_from(BUCKETS).unwrap_or(1) * 2 + 8;
        let mut asked = Vec::new();
        for bucket in 0..BUCKETS {
            let [_, by_id] = self.keys.index(bucket);
            let command = redis::cmd("ZRANGEBYSCORE")
                .with(by_id)
                .with(format!("({after}"))
                .with("+inf")
                .with("LIMIT")
                .with(0)
                .with(each);
            asked.push(answered(&self.links, command));
        }
        let (mut ids, mut known_up_to) = (Vec::new(), u64::MAX);
        for answer in asked {
            let some = Parts::of(answer.await?).and_then(|parts| parts.each(answer::number));
            let some = understood(some)?;
            if let (true, Some(last)) = (some.len() == each, some.last()) {
                known_up_to = known_up_to.min(*last);
            }
            ids.extend(some);
        }
        ids.retain(|id| *id <= known_up_to);
        ids.sort_unstable();
        Ok(ids.into_iter().filter_map(|id| DuelId::try_from(id).ok()).collect())
    }

    pub(super) async fn list(
        &self,
        after: Option<DuelId>,
        status: StatusFilter,
        count: usize,
    ) -> Result<Vec<(DuelId, Head)>, EngineError> {
        let mut found = Vec::new();
        let mut after = after.map_or(0, DuelId::get);
        while found.len() < count {
            let ids = self.ids_after(after, count).await?;
            let Some(last) = ids.last() else { break };
            after = last.get();
            for batch in ids.chunks(limits::LIST_PAGE_MAX) {
                let heads = self.standing(batch.to_vec(), Duration::ZERO).await?;
                found.extend(heads.into_iter().filter(|(_, head)| status.admits(head.status)));
            }
        }
        found.truncate(count);
        Ok(found)
    }

    /// Where duels stand, some at a time: Redis does nothing else meanwhile.
    pub(super) async fn standing(
        &self,
        duels: Vec<DuelId>,
        idle: Duration,
    ) -> Result<Vec<(DuelId, Head)>, EngineError> {
        let mut heads = Vec::with_capacity(duels.len());
        // One step after the other, so that pushes pass between them.
        for some in self.links.groups(&duels, HEADS_AT_ONCE) {
            heads.extend(self.some_standing(some, idle).await?);
        }
        Ok(heads)
    }

    fn some_standing(
        &self,
        duels: Vec<DuelId>,
        idle: Duration,
    ) -> Answer<'static, Vec<(DuelId, Head)>> {
        let (answer_tx, answer_rx) = oneshot::channel();
        let teller = Arc::clone(&self.teller);
        self.rosters.heads(duels, idle, move |standings| {
            let heads = standings.map(|standings| {
                let told = standings.into_iter().map(|(duel, head, version)| {
                    teller.head(duel, head.position, version);
                    (duel, head)
                });
                told.collect()
            });
            let _gone = answer_tx.send(heads);
        });
        Box::pin(async move { answer_rx.await.unwrap_or(Err(IN_DOUBT)) })
    }

    pub(super) fn forget(&self, now: UnixMs) -> Answer<'_, ()> {
        let longest = self.config.idle_retention.max(self.config.closed_retention);
        let index_kept = millis(4 * longest + Duration::from_secs(600));
        // By Redis' own clock: a node whose clock is wrong must not make others forget.
        let ahead = millis(now.since(clock::now()));
        let counted = Arc::new(Mutex::new(Ok(0)));
        for bucket in 0..BUCKETS {
            let command = script::call(&script::PRUNE, &self.keys.index(bucket))
                .with(ahead)
                .with(PRUNE_AT_ONCE)
                .with(index_kept);
            let counted = Arc::clone(&counted);
            self.links.ask(command, move |Outcome { value, .. }| {
                let left = value.and_then(|value| understood(answer::number(value)));
                let mut counted = counted.lock();
                *counted = counted.and_then(|sum| Ok(sum + left?));
            });
        }
        let (answer_tx, answer_rx) = oneshot::channel();
        let counts = Arc::clone(&self.counts);
        let tickets = self.tickets(&script::FORGET_TICKETS).with(ahead);
        self.links.ask(tickets, move |Outcome { value, .. }| {
            let left = value.and_then(|value| understood(answer::number(value)));
            // Answers are read in their order, so that all are counted.
            let pruned = (*counted.lock()).and_then(|duels| Ok((duels, left?)));
            let _gone = answer_tx.send(pruned.map(|(duels, tickets)| {
                counts.duels.store(usize::try_from(duels).unwrap_or(usize::MAX), Ordering::Relaxed);
                counts.remember_tickets(tickets);
            }));
        });
        Box::pin(async move { answer_rx.await.unwrap_or(Err(IN_DOUBT)) })
    }
}
