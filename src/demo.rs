//! The demo page, in development only: two phones in one window, and a backend to push with. The page itself is in `webapp/`.
//!
//! The page's requests come as JSON and are forwarded to the control plane: the demo is a gRPC client like any other. Four
//! short handlers do that with less than `pbjson` or `prost-reflect` would add to the build.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Json, Path, State};
use axum::http::{Response, StatusCode, header};
use axum::response::{ErrorResponse, IntoResponse as _, Redirect};
use axum::routing::{get, post};
use axum::{Router, extract::rejection::JsonRejection};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::config::{ControlConfig, Secret};
use crate::edge::{CLIENT_ERROR, failure};
use crate::id::RequestId;
use crate::pb;
use crate::pb::control_service_client::ControlServiceClient;

/// The duel of the first page that is opened. The command line printed at start pushes to it.
pub const FIRST_DUEL: u64 = 77;

/// The players of every demo duel.
const PLAYERS: [u64; 2] = [1001, 1002];

/// The page's files in `webapp/`.
const FILES: [(&str, &str, &str); 8] = [
    ("index.html", "text/html; charset=utf-8", include_str!("../webapp/index.html")),
    ("src/main.js", "text/javascript", include_str!("../webapp/src/main.js")),
    ("src/phone.js", "text/javascript", include_str!("../webapp/src/phone.js")),
    ("src/player.js", "text/javascript", include_str!("../webapp/src/player.js")),
    ("src/backend.js", "text/javascript", include_str!("../webapp/src/backend.js")),
    ("src/game.js", "text/javascript", include_str!("../webapp/src/game.js")),
    ("src/quiz.js", "text/javascript", include_str!("../webapp/src/quiz.js")),
    ("src/style.css", "text/css", include_str!("../webapp/src/style.css")),
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

/// The demo page and its backend.
#[derive(Debug)]
pub struct Demo {
    client: Client,
    control: SocketAddr,
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
        let client = ControlServiceClient::with_interceptor(endpoint.connect_lazy(), bearer);
        Some(Self {
            client,
            control: address,
            token_needed: config.token.is_some(),
            first_taken: AtomicBool::new(false),
        })
    }

    /// Returns the routes under `/demo`.
    pub fn router(self) -> Router {
        Router::new()
            .route("/demo", get(async || Redirect::permanent("/demo/")))
            .route("/demo/", get(file))
            .route("/demo/{*path}", get(file))
            .route("/demo/api/duel", post(open_duel))
            .route("/demo/api/ticket", post(issue_ticket))
            .route("/demo/api/push", post(push))
            .route("/demo/api/close", post(close))
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

/// Returns the command line that pushes to a duel by gRPC.
fn grpcurl_line(duel: u64, control: SocketAddr, token_needed: bool) -> String {
    let token = if token_needed { "-H \"authorization: Bearer $CONTROL_TOKEN\" " } else { "" };
    let request = json!({
        "duel_id": duel,
        "payload_json": r#"{"question":"Hello from the terminal"}"#,
    });
    format!(
        "grpcurl -plaintext {token}-d '{request}' {control} duelhub.v1.ControlService/PushEvent"
    )
}

async fn file(Extension(id): Extension<RequestId>, path: Option<Path<String>>) -> Response<Body> {
    let path = path.map_or_else(|| "index.html".to_owned(), |Path(path)| path);
    let Some((_, kind, text)) = FILES.iter().find(|(name, ..)| *name == path) else {
        return failure(&id, StatusCode::NOT_FOUND, "not_found", "There is no such file");
    };
    ([(header::CONTENT_TYPE, *kind), (header::CACHE_CONTROL, "no-store")], *text).into_response()
}

fn refused(id: &RequestId, status: &Status) -> ErrorResponse {
    let code = format!("{:?}", status.code());
    failure(id, StatusCode::BAD_GATEWAY, &code, status.message()).into()
}

type JsonAnswer = Result<Json<Value>, ErrorResponse>;
type GivenBody<T> = Result<Json<T>, JsonRejection>;

#[expect(
    clippy::result_large_err,
    reason = "the error is axum's own answer, and made once a request"
)]
fn read<T>(id: &RequestId, given: GivenBody<T>) -> Result<T, ErrorResponse> {
    let bad = |error: JsonRejection| {
        failure(id, StatusCode::BAD_REQUEST, CLIENT_ERROR, &error.body_text()).into()
    };
    given.map(|Json(value)| value).map_err(bad)
}

