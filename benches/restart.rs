//! What a restart in good order costs: how long a backend cannot push, and how long players are away, with two players in each
//! of 1,000 duels: `cargo bench --bench restart`.
//!
//! The real binary is told to stop by SIGTERM, and started again as soon as it has ended, which is what systemd does. One
//! backend pushes all the time, each push until it is answered. Half of the players know `retry_after_ms` and come back with
//! their resume tickets. The other half are as the WebApp was before: they wait 1.5 s, twice as long each time, up to 15 s,
//! and fetch a ticket from the backend first. Everybody who comes back checks that nothing is missing or doubled.
//! `RESTART_DUELS=5000` is another number of duels, and `RESTART_RUNS=10` of restarts.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use duelhub::server::Addresses;
use duelhub_testkit::{Backend, Frame, HowToEnd, Join, Player, Reachable as _, Site, push};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::sleep;

const DUELS: u64 = 1000;
const RUNS: u64 = 5;
/// Between two pushes, and between two attempts at one.
const PUSH_PAUSE: Duration = Duration::from_millis(5);
/// As the game's WebApp does.
const FIRST_DELAY: Duration = Duration::from_millis(1500);
const LONGEST_DELAY: Duration = Duration::from_secs(15);
const PING_EVERY: Duration = Duration::from_secs(20);
/// Before a restart, and after the last player is back.
const CALM: Duration = Duration::from_secs(2);

/// What has been measured since it was last taken.
#[derive(Debug, Default)]
struct Measured {
    knowing: Vec<Duration>,
    unknowing: Vec<Duration>,
    /// Attempts that came to nothing.
    refused: usize,
}

/// What all players share.
struct World {
    backend: Backend,
    addresses: Addresses,
    online: AtomicU64,
    measured: Mutex<Measured>,
}

/// One player, and what they need to come back.
struct Device {
    world: Arc<World>,
    duel: u64,
    user: u64,
    /// Whether it knows resume tickets and `retry_after_ms`.
    knows: bool,
    ticket: Option<String>,
    epoch: Option<String>,
    seq: u64,
}

impl Device {
    async fn play(mut self) {
        let mut player = self.enter().await.expect("the hub is there at the beginning");
        loop {
            self.world.online.fetch_add(1, Ordering::Relaxed);
            let retry_after = self.follow(&mut player).await;
            drop(player);
            self.world.online.fetch_sub(1, Ordering::Relaxed);
            let gone = Instant::now();
            let mut backoff = FIRST_DELAY;
            let mut delay = retry_after.filter(|_| self.knows).unwrap_or(backoff);
            player = loop {
                sleep(delay).await;
                if let Some(player) = self.enter().await {
                    break player;
                }
                self.world.measured.lock().refused += 1;
                (delay, backoff) = (backoff, LONGEST_DELAY.min(2 * backoff));
            };
            let mut measured = self.world.measured.lock();
            let gaps = if self.knows { &mut measured.knowing } else { &mut measured.unknowing };
            gaps.push(gone.elapsed());
        }
    }

    /// Opens a socket and reads `connected`.
    async fn enter(&mut self) -> Option<Player> {
        let ticket = match self.ticket.clone().filter(|_| self.knows) {
            Some(ticket) => ticket,
            None => self.world.backend.try_issue(self.duel, self.user).await.ok()?.ticket,
        };
        let resume = self.epoch.as_ref().map(|epoch| format!("{epoch}:{}", self.seq));
        let join = Join { ticket: Some(ticket), resume, ..Join::default() };
        let mut player = Player::try_knock(&self.world.addresses, join).await.ok()?;
        let text = player.next_text().await?;
        let frame = Frame::parse(&text);
        if frame.r#type != "connected" {
            return None;
        }
        if self.epoch.is_some() {
            assert_eq!(frame.recovered, Some(true), "everything that was acknowledged is kept");
        }
        self.epoch = frame.epoch.map(str::to_owned);
        self.ticket = frame.resume_ticket;
        player.try_send(duelhub_testkit::PING).await.ok()?;
        Some(player)
    }

    /// Follows the duel until the socket ends. Returns what the hub says about coming back.
    async fn follow(&mut self, player: &mut Player) -> Option<Duration> {
        let mut retry_after = None;
        loop {
            let Ok(text) = tokio::time::timeout(PING_EVERY, player.next_text()).await else {
                let _gone = player.try_send(duelhub_testkit::PING).await;
                continue;
            };
            let Some(text) = text else { return retry_after };
            let frame: serde_json::Value = serde_json::from_str(&text).unwrap();
            match frame["type"].as_str().unwrap() {
                "error" => {
                    retry_after = frame["retry_after_ms"].as_u64().map(Duration::from_millis);
                }
                "duel_update" => {
                    let seq = frame["seq"].as_u64().unwrap();
                    assert_eq!(seq, self.seq + 1, "duel {}, user {}", self.duel, self.user);
                    self.seq = seq;
                }
                _ => {}
            }
        }
    }
}

