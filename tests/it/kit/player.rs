//! A player: one WebSocket, whose frames are folded into plain state.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::{TestServer, soon};

/// How a player opens their socket.
#[derive(Debug, Clone, Default)]
pub(crate) struct Join {
    pub(crate) path: Option<&'static str>,
    pub(crate) ticket: Option<String>,
    pub(crate) resume: Option<String>,
    pub(crate) headers: Vec<(&'static str, String)>,
    /// Bytes of the socket's receive buffer; unset: the system's.
    pub(crate) receive_buffer: Option<u32>,
}

impl Join {
    pub(crate) fn ticket(ticket: impl Into<String>) -> Self {
        Self { ticket: Some(ticket.into()), ..Self::default() }
    }

    pub(crate) fn resume(self, position: impl Into<String>) -> Self {
        Self { resume: Some(position.into()), ..self }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The socket, or the status that answered the handshake.
    pub(crate) async fn open(self, address: SocketAddr) -> Result<WebSocketStream<TcpStream>, u16> {
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
        let stream = socket.connect(address).await.unwrap();
        let config = WebSocketConfig::default().read_buffer_size(4096);
        let opened = client_async_with_config(request, stream, Some(config));
        match soon("the handshake", opened).await {
            Ok((ws, _)) => Ok(ws),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("the handshake: {error}"),
        }
    }
}

/// What a player has seen.
#[derive(Debug)]
pub(crate) struct Player {
    pub(crate) ws: WebSocketStream<TcpStream>,
    /// The first frame.
    pub(crate) connected: Value,
    /// The frames with a `seq` of an event, in the order in which they came.
    pub(crate) events: Vec<Value>,
    /// Who is online, by `connected` and `presence`.
    pub(crate) online: BTreeSet<u64>,
    /// The last `pong`.
    pub(crate) pong: Value,
    /// The `error` frame.
    pub(crate) error: Value,
    /// Code and reason of the close frame.
    pub(crate) closed: Option<(u16, String)>,
}

impl Player {
    /// Opens a socket and waits for `connected`.
    pub(crate) async fn join(server: &TestServer, join: Join) -> Self {
        let mut player = Self::knock(server, join).await;
        player.next().await;
        assert_eq!(player.connected["type"], "connected", "{:?} {:?}", player.error, player.closed);
        player
    }

    /// Opens a socket that may be refused by a frame.
    pub(crate) async fn knock(server: &TestServer, join: Join) -> Self {
        let ws = join.open(server.addresses.edge).await.expect("the handshake succeeds");
        Self {
            ws,
            connected: Value::Null,
            events: Vec::new(),
            online: BTreeSet::new(),
            pong: Value::Null,
            error: Value::Null,
            closed: None,
        }
    }

    /// Comes back with the resume ticket, from the last position seen.
    pub(crate) async fn rejoin(self, server: &TestServer) -> Self {
        let join = Join::ticket(self.resume_ticket()).resume(self.position());
        drop(self);
        Self::join(server, join).await
    }

    pub(crate) fn resume_ticket(&self) -> String {
        self.connected["resume_ticket"].as_str().unwrap().to_owned()
    }

    /// `<epoch>:<seq>`, as `resume` wants it.
    pub(crate) fn position(&self) -> String {
        let last = self.events.last().unwrap_or(&self.connected)["seq"].as_u64().unwrap();
        let start = self.connected["seq"].as_u64().unwrap();
        format!("{}:{}", self.connected["epoch"].as_str().unwrap(), last.max(start))
    }

    /// Folds the next frame: whether there was one.
    pub(crate) async fn next(&mut self) -> bool {
        loop {
            match soon("a frame", self.ws.next()).await {
                Some(Ok(Message::Text(text))) => {
                    let frame = serde_json::from_str(&text).expect("every frame is JSON");
                    self.fold(frame);
                    return true;
                }
                Some(Ok(Message::Close(frame))) => {
                    let frame = frame.expect("the hub never closes without a code");
                    self.closed = Some((frame.code.into(), frame.reason.to_string()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return false,
            }
        }
    }

    fn fold(&mut self, frame: Value) {
        let user = frame["user_id"].as_u64();
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
    pub(crate) async fn until(&mut self, enough: impl Fn(&Self) -> bool) {
        while !enough(self) {
            assert!(self.next().await, "the socket closed: {:?} {:?}", self.error, self.closed);
        }
    }

    pub(crate) async fn until_events(&mut self, count: usize) {
        self.until(|player| player.events.len() >= count).await;
    }

    /// Folds frames until the socket closes: the code.
    pub(crate) async fn until_closed(&mut self) -> u16 {
        while self.next().await {}
        self.closed.as_ref().expect("the hub says why it closes").0
    }

    /// The `seq` of every event, in the order in which they came.
    pub(crate) fn seqs(&self) -> Vec<u64> {
        self.events.iter().map(|event| event["seq"].as_u64().unwrap()).collect()
    }

    pub(crate) async fn send(&mut self, text: impl Into<String>) {
        self.ws.send(Message::Text(text.into().into())).await.unwrap();
    }

    pub(crate) async fn send_binary(&mut self, bytes: &'static [u8]) {
        self.ws.send(Message::Binary(Bytes::from_static(bytes))).await.unwrap();
    }

    /// Sends a ping and waits for its pong, so that everything sent before has been heard.
    pub(crate) async fn ping(&mut self) {
        self.pong = Value::Null;
        self.send(r#"{"type":"ping"}"#).await;
        self.until(|player| !player.pong.is_null()).await;
    }
}
