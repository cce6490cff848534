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
use tokio::time::{Duration, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use super::command_connection::Pauses;
use super::discovery::{self, Endpoint};
use super::heads::Heads;
use super::keys::{BUCKETS, Keys};
use super::message::{self, Message, News};
use crate::engine::{EngineError, Signal};
use crate::id::DuelId;
use crate::limits;

/// Duels that wait to be subscribed to.
const WAITING_MAX: usize = 1024;

/// How long the connection may take to answer, before a sweep compares what it is about.
const CHECK_TIMEOUT: Duration = Duration::from_millis(500);

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

/// On which something is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Channel {
    /// What happens in one duel.
    Duel(DuelId),
    /// What watchers hear of, in all duels.
    Watch,
    /// What this node publishes to see whether it comes by.
    Check,
}

impl Scope {
    fn includes(&self, duel: DuelId) -> bool {
        match self {
            Self::All => true,
            Self::Bucket { bucket, .. } => duel.get() % BUCKETS == *bucket,
        }
    }

    fn check_channel(&self, keys: &Keys) -> String {
        match self {
            Self::All => keys.check(&keys.tags()[0]),
            Self::Bucket { tag, .. } => keys.check(tag),
        }
    }

    pub(super) fn tag(&self) -> &str {
        match self {
            Self::All => "",
            Self::Bucket { tag, .. } => tag,
        }
    }

    /// The commands that subscribe to a channel, and no more.
    const fn commands(&self, channel: Channel) -> [&'static str; 2] {
        match (self, channel) {
            (Self::Bucket { .. }, Channel::Duel(_) | Channel::Check) => {
                ["SSUBSCRIBE", "SUNSUBSCRIBE"]
            }
            _ => ["SUBSCRIBE", "UNSUBSCRIBE"],
        }
    }
}

/// Subscribes to duels. Dropping it ends the connection.
#[derive(Debug)]
pub(super) struct Subscriber {
    shared: Arc<Shared>,
    wanted_tx: mpsc::Sender<Wanted>,
    /// Whether the last check passed.
    had_told: AtomicBool,
    _task: AbortOnDropHandle<()>,
}

/// What the connection's task shares with those who ask for something.
#[derive(Debug)]
struct Shared {
    heads: Arc<Heads>,
    /// Channels that are subscribed to no more.
    unwanted: Mutex<HashSet<Channel>>,
    changed: Notify,
    /// What was published last to see whether it comes by, and who waits for it.
    check: Mutex<Option<(u64, oneshot::Sender<()>)>>,
    check_channel: String,
}

/// Somebody waits until a channel is subscribed to.
#[derive(Debug)]
struct Wanted {
    channel: Channel,
    done: oneshot::Sender<()>,
}

impl Subscriber {
    pub(super) fn new(endpoint: Endpoint, scope: Scope, heads: Arc<Heads>) -> Self {
        let (wanted_tx, wanted_rx) = mpsc::channel(WAITING_MAX);
        let check_channel = scope.check_channel(&heads.keys);
        let shared = Arc::new(Shared {
            heads,
            unwanted: Mutex::default(),
            changed: Notify::new(),
            check: Mutex::default(),
            check_channel,
        });
        let task = Task {
            endpoint,
            scope,
            shared: Arc::clone(&shared),
            wanted_rx,
            subscribed: HashSet::new(),
        };
        let task = AbortOnDropHandle::new(tokio::spawn(task.run()));
        Self { shared, wanted_tx, had_told: AtomicBool::new(false), _task: task }
    }

    /// Returns once whatever is published on the channel is told. Cancel safe.
    pub(super) async fn subscribe(&self, channel: Channel) -> Result<(), EngineError> {
        let (done, is_done) = oneshot::channel();
        let subscribing = async {
            self.wanted_tx
                .send(Wanted { channel, done })
                .await
                .map_err(|_| EngineError::UNAVAILABLE)?;
            is_done.await.map_err(|_| EngineError::UNAVAILABLE)
        };
        timeout(limits::REDIS_TIMEOUT, subscribing).await.unwrap_or(Err(EngineError::UNAVAILABLE))
    }

    /// Returns whether everything was told that was published on its channels before this is called. It was, if what is published
    /// now comes by, as the last such message did: Redis tells in the order in which it publishes, and ends a connection that it cannot
    /// tell something.
    pub(super) async fn has_told_everything(&self) -> bool {
        let Shared { heads, check, check_channel, .. } = &*self.shared;
        let number: u64 = rand::random();
        let (done, is_done) = oneshot::channel();
        *check.lock() = Some((number, done));
        let publish = redis::cmd(heads.keys.publish).arg(check_channel).arg(number).to_owned();
        let published = heads.commands.reply_to(publish);
        let checked = async { published.await.is_ok() && is_done.await.is_ok() };
        let tells = timeout(CHECK_TIMEOUT, checked).await.unwrap_or(false);
        self.had_told.swap(tells, Ordering::Relaxed) && tells
    }

