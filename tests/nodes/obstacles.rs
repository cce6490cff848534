//! A Redis that answers and cannot be relied on: it may evict, or its replicas are missing. Nodes say so, and take nothing that
//! they could not acknowledge.

use duelhub::engine::{AppendError, EngineError, Obstacle};
use duelhub::hub::AttachError;
use duelhub_testkit::redis_topology::Sentinel;
use duelhub_testkit::{Hub, Reachable as _, Site, get, is_ready};

use crate::kit::{Node, id_of, ticket, until};
use crate::redis_server::RedisServer;

const REFUSED: EngineError = EngineError::Unavailable { may_have_taken_effect: false };
const IN_DOUBT: EngineError = EngineError::Unavailable { may_have_taken_effect: true };

fn site(redis: &RedisServer) -> Site {
    Site::new().with("ENGINE", "redis").with("REDIS_URL", redis.url())
}

/// Waits until the node is not ready, for that reason, as it says to whoever asks and in its log.
async fn is_not_ready(hub: &Hub, why: Obstacle) {
    let why = why.to_string();
    until("not ready", async || {
        let reply = get(hub.addresses().admin, "/readyz", &[]).await;
        reply.status == 503 && reply.body.contains(&why)
    })
    .await;
    until("logged", async || hub.output().contains(&why)).await;
}

/// One whose replicas need not wait for others until they are served.
fn start(options: &[&str]) -> RedisServer {
    RedisServer::start(&[&["--repl-diskless-sync-delay", "0"], options].concat())
}

fn replica_of(master: &RedisServer) -> RedisServer {
    start(&["--replicaof", &format!("127.0.0.1 {}", master.port())])
}

async fn has_replica(master: &RedisServer, is_there: bool) {
    until("known", async || {
        master.ask("INFO replication").unwrap().contains("state=online") == is_there
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_redis_may_evict_is_not_ready() {
    let redis = RedisServer::start(&["--maxmemory", "100mb"]);
    let site = site(&redis);
    let hub = site.start().await;
    is_ready(&hub).await;
    for policy in ["allkeys-lru", "volatile-ttl"] {
        redis.ask(&format!("CONFIG SET maxmemory-policy {policy}")).unwrap();
        is_not_ready(&hub, Obstacle::Evicts).await;
        let late = site.start().await;
        is_not_ready(&late, Obstacle::Evicts).await;
        redis.ask("CONFIG SET maxmemory-policy noeviction").unwrap();
        is_ready(&hub).await;
        is_ready(&late).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_replicas_are_missing_is_not_ready() {
    let redis = start(&[]);
    let replica = replica_of(&redis);
    let hub = site(&redis).with("REDIS_WAIT_REPLICAS", "1").start().await;
    is_ready(&hub).await;
    replica.signal("STOP");
    is_not_ready(&hub, Obstacle::TooFewReplicas).await;
    replica.signal("CONT");
    is_ready(&hub).await;
    drop(replica);
    is_not_ready(&hub, Obstacle::TooFewReplicas).await;
    let _another = replica_of(&redis);
    is_ready(&hub).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_replicas_nothing_is_stored_and_no_ticket_is_used() {
    let redis = start(&[]);
    let node = Node::waiting_for(1, redis.url());
    until("asked", async || node.engine.get(id_of(7)).await.is_ok()).await;
    for nth in 1..=3 {
        let ticket = ticket(7, nth);
        assert_eq!(node.push(7, nth).await, Err(AppendError::Engine(REFUSED)));
        let refused = node.hub.attach(&ticket, None).await;
        assert_eq!(refused.err(), Some(AttachError::Engine(REFUSED)));
        let mut replica = replica_of(&redis);
        has_replica(&redis, true).await;
        let pushed = node.push_surely(7, nth).await;
        assert_eq!((pushed.position.seq, pushed.duplicate), (nth, false), "it was not there");
        until("let in", async || node.hub.attach(&ticket, None).await.is_ok()).await;
        replica.kill();
        has_replica(&redis, false).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_a_replica_does_not_answer_for_is_in_doubt_and_the_next_is_refused() {
    let redis = start(&[]);
    let replica = replica_of(&redis);
    has_replica(&redis, true).await;
    let node = Node::waiting_for(1, redis.url());
    node.ready().await;
    replica.signal("STOP");
    let mut refused = Vec::new();
    for nth in 1..=4 {
        match node.push(7, nth).await {
            Err(AppendError::Engine(REFUSED)) => refused.push(nth),
            pushed => assert_eq!(pushed, Err(AppendError::Engine(IN_DOUBT))),
        }
    }
    assert!(refused.len() >= 3, "one push finds it out, perhaps the node's own: {refused:?}");
    replica.signal("CONT");
    for nth in refused {
        assert!(!node.push_surely(7, nth).await.duplicate, "{nth} was stored");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_that_waits_for_replicas_calls_nobody_slow() {
    const DUELS: u64 = 8;
    let mut old = start(&[]);
    let new = replica_of(&old);
    let sentinel = Sentinel::of(&old);
    until("found", async || sentinel.knows_a_replica()).await;
    let [pushing, serving] = [(); 2].map(|()| Node::waiting_for(1, sentinel.url()));
    for node in [&pushing, &serving] {
        node.ready().await;
    }
    let mut players = serving.players(1..=DUELS).await;
    for duel in 1..=DUELS {
        pushing.push_all(duel, 1..=3).await;
    }
    old.kill();
    until("promoted", async || new.ask("INFO replication").unwrap().contains("role:master")).await;
    let _another = replica_of(&new);
    for duel in 1..=DUELS {
        pushing.push_surely(duel, 4).await;
    }
    for player in &mut players {
        let lost = player.closed().await;
        let came_back = [None, Some(duelhub::hub::ResyncRequired::EpochChanged)];
        assert!(came_back.contains(&lost), "{lost:?}");
    }
}
