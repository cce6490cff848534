//! The socket of a connection. Three writers share it: the task that owns the connection, the WebSocket library within that
//! task, and the direct writer ([`DirectWriter`]), which runs on the storing thread and in fan-out tasks.
//!
//! No frame is ever torn by another one: each writer gives whole frames, and what the socket does not take at once stays here,
//! ahead of everything that follows. One short lock guards it. No system call under it waits.
//!
//! Bound on what stays here: one write of the task or of the library, and one event.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use parking_lot::Mutex;
use rustix::net::{RecvFlags, SendFlags, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::protocol;
use super::rate::{Rate, Used};
use crate::event::Event;
use crate::hub::{Connection, DirectWriter, WriteOutcome};
use crate::limits;
use crate::metrics::Metrics;

const MINUTE: Duration = Duration::from_secs(60);

#[expect(clippy::cast_possible_truncation, reason = "asserted")]
const ORPHAN_TIMEOUT_MS: u32 = {
    let millis = limits::ORPHAN_TIMEOUT.as_millis();
    assert!(millis <= u32::MAX as u128);
    millis as u32
};

/// The kind of the error with which a client is read no further that sends too much.
pub(super) const TOO_MANY_READS: io::ErrorKind = io::ErrorKind::QuotaExceeded;

/// A handle of the socket. Dropping the last one closes the socket.
#[derive(Debug, Clone)]
pub(super) struct SharedSocket {
    inner: Arc<Inner>,
    /// How far the rate of this handle's reads is used up. One handle is read from.
    reads: Used,
}

struct Inner {
    stream: TcpStream,
    /// Whole frames, of which the socket may have taken the beginning.
    unsent: Mutex<Bytes>,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedSocket").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl SharedSocket {
    pub(super) fn new(stream: TcpStream, metrics: Arc<Metrics>) -> Self {
        let inner = Arc::new(Inner { stream, unsent: Mutex::default(), metrics });
        Self { inner, reads: Used::none() }
    }

    pub(super) fn direct_writer(&self) -> Arc<dyn DirectWriter> {
        Arc::clone(&self.inner) as Arc<dyn DirectWriter>
    }

    /// Returns whether something is unsent. A flush sends it.
    pub(super) fn has_unsent(&self) -> bool {
        !self.inner.unsent.lock().is_empty()
    }

    /// Sends whole frames after what is unsent, as far as the socket takes them without waiting.
    pub(super) fn send(&self, frames: Bytes) -> io::Result<()> {
        let mut unsent = self.inner.unsent.lock();
        *unsent = match unsent.is_empty() {
            true => frames,
            // An event was written directly since the task last looked, and did not fit.
            false => [&unsent[..], &frames].concat().into(),
        };
        unless_blocked(self.inner.send_unsent(&mut unsent)).map(|_| ())
    }

    /// Sees to it that the kernel does not keep for long what the client has not acknowledged when the socket is closed now. If
    /// not even all of it fits into the kernel, it is forgotten at once: the client does not read.
    pub(super) fn end_without_peer(&self) {
        let stream = &self.inner.stream;
        // Neither fails on a socket that is connected; what it does to another one does not matter.
        let _set = sockopt::set_tcp_user_timeout(stream, ORPHAN_TIMEOUT_MS);
        if self.has_unsent() {
            let _set = sockopt::set_socket_linger(stream, Some(Duration::ZERO));
        }
    }

    fn poll_unsent(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while unless_blocked(self.inner.send_unsent(&mut self.inner.unsent.lock()))?.is_none() {
            ready!(self.inner.stream.poll_write_ready(context))?;
        }
        Poll::Ready(Ok(()))
    }
}

impl Inner {
    fn send_unsent(&self, unsent: &mut Bytes) -> io::Result<()> {
        while !unsent.is_empty() {
            let sent = self.stream.try_write(unsent)?;
            unsent.advance(sent);
        }
        // Not the empty end of a frame, which would keep the frame in memory.
        *unsent = Bytes::new();
        Ok(())
    }

    /// Reads what the socket holds. If that does not fill the buffer, the socket is empty, and the runtime is told so: it
    /// waits for more without a second call.
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut read = None;
        let outcome = self.stream.try_io(Interest::READABLE, || {
            let count = rustix::net::recv(&self.stream, &mut *buffer, RecvFlags::DONTWAIT)?.0;
            read = Some(count);
            let emptied = (1..buffer.len()).contains(&count);
            if emptied { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        read.map_or_else(|| outcome.map(|()| 0), Ok)
    }
}

/// Returns `None` if the socket is not ready.
fn unless_blocked<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        result => result.map(Some),
    }
}

impl DirectWriter for Inner {
    fn try_write(&self, connection: &Connection, event: &Event) -> WriteOutcome {
        // After the end of the duel the task closes the connection.
        let Some(push) = event.push() else { return WriteOutcome::Busy };
        let Some(frame) = protocol::push_frame(push, event.seq, connection.viewer) else {
            return WriteOutcome::Written;
        };
        let mut unsent = self.unsent.lock();
        if !unsent.is_empty() {
            return WriteOutcome::Busy;
        }
        // Past the runtime's readiness, which costs one more cache line. The task sends what does not fit.
        let sent =
            rustix::net::send(&self.stream, frame, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        let Ok(sent) = sent else { return WriteOutcome::Busy };
        self.metrics.deliveries.inc();
        self.metrics.sent_bytes.inc_by(frame.len() as u64);
        if sent == frame.len() {
            return WriteOutcome::Written;
        }
        *unsent = frame.slice(sent..);
        WriteOutcome::Partial
    }
}

impl AsyncRead for SharedSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            ready!(this.inner.stream.poll_read_ready(context))?;
            let read = this.inner.try_read(buffer.initialize_unfilled());
            let Some(count) = unless_blocked(read)? else { continue };
            buffer.advance(count);
            let rate = Rate::per(MINUTE, limits::READS_PER_MINUTE_MAX);
            let allowed = rate.allows(&mut this.reads, Instant::now());
            return Poll::Ready(if allowed { Ok(()) } else { Err(TOO_MANY_READS.into()) });
        }
    }
}

