//! One WebSocket, from the ticket to the close frame.
//!
//! The task that owns the socket does three things, one at a time: it sends whatever lies after the connection's cursor,
//! it answers the client, and it notices when either has been silent for too long. It holds no queue: while a send waits
//! for a slow client, events simply stay in the log. While it has nothing to send, the next events pass it by
//! ([`super::line`]).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};
use tracing::{debug, info};

use super::Edge;
use super::admission::{Pending, Place};
use super::close::CloseReason;
use super::handshake::Opening;
use super::line::Line;
use super::protocol::{self, ClientFrame};
use crate::config::Secret;
use crate::event::{Content, Event};
use crate::hub::{Attachment, Batch, Welcome};
use crate::id::{DuelId, RequestId};
use crate::limits;
use crate::metrics::{Kind, Metrics, Reason};
use crate::ticket::{Ticket, TicketError};

/// Frames of the library's own are written at once: nothing waits in its buffer for others to come.
const WRITE_BUFFER_BYTES: usize = 0;

/// What may wait there: an answer to a control frame (RFC 6455, section 5.5), an `error`, the close.
const ANSWERS_BYTES: usize = 1024;

/// Events that follow one another are sent in pieces of so many bytes, or of one event.
const PIECE_BYTES_MAX: usize = 16 * 1024;