    pub(super) fn unsubscribe(&self, channel: Channel) {
        self.shared.unwanted.lock().insert(channel);
        self.shared.changed.notify_one();
    }
}

struct Task {
    endpoint: Endpoint,
    scope: Scope,
    shared: Arc<Shared>,
    wanted_rx: mpsc::Receiver<Wanted>,
    subscribed: HashSet<Channel>,
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
            let was_watching = self.subscribed.contains(&Channel::Watch);
            self.subscribed.clear();
            self.shared.unwanted.lock().clear();
            if was_watching {
                // What is told from now on is not heard.
                self.shared.heads.presence.end_watching();
                self.shared.heads.dispatcher.interrupted();
            }
            if !told {
                warn!(error = failure, "Redis tells nothing; it is tried again, in silence");
                told = true;
            }
            self.pause(pauses.next()).await;
        }
    }

    /// Waits, but not longer than until Redis is asked again. Whoever asks meanwhile is refused.
    async fn pause(&mut self, pause: Duration) {
        let mut asked = self.shared.heads.commands.server(self.scope.tag());
        asked.mark_unchanged();
        let over = sleep(pause);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return,
                Ok(()) = asked.changed() => {
                    if asked.borrow_and_update().is_some() {
                        return;
                    }
                }
                Some(_refused) = self.wanted_rx.recv() => {}
            }
        }
    }

    /// Subscribes to what is asked for, until the connection fails.
    async fn serve(&mut self, connection: &mut MultiplexedConnection, lost: &Notify) -> String {
        let mut ticks = interval(limits::PROBE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let shared = Arc::clone(&self.shared);
        // The server may be another one, or have lost something.
        shared.heads.dispatcher.doubt_all();
        shared.heads.presence.refresh_all();
        if let Err(failure) = self.change(connection, 0, &[Channel::Check]).await {
            return failure;
        }
        let again = self.subscriptions().into_iter();
        let mut wanted: Vec<_> = again.map(|duel| (Channel::Duel(duel), None)).collect();
        let mut asked = shared.heads.commands.server(self.scope.tag());
        let mut replication_id = None;
        loop {
            let served = self.bring_up_to_date(connection, &mut wanted).await;
            if let Err(failure) = served {
                return failure;
            }
            tokio::select! {
                () = lost.notified() => return "the connection was lost".to_owned(),
                () = shared.changed.notified() => continue,
                Some(first) = self.wanted_rx.recv() => {
                    self.take(first, &mut wanted);
                    continue;
                }
                _tick = ticks.tick() => {}
                Ok(()) = asked.changed() => {}
            }
            let server = asked.borrow_and_update().clone();
            match check(connection, server.as_deref()).await {
                Ok(now) if replication_id.as_ref() == Some(&now) => {}
                Ok(now) => {
                    shared.heads.dispatcher.doubt_all();
                    replication_id = Some(now);
                }
                Err(failure) => return failure,
            }
        }
    }

    /// Takes what somebody asks for, and what others ask for meanwhile.
    fn take(&mut self, first: Wanted, wanted: &mut Vec<(Channel, Option<oneshot::Sender<()>>)>) {
        let mut next = Some(first);
        while let Some(Wanted { channel, done }) = next {
            let is_unwanted = self.shared.unwanted.lock().contains(&channel);
            if self.subscribed.contains(&channel) && !is_unwanted {
                let _gone = done.send(());
            } else {
                wanted.push((channel, Some(done)));
            }
            next = if wanted.len() < BATCH_MAX { self.wanted_rx.try_recv().ok() } else { None };
        }
    }

    /// Unsubscribes from what is unwanted, and subscribes to what is wanted.
    async fn bring_up_to_date(
        &mut self,
        connection: &mut MultiplexedConnection,
        wanted: &mut Vec<(Channel, Option<oneshot::Sender<()>>)>,
    ) -> Result<(), String> {
        let unwanted = std::mem::take(&mut *self.shared.unwanted.lock());
        // One that is subscribed to again stays.
        let unwanted: Vec<_> = (unwanted.into_iter())
            .filter(|channel| !self.shared.is_wanted(*channel) && self.subscribed.remove(channel))
            .collect();
        for batch in unwanted.chunks(BATCH_MAX) {
            self.change(connection, 1, batch).await?;
        }
        let wanted = std::mem::take(wanted);
        let mut wanted = wanted.into_iter().peekable();
        while wanted.peek().is_some() {
            let (channels, waiting): (Vec<_>, Vec<_>) = wanted.by_ref().take(BATCH_MAX).unzip();
            self.change(connection, 0, &channels).await?;
            self.subscribed.extend(&channels);
            let mut again = Vec::new();
            for (channel, waiting) in channels.into_iter().zip(waiting) {
                match (channel, waiting) {
                    // Whoever asked looks for themselves.
                    (_, Some(done)) => {
                        if done.send(()).is_err() {
                            // They gave up waiting, and have unsubscribed before this.
                            self.shared.unwanted.lock().insert(channel);
                            self.shared.changed.notify_one();
                        }
                    }
                    (Channel::Duel(duel), None) => again.push(duel),
                    (Channel::Watch | Channel::Check, None) => {}
                }
            }
            self.shared.heads.catch_up(&again);
        }
        Ok(())
    }

    /// The duels of this connection that are subscribed to.
    fn subscriptions(&self) -> Vec<DuelId> {
        let mut duels = self.shared.heads.dispatcher.all_subscribed();
        duels.retain(|duel| self.scope.includes(*duel));
        duels
    }

    /// Gives the `nth` of the scope's commands for each channel, each of which has one answer.
    async fn change(
        &self,
        connection: &mut MultiplexedConnection,
        nth: usize,
        channels: &[Channel],
    ) -> Result<(), String> {
        let keys = &self.shared.heads.keys;
        let mut pipeline = redis::pipe();
        for channel in channels {
            let name = match channel {
                Channel::Duel(duel) => keys.duel(*duel),
                Channel::Watch => keys.watch(),
                Channel::Check => self.shared.check_channel.clone(),
            };
            pipeline.cmd(self.scope.commands(*channel)[nth]).arg(name);
        }
        in_time(pipeline.exec_async(connection)).await
    }
}