/// The library's way in. It writes whole frames, and at most its `max_write_buffer_size`.
impl AsyncWrite for SharedSocket {
    /// Takes all of the bytes once nothing is unsent, so that no part of a frame stays in the library.
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        frames: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_unsent(context))?;
            let mut unsent = self.inner.unsent.lock();
            // Else an event was written directly meanwhile, and did not fit.
            if unsent.is_empty() {
                let sent = unless_blocked(self.inner.stream.try_write(frames))?.unwrap_or(0);
                *unsent = Bytes::copy_from_slice(&frames[sent..]);
                return Poll::Ready(Ok(frames.len()));
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_unsent(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unsent(context))?;
        let shut_down = rustix::net::shutdown(&self.inner.stream, rustix::net::Shutdown::Write);
        Poll::Ready(Ok(shut_down?))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// More than a socket takes at once.
    const LARGE: usize = 16 * 1024 * 1024;

    async fn connected() -> (SharedSocket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = (client.await.unwrap(), listener.accept().await.unwrap());
        (SharedSocket::new(accepted.0, Arc::new(Metrics::new())), client)
    }

    async fn receives(mut socket: SharedSocket, mut client: TcpStream, expected: Vec<u8>) {
        let mut received = vec![0; expected.len()];
        let (flushed, read) = tokio::join!(socket.flush(), client.read_exact(&mut received));
        flushed.unwrap();
        read.unwrap();
        assert!(received == expected, "frames arrive whole and in order");
        assert!(!socket.has_unsent());
    }

    #[tokio::test]
    async fn frames_that_do_not_fit_go_out_whole_and_in_order() {
        let (socket, client) = connected().await;
        let large = vec![1; LARGE];
        socket.send(large.clone().into()).unwrap();
        assert!(socket.has_unsent());
        [2, 3].iter().for_each(|byte| socket.send(vec![*byte; 5].into()).unwrap());
        receives(socket, client, [&large[..], &[2; 5], &[3; 5]].concat()).await;
    }

    #[tokio::test]
    async fn a_frame_of_the_library_is_not_torn_by_one_of_the_hub() {
        let (mut socket, client) = connected().await;
        let large = vec![1; LARGE];
        // As the library does: one write, and the rest of it later.
        let taken = socket.write(&large).await.unwrap();
        socket.send(vec![2; 5].into()).unwrap();
        let flush = async {
            let mut library = socket.clone();
            library.write_all(&large[taken..]).await.unwrap();
            socket
        };
        let expected = [&large[..], &[2; 5]].concat();
        let (socket, (received, client)) = tokio::join!(flush, async {
            let mut client = client;
            let mut received = vec![0; LARGE - taken];
            client.read_exact(&mut received).await.unwrap();
            (received, client)
        });
        receives(socket, client, expected[received.len()..].to_vec()).await;
        assert!(received == expected[..received.len()]);
    }
}
