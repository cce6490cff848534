//! One call: what is known of it, its line in the log, its place in the counts.

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::{Code, Status};
use tracing::{debug, error, info};

use super::peer::{OpenCall, PagePermit};
use super::status::Failure;
use super::subject::{Named, Subject};
use crate::id::RequestId;
use crate::metrics::{KindLabel, Metrics, RpcLabels};
use crate::pb::control_service_server::SERVICE_NAME;

/// A method out of a fixed set, so that no caller can create time series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Method {
    pub(super) name: &'static str,
    /// Whether a call may change something.
    pub(super) changes: bool,
    /// Whether its request is a stream of messages, which may pause between them.
    pub(super) streams: bool,
    /// Whether its answer is a page of a list.
    pub(super) lists: bool,
    /// Whether a line for each call that succeeds would drown the others.
    frequent: bool,
}

impl Method {
    const HEALTH: Self = Self { frequent: true, ..Self::reads("health") };
    pub(super) const OTHER: Self = Self::reads("other");
    const REFLECTION: Self = Self { frequent: true, streams: true, ..Self::reads("reflection") };
    pub(super) const WATCH: Self = Self::reads("WatchDuels");
    const OF_CONTROL: [Self; 11] = [
        Self::changes("OpenDuel"),
        Self::reads("IssueTicket"),
        Self::changes("RevokeTickets"),
        Self { frequent: true, ..Self::changes("PushEvent") },
        Self { streams: true, ..Self::changes("PushEvents") },
        Self::changes("CloseDuel"),
        Self::reads("GetDuel"),
        Self { lists: true, ..Self::reads("ListDuels") },
        Self::changes("Disconnect"),
        Self::WATCH,
        Self::reads("GetNode"),
    ];

    const fn reads(name: &'static str) -> Self {
        Self { name, changes: false, streams: false, lists: false, frequent: false }
    }

    const fn changes(name: &'static str) -> Self {
        Self { changes: true, ..Self::reads(name) }
    }

    pub(super) fn of(path: &str) -> Self {
        match service_and_method(path) {
            (SERVICE_NAME, name) => {
                let known = Self::OF_CONTROL.into_iter().find(|known| known.name == name);
                known.unwrap_or(Self::OTHER)
            }
            ("grpc.health.v1.Health", _) => Self::HEALTH,
            (service, _) if service.starts_with("grpc.reflection.") => Self::REFLECTION,
            _ => Self::OTHER,
        }
    }
}

/// Splits a path like `/service/method`. Returns an empty service if it has another form.
pub(super) fn service_and_method(path: &str) -> (&str, &str) {
    path.strip_prefix('/').and_then(|path| path.split_once('/')).unwrap_or_default()
}

/// What the parts of the control plane know of a call. The services find it in the request's extensions.
#[derive(Debug, Clone)]
pub(super) struct CallContext(Arc<Known>);

#[derive(Debug)]
struct Known {
    id: RequestId,
    /// `None`: nothing is counted.
    metrics: Option<Arc<Metrics>>,
    /// Its request, or one of a stream's, was read: what it asks for may have been done.
    has_begun: AtomicBool,
    subject: OnceLock<Subject>,
    /// Why the call fails.
    failure: OnceLock<Failure>,
}

impl CallContext {
    pub(super) fn new(id: RequestId, metrics: Option<Arc<Metrics>>) -> Self {
        Self(Arc::new(Known {
            id,
            metrics,
            has_begun: AtomicBool::new(false),
            subject: OnceLock::new(),
            failure: OnceLock::new(),
        }))
    }

    pub(super) fn id(&self) -> &RequestId {
        &self.0.id
    }

    /// Notes that a request was read.
    pub(super) fn begin(&self) {
        self.0.has_begun.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_begun(&self) -> bool {
        self.0.has_begun.load(Ordering::Relaxed)
    }

    /// Notes what the call is about.
    pub(super) fn concerns(&self, request: &impl Named) {
        let _known = self.0.subject.set(request.subject());
    }

    /// Notes why the call fails, and returns the status that its caller receives.
    pub(super) fn fail(&self, failure: Failure) -> Status {
        let status = failure.status(self.id());
        self.count_limit(&failure);
        let _known = self.0.failure.set(failure);
        status
    }

    /// Returns why the call fails.
    pub(super) fn failure(&self) -> Option<&Failure> {
        self.0.failure.get()
    }

    /// Counts a limit that is reached.
    fn count_limit(&self, failure: &Failure) {
        if let Some(kind) = failure.limit()
            && let Some(metrics) = &self.0.metrics
        {
            metrics.limits_reached.get_or_create(&KindLabel { kind }).inc();
        }
    }

    /// Logs that one push of a stream was refused, and counts the limit that was the reason.
    pub(super) fn log_refused_push(&self, Subject { duel_id, .. }: Subject, failure: &Failure) {
        self.count_limit(failure);
        let (reason, field, limit) = (failure.reason(), failure.field_at_fault(), failure.limit());
        info!(request_id = %self.id(), duel_id, reason, field, limit, "push refused");
    }

    /// Logs a fault of the hub, with what the code says of it.
    pub(super) fn log_panic(&self, panic: &(dyn Any + Send)) {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        error!(request_id = %self.id(), text, "a call panicked");
    }
}

/// A call under way. Dropping it counts it and logs it: as cancelled, unless it was answered before.
pub(super) struct Call {
    pub(super) context: CallContext,
    pub(super) method: Method,
    started_at: Instant,
    metrics: Arc<Metrics>,
    /// Its answer, as far as it has one.
    code: Code,
    /// Room for its answer, if that is a page.
    pub(super) page: Option<PagePermit>,
    /// `None`: it was not admitted.
    pub(super) admitted: Option<OpenCall>,
    /// Its connection is kept open for it.
    _open: TaskTrackerToken,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("context", &self.context).finish_non_exhaustive()
    }
}