#[derive(Deserialize)]
struct TicketBody {
    duel_id: u64,
    user_id: u64,
}

#[derive(Deserialize)]
struct PushBody {
    duel_id: u64,
    #[serde(default, rename = "type")]
    event_type: String,
    payload: Value,
    #[serde(default)]
    views: Vec<ViewBody>,
}

#[derive(Deserialize)]
struct ViewBody {
    user_id: u64,
    payload: Value,
}

#[derive(Deserialize)]
struct CloseBody {
    duel_id: u64,
    status: String,
    payload: Option<Value>,
}

async fn open_duel(
    State(demo): State<Arc<Demo>>,
    Extension(id): Extension<RequestId>,
) -> JsonAnswer {
    // Random, so that a page does not find an earlier page's duel.
    let later = || u64::from(rand::random::<u32>()) + FIRST_DUEL + 1;
    let taken = demo.first_taken.swap(true, Ordering::Relaxed);
    let duel_id = if taken { later() } else { FIRST_DUEL };
    let participants = PLAYERS.map(|user_id| pb::Participant { user_id, telegram_id: 0 });
    let request = pb::OpenDuelRequest {
        duel_id,
        participants: participants.into(),
        settings: None,
        reopen: false,
    };
    demo.client.clone().open_duel(request).await.map_err(|status| refused(&id, &status))?;
    Ok(Json(json!({
        "duel_id": duel_id,
        "players": PLAYERS.map(|user_id| json!({"user_id": user_id})),
        "grpcurl": grpcurl_line(duel_id, demo.control, demo.token_needed),
    })))
}

async fn issue_ticket(
    State(demo): State<Arc<Demo>>,
    Extension(id): Extension<RequestId>,
    given: GivenBody<TicketBody>,
) -> JsonAnswer {
    let TicketBody { duel_id, user_id } = read(&id, given)?;
    let request = pb::IssueTicketRequest { duel_id, user_id, ..Default::default() };
    let issued = demo.client.clone().issue_ticket(request).await;
    let issued = issued.map_err(|status| refused(&id, &status))?.into_inner();
    Ok(Json(json!({"ticket": issued.ticket})))
}

async fn push(
    State(demo): State<Arc<Demo>>,
    Extension(id): Extension<RequestId>,
    given: GivenBody<PushBody>,
) -> JsonAnswer {
    let PushBody { duel_id, event_type, payload, views } = read(&id, given)?;
    let views = views.into_iter().map(|view| pb::View {
        user_id: view.user_id,
        payload_json: view.payload.to_string(),
        payload: None,
    });
    let request = pb::PushEventRequest {
        duel_id,
        r#type: event_type,
        payload_json: payload.to_string(),
        views: views.collect(),
        ..Default::default()
    };
    let started = Instant::now();
    let pushed = demo.client.clone().push_event(request).await;
    let pushed = pushed.map_err(|status| refused(&id, &status))?.into_inner();
    Ok(stored(pushed.position, pushed.connections, started))
}

async fn close(
    State(demo): State<Arc<Demo>>,
    Extension(id): Extension<RequestId>,
    given: GivenBody<CloseBody>,
) -> JsonAnswer {
    let CloseBody { duel_id, status, payload } = read(&id, given)?;
    let status = match status.as_str() {
        "cancelled" => pb::DuelStatus::Cancelled,
        _ => pb::DuelStatus::Finished,
    };
    let last_event = payload
        .map(|payload| pb::LastEvent { payload_json: payload.to_string(), ..Default::default() });
    let request = pb::CloseDuelRequest { duel_id, status: status.into(), last_event };
    let started = Instant::now();
    let closed = demo.client.clone().close_duel(request).await;
    let closed = closed.map_err(|status| refused(&id, &status))?.into_inner();
    Ok(stored(closed.position, closed.connections, started))
}

fn stored(position: Option<pb::Position>, connections: u32, started: Instant) -> Json<Value> {
    let position = position.unwrap_or_default();
    let duration_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    Json(json!({
        "position": {"epoch": position.epoch, "seq": position.seq},
        "connections": connections,
        "duration_us": duration_us,
    }))
}
