//! What every call passes first: authentication, a request id, a log line, a count.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Response, header};
use axum::middleware::{Next, from_fn_with_state};
use subtle::ConstantTimeEq as _;
use tokio::time::Instant;
use tonic::service::Routes;
use tonic::{Code, Status};
use tracing::{Instrument as _, debug, info, info_span};

use super::status::Failure;
use crate::config::{ControlConfig, Secret};
use crate::hub::Hub;
use crate::id::RequestId;
use crate::metrics::{Metrics, Rpc};

/// The metadata that carries a call's id, both ways.
const X_REQUEST_ID: &str = "x-request-id";

#[derive(Debug, Clone)]
pub(super) struct Calls {
    token: Option<Secret>,
    metrics: Arc<Metrics>,
    hub: Arc<Hub>,
}

impl Calls {
    pub(super) fn new(config: &ControlConfig, metrics: Arc<Metrics>, hub: Arc<Hub>) -> Self {
        Self { token: config.token.clone(), metrics, hub }
    }

    pub(super) fn around(self, routes: Routes) -> Routes {
        routes.into_axum_router().layer(from_fn_with_state(self, pass)).into()
    }

    fn admit(&self, headers: &HeaderMap) -> Result<(), Failure> {
        if let Some(token) = &self.token {
            let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
            let given = given.and_then(|value| value.strip_prefix(b"Bearer ")).unwrap_or_default();
            if !bool::from(given.ct_eq(token.as_bytes())) {
                return Err(Failure::Unauthenticated);
            }
        }
        if self.hub.readiness().is_stopping() {
            return Err(Failure::ShuttingDown);
        }
        Ok(())
    }

    fn finish(&self, id: &RequestId, path: &str, code: Code, started_at: Instant) {
        let name = code_name(code);
        self.metrics.rpcs.get_or_create(&Rpc { method: method(path), code: name }).inc();
        let duration_us = u64::try_from(started_at.elapsed().as_micros()).unwrap_or(u64::MAX);
        // A line for each of thousands of pushes a second, or for each look at the health, would drown the others.
        let frequent = ["PushEvent", "health", "reflection"].contains(&method(path));
        if code == Code::Ok && frequent {
            debug!(request_id = %id, method = method(path), code = name, duration_us, "call");
        } else {
            info!(request_id = %id, method = method(path), code = name, duration_us, "call");
        }
    }
}

async fn pass(State(calls): State<Calls>, mut request: Request, next: Next) -> Response<Body> {
    let given = request.headers().get(X_REQUEST_ID).and_then(|id| id.to_str().ok());
    let id = given.and_then(RequestId::adopt).unwrap_or_else(RequestId::random);
    let path = request.uri().path().to_owned();
    // For the lines that others write about the call; its own line carries the id as a field of its own.
    let span = info_span!("call", request_id = %id);
    let started_at = Instant::now();
    let mut response = match calls.admit(request.headers()) {
        Ok(()) => {
            request.extensions_mut().insert(id.clone());
            next.run(request).instrument(span).await
        }
        Err(failure) => failure.status(&id).into_http(),
    };
    // A status in the head is an error's; a success has its status in the trailers, after this.
    let mut code = Code::Ok;
    if let Some(status) = Status::from_header_map(response.headers()) {
        let own = Failure::of_library(&status);
        // A call that exists may be refused for how it is compressed; that is no unknown method.
        let own = own.filter(|own| *own != Failure::UnknownMethod || method(&path) == "other");
        let own = own.map(|failure| failure.status(&id));
        code = own.as_ref().unwrap_or(&status).code();
        if let Some(own) = own {
            response = own.into_http();
        }
    }
    calls.finish(&id, &path, code, started_at);
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(X_REQUEST_ID, id);
    }
    response
}

/// The method's name, out of a fixed set, so that no caller can make new series of metrics.
fn method(path: &str) -> &'static str {
    const KNOWN: [&str; 11] = [
        "OpenDuel",
        "IssueTicket",
        "RevokeTickets",
        "PushEvent",
        "PushEvents",
        "CloseDuel",
        "GetDuel",
        "ListDuels",
        "Disconnect",
        "WatchDuels",
        "GetNode",
    ];
    match path.rsplit_once('/') {
        Some(("/duelhub.v1.ControlService", name)) => {
            KNOWN.into_iter().find(|known| *known == name).unwrap_or("other")
        }
        Some(("/grpc.health.v1.Health", _)) => "health",
        Some((service, _)) if service.starts_with("/grpc.reflection.") => "reflection",
        _ => "other",
    }
}

/// The code as gRPC's documentation writes it.
const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
