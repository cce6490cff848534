//! The engine of several nodes: Redis stores and orders, each node follows the duels that it has connections in.
//!
//! Every change of a duel is one script, so it happens as a whole, in one order, whichever node asks: a push finds out
//! whether it is a duplicate, gets its number, is stored, and is published to the nodes that follow the duel. What a node has
//! asked for itself it is told with the answer, not when it comes by on the channel ([`teller`]).
//!
//! Redis may lose what it acknowledged: at a failover, at a restart, by a flush. Each script looks at which lineage the
//! server's data is of (its replication id, which is a new one after the first two); a duel that was of another has a new epoch
//! from then on, and so has one that had to be brought into being again. So no position is given out twice, and nobody is
//! told that they recovered what is gone.
//!
//! Bounds: as the other engines', in Redis; `ENGINE_MAX_DUELS` is kept by each node by its own last count. Every key expires by
//! itself should there be no node to forget it.

mod answer;
mod endpoint;
mod feed;
mod feeds;
mod here;
mod keys;
mod lease;
mod link;
mod links;
mod listing;
mod log;
mod message;
mod records;
mod roster;
mod script;
mod teller;
mod tickets;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use redis::Cmd;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use self::answer::Parts;
use self::endpoint::Endpoint;
use self::feeds::Feeds;
use self::here::Here;
use self::keys::Keys;
use self::lease::Leases;
use self::link::{IN_DOUBT, Order, Reply};
use self::links::Links;
use self::roster::{Rosters, millis, understood};
use self::script::Args as _;
use self::teller::Teller;
use super::event_row::Malformed;
use super::{
    AppendError, Appended, Declaration, DuelRecord, Engine, EngineCounts, EngineError,
    EngineFuture, Head, Latest, LogEngine, NewConnection, Online, OpenError, Opened, Page,
    PresenceEngine, RedeemError, Revocation, Signal, Sink, StatusFilter, StoreCounts, TicketEngine,
};
use crate::clock::{self, UnixMs};
use crate::config::{EngineConfig, RedisConfig};
use crate::event::{Epoch, Event, Outcome, Position, Push, Viewer};
use crate::id::{ConnectionId, DuelId, UserId};
use crate::limits;
use crate::ticket::Ticket;

/// See the module.
#[derive(Debug)]
pub struct RedisEngine {
    config: EngineConfig,
    keys: Arc<Keys>,
    links: Arc<Links>,
    feeds: Feeds,
    teller: Arc<Teller>,
    rosters: Arc<Rosters>,
    counts: Arc<Counts>,
    leases: Arc<Leases>,
    _work: [AbortOnDropHandle<()>; 3],
}

/// What Redis held when it was last asked.
#[derive(Debug, Default)]
struct Counts {
    duels: AtomicUsize,
    tickets: AtomicUsize,
}

/// A `REDIS_URL` that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "REDIS_URL: must be redis://…, redis+sentinel://…/master or redis+cluster://…, or the same with rediss; or redis+unix://…"
)]
pub struct RedisUrlError;

impl RedisEngine {
    /// One that connects in the background, and goes on trying. To be called within a runtime.
    ///
    /// # Errors
    /// [`RedisUrlError`].
    pub fn new(config: EngineConfig, redis: &RedisConfig) -> Result<Self, RedisUrlError> {
        let endpoint = Endpoint::parse(redis.url.as_str())?;
        let keys = Arc::new(Keys::new(redis.prefix.clone(), endpoint.is_cluster()));
        let (stale_tx, stale_rx) = mpsc::channel(roster::STALE_MAX);
        let here = Arc::<Here>::default();
        let teller = Arc::new(Teller::new(stale_tx, Arc::clone(&here)));
        let links = Links::new(&endpoint, &keys, redis.wait_replicas);
        let rosters =
            Rosters::new(Arc::clone(&links), Arc::clone(&keys), Arc::clone(&teller), here);
        let feeds = Feeds::new(&endpoint, &keys, &teller, &rosters);
        let leases = Leases::new(Arc::clone(&rosters));
        let work = [
            tokio::spawn(Arc::clone(&rosters).run_refreshes(stale_rx)),
            tokio::spawn(Arc::clone(&leases).run()),
            tokio::spawn(Arc::clone(&leases).run_expulsions()),
        ];
        let engine = Self {
            config,
            keys,
            links,
            feeds,
            teller,
            rosters,
            leases,
            counts: Arc::default(),
            _work: work.map(AbortOnDropHandle::new),
        };
        // So that it is known how many duels there are; the answer is read without being awaited.
        drop(engine.prune(clock::now()));
        Ok(engine)
    }