/// Pushes all the time. Keeps the longest time between two answers.
async fn push_always(world: Arc<World>, duels: u64, longest_ms: Arc<AtomicU64>) {
    let mut answered = Instant::now();
    for nth in 0_u64.. {
        let mut request = push(nth % duels + 1, "{}");
        request.idempotency_key = nth.to_string();
        while world.backend.try_push(request.clone()).await.is_err() {
            sleep(PUSH_PAUSE).await;
        }
        let took = u64::try_from(answered.elapsed().as_millis()).unwrap();
        longest_ms.fetch_max(took, Ordering::Relaxed);
        answered = Instant::now();
        sleep(PUSH_PAUSE).await;
    }
}

/// Returns the median, what 99 of 100 stay below, and the most, in milliseconds.
fn spread(times: &mut [Duration]) -> [u128; 3] {
    times.sort_unstable();
    let at = |share: usize| times.get((times.len() * share / 100).min(times.len() - 1));
    [50, 99, 100].map(|share| at(share).map_or(0, Duration::as_millis))
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

async fn run(duels: u64, runs: u64) {
    let site = Site::new()
        .on_ports_of_its_own()
        .with("WEBSOCKET_DRAIN_SECONDS", "5")
        .with("LOG_LEVEL", "info");
    let mut hub = site.start().await;
    let addresses = hub.addresses();
    let world = Arc::new(World {
        backend: Backend::lazy(&hub),
        addresses,
        online: AtomicU64::default(),
        measured: Mutex::default(),
    });
    let mut tasks = JoinSet::new();
    for user in 1..=2 * duels {
        let world = Arc::clone(&world);
        let (duel, knows) = (user.div_ceil(2), user % 2 == 0);
        let device = Device { world, duel, user, knows, ticket: None, epoch: None, seq: 0 };
        tasks.spawn(device.play());
        if user % 100 == 0 {
            sleep(Duration::from_millis(50)).await;
        }
    }
    let longest_ms = Arc::<AtomicU64>::default();
    until_online(&world, 2 * duels).await;
    tasks.spawn(push_always(Arc::clone(&world), duels, Arc::clone(&longest_ms)));
    println!(
        "| no push for | stopping | starting | gap p50, p99, most: knows | does not | in vain |"
    );
    println!("|---|---|---|---|---|---|");
    for _ in 0..runs {
        sleep(CALM).await;
        longest_ms.store(0, Ordering::Relaxed);
        *world.measured.lock() = Measured::default();
        let began = Instant::now();
        hub.end(HowToEnd::Term).await;
        let stopped = began.elapsed();
        hub = site.start().await;
        let started = began.elapsed() - stopped;
        until_online(&world, 2 * duels).await;
        let Measured { mut knowing, mut unknowing, refused } =
            std::mem::take(&mut *world.measured.lock());
        let (knows, old) = (spread(&mut knowing), spread(&mut unknowing));
        println!(
            "| {} ms | {} ms | {} ms | {knows:?} ms | {old:?} ms | {refused} |",
            longest_ms.load(Ordering::Relaxed),
            stopped.as_millis(),
            started.as_millis()
        );
        assert!(tasks.try_join_next().is_none(), "a player or the backend has failed");
    }
    tasks.shutdown().await;
}

async fn until_online(world: &World, wanted: u64) {
    // Somebody was away since; or everybody still is.
    while world.online.load(Ordering::Relaxed) < wanted {
        sleep(Duration::from_millis(5)).await;
    }
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(run(number("RESTART_DUELS", DUELS), number("RESTART_RUNS", RUNS)));
}
