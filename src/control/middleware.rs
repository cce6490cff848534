//! The middleware of every call: what it must be like, authentication, a request id, its deadline, a log line, a count.
//!
//! Every call is counted and logged once, with the code that its caller receives: when its last trailers leave, or as
//! CANCELLED when its caller has gone before ([`super::call::Call`]). A call that changes something and has begun is done to
//! its end, although its deadline has passed or its caller has gone.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use subtle::ConstantTimeEq as _;
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::body::Body;
use tonic::codegen::http::{
    HeaderMap, HeaderValue, Method as HttpMethod, Request, Response, StatusCode, header,
};
use tonic::service::Routes;
use tower::Service as _;
use tracing::{Instrument as _, info_span};

use super::Control;
use super::answers::AnswerProgress;
use super::body::{RequestBody, ResponseBody};
use super::call::{Call, CallContext, Method, service_and_method};
use super::deadline;
use super::peer::Peer;
use super::status::Failure;
use crate::config::{ControlConfig, Secret};
use crate::id::RequestId;
use crate::metrics::Metrics;
use crate::pb::control_service_server::{ControlServiceServer, SERVICE_NAME};

/// The metadata that carries a call's id, both ways.
const X_REQUEST_ID: &str = "x-request-id";

/// The metadata that names the compression of the messages.
const GRPC_ENCODING: &str = "grpc-encoding";

/// What calls are admitted.
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

    /// Returns until when the call is waited for. `None`: without end.
    fn admit<B>(
        &self,
        request: &Request<B>,
        call: &mut Call,
        peer: &Peer,
    ) -> Result<Option<Instant>, Failure> {
        let headers = request.headers();
        if request.method() != HttpMethod::POST {
            return Err(Failure::HttpMethod);
        }
        if !headers.get(header::CONTENT_TYPE).is_some_and(is_grpc) {
            return Err(Failure::ContentType);
        }
        self.authorize(headers)?;
        if self.stop.is_cancelled() {
            return Err(Failure::ShuttingDown);
        }
        peer.admit_call()?;
        if call.method.lists {
            call.page = Some(peer.page()?);
        }
        if headers.get(GRPC_ENCODING).is_some_and(|encoding| encoding != "identity") {
            return Err(Failure::Compressed);
        }
        match deadline::timeout(headers)? {
            Some(timeout) if timeout.is_zero() => Err(call.deadline_exceeded()),
            // So far ahead that no clock reaches it: without end.
            Some(timeout) => Ok(Instant::now().checked_add(timeout)),
            None => Ok(None),
        }
    }

    fn authorize(&self, headers: &HeaderMap) -> Result<(), Failure> {
        let Some(token) = &self.token else { return Ok(()) };
        let given = headers.get(header::AUTHORIZATION).and_then(bearer_token).unwrap_or_default();
        match bool::from(given.ct_eq(token.as_bytes())) {
            true => Ok(()),
            false => Err(Failure::Unauthenticated),
        }
    }
}

/// gRPC over HTTP/2 names messages in protobuf so.
fn is_grpc(content_type: &HeaderValue) -> bool {
    let essence = content_type.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    let essence = essence.trim_ascii();
    [&b"application/grpc"[..], b"application/grpc+proto"]
        .iter()
        .any(|known| essence.eq_ignore_ascii_case(known))
}

/// The scheme's name has no case, and one space or more follow it (RFC 9110, section 11.4).
fn bearer_token(authorization: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = authorization.as_bytes().split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii_start())
}

/// Does what a call asks for.
type Serving = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// What a call does. Dropped after it has begun, it goes on by itself if it changes something.
struct Work {
    /// `None`: it is done.
    serving: Option<Serving>,
    changes: bool,
    context: CallContext,
}

