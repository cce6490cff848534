//! The bodies of a call: its request as it arrives, its answer as it leaves.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::HeaderMap;

use super::call::{Call, CallContext};
use super::status::Failure;

/// What a caller sends. A stop does not wait for the rest of it.
pub(super) struct RequestBody {
    incoming: Incoming,
    call: CallContext,
    stop: CancellationToken,
    /// Made when there is something to wait for.
    stopped: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl RequestBody {
    pub(super) const fn new(
        incoming: Incoming,
        call: CallContext,
        stop: CancellationToken,
    ) -> Self {
        Self { incoming, call, stop, stopped: None }
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
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(Ok(frame))),
            Poll::Ready(None) if this.incoming.is_end_stream() => Poll::Ready(None),
            // The caller has gone in the middle of it. The connection notices that, too, and drops the call.
            Poll::Ready(_) => Poll::Pending,
            Poll::Pending => {
                let stopped = this
                    .stopped
                    .get_or_insert_with(|| Box::pin(this.stop.clone().cancelled_owned()));
                ready!(stopped.as_mut().poll(cx));
                Poll::Ready(Some(Err(this.call.fail(Failure::ShuttingDown))))
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
}

impl ResponseBody {
    pub(super) const fn new(inner: Body, call: Call, deadline: Option<Pin<Box<Sleep>>>) -> Self {
        Self { inner, call: Some(call), deadline }
    }

    /// Ends the answer with the trailers of a call whose deadline has passed.
    fn cut(&mut self) -> Option<Frame<Bytes>> {
        let mut call = self.call.take()?;
        self.inner = Body::empty();
        let mut trailers = HeaderMap::new();
        let failure = call.deadline_exceeded();
        // The status is the hub's own, and its headers are valid.
        call.fail(failure).add_header(&mut trailers).ok()?;
        Some(Frame::trailers(trailers))
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
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
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
