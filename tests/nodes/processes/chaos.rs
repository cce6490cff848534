//! The nodes, what is done to them, and the backend that pushes all the while.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use duelhub::pb;
use duelhub::pb::control_service_client::ControlServiceClient;
use duelhub::server::Addresses;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::http::get;
use super::hub::{HowToEnd, Hub};
use super::phone::Phone;
use super::site::Site;
use super::soon;
use crate::redis_server::RedisServer;

const DUELS: u64 = 6;

/// Where the nodes are; none of them may be there at the moment.
#[derive(Debug, Clone)]
pub(super) struct Doors(Arc<Mutex<Vec<Addresses>>>);

impl Doors {
    pub(super) fn new(addresses: Vec<Addresses>) -> Self {
        Self(Arc::new(Mutex::new(addresses)))
    }

    pub(super) fn nth(&self, nth: usize) -> Addresses {
        let doors = self.0.lock();
        doors[nth % doors.len()]
    }
}

/// How far it is.
#[derive(Debug)]
struct Progress {
    /// The highest number that was begun to be pushed.
    highest: AtomicU64,
    /// The last one, once it is known.
    last: Arc<AtomicU64>,
}

pub(super) async fn ready(hub: &Hub) {
    let waiting = async {
        while get(hub.addresses.admin, "/readyz", &[]).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("ready", waiting).await;
}

/// Pushes to one node after the other, with a key, until one has answered; numbered like the seqs, up to the last.
async fn push_all(doors: Doors, duel: u64, progress: Arc<Progress>) {
    let (mut node, mut n) = (0, 0);
    while n < progress.last.load(Ordering::Relaxed) {
        n += 1;
        progress.highest.fetch_max(n, Ordering::Relaxed);
        let pushing = async {
            while push(&doors, node, duel, n).await.is_err() {
                node += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon("a push", pushing).await;
        node += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn push(doors: &Doors, node: usize, duel_id: u64, n: u64) -> anyhow::Result<()> {
    let url = format!("http://{}", doors.nth(node).control);
    let mut client = ControlServiceClient::connect(url).await?;
    let request = pb::PushEventRequest {
        duel_id,
        payload_json: format!(r#"{{"n":{n}}}"#),
        idempotency_key: n.to_string(),
        ..Default::default()
    };
    let pushed = client.push_event(request).await?.into_inner();
    assert_eq!(pushed.position.map(|position| position.seq), Some(n), "a key counts once");
    Ok(())
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

/// Restarts the nodes one after the other, and then kills them one after the other, while players and backends go in and out
/// by the doors.
pub(super) async fn renew_all(sites: &[Site], hubs: Vec<Hub>, doors: Doors) {
    let last = Arc::new(AtomicU64::new(u64::MAX));
    let progress = Arc::new(Progress { highest: AtomicU64::new(0), last: Arc::clone(&last) });
    let inside = Arc::<AtomicU64>::default();
    let (mut phones, mut pushing) = (JoinSet::new(), JoinSet::new());
    for duel in 1..=DUELS {
        pushing.spawn(push_all(doors.clone(), duel, Arc::clone(&progress)));
        for (user, node) in [(1, duel), (2, duel + 1)] {
            let (doors, node) = (doors.clone(), usize::try_from(node).unwrap());
            let phone = Phone::new(doors, (duel, user), node, Arc::clone(&inside));
            phones.spawn(phone.follow(Arc::clone(&last)));
        }
    }
    let all_inside = async {
        while inside.load(Ordering::Relaxed) < 2 * DUELS {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("all come in", all_inside).await;
    let mut hubs: Vec<_> = hubs.into_iter().map(Some).collect();
    for how in [HowToEnd::Term, HowToEnd::Kill] {
        for (site, hub) in sites.iter().zip(&mut hubs) {
            let old = hub.take().expect("it runs");
            ready(&old).await;
            old.end(how).await;
            let new = site.start().await;
            ready(&new).await;
            *hub = Some(new);
        }
    }
    // Beyond what any duel can have by now.
    last.store(progress.highest.load(Ordering::Relaxed) + 10, Ordering::Relaxed);
    pushing.join_all().await;
    let phones = soon("everything arrives", phones.join_all()).await;
    assert!(phones.iter().all(|phone| phone.came > 1), "everybody had to come back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_restarted_and_killed_and_nobody_misses_anything() {
    let redis = RedisServer::start(&[]);
    let sites = sites(&redis, 3);
    let hubs = start(&sites).await;
    let doors = Doors::new(hubs.iter().map(|hub| hub.addresses).collect());
    renew_all(&sites, hubs, doors).await;
}
