//! What the rules share: an engine whose notices are collected, and short words for what is said to it.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use duelhub::config::EngineConfig;
use duelhub::engine::{Appended, Engine, Head, Latest, Notice, Page};
use duelhub::event::{
    Audience, Content, Epoch, Event, EventType, Payload, Position, Push, Role, Viewer,
};
use duelhub::id::{DuelId, UserId};
use duelhub::limits;
use parking_lot::Mutex;

use crate::nodes::Nodes;
use crate::store::{Kind, Store};

/// The duel of most rules.
pub(crate) const DUEL: u64 = 77;

/// An engine, and everything that it has told its sink.
pub(crate) struct Subject {
    engine: Arc<dyn Engine>,
    /// Of which `engine` is made, or it alone.
    nodes: Vec<Arc<dyn Engine>>,
    notices: Arc<Mutex<Vec<Notice>>>,
    store: Store,
}

impl Deref for Subject {
    type Target = dyn Engine;

    fn deref(&self) -> &Self::Target {
        &*self.engine
    }
}

/// Room for whatever a rule does that is not about room; both retentions are 100 seconds.
pub(crate) fn roomy() -> EngineConfig {
    EngineConfig {
        duels_max: 1000,
        log_events_max: 2000,
        log_bytes_max: 16 * 1024 * 1024,
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
        let engine: Arc<dyn Engine> = match &nodes[..] {
            [engine] => Arc::clone(engine),
            nodes => Arc::new(Nodes::new(nodes.to_vec())),
        };
        let notices = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&notices);
        engine.connect(Box::new(move |notice| {
            told.lock().push(notice);
            0
        }));
        Self { engine, nodes, notices, store }
    }

    /// Stops the engine in good order and starts it again; it has told nothing yet.
    pub(crate) async fn restarted(self) -> Self {
        drop(self.engine);
        for (engine, node) in self.nodes.into_iter().zip(0..) {
            self.store.stop(node, engine).await;
        }
        Self::on(self.store)
    }

    /// Kills the engine and starts it again; it has told nothing yet.
    pub(crate) async fn killed(self) -> Self {
        drop(self.engine);
        for (engine, node) in self.nodes.into_iter().zip(0..) {
            self.store.kill(node, engine).await;
        }
        Self::on(self.store)
    }

    /// For tasks of a rule that do several things at a time.
    pub(crate) fn engine(&self) -> Arc<dyn Engine> {
        Arc::clone(&self.engine)
    }

    /// Everything told so far.
    pub(crate) fn told(&self) -> Vec<Notice> {
        self.notices.lock().clone()
    }

    /// The events of `duel` told so far.
    pub(crate) fn told_events(&self, duel: u64) -> Vec<(Epoch, Arc<Event>)> {
        let of_duel = |notice| match notice {
            Notice::Appended { duel: id, epoch, event, .. } if id == id_of(duel) => {
                Some((epoch, event))
            }
            Notice::Appended { .. }
            | Notice::Opened { .. }
            | Notice::Signal(_)
            | Notice::Introduced { .. }
            | Notice::Head { .. }
            | Notice::Interrupted => None,
        };
        self.told().into_iter().filter_map(of_duel).collect()
    }

    /// How often `duel` was told to have come into being, and where it stood.
    pub(crate) fn told_opened(&self, duel: u64) -> Vec<Position> {
        let of_duel = |notice| match notice {
            Notice::Opened { duel: id, position } if id == id_of(duel) => Some(position),
            Notice::Opened { .. }
            | Notice::Appended { .. }
            | Notice::Signal(_)
            | Notice::Introduced { .. }
            | Notice::Head { .. }
            | Notice::Interrupted => None,
        };
        self.told().into_iter().filter_map(of_duel).collect()
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
            Page::Gone => None,
        }
    }

    /// Everything that the log of `duel` holds.
    pub(crate) async fn log(&self, duel: u64) -> Vec<Arc<Event>> {
        let head = self.head(duel).await;
        let before = Position { seq: head.oldest_seq.saturating_sub(1), ..head.position };
        match self.read(id_of(duel), before, usize::MAX).await.unwrap() {
            Page::Events(events) => events,
            Page::Gone => panic!("the head says that the log reaches back to {before}"),
        }
    }

    /// The seqs of the latest events for `viewer`, up to the head.
    pub(crate) async fn latest_seqs(&self, viewer: Viewer, which: Latest) -> Vec<u64> {
        let up_to = self.head(DUEL).await.position;
        self.latest_up_to(viewer, up_to, which).await
    }

    /// The seqs of the latest events for `viewer`, up to `up_to`.
    pub(crate) async fn latest_up_to(
        &self,
        viewer: Viewer,
        up_to: Position,
        which: Latest,
    ) -> Vec<u64> {
        let events = self.latest(id_of(DUEL), viewer, up_to, which).await.unwrap();
        events.into_iter().flatten().map(|event| event.seq).collect()
    }
}

/// A duel's id.
pub(crate) fn id_of(duel: u64) -> DuelId {
    DuelId::try_from(duel).unwrap()
}

/// A user's id.
pub(crate) fn user(user: u64) -> UserId {
    UserId::try_from(user).unwrap()
}

/// Users' ids.
pub(crate) fn users(ids: &[u64]) -> Box<[UserId]> {
    ids.iter().map(|id| user(*id)).collect()
}

/// A user who takes part.
pub(crate) fn player(id: u64) -> Viewer {
    Viewer { user: user(id), role: Role::Player }
}

/// A user who looks on.
pub(crate) fn spectator(id: u64) -> Viewer {
    Viewer { user: user(id), role: Role::Spectator }
}

/// A payload that says `json`.
pub(crate) fn payload(duel: u64, json: &str) -> Payload {
    Payload::parse(id_of(duel), json, limits::PUSH_BYTES_MAX).unwrap()
}

/// The `nth` `duel_update`, for everybody, of one size whatever `nth` up to 9999.
pub(crate) fn update(duel: u64, nth: u64) -> Push {
    Push {
        event_type: EventType::duel_update(),
        payload: payload(duel, &format!(r#"{{"nth":"{nth:04}"}}"#)),
        audience: Audience::All,
        views: Box::default(),
        coalesce_key: None,
    }
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
