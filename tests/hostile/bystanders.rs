//! Those who do nothing wrong: two who play, those who come in, the backend that pushes, others that connect and watch, and a probe
//! of the admin listener.

use std::sync::Arc;
use std::time::Duration;

use duelhub::pb;
use duelhub_testkit::{Backend, Join, Player};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::{SHARED, TOKEN, Target};

/// Their duel.
const DUEL: u64 = 7;

/// How long somebody waits to come in.
const PATIENCE: Duration = Duration::from_secs(3);

/// What they saw. Of two counts the first is of those at an address of their own, the second of those at the guest's.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// From a push to its delivery.
    latencies: Vec<Duration>,
    /// Events that did not come within [`PATIENCE`].
    pub(crate) lost: u64,
    pub(crate) came_in: [u64; 2],
    pub(crate) refused: [u64; 2],
    /// Backends that connected for one call.
    pub(crate) backends: Served,
    pub(crate) probes: Served,
    /// Watches that were read, and ended.
    pub(crate) watches_ended: u64,
}

/// Requests that were answered as they should be, and others.
#[derive(Debug, Default)]
pub(crate) struct Served {
    pub(crate) served: u64,
    pub(crate) refused: u64,
}

impl Served {
    const fn note(&mut self, served: bool) {
        *(if served { &mut self.served } else { &mut self.refused }) += 1;
    }
}

impl Seen {
    pub(crate) fn p99(&self) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() * 99 / 100).copied().unwrap_or_default()
    }
}

/// They act until this is dropped.
pub(crate) struct Bystanders {
    seen: Arc<Mutex<Seen>>,
    _acting: [AbortOnDropHandle<()>; 6],
}

impl Bystanders {
    pub(crate) async fn begin(target: Target) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let mut players = Vec::new();
        for user in [1, 2] {
            let ticket = target.backend.ticket(DUEL, user).await;
            let join = Join::ticket(ticket).header("x-forwarded-for", "10.0.0.1");
            players.push(Player::join(&*target.hub, join).await);
        }
        let play = tokio::spawn(play(target.clone(), players, Arc::clone(&seen)));
        let come = |shared| tokio::spawn(come_in(target.clone(), shared, Arc::clone(&seen)));
        let others = [
            tokio::spawn(connect_and_call(target.clone(), Arc::clone(&seen))),
            tokio::spawn(probe(target.clone(), Arc::clone(&seen))),
            tokio::spawn(watch(target.clone(), Arc::clone(&seen))),
        ];
        let [calls, probes, watch] = others;
        let acting = [play, come(false), come(true), calls, probes, watch];
        let acting = acting.map(AbortOnDropHandle::new);
        Self { seen, _acting: acting }
    }

    /// Returns what they see from now on for so long.
    pub(crate) async fn seen_for(&self, time: Duration) -> Seen {
        drop(std::mem::take(&mut *self.seen.lock()));
        sleep(time).await;
        std::mem::take(&mut *self.seen.lock())
    }
}

/// Pushes, and both players wait for it.
async fn play(target: Target, mut players: Vec<Player>, seen: Arc<Mutex<Seen>>) {
    let mut ticks = interval(Duration::from_millis(20));
    loop {
        ticks.tick().await;
        let pushed_at = Instant::now();
        let seq = target.backend.push(DUEL, "{}").await;
        for player in &mut players {
            let waiting = player.until(|player| player.seqs().last() == Some(&seq));
            let came = timeout(PATIENCE, waiting).await.is_ok();
            let mut seen = seen.lock();
            seen.latencies.push(pushed_at.elapsed());
            seen.lost += u64::from(!came);
            player.events.clear();
        }
    }
}

/// New people come in, stay for a moment and go.
async fn come_in(target: Target, shared: bool, seen: Arc<Mutex<Seen>>) {
    let mut ticks = interval(Duration::from_millis(40));
    let first = 1000 + 100_000 * u64::from(shared);
    for user in first.. {
        ticks.tick().await;
        let own = format!("10.1.{}.{}", user / 250 % 250, user % 250);
        let address = if shared { SHARED.to_owned() } else { own };
        let ticket = target.backend.ticket(user, user).await;
        let join = Join::ticket(ticket).header("x-forwarded-for", address);
        let coming = async {
            let mut player = Player::try_knock(&*target.hub, join).await.ok()?;
            player.next().await.then_some(player)
        };
        let came = timeout(PATIENCE, coming).await;
        let came = matches!(came, Ok(Some(player)) if player.connected["type"] == "connected");
        let mut seen = seen.lock();
        let counts = if came { &mut seen.came_in } else { &mut seen.refused };
        counts[usize::from(shared)] += 1;
    }
}

/// Backends come, call and go.
async fn connect_and_call(target: Target, seen: Arc<Mutex<Seen>>) {
    let mut ticks = interval(Duration::from_millis(100));
    loop {
        ticks.tick().await;
        let backend = Backend::with_token(&*target.hub, TOKEN);
        let mut client = backend.client.clone();
        let answered = timeout(PATIENCE, client.get_node(pb::GetNodeRequest {})).await;
        let served = matches!(answered, Ok(Ok(_)));
        seen.lock().backends.note(served);
    }
}

async fn probe(target: Target, seen: Arc<Mutex<Seen>>) {
    let mut ticks = interval(Duration::from_millis(100));
    let request = b"GET /healthz HTTP/1.1\r\nHost: hub\r\n\r\n";
    loop {
        ticks.tick().await;
        let asking = async {
            let mut stream = TcpStream::connect(target.hub.addresses.admin).await?;
            stream.write_all(request).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            std::io::Result::Ok(answer.starts_with(b"HTTP/1.1 200"))
        };
        let served = matches!(timeout(PATIENCE, asking).await, Ok(Ok(true)));
        seen.lock().probes.note(served);
    }
}

/// Watches all duels, and reads what comes.
async fn watch(target: Target, seen: Arc<Mutex<Seen>>) {
    loop {
        let backend = Backend::with_token(&*target.hub, TOKEN);
        let watch = backend.client.clone().watch_duels(pb::WatchDuelsRequest::default()).await;
        if let Ok(watch) = watch {
            let mut watch = watch.into_inner();
            while let Ok(Some(_)) = watch.message().await {}
        }
        seen.lock().watches_ended += 1;
        sleep(Duration::from_millis(100)).await;
    }
}
