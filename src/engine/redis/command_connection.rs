//! The connection on which Redis is asked.
//!
//! What waits is sent together and answered together before the next is sent, so that calls take effect in the order in which
//! they were made, a lone one is not delayed, and many share a round trip. Answers are read by whoever asked, in the same
//! request, before the next are sent.
//!
//! When Redis is away, what was sent may have taken effect; what comes then is refused, until the connection is back. It is
//! tried again with growing, jittered pauses; what comes during a try waits for how it ends.
//!
//! Bounds: [`limits::ENGINE_QUEUE_MAX`] calls wait, [`BATCH_MAX`] are sent at a time.
//!
//! The library's `ConnectionManager` is not used: it reconnects to the address that it was made with, not to where the master is now,
//! and wakes who waits for replies in any order. Its Cluster client tries calls again beside later ones, so that they lose theirs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, ProtocolVersion, RedisError, ServerErrorKind, Value,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::discovery::{self, Endpoint};
use super::inspection::{self, Replicas};
use super::script;
use crate::engine::{EngineError, Obstacle, StoreCounts};
use crate::limits;

/// Calls that are sent at a time.
const BATCH_MAX: usize = 512;

/// Of them, those whose answers may be large: some MiB in all.
const LARGE_MAX: usize = 8;

/// What Redis answered; and whether many were answered with it.
pub(super) struct Reply {
    pub(super) value: Result<Value, EngineError>,
    pub(super) bulk: bool,
    /// It is done, but fewer replicas than are wanted have it.
    pub(super) unsafe_yet: bool,
}

impl Reply {
    pub(super) const fn failed(error: EngineError) -> Self {
        Self { value: Err(error), bulk: false, unsafe_yet: false }
    }
}

/// Something that Redis is asked.
pub(super) struct Request {
    command: Cmd,
    /// Whether as many replicas as are wanted must have it.
    kept: bool,
    /// Whether the answer may be large.
    large: bool,
}

impl Request {
    /// What is to outlive a failover, if so many replicas are wanted.
    pub(super) const fn kept(command: Cmd) -> Self {
        Self { command, kept: true, large: false }
    }

    /// What may be answered with much.
    pub(super) const fn large(command: Cmd) -> Self {
        Self { command, kept: false, large: true }
    }

    /// The command's words.
    pub(super) fn arguments(&self) -> impl Iterator<Item = redis::Arg<&[u8]>> {
        self.command.args_iter()
    }
}

impl From<Cmd> for Request {
    fn from(command: Cmd) -> Self {
        Self { command, kept: false, large: false }
    }
}

/// How it does.
#[derive(Debug, Default)]
struct State {
    /// The server that is asked. `None`: none is.
    server: watch::Sender<Option<Arc<str>>>,
    obstacle: Mutex<Option<Obstacle>>,
    /// What was sent together, and how often nothing came of it.
    batches: AtomicU64,
    failures: AtomicU64,
}

struct Call {
    request: Request,
    read: Box<dyn FnOnce(Reply) + Send>,
}

/// Asks Redis. Dropping it ends the connection.
#[derive(Debug)]
pub(super) struct CommandConnection {
    calls_tx: mpsc::Sender<Call>,
    stopped: AtomicBool,
    state: Arc<State>,
    _task: AbortOnDropHandle<()>,
}

impl CommandConnection {
    /// `wait_replicas`: how many replicas must have what is to be kept.
    pub(super) fn new(endpoint: Endpoint, wait_replicas: u32) -> Arc<Self> {
        let (calls_tx, calls_rx) = mpsc::channel(limits::ENGINE_QUEUE_MAX);
        let state = Arc::<State>::default();
        let replicas = Replicas::new(wait_replicas);
        let task = Task { endpoint, replicas, state: Arc::clone(&state), calls_rx };
        let task = AbortOnDropHandle::new(tokio::spawn(task.run()));
        let stopped = AtomicBool::new(false);
        Arc::new(Self { calls_tx, stopped, state, _task: task })
    }

    /// Which server is asked, now and from now on. `None`: none is at the moment.
    pub(super) fn server(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.state.server.subscribe()
    }

    /// Why it cannot be relied on, if it cannot.
    pub(super) fn obstacle(&self) -> Option<Obstacle> {
        *self.state.obstacle.lock()
    }

