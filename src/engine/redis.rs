//! The engine of several nodes: Redis stores and orders, each node subscribes to the duels that it has connections in.
//!
//! Every change of a duel is one script, so it happens as a whole, in one order, whichever node asks: a push finds out
//! whether it is a duplicate, gets its number, is stored, and is published to the nodes that subscribe to the duel. What a node has
//! asked for itself it is told with the answer, not when it comes by on the channel ([`dispatcher`]).
//!
//! Redis may lose what it acknowledged: at a failover, at a restart, by a flush. Each script looks at the server's
//! replication id, which is a new one after the first two; a duel that was written under another has a new epoch
//! from then on, and so has one that had to be brought into being again. So no position is given out twice, and nobody is
//! told that they recovered what is gone.
//!
//! Bounds: as the other engines', in Redis; `ENGINE_MAX_DUELS` is kept by each node by its own last count. Every key expires by
//! itself should there be no node to forget it.

mod command_connection;
mod command_pool;
mod discovery;
mod dispatcher;
mod duel_state;
mod heads;
mod inspection;
mod keys;
mod local_presence;
mod log;
mod membership;
mod message;
mod presence;
mod presence_cache;
mod reply;
mod scan;
mod script;
mod subscriber;
mod subscribers;
mod ticket_ledger;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use redis::Cmd;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use self::command_connection::{Reply, Request};
use self::command_pool::CommandPool;
use self::discovery::Endpoint;
use self::dispatcher::Dispatcher;
use self::heads::Heads;
use self::keys::Keys;
use self::membership::Membership;
use self::presence::ClusterPresence;
use self::reply::{Parts, ReplyError, understood};
use self::script::{Args as _, millis};
use self::subscribers::SubscriberPool;
use super::{
    Engine, EngineCounts, EngineError, EngineFuture, NewConnection, Obstacle, OnlineByDuel,
    PresenceEngine, Signal, SignalKind, Sink, StoreCounts, rules,
};
use crate::clock::{self, UnixMs};
use crate::config::{EngineConfig, RedisConfig};
use crate::event::Epoch;
use crate::id::{ConnectionId, DuelId, UserId};
use crate::limits;

/// See the module.
#[derive(Debug)]
pub struct RedisEngine {
    config: EngineConfig,
    keys: Arc<Keys>,
    commands: Arc<CommandPool>,
    subscribers: SubscriberPool,
    dispatcher: Arc<Dispatcher>,
    presence: Arc<ClusterPresence>,
    membership: Arc<Membership>,
    heads: Arc<Heads>,
    counts: Arc<Counts>,
    /// Failures of the connections of `commands`, as of the last sweep.
    failures_seen: AtomicU64,
    /// Held while the presence of all duels is read.
    watch_begins: tokio::sync::Mutex<()>,
    _work: [AbortOnDropHandle<()>; 2],
}

/// What Redis held when it was last asked.
#[derive(Debug, Default)]
struct Counts {
    duels: AtomicUsize,
    tickets: AtomicUsize,
    /// By this node. See [`EngineCounts::sessions_crowded_out`].
    crowded_out: AtomicU64,
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
        let commands = CommandPool::new(&endpoint, &keys, redis.wait_replicas);
        let dispatcher = Dispatcher::new();
        let membership = Membership::new(Arc::clone(&commands), Arc::clone(&keys));
        let presence = ClusterPresence::new(
            Arc::clone(&commands),
            Arc::clone(&keys),
            Arc::clone(&dispatcher),
            Arc::clone(&membership),
            config.duels_max,
        );
        let heads = Arc::new(Heads {
            commands: Arc::clone(&commands),
            keys: Arc::clone(&keys),
            dispatcher: Arc::clone(&dispatcher),
            presence: Arc::clone(&presence),
        });
        let work = [
            tokio::spawn(Arc::clone(&presence).run_heartbeats()),
            tokio::spawn(Arc::clone(&presence).run_refreshes()),
        ];
        let engine = Self {
            config,
            keys,
            commands,
            subscribers: SubscriberPool::new(&endpoint, &heads),
            dispatcher,
            presence,
            membership,
            heads,
            counts: Arc::default(),
            failures_seen: AtomicU64::new(0),
            watch_begins: tokio::sync::Mutex::default(),
            _work: work.map(AbortOnDropHandle::new),
        };
        // So that it is known how many duels there are; the answer is read without being awaited.
        drop(engine.forget(clock::now()));
        Ok(engine)
    }

    /// A script that changes a duel, or brings it into being.
    fn change(&self, script: &'static script::Script, duel: DuelId) -> Cmd {
        let has_room = self.counts.duels.load(Ordering::Relaxed) < self.config.duels_max;
        script::call(script, &self.keys.changing(duel))
            .with(duel.get())
            .with(reply::show_epoch(Epoch::random()))
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

    /// Asks at once. `read_parts` reads the reply in the order of the replies, whether or not the answer is awaited.
    fn ask<T: Send + 'static, E: From<EngineError> + Send + 'static>(
        &self,
        request: impl Into<Request>,
        read_parts: impl FnOnce(Parts, bool) -> Result<T, ReplyError<E>> + Send + 'static,
    ) -> EngineFuture<'static, T, E> {
        let (answer_tx, answer_rx) = oneshot::channel();
        let dispatcher = Arc::clone(&self.dispatcher);
        let asked = self.commands.ask(request, move |Reply { value, bulk, unsafe_yet }| {
            if matches!(value, Err(EngineError::IN_DOUBT)) {
                // If it changed something, watchers here were not told: this node's own messages are skipped. What only reads is not
                // told apart: that ends a watch once too often, and never too late.
                dispatcher.interrupted();
            }
            let parts = value.and_then(|value| understood(Parts::of(value)));
            let read = parts.map_err(|error| ReplyError::Rejected(error.into()));
            let answer = match read.and_then(|parts| read_parts(parts, bulk)) {
                // It was told, but whoever asked must not rely on it.
                Ok(_) if unsafe_yet => Err(EngineError::IN_DOUBT.into()),
                Ok(answer) => Ok(answer),
                Err(ReplyError::Rejected(error)) => Err(error),
                Err(ReplyError::Malformed(error)) => understood(Err(error)).map_err(Into::into),
            };
            let _gone = answer_tx.send(answer);
        });
        Box::pin(async move {
            asked?;
            answer_rx.await.unwrap_or(Err(EngineError::IN_DOUBT.into()))
        })
    }
}

