//! The HTTP ticket API, word for word.

use duelhub::config::Secret;
use duelhub::id::TelegramId;
use duelhub::{clock, telegram};
use serde_json::json;

use duelhub::pb;
use duelhub_testkit::{BOT_TOKEN, Backend, Join, Player, TestServer, exchange, get};

const PATH: &str = "/api/duel/ws-ticket";

fn init_data(telegram_id: u64) -> String {
    let user = TelegramId::try_from(telegram_id).unwrap();
    telegram::sign(user, &Secret::new(BOT_TOKEN.into()), clock::now())
}

/// Duel 77 is declared for user 1, whom Telegram knows as 1001, and user 2.
async fn declared(server: &TestServer) -> Backend {
    let backend = Backend::connect(server).await;
    let participants = vec![
        pb::Participant { user_id: 1, telegram_id: 1001 },
        pb::Participant { user_id: 2, telegram_id: 0 },
    ];
    let request = pb::OpenDuelRequest { duel_id: 77, participants, settings: None, reopen: false };
    backend.client.clone().open_duel(request).await.unwrap();
    backend
}

#[tokio::test]
async fn a_participant_receives_a_ticket_that_opens() {
    let server = TestServer::start().await;
    let _backend = declared(&server).await;
    for (telegram_id, user_id) in [(1001, 1), (2, 2)] {
        let headers = [("X-Telegram-Init-Data", &*init_data(telegram_id))];
        let reply = get(server.addresses.edge, &format!("{PATH}?duel_id=77"), &headers).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let body = reply.json();
        let id = body["request_id"].as_str().unwrap();
        assert!(id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        assert_eq!(reply.header("x-request-id"), Some(id));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        let ticket = body["data"]["ticket"].as_str().unwrap();
        let expires_at = body["data"]["expires_at"].as_u64().unwrap();
        let envelope = json!({"success": true, "request_id": id,
            "data": {"ticket": ticket, "expires_at": expires_at}});
        assert_eq!(body, envelope);
        let now = clock::now().seconds();
        assert!((now + 299..=now + 301).contains(&expires_at));
        let player = Player::join(&server, Join::ticket(ticket)).await;
        assert_eq!(player.connected["user_id"], user_id);
    }
}

#[tokio::test]
async fn every_refusal_has_its_text_and_code() {
    let server = TestServer::start().await;
    let backend = declared(&server).await;
    backend.open(78, &[1]).await;
    backend.close(78).await;
    backend.push(79, "{}").await;
    let old = telegram::sign(
        TelegramId::try_from(2).unwrap(),
        &Secret::new(BOT_TOKEN.into()),
        clock::UnixMs(clock::now().0 - 86_401_000),
    );
    let player = init_data(2);
    let table = [
        ("?duel_id=77", None, 401, "Не авторизован", "unauthorized"),
        ("?duel_id=77", Some("nonsense"), 401, "Не авторизован", "unauthorized"),
        ("?duel_id=77", Some(&*old), 401, "Не авторизован", "unauthorized"),
        ("", Some(&*player), 400, "Не указан ID дуэли", "duel_id_missing"),
        ("?duel_id=", Some(&*player), 400, "Не указан ID дуэли", "duel_id_missing"),
        ("?duel_id=0", Some(&*player), 400, "Не указан ID дуэли", "duel_id_missing"),
        ("?duel_id=x", Some(&*player), 400, "Не указан ID дуэли", "duel_id_missing"),
        ("?duel_id=9007199254740992", Some(&*player), 400, "Не указан ID дуэли", "duel_id_missing"),
        ("?duel_id=77&duel_id=78", Some(&*player), 400, "Не указан ID дуэли", "duel_id_missing"),
        ("?duel_id=99", Some(&*player), 404, "Дуэль не найдена", "duel_unknown"),
        // Pushed to but never declared: nobody can say who takes part.
        ("?duel_id=79", Some(&*player), 404, "Дуэль не найдена", "duel_unknown"),
        ("?duel_id=77", Some(&*init_data(3)), 403, "Доступ запрещён", "duel_access_denied"),
        ("?duel_id=78", Some(&*init_data(1)), 409, "Дуэль уже завершена", "duel_closed"),
    ];
    for (query, init_data, status, error, code) in table {
        let headers: Vec<_> =
            init_data.iter().map(|data| ("X-Telegram-Init-Data", *data)).collect();
        let reply = get(server.addresses.edge, &format!("{PATH}{query}"), &headers).await;
        let body = reply.json();
        let id = reply.header("x-request-id").unwrap();
        let expected = json!({"success": false, "request_id": id, "error": error, "code": code});
        assert_eq!((reply.status, body), (status, expected), "{query}");
        assert_eq!(reply.header("cache-control"), Some("no-store"));
    }
}

#[tokio::test]
async fn without_a_bot_token_the_code_says_why_it_cannot() {
    let server = TestServer::with(&[("TELEGRAM_BOT_TOKEN", "")]).await;
    let reply = get(server.addresses.edge, &format!("{PATH}?duel_id=77"), &[]).await;
    assert_eq!((reply.status, reply.json()["code"].as_str()), (503, Some("not_configured")));
    // The log says which: a player has no use for the name of a variable.
    assert_eq!(reply.json()["error"], "Сервис временно недоступен");
}

#[tokio::test]
async fn too_many_requests_are_told_to_come_back() {
    let server = TestServer::with(&[("WEBSOCKET_MAX_HANDSHAKES_PER_SECOND", "1")]).await;
    let mut refused = None;
    for _ in 0..5 {
        let reply = get(server.addresses.edge, &format!("{PATH}?duel_id=77"), &[]).await;
        refused = refused.or((reply.status == 429).then_some(reply));
    }
    let refused = refused.expect("one a second is allowed");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.json()["code"], "too_many_requests");
}

