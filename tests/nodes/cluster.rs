//! A Cluster of three: every promise holds over its shards, and over a slot that moves.

use std::collections::HashSet;

use duelhub::engine::StatusFilter;
use duelhub::event::Outcome;
use duelhub::hub::{AttachError, Recovery, ResyncRequired};
use duelhub_testkit::redis_topology::Cluster;

use crate::kit::{Node, id_of, ticket};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duels_are_spread_over_the_masters_and_nothing_changes() {
    const DUELS: u64 = 40;
    let cluster = Cluster::start().await;
    let nodes = [Node::at(cluster.url()), Node::at(cluster.url())];
    for node in &nodes {
        node.ready().await;
    }
    let mut watch = nodes[1].watch_all().await;
    let mut players = Vec::new();
    for duel in 1..=DUELS {
        players.push(nodes[0].player(duel, 1).await);
        players.push(nodes[1].player(duel, 2).await);
    }
    for nth in 1..=10 {
        for duel in 1..=DUELS {
            nodes[usize::try_from(nth % 2).unwrap()].push(duel, nth).await.unwrap();
        }
    }
    for player in &mut players {
        assert!(player.read_until(10).await.into_iter().eq(1..=10));
    }
    for duel in 1..=DUELS {
        assert_eq!(nodes[0].online(duel).await, [1, 2]);
    }
    let listed = nodes[1].hub.duels(None, StatusFilter::Any, 100).await.unwrap();
    assert!(listed.iter().map(|(duel, ..)| duel.get()).eq(1..=DUELS));
    for _ in 0..20 {
        nodes[0].engine.prune(duelhub::clock::now()).await.unwrap();
        assert_eq!(nodes[0].engine.counts().duels, usize::try_from(DUELS).unwrap());
    }
    let used = ticket(3, 9);
    nodes[0].hub.attach(&used, None).await.unwrap();
    let again = nodes[1].hub.attach(&used, None).await;
    assert_eq!(again.err(), Some(AttachError::AlreadyUsed));
    nodes[0].hub.close(id_of(5), Outcome::Finished, None).await.unwrap();
    let told = async {
        let mut told = HashSet::new();
        while told.len() < usize::try_from(DUELS).unwrap() {
            told.insert(watch.next().await.unwrap().duel);
        }
    };
    tokio::time::timeout(crate::kit::DEADLINE, told).await.expect("all duels are told of");
    let keys = cluster.members.each_ref().map(|member| member.ask_count("DBSIZE"));
    assert!(keys.iter().all(|count| *count > 20), "{keys:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_slot_has_moved_its_duels_go_on() {
    let cluster = Cluster::start().await;
    let nodes = [Node::at(cluster.url()), Node::at(cluster.url())];
    let mut player = nodes[0].player(7, 1).await;
    for nth in 1..=3 {
        nodes[1].push_surely(7, nth).await;
    }
    player.read_until(3).await;
    let before = player.position;
    cluster.move_slot_of("{test:07}:7");
    let pushed = nodes[1].push_surely(7, 4).await;
    assert_eq!(pushed.position.seq, 4, "everything has come along");
    // The other master cannot know whether something was lost before; all that came along is there.
    assert_ne!(pushed.position.epoch, before.epoch);
    assert_eq!(player.closed().await, Some(ResyncRequired::EpochChanged));
    drop(player);
    let mut back = nodes[0].back(7, 1, before).await;
    assert_eq!(back.recovery, Recovery::Recovered);
    assert_eq!(back.read_until(4).await, [4]);
}
