//! The frames: JSON texts, one object each. Those of events are encoded with their header (RFC 6455, section 5.2), once for
//! everybody who receives the same body.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::clock::{self, UnixMs};
use crate::event::{Content, Ending, Event, Viewer};
use crate::hub::{PresenceChange, Recovery, Welcome};
use crate::id::{DuelId, RequestId, UserId};

/// The header of an unmasked frame, at most (RFC 6455, section 5.2).
const HEADER_BYTES_MAX: usize = 10;

/// What a client may send. Everything else is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ClientFrame {
    /// A sign of life; answered by `pong`.
    Ping,
    /// The client has everything up to here.
    Ack { seq: u64 },
    /// Of a type, or a later version, that this hub does not know.
    #[serde(other)]
    Unknown,
}

/// Reads a client's text; `None`: not a frame.
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
        seq: u64,
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
    },
}

impl ServerFrame<'_> {
    fn encode(&self) -> Utf8Bytes {
        serde_json::to_string(self).expect("frames are plain JSON").into()
    }
}

pub(super) fn connected(
    duel: DuelId,
    user: UserId,
    welcome: &Welcome,
    resume_ticket: Option<&str>,
) -> Utf8Bytes {
    let UnixMs(server_time_ms) = clock::now();
    ServerFrame::Connected {
        duel_id: duel.get(),
        user_id: user.get(),
        server_ts: server_time_ms / 1000,
        server_time_ms,
        epoch: welcome.position.epoch.to_string(),
        seq: welcome.position.seq,
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

pub(super) fn pong(seq: u64, resume_ticket: Option<&str>) -> Utf8Bytes {
    let UnixMs(server_time_ms) = clock::now();
    ServerFrame::Pong { ts: server_time_ms / 1000, server_time_ms, seq, resume_ticket }.encode()
}

pub(super) fn presence(duel: DuelId, change: PresenceChange) -> Utf8Bytes {
    let (duel_id, user_id) = (duel.get(), change.user.get());
    ServerFrame::Presence { duel_id, user_id, online: change.online }.encode()
}

pub(super) fn error(word: &str, request_id: &RequestId, retry: bool) -> Utf8Bytes {
    ServerFrame::Error { message: word, request_id: request_id.as_str(), retry }.encode()
}

/// The frame of an event as `viewer` sees it, header included; encoded once per distinct body. `None`: it is not addressed to
/// them.
pub(super) fn event(duel: DuelId, event: &Event, viewer: Viewer) -> Option<Bytes> {
    let push = match &event.content {
        Content::Pushed(push) => push,
        Content::Closed(ending) => {
            let status = match ending {
                Ending::Finished => "finished",
                Ending::Cancelled => "cancelled",
            };
            let closed = ServerFrame::DuelClosed { duel_id: duel.get(), seq: event.seq, status };
            return Some(whole(closed.encode()));
        }
    };
    Some(push.payload_for(viewer)?.encoded(|payload| {
        // The type has no character that JSON escapes, and the payload is an object already.
        let (event_type, seq) = (push.event_type.as_str(), event.seq);
        whole(format!(r#"{{"type":"{event_type}","seq":{seq},"payload":{payload}}}"#).into())
    }))
}

/// A text as a whole frame.
fn whole(text: Utf8Bytes) -> Bytes {
    let mut frame = Vec::with_capacity(HEADER_BYTES_MAX + text.len());
    let text = Frame::message(text, OpCode::Data(Data::Text), true);
    text.format(&mut frame).expect("a vector takes every frame");
    frame.into()
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
