//! The connection on which Redis tells what happens in the duels that this node subscribes to, and, while somebody watches, in all.
//!
//! Subscriptions are changed in batches. When the connection was lost, everything is subscribed to again, and the heads of
//! the duels are compared, batch by batch, so that what was missed meanwhile is repaired at once. A message is handed on in
//! the connection's own task; there is no queue of them. Bounds: [`WAITING_MAX`] duels wait to be subscribed to; those that are to
//! be unsubscribed from are at most as many as were subscribed to.
//!
//! The library's `PubSub` is not used: it puts messages into a channel without bound. Nor is `ConnectionManager`: it subscribes again
//! without saying when, which is when the heads have to be compared.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ProtocolVersion, PushInfo, PushKind, Value};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use super::command_connection::{Pauses, REFUSED, plain};
use super::discovery::{self, Endpoint};
use super::keys::BUCKETS;
use super::message::{self, Message, News};
use super::sweep::Sweep;
use crate::engine::{EngineError, Signal};
use crate::id::DuelId;
use crate::limits;

/// Duels that wait to be subscribed to.
const WAITING_MAX: usize = 1024;

/// Duels that are subscribed to at a time.
const BATCH_MAX: usize = 512;

/// Which duels are told of on a connection.
#[derive(Debug)]
pub(super) enum Scope {
    /// All.
    All,
    /// Those of one slot of a Cluster.
    Bucket {
        /// Which.
        bucket: u64,
        /// Its hash tag.
        tag: String,
    },
}

impl Scope {
    fn includes(&self, duel: DuelId) -> bool {
        match self {
            Self::All => true,
            Self::Bucket { bucket, .. } => duel.get() % BUCKETS == *bucket,
        }
    }

    fn tag(&self) -> &str {
        match self {
            Self::All => "",
            Self::Bucket { tag, .. } => tag,
        }
    }

    /// The commands that subscribe to a duel, and no more.
    const fn commands(&self) -> [&'static str; 2] {
        match self {
            Self::All => ["SUBSCRIBE", "UNSUBSCRIBE"],
            Self::Bucket { .. } => ["SSUBSCRIBE", "SUNSUBSCRIBE"],
        }
    }
}

/// Subscribes to duels. Dropping it ends the connection.
#[derive(Debug)]
pub(super) struct Subscriber {
    shared: Arc<Shared>,
    wanted_tx: mpsc::Sender<Wanted>,
    _task: AbortOnDropHandle<()>,
}

/// What the connection's task shares with those who ask for something.
#[derive(Debug)]
struct Shared {
    sweep: Arc<Sweep>,
    /// Duels that are subscribed to no more.
    unwanted: Mutex<HashSet<DuelId>>,
    changed: Notify,
    /// Whether this node watches all duels.
    watches: AtomicBool,
}

/// Somebody waits until a channel is subscribed to: a duel's, or that of all.
#[derive(Debug)]
struct Wanted {
    duel: Option<DuelId>,
    done: oneshot::Sender<()>,
}

impl Subscriber {
    pub(super) fn new(endpoint: Endpoint, scope: Scope, sweep: Arc<Sweep>) -> Self {
        let (wanted_tx, wanted_rx) = mpsc::channel(WAITING_MAX);
        let shared = Arc::new(Shared {
            sweep,
            unwanted: Mutex::default(),
            changed: Notify::new(),
            watches: AtomicBool::new(false),
        });
        let task = Task {
            endpoint,
            scope,
            shared: Arc::clone(&shared),
            wanted_rx,
            subscribed: HashSet::new(),
            watching: false,
        };
        let task = AbortOnDropHandle::new(tokio::spawn(task.run()));
        Self { shared, wanted_tx, _task: task }
    }

    /// Returns once whatever happens in the duel is told. Cancel safe.
    pub(super) async fn subscribe(&self, duel: DuelId) -> Result<(), EngineError> {
        self.shared.sweep.dispatcher.subscribe(duel);
        self.want(Some(duel)).await
    }

    /// Returns once whatever happens in any duel is told. Cancel safe.
    pub(super) async fn watch(&self) -> Result<(), EngineError> {
        self.shared.watches.store(true, Ordering::Relaxed);
        self.want(None).await
    }

    pub(super) fn unwatch(&self) {
        self.shared.watches.store(false, Ordering::Relaxed);
        self.shared.changed.notify_one();
    }

    async fn want(&self, duel: Option<DuelId>) -> Result<(), EngineError> {
        let (done, is_done) = oneshot::channel();
        let subscribing = async {
            self.wanted_tx.send(Wanted { duel, done }).await.map_err(|_| REFUSED)?;
            is_done.await.map_err(|_| REFUSED)
        };
        timeout(limits::REDIS_TIMEOUT, subscribing).await.unwrap_or(Err(REFUSED))
    }