    /// Takes its place in the order at once. `read` is always called on the connection's task, which it must not hold up; so it
    /// may take locks under which this is called.
    ///
    /// Returns an error if it is refused. Then `read` is not called.
    pub(super) fn ask(
        &self,
        request: Request,
        read: impl FnOnce(Reply) + Send + 'static,
    ) -> Result<(), EngineError> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(EngineError::UNAVAILABLE);
        }
        let call = Call { request, read: Box::new(read) };
        self.calls_tx.try_send(call).map_err(|_| EngineError::UNAVAILABLE)
    }

    /// How it does; adds up over several.
    pub(super) fn count(&self, counts: &mut StoreCounts) {
        let State { server, batches, failures, .. } = &*self.state;
        counts.usable &= server.borrow().is_some();
        counts.commits += batches.load(Ordering::Relaxed);
        counts.failures += failures.load(Ordering::Relaxed);
        counts.waiting += (self.calls_tx.max_capacity() - self.calls_tx.capacity()) as u64;
    }

    /// From now on nothing is sent any more.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

impl Call {
    fn refuse(self) {
        (self.read)(Reply::failed(EngineError::UNAVAILABLE));
    }
}

/// Sends what is asked, for as long as anybody may ask.
struct Task {
    endpoint: Endpoint,
    replicas: Replicas,
    state: Arc<State>,
    calls_rx: mpsc::Receiver<Call>,
}

impl Task {
    async fn run(mut self) {
        let mut pauses = Pauses::default();
        let mut told = false;
        loop {
            let failure = match connect(&self.endpoint).await {
                Ok((mut connection, server)) => {
                    info!("connected to Redis");
                    self.state.server.send_replace(Some(server));
                    self.replicas.begin();
                    told = false;
                    pauses.reset();
                    match self.serve(&mut connection).await {
                        None => return,
                        Some(failure) => ConnectError::Failed(failure),
                    }
                }
                Err(failure) => failure,
            };
            self.state.server.send_replace(None);
            *self.state.obstacle.lock() = failure.obstacle();
            self.state.failures.fetch_add(1, Ordering::Relaxed);
            if !told {
                warn!(error = %failure, "Redis is away; it is tried again, in silence");
                told = true;
            }
            let until = Instant::now() + pauses.next();
            while let Ok(call) = timeout_at(until, self.calls_rx.recv()).await {
                match call {
                    Some(call) => call.refuse(),
                    None => return,
                }
            }
        }
    }

    /// Sends what comes, until the connection fails. `None`: nothing will come any more.
    async fn serve(&mut self, connection: &mut MultiplexedConnection) -> Option<String> {
        let mut ticks = interval(limits::PROBE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let first = tokio::select! {
                first = self.calls_rx.recv() => first?,
                _tick = ticks.tick() => {
                    match inspection::obstacle(connection, &mut self.replicas).await {
                        Ok(obstacle) => *self.state.obstacle.lock() = obstacle,
                        Err(failure) => return Some(failure),
                    }
                    continue;
                }
            };
            let failure = self.batch(first).send(connection, &mut self.replicas).await;
            if failure.is_some() {
                return failure;
            }
        }
    }

    /// What waits, after the first of it.
    fn batch(&mut self, first: Call) -> Batch {
        let mut batch = Batch::default();
        let mut next = Some(first);
        while let Some(call) = next {
            batch.large += usize::from(call.request.large);
            batch.calls.push(call);
            let more = batch.calls.len() < BATCH_MAX && batch.large < LARGE_MAX;
            next = if more { self.calls_rx.try_recv().ok() } else { None };
        }
        self.state.batches.fetch_add(1, Ordering::Relaxed);
        batch
    }
}

/// What is sent together.
#[derive(Default)]
struct Batch {
    calls: Vec<Call>,
    /// Those whose answers may be large.
    large: usize,
}

impl Batch {
    /// Refuses what replicas must have if they are not there. Nothing was sent.
    async fn check_replicas(
        &mut self,
        connection: &mut MultiplexedConnection,
        replicas: &mut Replicas,
    ) -> Result<(), String> {
        if replicas.are_there(connection).await? {
            return Ok(());
        }
        let (kept, others) = self.calls.drain(..).partition(|call| call.request.kept);
        self.calls = others;
        Vec::into_iter(kept).for_each(Call::refuse);
        Ok(())
    }

