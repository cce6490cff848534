//! Redis is emptied, killed, failed over: duels go on in new epochs, or begin anew. Nobody is told `recovered` who has missed
//! something, and nobody has to start over who has not.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use duelhub::engine::EngineError;
use duelhub::event::Position;
use duelhub::hub::{AttachError, Recovery, ResyncRequired};
use duelhub_testkit::redis_topology::Sentinel;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout_at};

use crate::kit::{DRAIN, LocalPlayer, Node, id_of, ticket, until};
use crate::proxy::{Proxy, Weather};
use crate::redis_server::RedisServer;

const REFUSED: EngineError = EngineError::Unavailable { may_have_taken_effect: false };

const KEEPS_ALL: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];

/// Two nodes, a player on one of them who has seen the first push, and where that stands.
async fn one_has_seen_one(redis: &RedisServer) -> ([Node; 2], LocalPlayer, Position) {
    let nodes = [Node::on(redis), Node::on(redis)];
    let mut player = nodes[1].player(7, 1).await;
    let before = nodes[0].push(7, 1).await.unwrap().position;
    player.read_until(1).await;
    (nodes, player, before)
}

/// Everybody has to come back, is told so, and no position stands for two events.
async fn begins_anew(nodes: &[Node], before: Position, mut player: LocalPlayer) -> LocalPlayer {
    let pushed = nodes[0].push_surely(7, 100).await;
    assert_ne!(pushed.position.epoch, before.epoch);
    // A sweep that came before the push has sent them away in their turn, which was the first.
    let lost = player.closed().await;
    assert!(matches!(lost, None | Some(ResyncRequired::EpochChanged)), "{lost:?}");
    drop(player);
    let back = nodes[1].back(7, 1, before).await;
    assert_eq!(back.recovery, Recovery::NotRecovered);
    assert_eq!(back.position, pushed.position);
    back
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_flush_every_duel_begins_anew() {
    let redis = RedisServer::start(&[]);
    let (nodes, player, before) = one_has_seen_one(&redis).await;
    redis.ask("FLUSHALL").unwrap();
    let _back = begins_anew(&nodes, before, player).await;
    until("said again", async || nodes[0].online(7).await == [1]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lacks_what_a_flush_has_taken_is_not_called_slow() {
    let (redis, network, pushing, deaf) = Node::one_behind_proxy().await;
    deaf.ready().await;
    let mut player = deaf.player(7, 1).await;
    network.set(Weather::Untold);
    pushing.push_all(7, 1..=3).await;
    until("found", async || deaf.metrics.sweep_repairs.get() > 0).await;
    redis.ask("FLUSHALL").unwrap();
    // The log that the sweep has found is gone before the player's turn to read it.
    let lost = player.closed().await;
    assert!(matches!(lost, None | Some(ResyncRequired::EpochChanged)), "{lost:?}");
    drop(player);
    network.set(Weather::Fine);
    let back = deaf.back(7, 1, Position { seq: 3, ..pushing.push(7, 4).await.unwrap().position });
    assert_eq!(back.await.recovery, Recovery::NotRecovered);
}

/// Follows a duel until then, and comes back whenever it has to. Returns how often it had to.
async fn follow(node: &Node, duel: u64, user: u64, until: Instant) -> usize {
    let (mut returns, mut position) = (0, None);
    while Instant::now() < until {
        let Ok(mut player) = node.enter(duel, user, position).await else {
            sleep(Duration::from_millis(5)).await;
            continue;
        };
        let lost = timeout_at(until, player.closed()).await;
        position = Some(player.position);
        match lost {
            Err(_) => break,
            Ok(None | Some(ResyncRequired::EpochChanged)) => returns += 1,
            Ok(lost) => panic!("user {user} in duel {duel}: {lost:?}"),
        }
    }
    returns
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_flushed_under_load_nobody_who_reads_is_called_slow() {
    const DUELS: u64 = 12;
    const FLUSHES: u64 = 10;
    let redis = RedisServer::start(&[]);
    let network = Proxy::to(redis.port()).await;
    // One that is told nothing finds everything by sweeps, and is behind whenever a flush comes.
    let nodes = [Node::on(&redis), Node::on(&redis), Node::at(network.url())];
    for node in &nodes {
        node.ready().await;
    }
    network.set(Weather::Untold);
    let until = Instant::now() + Duration::from_millis(700) * u32::try_from(FLUSHES).unwrap();
    let crowd = (1..=40).map(|user| (1, user));
    let pairs = (2..=DUELS).flat_map(|duel| [(duel, 1), (duel, 2)]);
    let following = crowd.chain(pairs).zip(nodes.iter().cycle());
    let following = following.map(|((duel, user), node)| follow(node, duel, user, until));
    let pushing = async {
        for nth in 1.. {
            if Instant::now() >= until {
                return;
            }
            join_all((1..=DUELS).map(|duel| nodes[0].push_surely(duel, nth))).await;
        }
    };
    let flushing = async {
        while Instant::now() < until {
            sleep(Duration::from_millis(700)).await;
            redis.ask("FLUSHALL").unwrap();
        }
    };
    let (returns, ..) = tokio::join!(join_all(following), pushing, flushing);
    let returns: usize = returns.iter().sum();
    assert!(returns > 100, "they came back {returns} times");
}

/// Who saw no more than Redis has kept comes back to the new epoch, and has missed nothing.
async fn goes_on(nodes: &[Node], kept: Position) {
    let mut back = nodes[0].back(7, 2, kept).await;
    assert_eq!(back.recovery, Recovery::Recovered);
    assert_ne!(back.position.epoch, kept.epoch);
    assert_eq!(back.position.seq, kept.seq);
    assert_eq!(back.read_until(100).await, [100]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_that_lost_everything_every_duel_begins_anew() {
    let mut redis = RedisServer::start(&[]);
    let (nodes, player, before) = one_has_seen_one(&redis).await;
    redis.kill();
    redis.start_again();
    begins_anew(&nodes, before, player).await;
    nodes[0].ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_that_lost_nothing_everybody_goes_on_in_a_new_epoch() {
    let mut redis = RedisServer::start(KEEPS_ALL);
    let (nodes, mut player, before) = one_has_seen_one(&redis).await;
    redis.kill();
    redis.start_again();
    nodes[0].push_surely(7, 100).await;
    player.closed().await;
    goes_on(&nodes, before).await;
    let beyond = Position { seq: 2, ..before };
    let ahead = nodes[1].back(7, 1, beyond).await;
    assert_eq!(ahead.recovery, Recovery::NotRecovered, "the old epoch never had a second event");
    nodes[0].ready().await;
}

/// Its id is another one when it starts, and once more when its first replica is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_of_a_master_with_a_replica_everybody_goes_on() {
    const DUELS: u64 = 20;
    let mut master = RedisServer::start(KEEPS_ALL);
    let address = format!("127.0.0.1 {}", master.port());
    let replica = RedisServer::start(&["--replicaof", &address]);
    until("attached", async || master.ask_count("WAIT 1 1000") == 1).await;
    let node = Node::on(&master);
    let mut players = Vec::new();
    for duel in 1..=DUELS {
        node.push_surely(duel, 1).await;
        players.push(node.player(duel, 1).await);
    }
    let epoch =
        async || node.engine.heads(vec![id_of(1)]).await.ok().map(|h| h[0].1.position.epoch);
    let first = epoch().await.unwrap();
    replica.signal("STOP");
    master.kill();
    master.start_again();
    until("new", async || epoch().await.is_some_and(|epoch| epoch != first)).await;
    let second = epoch().await.unwrap();
    replica.signal("CONT");
    until("newer", async || epoch().await.is_some_and(|epoch| epoch != second)).await;
    let gone = join_all(players.iter_mut().map(LocalPlayer::closed)).await;
    assert!(gone.iter().all(Option::is_none), "none of them lacked anything: {gone:?}");
    for (player, duel) in players.iter().zip(1..) {
        let mut back = node.back(duel, 1, player.position).await;
        assert_eq!((back.recovery, back.position.seq), (Recovery::Recovered, 1));
        node.push_surely(duel, 2).await;
        assert_eq!(back.read_until(2).await, [2]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_enters_while_epochs_end_gets_the_state_all_the_same() {
    let redis = RedisServer::start(&["--enable-debug-command", "yes"]);
    let node = Node::on(&redis);
    node.push(7, 1).await.unwrap();
    let done = Arc::<AtomicBool>::default();
    let changing = std::thread::spawn({
        let (url, done) = (redis.url(), Arc::clone(&done));
        move || {
            let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
            while !done.load(Ordering::Relaxed) {
                let changed = redis::cmd("DEBUG").arg("CHANGE-REPL-ID").exec(&mut connection);
                changed.unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    let (mut entered, mut epochs) = (0, HashSet::new());
    for user in 1..=300 {
        match node.hub.attach(&ticket(7, user), None).await {
            Ok((_, welcome)) => {
                assert_eq!(welcome.state.len(), 1, "user {user}: no state");
                epochs.insert(welcome.head.epoch.to_bits());
                entered += 1;
            }
            // Epoch after epoch has ended meanwhile.
            Err(error) => assert_eq!(error, AttachError::Engine(REFUSED)),
        }
    }
    done.store(true, Ordering::Relaxed);
    changing.join().unwrap();
    assert!(entered > 150 && epochs.len() > 10, "{entered} entered, in {} epochs", epochs.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_those_who_lack_nothing_are_sent_away_one_after_the_other() {
    const DUELS: u64 = 30;
    let mut redis = RedisServer::start(KEEPS_ALL);
    let node = Node::on(&redis);
    let mut players = Vec::new();
    for duel in 1..=DUELS {
        node.push(duel, 1).await.unwrap();
        players.push(node.player(duel, 1).await);
    }
    redis.kill();
    redis.start_again();
    let waiting = players.iter_mut().map(async |player| (player.closed().await, Instant::now()));
    let gone = join_all(waiting).await;
    assert!(gone.iter().all(|(lost, _)| lost.is_none()), "none of them lacked anything: {gone:?}");
    let times = || gone.iter().map(|(_, when)| *when);
    let took = times().max().unwrap() - times().min().unwrap();
    assert!(took >= DRAIN / 2, "all were sent away within {took:?}");
    for (player, duel) in players.iter().zip(1..) {
        let back = node.back(duel, 1, player.position).await;
        assert_eq!((back.recovery, back.position.seq), (Recovery::Recovered, 1));
        assert_ne!(back.position.epoch, player.position.epoch);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_who_lacks_what_was_kept_is_sent_away_at_once() {
    const DUELS: u64 = 30;
    let mut redis = RedisServer::start(KEEPS_ALL);
    let network = Proxy::to(redis.port()).await;
    let (pushing, cut_off) = (Node::on(&redis), Node::at(network.url()));
    let mut players = cut_off.players(1..=DUELS).await;
    network.set(Weather::Cut);
    for duel in 1..=DUELS {
        pushing.push(duel, 1).await.unwrap();
    }
    redis.kill();
    redis.start_again();
    network.set(Weather::Fine);
    let gone = join_all(players.iter_mut().map(LocalPlayer::closed)).await;
    // Those whose turn comes first may be asked to go before they have looked.
    let at_once = gone.iter().filter(|lost| **lost == Some(ResyncRequired::EpochChanged)).count();
    assert!(2 * at_once > players.len(), "most waited for their turn: {gone:?}");
    for (player, duel) in players.iter().zip(1..) {
        let mut back = cut_off.back(duel, 1, player.position).await;
        assert_eq!(back.recovery, Recovery::Recovered);
        assert_eq!(back.read_until(1).await, [1]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failover_that_lost_pushes_no_position_is_given_out_twice() {
    let mut old = RedisServer::start(&[]);
    let new = RedisServer::start(&["--replicaof", &format!("127.0.0.1 {}", old.port())]);
    let network = Proxy::to(old.port()).await;
    let nodes = [Node::at(network.url()), Node::at(network.url())];
    let mut player = nodes[1].player(7, 1).await;
    nodes[0].push(7, 1).await.unwrap();
    until("replicated", async || {
        new.ask("INFO replication").unwrap().contains("master_link_status:up")
            && new.ask_count("DBSIZE") == old.ask_count("DBSIZE")
    })
    .await;
    // The replica hears nothing of the second push.
    new.ask("REPLICAOF NO ONE").unwrap();
    let before = nodes[0].push(7, 2).await.unwrap().position;
    player.read_until(2).await;
    old.kill();
    network.lead_to(new.port());
    begins_anew(&nodes, before, player).await;
    goes_on(&nodes, Position { seq: 1, ..before }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_say_where_the_master_is_and_what_it_lost_is_noticed() {
    let mut old = RedisServer::start(&[]);
    let new = RedisServer::start(&["--replicaof", &format!("127.0.0.1 {}", old.port())]);
    let sentinel = Sentinel::of(&old);
    until("found", async || sentinel.knows_a_replica()).await;
    let nodes = [Node::at(sentinel.url()), Node::at(sentinel.url())];
    nodes[0].ready().await;
    let mut player = nodes[1].player(7, 1).await;
    nodes[0].push(7, 1).await.unwrap();
    assert_eq!(old.ask_count("WAIT 1 20000"), 1, "the first one is replicated");
    // What has been sent to it already would still arrive.
    new.signal("STOP");
    assert_eq!(old.ask_count("CLIENT KILL TYPE replica"), 1);
    let before = nodes[0].push(7, 2).await.unwrap().position;
    player.read_until(2).await;
    old.kill();
    new.signal("CONT");
    begins_anew(&nodes, before, player).await;
    goes_on(&nodes, Position { seq: 1, ..before }).await;
    nodes[0].ready().await;
}