    /// A script that changes a duel, or brings it into being.
    fn change(&self, script: &'static script::Script, duel: DuelId) -> Cmd {
        let has_room = self.counts.duels.load(Ordering::Relaxed) < self.config.duels_max;
        script::call(script, &self.keys.changing(duel))
            .with(duel.get())
            .with(answer::show_epoch(Epoch::random()))
            .with(u8::from(has_room || duel == DuelId::PROBE))
            .with(millis(self.config.idle_retention))
            .with(millis(self.config.closed_retention))
            .with(self.keys.publish)
            .with(self.keys.watch())
            .with(&self.keys.node)
    }

    /// A script that stores events.
    fn storing(&self, script: &'static script::Script, duel: DuelId) -> Cmd {
        self.change(script, duel)
            .with(self.config.log_events_max)
            .with(self.config.log_bytes_max)
            .with(limits::LATEST_TYPES_MAX)
    }

    /// Asks at once. `read` reads the answer in the order of the answers, whether or not it is awaited.
    fn ask<T: Send + 'static, E: From<EngineError> + Send + 'static>(
        &self,
        order: impl Into<Order>,
        read: impl FnOnce(Parts, bool) -> Result<Result<T, E>, Malformed> + Send + 'static,
    ) -> EngineFuture<'static, T, E> {
        let (answer_tx, answer_rx) = oneshot::channel();
        self.links.ask(order, move |Reply { value, bulk, unsafe_yet }| {
            let parts = value.and_then(|value| understood(Parts::of(value)));
            let answer = match parts.and_then(|parts| understood(read(parts, bulk))) {
                // It was told, but whoever asked must not rely on it.
                Ok(Ok(_)) if unsafe_yet => Err(IN_DOUBT.into()),
                Ok(answer) => answer,
                Err(error) => Err(error.into()),
            };
            let _gone = answer_tx.send(answer);
        });
        Box::pin(async move { answer_rx.await.unwrap_or(Err(IN_DOUBT.into())) })
    }
}

/// An answer, and how it is given. One that is never given may have taken effect.
fn promise<T: Send + 'static>()
-> (impl FnOnce(Result<T, EngineError>) + Send + 'static, EngineFuture<'static, T>) {
    let (answer_tx, answer_rx) = oneshot::channel();
    let give = move |answer| {
        let _gone = answer_tx.send(answer);
    };
    (give, Box::pin(async move { answer_rx.await.unwrap_or(Err(IN_DOUBT)) }))
}

