//! A client of HTTP and WebSocket, like the WebApp's browser, with TLS if the URL says so.
//!
//! hyper's plain connection serves both. The pooled client of hyper-util would need a connector of more lines than it saves.

use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Uri, header};
use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::PATIENCE;

/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 512 * 1024;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Opens connections to the deployment.
pub(super) struct WebClient {
    tls: TlsConnector,
}

/// An answer over HTTP.
pub(super) struct HttpAnswer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    /// The body, with a sign in place of each byte that is not UTF-8.
    pub(super) text: String,
    /// Null if the body was not JSON.
    pub(super) json: Value,
}

/// A player's WebSocket.
pub(super) struct PlayerSocket {
    ws: WebSocketStream<Box<dyn Stream>>,
}

/// Returns the origin of a page at `url` (RFC 6454, section 6.1).
pub(super) fn origin_of(url: &str) -> Option<String> {
    let url: Uri = url.parse().ok()?;
    Some(format!("{}://{}", url.scheme_str()?, url.authority()?))
}

impl WebClient {
    /// Creates a client that trusts the system's authorities and those in `ca_file`.
    pub(super) fn new(ca_file: Option<&Path>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = ca_file {
            let unusable = || format!("--ca-file {} has no usable certificate", path.display());
            let certs = CertificateDer::pem_file_iter(path).map_err(|_| unusable())?;
            let certs: Vec<_> = certs.filter_map(Result::ok).collect();
            if roots.add_parsable_certificates(certs).0 == 0 {
                return Err(unusable());
            }
        }
        let provider = Arc::new(crypto::ring::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|error| error.to_string())?;
        let config = config.with_root_certificates(roots).with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)) })
    }

    async fn connect(&self, url: &Uri) -> Result<Box<dyn Stream>, String> {
        let host = url.host().ok_or("the URL names no host")?;
        let secure = matches!(url.scheme_str(), Some("https" | "wss"));
        let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let stream = TcpStream::connect((host, port)).await;
        let stream = stream.map_err(|error| format!("{host}:{port}: {error}"))?;
        if !secure {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        let stream = self.tls.connect(name, stream).await;
        Ok(Box::new(stream.map_err(|error| format!("TLS with {host}: {error}"))?))
    }

    /// Makes a GET request with these headers.
    pub(super) async fn get(
        &self,
        url: &str,
        headers: &[(&str, &str)],
    ) -> Result<HttpAnswer, String> {
        self.ask(Method::GET, url, headers, "").await
    }

    /// Makes a request.
    pub(super) async fn ask(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: &'static str,
    ) -> Result<HttpAnswer, String> {
        let asking = self.ask_patiently(method, url, headers, body);
        timeout(PATIENCE, asking).await.map_err(|_| format!("{url}: no answer in time"))?
    }

    async fn ask_patiently(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: &'static str,
    ) -> Result<HttpAnswer, String> {
        let url: Uri = url.parse().map_err(|_| "the URL cannot be read".to_owned())?;
        let stream = TokioIo::new(self.connect(&url).await?);
        let connected = hyper::client::conn::http1::handshake(stream).await;
        let (mut sender, connection) = connected.map_err(|error| error.to_string())?;
        let host = url.authority().map(ToString::to_string).unwrap_or_default();
        let path = url.path_and_query().map(ToString::to_string).unwrap_or_default();
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body)).map_err(|error| error.to_string())?;
        let answering = async {
            let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| error.to_string())?.to_bytes();
            let json = serde_json::from_slice(&body).unwrap_or_default();
            Ok(HttpAnswer { status, headers, text: String::from_utf8_lossy(&body).into(), json })
        };
        tokio::pin!(answering);
        tokio::select! {
            answer = &mut answering => answer,
            // The connection may end just before its answer is read.
            _done = connection => answering.await,
        }
    }

    /// Opens a player's WebSocket. Returns it with its first frame.
    pub(super) async fn open(
        &self,
        url: &str,
        origin: &str,
        ticket: &str,
    ) -> Result<(PlayerSocket, Value), String> {
        let opening = async {
            let mut player = self.handshake(url, origin, ticket).await?;
            let (first, _) = player.next().await?;
            Ok((player, first))
        };
        timeout(PATIENCE, opening).await.map_err(|_| format!("{url}: no answer in time"))?
    }

    async fn handshake(
        &self,
        url: &str,
        origin: &str,
        ticket: &str,
    ) -> Result<PlayerSocket, String> {
        let full = format!("{url}?ticket={ticket}");
        let uri: Uri = full.parse().map_err(|_| "the URL cannot be read".to_owned())?;
        let mut request = full.into_client_request().map_err(|error| error.to_string())?;
        let origin = HeaderValue::from_str(origin).map_err(|error| error.to_string())?;
        if !origin.is_empty() {
            request.headers_mut().insert(header::ORIGIN, origin);
        }
        let stream = self.connect(&uri).await?;
        match client_async(request, stream).await {
            Ok((ws, _)) => Ok(PlayerSocket { ws }),
            Err(Error::Http(response)) => Err(format!("HTTP {} instead of 101", response.status())),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl PlayerSocket {
    /// Returns the next frame, and when it came.
    async fn next(&mut self) -> Result<(Value, Instant), String> {
        loop {
            let message = timeout(PATIENCE, self.ws.next()).await;
            let message = message.map_err(|_| "no frame in time".to_owned())?;
            match message {
                Some(Ok(Message::Text(text))) => {
                    let at = Instant::now();
                    let frame = serde_json::from_str(&text);
                    return Ok((frame.map_err(|_| "a frame is not JSON".to_owned())?, at));
                }
                Some(Ok(Message::Close(frame))) => {
                    let why =
                        frame.map_or_else(String::new, |f| format!(": {} {}", f.code, f.reason));
                    return Err(format!("the socket was closed{why}"));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.to_string()),
                None => return Err("the socket was closed".into()),
            }
        }
    }

    /// Returns the next frame of a type.
    pub(super) async fn next_of(&mut self, frame_type: &str) -> Result<(Value, Instant), String> {
        loop {
            let (frame, at) = self.next().await?;
            if frame["type"] == frame_type {
                return Ok((frame, at));
            }
        }
    }
}