/// A WebSocket on a socket whose handshake is done. `unread`: what has been read from it since.
pub async fn websocket<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    unread: Vec<u8>,
    message_bytes_max: usize,
) -> WebSocketStream<S> {
    let config = WebSocketConfig::default()
        .read_buffer_size(limits::READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(message_bytes_max + ANSWERS_BYTES)
        .max_message_size(Some(message_bytes_max))
        .max_frame_size(Some(message_bytes_max));
    WebSocketStream::from_partially_read(stream, unread, Role::Server, Some(config)).await
}

/// Checks the ticket, and lets the connection in, or says why not.
pub(super) async fn enter(
    edge: Arc<Edge>,
    (stream, unread): (TcpStream, Vec<u8>),
    opening: Opening,
    pending: Pending,
) -> Option<Box<Socket>> {
    let line = Line::new(stream, Arc::clone(&edge.metrics));
    let mut ws = websocket(line.clone(), unread, edge.config.message_bytes_max).await;
    let Opening { info, ticket, resume, place } = opening;
    let deadline = edge.config.handshake_timeout;
    let attached = match edge.verify(ticket.as_ref()) {
        Ok(ticket) => match timeout(deadline, edge.hub.attach(&ticket, resume)).await {
            Ok(Ok((attachment, welcome))) => Ok((ticket, attachment, welcome)),
            Ok(Err(error)) => Err(CloseReason::from(error)),
            Err(_) => Err(CloseReason::Internal),
        },
        Err(error) => Err(CloseReason::from(error)),
    };
    let (ticket, attachment, welcome) = match attached {
        Ok(attached) => attached,
        Err(ending) => {
            let reason = Reason { reason: ending.label() };
            edge.metrics.handshakes_refused.get_or_create(&reason).inc();
            info!(request_id = %info.id, reason = ending.label(), client = %info.client, "refused");
            part(&mut ws, &ending, &info.id).await;
            return None;
        }
    };
    drop(pending);
    attachment.set_outlet(line.outlet());
    let socket = Socket::new(edge, ws, attachment, (info.id, place), &ticket);
    // So that the futures that it passes through hold one word of it.
    let mut socket = Box::new(socket);
    match socket.welcome(welcome).await {
        Ok(()) => Some(socket),
        Err(ending) => {
            socket.end(&ending).await;
            None
        }
    }
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

/// A connection that was let in. There are many of them, mostly with nothing to do: what is rarely needed is not in here, nor
/// in the futures that it waits in.
pub(super) struct Socket {
    edge: Arc<Edge>,
    ws: WebSocketStream<Line>,
    attachment: Attachment,
    counted: Counted,
    /// Until it is closed for good.
    _place: Place,
    request_id: RequestId,
    opened_at: Instant,
    /// When the client last gave a sign of life.
    seen_at: Instant,
    /// When the client last received a resume ticket.
    resume_ticket_at: Instant,
}

impl Socket {
    fn new(
        edge: Arc<Edge>,
        ws: WebSocketStream<Line>,
        attachment: Attachment,
        (request_id, place): (RequestId, Place),
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
            _place: place,
            request_id,
            opened_at: now,
            seen_at: now,
            resume_ticket_at: now,
        }
    }

    /// Follows the duel until something ends it, and says good-bye.
    pub(super) async fn run(mut self: Box<Self>) {
        let ending = self.live().await;
        Box::pin(self.end(&ending)).await;
    }

    async fn live(&mut self) -> CloseReason {
        let timeout = self.edge.config.client_timeout;
        let silence = tokio::time::sleep_until(self.seen_at + timeout);
        tokio::pin!(silence);
        let mut went_on = self.catch_up().await;
        loop {
            if let Err(ending) = went_on {
                return ending;
            }
            went_on = tokio::select! {
                biased;
                () = self.attachment.woken() => self.catch_up().await,
                frame = self.ws.next() => self.answer(frame).await,
                () = &mut silence => {
                    // Moving the timer at every frame would cost more than looking once when it fires.
                    let silent_until = self.seen_at + timeout;
                    silence.as_mut().reset(silent_until);
                    if silent_until <= Instant::now() { Err(CloseReason::ConnectionTimeout) } else { Ok(()) }
                }
            };
        }
    }

    async fn welcome(&mut self, welcome: Welcome) -> Result<(), CloseReason> {
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
        self.send(first).await?;
        self.send_events(&welcome.state).await
    }

    fn duel(&self) -> DuelId {
        self.attachment.connection().duel
    }

    /// Sends everything that lies after the cursor. Until there is something again, events are handed over through the
    /// line.
    async fn catch_up(&mut self) -> Result<(), CloseReason> {
        loop {
            if let Some(dismissal) = self.attachment.dismissal() {
                return Err(dismissal.into());
            }
            let batch = self.attachment.next().await?;
            if batch.is_empty() {
                if !self.ws.get_ref().is_busy() {
                    return Ok(());
                }
                // Nothing is handed over while it is, so it is looked again behind what was begun.
                Box::pin(self.finish()).await?;
                continue;
            }
            Box::pin(self.send_batch(&batch)).await?;
            if batch.events.last().is_some_and(|last| matches!(last.content, Content::Closed(_))) {
                return Err(CloseReason::DuelEnded);
            }
        }
    }

    async fn send_batch(&mut self, batch: &Batch) -> Result<(), CloseReason> {
        self.send_events(&batch.events).await?;
        for change in &batch.presence {
            self.send(protocol::presence(self.duel(), *change)).await?;
        }
        Ok(())
    }

    /// Sends what was begun and did not fit into the socket.
    async fn finish(&mut self) -> Result<(), CloseReason> {
        match self.ws.get_ref().is_busy() {
            true => self.flush().await,
            false => Ok(()),
        }
    }

    /// Sends what was begun, and the answer to a control frame that the library holds (RFC 6455, section 5.5).
    async fn flush(&mut self) -> Result<(), CloseReason> {
        in_time(self.ws.flush()).await
    }

    /// Sends whole frames behind whatever was begun. A client that does not take them in time ends the connection.
    async fn send(&mut self, frames: Bytes) -> Result<(), CloseReason> {
        let bytes = frames.len() as u64;
        self.finish().await?;
        self.ws.get_ref().begin(frames).map_err(|_| CloseReason::Lost)?;
        self.finish().await?;
        self.edge.metrics.sent_bytes.inc_by(bytes);
        Ok(())
    }

    /// Sends events, many small ones in one piece. A client that does not take one piece in time ends the connection.
    async fn send_events(&mut self, events: &[Arc<Event>]) -> Result<(), CloseReason> {
        let (duel, viewer) = (self.duel(), self.attachment.connection().viewer);
        let frame = |event: &Arc<Event>| protocol::event(duel, event, viewer);
        let mut frames = events.iter().filter_map(frame).peekable();
        while let Some(first) = frames.next() {
            let (mut bytes, mut piece) = (first.len(), vec![first]);
            while let Some(next) = frames.next_if(|next| bytes + next.len() <= PIECE_BYTES_MAX) {
                bytes += next.len();
                piece.push(next);
            }
            let count = piece.len() as u64;
            let alone = if count == 1 { piece.pop() } else { None };
            self.send(alone.unwrap_or_else(|| piece.concat().into())).await?;
            self.edge.metrics.deliveries.inc_by(count);
        }
        Ok(())
    }

    /// Takes what the client sent.
    async fn answer(
        &mut self,
        received: Option<Result<Message, Error>>,
    ) -> Result<(), CloseReason> {
        let message = match received {
            None => return Err(CloseReason::ClientClosed),
            Some(Err(error)) => return Err(why(&error)),
            Some(Ok(message)) => message,
        };
        self.seen_at = Instant::now();
        let kind = match message {
            Message::Text(text) => match protocol::parse(&text) {
                Some(ClientFrame::Ping) => {
                    Box::pin(self.pong()).await?;
                    "ping"
                }
                Some(ClientFrame::Ack { seq }) => {
                    Box::pin(self.attachment.ack(seq)).await;
                    "ack"
                }
                Some(ClientFrame::Unknown) => "unknown",
                None => "not_json",
            },
            Message::Binary(_) => "binary",
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {
                Box::pin(self.flush()).await?;
                "control"
            }
            Message::Close(_) => {
                self.count_received("close");
                Box::pin(self.flush()).await?;
                // Nothing may follow the answer (RFC 6455, section 5.5.1).
                return Err(CloseReason::ClientClosed);
            }
        };
        self.count_received(kind);
        Ok(())
    }

    fn count_received(&self, kind: &'static str) {
        self.edge.metrics.frames_received.get_or_create(&Kind { kind }).inc();
    }

    async fn pong(&mut self) -> Result<(), CloseReason> {
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
        self.send(frame).await
    }

    /// Takes the connection out of the duel, then tells the client.
    async fn end(self: Box<Self>, ending: &CloseReason) {
        let Self { edge, mut ws, mut attachment, counted, request_id, opened_at, .. } = *self;
        attachment.set_ending(ending.offline_reason());
        let connection_id = attachment.connection().id.0;
        drop((attachment, counted));
        edge.metrics.connections_closed.get_or_create(&Reason { reason: ending.label() }).inc();
        let duration_ms = u64::try_from(opened_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        info!(%request_id, connection_id, reason = ending.label(), duration_ms, "disconnected");
        part(&mut ws, ending, &request_id).await;
    }
}

async fn in_time(sending: impl Future<Output = Result<(), Error>>) -> Result<(), CloseReason> {
    match timeout(limits::WRITE_TIMEOUT, sending).await {
        Ok(sent) => sent.map_err(|_| CloseReason::Lost),
        Err(_) => Err(CloseReason::TooSlow),
    }
}

/// Says why, closes, and waits for the client to have heard it. Bounded by [`limits::CLOSE_TIMEOUT`].
async fn part(ws: &mut WebSocketStream<Line>, ending: &CloseReason, request_id: &RequestId) {
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
fn closing_time(ending: &CloseReason) -> Duration {
    if *ending == CloseReason::TooSlow { Duration::from_millis(100) } else { limits::CLOSE_TIMEOUT }
}

fn why(error: &Error) -> CloseReason {
    if matches!(error, Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) {
        CloseReason::Lost
    } else if matches!(error, Error::Capacity(CapacityError::MessageTooLong { .. })) {
        CloseReason::MessageTooLarge
    } else if matches!(error, Error::Protocol(_)) {
        CloseReason::ProtocolError
    } else if matches!(error, Error::Utf8(_)) {
        CloseReason::NotUtf8
    } else if matches!(error, Error::ConnectionClosed) {
        CloseReason::ClientClosed
    } else {
        CloseReason::Lost
    }
}