impl LogEngine for RedisEngine {
    fn subscribe(&self, duel: DuelId) -> EngineFuture<'_, ()> {
        Box::pin(self.feeds.follow(duel))
    }

    fn unsubscribe(&self, duel: DuelId) {
        self.feeds.leave(duel);
        self.rosters.leave(duel);
    }

    fn open(&self, duel: DuelId, declaration: Declaration) -> EngineFuture<'_, Opened, OpenError> {
        self.declare(duel, declaration)
    }

    fn get_or_create(&self, duel: DuelId) -> EngineFuture<'_, DuelRecord> {
        Box::pin(async move { self.record(duel, true).await?.ok_or(IN_DOUBT) })
    }

    fn append(
        &self,
        duel: DuelId,
        push: Push,
        idempotency_key: Option<Box<str>>,
    ) -> EngineFuture<'static, Appended, AppendError> {
        self.store_push(duel, push, idempotency_key.as_deref())
    }

    fn close(
        &self,
        duel: DuelId,
        outcome: Outcome,
        last: Option<Push>,
    ) -> EngineFuture<'_, Appended, AppendError> {
        self.store_end(duel, outcome, last)
    }

    fn read(&self, duel: DuelId, after: Position, count: usize) -> EngineFuture<'_, Page> {
        self.read_after(duel, after, count)
    }

    fn latest(
        &self,
        duel: DuelId,
        viewer: Viewer,
        up_to: Position,
        which: Latest,
    ) -> EngineFuture<'_, Option<Vec<Arc<Event>>>> {
        Box::pin(self.look_for_latest(duel, viewer, up_to, which))
    }

    fn get(&self, duel: DuelId) -> EngineFuture<'_, Option<DuelRecord>> {
        self.record(duel, false)
    }

    fn list(
        &self,
        after: Option<DuelId>,
        status: StatusFilter,
        count: usize,
    ) -> EngineFuture<'_, Vec<(DuelId, Head)>> {
        Box::pin(self.list(after, status, count))
    }

    fn heads(&self, duels: Vec<DuelId>) -> EngineFuture<'_, Vec<(DuelId, Head)>> {
        Box::pin(self.standing(duels, self.config.idle_retention))
    }
}

impl TicketEngine for RedisEngine {
    fn redeem(&self, ticket: &Ticket) -> EngineFuture<'_, (), RedeemError> {
        self.spend(ticket)
    }

    fn revoke(&self, revocation: Revocation) -> EngineFuture<'_, ()> {
        self.make_worthless(revocation)
    }
}

impl PresenceEngine for RedisEngine {
    fn attach(&self, arrival: NewConnection) -> EngineFuture<'_, ()> {
        if arrival.duel == DuelId::PROBE {
            return Box::pin(std::future::ready(Ok(())));
        }
        let (tell, told) = promise();
        self.rosters.arrive(arrival, tell);
        told
    }

    fn detach(&self, duel: DuelId, user: UserId, connection: ConnectionId) {
        if duel != DuelId::PROBE {
            self.rosters.depart(duel, user, connection);
        }
    }

    fn presence(&self, duels: Vec<DuelId>) -> EngineFuture<'_, Option<Vec<(DuelId, Vec<Online>)>>> {
        Box::pin(async move { Ok(Some(self.rosters.read(&duels).await?)) })
    }

    fn watch(&self, on: bool) -> EngineFuture<'_, ()> {
        if on {
            return Box::pin(self.feeds.watch());
        }
        self.feeds.unwatch();
        Box::pin(std::future::ready(Ok(())))
    }

    fn signal(&self, signal: Signal) -> EngineFuture<'_, ()> {
        if signal.duel == DuelId::PROBE {
            self.teller.signal(signal);
            return Box::pin(std::future::ready(Ok(())));
        }
        let (tell, told) = promise();
        match message::show(&self.keys.node, &signal) {
            None => self.rosters.announce(signal, tell),
            Some(text) => {
                let teller = Arc::clone(&self.teller);
                let channel = self.keys.duel(signal.duel);
                let command = redis::cmd(self.keys.publish).with(channel).with(text);
                self.links.ask(command, move |outcome| {
                    tell(outcome.value.map(|_| teller.signal(signal)));
                });
            }
        }
        told
    }
}

impl Engine for RedisEngine {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn connect(&self, sink: Sink) {
        self.teller.connect(sink);
    }

    fn prune(&self, now: UnixMs) -> EngineFuture<'_, ()> {
        self.forget(now)
    }

    fn counts(&self) -> EngineCounts {
        EngineCounts {
            duels: self.counts.duels.load(Ordering::Relaxed),
            remembered_tickets: self.counts.tickets.load(Ordering::Relaxed),
        }
    }

    fn store(&self) -> Option<StoreCounts> {
        Some(self.links.counts())
    }

    fn stop(&self) -> EngineFuture<'_, ()> {
        Box::pin(async {
            self.leases.end().await;
            self.links.stop();
            Ok(())
        })
    }
}

impl Counts {
    fn remember_tickets(&self, count: u64) {
        self.tickets.store(usize::try_from(count).unwrap_or(usize::MAX), Ordering::Relaxed);
    }
}
