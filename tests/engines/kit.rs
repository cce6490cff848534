//! What the rules share: an engine whose notices are collected, and short words for what is said to it.

use std::ops::{Deref, RangeInclusive};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use duelhub::clock::UnixMs;
use duelhub::config::EngineConfig;
use duelhub::engine::{
    Appended, Engine, EngineCounts, EngineError, Head, Notice, Page, stored_size,
};
use duelhub::event::{Content, Epoch, Event, EventType, Position, Push, Viewer};
pub(crate) use duelhub_testkit::fixtures::{
    id_of, payload, player, resume_ticket, spectator, ticket_for, update, user, users,
};
use parking_lot::Mutex;

use crate::store::{Kind, Store};

/// The duel of most rules.
pub(crate) const DUEL: u64 = 77;

/// An engine, and everything that it has told its sink.
///
/// Over several nodes every call is another node's turn, so that nothing of a rule can rest on what one node remembers. Calls
/// keep their order on one node, and over several only once they are answered: a rule that does not wait for an answer
/// makes its next call on the same node, by [`Subject::pinned`].
pub(crate) struct Subject {
    nodes: Vec<Arc<dyn Engine>>,
    /// Calls so far.
    calls: AtomicUsize,
    notices: Arc<Mutex<Vec<Notice>>>,
    store: Store,
}

impl Deref for Subject {
    type Target = dyn Engine;

    fn deref(&self) -> &Self::Target {
        &*self.nodes[self.calls.fetch_add(1, Ordering::Relaxed) % self.nodes.len()]
    }
}

impl From<Kind> for Subject {
    fn from(kind: Kind) -> Self {
        Self::new(kind)
    }
}

/// Room for whatever a rule does that is not about room; both retentions are 100 seconds.
pub(crate) fn roomy() -> EngineConfig {
    EngineConfig {
        duels_max: 1000,
        log_events_max: 2000,
        log_bytes_max: 16 * 1024 * 1024,
        resume_ttl: Duration::from_secs(3600),
        tickets_max: 1000,
        closed_retention: Duration::from_secs(100),
        idle_retention: Duration::from_secs(100),
    }
}

impl Subject {
    /// An empty engine with room for everything.
    pub(crate) fn new(kind: Kind) -> Self {
        Self::with(kind, roomy())
    }

    /// An empty engine.
    pub(crate) fn with(kind: Kind, config: EngineConfig) -> Self {
        Self::on(Store::new(kind, config))
    }

    fn on(store: Store) -> Self {
        let nodes: Vec<_> = (0..store.kind.nodes()).map(|node| store.open(node)).collect();
        let notices = Arc::new(Mutex::new(Vec::new()));
        for node in &nodes {
            let told = Arc::clone(&notices);
            node.connect(Box::new(move |notice| {
                told.lock().push(notice);
                0
            }));
        }
        Self { nodes, calls: AtomicUsize::new(0), notices, store }
    }

    /// Stops the engine in good order and starts it again; it has told nothing yet.
    pub(crate) async fn restarted(self) -> Self {
        for (engine, node) in self.nodes.into_iter().zip(0..) {
            self.store.stop(node, engine).await;
        }
        Self::on(self.store)
    }

    /// Kills the engine and starts it again; it has told nothing yet.
    pub(crate) async fn killed(self) -> Self {
        for (engine, node) in self.nodes.into_iter().zip(0..) {
            self.store.kill(node, engine).await;
        }
        Self::on(self.store)
    }

    /// The first node, whose turn it always is here.
    pub(crate) fn pinned(&self) -> &dyn Engine {
        &*self.nodes[0]
    }

    /// The same for tasks of a rule that do several things at a time.
    pub(crate) fn engine(&self) -> Arc<dyn Engine> {
        Arc::clone(&self.nodes[0])
    }

    /// Prunes each node: each does in its own time, and learns by it how much there is.
    pub(crate) async fn prune(&self, now: UnixMs) -> Result<(), EngineError> {
        for node in &self.nodes {
            node.prune(now).await?;
        }
        Ok(())
    }

    /// As far as the one knows that knows of most; what each counts by itself, together.
    pub(crate) fn counts(&self) -> EngineCounts {
        let counts = self.nodes.iter().map(|node| node.counts());
        counts
            .reduce(|one, other| EngineCounts {
                duels: one.duels.max(other.duels),
                remembered_tickets: one.remembered_tickets.max(other.remembered_tickets),
                sessions_crowded_out: one.sessions_crowded_out + other.sessions_crowded_out,
            })
            .expect("there is a node")
    }

