//! The data plane: HTTP and WebSocket on one port.
//!
//! Each accepted socket has one task, from its first byte to its last. The task speaks HTTP until a handshake succeeds, takes
//! the raw socket back (which frees HTTP's buffers) and follows the duel on it ([`session`]). A refusal that a WebApp has to
//! understand comes after the handshake, as an `error` frame. One that protects the server is plain HTTP.
//!
//! Called by the network. Calls the hub and the tickets. Bounds: [`admission`].

mod admission;
mod client;
mod close_reason;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod handshake;
mod origin;
mod protocol;
mod rate;
mod refusal_log;
mod request;
mod session;
mod shared_socket;
mod tickets;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::routing::{any, get};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use rustix::net::sockopt::set_socket_send_buffer_size;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use tracing::{debug, warn};

use self::admission::Admission;
use self::client::TrustedProxies;
use self::close_reason::CloseReason;
use self::handshake::Handshake;
use self::origin::Origins;
use self::rate::Rate;
use self::refusal_log::RefusalLog;
use self::request::RequestInfo;
pub use self::request::{CLIENT_ERROR, asks_for_page, failure, success};
use self::session::Session;
pub use self::session::websocket;
use crate::config::{EdgeConfig, TelegramConfig};
use crate::hub::Hub;
use crate::limits;
use crate::metrics::{Metrics, ReasonLabel, at_zero};
use crate::places::Place;
use crate::ticket::Tickets;

const MINUTE: Duration = Duration::from_secs(60);

/// What every request on the data plane needs.
#[derive(Debug)]
pub struct Edge {
    config: EdgeConfig,
    telegram: TelegramConfig,
    hub: Arc<Hub>,
    tickets: Arc<Tickets>,
    metrics: Arc<Metrics>,
    admission: Admission,
    message_rate: Rate,
    refusals_logged: RefusalLog,
    origins: Origins,
    proxies: TrustedProxies,
}

/// Pages besides the contract's own.
#[derive(Debug, Default)]
pub struct Pages {
    /// Their routes.
    pub router: Router,
    /// Where a browser is led that opens `/`. Unset: it is told that `/` is a WebSocket.
    pub home: Option<&'static str>,
}

/// Passes a handshake that succeeded from its handler to the task that owns the socket.
type HandshakeCell = Arc<Mutex<Option<Handshake>>>;

impl Edge {
    /// Creates the data plane of `hub`, whose tickets are `tickets`.
    #[must_use]
    pub fn new(
        config: EdgeConfig,
        telegram: TelegramConfig,
        hub: Arc<Hub>,
        tickets: Arc<Tickets>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let admission = Admission::new(&config, Arc::clone(&metrics));
        let origins = Origins::new(config.origins.clone());
        let unreadable = metrics.forwarded_unreadable.clone();
        let proxies = TrustedProxies::new(config.trusted_proxies.clone(), unreadable);
        at_zero(&metrics.ticket_api_answers, tickets::answer_kinds());
        at_zero(&metrics.tickets_issued, ["http", "resume"]);
        at_zero(&metrics.connections_closed, CloseReason::LABELS);
        at_zero(&metrics.handshakes_refused, handshake::refusals().chain(CloseReason::REFUSALS));
        at_zero(&metrics.frames_received, session::FRAME_KINDS);
        let message_rate = Rate::per(MINUTE, config.messages_per_minute_max);
        let refusals_logged = RefusalLog::default();
        Arc::new(Self {
            config,
            telegram,
            hub,
            tickets,
            metrics,
            admission,
            message_rate,
            refusals_logged,
            origins,
            proxies,
        })
    }