    pub(super) fn unsubscribe(&self, duel: DuelId) {
        if self.shared.sweep.dispatcher.unsubscribe(duel) {
            self.shared.unwanted.lock().insert(duel);
            self.shared.changed.notify_one();
        }
    }
}

struct Task {
    endpoint: Endpoint,
    scope: Scope,
    shared: Arc<Shared>,
    wanted_rx: mpsc::Receiver<Wanted>,
    subscribed: HashSet<DuelId>,
    watching: bool,
}

impl Task {
    async fn run(mut self) {
        let mut pauses = Pauses::default();
        let mut told = false;
        loop {
            let lost = Arc::new(Notify::new());
            let connecting = connect(&self.endpoint, Arc::clone(&self.shared), Arc::clone(&lost));
            let failure = match connecting.await {
                Ok(mut connection) => {
                    info!(
                        duels = self.subscriptions().len(),
                        slot = self.scope.tag(),
                        "following on Redis"
                    );
                    told = false;
                    pauses.reset();
                    self.serve(&mut connection, &lost).await
                }
                Err(failure) => failure,
            };
            self.subscribed.clear();
            if std::mem::take(&mut self.watching) {
                // What is told from now on is not heard.
                self.shared.sweep.presence.end_watching();
                self.shared.sweep.dispatcher.interrupted();
            }
            if !told {
                warn!(error = failure, "Redis tells nothing; it is tried again, in silence");
                told = true;
            }
            let until = Instant::now() + pauses.next();
            // Whoever asks meanwhile is refused.
            while let Ok(Some(_refused)) = timeout_at(until, self.wanted_rx.recv()).await {}
            sleep_until(until).await;
        }
    }

