//! A ticket of the backend opens one connection, once, and not for long; a resume ticket until its successor is used.

use std::time::Duration;

use duelhub::limits::SESSIONS_PER_USER_MAX;
use duelhub::pb;
use duelhub::pb::watch_duels_response::Change;
use duelhub_testkit::{Backend, Join, Player, SECRET, TestServer, get, soon, until};
use serde_json::json;

async fn refused(server: &TestServer, join: Join) -> (u16, String, bool) {
    let mut player = Player::knock(server, join).await;
    let code = player.until_closed().await;
    assert_eq!(player.error["request_id"].as_str().unwrap().len(), 16);
    let word = player.error["message"].as_str().unwrap().to_owned();
    assert_eq!(player.closed.as_ref().unwrap().1, word);
    (code, word, player.error["retry"].as_bool().unwrap())
}

#[tokio::test]
async fn each_refusal_has_its_word_and_code() {
    let (server, backend) = TestServer::start_with_backend(&[]).await;
    backend.open(78, &[1, 2]).await;
    let used = backend.ticket(77, 1).await;
    Player::join(&server, Join::ticket(&used)).await;
    let short = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let brief = backend
        .issue(pb::IssueTicketRequest { duel_id: 77, user_id: 1, ttl: short, ..Default::default() })
        .await;
    // Issued before the duel was declared without the user.
    let stranger = backend.ticket(79, 3).await;
    backend.open(79, &[1, 2]).await;
    let closed = backend.ticket(80, 1).await;
    let end = backend.close(80).await.position.unwrap();
    let end = format!("{}:{}", end.epoch, end.seq);
    let expires_at = u64::try_from(brief.expires_at.unwrap().seconds).unwrap();
    until("the brief ticket expires", || async { duelhub::clock::now().seconds() >= expires_at })
        .await;
    let expected = |code, word: &str, retry| (code, word.to_owned(), retry);
    let table = [
        (Join::default(), expected(4501, "invalid_ticket", false)),
        (Join::ticket("nonsense"), expected(4501, "invalid_ticket", false)),
        (Join::ticket(format!("{used}&ticket={used}")), expected(4501, "invalid_ticket", false)),
        (Join::ticket("x".repeat(5000)), expected(4501, "invalid_ticket", false)),
        (Join::ticket(brief.ticket), expected(4001, "ticket_expired", true)),
        (Join::ticket(used), expected(4002, "ticket_already_used", true)),
        (Join::ticket(stranger), expected(4502, "duel_access_denied", false)),
        (Join::ticket(closed).resume(end), expected(4503, "duel_closed", false)),
    ];
    for (join, expected) in table {
        let shown = format!("{join:.60?}");
        assert_eq!(refused(&server, join).await, expected, "{shown}");
    }
}

#[tokio::test]
async fn a_ticket_used_by_many_at_once_opens_one_connection() {
    let (server, backend) = TestServer::start_with_backend(&[]).await;
    let ticket = backend.ticket(77, 1).await;
    let attempts = (0..20).map(|_| {
        let join = Join::ticket(&ticket);
        let server = &server;
        async move {
            let mut player = Player::knock(server, join).await;
            player.next().await;
            player
        }
    });
    let players = futures_util::future::join_all(attempts).await;
    assert_eq!(players.iter().filter(|player| !player.connected.is_null()).count(), 1);
}

#[tokio::test]
async fn who_begins_very_many_sessions_has_the_older_ones_counted_as_used() {
    let (server, backend) = TestServer::start_with_backend(&[]).await;
    let metric = |count: usize| format!("duelhub_sessions_crowded_out_total {count}\n");
    let metrics = async || get(server.addresses.admin, "/metrics", &[]).await.body;
    assert!(metrics().await.contains(&metric(0)));
    let unused = backend.ticket(77, 1).await;
    let first = backend.player(77, 1).await;
    let mut last = first.resume_ticket();
    for _ in 0..SESSIONS_PER_USER_MAX {
        last = backend.player(77, 1).await.resume_ticket();
    }
    for ticket in [first.resume_ticket(), unused] {
        let refusal = refused(&server, Join::ticket(ticket)).await;
        assert_eq!(refusal, (4002, "ticket_already_used".to_owned(), true));
    }
    Player::join(&server, Join::ticket(last)).await;
    backend.player(77, 1).await;
    assert!(metrics().await.contains(&metric(SESSIONS_PER_USER_MAX / 2)));
}

