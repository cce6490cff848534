//! What a fault of Redis or of the network costs players and backends, on three nodes: `cargo bench --bench faults`.
//!
//! 12 duels, each pushed to 40 times a second through all nodes in turn, and two players in each, on different nodes, who come back
//! by themselves. Everybody who was never told that something is gone must have seen every push once and in order. Shown is how
//! long the slowest push took until it was answered, repeated until then; how long after its answer the last player had an
//! event, at worst; and how often players had to come back. Sweeps are every 0.5 s, and who has to come back is sent away over 3 s.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use duelhub::event::Position;
use duelhub::hub::Recovery;
use duelhub_testkit::node::{LocalPlayer, Node};
use duelhub_testkit::proxy::{Proxy, Weather};
use duelhub_testkit::redis_server::RedisServer;
use duelhub_testkit::redis_topology::{Cluster, Sentinel};
use duelhub_testkit::until;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const NODES: usize = 3;
const DUELS: u64 = 12;
const PAUSE: Duration = Duration::from_millis(25);
/// Before and after a fault.
const CALM: Duration = Duration::from_secs(2);
/// How long most faults last.
const FAULT: Duration = Duration::from_secs(3);
/// Who has not seen the last event by then never will.
const PATIENCE: Duration = Duration::from_secs(60);

const KEEPS_ALL: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Slow,
    Untold,
    ChannelsKilled,
    HalfOpen,
    Cut,
    StandsStill,
    Killed,
    FailedOver,
    Flushed,
    SlotMoved,
}

const FAULTS: &[(Fault, &str)] = &[
    (Fault::None, "none"),
    (Fault::Slow, "Redis is 20 ms away, each way, for 3 s"),
    (Fault::Untold, "what Redis tells does not reach one node, for 3 s"),
    (Fault::ChannelsKilled, "`CLIENT KILL TYPE pubsub` each second, 5 times"),
    (Fault::HalfOpen, "nothing passes between one node and Redis, silently, for 3 s"),
    (Fault::Cut, "the connections of one node are cut and refused, for 3 s"),
    (Fault::StandsStill, "Redis stands still (SIGSTOP) for 30 s"),
    (Fault::Killed, "`kill -9` of Redis, back after 1 s with everything"),
    (Fault::FailedOver, "`kill -9`, and Sentinel promotes a replica that lacks the newest pushes"),
    (Fault::Flushed, "`FLUSHALL`"),
    (Fault::SlotMoved, "a slot of a Cluster of three moves"),
];

/// Redis in one of its forms, and the nodes on it.
struct World {
    redis: Vec<RedisServer>,
    sentinel: Option<Sentinel>,
    cluster: Option<Cluster>,
    networks: Vec<Proxy>,
    nodes: Arc<Vec<Node>>,
}

impl World {
    async fn new(fault: Fault) -> Self {
        let mut world = Self {
            redis: Vec::new(),
            sentinel: None,
            cluster: None,
            networks: Vec::new(),
            nodes: Arc::default(),
        };
        let mut urls = Vec::new();
        match fault {
            Fault::SlotMoved => {
                let cluster = Cluster::start().await;
                urls = vec![cluster.url(); NODES];
                world.cluster = Some(cluster);
            }
            Fault::FailedOver => {
                let old = RedisServer::start(&[]);
                let master = format!("127.0.0.1 {}", old.port());
                let new = RedisServer::start(&["--replicaof", &master]);
                let sentinel = Sentinel::of(&old);
                until("found", async || sentinel.knows_a_replica()).await;
                urls = vec![sentinel.url(); NODES];
                (world.redis, world.sentinel) = (vec![old, new], Some(sentinel));
            }
            Fault::None
            | Fault::Slow
            | Fault::Untold
            | Fault::ChannelsKilled
            | Fault::HalfOpen
            | Fault::Cut
            | Fault::StandsStill
            | Fault::Killed
            | Fault::Flushed => {
                let redis = RedisServer::start(KEEPS_ALL);
                for _ in 0..NODES {
                    let network = Proxy::to(redis.port()).await;
                    urls.push(network.url());
                    world.networks.push(network);
                }
                world.redis.push(redis);
            }
        }
        world.nodes = Arc::new(urls.into_iter().map(Node::at).collect());
        for node in &*world.nodes {
            node.ready().await;
        }
        world
    }

    async fn suffer(&mut self, fault: Fault) {
        match fault {
            Fault::None => sleep(FAULT).await,
            Fault::Slow => self.under(Weather::Slow, NODES).await,
            Fault::Untold => self.under(Weather::Untold, 1).await,
            Fault::HalfOpen => self.under(Weather::Silent, 1).await,
            Fault::Cut => self.under(Weather::Cut, 1).await,
            Fault::ChannelsKilled => {
                for _ in 0..5 {
                    self.redis[0].ask_count("CLIENT KILL TYPE pubsub");
                    sleep(Duration::from_secs(1)).await;
                }
            }
            Fault::StandsStill => {
                self.redis[0].signal("STOP");
                sleep(Duration::from_secs(30)).await;
                self.redis[0].signal("CONT");
            }
            Fault::Killed => {
                self.redis[0].kill();
                sleep(Duration::from_secs(1)).await;
                self.redis[0].start_again();
            }
            Fault::FailedOver => {
                self.redis[1].signal("STOP");
                self.redis[0].ask_count("CLIENT KILL TYPE replica");
                sleep(Duration::from_millis(200)).await;
                self.redis[0].kill();
                self.redis[1].signal("CONT");
            }
            Fault::Flushed => drop(self.redis[0].ask("FLUSHALL").unwrap()),
            Fault::SlotMoved => self.cluster.as_ref().unwrap().move_slot_of("{test:07}:7"),
        }
    }

