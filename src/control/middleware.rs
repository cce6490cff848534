//! The middleware of every call: its protocol, authentication, a request id, its deadline, a log line, a count.
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
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response, Version, header};
use tonic::service::Routes;
use tower::Service as _;
use tracing::{Instrument as _, info_span};

use super::Control;
use super::answers::AnswerProgress;
use super::body::{ArrivingBody, BodyForm, RequestBody, ResponseBody, Undelivered};
use super::call::{Call, CallContext, Method, service_and_method};
use super::connect::{self, Fault, StreamEncoder};
use super::deadline;
use super::peer::Peer;
use super::protocol::{ConnectCall, Protocol};
use super::request_fault::RequestFault;
use super::schema::Schema;
use super::status::Failure;
use crate::config::{ControlConfig, Secret};
use crate::id::RequestId;
use crate::metrics::Metrics;
use crate::pb::control_service_server::{ControlServiceServer, SERVICE_NAME};

/// The metadata that carries a call's id, both ways.
const X_REQUEST_ID: &str = "x-request-id";

/// The version of the Connect protocol, which clients may say.
const CONNECT_VERSION: &str = "connect-protocol-version";

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
    fn admit(
        &self,
        protocol: &Protocol,
        request: &Request<Incoming>,
        call: &mut Call,
        peer: &Arc<Peer>,
    ) -> Result<Option<Instant>, Failure> {
        let headers = request.headers();
        self.authorize(headers)?;
        if self.stop.is_cancelled() {
            return Err(Failure::ShuttingDown);
        }
        call.admitted = Some(peer.admit_call(request.version())?);
        if call.method.lists {
            call.page = Some(peer.page()?);
        }
        if headers.get(protocol.compression()).is_some_and(|encoding| encoding != "identity") {
            return Err(RequestFault::Compressed.into());
        }
        let timeout = if let Protocol::Grpc = protocol {
            deadline::grpc(headers)?
        } else {
            if headers.get(CONNECT_VERSION).is_some_and(|version| version != "1") {
                return Err(Failure::field(CONNECT_VERSION, "must be 1, or unset"));
            }
            deadline::connect(headers)?
        };
        match timeout {
            Some(timeout) if timeout.is_zero() => Err(call.deadline_exceeded()),
            // So far ahead that no clock reaches it: without end.
            Some(timeout) => Ok(Instant::now().checked_add(timeout)),
            None => Ok(None),
        }
    }

    fn authorize(&self, headers: &HeaderMap) -> Result<(), Failure> {
        let Some(token) = &self.token else {
            // A page whose host name was made to lead here (DNS rebinding) could call what listens on loopback.
            let is_page = headers.contains_key(header::ORIGIN);
            return if is_page { Err(RequestFault::Browser.into()) } else { Ok(()) };
        };
        if token.is_shown_by(headers) { Ok(()) } else { Err(Failure::Unauthenticated) }
    }
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

/// The services behind the middleware.
#[derive(Debug, Clone)]
pub(super) struct Services {
    pub(super) control: ControlServiceServer<Arc<Control>>,
    pub(super) others: Routes,
}

impl Services {
    /// Does what a call asks for, by gRPC.
    async fn call(mut self, request: Request<RequestBody>) -> Response<Body> {
        let answer = if service_and_method(request.uri().path()).0 == SERVICE_NAME {
            self.control.call(request).await
        } else {
            self.others.call(request).await
        };
        answer.unwrap_or_else(|never: Infallible| match never {})
    }

    /// Does what a call asks for, by Connect. An error is the status that the answer holds.
    async fn call_by_connect(
        self,
        call: ConnectCall,
        request: Request<RequestBody>,
        context: CallContext,
    ) -> Response<Body> {
        let answer = async {
            let request = connect::request(&call, request).await?;
            connect::response(&call, self.call(request).await).await
        };
        answer.await.unwrap_or_else(|fault| {
            let status = match fault {
                Fault::Failure(failure) => context.fail(failure),
                Fault::Status(status) => status,
            };
            let mut response = Response::default();
            response.extensions_mut().insert(status);
            response
        })
    }
}

/// Passes every call through [`CallMiddleware`], then to its service.
#[derive(Debug, Clone)]
pub(super) struct CallService {
    middleware: Arc<CallMiddleware>,
    schema: Schema,
    services: Services,
}

impl CallService {
    pub(super) const fn new(
        middleware: Arc<CallMiddleware>,
        schema: Schema,
        services: Services,
    ) -> Self {
        Self { middleware, schema, services }
    }

