//! Nodes in this process that share one Redis, and players on them, without sockets, who check what they see.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use duelhub::config::{EngineConfig, HubConfig, RedisConfig, Secret};
use duelhub::engine::{AppendError, Engine, EngineError, RedisEngine};
use duelhub::event::{Content, Position};
use duelhub::hub::{
    AttachError, Attachment, Hub, Pushed, Recovery, ResyncRequired, Watch, WatchFilter,
};
use duelhub::id::UserId;
use duelhub::metrics::Metrics;
use duelhub::ticket::Ticket;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::fixtures::{id_of, nth_of, ticket, update};
use crate::proxy::Proxy;
use crate::redis_server::RedisServer;
use crate::until;

/// How long anything may take that works. Generous: a busy machine is no failure.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Between repair sweeps.
pub const SYNC_INTERVAL: Duration = Duration::from_millis(500);

/// Over which who has to come back is sent away.
pub const DRAIN: Duration = Duration::from_secs(3);

/// One node. Dropping it is what a kill is to the others.
#[derive(Debug)]
pub struct Node {
    /// Does its background work until the node is dropped.
    pub hub: Arc<Hub>,
    /// What the hub stores with.
    pub engine: Arc<dyn Engine>,
    /// What the hub counts.
    pub metrics: Arc<Metrics>,
    _work: AbortOnDropHandle<()>,
}

impl Node {
    /// A Redis that keeps nothing on the disk, and nodes on it.
    pub fn several<const N: usize>() -> (RedisServer, [Self; N]) {
        let redis = RedisServer::start(&[]);
        let nodes = std::array::from_fn(|_| Self::on(&redis));
        (redis, nodes)
    }

    /// A Redis that keeps nothing on the disk, and two nodes on it, of which the second reaches it over that network.
    pub async fn one_behind_proxy() -> (RedisServer, Proxy, Self, Self) {
        let redis = RedisServer::start(&[]);
        let network = Proxy::to(redis.port()).await;
        let (near, far) = (Self::on(&redis), Self::at(network.url()));
        (redis, network, near, far)
    }

    /// One that shares its duels with all others on `redis`.
    pub fn on(redis: &RedisServer) -> Self {
        Self::at(redis.url())
    }

    /// One that reaches Redis at `url`.
    pub fn at(url: String) -> Self {
        Self::waiting_for(0, url)
    }

    /// The same, for which as many replicas must have what it acknowledges.
    pub fn waiting_for(wait_replicas: u32, url: String) -> Self {
        Self::with(roomy(), wait_replicas, url)
    }

    /// One with an engine of these bounds.
    pub fn with(config: EngineConfig, wait_replicas: u32, url: String) -> Self {
        let hub_config = HubConfig {
            sync_interval: SYNC_INTERVAL,
            connections_per_user_max: 3,
            presence_grace: Duration::from_millis(200),
            watchers_max: 4,
            drain: DRAIN,
            restart_gap: Duration::ZERO,
            reconnects_per_second: 1_000_000,
        };
        let redis = RedisConfig { url: Secret::new(url), prefix: "test".to_owned(), wait_replicas };
        let engine: Arc<dyn Engine> = Arc::new(RedisEngine::new(config, &redis).unwrap());
        let metrics = Arc::new(Metrics::new());
        let hub = Hub::new(Arc::clone(&engine), hub_config, Arc::clone(&metrics));
        let work = AbortOnDropHandle::new(tokio::spawn(Arc::clone(&hub).run()));
        Self { hub, engine, metrics, _work: work }
    }

    /// Waits until the node has proved its own path, now.
    pub async fn ready(&self) {
        until("ready", async || self.hub.readiness().ready().is_some()).await;
    }

    /// A player comes in, or goes on after a position, or is refused.
    pub async fn enter(
        &self,
        duel: u64,
        user: u64,
        resume: Option<Position>,
    ) -> Result<LocalPlayer, AttachError> {
        self.enter_by(&ticket(duel, user), resume).await
    }

    /// The same by a ticket.
    pub async fn enter_by(
        &self,
        ticket: &Ticket,
        resume: Option<Position>,
    ) -> Result<LocalPlayer, AttachError> {
        let (attachment, welcome) = self.hub.attach(ticket, resume).await?;
        let recovered = resume.filter(|_| welcome.recovery == Recovery::Recovered);
        Ok(LocalPlayer {
            attachment,
            // The epoch may be a new one.
            position: recovered
                .map_or(welcome.head, |resume| Position { epoch: welcome.head.epoch, ..resume }),
            recovery: welcome.recovery,
            online: welcome.online,
            duel: ticket.duel.get(),
        })
    }

