//! Subscriptions: while connections of one duel attach and detach at once, whoever is attached hears of the next push. The
//! engine under the hub drops what happens in a duel that is not subscribed, as Redis does.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use duelhub::clock::UnixMs;
use duelhub::config::{Config, HubConfig};
use duelhub::engine::{
    AppendError, Appended, Declaration, DuelRecord, Engine, EngineCounts, EngineFuture, Head,
    LogEngine, MemoryEngine, Notice, OpenError, Opened, Page, PresenceEngine, RedeemError,
    Revocation, Signal, Sink, StatusFilter, TicketEngine,
};
use duelhub::event::{EventType, Outcome, Payload, Position, Push, Role, Viewer};
use duelhub::hub::{AttachError, Attachment, Hub, Watch, WatchFilter};
use duelhub::id::{DuelId, TicketKey, UserId};
use duelhub::metrics::Metrics;
use duelhub::ticket::{Revision, Stamp, Ticket, Tickets};
use parking_lot::Mutex;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

const ROUNDS: u64 = 200;

/// Connections that attach, and that are refused, in one round.
const TASKS: u64 = 4;

const PATIENCE: Duration = Duration::from_secs(5);

/// Whether a notice reaches the sink.
#[derive(Debug, Default)]
struct Subscriptions {
    duels: HashSet<DuelId>,
    watched: bool,
}

/// A memory engine that tells only of what is subscribed or watched, and takes its time to unsubscribe.
#[derive(Debug)]
struct Subscribing {
    memory: MemoryEngine,
    subscriptions: Arc<Mutex<Subscriptions>>,
}

/// Lets the other threads run before a call takes effect.
fn slowly() {
    (0..20).for_each(|_| std::thread::yield_now());
}

macro_rules! of_memory {
    ($($name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*) => {
        $(fn $name(&self, $($argument: $type),*) -> $answer { self.memory.$name($($argument),*) })*
    };
}

impl LogEngine for Subscribing {
    fn subscribe(&self, duel: DuelId) -> EngineFuture<'_, ()> {
        self.subscriptions.lock().duels.insert(duel);
        Box::pin(std::future::ready(Ok(())))
    }

    fn unsubscribe(&self, duel: DuelId) {
        slowly();
        self.subscriptions.lock().duels.remove(&duel);
    }

    of_memory! {
        open(duel: DuelId, declaration: Declaration) -> EngineFuture<'_, Opened, OpenError>;
        get_or_create(duel: DuelId) -> EngineFuture<'_, DuelRecord>;
        append(duel: DuelId, push: Push, key: Option<Box<str>>)
            -> EngineFuture<'static, Appended, AppendError>;
        close(duel: DuelId, outcome: Outcome, last: Option<Push>)
            -> EngineFuture<'_, Appended, AppendError>;
        read(duel: DuelId, after: Position, count: usize) -> EngineFuture<'_, Page>;
        latest(duel: DuelId, viewer: Viewer, up_to: Position)
            -> EngineFuture<'_, Option<Vec<Arc<duelhub::event::Event>>>>;
        get(duel: DuelId) -> EngineFuture<'_, Option<DuelRecord>>;
        list(after: Option<DuelId>, status: StatusFilter, count: usize)
            -> EngineFuture<'_, Vec<(DuelId, Head)>>;
        heads(duels: Vec<DuelId>) -> EngineFuture<'_, Vec<(DuelId, Head)>>;
    }
}

impl TicketEngine for Subscribing {
    of_memory! {
        stamp() -> EngineFuture<'_, Stamp>;
        redeem(ticket: &Ticket) -> EngineFuture<'_, Stamp, RedeemError>;
        renew(session: TicketKey, owner: (DuelId, UserId), revision: Revision)
            -> EngineFuture<'_, Option<Stamp>>;
        revoke(revocation: Revocation) -> EngineFuture<'_, ()>;
    }
}

impl PresenceEngine for Subscribing {
    fn watch(&self, on: bool) -> EngineFuture<'_, ()> {
        if !on {
            slowly();
        }
        self.subscriptions.lock().watched = on;
        Box::pin(std::future::ready(Ok(())))
    }

    of_memory! { signal(signal: Signal) -> EngineFuture<'_, ()>; }
}

