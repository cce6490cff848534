//! The data plane's protocol as a player speaks it: one handshake (RFC 6455, section 4.1), short masked frames out, unmasked
//! frames in.

use serde::Deserialize;

/// The key of a handshake, and the server's proof for it: the example of RFC 6455, section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// `{"type":"ping"}` as a masked text frame. Its mask is zero, which costs no work. The RFC wants an unpredictable one, for
/// the sake of proxies that are not here.
pub(super) const PING: &[u8] = b"\x81\x8f\0\0\0\0{\"type\":\"ping\"}";

/// How every event of the bench begins.
const EVENT: &[u8] = b"{\"type\":\"duel_update\",\"seq\":";
const PRESENCE: &[u8] = b"{\"type\":\"presence\"";
const PONG: &[u8] = b"{\"type\":\"pong\"";

/// What precedes the push's number in a payload.
const PUSH: &[u8] = b"\"push\":";

/// Returns the request of a handshake. `resume` is the position to resume from.
pub(super) fn request(host: &str, path: &str, ticket: &str, resume: Option<&str>) -> String {
    let resume = resume.map(|position| format!("&resume={position}")).unwrap_or_default();
    format!(
        "GET {path}?ticket={ticket}{resume} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
}

/// The answer to a handshake.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HandshakeAnswer {
    /// It is not complete yet.
    Partial,
    /// The WebSocket is open. The answer had so many bytes.
    Open(usize),
    /// The handshake was refused with this status.
    Refused(u16),
}

pub(super) fn answer(bytes: &[u8]) -> HandshakeAnswer {
    let Some(end) = find(bytes, b"\r\n\r\n") else { return HandshakeAnswer::Partial };
    let head = &bytes[..end];
    let status = head.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
    match status.and_then(|digits| digits.parse().ok()).unwrap_or(0) {
        101 if find(head, ACCEPT).is_some() => HandshakeAnswer::Open(end + 4),
        status => HandshakeAnswer::Refused(status),
    }
}

/// A frame that was received, and how many bytes it took.
pub(super) struct Received<'a> {
    pub(super) frame: Frame<'a>,
    pub(super) length: usize,
}

/// A frame from the hub.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// One of the bench's own events.
    Event {
        seq: u64,
        push: u64,
    },
    Pong,
    Presence,
    /// Any other text.
    Text(&'a [u8]),
    Close {
        code: u16,
    },
    /// A frame that a hub does not send.
    Unexpected,
}

/// Returns the first frame in `bytes` (RFC 6455, section 5.2), or `None` if it is not complete.
pub(super) fn frame(bytes: &[u8]) -> Option<Received<'_>> {
    let (header, length) = match *bytes.get(1)? {
        127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        // A server masks no frame. A masked one reads as one that is too long.
        length => (2, usize::from(length)),
    };
    let body = bytes.get(header..header + length)?;
    let frame = match bytes[0] {
        0x81 => text(body),
        0x88 => {
            Frame::Close { code: body.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code)) }
        }
        _ => Frame::Unexpected,
    };
    Some(Received { frame, length: header + length })
}

fn text(body: &[u8]) -> Frame<'_> {
    if let Some(rest) = body.strip_prefix(EVENT) {
        let push = find(rest, PUSH).map(|at| number(&rest[at + PUSH.len()..]));
        return push.map_or(Frame::Unexpected, |push| Frame::Event { seq: number(rest), push });
    }
    if body.starts_with(PONG) {
        return Frame::Pong;
    }
    if body.starts_with(PRESENCE) { Frame::Presence } else { Frame::Text(body) }
}

/// Returns the number at the start of `bytes`.
fn number(bytes: &[u8]) -> u64 {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit());
    digits
        .fold(0, |number: u64, digit| number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')))
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// A text frame that is rare enough to be parsed as JSON.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Text {
    Connected {
        epoch: String,
        head: u64,
        recovered: Option<bool>,
        resume_ticket: Option<String>,
    },
    Error {
        message: String,
    },
    #[serde(other)]
    Other,
}

/// Returns the payload of push number `push`, with `bytes` bytes.
pub(super) fn payload(duel: u64, push: u64, bytes: usize) -> String {
    let head = format!(r#"{{"duel_id":{duel},"push":{push},"question":""#);
    let fill = bytes.saturating_sub(head.len() + 2);
    format!(r#"{head}{}"}}"#, "x".repeat(fill))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_one_after_the_other() {
        let event =
            format!(r#"{{"type":"duel_update","seq":12,"payload":{}}}"#, payload(7, 345, 256));
        let mut bytes = vec![0x81, 126];
        bytes.extend(u16::try_from(event.len()).unwrap().to_be_bytes());
        bytes.extend(event.as_bytes());
        let whole = bytes.len();
        bytes.extend([0x88, 2, 0x0f, 0xa4]);
        let first = frame(&bytes).unwrap();
        assert_eq!((first.frame, first.length), (Frame::Event { seq: 12, push: 345 }, whole));
        assert_eq!(frame(&bytes[whole..]).unwrap().frame, Frame::Close { code: 4004 });
        assert!((0..whole).all(|end| frame(&bytes[..end]).is_none()));
        assert_eq!(payload(7, 345, 256).len(), 256);
    }

    #[test]
    fn a_handshake_is_open_only_with_the_right_proof() {
        let accept = std::str::from_utf8(ACCEPT).unwrap();
        let good = format!("HTTP/1.1 101 Switching\r\nsec-websocket-accept: {accept}\r\n\r\nrest");
        assert_eq!(answer(good.as_bytes()), HandshakeAnswer::Open(good.len() - 4));
        assert_eq!(answer(&good.as_bytes()[..30]), HandshakeAnswer::Partial);
        assert_eq!(answer(good.replace(accept, "x").as_bytes()), HandshakeAnswer::Refused(101));
        assert_eq!(answer(b"HTTP/1.1 503 Busy\r\n\r\n"), HandshakeAnswer::Refused(503));
    }
}
