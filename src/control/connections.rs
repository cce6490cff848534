//! The connections of backends: TLS, HTTP/2 or HTTP/1.1, and what becomes of them at a stop.
//!
//! hyper serves them, and tells the two apart by the first bytes, without the transport of the gRPC library: that one answers a deadline by itself, and waits at a stop
//! for peers that never spoke.
//!
//! At a stop a connection ends as soon as its calls are answered and, over HTTP/2, its client has acknowledged the end (GOAWAY,
//! RFC 9113, section 6.8). A client that does not is waited for no longer than [`limits::GOAWAY_TIMEOUT`]. A connection of which no call
//! was accepted in time ends in the same way. [`super::peer`] says when one is cut off.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ServeError;
use super::answers::{self, CallExecutor};
use super::middleware::CallService;
use super::peer::{ANSWERS_NOT_TAKEN, Peer, Peers};
use super::threads::Incoming;
use crate::config::ControlTls;
use crate::limits;
use crate::places::Place;

/// How often a connection is asked whether its peer is still there, and how long it may take to answer.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// How connections are served.
#[derive(Clone)]
pub(super) struct Connections {
    service: CallService,
    tls: Option<TlsAcceptor>,
    http: auto::Builder<CallExecutor>,
    peers: Arc<Peers>,
    stop: CancellationToken,
}

impl Connections {
    pub(super) fn new(
        service: CallService,
        tls: Option<&ControlTls>,
        peers: Arc<Peers>,
        stop: CancellationToken,
    ) -> Result<Self, ServeError> {
        let mut http = auto::Builder::new(CallExecutor { answer_timeout: peers.patience.answer });
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits::GRPC_STREAMS_MAX)
            .initial_stream_window_size(limits::GRPC_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(limits::GRPC_CONNECTION_WINDOW_BYTES)
            .keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(limits::CONTROL_HTTP1_IDLE_TIMEOUT)
            .max_buf_size(limits::CONTROL_HTTP1_BUFFER_BYTES);
        let tls = tls.map(|tls| acceptor(tls).ok_or(ServeError::Tls)).transpose()?;
        Ok(Self { service, tls, http, peers, stop })
    }

    /// Serves the connections that come until `stop`, and returns once all have ended.
    pub(super) async fn serve(self, incoming: Incoming) {
        let (mut incoming, open) = (pin!(incoming), TaskTracker::new());
        while let Some(Some((stream, newcomer))) =
            self.stop.run_until_cancelled(incoming.next()).await
        {
            // One that the runtime does not take is closed.
            let Ok(stream) = stream else { continue };
            open.spawn(self.clone().serve_stream(stream, newcomer));
        }
        open.close();
        open.wait().await;
    }

    async fn serve_stream(self, stream: TcpStream, newcomer: Place) {
        let peer = self.peers.peer(newcomer);
        tokio::select! {
            () = self.serve_peer(stream, &peer) => {}
            () = peer.cut_off() => {}
        }
    }

    async fn serve_peer(&self, stream: TcpStream, peer: &Arc<Peer>) {
        let Some(tls) = &self.tls else { return self.serve_http(stream, peer).await };
        // Whoever has not finished the handshake has asked nothing.
        if let Some(Ok(stream)) = self.stop.run_until_cancelled(tls.accept(stream)).await {
            Box::pin(self.serve_http(stream, peer)).await;
        }
    }

    async fn serve_http<S>(&self, stream: S, peer: &Arc<Peer>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let calls = TaskTracker::new();
        let service = service_fn(|request| {
            let answer = self.service.call(request, calls.token(), peer);
            async { Ok::<_, Infallible>(answer.await) }
        });
        let stream = TokioIo::new(HeardStream { stream, peer: Arc::clone(peer) });
        let mut connection = pin!(self.http.serve_connection(stream, service));
        // Over HTTP/1.1 the connection's own task writes the answer. Why a connection fails is of no concern here: its calls say
        // what has become of them.
        tokio::select! {
            stuck = answers::until_ended_or_stuck(connection.as_mut(), peer.patience().answer) => {
                if stuck {
                    peer.count_closed(ANSWERS_NOT_TAKEN);
                }
                return;
            }
            () = self.stop.cancelled() => {}
            () = peer.first_call_missed() => {}
        }
        connection.as_mut().graceful_shutdown();
        let unanswered = async {
            calls.close();
            calls.wait().await;
            tokio::time::sleep(limits::GOAWAY_TIMEOUT).await;
        };
        tokio::select! {
            _ended = connection => {}
            () = unanswered => {}
        }
    }
}

/// A stream whose peer is noted to have spoken.
struct HeardStream<S> {
    stream: S,
    peer: Arc<Peer>,
}

impl<S: AsyncRead + Unpin> AsyncRead for HeardStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, into);
        self.peer.hear(into.filled().len() - before);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HeardStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Returns `None` if the files are not valid PEM, or do not match.
fn acceptor(tls: &ControlTls) -> Option<TlsAcceptor> {
    let provider = Arc::new(crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().ok()?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates(ca)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().ok()?)
        }
    };
    let key = PrivateKeyDer::from_pem_slice(&tls.key).ok()?;
    let mut config = builder.with_single_cert(certificates(&tls.cert)?, key).ok()?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Some(Arc::new(config).into())
}

fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().ok()
}