    /// Answers a call. `open` is held for as long as it is under way.
    pub(super) fn call(
        &self,
        request: Request<Incoming>,
        open: TaskTrackerToken,
        peer: &Arc<Peer>,
    ) -> impl Future<Output = Response<ResponseBody>> + Send + use<> {
        let is_http1 = request.version() < Version::HTTP_2;
        let mut call = self.begin(&request, open);
        let protocol = self.schema.protocol(&request).map_err(Failure::from);
        let admitted = protocol.clone().and_then(|protocol| {
            let deadline = self.middleware.admit(&protocol, &request, &mut call, peer)?;
            if let Protocol::Connect(call) = &protocol
                && call.method.is_client_streaming()
            {
                return Err(RequestFault::StreamOfRequests.into());
            }
            // The services tell what call of theirs there is not.
            if call.method == Method::OTHER && self.schema.method(request.uri().path()).is_none() {
                return Err(RequestFault::UnknownMethod.into());
            }
            Ok((protocol, deadline))
        });
        let admitted = match admitted {
            Ok((protocol, deadline)) => Ok((self.work(request, protocol, &call, peer), deadline)),
            Err(refusal) => Err((refusal, Undelivered::of(request))),
        };
        let answering = Answering { protocol: protocol.ok(), schema: self.schema.clone() };
        let (unsent, patience) = (Arc::clone(&peer.unsent), peer.patience());
        async move {
            let id = call.context.id().clone();
            let (answer, must_close) = match admitted {
                Ok((work, deadline)) => {
                    let answer = answering.answer(work, deadline, &mut call).await;
                    let failure = call.context.failure().filter(|_| !call.context.has_begun());
                    (answer, failure.is_some_and(Failure::leaves_request_unread))
                }
                Err((refusal, undelivered)) => {
                    let is_read = undelivered.drain(patience.message).await;
                    (answering.refused(&mut call, refusal).into(), !is_read)
                }
            };
            let Answer { response, deadline, encoder } = answer;
            let sending = (unsent, AnswerProgress::current());
            let mut response =
                response.map(|body| ResponseBody::new(body, call, deadline, encoder, sending));
            if let Ok(mut id) = HeaderValue::from_str(id.as_str()) {
                // Each id is used once, so it is kept out of the header table (RFC 7541, section 7.1.3).
                id.set_sensitive(true);
                response.headers_mut().insert(X_REQUEST_ID, id);
            }
            if must_close && is_http1 {
                response
                    .headers_mut()
                    .insert(header::CONNECTION, HeaderValue::from_static("close"));
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

    fn work(
        &self,
        mut request: Request<Incoming>,
        protocol: Protocol,
        call: &Call,
        peer: &Arc<Peer>,
    ) -> Work {
        let context = call.context.clone();
        // For log lines within the call. The call's own line has the id as a field.
        let span = info_span!("call", request_id = %context.id());
        request.extensions_mut().insert(context.clone());
        let (stop, of_body) = (self.middleware.stop.clone(), context.clone());
        let form = BodyForm {
            streams: call.method.streams,
            is_framed: protocol.is_framed(),
            is_http1: request.version() < Version::HTTP_2,
        };
        let request = request
            .map(|body| RequestBody::Arriving(ArrivingBody::new(body, of_body, form, peer, stop)));
        let services = self.services.clone();
        let serving: Serving = match protocol {
            Protocol::Grpc => Box::pin(services.call(request).instrument(span)),
            Protocol::Connect(call) => {
                let context = context.clone();
                Box::pin(services.call_by_connect(call, request, context).instrument(span))
            }
        };
        Work { serving: Some(serving), changes: call.method.changes, context }
    }
}

/// The answer to a call.
struct Answer {
    response: Response<Body>,
    /// Until when it may go on, if it goes on.
    deadline: Option<Pin<Box<Sleep>>>,
    /// What turns it as it goes on.
    encoder: Option<StreamEncoder>,
}

impl From<Response<Body>> for Answer {
    /// An answer that is complete.
    fn from(response: Response<Body>) -> Self {
        Self { response, deadline: None, encoder: None }
    }
}

/// How a call is answered.
struct Answering {
    /// `None`: it speaks none.
    protocol: Option<Protocol>,
    schema: Schema,
}

impl Answering {
    const fn by_connect(&self) -> Option<&ConnectCall> {
        match &self.protocol {
            Some(Protocol::Connect(call)) => Some(call),
            Some(Protocol::Grpc) | None => None,
        }
    }

    /// Waits for the answer, for no longer than until the deadline.
    async fn answer(&self, work: Work, deadline: Option<Instant>, call: &mut Call) -> Answer {
        let mut deadline: Option<Pin<Box<Sleep>>> = deadline.map(|at| Box::pin(sleep_until(at)));
        let done = match &mut deadline {
            None => work.await,
            Some(deadline) => tokio::select! {
                biased;
                done = work => done,
                () = deadline => Err(call.deadline_exceeded()),
            },
        };
        let mut response = match done {
            Ok(response) => response,
            Err(failure) => return self.refused(call, failure).into(),
        };
        // Only an error has its status in the head. A success of gRPC has it in the trailers.
        let status = response.extensions_mut().remove::<Status>();
        let status = status.or_else(|| Status::from_header_map(response.headers()));
        if let Some(failure) = status.as_ref().and_then(|status| call.observe(status)) {
            return self.refused(call, failure).into();
        }
        let Some(by_connect) = self.by_connect() else {
            return Answer { response, deadline, encoder: None };
        };
        if let Some(status) = status {
            let failure = call.context.failure();
            connect::refusal(Some(by_connect), failure, &status, &self.schema).into()
        } else if by_connect.is_stream {
            let encoder = Some(StreamEncoder::new(by_connect, &self.schema));
            Answer { response, deadline, encoder }
        } else {
            call.succeed();
            response.into()
        }
    }

    /// Answers a call that fails.
    fn refused(&self, call: &mut Call, failure: Failure) -> Response<Body> {
        let compressed = failure == RequestFault::Compressed.into();
        let status = call.fail(failure);
        if !matches!(self.protocol, Some(Protocol::Grpc)) {
            let failure = call.context.failure();
            return connect::refusal(self.by_connect(), failure, &status, &self.schema);
        }
        let mut response = status.into_http();
        if compressed {
            let accepted = HeaderValue::from_static("identity");
            response.headers_mut().insert("grpc-accept-encoding", accepted);
        }
        response
    }
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
