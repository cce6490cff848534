//! One connection, from its ticket to its close frame.
//!
//! The task that owns the socket does three things, one at a time: it sends whatever lies after the connection's cursor,
//! answers the client, and notices silence. It has no queue: while it waits for a slow client, events stay in the log. While
//! it has nothing to send, events bypass it ([`super::shared_socket`]).

use std::convert::Infallible;
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
use super::admission::ConnectionSlot;
use super::close_reason::CloseReason;
use super::handshake::Handshake;
use super::protocol::{self, ClientFrame};
use super::rate::Used;
use super::request::RequestInfo;
use super::shared_socket::{SharedSocket, TOO_MANY_READS};
use crate::event::{Content, Event};
use crate::hub::{Attachment, Batch, Welcome};
use crate::id::{DuelId, RequestId};
use crate::limits;
use crate::metrics::{KindLabel, Metrics, ReasonLabel};
use crate::places::Place;
use crate::ticket::{Generation, Issued, Revision, Stamp, Ticket};

/// The library writes its own frames at once, and buffers none for later.
const WRITE_BUFFER_BYTES: usize = 0;

/// Room in the library for an answer to a control frame (RFC 6455, section 5.5), an `error`, and the close.
const ANSWERS_BYTES: usize = 1024;

/// Several events are sent in chunks of so many bytes, or of one event.
const CHUNK_BYTES_MAX: usize = 16 * 1024;

/// Makes a WebSocket of a stream whose handshake is done. `unread` is what was read from the stream since.
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

/// Verifies the ticket, attaches the connection and welcomes the client. If that fails, closes with the reason.
pub(super) async fn attach(
    edge: Arc<Edge>,
    (stream, unread): (TcpStream, Vec<u8>),
    handshake: Handshake,
    newcomer: Place,
) -> Option<Box<Session>> {
    let Handshake { info, admitted, resume } = handshake;
    let socket = SharedSocket::new(stream, Arc::clone(&edge.metrics));
    let ws = websocket(socket.clone(), unread, edge.config.message_bytes_max).await;
    let attached = async {
        let (ticket, slot) = admitted?;
        let attaching = edge.hub.attach(&ticket, resume);
        let attached = timeout(edge.config.handshake_timeout, attaching).await;
        let (attachment, welcome) = attached.map_err(|_| CloseReason::Internal)??;
        Ok::<_, CloseReason>((ticket, slot, attachment, welcome))
    };
    let (ticket, slot, attachment, welcome) = match attached.await {
        Ok(attached) => attached,
        Err(reason) => {
            refuse(&edge, ws, &reason, &info, &newcomer).await;
            return None;
        }
    };
    drop(newcomer);
    attachment.set_direct_writer(socket.direct_writer());
    // On the heap, so that the futures that it passes through hold one word of it.
    let mut session = Box::new(Session::new(edge, ws, attachment, (info.id, slot), &ticket));
    match session.welcome(welcome).await {
        Ok(()) => Some(session),
        Err(reason) => {
            session.close(&reason).await;
            None
        }
    }
}

/// What a client's frames are counted as.
pub(super) const FRAME_KINDS: [&str; 7] =
    ["ping", "ack", "unknown", "not_json", "binary", "control", "close"];

/// Tells the client why it is refused. Its socket makes room for others if it takes long.
async fn refuse(
    edge: &Edge,
    mut ws: WebSocketStream<SharedSocket>,
    reason: &CloseReason,
    info: &RequestInfo,
    newcomer: &Place,
) {
    let label = reason.label();
    edge.metrics.handshakes_refused.get_or_create(&ReasonLabel { reason: label }).inc();
    if let Some(suppressed) = edge.refusals_logged.admit() {
        info!(request_id = %info.id, reason = label, client = %info.client, suppressed, "refused");
    }
    newcomer.set_idle();
    tokio::select! {
        () = close_socket(&mut ws, reason, &info.id) => {}
        () = newcomer.crowded_out().cancelled_owned() => {}
    }
}

/// Counts a connection as open until it is dropped.
struct OpenCount(Arc<Metrics>);

