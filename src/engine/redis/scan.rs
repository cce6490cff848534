//! All duels: listed, looked at together, counted and forgotten.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use redis::Value;
use tokio::sync::oneshot;

use super::dispatcher::Dispatcher;
use super::heads::HEADS_AT_ONCE;
use super::keys::BUCKETS;
use super::reply::{self, Parts, understood};
use super::script::{self, Args as _, millis};
use super::{Counts, RedisEngine};
use crate::clock::{self, UnixMs};
use crate::engine::event_row::Malformed;
use crate::engine::{EngineError, Head, StatusFilter};
use crate::id::DuelId;
use crate::limits;

/// The longest time for which a duel that is subscribed to is not asked about.
const ASKED_EVERY_MAX: Duration = Duration::from_secs(300);

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

    /// Returns those of the duels of which this node was not told everything, or may not have been.
    pub(super) async fn not_told_everything(&self, duels: Vec<DuelId>) -> Vec<DuelId> {
        let failures = self.commands.counts().failures;
        if self.failures_seen.swap(failures, Ordering::Relaxed) != failures {
            // What was asked when the connection failed may have been done; this node skips its own messages.
            self.dispatcher.doubt_all();
        }
        let is_told = self.subscribers.have_told_everything().await;
        let (told, mut in_doubt): (Vec<_>, Vec<_>) =
            duels.into_iter().partition(|duel| is_told(*duel));
        // Each at its own time, and long before an open duel is idle.
        let longest = (self.config.idle_retention / 4).min(ASKED_EVERY_MAX);
        let asked_every = |duel: DuelId| {
            longest * (64 + u32::try_from(duel.get() % 64).unwrap_or_default()) / 128
        };
        in_doubt.extend(self.dispatcher.in_doubt(told, asked_every));
        in_doubt
    }

    /// Forgets what has expired. What there is to forget is asked at once.
    pub(super) fn forget(
        &self,
        now: UnixMs,
    ) -> impl Future<Output = Result<(), EngineError>> + Send + use<> {
        let longest = self.config.idle_retention.max(self.config.closed_retention);
        let index_kept = millis(4 * longest + Duration::from_secs(600));
        // By Redis' own clock: a node whose clock is wrong must not make others forget.
        let ahead = millis(now.since(clock::now()));
        let looked = self.look_for_due(ahead);
        let tickets = self.tickets(&script::FORGET_TICKETS).with(ahead);
        let counts = Arc::clone(&self.counts);
        let (forgotten_tx, forgotten_rx) = oneshot::channel();
        let asked = self.commands.ask(tickets, {
            let counts = Arc::clone(&counts);
            move |reply| {
                let left = reply.value.and_then(|value| understood(reply::number(value)));
                let _gone = forgotten_tx.send(left.map(|left| counts.remember_tickets(left)));
            }
        });
        let (commands, keys) = (Arc::clone(&self.commands), Arc::clone(&self.keys));
        async move {
            for Bucket { bucket, count } in looked.await? {
                let command = script::call(&script::PRUNE, &keys.index(bucket))
                    .with(ahead)
                    .with(PRUNE_AT_ONCE)
                    .with(index_kept);
                let left = understood(reply::number(commands.reply_to(command).await?))?;
                let forgotten = usize::try_from(count.saturating_sub(left)).unwrap_or_default();
                counts.duels.fetch_sub(forgotten, Ordering::Relaxed);
            }
            asked?;
            forgotten_rx.await.unwrap_or(Err(EngineError::IN_DOUBT))
        }
    }

    /// Returns the buckets in which there is something to forget. Asked at once, and how many duels there are is counted as it is
    /// answered, so that those that are created later are added to it.
    fn look_for_due(
        &self,
        ahead: u64,
    ) -> impl Future<Output = Result<Vec<Bucket>, EngineError>> + Send + use<> {
        let groups = self.commands.bucket_groups();
        let (due_tx, due_rx) = oneshot::channel();
        let looking =
            Looking { waiting_for: groups.len(), found: Ok(Vec::new()), due_tx: Some(due_tx) };
        let looking = Arc::new(Mutex::new(looking));
        let asked = groups.into_iter().try_for_each(|group| {
            let first = group.start;
            let keys: Vec<_> = group.flat_map(|bucket| self.keys.index(bucket)).collect();
            let command = script::call(&script::DUE, &keys).with(ahead);
            let looking = Arc::clone(&looking);
            let (counts, dispatcher) = (Arc::clone(&self.counts), Arc::clone(&self.dispatcher));
            self.commands.ask(command, move |reply| {
                let found = reply.value.and_then(|value| understood(found_in(value)));
                looking.lock().take(first, found, &counts, &dispatcher);
            })
        });
        async move {
            asked?;
            due_rx.await.unwrap_or(Err(EngineError::IN_DOUBT))
        }
    }
}

/// So many duels of a bucket, and whether there is something to forget, for each bucket that was asked about.
fn found_in(value: Value) -> Result<Vec<(u64, bool)>, Malformed> {
    let numbers: Vec<u64> = Parts::of(value)?.each(reply::number)?;
    Ok(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1] > 0)).collect())
}

/// A bucket in which there is something to forget, and how many duels it has.
struct Bucket {
    bucket: u64,
    count: u64,
}

/// What the buckets have, as far as has been answered: of a Cluster in any order.
struct Looking {
    waiting_for: usize,
    found: Result<Vec<(u64, u64, bool)>, EngineError>,
    due_tx: Option<oneshot::Sender<Result<Vec<Bucket>, EngineError>>>,
}

impl Looking {
    fn take(
        &mut self,
        first: u64,
        found: Result<Vec<(u64, bool)>, EngineError>,
        counts: &Counts,
        dispatcher: &Dispatcher,
    ) {
        self.waiting_for -= 1;
        match (&mut self.found, found) {
            (Ok(all), Ok(some)) => {
                all.extend((first..).zip(some).map(|(bucket, (count, due))| (bucket, count, due)));
            }
            (all, Err(error)) => *all = Err(error),
            (Err(_), Ok(_)) => {}
        }
        if self.waiting_for > 0 {
            return;
        }
        let found = std::mem::replace(&mut self.found, Ok(Vec::new()));
        let due = found.map(|all| {
            let duels: u64 = all.iter().map(|(_, count, _)| count).sum();
            counts.duels.store(usize::try_from(duels).unwrap_or(usize::MAX), Ordering::Relaxed);
            if lacks_some(&all, dispatcher) {
                // Redis was emptied.
                dispatcher.doubt_all();
            }
            let due = all.into_iter().filter(|(.., due)| *due);
            due.map(|(bucket, count, _)| Bucket { bucket, count }).collect()
        });
        if let Some(due_tx) = self.due_tx.take() {
            let _gone = due_tx.send(due);
        }
    }
}

/// Whether a bucket has fewer duels than were found there before, and not forgotten.
fn lacks_some(all: &[(u64, u64, bool)], dispatcher: &Dispatcher) -> bool {
    let mut lacking: Vec<_> = all.iter().map(|(bucket, count, _)| (*bucket, *count)).collect();
    lacking.sort_unstable();
    let mut lacks = false;
    dispatcher.each_found(|duel| {
        if duel == DuelId::PROBE {
            return; // It is in no index.
        }
        let nth = lacking.binary_search_by_key(&(duel.get() % BUCKETS), |(bucket, _)| *bucket);
        if let Ok(nth) = nth {
            match lacking[nth].1.checked_sub(1) {
                Some(left) => lacking[nth].1 = left,
                None => lacks = true,
            }
        }
    });
    lacks
}
