//! The socket of a connection, written to from two sides: by the task that owns it, and, while that has nothing to send,
//! by whoever stores an event, or a task for it ([`Outlet`]).
//!
//! A frame is never cut by another one. The hub's frames are whole bytes, shared where many receive them, that go out at
//! once, or leave their rest here for the task; those of the WebSocket library (its answers to control frames, and the
//! close) pass through [`Line`]'s `AsyncWrite`, behind that rest. One short lock keeps both apart; no system
//! call under it waits.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use parking_lot::Mutex;
use rustix::net::{RecvFlags, SendFlags};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::protocol;
use crate::event::Event;
use crate::hub::{Connection, Handed, Outlet};
use crate::metrics::Metrics;

/// A handle of the socket; the last one closes it.
#[derive(Debug, Clone)]
pub(super) struct Line(Arc<Shared>);

struct Shared {
    stream: TcpStream,
    outgoing: Mutex<Outgoing>,
    metrics: Arc<Metrics>,
}

/// What has to be sent before anything else may be.
#[derive(Default)]
struct Outgoing {
    /// Of frames of the hub's that the socket did not take as a whole.
    rest: Bytes,
    /// The library has a frame of which the socket took a part.
    library_is_at_it: bool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl Line {
    pub(super) fn new(stream: TcpStream, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Shared { stream, outgoing: Mutex::default(), metrics }))
    }

    /// Through which whoever stores an event hands it over.
    pub(super) fn outlet(&self) -> Arc<dyn Outlet> {
        Arc::clone(&self.0) as Arc<dyn Outlet>
    }

    /// Whether a frame was begun that is not finished: by the library, or of the hub's own. The library's flush finishes both.
    pub(super) fn is_busy(&self) -> bool {
        let outgoing = self.0.outgoing.lock();
        outgoing.library_is_at_it || !outgoing.rest.is_empty()
    }

    /// Sends whole frames behind whatever was begun, as far as the socket takes them without waiting; then it is busy. Not to
    /// be called while the library has a frame of which the socket took a part.
    pub(super) fn begin(&self, frames: Bytes) -> io::Result<()> {
        let mut outgoing = self.0.outgoing.lock();
        debug_assert!(!outgoing.library_is_at_it, "what the library began is finished first");
        outgoing.rest = match outgoing.rest.is_empty() {
            true => frames,
            // An event was handed over since the task last looked, and did not fit.
            false => [&outgoing.rest[..], &frames].concat().into(),
        };
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

impl Outlet for Shared {
    fn hand(&self, connection: &Connection, event: &Event) -> Handed {
        let Some(push) = event.push() else {
            // The end of the duel: after it the connection ends, which is the task's to do.
            return Handed::Not;
        };
        let Some(frame) = protocol::pushed(push, event.seq, connection.viewer) else {
            return Handed::Whole;
        };
        let mut outgoing = self.outgoing.lock();
        if outgoing.library_is_at_it || !outgoing.rest.is_empty() {
            return Handed::Not;
        }
        // Not through the runtime's idea of the socket, which is one more thing to fetch; the task takes what does not fit.
        let sent =
            rustix::net::send(&self.stream, frame, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        let Ok(sent) = sent else { return Handed::Not };
        self.metrics.deliveries.inc();
        self.metrics.sent_bytes.inc_by(frame.len() as u64);
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
        let stream = &self.0.stream;
        loop {
            ready!(stream.poll_read_ready(context))?;
            let unfilled = buffer.initialize_unfilled();
            let mut read = None;
            let tried = stream.try_io(Interest::READABLE, || {
                let count = rustix::net::recv(stream, &mut *unfilled, RecvFlags::DONTWAIT)?.0;
                read = Some(count);
                // It took all that there was: what comes next is an event of its own, and needs no second call to find out.
                if (1..unfilled.len()).contains(&count) {
                    Err(io::ErrorKind::WouldBlock.into())
                } else {
                    Ok(())
                }
            });
            match (read, tried) {
                (Some(read), _) => {
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                (None, Err(error)) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Poll::Ready(Err(error));
                }
                (None, _) => {}
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn frames_that_do_not_fit_go_out_whole_and_in_order() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (mut client, accepted) = (client.await.unwrap(), listener.accept().await.unwrap());
        let mut line = Line::new(accepted.0, Arc::new(Metrics::new()));
        let large = vec![1; 16 * 1024 * 1024];
        line.begin(large.clone().into()).unwrap();
        assert!(line.is_busy(), "more than a socket takes");
        for byte in [2, 3] {
            line.begin(vec![byte; 5].into()).unwrap();
        }
        let mut received = vec![0; large.len() + 10];
        let (flushed, read) = tokio::join!(line.flush(), client.read_exact(&mut received));
        flushed.unwrap();
        read.unwrap();
        assert!(received == [&large[..], &[2; 5], &[3; 5]].concat());
        assert!(!line.is_busy());
    }
}
