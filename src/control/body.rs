//! The bodies of a call: its request as it arrives, its answer as it leaves.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::HeaderMap;

use super::answers::{AnswerProgress, Piece, Unsent};
use super::call::{Call, CallContext};
use super::peer::Peer;
use super::receiving::Receiving;
use super::status::Failure;

/// What a caller sends. A stop does not wait for the rest of it, and nobody does for longer than
/// [`crate::limits::GRPC_MESSAGE_TIMEOUT`].
pub(super) struct RequestBody {
    incoming: Incoming,
    call: CallContext,
    /// Between the messages of a stream there may be any time.
    streams: bool,
    receiving: Receiving,
    message_timeout: Duration,
    /// Made when there is something to wait for.
    deadline: Option<Pin<Box<Sleep>>>,
    stop: CancellationToken,
    /// Made when there is something to wait for.
    stopped: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl RequestBody {
    pub(super) fn new(
        incoming: Incoming,
        call: CallContext,
        streams: bool,
        peer: &Arc<Peer>,
        stop: CancellationToken,
    ) -> Self {
        let (receiving, message_timeout) =
            (Receiving::new(Arc::clone(peer)), peer.patience().message);
        let (deadline, stopped) = (None, None);
        Self { incoming, call, streams, receiving, message_timeout, deadline, stop, stopped }
    }

    fn take(&mut self, frame: &Frame<Bytes>) -> Result<(), Status> {
        let taken = frame.data_ref().map_or(Ok(false), |bytes| self.receiving.take(bytes));
        let completes = taken.map_err(|failure| self.call.fail(failure))?;
        // Who had sent more by then was not waited for: the hub did not read, because of its engine or of answers not taken.
        let is_overdue = |deadline: &Pin<Box<Sleep>>| deadline.deadline() <= Instant::now();
        if self.streams && completes || self.deadline.as_ref().is_some_and(is_overdue) {
            self.deadline = None;
        }
        Ok(())
    }

    /// Completes when nothing more is waited for.
    fn poll_given_up(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        let stop = || Box::pin(self.stop.clone().cancelled_owned());
        let stopped = self.stopped.get_or_insert_with(stop);
        if stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Failure::ShuttingDown);
        }
        if self.streams && !self.receiving.is_under_way() {
            return Poll::Pending;
        }
        let timeout = self.message_timeout;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(timeout)));
        deadline.as_mut().poll(cx).map(|()| Failure::RequestIncomplete)
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(this.take(&frame).map(|()| frame))),
            Poll::Ready(None) if this.incoming.is_end_stream() => Poll::Ready(None),
            // The caller has gone in the middle of it. The connection notices that, too, and drops the call.
            Poll::Ready(_) => Poll::Pending,
            Poll::Pending => {
                let failure = ready!(this.poll_given_up(cx));
                Poll::Ready(Some(Err(this.call.fail(failure))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// What a caller receives. It holds its call, which so ends with it, and keeps its deadline.
pub(super) struct ResponseBody {
    inner: Body,
    /// `None`: it has been answered.
    call: Option<Call>,
    deadline: Option<Pin<Box<Sleep>>>,
    unsent: Arc<Unsent>,
    progress: Option<Arc<AnswerProgress>>,
}

impl ResponseBody {
    pub(super) const fn new(
        inner: Body,
        call: Call,
        deadline: Option<Pin<Box<Sleep>>>,
        unsent: Arc<Unsent>,
        progress: Option<Arc<AnswerProgress>>,
    ) -> Self {
        Self { inner, call: Some(call), deadline, unsent, progress }
    }

    /// Ends the answer with the trailers of a call whose deadline has passed.
    fn cut(&mut self) -> Option<Frame<Piece>> {
        let mut call = self.call.take()?;
        self.inner = Body::empty();
        let mut trailers = HeaderMap::new();
        let failure = call.deadline_exceeded();
        // The status is the hub's own, and its headers are valid.
        call.fail(failure).add_header(&mut trailers).ok()?;
        Some(Frame::trailers(trailers))
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Some(call) = &mut self.call
            && self.progress.as_ref().is_some_and(|progress| progress.is_given_up())
        {
            call.give_up();
        }
    }
}

impl HttpBody for ResponseBody {
    type Data = Piece;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, Status>>> {
        let this = &mut *self;
        if let Some(progress) = &this.progress {
            progress.ask();
        }
        if let Some(deadline) = &mut this.deadline
            && this.call.is_some()
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(this.cut().map(Ok));
        }
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(cx));
        // Counted before the caller can see that it is answered.
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
            && let Some(mut call) = this.call.take()
        {
            let _told_by_the_services = call.observe(trailers);
        }
        let piece = |bytes| Piece::new(bytes, Arc::clone(&this.unsent), this.progress.clone());
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