    /// A player who was here before comes in, as soon as Redis is there for it.
    pub async fn back(&self, duel: u64, user: u64, resume: Position) -> LocalPlayer {
        let started = Instant::now();
        loop {
            match self.enter(duel, user, Some(resume)).await {
                Ok(back) => return back,
                Err(error) => assert!(started.elapsed() < DEADLINE, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A player comes in, who must be let in.
    pub async fn player(&self, duel: u64, user: u64) -> LocalPlayer {
        self.enter(duel, user, None).await.unwrap()
    }

    /// User 1 comes into each of these duels.
    pub async fn players(&self, duels: RangeInclusive<u64>) -> Vec<LocalPlayer> {
        let mut players = Vec::new();
        for duel in duels {
            players.push(self.player(duel, 1).await);
        }
        players
    }

    /// Pushes the `nth` update, with a key of its own.
    pub async fn push(&self, duel: u64, nth: u64) -> Result<Pushed, AppendError> {
        self.hub.push(id_of(duel), update(duel, nth), Some(format!("{duel}-{nth}").into())).await
    }

    /// Pushes these updates, each of which must be stored.
    pub async fn push_all(&self, duel: u64, nths: RangeInclusive<u64>) {
        for nth in nths {
            self.push(duel, nth).await.unwrap();
        }
    }

    /// Pushes until it is answered that it is stored, as a backend does.
    pub async fn push_surely(&self, duel: u64, nth: u64) -> Pushed {
        let started = Instant::now();
        loop {
            match self.push(duel, nth).await {
                Ok(pushed) => return pushed,
                Err(AppendError::Engine(EngineError::Unavailable { .. })) => {
                    assert!(started.elapsed() < DEADLINE, "it never works again");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The users online in a duel, as this node says.
    pub async fn online(&self, duel: u64) -> Vec<u64> {
        let view = self.hub.duel(id_of(duel)).await.unwrap();
        let online = view.map(|view| view.online).unwrap_or_default();
        online.into_iter().map(|online| online.user.get()).collect()
    }

    /// A watch that has seen the state at the start.
    pub async fn watch_all(&self) -> Watch {
        let watch = self.hub.watch(WatchFilter::All).unwrap();
        let mut after = None;
        while let (_, _, Some(next)) = watch.state(after).await.unwrap() {
            after = Some(next);
        }
        watch
    }
}

/// Somebody in a duel, who insists on every event, in order, once.
#[derive(Debug)]
pub struct LocalPlayer {
    /// The connection.
    pub attachment: Attachment,
    /// Of the last event read, or where the connection began.
    pub position: Position,
    /// What the player was told when it began.
    pub recovery: Recovery,
    /// Who was online then.
    pub online: Vec<UserId>,
    duel: u64,
}

impl LocalPlayer {
    /// Reads what there is, after waiting for it. The bodies' numbers, in order.
    pub async fn read(&mut self) -> Result<Vec<u64>, ResyncRequired> {
        let mut seen = Vec::new();
        let batch = self.attachment.next().await?;
        if batch.is_empty() {
            self.attachment.woken().await;
        }
        for event in &batch.events {
            assert_eq!(event.seq, self.position.seq + 1, "each event once and in order");
            self.position.seq = event.seq;
            if let Content::Pushed(push) = &event.content {
                seen.push(nth_of(push));
            }
        }
        Ok(seen)
    }

    /// Reads until `nth` was seen, and nothing else but what came before it in order.
    pub async fn read_until(&mut self, nth: u64) -> Vec<u64> {
        let mut seen = Vec::new();
        let reading = async {
            while seen.last() != Some(&nth) {
                seen.extend(self.read().await.unwrap());
            }
        };
        let read = timeout(DEADLINE, reading).await;
        assert!(read.is_ok(), "duel {}: {nth} never came, only {seen:?}", self.duel);
        seen
    }

    /// Waits until the hub wants the connection to close, or cannot serve it.
    pub async fn closed(&mut self) -> Option<ResyncRequired> {
        let closing = async {
            loop {
                if self.attachment.close_request().is_some() {
                    return None;
                }
                if let Err(lost) = self.read().await {
                    return Some(lost);
                }
            }
        };
        timeout(DEADLINE, closing).await.expect("the connection stays open")
    }

    /// Reads until a change of presence says that `user` came or went; of the events nothing is expected.
    pub async fn sees(&mut self, user: u64, online: bool) {
        let seeing = async {
            loop {
                let batch = self.attachment.next().await.unwrap();
                self.position.seq = batch.events.last().map_or(self.position.seq, |e| e.seq);
                if batch.presence.iter().any(|c| c.user.get() == user && c.online == online) {
                    return;
                }
                if batch.is_empty() {
                    self.attachment.woken().await;
                }
            }
        };
        let seen = timeout(DEADLINE, seeing).await;
        assert!(seen.is_ok(), "never seen: {user} {}", if online { "came" } else { "went" });
    }
}

/// Room for whatever a test does.
pub fn roomy() -> EngineConfig {
    let hour = Duration::from_secs(3600);
    EngineConfig {
        duels_max: 100_000,
        log_events_max: 2000,
        log_bytes_max: 16 * 1024 * 1024,
        tickets_max: 100_000,
        resume_ttl: hour,
        closed_retention: hour,
        idle_retention: hour,
    }
}
