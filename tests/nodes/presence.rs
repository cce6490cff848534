//! Who is online is said of users, over all nodes; nobody stays online as a ghost.

use std::sync::Arc;

use duelhub::hub::{AttachError, Change, ChangeKind, CloseRequest};
use duelhub::limits;
use duelhub_testkit::redis_topology::Cluster;
use tokio::time::{Instant, timeout};

use crate::kit::{DEADLINE, Node, id_of, resume_ticket, ticket, until, user};
use crate::proxy::{Proxy, Weather};
use crate::redis_server::RedisServer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_is_online_while_they_are_on_any_node() {
    let redis = RedisServer::start(&[]);
    let nodes = [Node::on(&redis), Node::on(&redis), Node::on(&redis)];
    let mut one = nodes[0].player(7, 1).await;
    let two_here = nodes[1].player(7, 2).await;
    one.sees(2, true).await;
    let two_there = nodes[2].player(7, 2).await;
    assert_eq!(two_there.online.iter().map(|user| user.get()).collect::<Vec<_>>(), [1, 2]);
    drop(two_here);
    until("left node 1", async || nodes[1].hub.counts().live_duels == 0).await;
    for node in &nodes {
        assert_eq!(node.online(7).await, [1, 2], "they are still on node 2");
    }
    drop(two_there);
    one.sees(2, false).await;
    assert_eq!(nodes[1].online(7).await, [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_connection_of_a_user_is_replaced_whichever_node_it_is_on() {
    let redis = RedisServer::start(&[]);
    let nodes = [Node::on(&redis), Node::on(&redis)];
    let mut first = nodes[0].player(7, 1).await;
    let gone = nodes[1].player(7, 1).await;
    drop(gone);
    let mut others = Vec::new();
    for node in [&nodes[1], &nodes[0]] {
        others.push(node.player(7, 1).await);
    }
    assert_eq!(first.attachment.close_request(), None, "three, without the one that has gone");
    let mut other_user = nodes[1].player(7, 2).await;
    others.push(nodes[1].player(7, 1).await);
    assert_eq!(first.closed().await, None);
    assert_eq!(first.attachment.close_request(), Some(&CloseRequest::Replaced));
    for player in others.iter().chain([&other_user]) {
        assert_eq!(player.attachment.close_request(), None);
    }
    nodes[0].push(7, 1).await.unwrap();
    other_user.read_until(1).await;
}

/// The copy is noticed on one node, its session is on another, and a third one watches.
async fn a_copied_ticket_ends_its_session(url: &str) {
    let [nodes @ .., watching] = [(); 3].map(|()| Node::at(url.to_owned()));
    watching.ready().await;
    let mut watch = watching.watch_all().await;
    let first = ticket(7, 1);
    let [mine, copy] = [1, 1].map(|number| resume_ticket(&first, number));
    let mut open = nodes[0].enter_by(&mine, None).await.unwrap();
    assert_eq!(nodes[1].enter_by(&copy, None).await.err(), Some(AttachError::Revoked));
    assert_eq!(open.closed().await, None);
    assert_eq!(open.attachment.close_request(), Some(&CloseRequest::SessionEnded));
    let ended =
        async { while watch.next().await.unwrap().kind != ChangeKind::SessionEnded(user(1)) {} };
    timeout(DEADLINE, ended).await.expect("whoever watches is told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copied_ticket_ends_its_session_on_whichever_node() {
    a_copied_ticket_ends_its_session(&RedisServer::start(&[]).url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copied_ticket_ends_its_session_over_a_cluster_as_well() {
    a_copied_ticket_ends_its_session(&Cluster::start().await.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_to_go_goes_also_from_a_node_that_did_not_hear_of_it() {
    let redis = RedisServer::start(&[]);
    let network = Proxy::to(redis.port()).await;
    let (node, deaf) = (Node::on(&redis), Node::at(network.url()));
    deaf.ready().await;
    for weather in [Weather::Untold, Weather::Cut] {
        let (mut two, mut three) = (deaf.player(7, 2).await, deaf.player(7, 3).await);
        network.set(weather);
        let why = || Some(Arc::from("cheating"));
        node.hub.disconnect(id_of(7), Some(user(2)), false, why()).await.unwrap();
        network.set(if weather == Weather::Cut { Weather::Fine } else { weather });
        assert_eq!(two.closed().await, None);
        let close_request = CloseRequest::Disconnected { reconnect: false, reason: why() };
        assert_eq!(two.attachment.close_request(), Some(&close_request));
        assert_eq!(three.attachment.close_request(), None);
        network.set(Weather::Fine);
        deaf.ready().await;
        // Who comes after that was not meant, although it is read again who was.
        let mut again = deaf.player(7, 2).await;
        drop(two);
        node.hub.disconnect(id_of(7), None, true, None).await.unwrap();
        let everybody = CloseRequest::Disconnected { reconnect: true, reason: None };
        for player in [&mut again, &mut three] {
            assert_eq!(player.closed().await, None);
            assert_eq!(player.attachment.close_request(), Some(&everybody));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acks_are_known_on_all_nodes() {
    let redis = RedisServer::start(&[]);
    let nodes = [Node::on(&redis), Node::on(&redis)];
    let mut player = nodes[0].player(7, 1).await;
    nodes[1].push(7, 1).await.unwrap();
    player.read_until(1).await;
    player.attachment.ack(1).await;
    let view = nodes[1].hub.duel(crate::kit::id_of(7)).await.unwrap().unwrap();
    assert_eq!(view.online[0].acked_seq, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_users_of_a_killed_node_go_offline_when_its_lease_ends() {
    let redis = RedisServer::start(&[]);
    let nodes = [Node::on(&redis), Node::on(&redis)];
    let killed = Node::on(&redis);
    let mut one = nodes[0].player(7, 1).await;
    let two = killed.player(7, 2).await;
    let three = killed.player(8, 3).await;
    one.sees(2, true).await;
    let mut watch = nodes[0].watch_all().await;
    let since = Instant::now();
    // The node first, so that nothing is said of it: as far as the others can tell, it was killed.
    drop(killed);
    drop((two, three));
    one.sees(2, false).await;
    assert!(since.elapsed() < 2 * limits::NODE_LEASE, "{:?}", since.elapsed());
    until("expelled", async || nodes[1].online(8).await.is_empty()).await;
    let of_duel_8 = async {
        while !matches!(watch.next().await.unwrap(),
            Change { duel, kind: ChangeKind::Offline(..), .. } if duel == id_of(8))
        {}
    };
    timeout(DEADLINE, of_duel_8).await.expect("whoever took them out hears of it, too");
}