    /// Subscribes to what is asked for, until the connection fails.
    async fn serve(&mut self, connection: &mut MultiplexedConnection, lost: &Notify) -> String {
        let mut ticks = interval(limits::PROBE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let shared = Arc::clone(&self.shared);
        // The server may be another one, or have lost something.
        shared.sweep.presence.refresh_all();
        let mut wanted: Vec<_> =
            self.subscriptions().into_iter().map(|duel| (duel, None)).collect();
        loop {
            let served = self.bring_up_to_date(connection, &mut wanted).await;
            if let Err(failure) = served {
                return failure;
            }
            tokio::select! {
                () = lost.notified() => return "the connection was lost".to_owned(),
                () = shared.changed.notified() => {}
                first = self.wanted_rx.recv() => match first {
                    Some(first) => {
                        if let Err(failure) = self.take(connection, first, &mut wanted).await {
                            return failure;
                        }
                    }
                    None => std::future::pending().await,
                },
                _tick = ticks.tick() => {
                    if let Err(failure) = self.check(connection).await {
                        return failure;
                    }
                }
            }
        }
    }

    /// Whether it lives, and is the server that is asked: after a failover it may be the one before.
    async fn check(&self, connection: &mut MultiplexedConnection) -> Result<(), String> {
        let asked = self.shared.sweep.commands.server(self.scope.tag());
        let server = timeout(limits::REDIS_TIMEOUT, discovery::identity(connection)).await;
        let server = server.map_err(|_| "it did not answer in time".to_owned())??;
        if server == asked || asked.is_empty() {
            return Ok(());
        }
        Err("it is not the server that is asked".to_owned())
    }

    /// Takes what somebody asks for, and what others ask for meanwhile.
    async fn take(
        &mut self,
        connection: &mut MultiplexedConnection,
        first: Wanted,
        wanted: &mut Vec<(DuelId, Option<oneshot::Sender<()>>)>,
    ) -> Result<(), String> {
        let mut next = Some(first);
        while let Some(Wanted { duel, done }) = next {
            match duel {
                Some(duel) if self.subscribed.contains(&duel) && !self.is_unwanted(duel) => {
                    let _gone = done.send(());
                }
                Some(duel) => wanted.push((duel, Some(done))),
                None => {
                    self.set_watching(connection).await?;
                    let _gone = done.send(());
                }
            }
            next = if wanted.len() < BATCH_MAX { self.wanted_rx.try_recv().ok() } else { None };
        }
        Ok(())
    }

    fn is_unwanted(&self, duel: DuelId) -> bool {
        self.shared.unwanted.lock().contains(&duel)
    }

    /// Unsubscribes from what is unwanted, and subscribes to what is wanted.
    async fn bring_up_to_date(
        &mut self,
        connection: &mut MultiplexedConnection,
        wanted: &mut Vec<(DuelId, Option<oneshot::Sender<()>>)>,
    ) -> Result<(), String> {
        self.set_watching(connection).await?;
        let unwanted = std::mem::take(&mut *self.shared.unwanted.lock());
        // One that is subscribed to again stays.
        let unwanted =
            unwanted.into_iter().filter(|duel| !self.shared.sweep.dispatcher.is_subscribed(*duel));
        let unwanted: Vec<_> = unwanted.filter(|duel| self.subscribed.remove(duel)).collect();
        for batch in unwanted.chunks(BATCH_MAX) {
            self.change(connection, self.scope.commands()[1], batch).await?;
        }
        let wanted = std::mem::take(wanted);
        let mut wanted = wanted.into_iter().peekable();
        while wanted.peek().is_some() {
            let (duels, waiting): (Vec<_>, Vec<_>) = wanted.by_ref().take(BATCH_MAX).unzip();
            self.change(connection, self.scope.commands()[0], &duels).await?;
            self.subscribed.extend(&duels);
            let again: Vec<_> =
                duels.iter().zip(&waiting).filter(|(_, w)| w.is_none()).map(|(d, _)| *d).collect();
            for done in waiting.into_iter().flatten() {
                let _gone = done.send(());
            }
            // What is newly subscribed to is looked at by who asked.
            self.shared.sweep.catch_up(&again);
        }
        Ok(())
    }

    /// The duels of this connection that are subscribed to.
    fn subscriptions(&self) -> Vec<DuelId> {
        let mut duels = self.shared.sweep.dispatcher.all_subscribed();
        duels.retain(|duel| self.scope.includes(*duel));
        duels
    }

    /// Subscribes to duels, or no more: a command for each, which has one answer.
    async fn change(
        &self,
        connection: &mut MultiplexedConnection,
        command: &str,
        duels: &[DuelId],
    ) -> Result<(), String> {
        let mut pipeline = redis::pipe();
        for duel in duels {
            pipeline.cmd(command).arg(self.shared.sweep.keys.duel(*duel));
        }
        in_time(pipeline.exec_async(connection)).await
    }

    async fn set_watching(&mut self, connection: &mut MultiplexedConnection) -> Result<(), String> {
        let watches = self.shared.watches.load(Ordering::Relaxed);
        if watches == self.watching {
            return Ok(());
        }
        let channel = self.shared.sweep.keys.watch();
        match watches {
            true => in_time(connection.subscribe(channel)).await?,
            false => in_time(connection.unsubscribe(channel)).await?,
        }
        self.watching = watches;
        Ok(())
    }
}

async fn in_time(done: impl Future<Output = redis::RedisResult<()>>) -> Result<(), String> {
    match timeout(limits::REDIS_TIMEOUT, done).await {
        Ok(done) => done.map_err(|error| plain(&error)),
        Err(_) => Err("it did not answer in time".to_owned()),
    }
}

/// A connection whose messages are handed on.
async fn connect(
    endpoint: &Endpoint,
    shared: Arc<Shared>,
    lost: Arc<Notify>,
) -> Result<MultiplexedConnection, String> {
    let take = move |push: PushInfo| {
        if push.kind == PushKind::Disconnection {
            lost.notify_one();
        }
        shared.take(&push);
        Ok::<(), ()>(())
    };
    let config = AsyncConnectionConfig::new().set_push_sender(take);
    endpoint.connect(ProtocolVersion::RESP3, config).await
}

impl Shared {
    fn take(&self, push: &PushInfo) {
        if let (PushKind::Message | PushKind::SMessage, Some(Value::BulkString(bytes))) =
            (&push.kind, push.data.get(1))
        {
            match message::read(bytes) {
                Ok(message) => self.dispatch(message),
                Err(error) => debug!(%error, "a message on Redis was not understood"),
            }
        }
    }

    fn dispatch(&self, Message { node, duel, news }: Message) {
        // What this node has done itself it is told with the answer; should that be lost, the next sweep tells it. But the
        // probe is there to prove this way.
        if *node == *self.sweep.keys.node && duel != DuelId::PROBE {
            return;
        }
        match news {
            News::Opened(position) => self.sweep.dispatcher.opened(duel, position),
            News::Event(epoch, event) => {
                self.sweep.dispatcher.event(duel, epoch, event, false);
            }
            News::Presence(gone) => self.sweep.presence.hint(duel, gone),
            News::Signal(kind) => self.sweep.dispatcher.signal(Signal { duel, kind }),
        }
    }
}