#[tokio::test]
async fn a_revoked_ticket_opens_nothing_and_one_issued_after_does() {
    let (server, backend) = TestServer::start_with_backend(&[]).await;
    let issue = async |user| backend.try_issue(77, user).await.unwrap();
    let (first, second, others) = (issue(1).await, issue(1).await, issue(2).await);
    backend.revoke_ticket(first.jti).await;
    assert_eq!(refused(&server, Join::ticket(first.ticket)).await.1, "invalid_ticket");
    let mut open = Player::join(&server, Join::ticket(second.ticket)).await;
    let unused = issue(1).await;
    backend.revoke_user(77, 1).await;
    assert_eq!(refused(&server, Join::ticket(unused.ticket)).await.1, "invalid_ticket");
    assert_eq!(refused(&server, Join::ticket(open.resume_ticket())).await.1, "invalid_ticket");
    Player::join(&server, Join::ticket(issue(1).await.ticket)).await;
    Player::join(&server, Join::ticket(others.ticket)).await;
    open.ping().await;
}

/// A socket that died before its welcome was read: its ticket is used, and what `connected` said is lost.
#[tokio::test]
async fn a_lost_welcome_strands_nobody() {
    let (server, backend) = TestServer::start_with_backend(&[]).await;
    let mut one = backend.player(77, 1).await;
    backend.push(77, "{}").await;
    one.until_events(1).await;
    let (ticket, position) = (one.resume_ticket(), one.position());
    drop(one);
    backend.push(77, "{}").await;
    let mut lost = Vec::new();
    for _ in 0..5 {
        let mut back = Player::join(&server, Join::ticket(&ticket).resume(&position)).await;
        assert_eq!(back.connected["recovered"], true);
        back.until_events(1).await;
        lost.push(back);
    }
    let last = lost.pop().unwrap();
    for mut before in lost {
        assert_eq!(before.until_closed().await, 4504, "a session never has two connections");
    }
    assert_eq!(backend.duel(77).await.connections, 1);
    let mut next = last.rejoin(&server).await;
    next.ping().await;
    assert_eq!(refused(&server, Join::ticket(ticket)).await.1, "ticket_already_used");
    next.ping().await;
}

/// Two connections by one ticket each have a successor of it: whoever uses the second of them has shown that one was copied.
#[tokio::test]
async fn a_copied_ticket_ends_its_session_on_both_sides() {
    let (server, backend) = TestServer::start_with_backend(&[]).await;
    let ticket = backend.player(77, 1).await.resume_ticket();
    let other_session = backend.player(77, 1).await;
    let first = Player::join(&server, Join::ticket(&ticket)).await.resume_ticket();
    let second = Player::join(&server, Join::ticket(&ticket)).await.resume_ticket();
    let mut open = Player::join(&server, Join::ticket(first)).await;
    let next = open.resume_ticket();
    let request = pb::WatchDuelsRequest { duel_ids: vec![77] };
    let mut watch = backend.client.clone().watch_duels(request).await.unwrap().into_inner();
    assert_eq!(
        refused(&server, Join::ticket(second)).await,
        (4501, "invalid_ticket".into(), false)
    );
    assert_eq!(open.until_closed().await, 4501);
    assert_eq!(open.error["message"], "invalid_ticket");
    assert_eq!(refused(&server, Join::ticket(next)).await.1, "invalid_ticket");
    let ended = async {
        loop {
            let told = watch.message().await.unwrap().unwrap();
            if let Some(Change::SessionEnded(ended)) = told.change {
                break (told.duel_id, ended.user_id);
            }
        }
    };
    assert_eq!(soon("those who watch are told", ended).await, (77, 1));
    let metrics = get(server.addresses.admin, "/metrics", &[]).await.body;
    assert!(metrics.contains("duelhub_sessions_ended_total 1\n"), "{metrics}");
    other_session.rejoin(&server).await.ping().await;
}