impl OpenCount {
    fn new(metrics: &Arc<Metrics>) -> Self {
        metrics.connections.inc();
        Self(Arc::clone(metrics))
    }
}

impl Drop for OpenCount {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

/// An attached connection. There are many of them, mostly idle: what is rarely needed is neither in here nor in the futures
/// that it waits in.
pub(super) struct Session {
    edge: Arc<Edge>,
    ws: WebSocketStream<SharedSocket>,
    attachment: Attachment,
    open_count: OpenCount,
    /// Held until the socket is closed.
    slot: ConnectionSlot,
    request_id: RequestId,
    opened_at: Instant,
    /// When the client last sent anything.
    seen_at: Instant,
    /// How far the rate of its messages is used up.
    messages: Used,
    resume: ResumeTicket,
}

/// The resume ticket that the client received last.
struct ResumeTicket {
    generation: Generation,
    revision: Revision,
    issued_at: Instant,
}

impl Session {
    fn new(
        edge: Arc<Edge>,
        ws: WebSocketStream<SharedSocket>,
        attachment: Attachment,
        (request_id, slot): (RequestId, ConnectionSlot),
        ticket: &Ticket,
    ) -> Self {
        edge.metrics.connections_opened.inc();
        let (viewer, jti) = (ticket.viewer, ticket.jti.as_str());
        info!(%request_id, connection_id = attachment.connection().id.0, duel_id = ticket.duel.get(),
            user_id = viewer.user.get(), role = ?viewer.role, jti, "connected");
        let now = Instant::now();
        Self {
            open_count: OpenCount::new(&edge.metrics),
            edge,
            ws,
            attachment,
            slot,
            request_id,
            opened_at: now,
            seen_at: now,
            messages: Used::none(),
            resume: ResumeTicket {
                generation: ticket.generation,
                revision: ticket.revision,
                issued_at: now,
            },
        }
    }

    /// Follows the duel until there is a reason to close, and closes.
    pub(super) async fn run(mut self: Box<Self>) {
        let Err(reason) = self.follow().await;
        Box::pin(self.close(&reason)).await;
    }

    async fn follow(&mut self) -> Result<Infallible, CloseReason> {
        let timeout = self.edge.config.client_timeout;
        let silence = tokio::time::sleep_until(self.seen_at + timeout);
        tokio::pin!(silence);
        self.catch_up().await?;
        loop {
            tokio::select! {
                biased;
                () = self.attachment.woken() => self.catch_up().await?,
                message = self.ws.next() => self.receive(message).await?,
                () = &mut silence => {
                    // Moving the timer at every message would cost more than checking once when it fires.
                    let silent_until = self.seen_at + timeout;
                    if silent_until <= Instant::now() {
                        return Err(CloseReason::ConnectionTimeout);
                    }
                    silence.as_mut().reset(silent_until);
                }
            }
        }
    }

    async fn welcome(&mut self, welcome: Welcome) -> Result<(), CloseReason> {
        let resume = welcome.stamp.map(|stamp| self.resume_ticket(stamp));
        debug!(request_id = %self.request_id, recovery = ?welcome.recovery, head = welcome.head.seq,
            "welcomed");
        let first = {
            let (duel, user) = (self.duel(), self.attachment.connection().viewer.user);
            let resume = resume.as_ref().map(|issued| issued.text.as_str());
            protocol::connected(duel, user, &welcome, resume)
        };
        self.send(first).await?;
        self.send_events(&welcome.state).await
    }

    fn duel(&self) -> DuelId {
        self.attachment.connection().duel
    }

    fn resume_ticket(&mut self, stamp: Stamp) -> Issued {
        self.edge.metrics.tickets_issued.get_or_create(&KindLabel { kind: "resume" }).inc();
        let number = self.resume.generation.number.saturating_add(1);
        let generation = Generation { number, ..self.resume.generation };
        let revision = stamp.revision;
        self.resume = ResumeTicket { generation, revision, issued_at: Instant::now() };
        let connection = self.attachment.connection();
        self.edge.tickets.issue_resume(connection.duel, connection.viewer, generation, stamp)
    }

