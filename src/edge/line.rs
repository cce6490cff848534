//! The socket of a connection, written to from two sides: by the task that owns it, and, while that has nothing to send,
//! by whoever stores an event ([`Outlet`]).
//!
//! A frame is never cut by another one. Frames of events are shared bytes that go out whole, or leave their rest here for
//! the task; the WebSocket library's own frames (answers, `connected`, close) pass through [`Line`]'s `AsyncWrite`, behind
//! that rest. One short lock keeps both apart; under it one system call is made, which does not wait.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::protocol;
use crate::event::{Content, Event};
use crate::hub::{Connection, Handed, Outlet};
use crate::metrics::Metrics;

/// A handle of the socket; the last one closes it.
#[derive(Clone)]
pub(super) struct Line(Arc<Shared>);

struct Shared {
    stream: TcpStream,
    outgoing: Mutex<Outgoing>,
    metrics: Arc<Metrics>,
}

/// What has to be sent before anything else may be.
#[derive(Default)]
struct Outgoing {
    /// Of a frame of an event that the socket did not take as a whole.
    rest: Bytes,
    /// The library has a frame of which the socket took a part.
    library_is_at_it: bool,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("stream", &self.0.stream).finish_non_exhaustive()
    }
}

impl Line {
    pub(super) fn new(stream: TcpStream, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Shared { stream, outgoing: Mutex::default(), metrics }))
    }

    /// Whether a frame was begun that is not finished: by the library, or of an event. The library's flush finishes both.
    pub(super) fn is_busy(&self) -> bool {
        let outgoing = self.0.outgoing.lock();
        outgoing.library_is_at_it || !outgoing.rest.is_empty()
    }

    /// Sends frames of events, as far as the socket takes them without waiting; then it may be busy. To be called by the task
    /// alone, while it is not, and nobody hands events over.
    pub(super) fn begin(&self, frames: Bytes) -> io::Result<()> {
        let mut outgoing = self.0.outgoing.lock();
        debug_assert!(outgoing.rest.is_empty(), "what was begun is finished first");
        outgoing.rest = frames;
        match outgoing.send_rest(&self.0.stream) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            sent => sent,
        }
    }

    fn poll_rest(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.0.outgoing.lock().send_rest(&self.0.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
            ready!(self.0.stream.poll_write_ready(context))?;
        }
    }

    /// Ends the sending direction.
    fn shut_down(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(&self.0.stream, rustix::net::Shutdown::Write)?)
    }
}

impl Outgoing {
    fn send_rest(&mut self, stream: &TcpStream) -> io::Result<()> {
        while !self.rest.is_empty() {
            let sent = stream.try_write(&self.rest)?;
            self.rest.advance(sent);
        }
        // Not the empty end of a frame, which would keep it.
        self.rest = Bytes::new();
        Ok(())
    }
}

impl Outlet for Line {
    fn hand(&self, connection: &Connection, event: &Event) -> Handed {
        if matches!(event.content, Content::Closed(_)) {
            // After it the connection ends, which is the task's to do.
            return Handed::Not;
        }
        let Some(frame) = protocol::event(connection.duel, event, connection.viewer) else {
            return Handed::Whole;
        };
        let mut outgoing = self.0.outgoing.lock();
        if outgoing.library_is_at_it || !outgoing.rest.is_empty() {
            return Handed::Not;
        }
        let Ok(sent) = self.0.stream.try_write(&frame) else { return Handed::Not };
        self.0.metrics.deliveries.inc();
        self.0.metrics.sent_bytes.inc_by(frame.len() as u64);
        if sent == frame.len() {
            return Handed::Whole;
        }
        outgoing.rest = frame.slice(sent..);
        Handed::Partly
    }
}

impl AsyncRead for Line {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.stream.poll_read_ready(context))?;
            match self.0.stream.try_read(buffer.initialize_unfilled()) {
                Ok(read) => {
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            {
                let mut outgoing = self.0.outgoing.lock();
                let sent = outgoing.send_rest(&self.0.stream);
                match sent.and_then(|()| self.0.stream.try_write(bytes)) {
                    Ok(sent) => {
                        // The library writes whole frames, and goes on with what was not taken.
                        outgoing.library_is_at_it = sent < bytes.len();
                        return Poll::Ready(Ok(sent));
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            ready!(self.0.stream.poll_write_ready(context))?;
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_rest(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_rest(context))?;
        Poll::Ready(self.shut_down())
    }
}
