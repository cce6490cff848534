//! One WebSocket, from the ticket to the close frame.
//!
//! The task that owns the socket does three things, one at a time: it sends whatever lies after the connection's cursor,
//! it answers the client, and it notices when either has been silent for too long. It holds no queue: while a send waits
//! for a slow client, events simply stay in the log.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};
use tracing::{debug, info};

use super::Edge;
use super::admission::Pending;
use super::close::Ending;
use super::handshake::Opening;
use super::protocol::{self, ClientFrame};
use crate::config::Secret;
use crate::event::{Content, Event};
use crate::hub::{Attachment, Welcome};
use crate::id::{DuelId, RequestId};
use crate::limits;
use crate::metrics::{Kind, Metrics, Reason};
use crate::ticket::{Ticket, TicketError};

/// Frames wait in the socket's buffer until a batch is complete or this many bytes are there.
const WRITE_BUFFER_BYTES: usize = 16 * 1024;

/// A WebSocket on a socket whose handshake is done. `unread`: what has been read from it since.
pub async fn websocket(
    stream: TcpStream,
    unread: Vec<u8>,
    message_bytes_max: usize,
) -> WebSocketStream<TcpStream> {
    // Room for the largest frame that either side sends, and for what waits before it.
    let frame_bytes_max = message_bytes_max.max(2 * limits::PUSH_BYTES_MAX);
    let config = WebSocketConfig::default()
        .read_buffer_size(limits::READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(frame_bytes_max + 2 * WRITE_BUFFER_BYTES)
        .max_message_size(Some(message_bytes_max))
        .max_frame_size(Some(message_bytes_max));
    WebSocketStream::from_partially_read(stream, unread, Role::Server, Some(config)).await
}

/// Checks the ticket, follows the duel until something ends it, and says good-bye.
pub(super) async fn run(
    edge: &Edge,
    mut ws: WebSocketStream<TcpStream>,
    opening: Opening,
    pending: Pending,
) {
    let Opening { info, ticket, resume, place: _place } = opening;
    let deadline = edge.config.handshake_timeout;
    let attached = match edge.verify(ticket.as_ref()) {
        Ok(ticket) => match timeout(deadline, edge.hub.attach(&ticket, resume)).await {
            Ok(Ok((attachment, welcome))) => Ok((ticket, attachment, welcome)),
            Ok(Err(error)) => Err(Ending::from(error)),
            Err(_) => Err(Ending::Internal),
        },
        Err(error) => Err(Ending::from(error)),
    };
    let (ticket, attachment, welcome) = match attached {
        Ok(attached) => attached,
        Err(ending) => {
            let reason = Reason { reason: ending.label() };
            edge.metrics.handshakes_refused.get_or_create(&reason).inc();
            info!(request_id = %info.id, reason = ending.label(), client = %info.client, "refused");
            part(&mut ws, &ending, &info.id).await;
            return;
        }
    };
    drop(pending);
    let mut socket = Socket::new(edge, ws, attachment, info.id, &ticket);
    let ending = socket.live(welcome).await;
    socket.end(&ending).await;
}

impl Edge {
    fn verify(&self, ticket: Option<&Secret>) -> Result<Ticket, TicketError> {
        self.tickets.verify(ticket.ok_or(TicketError::Invalid)?.as_str())
    }
}

/// One of the connections counted as open, until it is dropped.
struct Counted(Arc<Metrics>);

impl Counted {
    fn new(metrics: &Arc<Metrics>) -> Self {
        metrics.connections.inc();
        Self(Arc::clone(metrics))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

/// A connection that was let in.
struct Socket<'a> {
    edge: &'a Edge,
    ws: WebSocketStream<TcpStream>,
    attachment: Attachment,
    counted: Counted,
    request_id: RequestId,
    opened_at: Instant,
    /// When the client last gave a sign of life.
    seen_at: Instant,
    /// When the client last received a resume ticket.
    resume_ticket_at: Instant,
}

impl<'a> Socket<'a> {
    fn new(
        edge: &'a Edge,
        ws: WebSocketStream<TcpStream>,
        attachment: Attachment,
        request_id: RequestId,
        ticket: &Ticket,
    ) -> Self {
        edge.metrics.connections_opened.inc();
        let (viewer, jti) = (ticket.viewer, ticket.jti.as_str());
        info!(%request_id, connection_id = attachment.connection().id.0, duel_id = ticket.duel.get(),
            user_id = viewer.user.get(), role = ?viewer.role, jti, "connected");
        let now = Instant::now();
        let counted = Counted::new(&edge.metrics);
        Self {
            counted,
            edge,
            ws,
            attachment,
            request_id,
            opened_at: now,
            seen_at: now,
            resume_ticket_at: now,
        }
    }

    /// Follows the duel until something ends it.
    async fn live(&mut self, welcome: Welcome) -> Ending {
        if let Err(ending) = self.welcome(welcome).await {
            return ending;
        }
        let timeout = self.edge.config.client_timeout;
        let silence = tokio::time::sleep_until(self.seen_at + timeout);
        tokio::pin!(silence);
        loop {
            if let Err(ending) = self.catch_up().await {
                return ending;
            }
            let answered = tokio::select! {
                biased;
                () = self.attachment.woken() => Ok(()),
                frame = self.ws.next() => self.answer(frame).await,
                () = &mut silence => {
                    // Moving the timer at every frame would cost more than looking once when it fires.
                    let silent_until = self.seen_at + timeout;
                    silence.as_mut().reset(silent_until);
                    if silent_until <= Instant::now() { Err(Ending::ConnectionTimeout) } else { Ok(()) }
                }
            };
            if let Err(ending) = answered {
                return ending;
            }
        }
    }

    async fn welcome(&mut self, welcome: Welcome) -> Result<(), Ending> {
        let connection = self.attachment.connection();
        let (duel, user) = (connection.duel, connection.viewer.user);
        let resume = (!self.attachment.is_revoked()).then(|| {
            self.edge.metrics.tickets_issued.get_or_create(&Kind { kind: "resume" }).inc();
            self.edge.tickets.issue_resume(duel, connection.viewer)
        });
        debug!(request_id = %self.request_id, recovery = ?welcome.recovery, seq = welcome.position.seq,
            "welcomed");
        let first = {
            let resume = resume.as_ref().map(|issued| issued.text.as_str());
            protocol::connected(duel, user, &welcome, resume)
        };
        let state = welcome.state.iter().filter_map(|event| self.frame(event));
        let frames: Vec<_> = std::iter::once(first).chain(state).collect();
        self.send(frames).await?;
        self.edge.metrics.deliveries.inc_by(welcome.state.len() as u64);
        Ok(())
    }

    fn frame(&self, event: &Event) -> Option<Utf8Bytes> {
        let connection = self.attachment.connection();
        protocol::event(connection.duel, event, connection.viewer)
    }

    fn duel(&self) -> DuelId {
        self.attachment.connection().duel
    }

    /// Sends everything that lies after the cursor.
    async fn catch_up(&mut self) -> Result<(), Ending> {
        loop {
            if let Some(dismissal) = self.attachment.dismissal() {
                return Err(dismissal.into());
            }
            let batch = self.attachment.next().await?;
            if batch.is_empty() {
                return Ok(());
            }
            let duel = self.duel();
            let mut frames: Vec<_> =
                batch.events.iter().filter_map(|event| self.frame(event)).collect();
            let events = frames.len() as u64;
            frames.extend(batch.presence.iter().map(|change| protocol::presence(duel, *change)));
            self.send(frames).await?;
            self.edge.metrics.deliveries.inc_by(events);
            if batch.events.last().is_some_and(|last| matches!(last.content, Content::Closed(_))) {
                return Err(Ending::DuelEnded);
            }
        }
    }

    /// Sends the frames. A client that does not take one of them in time ends the connection.
    async fn send(&mut self, frames: Vec<Utf8Bytes>) -> Result<(), Ending> {
        let bytes: usize = frames.iter().map(|frame| frame.len()).sum();
        for frame in frames {
            in_time(self.ws.feed(Message::Text(frame))).await?;
        }
        in_time(self.ws.flush()).await?;
        self.edge.metrics.sent_bytes.inc_by(bytes as u64);
        Ok(())
    }

    /// Takes what the client sent.
    async fn answer(&mut self, received: Option<Result<Message, Error>>) -> Result<(), Ending> {
        let message = match received {
            None => return Err(Ending::ClientClosed),
            Some(Err(error)) => return Err(why(&error)),
            Some(Ok(message)) => message,
        };
        self.seen_at = Instant::now();
        let kind = match message {
            Message::Text(text) => match protocol::parse(&text) {
                Some(ClientFrame::Ping) => {
                    self.pong().await?;
                    "ping"
                }
                Some(ClientFrame::Ack { seq }) => {
                    self.attachment.ack(seq).await;
                    "ack"
                }
                Some(ClientFrame::Unknown) => "unknown",
                None => "not_json",
            },
            Message::Binary(_) => "binary",
            // The library has queued the answers that RFC 6455 asks for; the next poll sends them.
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => "control",
            Message::Close(_) => "close",
        };
        self.edge.metrics.frames_received.get_or_create(&Kind { kind }).inc();
        Ok(())
    }

    async fn pong(&mut self) -> Result<(), Ending> {
        // What the pong calls served must have been sent before it.
        self.catch_up().await?;
        let past_half = self.resume_ticket_at.elapsed() >= self.edge.tickets.resume_ttl() / 2;
        let resume = (past_half && !self.attachment.is_revoked()).then(|| {
            self.resume_ticket_at = Instant::now();
            self.edge.metrics.tickets_issued.get_or_create(&Kind { kind: "resume" }).inc();
            let connection = self.attachment.connection();
            self.edge.tickets.issue_resume(connection.duel, connection.viewer)
        });
        let resume = resume.as_ref().map(|issued| issued.text.as_str());
        let frame = protocol::pong(self.attachment.served_seq(), resume);
        self.send(vec![frame]).await
    }

    /// Takes the connection out of the duel, then tells the client.
    async fn end(self, ending: &Ending) {
        let Self { edge, mut ws, mut attachment, counted, request_id, opened_at, .. } = self;
        attachment.set_ending(ending.offline_reason());
        let connection_id = attachment.connection().id.0;
        drop((attachment, counted));
        edge.metrics.connections_closed.get_or_create(&Reason { reason: ending.label() }).inc();
        let duration_ms = u64::try_from(opened_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        info!(%request_id, connection_id, reason = ending.label(), duration_ms, "disconnected");
        part(&mut ws, ending, &request_id).await;
    }
}

async fn in_time(sending: impl Future<Output = Result<(), Error>>) -> Result<(), Ending> {
    match timeout(limits::WRITE_TIMEOUT, sending).await {
        Ok(sent) => sent.map_err(|_| Ending::Lost),
        Err(_) => Err(Ending::TooSlow),
    }
}

/// Says why, closes, and waits for the client to have heard it. Bounded by [`limits::CLOSE_TIMEOUT`].
async fn part(ws: &mut WebSocketStream<TcpStream>, ending: &Ending, request_id: &RequestId) {
    let Some(farewell) = ending.farewell() else { return };
    let closing = async {
        if let Some(word) = farewell.word {
            ws.feed(Message::Text(protocol::error(word, request_id, farewell.retry))).await?;
        }
        let reason = Utf8Bytes::from(ending.reason());
        ws.close(Some(CloseFrame { code: farewell.code.into(), reason })).await?;
        while let Some(Ok(_)) = ws.next().await {}
        // The server ends TCP first (RFC 6455, section 7.1.1). What a client still sends is read, not as frames but as bytes:
        // closing the socket with them unread would reset it, and the client might not hear why.
        let stream = ws.get_mut();
        stream.shutdown().await?;
        let mut unread = [0; 256];
        while stream.read(&mut unread).await? > 0 {}
        Ok::<_, Error>(())
    };
    // On the heap, so that a connection does not carry the room for its end through its life.
    let _parted: Result<_, _> = timeout(closing_time(ending), Box::pin(closing)).await;
}

/// A client that does not read will not answer either.
fn closing_time(ending: &Ending) -> Duration {
    if *ending == Ending::TooSlow { Duration::from_millis(100) } else { limits::CLOSE_TIMEOUT }
}

fn why(error: &Error) -> Ending {
    if matches!(error, Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) {
        Ending::Lost
    } else if matches!(error, Error::Capacity(CapacityError::MessageTooLong { .. })) {
        Ending::MessageTooLarge
    } else if matches!(error, Error::Protocol(_)) {
        Ending::ProtocolError
    } else if matches!(error, Error::Utf8(_)) {
        Ending::NotUtf8
    } else if matches!(error, Error::ConnectionClosed) {
        Ending::ClientClosed
    } else {
        Ending::Lost
    }
}