    async fn under(&self, weather: Weather, nodes: usize) {
        self.networks[..nodes].iter().for_each(|network| network.set(weather));
        sleep(FAULT).await;
        self.networks.iter().for_each(|network| network.set(Weather::Fine));
    }
}

/// What became of a duel's pushes.
struct Pushed {
    duel: u64,
    last: Position,
    answered: HashMap<u64, Instant>,
    slowest: Duration,
}

/// Pushes, each one until it is answered, until it is told to stop.
async fn push(nodes: Arc<Vec<Node>>, duel: u64, stop: Arc<AtomicBool>) -> Pushed {
    let (mut answered, mut slowest, mut nth, mut tries) = (HashMap::new(), Duration::ZERO, 0, 0);
    loop {
        nth += 1;
        let begun = Instant::now();
        let pushed = loop {
            tries += 1;
            match nodes[tries % NODES].push(duel, nth).await {
                Ok(pushed) => break pushed,
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        };
        answered.insert(nth, Instant::now());
        slowest = slowest.max(begun.elapsed());
        if stop.load(Ordering::Relaxed) {
            return Pushed { duel, last: pushed.position, answered, slowest };
        }
        sleep(PAUSE).await;
    }
}

/// What a player has seen.
#[derive(Default)]
struct Seen {
    duel: u64,
    events: Vec<(u64, Instant)>,
    recovered: usize,
    not_recovered: usize,
}

/// Follows a duel, and comes back as often as it takes, until they have its last event.
async fn play(
    nodes: Arc<Vec<Node>>,
    duel: u64,
    user: u64,
    last: watch::Receiver<HashMap<u64, Position>>,
) -> Seen {
    let mut seen = Seen { duel, ..Seen::default() };
    let mut node = usize::try_from(duel + user).unwrap();
    let mut player = nodes[node % NODES].player(duel, user).await;
    let has_all = |player: &LocalPlayer| {
        last.borrow().get(&duel).is_some_and(|last| {
            player.position.epoch == last.epoch && player.position.seq >= last.seq
        })
    };
    while !has_all(&player) {
        let gone = match timeout(Duration::from_millis(50), player.read()).await {
            Ok(Ok(numbers)) => {
                seen.events.extend(numbers.into_iter().map(|number| (number, Instant::now())));
                player.attachment.close_request().is_some()
            }
            Ok(Err(_)) => true,
            Err(_) => player.attachment.close_request().is_some(),
        };
        if gone {
            let position = player.position;
            drop(player);
            node += 1;
            player = nodes[node % NODES].back(duel, user, position).await;
            match player.recovery {
                Recovery::Recovered => seen.recovered += 1,
                Recovery::NotRecovered | Recovery::Fresh => seen.not_recovered += 1,
            }
        }
    }
    seen
}

/// Once, in order, and all of it unless they were told that something is gone. How long after its answer the latest came.
fn worst_delay(seen: &Seen, pushed: &Pushed) -> Duration {
    let numbers: Vec<_> = seen.events.iter().map(|(number, _)| *number).collect();
    assert!(numbers.is_sorted_by(|one, next| one < next), "once and in order: {numbers:?}");
    if seen.not_recovered == 0 {
        let all = 1..=pushed.answered.len() as u64;
        assert!(numbers.into_iter().eq(all), "everything that was answered");
    }
    let delay =
        |(number, at): &(u64, Instant)| at.saturating_duration_since(pushed.answered[number]);
    seen.events.iter().map(delay).max().unwrap_or_default()
}

async fn run(fault: Fault, name: &str) {
    let mut world = World::new(fault).await;
    let stop = Arc::<AtomicBool>::default();
    let last = watch::Sender::new(HashMap::new());
    let (mut pushing, mut playing) = (JoinSet::new(), JoinSet::new());
    for duel in 1..=DUELS {
        for user in 1..=2 {
            playing.spawn(play(Arc::clone(&world.nodes), duel, user, last.subscribe()));
        }
    }
    sleep(CALM).await;
    for duel in 1..=DUELS {
        pushing.spawn(push(Arc::clone(&world.nodes), duel, Arc::clone(&stop)));
    }
    sleep(CALM).await;
    world.suffer(fault).await;
    sleep(CALM).await;
    stop.store(true, Ordering::Relaxed);
    let pushed: HashMap<_, _> =
        pushing.join_all().await.into_iter().map(|pushed| (pushed.duel, pushed)).collect();
    last.send_replace(pushed.values().map(|pushed| (pushed.duel, pushed.last)).collect());
    let seen =
        timeout(PATIENCE, playing.join_all()).await.expect("somebody never saw the last event");
    let slowest = pushed.values().map(|pushed| pushed.slowest).max().unwrap();
    let delay = seen.iter().map(|seen| worst_delay(seen, &pushed[&seen.duel])).max().unwrap();
    let (recovered, not_recovered) = seen
        .iter()
        .fold((0, 0), |(one, other), seen| (one + seen.recovered, other + seen.not_recovered));
    println!(
        "| {name} | {} ms | {} ms | {recovered} | {not_recovered} |",
        slowest.as_millis(),
        delay.as_millis(),
    );
    drop(world.sentinel);
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    println!("| fault | slowest push | worst delay | came back, recovered | not recovered |");
    println!("|---|---|---|---|---|");
    for (fault, name) in FAULTS {
        runtime.block_on(run(*fault, name));
    }
}
