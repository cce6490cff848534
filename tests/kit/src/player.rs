//! A player: one WebSocket, whose frames are folded into plain state.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::{Reachable, soon};

/// How a player opens their socket.
#[derive(Debug, Clone, Default)]
pub struct Join {
    /// Instead of `/ws`.
    pub path: Option<&'static str>,
    /// What opens it.
    pub ticket: Option<String>,
    /// Where to go on, as the query has it.
    pub resume: Option<String>,
    /// Further headers of the handshake.
    pub headers: Vec<(&'static str, String)>,
    /// Bytes of the socket's receive buffer; unset: the system's.
    pub receive_buffer: Option<u32>,
}

impl Join {
    /// With a ticket in the query.
    pub fn ticket(ticket: impl Into<String>) -> Self {
        Self { ticket: Some(ticket.into()), ..Self::default() }
    }

    /// With a ticket among the subprotocols.
    pub fn subprotocol(ticket: &str) -> Self {
        Self::default().header("sec-websocket-protocol", format!("duelhub.v1, {ticket}"))
    }

    /// Asks to go on after a position.
    pub fn resume(self, position: impl Into<String>) -> Self {
        Self { resume: Some(position.into()), ..self }
    }

    /// With one header more.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The socket, or the status that answered the handshake.
    pub async fn open(self, address: SocketAddr) -> Result<WebSocketStream<TcpStream>, u16> {
        match self.try_open(address).await {
            Ok(ws) => Ok(ws),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("the handshake: {error}"),
        }
    }

    /// The socket, or why there is none: the hub may be away.
    pub async fn try_open(self, address: SocketAddr) -> Result<WebSocketStream<TcpStream>, Error> {
        let mut query = Vec::new();
        query.extend(self.ticket.map(|ticket| format!("ticket={ticket}")));
        query.extend(self.resume.map(|position| format!("resume={position}")));
        let url = format!("ws://{address}{}?{}", self.path.unwrap_or("/ws"), query.join("&"));
        let mut request = url.into_client_request().unwrap();
        for (name, value) in self.headers {
            request.headers_mut().append(name, value.parse().unwrap());
        }
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes).unwrap();
        }
        let stream = socket.connect(address).await?;
        let config = WebSocketConfig::default().read_buffer_size(4096);
        let opened = client_async_with_config(request, stream, Some(config));
        Ok(soon("the handshake", opened).await?.0)
    }
}

/// What the hub says in one frame, as far as anybody looks at it.
#[derive(Debug, Deserialize)]
pub struct Frame<'a> {
    /// The type of an event, or one of the hub's own.
    pub r#type: &'a str,
    /// Where it stands; of a `pong`, up to where the player was served.
    pub seq: Option<u64>,
    /// Of `connected`.
    pub epoch: Option<&'a str>,
    /// Of `connected`.
    pub head: Option<u64>,
    /// Of `connected`.
    pub recovered: Option<bool>,
    /// Of `connected`, and of some `pong`s.
    pub resume_ticket: Option<String>,
    /// Of `duel_closed`.
    pub status: Option<&'a str>,
    /// Of `error`.
    pub message: Option<&'a str>,
    /// Of an event, byte for byte.
    #[serde(borrow)]
    pub payload: Option<&'a RawValue>,
}

impl<'a> Frame<'a> {
    /// Reads one.
    pub fn parse(text: &'a str) -> Self {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:.200}"))
    }
}

/// What a player has seen.
#[derive(Debug)]
pub struct Player {
    /// The socket, for what no player in good order would send.
    pub ws: WebSocketStream<TcpStream>,
    /// The first frame.
    pub connected: Value,
    /// The frames with a `seq` of an event, in the order in which they came.
    pub events: Vec<Value>,
    /// Who is online, by `connected` and `presence`.
    pub online: BTreeSet<u64>,
    /// The last `pong`.
    pub pong: Value,
    /// The `error` frame.
    pub error: Value,
    /// Code and reason of the close frame; 1006, which RFC 6455 keeps for that, if the socket ended without one.
    pub closed: Option<(u16, String)>,
    /// Where to go on from, by the rule that every client keeps: `connected` with `recovered: true` keeps it, any other one
    /// forgets it, and every later frame with a `seq` raises it.
    seq: Option<u64>,
}

impl Player {
    /// Opens a socket and waits for `connected`.
    pub async fn join(hub: &impl Reachable, join: Join) -> Self {
        let mut player = Self::knock(hub, join).await;
        player.next().await;
        assert_eq!(player.connected["type"], "connected", "{:?} {:?}", player.error, player.closed);
        player
    }

    /// Opens a socket that may be refused by a frame.
    pub async fn knock(hub: &impl Reachable, join: Join) -> Self {
        Self::try_knock(hub, join).await.expect("the handshake succeeds")
    }

    /// Opens a socket, if the hub is there, that may be refused by a frame.
    pub async fn try_knock(hub: &impl Reachable, join: Join) -> Result<Self, Error> {
        let resumed = join.resume.as_ref().and_then(|position| position.split_once(':'));
        let seq = resumed.and_then(|(_, seq)| seq.parse().ok());
        Ok(Self {
            ws: join.try_open(hub.addresses().edge).await?,
            connected: Value::Null,
            events: Vec::new(),
            online: BTreeSet::new(),
            pong: Value::Null,
            error: Value::Null,
            closed: None,
            seq,
        })
    }

    /// Comes back with the resume ticket, from the last position seen.
    pub async fn rejoin(self, hub: &impl Reachable) -> Self {
        Away::leave(self).back(hub).await
    }

