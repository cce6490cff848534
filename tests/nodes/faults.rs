//! Redis is slow, away, full; what it tells is lost; connections are cut. What every player sees all the same.

use std::time::Duration;

use duelhub::config::EngineConfig;
use duelhub::engine::{AppendError, EngineError, RedeemError, Revocation, StatusFilter};
use duelhub::event::Outcome;
use duelhub::hub::{ResyncRequired, WatchError};
use duelhub::limits;
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use crate::kit::{DEADLINE, Node, SYNC_INTERVAL, id_of, roomy, ticket, until, user};
use crate::proxy::{Proxy, Weather};
use crate::redis_server::RedisServer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_last_message_that_was_lost_is_found_by_the_next_sweep() {
    let (_redis, network, pushing, deaf) = Node::one_behind_proxy().await;
    deaf.ready().await;
    let mut player = deaf.player(7, 1).await;
    network.set(Weather::Untold);
    for nth in 1..=5 {
        pushing.push(7, nth).await.unwrap();
        assert_eq!(player.read_until(nth).await, [nth]);
    }
    assert!(deaf.metrics.sweep_repairs.get() >= 5, "nothing was told, all was found");
    until("not ready", async || deaf.hub.readiness().ready().is_none()).await;
    network.set(Weather::Fine);
    deaf.ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_slow_network_everything_goes_on() {
    const PUSHES: u64 = 200;
    let redis = RedisServer::start(&[]);
    let network = Proxy::to(redis.port()).await;
    let nodes = [Node::at(network.url()), Node::at(network.url())];
    let mut player = nodes[1].player(7, 1).await;
    network.set(Weather::Slow);
    let pushes = (1..=PUSHES).map(|nth| nodes[0].push(7, nth));
    for (pushed, nth) in join_all(pushes).await.into_iter().zip(1..) {
        assert_eq!(pushed.unwrap().position.seq, nth);
    }
    assert!(player.read_until(PUSHES).await.into_iter().eq(1..=PUSHES));
    nodes[1].ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_message_is_repaired_when_the_next_one_comes() {
    let (_redis, network, pushing, deaf) = Node::one_behind_proxy().await;
    deaf.ready().await;
    let mut player = deaf.player(7, 1).await;
    network.set(Weather::Untold);
    pushing.push(7, 1).await.unwrap();
    network.set(Weather::Fine);
    pushing.push(7, 2).await.unwrap();
    assert_eq!(player.read_until(2).await, [1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_that_are_cut_again_and_again_lose_nothing() {
    const PUSHES: u64 = 400;
    let (redis, nodes) = Node::several::<3>();
    let mut players = Vec::new();
    for duel in 1..=6 {
        players.push((duel, nodes[0].player(duel, 1).await));
        players.push((duel, nodes[1].player(duel, 2).await));
    }
    let pushing = async {
        for nth in 1..=PUSHES {
            for duel in 1..=6 {
                nodes[2].push_surely(duel, nth).await;
            }
            if nth % 40 == 0 {
                redis.ask_count("CLIENT KILL TYPE pubsub");
            }
        }
    };
    let reading = players.into_iter().map(|(_, mut player)| async move {
        assert!(player.read_until(PUSHES).await.into_iter().eq(1..=PUSHES));
    });
    tokio::join!(pushing, join_all(reading));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lacks_what_redis_will_not_give_waits_for_it_connected() {
    const PUSHES: u64 = 3 * limits::TAIL_EVENTS_MAX as u64;
    let redis = RedisServer::start(&[]);
    redis.ask("ACL SETUSER mute on nopass ~* &* +@all").unwrap();
    let (pushing, mute) =
        (Node::on(&redis), Node::at(format!("{}?user=mute&pass=any", redis.url())));
    mute.ready().await;
    let mut player = mute.player(7, 1).await;
    // It is told everything, and may ask for nothing: as when only one of its two connections is there.
    redis.ask("ACL SETUSER mute -evalsha -eval -script").unwrap();
    pushing.push_all(7, 1..=PUSHES).await;
    let probe_sees_it = async || mute.hub.readiness().ready().is_none();
    until("not ready", probe_sees_it).await;
    // The first look uses up what woke it before.
    for _look in 0..2 {
        let nothing = player.attachment.next().await.unwrap();
        assert!(nothing.is_empty(), "{nothing:?}");
        let _woken = player.attachment.woken().now_or_never();
    }
    redis.ask("ACL SETUSER mute +@all").unwrap();
    let woken = tokio::time::timeout(DEADLINE, player.attachment.woken()).await;
    assert!(woken.is_ok(), "nobody says that Redis answers again");
    assert!(player.read_until(PUSHES).await.into_iter().eq(1..=PUSHES));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lacks_what_redis_answers_for_and_does_not_give_is_sent_away() {
    let redis = RedisServer::start(&[]);
    redis.ask("ACL SETUSER blind on nopass ~* &* +@all").unwrap();
    let (pushing, blind) =
        (Node::on(&redis), Node::at(format!("{}?user=blind&pass=any", redis.url())));
    blind.ready().await;
    let mut player = blind.player(7, 1).await;
    // Sweeps need no events; only reading the log does.
    redis.ask("ACL SETUSER blind -xrange").unwrap();
    pushing.push_all(7, 1..=3 * limits::TAIL_EVENTS_MAX as u64).await;
    let gone = player.closed().await;
    assert!(
        matches!(gone, Some(ResyncRequired::Engine(EngineError::Unavailable { .. }))),
        "{gone:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_told_too_late_is_not_called_slow_and_who_does_not_read_is() {
    const LOG: usize = 4;
    let redis = RedisServer::start(&[]);
    let network = Proxy::to(redis.port()).await;
    let [near, deaf] = [redis.url(), network.url()]
        .map(|url| Node::with(EngineConfig { log_events_max: LOG, ..roomy() }, 0, url));
    deaf.ready().await;
    let mut does_not_read = near.player(7, 1).await;
    let mut reads = deaf.player(7, 2).await;
    network.set(Weather::Untold);
    near.push_all(7, 1..=2 * limits::TAIL_EVENTS_MAX as u64).await;
    assert_eq!(does_not_read.closed().await, Some(ResyncRequired::TooSlow));
    // Its node was told nothing; what the sweep finds is no longer in the log.
    assert_eq!(reads.closed().await, Some(ResyncRequired::Missed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_stands_still_leaves_pushes_in_doubt_and_players_connected() {
    let (redis, nodes) = Node::several::<2>();
    nodes[0].ready().await;
    let mut player = nodes[1].player(7, 1).await;
    nodes[0].push(7, 1).await.unwrap();
    redis.signal("STOP");
    let in_doubt = EngineError::Unavailable { may_have_taken_effect: true };
    assert_eq!(nodes[0].push(7, 2).await, Err(AppendError::Engine(in_doubt)));
    until("not ready", async || nodes[0].hub.readiness().ready().is_none()).await;
    redis.signal("CONT");
    nodes[0].push_surely(7, 2).await;
    nodes[0].push_surely(7, 3).await;
    assert_eq!(player.read_until(3).await, [1, 2, 3], "once, and the same connection");
    nodes[0].ready().await;
    nodes[1].ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_takes_nothing_new_and_keeps_everything_else_going() {
    let redis = RedisServer::start(&[]);
    let (idle, closed) = (Duration::from_secs(8), Duration::from_secs(2));
    let [one, two] = [(); 2].map(|()| {
        let config = EngineConfig { idle_retention: idle, closed_retention: closed, ..roomy() };
        Node::with(config, 0, redis.url())
    });
    one.push(7, 1).await.unwrap();
    let mut player = one.player(7, 1).await;
    let staying = two.player(7, 2).await;
    player.sees(2, true).await;
    two.hub.close(id_of(8), Outcome::Finished, None).await.unwrap();
    redis.ask("CONFIG SET maxmemory 1").unwrap();
    let full = EngineError::Full { limit: "maxmemory of Redis" };
    assert_eq!(two.push(7, 2).await, Err(AppendError::Engine(full)));
    until("not ready", async || one.hub.readiness().ready().is_none()).await;
    // Tickets can be revoked; who has to go goes, and is offline; what is over is forgotten.
    let revoked = ticket(7, 3);
    one.hub.revoke(Revocation::Ticket(revoked.jti.clone())).await.unwrap();
    two.hub.disconnect(id_of(7), Some(user(1)), false, None).await.unwrap();
    assert_eq!(player.closed().await, None);
    drop(player);
    until("offline", async || two.online(7).await == [2]).await;
    until("forgotten", async || two.hub.duel(id_of(8)).await.unwrap().is_none()).await;
    // So is what nobody is in; what is live, sweeps keep.
    sleep(2 * idle).await;
    redis.ask("CONFIG SET maxmemory 0").unwrap();
    assert_eq!(one.push(7, 2).await.unwrap().position.seq, 2);
    assert_eq!(one.engine.redeem(&revoked).await, Err(RedeemError::Revoked));
    assert_eq!(one.online(7).await, [2]);
    drop(staying);
    one.ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_takes_no_writes_can_still_be_asked() {
    let (redis, network, node, deaf) = Node::one_behind_proxy().await;
    deaf.ready().await;
    let mut player = deaf.player(7, 1).await;
    network.set(Weather::Untold);
    node.push(7, 1).await.unwrap();
    redis.ask("CONFIG SET min-replicas-to-write 1").unwrap();
    assert_eq!(player.read_until(1).await, [1], "by a sweep");
    let refused = EngineError::Unavailable { may_have_taken_effect: false };
    assert_eq!(node.push(7, 2).await, Err(AppendError::Engine(refused)));
    assert_eq!(node.hub.duels(None, StatusFilter::Any, 10).await.unwrap().len(), 1);
    assert_eq!(node.online(7).await, [1]);
    redis.ask("CONFIG SET min-replicas-to-write 0").unwrap();
    network.set(Weather::Fine);
    node.push(7, 2).await.unwrap();
    assert_eq!(player.read_until(2).await, [2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_away_refuses_pushes_and_leaves_players_connected() {
    let redis = RedisServer::start(&[]);
    let network = Proxy::to(redis.port()).await;
    let node = Node::at(network.url());
    let mut player = node.player(7, 1).await;
    network.set(Weather::Cut);
    let refused = AppendError::Engine(EngineError::Unavailable { may_have_taken_effect: false });
    until("refused", async || node.push(7, 1).await == Err(refused)).await;
    network.set(Weather::Fine);
    let again = node.push_surely(7, 1).await;
    assert_eq!(again.position.epoch, player.position.epoch, "nothing was lost");
    assert_eq!(player.read_until(1).await, [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_redis_is_back_players_are_let_in_at_once() {
    const NODES: usize = 6;
    let mut redis = RedisServer::start(&[]);
    let nodes: [_; NODES] = std::array::from_fn(|_| Node::on(&redis));
    for node in &nodes {
        node.ready().await;
    }
    redis.kill();
    sleep(Duration::from_secs(3)).await;
    redis.start_again();
    let answers = Instant::now();
    let entering = nodes.iter().map(async |node| {
        while node.enter(7, 1, None).await.is_err() {
            sleep(Duration::from_millis(5)).await;
        }
        answers.elapsed()
    });
    let mut took = join_all(entering).await;
    took.sort();
    assert!(took[NODES - 1] < Duration::from_millis(1500), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_added_does_not_stop_what_is_told() {
    let (redis, nodes) = Node::several::<2>();
    nodes[0].push_surely(7, 1).await;
    // The server's replication id is another one from now on, and so is the epoch.
    let _replica = RedisServer::start(&["--replicaof", &format!("127.0.0.1 {}", redis.port())]);
    until("attached", async || redis.ask("INFO replication").unwrap().contains("state=online"))
        .await;
    let mut player = nodes[1].player(7, 1).await;
    nodes[0].ready().await;
    // For longer than it takes until a channel is looked at again, twice.
    let (started, mut nth) = (Instant::now(), 1);
    while started.elapsed() < 3 * limits::PROBE_INTERVAL {
        nth += 1;
        nodes[0].push_surely(7, nth).await;
        player.read_until(nth).await;
    }
    // A sweep may be ahead of what is told now and then; were nothing told, it would find each of them.
    let found = nodes[1].metrics.sweep_repairs.get();
    assert!(found * 10 < nth, "{found} of {nth} were found, not told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_was_away_for_long_takes_nobody_offline() {
    let (redis, nodes) = Node::several::<3>();
    let mut one = nodes[0].player(7, 1).await;
    let _two = nodes[1].player(7, 2).await;
    one.sees(2, true).await;
    let mut watch = nodes[2].watch_all().await;
    redis.signal("STOP");
    sleep(limits::NODE_LEASE + Duration::from_secs(1)).await;
    redis.signal("CONT");
    assert_eq!(
        watch.next().await.err(),
        Some(WatchError::Interrupted),
        "it may have missed something"
    );
    for node in &nodes {
        node.ready().await;
    }
    nodes[2].push_surely(7, 1).await;
    while one.position.seq < 1 {
        let batch = one.attachment.next().await.unwrap();
        assert_eq!(batch.presence, [], "nobody has gone");
        one.position.seq += batch.events.len() as u64;
        if batch.is_empty() {
            one.attachment.woken().await;
        }
    }
    assert_eq!(nodes[2].online(7).await, [1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_cut_off_catches_up_when_it_is_back() {
    let (_redis, network, pushing, cut_off) = Node::one_behind_proxy().await;
    let mut one = pushing.player(7, 1).await;
    let mut two = cut_off.player(7, 2).await;
    one.sees(2, true).await;
    network.set(Weather::Silent);
    pushing.push_all(7, 1..=50).await;
    one.sees(2, false).await;
    network.set(Weather::Fine);
    assert!(two.read_until(50).await.into_iter().eq(1..=50));
    until("online again", async || pushing.online(7).await == [1, 2]).await;
    assert_eq!(pushing.hub.duel(id_of(7)).await.unwrap().unwrap().online.len(), 2);
}

/// How often Redis has looked at a duel.
fn looks(redis: &RedisServer) -> u64 {
    let stats = redis.ask("INFO commandstats").unwrap();
    let row = stats.lines().find_map(|line| line.strip_prefix("cmdstat_hmget:calls="));
    row.and_then(|row| row.split(',').next()?.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quiet_duels_are_not_asked_about_until_something_may_have_been_missed() {
    const DUELS: u64 = 200;
    let (redis, nodes) = Node::several::<2>();
    let mut players = nodes[0].players(1..=DUELS).await;
    until("all was compared once", async || {
        let before = looks(&redis);
        sleep(2 * SYNC_INTERVAL).await;
        looks(&redis) - before < DUELS / 2
    })
    .await;
    // What is pushed meanwhile is told, and costs no more.
    nodes[1].push_all(1, 1..=5).await;
    players[0].read_until(5).await;
    // Redis ends the connections on which it tells: anything may have been missed.
    let before = looks(&redis);
    redis.ask_count("CLIENT KILL TYPE pubsub");
    until("all is compared again", async || looks(&redis) - before >= DUELS).await;
}