    /// Everything told so far.
    pub(crate) fn told(&self) -> Vec<Notice> {
        self.notices.lock().clone()
    }

    /// What `pick` finds in what was told so far.
    pub(crate) fn told_of<T>(&self, pick: impl Fn(Notice) -> Option<T>) -> Vec<T> {
        self.told().into_iter().filter_map(pick).collect()
    }

    /// The events of `duel` told so far.
    pub(crate) fn told_events(&self, duel: u64) -> Vec<(Epoch, Arc<Event>)> {
        self.told_of(|notice| {
            let Notice::Appended { duel: id, epoch, event, .. } = notice else { return None };
            (id == id_of(duel)).then_some((epoch, event))
        })
    }

    /// How often `duel` was told to have come into being, and where it stood.
    pub(crate) fn told_opened(&self, duel: u64) -> Vec<Position> {
        self.told_of(|notice| {
            let Notice::Opened { duel: id, position } = notice else { return None };
            (id == id_of(duel)).then_some(position)
        })
    }

    /// Pushes the `nth` update to `duel`, which must succeed.
    pub(crate) async fn push(&self, duel: u64, nth: u64) -> Position {
        self.pushed(duel, update(duel, nth)).await.position
    }

    /// Pushes to `duel`, which must succeed and be news.
    pub(crate) async fn pushed(&self, duel: u64, push: Push) -> Appended {
        let appended = self.append(id_of(duel), push, None).await.unwrap();
        assert!(appended.event.is_some(), "without a key nothing is a duplicate");
        appended
    }

    /// Pushes these updates to `duel`, one after the other.
    pub(crate) async fn push_all(&self, duel: u64, nths: RangeInclusive<u64>) {
        for nth in nths {
            self.push(duel, nth).await;
        }
    }

    /// Where `duel` stands; it must be there.
    pub(crate) async fn head(&self, duel: u64) -> Head {
        self.get(id_of(duel)).await.unwrap().expect("the duel is there").head
    }

    /// Whether `duel` is there, asked in a way that is no sign of life.
    pub(crate) async fn has(&self, duel: u64) -> bool {
        self.get(id_of(duel)).await.unwrap().is_some()
    }

    /// The seqs of the events after `after`, or `None` if the log does not reach back that far.
    pub(crate) async fn seqs(&self, duel: u64, after: Position, count: usize) -> Option<Vec<u64>> {
        match self.read(id_of(duel), after, count).await.unwrap() {
            Page::Events(events) => Some(events.iter().map(|event| event.seq).collect()),
            Page::Gone | Page::Ended => None,
        }
    }

    /// Everything that the log of `duel` holds.
    pub(crate) async fn log(&self, duel: u64) -> Vec<Arc<Event>> {
        let head = self.head(duel).await;
        let before = Position { seq: head.oldest_seq.saturating_sub(1), ..head.position };
        match self.read(id_of(duel), before, usize::MAX).await.unwrap() {
            Page::Events(events) => events,
            Page::Gone | Page::Ended => {
                panic!("the head says that the log reaches back to {before}")
            }
        }
    }

    /// The seqs of the latest events for `viewer`, up to the head.
    pub(crate) async fn latest_seqs(&self, viewer: Viewer) -> Vec<u64> {
        let up_to = self.head(DUEL).await.position;
        self.latest_up_to(viewer, up_to).await
    }

    /// The seqs of the latest events for `viewer`, up to `up_to`.
    pub(crate) async fn latest_up_to(&self, viewer: Viewer, up_to: Position) -> Vec<u64> {
        let events = self.latest(id_of(DUEL), viewer, up_to).await.unwrap();
        events.into_iter().flatten().map(|event| event.seq).collect()
    }
}

/// What a push counts in a log, in every engine.
pub(crate) fn size_of(push: Push) -> usize {
    stored_size(&Content::Pushed(push))
}

/// The `nth` event in [`DUEL`], of another type.
pub(crate) fn typed(event_type: &str, nth: u64) -> Push {
    Push { event_type: EventType::parse(event_type).unwrap(), ..update(DUEL, nth) }
}

/// What was pushed, unless it is the end of the duel.
pub(crate) fn pushes(events: &[Arc<Event>]) -> Vec<Push> {
    let push = |event: &Arc<Event>| match &event.content {
        Content::Pushed(push) => Some(push.clone()),
        Content::Closed(_) => None,
    };
    events.iter().filter_map(push).collect()
}