impl Engine for Subscribing {
    fn connect(&self, sink: Sink) {
        let subscriptions = Arc::clone(&self.subscriptions);
        self.memory.connect(Box::new(move |notice| {
            let subscriptions = subscriptions.lock();
            let wanted = match &notice {
                Notice::Appended { duel, .. } => subscriptions.duels.contains(duel),
                Notice::Opened { .. } => subscriptions.watched,
                Notice::Signal(_)
                | Notice::Introduced { .. }
                | Notice::Interrupted
                | Notice::Head { .. } => true,
            };
            drop(subscriptions);
            if wanted { sink(notice) } else { 0 }
        }));
    }

    of_memory! {
        name() -> &'static str;
        prune(now: UnixMs) -> EngineFuture<'_, ()>;
        counts() -> EngineCounts;
        stop() -> EngineFuture<'_, ()>;
    }
}

/// A hub that does not sweep: what it is not told of, it never hears of.
fn hub() -> (Arc<Hub>, Tickets) {
    let config = Config::read(&|_| None).unwrap();
    let memory = MemoryEngine::new(config.engine);
    let engine = Arc::new(Subscribing { memory, subscriptions: Arc::default() });
    let sync_interval = Duration::from_secs(3600);
    let hub = HubConfig { presence_grace: Duration::ZERO, sync_interval, ..config.hub };
    (Hub::new(engine, hub, Arc::new(Metrics::new())), Tickets::new(&config.tickets))
}

fn push(duel: DuelId) -> Push {
    Push::new(EventType::duel_update(), Payload::parse(duel, "{}", 100).unwrap())
}

async fn attach(hub: Arc<Hub>, ticket: Ticket) -> Result<Attachment, AttachError> {
    Ok(hub.attach(&ticket, None).await?.0)
}

/// In each round, connections detach, others are refused, and others attach, all at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_attached_connection_hears_of_the_next_push() {
    let (hub, tickets) = hub();
    let running = AbortOnDropHandle::new(tokio::spawn(Arc::clone(&hub).run()));
    let duel = DuelId::try_from(77).unwrap();
    let ticket = |user, stamp| {
        let viewer = Viewer { user: UserId::try_from(user).unwrap(), role: Role::Player };
        tickets.issue(duel, viewer, None, stamp).ticket
    };
    let used = ticket(99, hub.ticket_stamp().await.unwrap());
    drop(attach(Arc::clone(&hub), used.clone()).await.unwrap());
    let mut attached = Vec::new();
    for round in 0..ROUNDS {
        let detach = attached.drain(..).map(|a: Attachment| tokio::spawn(async { drop(a) }));
        let detaching: Vec<_> = detach.collect();
        let attempt = |ticket| tokio::spawn(attach(Arc::clone(&hub), ticket));
        let refused: Vec<_> = (0..TASKS).map(|_| attempt(used.clone())).collect();
        // Many keep the duel live; of one, it is a matter of luck.
        let stamp = hub.ticket_stamp().await.unwrap();
        let users = 1..=round % TASKS + 1;
        let coming: Vec<_> = users.map(|user| attempt(ticket(user, stamp))).collect();
        for attempt in coming {
            attached.push(attempt.await.unwrap().unwrap());
        }
        for attempt in refused {
            assert_eq!(attempt.await.unwrap().unwrap_err(), AttachError::AlreadyUsed);
        }
        for detached in detaching {
            detached.await.unwrap();
        }
        let pushed = hub.push(duel, push(duel), None).await.unwrap();
        for attachment in &mut attached {
            let hears = async {
                while attachment.served_seq() < pushed.position.seq {
                    if attachment.next().await.unwrap().is_empty() {
                        attachment.woken().await;
                    }
                }
            };
            timeout(PATIENCE, hears).await.expect("an attached connection hears of the push");
        }
    }
    drop(running);
}

/// In each round, the only watch ends while the next one begins.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_watch_that_has_its_state_hears_of_the_next_duel() {
    let (hub, _) = hub();
    let mut watch: Option<Watch> = None;
    for round in 1..=ROUNDS {
        let ended = tokio::spawn(async { drop(watch) });
        if round % 2 == 0 {
            tokio::task::yield_now().await;
        }
        let mut next = hub.watch(WatchFilter::All).unwrap();
        next.state(None).await.unwrap();
        ended.await.unwrap();
        let duel = DuelId::try_from(round).unwrap();
        let _stored = hub.push(duel, push(duel), None).await.unwrap();
        let change = timeout(PATIENCE, next.next()).await.expect("a watch hears of the duel");
        assert_eq!(change.unwrap().duel, duel);
        watch = Some(next);
    }
}
