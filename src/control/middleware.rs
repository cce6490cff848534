//! The middleware of every call: authentication, a request id, a log line, a count.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use subtle::ConstantTimeEq as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response, header};
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::Service;
use tracing::{Instrument as _, debug, info, info_span};

use super::Control;
use super::status::Failure;
use crate::config::{ControlConfig, Secret};
use crate::id::RequestId;
use crate::metrics::{Metrics, RpcLabels};
use crate::pb::control_service_server::{ControlServiceServer, SERVICE_NAME};

/// The metadata that carries a call's id, both ways.
const X_REQUEST_ID: &str = "x-request-id";

#[derive(Debug)]
pub(super) struct CallMiddleware {
    token: Option<Secret>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

impl CallMiddleware {
    pub(super) fn new(
        config: &ControlConfig,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self { token: config.token.clone(), metrics, stop })
    }

    fn authorize(&self, headers: &HeaderMap) -> Result<(), Failure> {
        if let Some(token) = &self.token {
            let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
            let given = given.and_then(|value| value.strip_prefix(b"Bearer ")).unwrap_or_default();
            if !bool::from(given.ct_eq(token.as_bytes())) {
                return Err(Failure::Unauthenticated);
            }
        }
        if self.stop.is_cancelled() {
            return Err(Failure::ShuttingDown);
        }
        Ok(())
    }

    fn finish(&self, call: &Call, code: Code) {
        let (method, name) = (call.method, code_name(code));
        self.metrics.rpcs.get_or_create(&RpcLabels { method, code: name }).inc();
        let elapsed = call.started_at.elapsed();
        let duration_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        // A line for each push or health check would drown the others.
        let frequent = ["PushEvent", "health", "reflection"].contains(&method);
        if code == Code::Ok && frequent {
            debug!(request_id = %call.id, method, code = name, duration_us, "call");
        } else {
            info!(request_id = %call.id, method, code = name, duration_us, "call");
        }
    }
}

/// A call in flight.
struct Call {
    id: RequestId,
    method: &'static str,
    started_at: Instant,
}

impl Call {
    fn of(request: &Request<Body>) -> Self {
        let given = request.headers().get(X_REQUEST_ID).and_then(|id| id.to_str().ok());
        Self {
            id: given.and_then(RequestId::adopt).unwrap_or_else(RequestId::random),
            method: method(request.uri().path()),
            started_at: Instant::now(),
        }
    }

    /// Returns the response as the caller sees it, and its code.
    fn answer(&self, response: Response<Body>) -> (Response<Body>, Code) {
        // Only an error has its status in the head. A success has it in the trailers.
        let Some(status) = Status::from_header_map(response.headers()) else {
            return (response, Code::Ok);
        };
        let own = Failure::of_library(&status);
        // The library also says so of a compression that it does not know.
        let own = own.filter(|own| *own != Failure::UnknownMethod || self.method == "other");
        match own.map(|failure| failure.status(&self.id)) {
            Some(own) => (own.clone().into_http(), own.code()),
            None => (response, status.code()),
        }
    }
}

type CallFuture = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// Passes every call through [`CallMiddleware`], then to the control service or to one of the others.
#[derive(Debug, Clone)]
pub(super) struct CallService {
    middleware: Arc<CallMiddleware>,
    control: ControlServiceServer<Arc<Control>>,
    others: Routes,
}

impl CallService {
    pub(super) const fn new(
        middleware: Arc<CallMiddleware>,
        control: ControlServiceServer<Arc<Control>>,
        others: Routes,
    ) -> Self {
        Self { middleware, control, others }
    }

    fn forward(&mut self, request: Request<Body>) -> CallFuture {
        if service_and_method(request.uri().path()).0 == SERVICE_NAME {
            self.control.call(request)
        } else {
            Box::pin(self.others.call(request))
        }
    }
}

impl Service<Request<Body>> for CallService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = CallFuture;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The services behind it are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> CallFuture {
        let (middleware, call) = (Arc::clone(&self.middleware), Call::of(&request));
        let answer = match middleware.authorize(request.headers()) {
            Ok(()) => {
                request.extensions_mut().insert(call.id.clone());
                Ok(self.forward(request))
            }
            Err(failure) => Err(failure.status(&call.id).into_http()),
        };
        Box::pin(async move {
            // For log lines within the call. The call's own line has the id as a field.
            let span = info_span!("call", request_id = %call.id);
            let response = match answer {
                Ok(answer) => answer.instrument(span).await?,
                Err(refusal) => refusal,
            };
            let (mut response, code) = call.answer(response);
            middleware.finish(&call, code);
            if let Ok(mut id) = HeaderValue::from_str(call.id.as_str()) {
                // Each id is used once, so it is kept out of the header table (RFC 7541, section 7.1.3).
                id.set_sensitive(true);
                response.headers_mut().insert(X_REQUEST_ID, id);
            }
            Ok(response)
        })
    }
}

/// Returns the method's name out of a fixed set, so that no caller can create time series.
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
    match service_and_method(path) {
        (SERVICE_NAME, name) => KNOWN.into_iter().find(|known| *known == name).unwrap_or("other"),
        ("grpc.health.v1.Health", _) => "health",
        (service, _) if service.starts_with("grpc.reflection.") => "reflection",
        _ => "other",
    }
}

/// Splits a path like `/service/method`. Returns an empty service if it has another form.
fn service_and_method(path: &str) -> (&str, &str) {
    path.strip_prefix('/').and_then(|path| path.split_once('/')).unwrap_or_default()
}

/// Returns the code's name as gRPC's documentation writes it.
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
