//! Opening: who is let in, and how those are answered who are not.

use std::time::Duration;

use duelhub_testkit::{Backend, Join, Player, TestServer, exchange, get, soon, until};
use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

const HANDSHAKE: [(&str, &str); 4] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

fn handshake(replace: &str, with: &str) -> String {
    let head: String = HANDSHAKE
        .iter()
        .filter(|(name, _)| *name != replace)
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    format!("GET /ws HTTP/1.1\r\nHost: hub\r\n{head}{with}\r\n")
}

#[tokio::test]
async fn every_path_of_the_contract_opens() {
    let (server, backend) = TestServer::start_with_backend(&[]).await;
    for path in ["/", "/ws", "/ws/"] {
        let ticket = backend.ticket(77, 1).await;
        Player::join(&server, Join { path: Some(path), ..Join::ticket(ticket) }).await;
        let ticket = backend.ticket(77, 1).await;
        Player::join(&server, Join { path: Some(path), ..Join::subprotocol(&ticket) }).await;
    }
}

#[tokio::test]
async fn a_ticket_may_come_as_a_subprotocol_that_is_never_echoed() {
    let (server, backend) = TestServer::start_with_backend(&[]).await;
    let ticket = backend.ticket(77, 1).await;
    let url = format!("ws://{}/ws", server.addresses.edge);
    let mut request = url.into_client_request().unwrap();
    let offer = format!("duelhub.v1, {ticket}").parse().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", offer);
    let stream = TcpStream::connect(server.addresses.edge).await.unwrap();
    let (mut ws, response) = client_async(request, stream).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "duelhub.v1");
    let first = soon("a frame", ws.next()).await.unwrap().unwrap();
    assert!(first.to_text().unwrap().contains(r#""type":"connected""#));
}

#[tokio::test]
async fn what_is_no_handshake_is_answered_in_plain_http_and_never_redirected() {
    let server = TestServer::start().await;
    let edge = server.addresses.edge;
    for path in ["/", "/ws", "/ws/"] {
        let reply = get(edge, path, &[]).await;
        assert_eq!(reply.status, 426, "{path}");
        assert_eq!(reply.json()["code"], "upgrade_required");
        assert_eq!(reply.header("x-request-id"), reply.json()["request_id"].as_str());
    }
    let reply = get(edge, "/nothing", &[]).await;
    assert_eq!((reply.status, reply.json()["code"].as_str()), (404, Some("not_found")));
    let post = "POST /ws HTTP/1.1\r\nHost: hub\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let reply = exchange(edge, post).await;
    assert_eq!((reply.status, reply.header("allow")), (405, Some("GET")));
}

#[tokio::test]
async fn a_head_request_opens_nothing_and_spends_nothing() {
    let (server, backend) = TestServer::start_with_backend(&[]).await;
    for path in ["/", "/ws", "/ws/"] {
        let ticket = backend.ticket(77, 1).await;
        let request = handshake("", "Connection: close\r\n")
            .replace("GET /ws ", &format!("HEAD {path}?ticket={ticket} "));
        let reply = exchange(server.addresses.edge, &request).await;
        assert_eq!((reply.status, reply.header("allow")), (405, Some("GET")), "{path}");
        assert_eq!(reply.body, "");
        Player::join(&server, Join::ticket(ticket)).await;
    }
}

#[tokio::test]
async fn a_malformed_handshake_is_refused_by_name() {
    let server = TestServer::start().await;
    let table = [
        (handshake("Sec-WebSocket-Version", "Sec-WebSocket-Version: 8\r\n"), 426, "version"),
        (handshake("Sec-WebSocket-Version", ""), 426, "version"),
        (handshake("Sec-WebSocket-Key", ""), 400, "bad_request"),
        (handshake("Sec-WebSocket-Key", "Sec-WebSocket-Key: short\r\n"), 400, "bad_request"),
        (
            handshake("Sec-WebSocket-Key", "Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!==\r\n"),
            400,
            "bad_request",
        ),
        (handshake("Upgrade", "Upgrade: h2c\r\n"), 426, "upgrade_required"),
    ];
    for (request, status, code) in table {
        let request = request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
        let reply = exchange(server.addresses.edge, &request).await;
        assert_eq!(
            (reply.status, reply.json()["code"].as_str()),
            (status, Some(code)),
            "{request}"
        );
    }
    let old = handshake("", "").replace("HTTP/1.1", "HTTP/1.0");
    assert_eq!(exchange(server.addresses.edge, &old).await.status, 426);
    for garbage in ["\0\0\0\0\r\n\r\n", "GET\r\n\r\n", "\u{16}\u{3}\u{1}\r\n\r\n"] {
        assert_eq!(exchange(server.addresses.edge, garbage).await.status, 400, "{garbage:?}");
    }
    let huge = handshake("", &format!("X-Fill: {}\r\n", "x".repeat(20_000)));
    assert_eq!(exchange(server.addresses.edge, &huge).await.status, 431);
    Backend::connect(&server).await.push(1, "{}").await;
}

#[tokio::test]
async fn only_the_webapps_origin_may_open() {
    let (server, backend) = TestServer::start_with_backend(&[(
        "WEBAPP_URL",
        "https://a.example, http://b.example:8080/x",
    )])
    .await;
    let open = |origin: Option<&'static str>| {
        let (backend, edge) = (&backend, server.addresses.edge);
        async move {
            let join = Join::ticket(backend.ticket(77, 1).await);
            let join = match origin {
                Some(origin) => join.header("origin", origin),
                None => join,
            };
            join.open(edge).await.map(drop)
        }
    };
    for good in [None, Some("https://a.example"), Some("http://b.example:8080")] {
        assert_eq!(open(good).await, Ok(()), "{good:?}");
    }
    for bad in ["http://a.example", "https://a.example:444", "https://a.example.evil", "null", ""] {
        assert_eq!(open(Some(bad)).await, Err(403), "{bad:?}");
    }
    let twice = Join::default()
        .header("origin", "https://a.example")
        .header("origin", "https://evil.example");
    assert_eq!(twice.open(server.addresses.edge).await.map(drop), Err(403));
}

