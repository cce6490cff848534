//! The backend's side of the load: tickets, and pushes at a steady rate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tonic::Status;

use super::hub::TargetHub;
use super::unary::UnaryClient;
use super::{BenchError, PushBy, frames};
use crate::demo::Client;
use crate::pb;

/// Calls of `IssueTicket` at a time.
const TICKET_CALLS_MAX: usize = 64;

/// Pushes of a stream that wait to be sent.
const STREAM_QUEUE_MAX: usize = 1024;

/// Keep-alive connections for pushes to a yardstick.
const HTTP_CONNECTIONS: usize = 16;

/// The shortest time between two pushes. At a higher rate they go a few at a time.
const PACE_MIN: Duration = Duration::from_micros(50);

/// A player who is to connect.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlayerSpec {
    pub(super) duel: u64,
    pub(super) user: u64,
    pub(super) role: pb::Role,
}

/// Pushes to be made: `count` of them at `rate` per second, in turn to the duels with the numbers up to `duels`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) by: PushBy,
    pub(super) count: u32,
    pub(super) rate: u32,
    pub(super) duels: u64,
    pub(super) payload_bytes: usize,
}

impl Plan {
    /// Returns the duel of a push. Consecutive pushes go to distant duels.
    pub(super) const fn duel(&self, push: u32) -> u64 {
        // A prime, so that all duels have their turn before any has its second.
        (push as u64 * 7919) % self.duels + 1
    }

    fn payload(&self, push: u32) -> String {
        frames::payload(self.duel(push), u64::from(push), self.payload_bytes)
    }

    fn request(&self, push: u32) -> pb::PushEventRequest {
        let duel_id = self.duel(push);
        pb::PushEventRequest {
            duel_id,
            payload_json: self.payload(push),
            ..pb::PushEventRequest::default()
        }
    }
}

/// When a push was called and answered, in nanoseconds since the bench began.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PushTiming {
    pub(super) called_ns: u64,
    /// 0: it was not answered.
    pub(super) answered_ns: u64,
}

/// The clock of the whole bench.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn ns(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Returns a ticket for each player, in their order.
pub(super) async fn tickets(
    hub: &TargetHub,
    by: PushBy,
    players: &[PlayerSpec],
) -> Result<Vec<String>, BenchError> {
    if by == PushBy::Http {
        return Ok(players.iter().map(|p| format!("{}.{}", p.duel, p.user)).collect());
    }
    let issue = |player: &PlayerSpec| {
        let mut client = hub.client.clone();
        let request = pb::IssueTicketRequest {
            duel_id: player.duel,
            user_id: player.user,
            role: player.role.into(),
            ..pb::IssueTicketRequest::default()
        };
        async move { client.issue_ticket(request).await.map(|answer| answer.into_inner().ticket) }
    };
    let mut issued =
        futures_util::stream::iter(players.iter().map(issue)).buffered(TICKET_CALLS_MAX);
    let mut tickets = Vec::with_capacity(players.len());
    while let Some(ticket) = issued.next().await {
        tickets.push(ticket.map_err(BenchError::refused("IssueTicket"))?);
    }
    Ok(tickets)
}

/// Makes the pushes of a plan. Returns when each was called and answered. Fails if one was refused.
pub(super) async fn push(
    hub: &TargetHub,
    plan: Plan,
    clock: Clock,
) -> Result<Vec<PushTiming>, BenchError> {
    match plan.by {
        PushBy::Unary => push_unary(hub, plan, clock).await,
        PushBy::Stream => push_stream(hub.client.clone(), plan, clock).await,
        PushBy::Http => push_http(hub.data[0], plan, clock).await,
    }
}

/// Paces the pushes. A thread of its own keeps the time: with the runtime's ticks of a millisecond, 2,000 pushes per second
/// would come two by two, and the second of them would wait for the first.
struct Pacer {
    tick: Arc<Notify>,
    /// Dropping it ends the thread.
    _running: std::sync::mpsc::SyncSender<()>,
    started: Instant,
    plan: Plan,
    next: u32,
}

impl Pacer {
    fn new(plan: Plan) -> Result<Self, BenchError> {
        let pace = (Duration::from_secs(1) / plan.rate.max(1)).max(PACE_MIN);
        let (tick, started) = (Arc::new(Notify::new()), Instant::now());
        let (running, ended) = std::sync::mpsc::sync_channel(0);
        let ticking = Arc::clone(&tick);
        let thread = std::thread::Builder::new().name("duelhub-pacer".to_owned());
        let thread = thread.spawn(move || {
            let mut due = started;
            let mut wait = || {
                due += pace;
                ended.recv_timeout(due.saturating_duration_since(Instant::now()))
            };
            while wait() == Err(RecvTimeoutError::Timeout) {
                ticking.notify_one();
            }
        });
        thread.map_err(BenchError::machine("a thread for the pace"))?;
        Ok(Self { tick, _running: running, started, plan, next: 0 })
    }

    async fn due(&mut self) -> std::ops::Range<u32> {
        loop {
            let due = self.started.elapsed().as_secs_f64() * f64::from(self.plan.rate);
            // A plan ends long before a u32 does, and a float cast saturates.
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "bounded by count"
            )]
            let due = (due as u32).min(self.plan.count);
            if due > self.next || due == self.plan.count {
                let from = std::mem::replace(&mut self.next, due);
                return from..due;
            }
            self.tick.notified().await;
        }
    }
}

