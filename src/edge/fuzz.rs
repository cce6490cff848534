//! What a stranger sends to the data plane. See [`crate::fuzz`].

use axum::http::{HeaderMap, HeaderName, HeaderValue, Version};
use futures_util::{FutureExt as _, StreamExt as _};
use prometheus_client::metrics::counter::Counter;
use tokio_tungstenite::tungstenite::Message;

use super::client::TrustedProxies;
use super::{handshake, protocol, session};
use crate::limits;

/// The query in the first line, then headers.
pub(crate) fn handshake(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let query = String::from_utf8_lossy(lines.next().unwrap_or_default());
    let mut headers = HeaderMap::new();
    for line in lines.take(64) {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = HeaderName::from_bytes(parts.next().unwrap_or_default());
        let value = HeaderValue::from_bytes(parts.next().unwrap_or_default());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    handshake::fuzz(&query, Version::HTTP_11, &headers);
    let proxies = ["127.0.0.1", "10.0.0.0/8"].iter().filter_map(|text| text.parse().ok());
    let proxies = TrustedProxies::new(proxies.collect(), Counter::default());
    let _client = proxies.client(&headers, std::net::Ipv4Addr::LOCALHOST.into()).counted();
}

pub(crate) fn handshakes() -> Vec<Vec<u8>> {
    let head = "ticket=a.b.c&resume=0123456789abcdef%3A42\nupgrade:websocket\nconnection:Upgrade\nsec-websocket-version:13\n\
                sec-websocket-key:dGhlIHNhbXBsZSBub25jZQ==\nsec-websocket-protocol:duelhub.v1, a.b.c\nx-forwarded-for:1.2.3.4:5, \
                [2001:db8::1]:443, \"10.0.0.1\"\n";
    vec![head.as_bytes().to_vec()]
}

/// What comes after the handshake.
pub(crate) fn websocket(bytes: &[u8]) {
    let (ours, theirs) = tokio::io::duplex(64);
    drop(theirs);
    let reading = async {
        let mut ws = session::websocket(ours, bytes.to_vec(), 2048).await;
        for _ in 0..limits::GRPC_STREAMS_MAX {
            match ws.next().await {
                Some(Ok(Message::Text(text))) => drop(protocol::parse(&text)),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => break,
            }
        }
    };
    // The peer is gone, so nothing is waited for.
    let _read = reading.now_or_never();
}

pub(crate) fn websockets() -> Vec<Vec<u8>> {
    // Masked with zeros (RFC 6455, section 5.3).
    let masked = |first: u8, text: &str| {
        let length = u8::try_from(text.len()).unwrap_or(0) | 0x80;
        [&[first, length, 0, 0, 0, 0], text.as_bytes()].concat()
    };
    let ping = masked(0x81, r#"{"type":"ping"}"#);
    let ack = masked(0x81, r#"{"type":"ack","seq":7}"#);
    let fragments =
        [masked(0x01, r#"{"type":"#), masked(0x89, "x"), masked(0x80, r#""ping"}"#)].concat();
    vec![[ping.clone(), ack.clone()].concat(), ping, ack, fragments, masked(0x88, "\u{3}\u{e8}bye")]
}