    /// Returns a new resume ticket once the last is past half its life, unless its tickets were revoked.
    async fn renewed(&mut self) -> Option<Issued> {
        if self.resume.issued_at.elapsed() < self.edge.tickets.resume_ttl() / 2 {
            return None;
        }
        let connection = self.attachment.connection();
        let owner = (connection.duel, connection.viewer.user);
        let ResumeTicket { generation, revision, .. } = self.resume;
        // If the engine is away, the next ping asks again.
        let stamp = self.edge.hub.renew_ticket(generation.session, owner, revision).await.ok()?;
        self.resume.issued_at = Instant::now();
        stamp.map(|stamp| self.resume_ticket(stamp))
    }

    /// Sends everything that lies after the cursor. Until the next time, events are written directly.
    async fn catch_up(&mut self) -> Result<(), CloseReason> {
        loop {
            if let Some(request) = self.attachment.close_request() {
                return Err(request.into());
            }
            let batch = self.attachment.next().await;
            let batch = batch
                .map_err(|required| CloseReason::resync(required, self.attachment.retry_after()))?;
            if !batch.is_empty() {
                Box::pin(self.send_batch(&batch)).await?;
                let last = batch.events.last();
                if last.is_some_and(|last| matches!(last.content, Content::Closed(_))) {
                    return Err(CloseReason::DuelEnded);
                }
            } else if self.ws.get_ref().has_unsent() {
                // Nothing is written directly behind it, so there may be more events once it is sent.
                Box::pin(self.flush()).await?;
            } else {
                return Ok(());
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

    /// Sends what is unsent, and the answer to a control frame that the library holds (RFC 6455, section 5.5). A client that
    /// does not take it in time is too slow. Nothing more is sent once the hub wants the connection to close.
    async fn flush(&mut self) -> Result<(), CloseReason> {
        let flushing = timeout(limits::WRITE_TIMEOUT, self.ws.flush());
        tokio::select! {
            biased;
            flushed = flushing => match flushed {
                Ok(flushed) => flushed.map_err(|_| CloseReason::Lost),
                Err(_) => Err(CloseReason::TooSlow),
            },
            request = self.attachment.close_requested() => Err(request.into()),
        }
    }

    async fn flush_unsent(&mut self) -> Result<(), CloseReason> {
        match self.ws.get_ref().has_unsent() {
            true => self.flush().await,
            false => Ok(()),
        }
    }

    /// Sends whole frames after what is unsent.
    async fn send(&mut self, frames: Bytes) -> Result<(), CloseReason> {
        let bytes = frames.len() as u64;
        self.flush_unsent().await?;
        self.ws.get_ref().send(frames).map_err(|_| CloseReason::Lost)?;
        self.flush_unsent().await?;
        self.edge.metrics.sent_bytes.inc_by(bytes);
        Ok(())
    }

    /// Sends events, several small ones in one chunk.
    async fn send_events(&mut self, events: &[Arc<Event>]) -> Result<(), CloseReason> {
        let (duel, viewer) = (self.duel(), self.attachment.connection().viewer);
        let frame = |event: &Arc<Event>| protocol::event_frame(duel, event, viewer);
        let mut frames = events.iter().filter_map(frame).peekable();
        while let Some(first) = frames.next() {
            let (mut bytes, mut chunk) = (first.len(), vec![first]);
            while let Some(next) = frames.next_if(|next| bytes + next.len() <= CHUNK_BYTES_MAX) {
                bytes += next.len();
                chunk.push(next);
            }
            let count = chunk.len() as u64;
            let alone = if count == 1 { chunk.pop() } else { None };
            self.send(alone.unwrap_or_else(|| chunk.concat().into())).await?;
            self.edge.metrics.deliveries.inc_by(count);
        }
        Ok(())
    }

    /// Takes a message of the client.
    async fn receive(
        &mut self,
        received: Option<Result<Message, Error>>,
    ) -> Result<(), CloseReason> {
        let message = match received {
            None => return Err(CloseReason::ClientClosed),
            Some(Err(error)) => return Err(reason_of(&error)),
            Some(Ok(message)) => message,
        };
        self.seen_at = Instant::now();
        if !self.edge.message_rate.allows(&mut self.messages, self.seen_at) {
            return Err(CloseReason::TooManyMessages);
        }
        match message {
            Message::Text(text) => match protocol::parse(&text) {
                Some(ClientFrame::Ping) => {
                    self.count_received("ping");
                    Box::pin(self.pong()).await?;
                }
                Some(ClientFrame::Ack { seq }) => {
                    self.count_received("ack");
                    Box::pin(self.attachment.ack(seq)).await;
                }
                Some(ClientFrame::Unknown) => self.count_received("unknown"),
                None => self.count_received("not_json"),
            },
            Message::Binary(_) => self.count_received("binary"),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {
                self.count_received("control");
                Box::pin(self.flush()).await?;
            }
            Message::Close(_) => {
                self.count_received("close");
                Box::pin(self.flush()).await?;
                // Nothing may follow the answer (RFC 6455, section 5.5.1).
                return Err(CloseReason::ClientClosed);
            }
        }
        Ok(())
    }

    fn count_received(&self, kind: &'static str) {
        self.edge.metrics.frames_received.get_or_create(&KindLabel { kind }).inc();
    }

    async fn pong(&mut self) -> Result<(), CloseReason> {
        // Everything up to the seq in the pong must have been sent before it.
        self.catch_up().await?;
        let resume = self.renewed().await;
        let resume = resume.as_ref().map(|issued| issued.text.as_str());
        let frame = protocol::pong(self.attachment.served_seq(), resume);
        self.send(frame).await
    }

    /// Detaches the connection, then tells the client why, and closes the socket.
    async fn close(self: Box<Self>, reason: &CloseReason) {
        if *reason == CloseReason::TooManyMessages {
            // Else coming back would give it all its messages again.
            let user = self.attachment.connection().viewer.user;
            self.edge.admission.use_up(user, &self.slot);
        }
        let Self { edge, mut ws, mut attachment, open_count, request_id, opened_at, .. } = *self;
        attachment.set_offline_reason(reason.offline_reason());
        let connection_id = attachment.connection().id.0;
        drop((attachment, open_count));
        edge.metrics
            .connections_closed
            .get_or_create(&ReasonLabel { reason: reason.label() })
            .inc();
        let duration_ms = u64::try_from(opened_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        info!(%request_id, connection_id, reason = reason.label(), duration_ms, "disconnected");
        close_socket(&mut ws, reason, &request_id).await;
    }
}

/// Tells the client why the connection closes, and waits until it has heard it. Bounded by [`limits::CLOSE_TIMEOUT`].
async fn close_socket(
    ws: &mut WebSocketStream<SharedSocket>,
    reason: &CloseReason,
    request_id: &RequestId,
) {
    let Some(notice) = reason.notice() else { return };
    // A client that does not read does not answer either.
    let too_slow = *reason == CloseReason::TooSlow;
    let patience = if too_slow { Duration::from_millis(100) } else { limits::CLOSE_TIMEOUT };
    let closing = async {
        if let Some(error) = notice.error {
            let frame = protocol::error(error, request_id, notice.retry, reason.retry_after());
            ws.feed(Message::Text(frame)).await?;
        }
        let text = Utf8Bytes::from(reason.text());
        ws.close(Some(CloseFrame { code: notice.code.into(), reason: text })).await?;
        while let Some(Ok(_)) = ws.next().await {}
        // The server ends TCP first (RFC 6455, section 7.1.1). What the client still sends is read as bytes: closing the
        // socket with unread bytes would reset it, and the client might not hear why.
        let stream = ws.get_mut();
        stream.shutdown().await?;
        let mut unread = [0; 256];
        while stream.read(&mut unread).await? > 0 {}
        Ok::<_, Error>(())
    };
    // On the heap, so that a connection has no room for its end throughout its life.
    let _closed: Result<_, _> = timeout(patience, Box::pin(closing)).await;
    ws.get_ref().end_without_peer();
}

fn reason_of(error: &Error) -> CloseReason {
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
    } else if matches!(error, Error::Io(error) if error.kind() == TOO_MANY_READS) {
        CloseReason::TooManyMessages
    } else {
        CloseReason::Lost
    }
}
