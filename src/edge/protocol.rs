//! The frames: JSON objects as text, encoded with their header (RFC 6455, section 5.2). An event is encoded once for all who
//! receive the same body.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::clock::{self, UnixMs};
use crate::event::{Content, Event, Outcome, Push, Viewer};
use crate::hub::{PresenceChange, Recovery, Welcome};
use crate::id::{DuelId, RequestId, UserId};

const VECTOR: &str = "writing to a vector cannot fail";

/// What a client may send. Everything else is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ClientFrame {
    /// Answered by `pong`.
    Ping,
    /// The client has everything up to `seq`.
    Ack { seq: u64 },
    /// Of a type that this hub does not know.
    #[serde(other)]
    Unknown,
}

/// Parses a client's text. Returns `None` if it is no frame.
pub(super) fn parse(text: &str) -> Option<ClientFrame> {
    serde_json::from_str(text).ok()
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ServerFrame<'a> {
    Connected {
        duel_id: u64,
        user_id: u64,
        server_ts: u64,
        server_time_ms: u64,
        epoch: String,
        head: u64,
        recovered: Option<bool>,
        online: Vec<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        resume_ticket: Option<&'a str>,
    },
    Presence {
        duel_id: u64,
        user_id: u64,
        online: bool,
    },
    DuelClosed {
        duel_id: u64,
        seq: u64,
        status: &'a str,
    },
    Pong {
        ts: u64,
        server_time_ms: u64,
        seq: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        resume_ticket: Option<&'a str>,
    },
    Error {
        message: &'a str,
        request_id: &'a str,
        retry: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u128>,
    },
}

impl ServerFrame<'_> {
    fn text(&self) -> String {
        serde_json::to_string(self).expect("frames are plain JSON")
    }

    fn encode(&self) -> Bytes {
        text_frame(&self.text())
    }
}

pub(super) fn connected(
    duel: DuelId,
    user: UserId,
    welcome: &Welcome,
    resume_ticket: Option<&str>,
) -> Bytes {
    let UnixMs(server_time_ms) = clock::now();
    ServerFrame::Connected {
        duel_id: duel.get(),
        user_id: user.get(),
        server_ts: server_time_ms / 1000,
        server_time_ms,
        epoch: welcome.head.epoch.to_string(),
        head: welcome.head.seq,
        recovered: match welcome.recovery {
            Recovery::Fresh => None,
            Recovery::Recovered => Some(true),
            Recovery::NotRecovered => Some(false),
        },
        online: welcome.online.iter().map(|user| user.get()).collect(),
        resume_ticket,
    }
    .encode()
}

pub(super) fn pong(seq: u64, resume_ticket: Option<&str>) -> Bytes {
    let UnixMs(server_time_ms) = clock::now();
    ServerFrame::Pong { ts: server_time_ms / 1000, server_time_ms, seq, resume_ticket }.encode()
}

pub(super) fn presence(duel: DuelId, change: PresenceChange) -> Bytes {
    let (duel_id, user_id) = (duel.get(), change.user.get());
    ServerFrame::Presence { duel_id, user_id, online: change.online }.encode()
}

/// Returns a text for the library, which sends it before the close.
pub(super) fn error(
    message: &str,
    request_id: &RequestId,
    retry: bool,
    retry_after: Option<Duration>,
) -> Utf8Bytes {
    let (request_id, retry_after_ms) =
        (request_id.as_str(), retry_after.map(|after| after.as_millis()));
    ServerFrame::Error { message, request_id, retry, retry_after_ms }.text().into()
}

/// Returns the frame of an event as `viewer` sees it, or `None` if it is not addressed to them.
pub(super) fn event_frame(duel: DuelId, event: &Event, viewer: Viewer) -> Option<Bytes> {
    let outcome = match &event.content {
        Content::Pushed(push) => return push_frame(push, event.seq, viewer).cloned(),
        Content::Closed(Outcome::Finished) => "finished",
        Content::Closed(Outcome::Cancelled) => "cancelled",
    };
    Some(ServerFrame::DuelClosed { duel_id: duel.get(), seq: event.seq, status: outcome }.encode())
}

/// Returns the frame of a push, encoded once per distinct body, or `None` if it is not addressed to `viewer`.
pub(super) fn push_frame(push: &Push, seq: u64, viewer: Viewer) -> Option<&Bytes> {
    Some(push.payload_for(viewer)?.encoded(|payload| {
        // The type has no character that JSON escapes, and the payload is an object already.
        let event_type = push.event_type.as_str();
        let digits = 1 + seq.checked_ilog10().unwrap_or(0) as usize;
        let around = r#"{"type":"","seq":,"payload":}"#.len();
        let mut frame = frame_header(around + event_type.len() + digits + payload.len());
        write!(frame, r#"{{"type":"{event_type}","seq":{seq},"payload":{payload}}}"#)
            .expect(VECTOR);
        frame.into()
    }))
}

fn text_frame(text: &str) -> Bytes {
    let mut frame = frame_header(text.len());
    frame.extend_from_slice(text.as_bytes());
    frame.into()
}

/// Returns the header of a text frame, with room for its body of so many bytes.
fn frame_header(bytes: usize) -> Vec<u8> {
    let header = FrameHeader { opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
    let length = bytes as u64;
    let mut frame = Vec::with_capacity(header.len(length) + bytes);
    header.format(length, &mut frame).expect(VECTOR);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_understood_or_ignored() {
        assert_eq!(parse(r#"{"type":"ping"}"#), Some(ClientFrame::Ping));
        assert_eq!(parse(r#"{"ts":1,"type":"ping"}"#), Some(ClientFrame::Ping));
        assert_eq!(parse(r#"{"type":"ack","seq":7}"#), Some(ClientFrame::Ack { seq: 7 }));
        assert_eq!(parse(r#"{"type":"dance"}"#), Some(ClientFrame::Unknown));
        for nonsense in [
            "",
            "ping",
            "{}",
            "[]",
            r#"{"type":1}"#,
            r#"{"type":"ack"}"#,
            r#"{"type":"ack","seq":-1}"#,
            "{\"type\":\"ping\"",
            &"[".repeat(2000),
        ] {
            assert_eq!(parse(nonsense), None, "{nonsense:.20}");
        }
    }
}
