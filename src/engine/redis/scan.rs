//! All duels: listed, looked at together, counted and forgotten.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use redis::Cmd;
use tokio::sync::oneshot;

use super::heads::HEADS_AT_ONCE;
use super::keys::BUCKETS;
use super::reply::{self, Parts, understood};
use super::script::{self, Args as _, millis};
use super::{Counts, RedisEngine};
use crate::clock::{self, UnixMs};
use crate::engine::{EngineError, Head, StatusFilter};
use crate::id::DuelId;
use crate::limits;

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
            asked.push(self.commands.reply_to(command));
        }
        let (mut ids, mut known_up_to) = (Vec::new(), u64::MAX);
        for answer in asked {
            let some = Parts::of(answer.await?).and_then(|parts| parts.each(reply::number));
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
        let (mut heads, mut failed) = (Vec::with_capacity(duels.len()), Ok(()));
        // One step after the other, so that pushes pass between them; of a Cluster only some masters may be away.
        for some in self.commands.groups(&duels, HEADS_AT_ONCE) {
            match self.heads.read(some, idle).await {
                Ok(some) => heads.extend(some),
                Err(error) => failed = Err(error),
            }
        }
        if heads.is_empty() { failed.map(|()| heads) } else { Ok(heads) }
    }

    /// Caches who is online in all duels, unless that is done.
    pub(super) async fn begin_watching(&self) -> Result<(), EngineError> {
        let _one_at_a_time = self.watch_begins.lock().await;
        // Before the channel is subscribed to, and that before anything is read, so that nothing falls between.
        let begins = self.presence.begin_watching();
        self.subscribers.watch().await?;
        if !begins {
            return Ok(());
        }
        let mut after = 0;
        loop {
            let ids = self.ids_after(after, limits::LIST_PAGE_MAX).await?;
            let Some(last) = ids.last() else { break };
            after = last.get();
            self.presence.read(&ids).await?;
        }
        if self.presence.finish_beginning() { Ok(()) } else { Err(EngineError::UNAVAILABLE) }
    }

    /// Forgets what has expired. Asked at once.
    pub(super) fn forget(
        &self,
        now: UnixMs,
    ) -> impl Future<Output = Result<(), EngineError>> + Send + use<> {
        let longest = self.config.idle_retention.max(self.config.closed_retention);
        let index_kept = millis(4 * longest + Duration::from_secs(600));
        // By Redis' own clock: a node whose clock is wrong must not make others forget.
        let ahead = millis(now.since(clock::now()));
        let (pruned_tx, pruned_rx) = oneshot::channel();
        let pruning = Arc::new(Mutex::new(Pruning {
            waiting_for: BUCKETS + 1,
            left: Ok((0, 0)),
            pruned_tx: Some(pruned_tx),
        }));
        let ask = |command, of_tickets| {
            let (pruning, counts) = (Arc::clone(&pruning), Arc::clone(&self.counts));
            self.commands.ask(command, move |reply| {
                let left = reply.value.and_then(|value| understood(reply::number(value)));
                pruning.lock().count(left, of_tickets, &counts);
            })
        };
        let of_bucket = |bucket| script::call(&script::PRUNE, &self.keys.index(bucket));
        let with_bounds = |command: Cmd| command.with(ahead).with(PRUNE_AT_ONCE).with(index_kept);
        let asked = (0..BUCKETS).try_for_each(|bucket| ask(with_bounds(of_bucket(bucket)), false));
        let tickets = self.tickets(&script::FORGET_TICKETS).with(ahead);
        let asked = asked.and_then(|()| ask(tickets, true));
        async move {
            asked?;
            pruned_rx.await.unwrap_or(Err(EngineError::IN_DOUBT))
        }
    }
}

/// What is left of duels and tickets, as far as has been answered: of a Cluster in any order. Counted as it is answered, so that
/// duels that are created later are added to it.
struct Pruning {
    waiting_for: u64,
    left: Result<(u64, u64), EngineError>,
    pruned_tx: Option<oneshot::Sender<Result<(), EngineError>>>,
}

impl Pruning {
    fn count(&mut self, left: Result<u64, EngineError>, of_tickets: bool, counts: &Counts) {
        self.waiting_for -= 1;
        self.left = self.left.and_then(|(duels, tickets)| match of_tickets {
            false => Ok((duels + left?, tickets)),
            true => Ok((duels, left?)),
        });
        if self.waiting_for == 0
            && let Some(pruned_tx) = self.pruned_tx.take()
        {
            let _gone = pruned_tx.send(self.left.map(|(duels, tickets)| {
                counts.duels.store(usize::try_from(duels).unwrap_or(usize::MAX), Ordering::Relaxed);
                counts.remember_tickets(tickets);
            }));
        }
    }
}