impl PresenceEngine for RedisEngine {
    fn enter(&self, duel: DuelId) -> EngineFuture<'_, u64> {
        match duel {
            DuelId::PROBE => Box::pin(std::future::ready(Ok(0))),
            _ => Box::pin(self.presence.enter(duel)),
        }
    }

    fn attach(&self, new: NewConnection) -> EngineFuture<'_, ()> {
        match new.duel {
            DuelId::PROBE => done(),
            _ => self.presence.attach(new),
        }
    }

    fn detach(&self, duel: DuelId, user: UserId, connection: ConnectionId) {
        if duel != DuelId::PROBE {
            self.presence.detach(duel, user, connection);
        }
    }

    fn presence(&self, duels: Vec<DuelId>) -> EngineFuture<'_, Option<OnlineByDuel>> {
        Box::pin(async move { Ok(Some(self.presence.read(&duels).await?)) })
    }

    fn cached_duels(&self) -> Vec<DuelId> {
        self.presence.cached_duels()
    }

    fn watch(&self, on: bool) -> EngineFuture<'_, ()> {
        if on {
            return Box::pin(self.begin_watching());
        }
        self.presence.end_watching();
        self.subscribers.unwatch();
        done()
    }

    fn signal(&self, signal: Signal) -> EngineFuture<'_, ()> {
        let duel = signal.duel;
        if duel == DuelId::PROBE {
            self.dispatcher.signal(signal);
            return done();
        }
        match signal.kind {
            SignalKind::Offline { user, reason } => self.presence.remove(duel, user, reason),
            SignalKind::Acked { user, seq } => self.presence.ack(duel, user, seq),
            SignalKind::Disconnect { whom, reconnect, reason } => {
                self.presence.disconnect(duel, whom, reconnect, reason.as_deref())
            }
            SignalKind::SessionEnded { user, session } => {
                let command = self.presence.script(&script::SESSION_ENDED, duel);
                let command = command.with(user.get()).with(session.to_string());
                let told = self.commands.reply_to(command);
                self.dispatcher.signal(signal);
                Box::pin(async move { told.await.map(drop) })
            }
            // They follow from who attaches.
            SignalKind::Online { .. }
            | SignalKind::Unlisted { .. }
            | SignalKind::Replace { .. } => done(),
        }
    }
}

/// Reads a message of another node, and what Redis may answer.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(bytes: &[u8]) {
    use ::redis::Value;
    let _message = message::read(bytes);
    let value = || Value::BulkString(bytes.to_vec());
    drop((reply::entry(Value::Array(vec![value(), value()])), reply::retained(value())));
    let field = |name: &str| Value::BulkString(name.as_bytes().to_vec());
    for name in ["u:ab", "c:ab", "s:ab", "x:all", "v"] {
        drop(presence_cache::Whole::read(Value::Array(vec![field(name), value()])));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    drop((reply::participants(text), reply::settings(text), reply::status(text)));
    drop((reply::epoch(text), message::disconnect_order("5", text)));
}

fn done() -> EngineFuture<'static, ()> {
    Box::pin(std::future::ready(Ok(())))
}

impl Engine for RedisEngine {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn connect(&self, sink: Sink) {
        self.dispatcher.connect(sink);
    }

    fn prune(&self, now: UnixMs) -> EngineFuture<'_, ()> {
        Box::pin(self.forget(now))
    }

    fn counts(&self) -> EngineCounts {
        EngineCounts {
            duels: self.counts.duels.load(Ordering::Relaxed),
            remembered_tickets: self.counts.tickets.load(Ordering::Relaxed),
            sessions_crowded_out: self.counts.crowded_out.load(Ordering::Relaxed),
        }
    }

    fn store(&self) -> Option<StoreCounts> {
        Some(self.commands.counts())
    }

    fn obstacle(&self) -> Option<Obstacle> {
        let remembered = self.counts.tickets.load(Ordering::Relaxed);
        let obstacle = self.commands.obstacle();
        obstacle.or_else(|| rules::ledger_obstacle(remembered, self.config.tickets_max))
    }

    fn stop(&self) -> EngineFuture<'_, ()> {
        Box::pin(async {
            self.membership.end().await;
            self.commands.stop();
            Ok(())
        })
    }
}

impl Counts {
    fn remember_tickets(&self, count: u64) {
        self.tickets.store(usize::try_from(count).unwrap_or(usize::MAX), Ordering::Relaxed);
    }
}