    /// Serves `listener` until `stop`. Then no socket is accepted, and those without a finished handshake are dropped. Each
    /// socket's task is one of `tasks`. `pages` are served besides the contract's own.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        pages: Pages,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) {
        let router = self.router(pages.home).merge(pages.router);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let task = Arc::clone(&self).handle(stream, peer, router.clone(), stop.clone());
                    tasks.spawn(task);
                }
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(limits::ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn router(self: &Arc<Self>, home: Option<&'static str>) -> Router {
        // Without that, `get` serves HEAD as well: the ticket would be spent, or issued, for nobody.
        let refuse_head = request::method_not_allowed;
        let tickets = Router::new()
            .route("/api/duel/ws-ticket", get(tickets::issue).head(refuse_head))
            .method_not_allowed_fallback(request::method_not_allowed)
            .layer(self.origins.cors())
            .layer(from_fn_with_state(Arc::clone(self), origin::refuse_others));
        let open = || get(handshake::open).head(refuse_head);
        Router::new()
            .route("/", open().layer(from_fn_with_state(home, handshake::lead_browsers_home)))
            .route("/ws", open())
            .route("/ws/", open())
            .merge(tickets)
            .fallback(any(request::not_found))
            .method_not_allowed_fallback(request::method_not_allowed)
            .with_state(Arc::clone(self))
    }

    fn handle(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        router: Router,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send {
        // On the heap, and freed when it is attached: a connection has no room for its beginning throughout its life.
        let opening = Box::pin(self.open(stream, peer, router, stop));
        async move {
            if let Some(session) = opening.await {
                session.run().await;
            }
        }
    }

    /// Serves a socket from its first byte until the connection is attached.
    async fn open(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        router: Router,
        stop: CancellationToken,
    ) -> Option<Box<Session>> {
        let Some(newcomer) = self.admission.enter() else {
            refuse(&stream);
            return None;
        };
        // Frames are small and written whole. Waiting to fill a packet would only delay them.
        let _nodelay = stream.set_nodelay(true);
        let _bounded = set_socket_send_buffer_size(&stream, limits::SEND_BUFFER_BYTES as usize);
        let http = self.speak_http(stream, peer, router, &newcomer);
        let (stream, unread, handshake) = tokio::select! {
            // For all requests together: repeating them is no way to stay without a ticket.
            opened = timeout(self.config.handshake_timeout, http) => opened.ok().flatten()?,
            () = newcomer.crowded_out().cancelled_owned() => {
                self.admission.count_crowded_out();
                return None;
            }
            () = stop.cancelled() => return None,
        };
        newcomer.set_busy();
        session::attach(self, (stream, unread), handshake, newcomer).await
    }

    /// Answers requests until the socket closes, or a handshake has succeeded.
    async fn speak_http(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        router: Router,
        newcomer: &Place,
    ) -> Option<(TcpStream, Vec<u8>, Handshake)> {
        let cell = HandshakeCell::default();
        let service = service_fn(|request: Request<hyper::body::Incoming>| {
            let response = self.respond(request, peer, router.clone(), Arc::clone(&cell));
            async {
                newcomer.set_busy();
                let response = response.await;
                newcomer.set_idle();
                response
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.config.handshake_timeout)
            .max_buf_size(limits::HTTP_HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service)
            .without_shutdown();
        match connection.await {
            Ok(parts) => {
                let handshake = cell.lock().take()?;
                Some((parts.io.into_inner(), parts.read_buf.to_vec(), handshake))
            }
            Err(error) => {
                self.metrics
                    .handshakes_refused
                    .get_or_create(&ReasonLabel { reason: handshake::NO_HTTP })
                    .inc();
                debug!(%error, %peer, "a client did not speak HTTP");
                None
            }
        }
    }

    async fn respond(
        &self,
        request: Request<hyper::body::Incoming>,
        peer: SocketAddr,
        router: Router,
        cell: HandshakeCell,
    ) -> Result<Response<Body>, Infallible> {
        let mut request = request.map(Body::new);
        let info = RequestInfo::new(&request, self.proxies.client(request.headers(), peer.ip()));
        request.extensions_mut().insert(info.id.clone());
        request.extensions_mut().insert(info.clone());
        request.extensions_mut().insert(cell);
        let head = (request.method().clone(), request.uri().path().to_owned());
        let response = if request::has_one_host(&request) {
            router.oneshot(request).await?
        } else {
            request::host_required(&info.id)
        };
        Ok(info.finish(&head.0, &head.1, response, &self.refusals_logged))
    }
}

/// Refuses a socket that there is no room for, without reading from it or waiting.
fn refuse(stream: &TcpStream) {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let answer = format!(
        "HTTP/1.1 {status}\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    let _sent = stream.try_write(answer.as_bytes());
}
