//! The demo page, in development only: a backend, two players, and what each of them saw. The page itself is in `webapp/`.
//!
//! The page's calls come as JSON and go on to the control plane as they came, so that a call of the page is the very call of the
//! curl line that it shows. Only the token is added here: the page never has it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, Json, Path, State};
use axum::http::{self, HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::response::{IntoResponse as _, Redirect};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::time::Instant;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tower::ServiceExt as _;

use crate::config::{ControlConfig, Secret};
use crate::edge::{CLIENT_ERROR, asks_for_page, failure};
use crate::id::RequestId;
use crate::pb::control_service_client::ControlServiceClient;

/// The duel of the first page that is opened. The command line printed at start pushes to it.
pub const FIRST_DUEL: u64 = 77;

/// The duels of all other pages.
const LATER_DUELS: std::ops::Range<u64> = FIRST_DUEL + 1..1_000_000;

/// The page's address.
pub const PATH: &str = "/demo/";

/// The players of every demo duel.
const PLAYERS: [u64; 2] = [1001, 1002];

/// The calls that the page makes.
const METHODS: [&str; 4] = ["OpenDuel", "IssueTicket", "PushEvent", "CloseDuel"];

const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// A file of `webapp/`: its path, its content type, its text.
macro_rules! file {
    ($path:literal, $kind:expr) => {
        ($path, $kind, include_str!(concat!("../webapp/", $path)))
    };
}

/// The page's files.
const FILES: [(&str, &str, &str); 17] = [
    file!("index.html", HTML),
    file!("theme.css", STYLE),
    file!("src/style.css", STYLE),
    file!("src/main.js", SCRIPT),
    file!("src/backend.js", SCRIPT),
    file!("src/copied.js", SCRIPT),
    file!("src/game.js", SCRIPT),
    file!("src/guide.js", SCRIPT),
    file!("src/ledger.js", SCRIPT),
    file!("src/network.js", SCRIPT),
    file!("src/panel.js", SCRIPT),
    file!("src/quiz.js", SCRIPT),
    file!("src/words.js", SCRIPT),
    file!("vendor/duelhub.js", SCRIPT),
    file!("src/docs.js", SCRIPT),
    file!("src/docs.css", STYLE),
    file!("src/markdown.js", SCRIPT),
];

/// The page that shows a document.
const READER: &str = include_str!("../webapp/docs.html");

/// A document of the repository: its path there, and its text.
macro_rules! document {
    ($path:literal) => {
        ($path, include_str!(concat!("../", $path)))
    };
}

/// What a newcomer reads on with, as it was when this hub was built.
const DOCUMENTS: [(&str, &str); 6] = [
    document!("README.md"),
    document!("clients/js/README.md"),
    document!("clients/php/README.md"),
    document!("examples/README.md"),
    document!("deploy/GUIDE.md"),
    document!("proto/duelhub/v1/control.proto"),
];

/// Sends the bearer token with every call.
#[derive(Debug, Clone)]
pub struct Bearer(Option<MetadataValue<tonic::metadata::Ascii>>);

impl Bearer {
    /// Creates it with `token`, if the control plane needs one.
    #[must_use]
    pub fn new(token: Option<&Secret>) -> Self {
        let value = token.map(|token| format!("Bearer {}", token.as_str()));
        let mut value: Option<MetadataValue<_>> = value.and_then(|value| value.parse().ok());
        if let Some(value) = &mut value {
            value.set_sensitive(true);
        }
        Self(value)
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// A client of the control plane.
pub type Client = ControlServiceClient<InterceptedService<Channel, Bearer>>;

/// The demo page and its way to the control plane.
#[derive(Debug)]
pub struct Demo {
    control_plane: InterceptedService<Channel, Bearer>,
    address: SocketAddr,
    token_needed: bool,
    first_taken: AtomicBool,
}

impl Demo {
    /// Creates the demo of the hub whose control plane listens on `address`. Returns `None` if that uses TLS, which this client
    /// does not speak.
    #[must_use]
    pub fn new(config: &ControlConfig, address: SocketAddr) -> Option<Self> {
        if config.tls.is_some() {
            return None;
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
        let endpoint = endpoint.timeout(Duration::from_secs(5));
        let bearer = Bearer::new(config.token.as_ref());
        Some(Self {
            control_plane: InterceptedService::new(endpoint.connect_lazy(), bearer),
            address,
            token_needed: config.token.is_some(),
            first_taken: AtomicBool::new(false),
        })
    }

    /// Returns the routes under `/demo`.
    pub fn router(self) -> Router {
        Router::new()
            .route("/demo", get(async || Redirect::permanent(PATH)))
            .route(PATH, get(file))
            .route("/demo/{*path}", get(file))
            .route("/demo/docs/{*path}", get(document))
            .route("/demo/api/duel", post(duel))
            .route("/demo/api/{method}", post(call))
            .with_state(Arc::new(self))
    }
}

/// Returns the command line that pushes to a duel from a terminal, with nothing but curl.
#[must_use]
pub fn curl_line(duel: u64, control: SocketAddr, token_needed: bool) -> String {
    let token = if token_needed { "-H \"Authorization: Bearer $CONTROL_TOKEN\" " } else { "" };
    let request = json!({"duelId": duel, "payload": {"question": "Hello from the terminal"}});
    let call = format!("http://{control}/duelhub.v1.ControlService/PushEvent");
    format!("curl {token}-H 'Content-Type: application/json' -d '{request}' {call}")
}

async fn file(Extension(id): Extension<RequestId>, path: Option<Path<String>>) -> Response<Body> {
    let path = path.map_or_else(|| "index.html".to_owned(), |Path(path)| path);
    let Some((_, kind, text)) = FILES.iter().find(|(name, ..)| *name == path) else {
        return failure(&id, StatusCode::NOT_FOUND, "not_found", "There is no such file");
    };
    ([(header::CONTENT_TYPE, *kind), (header::CACHE_CONTROL, "no-store")], *text).into_response()
}

/// Answers with a document: a browser that opens it gets the page that shows it, and whoever else asks gets its text.
async fn document(
    Extension(id): Extension<RequestId>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Response<Body> {
    let Some((_, text)) = DOCUMENTS.iter().find(|(name, _)| *name == path) else {
        return failure(&id, StatusCode::NOT_FOUND, "not_found", "There is no such document");
    };
    let (kind, text) = if asks_for_page(&headers) { (HTML, READER) } else { (TEXT, *text) };
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::VARY, "accept"),
    ];
    (headers, text).into_response()
}

/// Says which duel a page is to open, and how a terminal reaches the control plane.
async fn duel(State(demo): State<Arc<Demo>>) -> Json<Value> {
    let taken = demo.first_taken.swap(true, Ordering::Relaxed);
    // Random, so that a page does not find an earlier page's duel. Short, because it is read and typed.
    let duel = if taken { rand::random_range(LATER_DUELS) } else { FIRST_DUEL };
    Json(json!({
        "duelId": duel,
        "players": PLAYERS,
        "control": demo.address.to_string(),
        "tokenNeeded": demo.token_needed,
    }))
}

/// Passes a call on, and its answer back. `Server-Timing` says how long the control plane took.
async fn call(
    State(demo): State<Arc<Demo>>,
    Extension(id): Extension<RequestId>,
    Path(method): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    if !METHODS.contains(&method.as_str()) {
        return failure(&id, StatusCode::NOT_FOUND, "not_found", "The page makes no such call");
    }
    // A page of another origin can post a text. For JSON its browser asks first, and is given no leave.
    if headers.get(header::CONTENT_TYPE).is_none_or(|kind| kind != JSON) {
        let text = "Content-Type must be application/json";
        return failure(&id, StatusCode::UNSUPPORTED_MEDIA_TYPE, CLIENT_ERROR, text);
    }
    let mut request = http::Request::new(tonic::body::Body::new(Body::from(body)));
    *request.method_mut() = http::Method::POST;
    let path = format!("/duelhub.v1.ControlService/{method}");
    *request.uri_mut() = path.parse().unwrap_or_default();
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    // One id for the whole of it, in the log and in the answer.
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        request.headers_mut().insert("x-request-id", id);
    }
    let started = Instant::now();
    let answered = demo.control_plane.clone().oneshot(request).await;
    let took = started.elapsed();
    let Ok(answer) = answered else {
        let text = "The control plane does not answer";
        return failure(&id, StatusCode::BAD_GATEWAY, "unavailable", text);
    };
    let timing = format!("call;dur={:.3}", took.as_secs_f64() * 1e3);
    let status = answer.status();
    let kind = answer.headers().get(header::CONTENT_TYPE).cloned();
    let kind = kind.unwrap_or(HeaderValue::from_static(JSON));
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    let body = Body::new(answer.into_body());
    (status, headers, [("server-timing", timing)], body).into_response()
}