    /// Why the connection is of no use any more, if it is not.
    async fn send(
        mut self,
        connection: &mut MultiplexedConnection,
        replicas: &mut Replicas,
    ) -> Option<String> {
        let must_be_kept = |batch: &Self| batch.calls.iter().any(|call| call.request.kept);
        if replicas.are_wanted()
            && must_be_kept(&self)
            && let Err(failure) = self.check_replicas(connection, replicas).await
        {
            self.calls.into_iter().for_each(Call::refuse);
            return Some(failure);
        }
        let waits = replicas.are_wanted() && must_be_kept(&self);
        let bulk = self.calls.len() > limits::BULK_ABOVE;
        let mut pipeline = redis::Pipeline::with_capacity(self.calls.len() + 1);
        let mut reads = Vec::with_capacity(self.calls.len());
        for Call { request, read } in self.calls {
            pipeline.add_command(request.command);
            reads.push((read, request.kept));
        }
        if waits {
            replicas.wait(&mut pipeline);
        }
        let count = reads.len() + usize::from(waits);
        let sending = connection.send_packed_commands(&pipeline, 0, count);
        let sent = match timeout(limits::REDIS_TIMEOUT, sending).await {
            Ok(sent) => sent.map_err(|error| discovery::plain(&error)),
            Err(_) => Err("it did not answer in time".to_owned()),
        };
        let sent = match sent {
            Ok(values) if values.len() != count => Err("it answered something else".to_owned()),
            sent => sent,
        };
        let mut values = match sent {
            Ok(values) => values,
            Err(failure) => {
                reads.into_iter().for_each(|(read, _)| read(Reply::failed(EngineError::IN_DOUBT)));
                return Some(failure);
            }
        };
        let mut failure = None;
        let have = if waits { values.pop() } else { None };
        let replicated = match have.map(|have| answered(have, &mut failure)) {
            None => true,
            Some(Ok(Value::Int(have))) => replicas.have(have),
            Some(_) => false,
        };
        for ((read, kept), value) in reads.into_iter().zip(values) {
            let value = answered(value, &mut failure);
            read(Reply { value, bulk, unsafe_yet: kept && !replicated });
        }
        failure
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    /// In plain words.
    #[error("{0}")]
    Failed(String),
    /// The server answers, and must not be used.
    #[error(transparent)]
    Obstacle(#[from] Obstacle),
}

impl ConnectError {
    const fn obstacle(&self) -> Option<Obstacle> {
        match self {
            Self::Failed(_) => None,
            Self::Obstacle(obstacle) => Some(*obstacle),
        }
    }
}

impl From<String> for ConnectError {
    fn from(failure: String) -> Self {
        Self::Failed(failure)
    }
}

/// A connection, ready to have scripts called by their hashes.
async fn connect(endpoint: &Endpoint) -> Result<(MultiplexedConnection, Arc<str>), ConnectError> {
    let config = AsyncConnectionConfig::new();
    let mut connection = endpoint.connect(ProtocolVersion::RESP2, config).await?;
    let server = discovery::identity(&mut connection).await?.server.into();
    if inspection::evicts(&mut connection).await? {
        return Err(Obstacle::Evicts.into());
    }
    let mut load = redis::pipe();
    for script in script::all() {
        load.cmd("SCRIPT").arg("LOAD").arg(script.code);
    }
    let loaded: Result<(), _> = load.exec_async(&mut connection).await;
    loaded.map_err(|error| discovery::plain(&error))?;
    Ok((connection, server))
}

/// Tells an answer from a refusal. After some of these the connection is of no use.
fn answered(value: Value, failure: &mut Option<String>) -> Result<Value, EngineError> {
    let Value::ServerError(error) = value else { return Ok(value) };
    if error.code() == "OOM" {
        return Err(EngineError::Full { limit: "maxmemory of Redis" });
    }
    let error = RedisError::from(error);
    let refuses_all = matches!(
        error.kind(),
        ErrorKind::Server(
            ServerErrorKind::NoScript
                | ServerErrorKind::Moved
                | ServerErrorKind::Ask
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ReadOnly
                | ServerErrorKind::BusyLoading
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ClusterDown
        )
    ) || error.code() == Some("NOAUTH");
    if refuses_all {
        *failure = Some(discovery::plain(&error));
        return Err(EngineError::UNAVAILABLE);
    }
    if matches!(error.code(), Some("MISCONF" | "NOREPLICAS" | "BUSY")) {
        return Err(EngineError::UNAVAILABLE);
    }
    // Of this call alone; a script may have done a part of it.
    warn!(error = discovery::plain(&error), "Redis could not do what it was asked");
    Err(EngineError::IN_DOUBT)
}

/// The pauses between attempts: doubled from 50 ms to half a second, and a random part of each, so that many nodes do not come
/// at once. Players wait for the end of the last one.
#[derive(Debug)]
pub(super) struct Pauses {
    most: Duration,
    began: Instant,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { most: Self::FIRST, began: Instant::now() }
    }
}

impl Pauses {
    const FIRST: Duration = Duration::from_millis(50);
    const LAST: Duration = Duration::from_millis(500);
    /// A connection that held for so long was a good one.
    const GOOD_AFTER: Duration = Duration::from_secs(4);

    /// It is connected.
    pub(super) fn reset(&mut self) {
        self.began = Instant::now();
    }

    pub(super) fn next(&mut self) -> Duration {
        if self.began.elapsed() > Self::GOOD_AFTER {
            self.most = Self::FIRST;
        }
        self.began = Instant::now();
        let pause = self.most.mul_f64(rand::random_range(0.5..1.0));
        self.most = Self::LAST.min(self.most * 2);
        pause
    }
}
