//! The nodes, what is done to them, and the backend that pushes all the while.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use duelhub::server::Addresses;
use duelhub_testkit::redis_server::RedisServer;
use duelhub_testkit::{Backend, HowToEnd, Hub, Site, is_ready, numbered, soon, until};
use tokio::task::JoinSet;

use super::roaming_player::RoamingPlayer;

const DUELS: u64 = 6;

/// How far it is.
#[derive(Debug)]
struct Progress {
    /// The highest number that was begun to be pushed.
    highest: AtomicU64,
    /// The last one, once it is known.
    last: Arc<AtomicU64>,
}

/// Pushes to one node after the other, with a key, until one has answered; numbered like the seqs, up to the last.
async fn push_all(nodes: Arc<[Addresses]>, duel: u64, progress: Arc<Progress>) {
    let (mut node, mut n) = (0, 0);
    while n < progress.last.load(Ordering::Relaxed) {
        n += 1;
        progress.highest.fetch_max(n, Ordering::Relaxed);
        let pushing = async {
            while !push(&nodes[node % nodes.len()], duel, n).await {
                node += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon("a push", pushing).await;
        node += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Pushes to a node, which may not be there: whether it has answered.
async fn push(node: &Addresses, duel: u64, n: u64) -> bool {
    let Ok(pushed) = Backend::lazy(node).try_push(numbered(duel, n)).await else { return false };
    assert_eq!(pushed.position.map(|position| position.seq), Some(n), "a key counts once");
    true
}

/// Where nodes of one Redis live, on ports that stay the same.
pub(super) fn sites(redis: &RedisServer, count: usize) -> Vec<Site> {
    let site = || {
        let site = Site::new().with("ENGINE", "redis").with("REDIS_URL", redis.url());
        // A restart sends everybody to the others, spread over half a second.
        site.with("WEBSOCKET_DRAIN_SECONDS", "0.5").on_ports_of_its_own()
    };
    (0..count).map(|_| site()).collect()
}

pub(super) async fn start(sites: &[Site]) -> Vec<Hub> {
    let mut hubs = Vec::new();
    for site in sites {
        hubs.push(site.start().await);
    }
    hubs
}

/// Restarts the nodes one after the other, and then kills them one after the other, while players and backends reach them
/// at these addresses.
pub(super) async fn restart_all(sites: &[Site], hubs: Vec<Hub>, nodes: Arc<[Addresses]>) {
    let last = Arc::new(AtomicU64::new(u64::MAX));
    let progress = Arc::new(Progress { highest: AtomicU64::new(0), last: Arc::clone(&last) });
    let entered = Arc::<AtomicU64>::default();
    let (mut players, mut pushing) = (JoinSet::new(), JoinSet::new());
    for duel in 1..=DUELS {
        pushing.spawn(push_all(Arc::clone(&nodes), duel, Arc::clone(&progress)));
        for (user, node) in [(1, duel), (2, duel + 1)] {
            let (nodes, node) = (Arc::clone(&nodes), usize::try_from(node).unwrap());
            let player = RoamingPlayer::new(nodes, (duel, user), node, Arc::clone(&entered));
            players.spawn(player.follow(Arc::clone(&last)));
        }
    }
    until("all come in", async || entered.load(Ordering::Relaxed) == 2 * DUELS).await;
    let mut hubs: Vec<_> = hubs.into_iter().map(Some).collect();
    for how in [HowToEnd::Term, HowToEnd::Kill] {
        for (site, hub) in sites.iter().zip(&mut hubs) {
            let old = hub.take().expect("it runs");
            is_ready(&old).await;
            old.end(how).await;
            let new = site.start().await;
            is_ready(&new).await;
            *hub = Some(new);
        }
    }
    // Beyond what any duel can have by now.
    last.store(progress.highest.load(Ordering::Relaxed) + 10, Ordering::Relaxed);
    pushing.join_all().await;
    let players = soon("everything arrives", players.join_all()).await;
    assert!(players.iter().all(|player| player.entries > 1), "everybody had to come back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_restarted_and_killed_and_nobody_misses_anything() {
    let redis = RedisServer::start(&[]);
    let sites = sites(&redis, 3);
    let hubs = start(&sites).await;
    let nodes = hubs.iter().map(|hub| hub.addresses).collect();
    restart_all(&sites, hubs, nodes).await;
}
