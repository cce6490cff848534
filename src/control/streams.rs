//! The two streaming calls.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{FutureExt as _, Stream, StreamExt as _, future, stream};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::call::CallContext;
use super::status::Failure;
use super::subject::{Named as _, Subject};
use super::{Control, PushPermit, convert};
use crate::hub::{Change, Watch, WatchError};
use crate::id::DuelId;
use crate::limits;
use crate::pb;

/// The responses of `PushEvents`.
pub(super) type PushResponses =
    Pin<Box<dyn Stream<Item = Result<pb::PushEventsResponse, Status>> + Send>>;

/// The responses of `WatchDuels`.
pub(super) type WatchResponses =
    Pin<Box<dyn Stream<Item = Result<pb::WatchDuelsResponse, Status>> + Send>>;

/// Returns one response per push, in order. Pushes are started one by one, and up to [`limits::STREAM_PUSHES_MAX`] of them
/// wait for their outcomes together.
pub(super) fn push_responses(
    control: Arc<Control>,
    pushes: Streaming<pb::PushEventsRequest>,
    call: &CallContext,
) -> PushResponses {
    let stopping = control.stop.clone();
    let pushes = pushes.take_until(stopping.clone().cancelled_owned());
    let of_stream = call.clone();
    let responses = pushes.then(move |push| start(Arc::clone(&control), push, of_stream.clone()));
    let responses = responses.buffered(limits::STREAM_PUSHES_MAX);
    let call = call.clone();
    // The last response of a stream that a shutdown ended.
    let last = stream::once(async move {
        stopping.is_cancelled().then(|| Err(call.fail(Failure::ShuttingDown)))
    });
    Box::pin(responses.chain(last.filter_map(future::ready)))
}

/// Starts one push once there is room for it. A stream waits where a single call would be refused.
async fn start(
    control: Arc<Control>,
    push: Result<pb::PushEventsRequest, Status>,
    call: CallContext,
) -> Pin<Box<dyn Future<Output = Result<pb::PushEventsResponse, Status>> + Send>> {
    let push = match push {
        Ok(push) => push,
        Err(status) => return future::err(own_status(status, &call)).boxed(),
    };
    call.begin();
    let (tag, subject) = (push.tag, push.subject());
    let of_task = call.clone();
    let outcome = move |answer| Ok(outcome(tag, answer, subject, &call));
    let Ok(permit) = Arc::clone(&control.in_flight).acquire_owned().await else {
        return future::ready(outcome(Err(Failure::ShuttingDown))).boxed();
    };
    let mut stored = match start_push(&control, push, control.push_permit(permit)) {
        Ok(stored) => Box::pin(stored),
        Err(failure) => return future::ready(outcome(Err(failure))).boxed(),
    };
    if let Some(stored) = stored.as_mut().now_or_never() {
        return future::ready(outcome(stored)).boxed();
    }
    // On a task of its own, so that the permit is given back even if nobody reads the response.
    let ended = tokio::spawn(stored).map(move |ended| {
        ended.unwrap_or_else(|panic| {
            panic.try_into_panic().into_iter().for_each(|panic| of_task.log_panic(&*panic));
            Err(Failure::Internal)
        })
    });
    ended.map(outcome).boxed()
}

/// Turns a status of the library into one of the hub.
fn own_status(status: Status, call: &CallContext) -> Status {
    Failure::of_library(&status).map_or(status, |failure| call.fail(failure))
}

fn start_push(
    control: &Arc<Control>,
    push: pb::PushEventsRequest,
    permit: PushPermit,
) -> Result<impl Future<Output = Result<pb::PushEventResponse, Failure>> + use<>, Failure> {
    let push = push.push.ok_or_else(|| Failure::field("push", "is required"))?;
    control.start_push(push, permit)
}

fn outcome(
    tag: u64,
    answer: Result<pb::PushEventResponse, Failure>,
    subject: Subject,
    call: &CallContext,
) -> pb::PushEventsResponse {
    use pb::push_events_response::Outcome;
    let outcome = match answer {
        Ok(pushed) => Outcome::Pushed(pushed),
        Err(failure) => {
            call.log_refused_push(subject, &failure);
            Outcome::Error(failure.push_error())
        }
    };
    pb::PushEventsResponse { tag, outcome: Some(outcome) }
}

/// What a watch sends next.
enum Stage {
    /// The page of the state after a duel. So many duels were sent.
    State { after: Option<DuelId>, duels: u64 },
    /// Changes.
    Live,
    /// Nothing.
    Ended,
}

/// Returns the present state, then Synced, then changes, until the watcher leaves, is too slow, or the node stops.
pub(super) fn watch_responses(
    watch: Watch,
    stop: CancellationToken,
    call: CallContext,
) -> WatchResponses {
    let start = Stage::State { after: None, duels: 0 };
    let steps = stream::unfold((watch, stop, start), move |(mut watch, stop, stage)| {
        let call = call.clone();
        async move {
            let (sent, next) = match stage {
                Stage::State { after, duels } => state(&watch, after, duels).await,
                Stage::Live => live(&mut watch, &stop).await,
                Stage::Ended => return None,
            };
            let sent: Vec<_> = sent.into_iter().map(|s| s.map_err(|f| call.fail(f))).collect();
            Some((stream::iter(sent), (watch, stop, next)))
        }
    });
    Box::pin(steps.flatten())
}

type Sent = Vec<Result<pb::WatchDuelsResponse, Failure>>;

async fn state(watch: &Watch, after: Option<DuelId>, duels: u64) -> (Sent, Stage) {
    let (changes, count, next) = match watch.state(after).await {
        Ok(page) => page,
        Err(error) => return (vec![Err(error.into())], Stage::Ended),
    };
    let duels = duels + count;
    let mut sent: Sent = changes.into_iter().map(|change| Ok(convert::change(change))).collect();
    match next {
        Some(after) => (sent, Stage::State { after: Some(after), duels }),
        None => {
            sent.push(Ok(convert::synced(duels)));
            (sent, Stage::Live)
        }
    }
}

async fn live(watch: &mut Watch, stop: &CancellationToken) -> (Sent, Stage) {
    let next: Result<Change, WatchError> = tokio::select! {
        next = watch.next() => next,
        () = stop.cancelled() => return (vec![Err(Failure::ShuttingDown)], Stage::Ended),
    };
    match next {
        Ok(change) => (vec![Ok(convert::change(change))], Stage::Live),
        Err(error) => (vec![Err(error.into())], Stage::Ended),
    }
}