impl Future for Work {
    type Output = Result<Response<Body>, Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(serving) = &mut self.serving else { return Poll::Pending };
        let polled = catch_unwind(AssertUnwindSafe(|| serving.as_mut().poll(cx)));
        let done = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(response)) => Ok(response),
            Err(panic) => {
                self.context.log_panic(&*panic);
                Err(Failure::Internal)
            }
        };
        self.serving = None;
        Poll::Ready(done)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if self.changes
            && self.context.has_begun()
            && let Some(serving) = self.serving.take()
            // At the end of the process there is none.
            && let Ok(runtime) = Handle::try_current()
        {
            drop(runtime.spawn(serving));
        }
    }
}

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

    /// Answers a call. `open` is held for as long as it is under way.
    pub(super) fn call(
        &self,
        request: Request<Incoming>,
        open: TaskTrackerToken,
        peer: &Arc<Peer>,
    ) -> impl Future<Output = Response<ResponseBody>> + Send + use<> {
        let mut call = self.begin(&request, open);
        let admitted = self.middleware.admit(&request, &mut call, peer);
        let admitted = admitted.map(|deadline| (self.work(request, &call, peer), deadline));
        let unsent = Arc::clone(&peer.unsent);
        async move {
            let id = call.context.id().clone();
            let (response, deadline) = match admitted {
                Ok((work, deadline)) => answer(work, deadline, &mut call).await,
                Err(refusal) => (refused(&mut call, refusal), None),
            };
            let progress = AnswerProgress::current();
            let mut response =
                response.map(|body| ResponseBody::new(body, call, deadline, unsent, progress));
            if let Ok(mut id) = HeaderValue::from_str(id.as_str()) {
                // Each id is used once, so it is kept out of the header table (RFC 7541, section 7.1.3).
                id.set_sensitive(true);
                response.headers_mut().insert(X_REQUEST_ID, id);
            }
            response
        }
    }

    fn begin(&self, request: &Request<Incoming>, open: TaskTrackerToken) -> Call {
        let given = request.headers().get(X_REQUEST_ID).and_then(|id| id.to_str().ok());
        let id = given.and_then(RequestId::adopt).unwrap_or_else(RequestId::random);
        let method = Method::of(request.uri().path());
        Call::begin(id, method, Arc::clone(&self.middleware.metrics), open)
    }

    fn work(&self, mut request: Request<Incoming>, call: &Call, peer: &Arc<Peer>) -> Work {
        let context = call.context.clone();
        // For log lines within the call. The call's own line has the id as a field.
        let span = info_span!("call", request_id = %context.id());
        request.extensions_mut().insert(context.clone());
        let (stop, of_body) = (self.middleware.stop.clone(), context.clone());
        let streams = call.method.streams;
        let request = request.map(|body| RequestBody::new(body, of_body, streams, peer, stop));
        let serving: Serving = if service_and_method(request.uri().path()).0 == SERVICE_NAME {
            Box::pin(infallible(self.control.clone().call(request)).instrument(span))
        } else {
            Box::pin(infallible(self.others.clone().call(request)).instrument(span))
        };
        Work { serving: Some(serving), changes: call.method.changes, context }
    }
}

async fn infallible<T>(serving: impl Future<Output = Result<T, Infallible>>) -> T {
    serving.await.unwrap_or_else(|never| match never {})
}

/// Waits for the answer, for no longer than until the deadline.
async fn answer(
    work: Work,
    deadline: Option<Instant>,
    call: &mut Call,
) -> (Response<Body>, Option<Pin<Box<Sleep>>>) {
    let mut deadline: Option<Pin<Box<Sleep>>> = deadline.map(|at| Box::pin(sleep_until(at)));
    let done = match &mut deadline {
        None => work.await,
        Some(deadline) => tokio::select! {
            biased;
            done = work => done,
            () = deadline => Err(call.deadline_exceeded()),
        },
    };
    // Only an error has its status in the head. A success has it in the trailers.
    let response = match done {
        Ok(response) => match call.observe(response.headers()) {
            Some(failure) => refused(call, failure),
            None => response,
        },
        Err(failure) => refused(call, failure),
    };
    (response, deadline)
}

/// Answers a call that fails.
fn refused(call: &mut Call, failure: Failure) -> Response<Body> {
    let (http, compressed) = (failure.http_status(), failure == Failure::Compressed);
    let status = call.fail(failure);
    if let Some(http) = http {
        return without_grpc(http, &status);
    }
    let mut response = status.into_http();
    if compressed {
        let accepted = HeaderValue::from_static("identity");
        response.headers_mut().insert("grpc-accept-encoding", accepted);
    }
    response
}

/// Answers what is no gRPC in words, so that no other client takes the answer for a success.
fn without_grpc(http: StatusCode, status: &tonic::Status) -> Response<Body> {
    let text = format!("{}\n", status.message());
    let mut response = Response::new(Body::new(http_body_util::Full::from(text)));
    *response.status_mut() = http;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if http == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
    }
    response
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    /// Work that answers once it is told to, and then says so.
    fn work(changes: bool) -> (Work, oneshot::Sender<()>, oneshot::Receiver<()>) {
        let ((go, told), (done, heard)) = (oneshot::channel::<()>(), oneshot::channel());
        let serving: Serving = Box::pin(async {
            told.await.expect("the test says so");
            done.send(()).expect("the test listens");
            Response::new(Body::empty())
        });
        let context = CallContext::new(RequestId::random(), None);
        (Work { serving: Some(serving), changes, context }, go, heard)
    }

    #[tokio::test]
    async fn a_change_that_has_begun_is_done_to_its_end_though_nobody_waits() {
        let (work, go, heard) = work(true);
        work.context.begin();
        drop(work);
        go.send(()).expect("it goes on");
        assert_eq!(heard.await, Ok(()));
    }

    #[tokio::test]
    async fn what_has_not_begun_or_changes_nothing_ends_when_nobody_waits() {
        for (changes, begun) in [(true, false), (false, true)] {
            let (work, go, heard) = work(changes);
            if begun {
                work.context.begin();
            }
            drop(work);
            assert!(go.send(()).is_err() && heard.await.is_err());
        }
    }

    #[tokio::test]
    async fn a_panic_fails_its_own_call() {
        let (work, go, heard) = work(true);
        drop(heard);
        go.send(()).expect("it waits");
        assert_eq!(work.await.map(drop), Err(Failure::Internal));
    }
}