#[tokio::test]
async fn a_resume_ticket_is_renewed_past_half_its_life_and_not_after_a_revocation() {
    let (server, backend) =
        TestServer::start_with_backend(&[("WEBSOCKET_RESUME_TTL_SECONDS", "8")]).await;
    let mut one = backend.player(77, 1).await;
    one.ping().await;
    assert!(one.pong.get("resume_ticket").is_none(), "not before half its life");
    let renewed = loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        one.ping().await;
        if let Some(ticket) = one.pong["resume_ticket"].as_str() {
            break ticket.to_owned();
        }
    };
    let before = one.resume_ticket();
    assert_ne!(renewed, before);
    drop(one);
    let mut one = Player::join(&server, Join::ticket(&renewed)).await;
    assert_eq!(refused(&server, Join::ticket(before)).await.1, "ticket_already_used");
    backend.revoke_user(77, 1).await;
    assert_eq!(refused(&server, Join::ticket(renewed)).await.1, "invalid_ticket");
    let half = duelhub::clock::now().seconds() + 4;
    while duelhub::clock::now().seconds() <= half {
        tokio::time::sleep(Duration::from_millis(100)).await;
        one.ping().await;
        assert!(one.pong.get("resume_ticket").is_none(), "revoked");
    }
}

#[tokio::test]
async fn a_rotated_secret_is_accepted_until_it_is_dropped() {
    let old = TestServer::start().await;
    let ticket = || async { Backend::connect(&old).await.ticket(77, 1).await };
    let rotated = [
        ("WEBSOCKET_TICKET_SECRET", "another secret of 32 bytes at least"),
        ("WEBSOCKET_TICKET_SECRET_PREVIOUS", SECRET),
    ];
    let rotating = TestServer::with(&rotated).await;
    Player::join(&rotating, Join::ticket(ticket().await)).await;
    let dropped = TestServer::with(&rotated[..1]).await;
    assert_eq!(refused(&dropped, Join::ticket(ticket().await)).await.1, "invalid_ticket");
}

#[tokio::test]
async fn a_ticket_store_that_is_full_lets_nobody_in_twice() {
    let (server, backend) = TestServer::start_with_backend(&[
        ("ENGINE_MAX_REMEMBERED_TICKETS", "1000"),
        ("WEBSOCKET_MAX_CONNECTIONS_PER_USER", "1"),
    ])
    .await;
    // 62 of 1,000 are for revocations.
    for n in 0..937 {
        backend.revoke_ticket(format!("filler-{n}")).await;
    }
    let (last, over) = (backend.ticket(77, 1).await, backend.ticket(77, 1).await);
    Player::join(&server, Join::ticket(&last)).await;
    assert_eq!(refused(&server, Join::ticket(over)).await, (1011, "internal".into(), true));
    assert_eq!(refused(&server, Join::ticket(last)).await.1, "ticket_already_used");
    backend.revoke_user(77, 1).await;
    let admin = server.addresses.admin;
    let text = "nearly as many tickets are remembered as ENGINE_MAX_REMEMBERED_TICKETS allows";
    until(text, async || {
        let readyz = get(admin, "/readyz", &[]).await;
        readyz.status == 503 && readyz.body.contains(text)
    })
    .await;
}

#[tokio::test]
async fn claims_are_those_of_the_contract() {
    let (_server, backend) = TestServer::start_with_backend(&[]).await;
    let ttl = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    let role = pb::Role::Spectator.into();
    let issued = backend.issue(pb::IssueTicketRequest { duel_id: 77, user_id: 5, role, ttl }).await;
    let claims = duelhub::ticket::Tickets::claims(&issued.ticket).unwrap();
    let (iat, exp) = (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
    assert!((60..=61).contains(&(exp - iat)), "{iat} {exp}");
    let expected = json!({"sub": "5", "duel": 77, "role": "spectator", "aud": "duelhub",
        "jti": issued.jti, "iat": iat, "exp": exp, "rev": 0});
    assert_eq!(claims, expected);
}
