//! A connection over a real WebSocket: what comes in is put down as it comes, and looked at when the player looks.

use std::net::SocketAddr;
use std::sync::Arc;

use duelhub::engine::EngineError;
use duelhub::event::{Outcome, Position};
use duelhub::hub::{AttachError, Dismissal, Recovery};
use duelhub::ticket::Issued;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};
use tokio_util::task::AbortOnDropHandle;

use super::{Gone, Served};
use crate::check::Welcomed;
use crate::history::shown_end;
use crate::spec::Shown;
use crate::wait::soon;

#[derive(Debug)]
pub(crate) struct WebLine {
    to: SplitSink<WebSocketStream<TcpStream>, Message>,
    inbox: Arc<Inbox>,
    /// Pings sent so far.
    pings: u64,
    _reader: AbortOnDropHandle<()>,
}

#[derive(Debug, Default)]
struct Inbox {
    arrived: Mutex<Arrived>,
    changed: Notify,
}

/// What has arrived and was not looked at.
#[derive(Debug, Default)]
struct Arrived {
    shown: Vec<Shown>,
    /// Up to where the player was served, as a pong said, behind everything that belongs together.
    seq: u64,
    /// Pongs so far.
    pongs: u64,
    /// The close frame.
    closed: Option<(u16, String)>,
}

/// What this player understands of a frame.
#[derive(Deserialize)]
struct Frame<'a> {
    r#type: String,
    #[serde(default)]
    seq: u64,
    epoch: Option<String>,
    recovered: Option<bool>,
    resume_ticket: Option<String>,
    status: Option<String>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