#[tokio::test]
async fn limits_answer_and_give_back_what_was_taken() {
    let (server, backend) = TestServer::start_with_backend(&[
        ("WEBSOCKET_MAX_CONNECTIONS", "3"),
        ("WEBSOCKET_MAX_CONNECTIONS_PER_ADDRESS", "2"),
    ])
    .await;
    let from = |address: &'static str| {
        let (backend, server) = (&backend, &server);
        async move {
            let join = Join::ticket(backend.ticket(77, 1).await).header("x-forwarded-for", address);
            join.open(server.addresses.edge).await
        }
    };
    let _first = from("1.1.1.1").await.unwrap();
    let second = from("1.1.1.1").await.unwrap();
    assert_eq!(from("1.1.1.1").await.map(drop), Err(429), "of one address");
    let _third = from("2.2.2.2").await.unwrap();
    assert_eq!(from("3.3.3.3").await.map(drop), Err(503), "in all");
    drop(second);
    until("the place is free again", || async { from("1.1.1.1").await.is_ok() }).await;
    let metrics = get(server.addresses.admin, "/metrics", &[]).await.body;
    for limit in ["WEBSOCKET_MAX_CONNECTIONS", "WEBSOCKET_MAX_CONNECTIONS_PER_ADDRESS"] {
        let line = format!(r#"duelhub_limits_reached_total{{kind="{limit}"}} "#);
        assert!(metrics.contains(&line), "{metrics}");
    }
}