    /// As `connected` handed it out.
    pub fn resume_ticket(&self) -> String {
        self.connected["resume_ticket"].as_str().unwrap().to_owned()
    }

    /// Of the last `connected`.
    pub fn epoch(&self) -> &str {
        self.connected["epoch"].as_str().unwrap()
    }

    /// `<epoch>:<seq>`, as `resume` wants it, once a frame has said where the player stands.
    pub fn position(&self) -> String {
        self.known_position().expect("no frame with a seq has come: a ping brings one")
    }

    fn known_position(&self) -> Option<String> {
        Some(format!("{}:{}", self.epoch(), self.seq?))
    }

    /// The next frame as it came, or `None` once the socket has ended. Loses nothing if it is dropped.
    pub async fn next_text(&mut self) -> Option<Utf8Bytes> {
        loop {
            let ended = match self.ws.next().await {
                Some(Ok(Message::Text(text))) => return Some(text),
                Some(Ok(Message::Close(frame))) => {
                    let frame = frame.expect("the hub never closes without a code");
                    self.closed = Some((frame.code.into(), frame.reason.to_string()));
                    continue;
                }
                Some(Ok(_)) => continue,
                Some(Err(error)) => error.to_string(),
                None => String::new(),
            };
            self.closed.get_or_insert((1006, ended));
            return None;
        }
    }

    /// The next frame as it came, if it has.
    pub fn text_now(&mut self) -> Option<Utf8Bytes> {
        self.next_text().now_or_never().flatten()
    }

    /// Folds the next frame: whether there was one.
    pub async fn next(&mut self) -> bool {
        let text = soon("a frame", self.next_text()).await;
        if let Some(text) = &text {
            self.fold(serde_json::from_str(text).expect("every frame is JSON"));
        }
        text.is_some()
    }

    fn fold(&mut self, frame: Value) {
        let user = frame["user_id"].as_u64();
        if frame["type"] != "connected" {
            self.seq = self.seq.max(frame["seq"].as_u64());
        } else if frame["recovered"] != true {
            self.seq = None;
        }
        match frame["type"].as_str().expect("every frame has a type") {
            "connected" => {
                let online = frame["online"].as_array().unwrap().iter();
                self.online = online.map(|user| user.as_u64().unwrap()).collect();
                self.connected = frame;
            }
            "presence" if frame["online"] == true => _ = self.online.insert(user.unwrap()),
            "presence" => _ = self.online.remove(&user.unwrap()),
            "pong" => self.pong = frame,
            "error" => self.error = frame,
            _ => self.events.push(frame),
        }
    }

    /// Folds frames until `enough` says so.
    pub async fn until(&mut self, enough: impl Fn(&Self) -> bool) {
        while !enough(self) {
            assert!(self.next().await, "the socket closed: {:?} {:?}", self.error, self.closed);
        }
    }

    /// Folds frames until so many events have come.
    pub async fn until_events(&mut self, count: usize) {
        self.until(|player| player.events.len() >= count).await;
    }

    /// Folds frames until the socket closes: the code.
    pub async fn until_closed(&mut self) -> u16 {
        while self.next().await {}
        self.closed.as_ref().expect("the socket has ended").0
    }

    /// Folds frames until the socket closes: the code, and the word of the `error` frame before it.
    pub async fn refused(mut self) -> (u16, String) {
        let code = self.until_closed().await;
        (code, self.error["message"].as_str().unwrap_or_default().to_owned())
    }

    /// The `seq` of every event, in the order in which they came.
    pub fn seqs(&self) -> Vec<u64> {
        self.events.iter().map(|event| event["seq"].as_u64().unwrap()).collect()
    }

    /// Sends a text frame.
    pub async fn send(&mut self, text: impl Into<Utf8Bytes>) {
        self.try_send(text).await.unwrap();
    }

    /// Sends a text frame, if the socket is open.
    pub async fn try_send(&mut self, text: impl Into<Utf8Bytes>) -> Result<(), Error> {
        self.ws.send(Message::Text(text.into())).await
    }

    /// Sends a binary frame.
    pub async fn send_binary(&mut self, bytes: &'static [u8]) {
        self.ws.send(Message::Binary(Bytes::from_static(bytes))).await.unwrap();
    }

    /// Says that everything up to `seq` has arrived.
    pub async fn ack(&mut self, seq: u64) {
        self.send(format!(r#"{{"type":"ack","seq":{seq}}}"#)).await;
    }

    /// Sends a ping and waits for its pong, so that everything sent before has been heard.
    pub async fn ping(&mut self) {
        self.pong = Value::Null;
        self.send(PING).await;
        self.until(|player| !player.pong.is_null()).await;
    }
}

/// The frame that is answered with a `pong`.
pub const PING: &str = r#"{"type":"ping"}"#;

/// A player who has left, and what they need to come back. Unlike one who stays without reading, nobody for whom a hub that
/// stops would wait.
#[derive(Debug)]
pub struct Away {
    resume_ticket: String,
    position: Option<String>,
}

impl Away {
    /// The socket goes.
    #[expect(clippy::needless_pass_by_value, reason = "the player's socket goes")]
    pub fn leave(player: Player) -> Self {
        Self { resume_ticket: player.resume_ticket(), position: player.known_position() }
    }

    /// Comes back with the resume ticket, from the last position seen.
    pub async fn back(self, hub: &impl Reachable) -> Player {
        let join = Join { resume: self.position, ..Join::ticket(self.resume_ticket) };
        Player::join(hub, join).await
    }
}
