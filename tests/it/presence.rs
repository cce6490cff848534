//! Who is there: announced to the others, with a grace, counted by users and not by sockets.

use std::time::Duration;

use duelhub::pb;
use duelhub_testkit::{Join, Player, TestServer, until};
use tokio::time::Instant;

#[tokio::test]
async fn players_see_each_other_come_and_go() {
    let (_server, backend) = TestServer::start_with_backend(&[]).await;
    let mut one = backend.player(77, 1).await;
    assert_eq!(one.online, [1].into());
    let two = backend.player(77, 2).await;
    assert_eq!(two.online, [1, 2].into());
    one.until(|one| one.online == [1, 2].into()).await;
    drop(two);
    one.until(|one| one.online == [1].into()).await;
}

#[tokio::test]
async fn two_sockets_of_a_user_are_one_user() {
    let (_server, backend) = TestServer::start_with_backend(&[]).await;
    let mut one = backend.player(77, 1).await;
    let phone = backend.player(77, 2).await;
    let desktop = backend.player(77, 2).await;
    let online = backend.duel(77).await.online;
    assert_eq!(
        online.iter().map(|u| (u.user_id, u.connections)).collect::<Vec<_>>(),
        [(1, 1), (2, 2)]
    );
    drop(phone);
    until("one of the two is gone", || async { backend.duel(77).await.online[1].connections == 1 })
        .await;
    one.ping().await;
    assert_eq!(one.online, [1, 2].into(), "the user is still there");
    drop(desktop);
    one.until(|one| one.online == [1].into()).await;
}

#[tokio::test]
async fn a_phone_that_changes_cells_does_not_flap() {
    let (server, backend) =
        TestServer::start_with_backend(&[("PRESENCE_GRACE_SECONDS", "60")]).await;
    let mut one = backend.player(77, 1).await;
    let two = backend.player(77, 2).await;
    one.until(|one| one.online.contains(&2)).await;
    let since = backend.duel(77).await.online[1].since;
    let ticket = two.resume_ticket();
    drop(two);
    until("the socket is gone", || async { backend.duel(77).await.connections == 1 }).await;
    let online = backend.duel(77).await.online;
    assert_eq!((online.len(), online[1].connections), (2, 0), "within the grace");
    let _two = Player::join(&server, Join::ticket(ticket)).await;
    let online = backend.duel(77).await.online;
    assert_eq!((online[1].since, online[1].connections), (since, 1), "online without a gap");
    one.ping().await;
    assert!(one.events.is_empty() && one.online == [1, 2].into());
}

#[tokio::test]
async fn a_duel_may_have_a_grace_of_its_own() {
    let (_server, backend) = TestServer::start_with_backend(&[]).await;
    let presence_grace = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let request = pb::OpenDuelRequest {
        duel_id: 77,
        participants: [1, 2].map(|user_id| pb::Participant { user_id, telegram_id: 0 }).into(),
        settings: Some(pb::DuelSettings { presence_grace }),
        reopen: false,
    };
    backend.client.clone().open_duel(request).await.unwrap();
    let mut one = backend.player(77, 1).await;
    let two = backend.player(77, 2).await;
    one.until(|one| one.online.contains(&2)).await;
    let left = Instant::now();
    drop(two);
    one.until(|one| !one.online.contains(&2)).await;
    assert!(left.elapsed() >= Duration::from_secs(1), "not before the grace has passed");
}

#[tokio::test]
async fn who_was_not_let_in_was_never_online() {
    let (server, backend) =
        TestServer::start_with_backend(&[("PRESENCE_GRACE_SECONDS", "60")]).await;
    let (early, later) = (backend.ticket(77, 3).await, backend.ticket(77, 3).await);
    backend.open(77, &[1, 2]).await;
    let mut refused = Player::knock(&server, Join::ticket(early)).await;
    assert_eq!(refused.until_closed().await, 4502);
    assert!(backend.duel(77).await.online.is_empty());
    backend.open(77, &[3]).await;
    let _three = Player::join(&server, Join::ticket(later)).await;
    let online = backend.duel(77).await.online;
    assert_eq!(online.iter().map(|user| user.user_id).collect::<Vec<_>>(), [3]);
}

#[tokio::test]
async fn past_the_limit_the_oldest_connection_of_a_user_is_replaced() {
    let (_server, backend) =
        TestServer::start_with_backend(&[("WEBSOCKET_MAX_CONNECTIONS_PER_USER", "2")]).await;
    let mut tabs = Vec::new();
    for _ in 0..3 {
        tabs.push(backend.player(77, 1).await);
    }
    let mut other = backend.player(77, 2).await;
    assert_eq!(tabs[0].until_closed().await, 4504);
    assert_eq!(tabs[0].error["message"], "connection_replaced");
    assert_eq!(tabs[0].error["retry"], false);
    backend.push(77, "{}").await;
    for tab in tabs[1..].iter_mut().chain([&mut other]) {
        tab.until_events(1).await;
    }
    assert_eq!(backend.duel(77).await.connections, 3);
}

#[tokio::test]
async fn acks_are_seen_by_the_backend() {
    let (_server, backend) = TestServer::start_with_backend(&[]).await;
    let mut one = backend.player(77, 1).await;
    for _ in 0..3 {
        backend.push(77, "{}").await;
    }
    one.until_events(3).await;
    for ack in
        [r#"{"type":"ack","seq":2}"#, r#"{"type":"ack","seq":1}"#, r#"{"type":"ack","seq":9}"#]
    {
        one.send(ack).await;
    }
    one.ping().await;
    let acked = backend.duel(77).await.online[0].acked_seq;
    assert_eq!(acked, 2, "an earlier one and one of what was not served are ignored");
}

#[tokio::test]
async fn disconnect_closes_whom_it_names() {
    let (_server, backend) = TestServer::start_with_backend(&[]).await;
    let mut one = backend.player(77, 1).await;
    let mut two = backend.player(77, 2).await;
    let disconnect = |user_id, reconnect, reason: &str| {
        let reason = reason.to_owned();
        let request = pb::DisconnectRequest { duel_id: 77, user_id, reconnect, reason };
        let mut client = backend.client.clone();
        async move { client.disconnect(request).await.unwrap().into_inner().connections }
    };
    assert_eq!(disconnect(1, false, "banned").await, 1);
    one.until_closed().await;
    assert_eq!(one.closed, Some((4502, "banned".into())));
    assert_eq!(one.error["message"], "duel_access_denied");
    assert_eq!(disconnect(0, true, "").await, 1);
    two.until_closed().await;
    assert_eq!(two.closed, Some((1012, "server_restart".into())));
    assert_eq!((&two.error["retry"], &two.error["retry_after_ms"]), (&true.into(), &0.into()));
    assert_eq!(disconnect(0, false, "").await, 0);
}