#[tokio::test]
async fn the_limit_of_an_address_holds_in_whatever_form_a_proxy_writes_it() {
    let limit = ("WEBSOCKET_MAX_CONNECTIONS_PER_ADDRESS", "1");
    let trusted = ("TRUSTED_PROXIES", "::ffff:127.0.0.1, ::ffff:10.0.0.0/104");
    let (server, backend) = TestServer::start_with_backend(&[limit, trusted]).await;
    let from = async |forwarded: &str| {
        let ticket = backend.ticket(77, 1).await;
        Join::ticket(ticket).header("x-forwarded-for", forwarded).open(server.addresses.edge).await
    };
    let _first = from("9.9.9.9, 1.2.3.4:1000").await.unwrap();
    for again in ["1.2.3.4:2000", "[::ffff:1.2.3.4]:443", "\"1.2.3.4\",", "1.2.3.4, 10.1.2.3"] {
        assert_eq!(from(again).await.map(drop), Err(429), "{again}");
    }
    let _other = from("[2001:db8::1]:443").await.unwrap();
    assert_eq!(from("2001:db8::2").await.map(drop), Err(429), "one /64");
    let _unknown = from("unknown").await.unwrap();
    assert_eq!(from("1.2.3.4, _hidden").await.map(drop), Err(429), "all unknown ones are one");
    let metrics = get(server.addresses.admin, "/metrics", &[]).await.body;
    assert!(metrics.contains("duelhub_forwarded_unreadable_total 2\n"), "{metrics}");
}

#[tokio::test]
async fn handshakes_come_no_faster_than_allowed() {
    let limit = ("WEBSOCKET_MAX_HANDSHAKES_PER_SECOND", "3");
    let (server, backend) = TestServer::start_with_backend(&[limit]).await;
    let mut joins = Vec::new();
    for user in 1..=7 {
        joins.push(Join::ticket(backend.ticket(77, user).await));
    }
    let last = joins.pop().unwrap();
    let mut statuses = Vec::new();
    for join in joins {
        statuses.push(join.open(server.addresses.edge).await.map(drop));
    }
    assert_eq!(&statuses[..3], [Ok(()); 3]);
    assert!(statuses[3..].contains(&Err(503)), "{statuses:?}");
    until("a second later there is room", || async {
        last.clone().open(server.addresses.edge).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn sockets_that_show_nothing_are_closed_and_make_room_for_others() {
    let (server, backend) = TestServer::start_with_backend(&[
        ("WEBSOCKET_HANDSHAKE_TIMEOUT_SECONDS", "1"),
        ("WEBSOCKET_MAX_PENDING_HANDSHAKES", "2"),
    ])
    .await;
    let edge = server.addresses.edge;
    let mut silent = TcpStream::connect(edge).await.unwrap();
    let mut slow = TcpStream::connect(edge).await.unwrap();
    slow.write_all(b"GET /ws HTTP/1.1\r\nHost: h").await.unwrap();
    // Two wait already, and nobody is kept out.
    for user in 1..=3 {
        backend.player(77, user).await;
    }
    let mut rest = Vec::new();
    soon("the silent one is closed", silent.read_to_end(&mut rest)).await.unwrap();
    soon("the slow one is closed", slow.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(get(edge, "/ws", &[]).await.status, 426);
}

#[tokio::test]
async fn asking_again_and_again_is_no_way_to_stay() {
    let server = TestServer::with(&[("WEBSOCKET_HANDSHAKE_TIMEOUT_SECONDS", "1")]).await;
    let mut stream = TcpStream::connect(server.addresses.edge).await.unwrap();
    let asking = async {
        let mut answer = [0; 4096];
        loop {
            let asked = stream.write_all(b"GET /nothing HTTP/1.1\r\nHost: hub\r\n\r\n").await;
            if asked.is_err() || !matches!(stream.read(&mut answer).await, Ok(1..)) {
                break;
            }
        }
    };
    soon("it is closed", asking).await;
}

#[tokio::test]
async fn a_head_that_trickles_in_is_cut_off_in_time() {
    let server = TestServer::with(&[("WEBSOCKET_HANDSHAKE_TIMEOUT_SECONDS", "1")]).await;
    let mut stream = TcpStream::connect(server.addresses.edge).await.unwrap();
    let trickle = async {
        for byte in handshake("", "").bytes().cycle() {
            if stream.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    soon("the trickle is cut off", trickle).await;
}