/// Whether it lives, and is the server that is asked, if one is: after a failover it may be the one before. Returns its replication
/// id.
async fn check(
    connection: &mut MultiplexedConnection,
    asked: Option<&str>,
) -> Result<String, String> {
    let identity = timeout(limits::REDIS_TIMEOUT, discovery::identity(connection)).await;
    let identity = identity.map_err(|_| "it did not answer in time".to_owned())??;
    if asked.is_none_or(|asked| asked == identity.server) {
        return Ok(identity.replication_id);
    }
    Err("it is not the server that is asked".to_owned())
}

async fn in_time(done: impl Future<Output = redis::RedisResult<()>>) -> Result<(), String> {
    match timeout(limits::REDIS_TIMEOUT, done).await {
        Ok(done) => done.map_err(|error| discovery::plain(&error)),
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
    fn is_wanted(&self, channel: Channel) -> bool {
        match channel {
            Channel::Duel(duel) => self.heads.dispatcher.is_subscribed(duel),
            Channel::Watch => self.heads.presence.is_watching(),
            Channel::Check => true,
        }
    }

    fn take(&self, push: &PushInfo) {
        if let (
            PushKind::Message | PushKind::SMessage,
            [Value::BulkString(channel), Value::BulkString(bytes)],
        ) = (&push.kind, &push.data[..])
        {
            if channel == self.check_channel.as_bytes() {
                return self.pass_check(bytes);
            }
            match message::read(bytes) {
                Ok(message) => self.dispatch(message),
                Err(error) => debug!(%error, "a message on Redis was not understood"),
            }
        }
    }

    fn pass_check(&self, number: &[u8]) {
        let mut check = self.check.lock();
        let is_last = |(last, _): &mut (u64, _)| last.to_string().as_bytes() == number;
        if let Some((_, done)) = check.take_if(is_last) {
            let _gone = done.send(());
        }
    }

    fn dispatch(&self, Message { node, duel, news }: Message) {
        // What this node has done itself it is told with the answer; should that be lost, the next sweep tells it. But the
        // probe is there to prove this way.
        if *node == *self.heads.keys.node && duel != DuelId::PROBE {
            return;
        }
        match news {
            News::Opened(position) => self.heads.dispatcher.opened(duel, position),
            News::Event(epoch, event) => {
                self.heads.dispatcher.event(duel, epoch, event, false);
            }
            News::Presence(gone) => self.heads.presence.hint(duel, gone),
            News::Watched(_) if self.heads.dispatcher.is_subscribed(duel) => {}
            News::Signal(kind) | News::Watched(kind) => {
                self.heads.dispatcher.signal(Signal { duel, kind });
            }
        }
    }
}
