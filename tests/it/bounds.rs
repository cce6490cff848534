//! What one client, one page or one stranger may use up: never what is for others.

use std::time::Duration;

use duelhub_testkit::{Backend, Join, Player, Site, TestServer, exchange, get, soon, until};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

const PER_USER: &str = "WEBSOCKET_MAX_HANDSHAKES_PER_USER_PER_MINUTE";
const INVALID: &str = "WEBSOCKET_MAX_INVALID_PER_ADDRESS_PER_MINUTE";

async fn reached(server: &TestServer, limit: &str) -> u64 {
    let metrics = get(server.addresses.admin, "/metrics", &[]).await.body;
    let name = format!("duelhub_limits_reached_total{{kind=\"{limit}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_user_comes_back_so_often_a_minute_and_others_do_not_notice() {
    let (server, backend) = TestServer::start_with_backend(&[(PER_USER, "3")]).await;
    assert_eq!(reached(&server, PER_USER).await, 0);
    let mut player = backend.player(77, 1).await;
    for _ in 0..2 {
        player = player.rejoin(&server).await;
    }
    let next = player.resume_ticket();
    let mut refused = Join::ticket(&next).open(server.addresses.edge).await;
    assert_eq!(refused.map(drop), Err(429));
    // Another duel, another ticket: it is the same user.
    refused = Join::ticket(backend.ticket(78, 1).await).open(server.addresses.edge).await;
    assert_eq!(refused.map(drop), Err(429));
    let elsewhere = Join::ticket(backend.ticket(77, 1).await).header("x-forwarded-for", "1.1.1.1");
    Player::join(&server, elsewhere).await.ping().await;
    backend.player(77, 2).await.ping().await;
    player.ping().await;
    assert_eq!(reached(&server, PER_USER).await, 2);
    until("twenty seconds later one more is let in", async || {
        tokio::time::sleep(Duration::from_millis(500)).await;
        Join::ticket(&next).open(server.addresses.edge).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn whoever_shows_nothing_valid_uses_up_the_rate_of_strangers_alone() {
    let limits = [(INVALID, "5"), ("WEBSOCKET_MAX_HANDSHAKES_PER_SECOND", "40")];
    let (server, backend) = TestServer::start_with_backend(&limits).await;
    let edge = server.addresses.edge;
    let from = |address: &str| Join::ticket("x").header("x-forwarded-for", address);
    for address in ["1.1.1.1", "2.2.2.2"] {
        for _ in 0..5 {
            assert_eq!(Player::knock(&server, from(address)).await.until_closed().await, 4501);
        }
        assert_eq!(from(address).open(edge).await.map(drop), Err(429));
    }
    for _ in 0..60 {
        assert_eq!(from("1.1.1.1").open(edge).await.map(drop), Err(429));
    }
    for user in 1..=30 {
        let ticket = backend.ticket(77, user).await;
        let join = Join::ticket(ticket).header("x-forwarded-for", "1.1.1.1");
        Player::join(&server, join).await;
    }
    assert!(reached(&server, INVALID).await >= 62);
}

#[tokio::test]
async fn requests_for_tickets_without_valid_init_data_use_up_the_rate_of_strangers_alone() {
    let server =
        TestServer::with(&[(INVALID, "3"), (PER_USER, "2"), ("DEV_AUTH_ENABLED", "true")]).await;
    let backend = Backend::connect(&server).await;
    backend.open(77, &[1, 2]).await;
    let edge = server.addresses.edge;
    let ask = async |headers: &[(&str, &str)]| {
        get(edge, "/api/duel/ws-ticket?duel_id=77", headers).await.status
    };
    let address = ("X-Forwarded-For", "1.1.1.1");
    let nothing = [("X-Telegram-Init-Data", "hash=0"), address];
    for status in [401, 401, 401, 429, 429] {
        assert_eq!(ask(&nothing).await, status);
    }
    for user in ["1", "2"] {
        for status in [200, 200, 429] {
            assert_eq!(ask(&[("X-Dev-Telegram-User-Id", user), address]).await, status, "{user}");
        }
    }
}

#[tokio::test]
async fn a_refused_handshake_gives_its_place_up_at_once() {
    let limits =
        [("WEBSOCKET_MAX_PENDING_HANDSHAKES", "4"), ("WEBSOCKET_MAX_CONNECTIONS_PER_ADDRESS", "2")];
    let (server, backend) = TestServer::start_with_backend(&limits).await;
    // They do not answer the close frame.
    let mut bogus = Vec::new();
    for _ in 0..20 {
        bogus.push(Join::ticket("x").open(server.addresses.edge).await.unwrap());
    }
    for user in 1..=5 {
        let join = Join::ticket(backend.ticket(77, user).await);
        drop(soon("let in", Player::join(&server, join)).await);
    }
    // Whoever was told is told whole.
    let mut last = bogus.pop().unwrap();
    assert!(
        matches!(last.next().await, Some(Ok(Message::Text(text))) if text.contains("invalid_ticket"))
    );
}

#[tokio::test]
async fn a_client_that_sends_without_end_is_closed() {
    let (server, backend) =
        TestServer::start_with_backend(&[("WEBSOCKET_MAX_MESSAGES_PER_MINUTE", "50")]).await;
    let message = |kind: &str| match kind {
        "ping" => Message::text(r#"{"type":"ping"}"#),
        "ack" => Message::text(r#"{"type":"ack","seq":1}"#),
        "pong" => Message::Pong("".into()),
        "nothing" => Message::text(""),
        _ => Message::Ping("x".into()),
    };
    for (user, kind) in (1..).zip(["ping", "ack", "pong", "nothing", "control ping"]) {
        let mut player = backend.player(77, user).await;
        for _ in 0..60 {
            if player.ws.send(message(kind)).await.is_err() {
                break;
            }
        }
        assert_eq!(player.until_closed().await, 1008, "{kind}");
    }
    let mut modest = backend.player(77, 9).await;
    for _ in 0..40 {
        modest.ping().await;
    }
    let metrics = get(server.addresses.admin, "/metrics", &[]).await.body;
    let closed = "duelhub_connections_closed_total{reason=\"too_many_messages\"} 5\n";
    assert!(metrics.contains(closed), "{metrics}");
}

/// No message ever comes of them.
#[tokio::test]
async fn a_client_that_sends_empty_fragments_without_end_is_closed() {
    let (server, backend) = TestServer::start_with_backend(&[]).await;
    let player = backend.player(77, 1).await;
    let mut ws = player.ws;
    let fragment = |code| Message::Frame(Frame::message(Vec::new(), OpCode::Data(code), false));
    let flooding = async {
        ws.feed(fragment(Data::Text)).await.unwrap();
        loop {
            for _ in 0..1000 {
                if ws.feed(fragment(Data::Continue)).await.is_err() {
                    return;
                }
            }
            if ws.flush().await.is_err() {
                return;
            }
        }
    };
    soon("it is closed", flooding).await;
    let closed = "duelhub_connections_closed_total{reason=\"too_many_messages\"} 1\n";
    let admin = server.addresses.admin;
    until(closed, async || get(admin, "/metrics", &[]).await.body.contains(closed)).await;
}

/// It has three connections at most, however often it comes back, and the hub waits for none of its sockets.
#[tokio::test]
async fn a_client_that_comes_back_and_never_reads_holds_no_more_than_its_connections() {
    let (server, backend) = TestServer::start_with_backend(&[]).await;
    backend.open(77, &[1]).await;
    let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(60_000));
    let mut unread = Vec::new();
    for n in 0..12 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(server.addresses.edge).await.unwrap();
        let ticket = backend.ticket(77, 1).await;
        let head = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let request = format!("GET /ws?ticket={ticket} HTTP/1.1\r\nHost: hub\r\n{head}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        until("attached", async || backend.duel(77).await.connections == 3.min(n + 1)).await;
        for _ in 0..10 {
            backend.push(77, &large).await;
        }
        unread.push(stream);
    }
    let admin = server.addresses.admin;
    let three = "duelhub_connections 3\n";
    until(three, async || get(admin, "/metrics", &[]).await.body.contains(three)).await;
    // Those who had to go are reset once they had time to read: nothing is kept for them.
    let first = unread.remove(0);
    until("it is reset", async || {
        let error = first.take_error().unwrap();
        error.is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
    })
    .await;
}

#[tokio::test]
async fn a_client_that_sent_without_end_does_not_go_on_with_that_on_another_connection() {
    let limits = [("WEBSOCKET_MAX_MESSAGES_PER_MINUTE", "50"), (PER_USER, "2")];
    let (server, backend) = TestServer::start_with_backend(&limits).await;
    let (mut player, next) = (backend.player(77, 1).await, backend.ticket(77, 1).await);
    for _ in 0..60 {
        let _sent = player.try_send("{}").await;
    }
    assert_eq!(player.until_closed().await, 1008);
    assert_eq!(Join::ticket(next).open(server.addresses.edge).await.map(drop), Err(429));
    backend.player(77, 2).await.ping().await;
}

#[tokio::test]
async fn a_request_says_once_which_host_it_is_for_and_which_handshake_it_wants() {
    let server = TestServer::start().await;
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
    let (version, key) =
        ("Sec-WebSocket-Version: 13\r\n", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n");
    for (headers, status) in [
        (format!("Host: a\r\n{upgrade}{version}{key}"), 101),
        (format!("{upgrade}{version}{key}"), 400),
        (format!("Host: a\r\nHost: b\r\n{upgrade}{version}{key}"), 400),
        (format!("Host: a\r\n{upgrade}{version}{version}{key}"), 426),
        (format!("Host: a\r\n{upgrade}{version}{key}{key}"), 400),
    ] {
        let mut stream = TcpStream::connect(server.addresses.edge).await.unwrap();
        stream.write_all(format!("GET /ws HTTP/1.1\r\n{headers}\r\n").as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        soon("an answer", stream.read_exact(&mut answer)).await.unwrap();
        assert_eq!(str::from_utf8(&answer).unwrap(), format!("HTTP/1.1 {status}"), "{headers}");
    }
    let old = exchange(server.addresses.edge, "GET /nothing HTTP/1.0\r\n\r\n").await;
    assert_eq!(old.status, 404, "HTTP/1.0 has no Host");
}

#[tokio::test]
async fn an_empty_offer_beside_the_subprotocol_does_not_hide_the_ticket() {
    let (server, backend) = TestServer::start_with_backend(&[]).await;
    for offers in ["duelhub.v1,", "duelhub.v1, ,", ",duelhub.v1"] {
        let ticket = backend.ticket(77, 1).await;
        let join = Join::ticket(ticket).header("sec-websocket-protocol", offers);
        Player::join(&server, join).await;
    }
}

#[tokio::test]
async fn the_log_shows_no_long_path_and_not_every_refusal() {
    let (hub, _backend) = Site::new().start_with_backend().await;
    let edge = hub.addresses.edge;
    let ticket = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiIsImtpZCI6IjAxMjMifQ.body.signature";
    get(edge, &format!("/ws/{ticket}"), &[]).await;
    get(edge, &format!("/{}", "x".repeat(10_000)), &[]).await;
    for _ in 0..200 {
        get(edge, "/nothing", &[]).await;
    }
    let mut last = 0;
    // Once the rate allows another line.
    while !hub.output().contains("/last") {
        get(edge, "/last", &[]).await;
        last += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let output = hub.output();
    assert!(!output.contains("body.signature") && !output.contains(&"x".repeat(100)));
    let told = output.matches("\"status\":404").count();
    let asked = 2 + 200 + last;
    assert!(told < 150, "{told} of {asked} are told");
    let suppressed = output.split("\"suppressed\":").skip(1);
    let suppressed = suppressed.map(|rest| rest.split([',', '}']).next().unwrap());
    let suppressed: usize = suppressed.map(|count| count.parse::<usize>().unwrap()).sum();
    // Those since the last line are told with the next one.
    assert!(
        (200..=asked).contains(&(told + suppressed)),
        "{told} and {suppressed} of {asked}: {output}"
    );
}
