//! What guests do. Each goes on until it is stopped.

use std::time::Duration;

use duelhub_testkit::{Join, Player};
use futures_util::SinkExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::{SHARED, Target};

/// The duel and the user of a guest who was let in.
const DUEL: u64 = 666;
const USER: u64 = 666;

const PAUSE: Duration = Duration::from_millis(2);

async fn guest(target: &Target) -> Option<Player> {
    let ticket = target.backend.ticket(DUEL, USER).await;
    come(target, ticket).await
}

async fn come(target: &Target, ticket: String) -> Option<Player> {
    let join = Join::ticket(ticket).header("x-forwarded-for", SHARED);
    let mut player = Player::try_knock(&*target.hub, join).await.ok()?;
    player.next().await;
    (player.connected["type"] == "connected").then_some(player)
}

/// As one whose network is bad, at full speed.
pub(crate) async fn reconnect(target: Target, _nth: usize) {
    loop {
        let mut player = guest(&target).await;
        while let Some(before) = player {
            player = come(&target, before.resume_ticket()).await;
        }
        sleep(PAUSE).await;
    }
}

/// Opens a connection, has much sent to it, and opens the next one.
pub(crate) async fn never_read(target: Target, nth: usize) {
    let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(60_000));
    let (mut unread, user) = (Vec::new(), USER + u64::try_from(nth).unwrap());
    loop {
        let ticket = target.backend.ticket(DUEL, user).await;
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(target.hub.addresses.edge).await.unwrap();
        let request = format!(
            "GET /ws?ticket={ticket} HTTP/1.1\r\nHost: hub\r\nX-Forwarded-For: {SHARED}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let _sent = stream.write_all(request.as_bytes()).await;
        unread.push(stream);
        drop(target.backend.try_push(duelhub_testkit::push(DUEL, &large)).await);
        sleep(5 * PAUSE).await;
    }
}

/// From twelve addresses, one of them that of others as well; they neither read nor answer.
pub(crate) async fn knock(target: Target, nth: usize) {
    let address =
        if nth.is_multiple_of(4) { SHARED.to_owned() } else { format!("6.6.7.{}", nth % 12) };
    loop {
        let join = Join::ticket("bogus").header("x-forwarded-for", address.clone());
        if let Ok(player) = Player::try_knock(&*target.hub, join).await {
            tokio::spawn(async move {
                sleep(Duration::from_secs(2)).await;
                drop(player);
            });
        }
        sleep(PAUSE).await;
    }
}

/// On connections that are kept alive, as a proxy keeps them.
pub(crate) async fn ask_for_tickets(target: Target, _nth: usize) {
    let request = format!(
        "GET /api/duel/ws-ticket?duel_id=7 HTTP/1.1\r\nHost: hub\r\nX-Forwarded-For: {SHARED}\r\nX-Telegram-Init-Data: hash=0\r\n\r\n"
    );
    send_again_and_again(&target, &request).await;
}

pub(crate) async fn long_paths(target: Target, _nth: usize) {
    let path = "x".repeat(15_000);
    let request = format!("GET /{path} HTTP/1.1\r\nHost: hub\r\nX-Forwarded-For: {SHARED}\r\n\r\n");
    send_again_and_again(&target, &request).await;
}

async fn send_again_and_again(target: &Target, request: &str) {
    loop {
        let mut stream = TcpStream::connect(target.hub.addresses.edge).await.unwrap();
        let mut answer = [0; 4096];
        while stream.write_all(request.as_bytes()).await.is_ok() {
            if !matches!(stream.read(&mut answer).await, Ok(1..)) {
                break;
            }
        }
    }
}

/// Straight at the hub, and some half a request.
pub(crate) async fn say_nothing(target: Target, nth: usize) {
    let mut silent = Vec::new();
    loop {
        let connecting = TcpStream::connect(target.hub.addresses.edge);
        if let Ok(Ok(mut stream)) = timeout(Duration::from_secs(1), connecting).await {
            if nth.is_multiple_of(2) {
                let _sent = stream.write_all(b"GET /ws HTTP/1.1\r\nHost").await;
            }
            silent.push(stream);
        }
        // Enough to fill all places several times over, and to leave this process some descriptors.
        if silent.len() > 500 {
            silent.drain(..100);
        }
        sleep(PAUSE).await;
    }
}

pub(crate) async fn send_pongs(target: Target, _nth: usize) {
    send_without_end(target, || Message::Pong("".into())).await;
}

pub(crate) async fn send_fragments(target: Target, _nth: usize) {
    let empty = || Message::Frame(Frame::message(Vec::new(), OpCode::Data(Data::Continue), false));
    send_without_end(target, empty).await;
}

async fn send_without_end(target: Target, message: impl Fn() -> Message) {
    loop {
        if let Some(mut player) = guest(&target).await {
            let first = Frame::message(Vec::new(), OpCode::Data(Data::Text), false);
            let mut sent = player.ws.feed(Message::Frame(first)).await;
            while sent.is_ok() {
                for _ in 0..1000 {
                    sent = sent.and(player.ws.feed(message()).await);
                }
                sent = sent.and(player.ws.flush().await);
            }
        }
        sleep(PAUSE).await;
    }
}