impl Call {
    pub(super) fn begin(
        id: RequestId,
        method: Method,
        metrics: Arc<Metrics>,
        open: TaskTrackerToken,
    ) -> Self {
        let context = CallContext::new(id, Some(Arc::clone(&metrics)));
        let (started_at, code) = (Instant::now(), Code::Cancelled);
        Self { context, method, started_at, metrics, code, page: None, admitted: None, _open: open }
    }

    /// Returns the status of a call that fails.
    pub(super) fn fail(&mut self, failure: Failure) -> Status {
        let status = self.context.fail(failure);
        self.code = status.code();
        status
    }

    /// Notes that its answer is not taken.
    pub(super) fn give_up(&mut self) {
        self.fail(Failure::AnswerNotTaken);
        if self.method == Method::WATCH {
            self.metrics.watchers_too_slow.inc();
        }
    }

    /// Returns the failure of a call whose deadline has passed.
    pub(super) fn deadline_exceeded(&self) -> Failure {
        let may_have_taken_effect = self.method.changes && self.context.has_begun();
        Failure::DeadlineExceeded { may_have_taken_effect }
    }

    /// Takes the status of an answer. Returns the failure that the library states there in its own words.
    pub(super) fn observe(&mut self, status: &Status) -> Option<Failure> {
        self.code = status.code();
        // Services that are not the hub's own have words of their own.
        (self.method != Method::OTHER).then(|| Failure::of_library(status))?
    }

    /// Notes that it was answered.
    pub(super) const fn succeed(&mut self) {
        self.code = Code::Ok;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let (method, code) = (self.method.name, code_name(self.code));
        self.metrics.rpcs.get_or_create(&RpcLabels { method, code }).inc();
        let elapsed = self.started_at.elapsed();
        let duration_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let known = &*self.context.0;
        let request_id = &known.id;
        let Subject { duel_id, user_id } = known.subject.get().copied().unwrap_or_default();
        let failure = known.failure.get();
        let reason = failure.map(Failure::reason);
        let (field, limit) =
            (failure.and_then(Failure::field_at_fault), failure.and_then(Failure::limit));
        macro_rules! line {
            ($level:ident) => {
                $level!(%request_id, method, code, duration_us, duel_id, user_id, reason, field, limit, "call")
            };
        }
        if self.code == Code::Internal {
            line!(error);
        } else if self.code == Code::Ok && self.method.frequent {
            line!(debug);
        } else {
            line!(info);
        }
    }
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

#[cfg(test)]
mod tests {
    use std::io::{self, Write};

    use parking_lot::Mutex;
    use tokio_util::task::TaskTracker;

    use super::*;

    /// Lines of the log, kept.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_fault_of_the_hub_is_an_error_in_the_log_under_the_request_id_that_its_caller_has() {
        let (kept, metrics) = (Kept::default(), Arc::new(Metrics::new()));
        let writer = kept.clone();
        let log = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(log, || {
            let method = Method::of("/duelhub.v1.ControlService/PushEvent");
            let id = RequestId::adopt("my-own").unwrap();
            let mut call = Call::begin(id, method, metrics, TaskTracker::new().token());
            call.context.log_panic(&"what the code says");
            let status = call.fail(Failure::Internal);
            assert_eq!(status.message(), "an error of the hub; its log has more");
        });
        let lines = String::from_utf8(kept.0.lock().clone()).unwrap();
        let lines: Vec<serde_json::Value> =
            lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [panic, call] = &*lines else { panic!("{lines:?}") };
        assert_eq!(panic["fields"]["text"], "what the code says");
        assert_eq!(call["fields"]["reason"], "INTERNAL");
        for line in [panic, call] {
            assert_eq!(
                (&line["level"], &line["fields"]["request_id"]),
                (&"ERROR".into(), &"my-own".into())
            );
        }
    }
}