impl WebLine {
    /// Opens a connection and waits until it is known what it starts with.
    pub(super) async fn open(
        address: SocketAddr,
        ticket: &Issued,
        resume: Option<Position>,
    ) -> Result<(Self, Welcomed), AttachError> {
        let stream = TcpStream::connect(address).await.unwrap();
        let ticket = ticket.text.as_str();
        let resume_at = resume.map(|position| format!("&resume={position}")).unwrap_or_default();
        let url = format!("ws://{address}/ws?ticket={ticket}{resume_at}");
        let (ws, _) = soon("the handshake", client_async(url, stream)).await.unwrap();
        let (to, mut from) = ws.split();
        let first = soon("a first frame", from.next()).await.expect("a frame").unwrap();
        let text = first.into_text().unwrap();
        let first: Frame<'_> = serde_json::from_str(&text).unwrap();
        if first.r#type == "error" {
            return Err(refusal(&mut from).await);
        }
        let position = format!("{}:{}", first.epoch.unwrap(), first.seq);
        let position: Position = position.parse().unwrap();
        let recovery = match first.recovered {
            None => Recovery::Fresh,
            Some(true) => Recovery::Recovered,
            Some(false) => Recovery::NotRecovered,
        };
        let inbox = Arc::new(Inbox::default());
        inbox.arrived.lock().seq = position.seq;
        let reader = AbortOnDropHandle::new(tokio::spawn(read(from, Arc::clone(&inbox))));
        let mut line = Self { to, inbox, pings: 0, _reader: reader };
        // The state comes before the answer to whatever the player says.
        line.ping().await;
        let state = line.inbox.take_state(position, recovery);
        let resume_ticket = first.resume_ticket;
        Ok((line, Welcomed { position, recovery, state, resume_ticket }))
    }

    /// Waits until everything sent before has been answered, or the node has closed the connection.
    async fn ping(&mut self) {
        self.say(r#"{"type":"ping"}"#.to_owned()).await;
        self.pings += 1;
        let pings = self.pings;
        let answered = self.inbox.until(|arrived| arrived.pongs >= pings);
        soon("a pong", answered).await;
    }

    async fn say(&mut self, text: String) {
        // A connection that closes at this moment says so itself.
        let _closing = self.to.send(Message::Text(text.into())).await;
    }

    pub(super) fn handed(&mut self) -> Served {
        let mut arrived = self.inbox.arrived.lock();
        if arrived.closed.is_some() {
            let last = arrived.shown.last().map_or(0, |shown| shown.seq);
            arrived.seq = arrived.seq.max(last);
        }
        let seq = arrived.seq;
        let shown: Vec<_> = arrived.shown.extract_if(.., |shown| shown.seq <= seq).collect();
        Served { seq, handed: !shown.is_empty(), more: !shown.is_empty(), shown }
    }

    pub(super) async fn next(&mut self) -> Result<Served, Gone> {
        self.ping().await;
        let closed = self.closed();
        if let Some((4004, _)) = closed {
            return Err(Gone::TooSlow);
        }
        let served = self.handed();
        match closed {
            // Of a duel that is closed the last event comes before the close frame.
            Some((4503, _)) if served.more => Ok(served),
            Some((code, reason)) if self.dismissal().is_none() => {
                Err(Gone::Otherwise(format!("{code} {reason}")))
            }
            _ => Ok(served),
        }
    }

    /// A pong may say more next time, or something has come: both are found by asking again.
    pub(super) async fn woken(&self) {
        let pause = std::time::Duration::from_millis(5);
        let _either = tokio::time::timeout(pause, self.inbox.changed.notified()).await;
    }

    /// Whether it was closed because the duel is.
    pub(super) fn is_over(&self) -> bool {
        self.closed().is_some_and(|(code, _)| code == 4503)
    }

    fn closed(&self) -> Option<(u16, String)> {
        self.inbox.arrived.lock().closed.clone()
    }

    pub(super) fn is_open(&self) -> bool {
        self.closed().is_none()
    }

    pub(super) fn dismissal(&self) -> Option<Dismissal> {
        match self.closed()? {
            (4504, _) => Some(Dismissal::Replaced),
            (1012, reason) if reason != "server_restart" => {
                Some(Dismissal::Disconnected { reconnect: true, reason: Some(reason.into()) })
            }
            _ => None,
        }
    }

    pub(super) async fn ack(&mut self, seq: u64) {
        self.say(format!(r#"{{"type":"ack","seq":{seq}}}"#)).await;
        self.ping().await;
    }
}

impl Inbox {
    async fn until(&self, so: impl Fn(&Arrived) -> bool) {
        loop {
            let changed = self.changed.notified();
            {
                let arrived = self.arrived.lock();
                if arrived.closed.is_some() || so(&arrived) {
                    return;
                }
            }
            changed.await;
        }
    }

    /// Of what has arrived, the state that a connection starts with.
    fn take_state(&self, position: Position, recovery: Recovery) -> Vec<Shown> {
        let mut arrived = self.arrived.lock();
        let of_state =
            |shown: &mut Shown| recovery != Recovery::Recovered && shown.seq <= position.seq;
        arrived.shown.extract_if(.., of_state).collect()
    }

    fn take(&self, frame: &Frame<'_>) {
        let mut arrived = self.arrived.lock();
        match frame.r#type.as_str() {
            "presence" | "error" => {}
            "pong" => {
                arrived.pongs += 1;
                arrived.seq = arrived.seq.max(frame.seq);
            }
            _ => arrived.shown.push(shown(frame)),
        }
    }
}

fn shown(frame: &Frame<'_>) -> Shown {
    let seq = frame.seq;
    match frame.status.as_deref() {
        Some("finished") => shown_end(seq, Outcome::Finished),
        Some("cancelled") => shown_end(seq, Outcome::Cancelled),
        _ => {
            let body = frame.payload.expect("an event has a payload").get().to_owned();
            Shown { seq, event_type: frame.r#type.clone(), body }
        }
    }
}

/// Puts down what comes, until the connection ends.
async fn read(mut from: SplitStream<WebSocketStream<TcpStream>>, inbox: Arc<Inbox>) {
    let closed = loop {
        match from.next().await {
            Some(Ok(Message::Text(text))) => inbox.take(&serde_json::from_str(&text).unwrap()),
            Some(Ok(Message::Close(Some(frame)))) => {
                break (frame.code.into(), frame.reason.to_string());
            }
            Some(Ok(_)) => continue,
            // What RFC 6455, section 7.4.1, keeps for an end without a close frame.
            Some(Err(error)) => break (1006, error.to_string()),
            None => break (1006, String::new()),
        }
        inbox.changed.notify_waiters();
    };
    inbox.arrived.lock().closed = Some(closed);
    inbox.changed.notify_waiters();
}

/// Why a connection was refused, by the close frame that follows.
async fn refusal(from: &mut SplitStream<WebSocketStream<TcpStream>>) -> AttachError {
    let closed = soon("a close frame", from.next()).await.expect("a frame").unwrap();
    let Message::Close(Some(frame)) = closed else { panic!("{closed:?}") };
    match frame.code.into() {
        4001 => AttachError::Expired,
        4002 => AttachError::AlreadyUsed,
        4501 => AttachError::Revoked,
        4502 => AttachError::NotAParticipant,
        4503 => AttachError::Closed,
        1011 => AttachError::Engine(EngineError::Unavailable { may_have_taken_effect: true }),
        code => panic!("{code} {}", frame.reason),
    }
}