#[tokio::test]
async fn on_somebodys_desk_a_header_stands_in_for_telegram() {
    let variables = [("DEV_AUTH_ENABLED", "true"), ("DEV_AUTH_USER_ID", "2")];
    let server = TestServer::with(&variables).await;
    let _backend = declared(&server).await;
    let path = format!("{PATH}?duel_id=77");
    for (headers, status) in [
        (vec![("X-Dev-Telegram-User-Id", "1001")], 200),
        (vec![], 200),
        (vec![("X-Dev-Telegram-User-Id", "3")], 403),
        (vec![("X-Dev-Telegram-User-Id", "1001"), ("X-Telegram-Init-Data", "forged")], 401),
    ] {
        let reply = get(server.addresses.edge, &path, &headers).await;
        assert_eq!(reply.status, status, "{headers:?}");
    }
    let strict = TestServer::start().await;
    declared(&strict).await;
    let reply = get(strict.addresses.edge, &path, &[("X-Dev-Telegram-User-Id", "1001")]).await;
    assert_eq!(reply.status, 401, "not unless it is enabled");
}

#[tokio::test]
async fn browsers_may_ask_from_the_webapp_alone() {
    let server = TestServer::with(&[("WEBAPP_URL", "https://a.example")]).await;
    let preflight = |origin: &str| {
        format!(
            "OPTIONS {PATH}?duel_id=77 HTTP/1.1\r\nHost: hub\r\nConnection: close\r\nOrigin: {origin}\r\n\
            Access-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: x-telegram-init-data\r\n\r\n"
        )
    };
    let reply = exchange(server.addresses.edge, &preflight("https://a.example")).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("access-control-allow-origin"), Some("https://a.example"));
    assert!(reply.header("access-control-allow-headers").unwrap().contains("x-telegram-init-data"));
    assert!(reply.header("vary").unwrap().to_lowercase().contains("origin"));
    let reply = get(server.addresses.edge, PATH, &[("Origin", "https://a.example")]).await;
    assert_eq!(reply.header("access-control-allow-origin"), Some("https://a.example"));
    assert_eq!(reply.status, 401);
    let exposed = reply.header("access-control-expose-headers").unwrap().to_lowercase();
    for header in ["retry-after", "x-request-id"] {
        assert!(exposed.contains(header), "a page may read {header}: {exposed}");
    }
}

#[tokio::test]
async fn a_page_of_another_origin_gets_no_ticket_and_is_counted_apart() {
    let server = TestServer::with(&[("WEBAPP_URL", "https://a.example")]).await;
    let _backend = declared(&server).await;
    let init_data = init_data(2);
    let path = format!("{PATH}?duel_id=77");
    let ask = async |origin| {
        let proof = ("X-Telegram-Init-Data", &*init_data);
        get(server.addresses.edge, &path, &[proof, ("Origin", origin)]).await
    };
    let reply = ask("https://b.example").await;
    assert_eq!((reply.status, reply.json()["code"].as_str()), (403, Some("origin")));
    assert_eq!(reply.json()["error"], "Доступ запрещён");
    assert_eq!(reply.header("access-control-allow-origin"), None);
    let preflight = format!(
        "OPTIONS {path} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\nOrigin: null\r\n\
         Access-Control-Request-Method: GET\r\n\r\n"
    );
    assert_eq!(exchange(server.addresses.edge, &preflight).await.status, 403);
    assert_eq!(ask("https://a.example").await.status, 200);
    let metrics = get(server.addresses.admin, "/metrics", &[]).await.body;
    for line in [
        "duelhub_ticket_api_answers_total{kind=\"origin\"} 2\n",
        "duelhub_ticket_api_answers_total{kind=\"ok\"} 1\n",
        "duelhub_tickets_issued_total{kind=\"http\"} 1\n",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn a_head_request_issues_no_ticket() {
    let server = TestServer::start().await;
    let _backend = declared(&server).await;
    let request = format!(
        "HEAD {PATH}?duel_id=77 HTTP/1.1\r\nHost: hub\r\nConnection: close\r\nX-Telegram-Init-Data: {}\r\n\r\n",
        init_data(2)
    );
    let reply = exchange(server.addresses.edge, &request).await;
    assert_eq!((reply.status, reply.header("allow")), (405, Some("GET")));
    let metrics = get(server.addresses.admin, "/metrics", &[]).await.body;
    assert!(metrics.contains("duelhub_tickets_issued_total{kind=\"http\"} 0\n"), "{metrics}");
}

#[tokio::test]
async fn a_request_id_of_the_proxy_is_taken_over_if_it_has_the_form() {
    let server = TestServer::start().await;
    for (given, taken) in [("0123456789abcdef", true), ("0123456789ABCDEF", false), ("x", false)] {
        let reply = get(server.addresses.edge, PATH, &[("X-Request-Id", given)]).await;
        assert_eq!(reply.header("x-request-id") == Some(given), taken, "{given}");
    }
}