async fn push_unary(
    hub: &TargetHub,
    plan: Plan,
    clock: Clock,
) -> Result<Vec<PushTiming>, BenchError> {
    let connection = UnaryClient::connect(hub).await?;
    let (mut pacer, mut calls) = (Pacer::new(plan)?, JoinSet::new());
    let mut pushed = vec![PushTiming::default(); plan.count as usize];
    while pacer.next < plan.count {
        for push in pacer.due().await {
            let called_ns = clock.ns();
            let answer = connection.push(&plan.request(push));
            calls.spawn(async move {
                answer.await?;
                Ok::<_, Status>((push, PushTiming { called_ns, answered_ns: clock.ns() }))
            });
        }
        while let Some(call) = calls.try_join_next() {
            note(&mut pushed, call)?;
        }
    }
    while let Some(call) = calls.join_next().await {
        note(&mut pushed, call)?;
    }
    Ok(pushed)
}

fn note(
    pushed: &mut [PushTiming],
    call: Result<Result<(u32, PushTiming), Status>, tokio::task::JoinError>,
) -> Result<(), BenchError> {
    let call = call.unwrap_or_else(|error| Err(Status::internal(error.to_string())));
    let (push, figures) = call.map_err(BenchError::refused("PushEvent"))?;
    pushed[push as usize] = figures;
    Ok(())
}

async fn push_stream(
    mut client: Client,
    plan: Plan,
    clock: Clock,
) -> Result<Vec<PushTiming>, BenchError> {
    let (sender, receiver) = mpsc::channel(STREAM_QUEUE_MAX);
    let requests = futures_util::stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|request| (request, receiver))
    });
    let sending = tokio::spawn(async move {
        let (mut pacer, mut called) = (Pacer::new(plan)?, Vec::new());
        while pacer.next < plan.count {
            for push in pacer.due().await {
                called.push(clock.ns());
                let (tag, push) = (u64::from(push), Some(plan.request(push)));
                if sender.send(pb::PushEventsRequest { tag, push }).await.is_err() {
                    return Ok(called);
                }
            }
        }
        Ok::<_, BenchError>(called)
    });
    let refused = BenchError::refused("PushEvents");
    let mut answers = client.push_events(requests).await.map_err(refused)?.into_inner();
    let mut answered = Vec::with_capacity(plan.count as usize);
    while answered.len() < plan.count as usize {
        let answer = answers.message().await.map_err(BenchError::refused("PushEvents"))?;
        match answer.and_then(|answer| answer.outcome) {
            Some(pb::push_events_response::Outcome::Pushed(_)) => answered.push(clock.ns()),
            Some(pb::push_events_response::Outcome::Error(error)) => {
                return Err(BenchError::refused("PushEvents")(Status::aborted(error.message)));
            }
            None => return Err(BenchError::refused("PushEvents")(Status::aborted("no answer"))),
        }
    }
    let called = sending.await.unwrap_or_else(|_| Ok(Vec::new()))?;
    let both = called.into_iter().zip(answered);
    Ok(both.map(|(called_ns, answered_ns)| PushTiming { called_ns, answered_ns }).collect())
}

async fn push_http(
    hub: SocketAddr,
    plan: Plan,
    clock: Clock,
) -> Result<Vec<PushTiming>, BenchError> {
    let failed = BenchError::machine("a push over HTTP");
    let (sender, receiver) = mpsc::channel::<(u32, u64)>(STREAM_QUEUE_MAX);
    let receiver = Arc::new(tokio::sync::Mutex::new(receiver));
    let mut workers = JoinSet::new();
    for _ in 0..HTTP_CONNECTIONS {
        let receiver = Arc::clone(&receiver);
        workers.spawn(async move {
            let (mut stream, mut pushed) = (TcpStream::connect(hub).await?, Vec::new());
            stream.set_nodelay(true)?;
            // While the queue is locked, nothing happens but waiting for the next push.
            while let Some((push, called_ns)) = { receiver.lock().await.recv().await } {
                post(&mut stream, plan.duel(push), &plan.payload(push)).await?;
                pushed.push((push, PushTiming { called_ns, answered_ns: clock.ns() }));
            }
            Ok::<_, std::io::Error>(pushed)
        });
    }
    let mut pacer = Pacer::new(plan)?;
    while pacer.next < plan.count {
        for push in pacer.due().await {
            let _sent = sender.send((push, clock.ns())).await;
        }
    }
    drop(sender);
    let mut pushed = vec![PushTiming::default(); plan.count as usize];
    let done = workers.join_all().await.into_iter().collect::<Result<Vec<_>, _>>();
    for (push, figures) in done.map_err(failed)?.into_iter().flatten() {
        pushed[push as usize] = figures;
    }
    Ok(pushed)
}

async fn post(stream: &mut TcpStream, duel: u64, payload: &str) -> std::io::Result<()> {
    let length = payload.len();
    let request = format!(
        "POST /push?duel={duel} HTTP/1.1\r\nhost: bench\r\ncontent-length: {length}\r\n\r\n{payload}"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(256);
    while !answer.ends_with(b"\r\n\r\n{}") {
        if stream.read_buf(&mut answer).await? == 0 || answer.len() > 4096 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    if answer.starts_with(b"HTTP/1.1 200") {
        return Ok(());
    }
    Err(std::io::ErrorKind::InvalidData.into())
}
