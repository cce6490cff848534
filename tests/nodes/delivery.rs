//! Any call may reach any node, any player may sit on any node.

use duelhub::engine::{RedeemError, Revocation};
use duelhub::event::Outcome;
use duelhub::hub::{AttachError, ChangeKind, Recovery};

use crate::kit::{Node, id_of, ticket, user};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_to_any_node_reaches_the_players_of_all_in_one_order() {
    let (_redis, nodes) = Node::several::<3>();
    for node in &nodes {
        node.ready().await;
    }
    let mut players = Vec::new();
    for (node, id) in nodes.iter().zip(1..) {
        players.push(node.player(7, id).await);
    }
    let pushes = nodes.iter().cycle().zip(1..=300).map(|(node, nth)| node.push(7, nth));
    let pushed = futures_util::future::join_all(pushes).await;
    let mut by_seq: Vec<_> = pushed
        .into_iter()
        .zip(1..)
        .map(|(p, nth): (_, u64)| (p.unwrap().position.seq, nth))
        .collect();
    by_seq.sort_unstable();
    assert!(by_seq.iter().map(|(seq, _)| *seq).eq(1..=300));
    let order: Vec<_> = by_seq.into_iter().map(|(_, nth)| nth).collect();
    for player in &mut players {
        assert_eq!(player.read_until(*order.last().unwrap()).await, order);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_used_once_whichever_nodes_are_asked() {
    let (_redis, nodes) = Node::several::<2>();
    let (one, other) = tokio::join!(nodes[0].push(7, 1), nodes[1].push(7, 1));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(one.position, other.position);
    assert_ne!(one.duplicate, other.duplicate);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_opens_one_connection_on_all_nodes_together() {
    let (_redis, nodes) = Node::several::<2>();
    let ticket = ticket(7, 1);
    let (one, other) =
        tokio::join!(nodes[0].hub.attach(&ticket, None), nodes[1].hub.attach(&ticket, None));
    let refused = [one.err(), other.err()];
    assert!(
        refused.contains(&None) && refused.contains(&Some(AttachError::AlreadyUsed)),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_player_goes_on_at_another_node() {
    let (_redis, nodes) = Node::several::<2>();
    let mut player = nodes[0].player(7, 1).await;
    nodes[0].push(7, 1).await.unwrap();
    player.read_until(1).await;
    let position = player.position;
    drop(player);
    nodes[1].push_all(7, 2..=5).await;
    let mut player = nodes[1].enter(7, 1, Some(position)).await.unwrap();
    assert_eq!(player.recovery, Recovery::Recovered);
    assert_eq!(player.read_until(5).await, [2, 3, 4, 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_about_connections_act_on_all_nodes() {
    let (_redis, nodes) = Node::several::<2>();
    let mut players = [nodes[0].player(7, 1).await, nodes[1].player(7, 2).await];
    nodes[0].hub.disconnect(id_of(7), Some(user(2)), true, None).await.unwrap();
    assert_eq!(players[1].closed().await, None);
    let revocation = Revocation::User { duel: id_of(7), user: user(1) };
    let before = ticket(7, 1);
    nodes[1].hub.revoke(revocation).await.unwrap();
    assert_eq!(nodes[0].engine.redeem(&before).await, Err(RedeemError::Revoked));
    nodes[1].hub.close(id_of(7), Outcome::Finished, None).await.unwrap();
    while players[0].position.seq < 1 {
        players[0].read().await.unwrap();
    }
    let refused = nodes[0].enter(7, 3, Some(players[0].position)).await;
    assert_eq!(refused.err(), Some(AttachError::Closed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_sees_all_nodes() {
    let (_redis, nodes) = Node::several::<2>();
    let _before = nodes[0].player(6, 9).await;
    let mut watch = nodes[1].watch_all().await;
    let player = nodes[0].player(7, 1).await;
    let mut seen = Vec::new();
    drop(player);
    nodes[0].hub.close(id_of(7), Outcome::Cancelled, None).await.unwrap();
    let of_duel_7 = async {
        while seen.len() < 4 {
            let change = watch.next().await.unwrap();
            if change.duel == id_of(7) {
                seen.push(change.kind);
            }
        }
    };
    tokio::time::timeout(crate::kit::DEADLINE, of_duel_7).await.expect("all is seen");
    let has = |wanted: fn(&ChangeKind) -> bool| seen.iter().filter(|kind| wanted(kind)).count();
    assert_eq!(has(|kind| matches!(kind, ChangeKind::Opened(_))), 1, "{seen:?}");
    assert_eq!(has(|kind| matches!(kind, ChangeKind::Online(..))), 1, "{seen:?}");
    assert_eq!(has(|kind| matches!(kind, ChangeKind::Offline(..))), 1, "{seen:?}");
    assert_eq!(
        has(|kind| matches!(kind, ChangeKind::Closed(Outcome::Cancelled, _))),
        1,
        "{seen:?}"
    );
    let (state, _, _) =
        nodes[1].hub.watch(duelhub::hub::WatchFilter::All).unwrap().state(None).await.unwrap();
    let online = |change: &&duelhub::hub::Change| matches!(change.kind, ChangeKind::Online(v, _) if v.user == user(9));
    assert_eq!(state.iter().filter(online).count(), 1, "the state names who is on other nodes");
}
