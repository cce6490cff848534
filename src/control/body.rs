//! The bodies of a call: its request as it arrives, its answer as it leaves.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Request, Version, header};

use super::answers::{AnswerProgress, Piece, Unsent};
use super::call::{Call, CallContext};
use super::connect::StreamEncoder;
use super::peer::Peer;
use super::receiving::Receiving;
use super::request_fault::RequestFault;
use super::status::Failure;
use crate::limits;

/// What a caller sends.
pub(super) enum RequestBody {
    /// As it comes.
    Arriving(ArrivingBody),
    /// All of it. `None`: it was taken.
    Read(Option<Bytes>),
}

/// How a caller sends.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyForm {
    /// It is messages, and not one.
    pub(super) streams: bool,
    /// Each has the frame of gRPC.
    pub(super) is_framed: bool,
    pub(super) is_http1: bool,
}

/// What comes of a caller. A stop does not wait for the rest of it, and nobody does for longer than
/// [`limits::GRPC_MESSAGE_TIMEOUT`].
pub(super) struct ArrivingBody {
    incoming: Incoming,
    is_http1: bool,
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

impl ArrivingBody {
    pub(super) fn new(
        incoming: Incoming,
        call: CallContext,
        BodyForm { streams, is_framed, is_http1 }: BodyForm,
        peer: &Arc<Peer>,
        stop: CancellationToken,
    ) -> Self {
        let (receiving, message_timeout) =
            (Receiving::new(Arc::clone(peer), is_framed), peer.patience().message);
        let (deadline, stopped) = (None, None);
        Self {
            incoming,
            is_http1,
            call,
            streams,
            receiving,
            message_timeout,
            deadline,
            stop,
            stopped,
        }
    }

    /// Returns whether there is nothing more. Where it ends only when it says so (chunks), HTTP/1.1 reports a caller who has gone as
    /// an error.
    fn has_ended(&self) -> bool {
        self.is_http1 || self.incoming.is_end_stream()
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
        deadline.as_mut().poll(cx).map(|()| RequestFault::Incomplete.into())
    }
}

/// What may still come of a refused request. Over HTTP/1.1 the connection is closed if it is not read, and a caller who still sends
/// does not come to read the answer (RFC 9112, section 9.6).
pub(super) enum Undelivered {
    /// Nothing, or nothing that matters.
    Nothing,
    /// A body whose caller waits for leave to send it, and may send it without.
    Announced,
    Body(Incoming),
}

impl Undelivered {
    pub(super) fn of(refused: Request<Incoming>) -> Self {
        if refused.version() >= Version::HTTP_2 || refused.body().is_end_stream() {
            Self::Nothing
        } else if refused.headers().contains_key(header::EXPECT) {
            Self::Announced
        } else {
            Self::Body(refused.into_body())
        }
    }

    /// Reads it, within bounds, and keeps nothing. Returns whether there is nothing more.
    pub(super) async fn drain(self, timeout: Duration) -> bool {
        let mut body = match self {
            Self::Nothing => return true,
            Self::Announced => return false,
            Self::Body(body) => body,
        };
        let reading = async {
            let mut bytes = 0;
            while let Some(Ok(frame)) = body.frame().await {
                bytes += frame.data_ref().map_or(0, Bytes::len);
                if bytes > limits::GRPC_MESSAGE_BYTES_MAX {
                    return false;
                }
            }
            true
        };
        tokio::time::timeout(timeout, reading).await.unwrap_or(false)
    }
}

impl ArrivingBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(self.take(&frame).map(|()| frame))),
            Poll::Ready(None) if self.has_ended() => Poll::Ready(None),
            // The caller has gone in the middle of it. The connection notices that, too, and drops the call.
            Poll::Ready(_) => Poll::Pending,
            Poll::Pending => {
                let failure = ready!(self.poll_given_up(cx));
                Poll::Ready(Some(Err(self.call.fail(failure))))
            }
        }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match &mut *self {
            Self::Arriving(arriving) => arriving.poll_frame(cx),
            Self::Read(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Arriving(arriving) => arriving.incoming.is_end_stream(),
            Self::Read(bytes) => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Arriving(arriving) => arriving.incoming.size_hint(),
            Self::Read(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
        }
    }
}

/// What a caller receives. It holds its call, which so ends with it, and keeps its deadline.
pub(super) struct ResponseBody {
    inner: Body,
    /// `None`: it has been answered.
    call: Option<Call>,
    /// `None`: it is answered whole, or without end.
    deadline: Option<Pin<Box<Sleep>>>,
    /// What turns it into another protocol.
    encoder: Option<StreamEncoder>,
    unsent: Arc<Unsent>,
    progress: Option<Arc<AnswerProgress>>,
}

impl ResponseBody {
    pub(super) fn new(
        inner: Body,
        call: Call,
        deadline: Option<Pin<Box<Sleep>>>,
        encoder: Option<StreamEncoder>,
        (unsent, progress): (Arc<Unsent>, Option<Arc<AnswerProgress>>),
    ) -> Self {
        Self { inner, call: Some(call), deadline, encoder, unsent, progress }
    }

    /// Returns the trailers that end the answer of a call that fails after its beginning.
    fn cut(&mut self, failure: impl FnOnce(&Call) -> Failure) -> Option<Frame<Bytes>> {
        let mut call = self.call.take()?;
        self.inner = Body::empty();
        let mut trailers = HeaderMap::new();
        let failure = failure(&call);
        // The status is the hub's own, and its headers are valid.
        call.fail(failure).add_header(&mut trailers).ok()?;
        Some(Frame::trailers(trailers))
    }

    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(deadline) = &mut self.deadline
            && self.call.is_some()
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(self.cut(Call::deadline_exceeded).map(Ok));
        }
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        // Counted before the caller can see that it is answered.
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
            && let Some(mut call) = self.call.take()
            && let Some(status) = Status::from_header_map(trailers)
        {
            let _told_by_the_services = call.observe(&status);
        }
        Poll::Ready(frame)
    }

    /// Turns a piece of the services' answer into the caller's protocol.
    fn encode(&mut self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        let Some(encoder) = &self.encoder else { return Some(frame) };
        let trailers = match frame.into_data() {
            Ok(messages) => match encoder.messages(messages) {
                Ok(messages) => return Some(Frame::data(messages)),
                Err(failure) => self.cut(|_| failure)?.into_trailers().ok()?,
            },
            Err(trailers) => trailers.into_trailers().ok()?,
        };
        let end = self.encoder.take().map(|encoder| encoder.end(&trailers));
        end.map(Frame::data)
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Some(progress) = &self.progress {
            progress.ask();
            if let Some(call) = &mut self.call
                && progress.is_given_up()
            {
                call.give_up();
            }
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
        let frame = match ready!(this.poll_inner(cx)) {
            Some(Ok(frame)) => this.encode(frame).map(Ok),
            other => other,
        };
        let piece = |bytes| Piece::new(bytes, Arc::clone(&this.unsent), this.progress.clone());
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream() && self.encoder.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.encoder {
            None => self.inner.size_hint(),
            Some(_) => SizeHint::default(),
        }
    }
}
