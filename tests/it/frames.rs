//! What clients send, well-formed or not.

use std::time::Duration;

use duelhub_testkit::{Backend, Player, TestServer, get};
use futures_util::SinkExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

async fn player(server: &TestServer) -> Player {
    let backend = Backend::connect(server).await;
    backend.player(77, 1).await
}

#[tokio::test]
async fn a_ping_is_answered_with_the_time_and_the_position() {
    let server = TestServer::start().await;
    let mut one = player(&server).await;
    Backend::connect(&server).await.push(77, "{}").await;
    one.until_events(1).await;
    let before = duelhub::clock::now().0;
    one.ping().await;
    let (ms, ts) = (one.pong["server_time_ms"].as_u64().unwrap(), one.pong["ts"].as_u64().unwrap());
    assert!((before..=duelhub::clock::now().0).contains(&ms));
    assert_eq!((ts, one.pong["seq"].as_u64()), (ms / 1000, Some(1)));
}

#[tokio::test]
async fn what_is_not_understood_is_ignored_and_counted() {
    let server = TestServer::start().await;
    let mut one = player(&server).await;
    one.send(r#"{"type":"dance"}"#).await;
    one.send("no json").await;
    one.send("[]").await;
    one.send_binary(b"\xff\xfe").await;
    one.ping().await;
    let metrics = get(server.addresses.admin, "/metrics", &[]).await.body;
    for (kind, count) in [("unknown", 1), ("not_json", 2), ("binary", 1), ("ping", 1)] {
        let line = format!("duelhub_frames_received_total{{kind=\"{kind}\"}} {count}\n");
        assert!(metrics.contains(&line), "{kind}: {metrics}");
    }
}

#[tokio::test]
async fn a_message_in_fragments_is_one_message() {
    let server = TestServer::start().await;
    let mut one = player(&server).await;
    let fragment = |text: &'static str, code, last| {
        Message::Frame(Frame::message(text.as_bytes(), OpCode::Data(code), last))
    };
    one.ws.send(fragment(r#"{"type":"#, Data::Text, false)).await.unwrap();
    one.ws.send(fragment(r#""ping"}"#, Data::Continue, true)).await.unwrap();
    one.until(|one| !one.pong.is_null()).await;
}

#[tokio::test]
async fn what_is_too_large_is_told_so() {
    let server = TestServer::start().await;
    let mut fits = player(&server).await;
    fits.send("x".repeat(2048)).await;
    fits.ping().await;
    let fragment =
        |code| Message::Frame(Frame::message(vec![b'x'; 1500], OpCode::Data(code), false));
    let too_large = [
        vec![Message::Text("x".repeat(2049).into())],
        vec![fragment(Data::Text), fragment(Data::Continue)],
    ];
    for messages in too_large {
        let mut one = player(&server).await;
        for message in messages {
            one.ws.send(message).await.unwrap();
        }
        assert_eq!(one.until_closed().await, 1009);
        assert_eq!(one.error["message"], "message_too_large");
    }
    let mut liar = player(&server).await;
    // A masked text frame that announces 2^62 bytes (RFC 6455, section 5.2), and sends none.
    let header = [&[0x81, 0xff, 0x40][..], &[0; 7], &[1, 2, 3, 4]].concat();
    liar.ws.get_mut().write_all(&header).await.unwrap();
    assert_eq!(liar.until_closed().await, 1009);
}

#[tokio::test]
async fn what_breaks_the_protocol_is_closed_with_its_code() {
    let server = TestServer::start().await;
    let large_ping = [&[0x89, 0xfe, 0x00, 0x7e, 0, 0, 0, 0][..], &[0; 126]].concat();
    let table: [(&[u8], u16); 6] = [
        // Not masked, as a client's frames must be (section 5.1).
        (&[0x81, 0x02, b'h', b'i'], 1002),
        // Reserved bits, and a reserved opcode (section 5.2).
        (&[0xf1, 0x80, 1, 2, 3, 4], 1002),
        (&[0x83, 0x80, 1, 2, 3, 4], 1002),
        // A continuation of nothing (section 5.4).
        (&[0x80, 0x80, 1, 2, 3, 4], 1002),
        // A ping of more than 125 bytes (section 5.5).
        (&large_ping, 1002),
        // Text that is not UTF-8 (section 8.1).
        (&[0x81, 0x81, 0, 0, 0, 0, 0xff], 1007),
    ];
    for (bytes, code) in table {
        let mut one = player(&server).await;
        one.ws.get_mut().write_all(bytes).await.unwrap();
        assert_eq!(one.until_closed().await, code, "{bytes:x?}");
    }
}

#[tokio::test]
async fn who_is_silent_for_too_long_is_closed_and_who_pings_is_not() {
    let (server, backend) =
        TestServer::start_with_backend(&[("WEBSOCKET_CLIENT_TIMEOUT_SECONDS", "1")]).await;
    let mut silent = player(&server).await;
    let mut lively = backend.player(77, 2).await;
    // A message that was begun and is never finished is no sign of life.
    silent.ws.get_mut().write_all(&[0x81, 0xfe, 0x01]).await.unwrap();
    let mut closing = Box::pin(silent.until_closed());
    let code = loop {
        tokio::select! {
            code = &mut closing => break code,
            () = lively.ping() => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    drop(closing);
    assert_eq!((code, silent.error["message"].as_str()), (4003, Some("connection_timeout")));
    lively.ping().await;
}
