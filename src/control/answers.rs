//! Answers on their way to a backend that may not take them: its flow control decides how much it receives (RFC 9113,
//! section 5.2), and HTTP/2's library keeps the rest.
//!
//! A call whose answer is not taken is reset after [`crate::limits::GRPC_ANSWER_TIMEOUT`]; so a watcher that does not read gives
//! its slot back ([`CallExecutor`]). The last piece of an answer may stay with the library after the call is done, when there is
//! nothing left to reset. So pieces are also counted per connection ([`Unsent`]), and a connection that takes none is closed.

use std::fmt;
use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper::rt::Executor;
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep, interval, sleep_until};

tokio::task_local! {
    /// How far the answer of the call is that the task serves.
    static PROGRESS: Arc<AnswerProgress>;
}

/// How far the answer of a call is.
#[derive(Debug)]
pub(super) struct AnswerProgress {
    state: Mutex<ProgressState>,
    is_given_up: AtomicBool,
}

#[derive(Debug)]
struct ProgressState {
    /// Pieces that were handed over and not taken.
    pieces: usize,
    /// hyper has not asked for another piece since it was handed the last one.
    waits: bool,
    /// When a piece was taken, or the first one handed over.
    since: Instant,
}

impl AnswerProgress {
    fn new() -> Self {
        let state = ProgressState { pieces: 0, waits: false, since: Instant::now() };
        Self { state: Mutex::new(state), is_given_up: AtomicBool::new(false) }
    }

    /// Returns the progress of the call that the current task serves.
    pub(super) fn current() -> Option<Arc<Self>> {
        PROGRESS.try_with(Arc::clone).ok()
    }

    /// Notes that another piece is asked for.
    pub(super) fn ask(&self) {
        self.state.lock().waits = false;
    }

    fn hand(&self) {
        let mut state = self.state.lock();
        if state.pieces == 0 {
            state.since = Instant::now();
        }
        state.pieces += 1;
        state.waits = true;
    }

    fn take(&self) {
        let mut state = self.state.lock();
        state.pieces -= 1;
        state.since = Instant::now();
    }

    /// Returns whether the call was given up because its answer is not taken.
    pub(super) fn is_given_up(&self) -> bool {
        self.is_given_up.load(Ordering::Relaxed)
    }

    /// Returns when the call is stuck if nothing is taken until then, or `None` if nothing waits to be taken.
    fn stuck_at(&self, timeout: Duration) -> Option<Instant> {
        let state = self.state.lock();
        (state.pieces > 0 || state.waits).then(|| state.since + timeout)
    }

    /// Completes when nothing was taken during `timeout`.
    fn poll_stuck(
        &self,
        timer: &mut Option<Pin<Box<Sleep>>>,
        timeout: Duration,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let Some(until) = self.stuck_at(timeout) else { return Poll::Pending };
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        // Set again only when it has run down: most answers are taken long before.
        while timer.as_mut().poll(cx).is_ready() {
            if timer.deadline() >= until {
                return Poll::Ready(());
            }
            timer.as_mut().reset(until);
        }
        Poll::Pending
    }
}

/// Runs the calls of connections, each on its task. Drops one whose answer is not taken, which resets its stream.
#[derive(Debug, Clone)]
pub(super) struct CallExecutor {
    pub(super) answer_timeout: Duration,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for CallExecutor {
    fn execute(&self, call: F) {
        // Boxed, since a future that pins what it captured holds it twice.
        let call = until_ended_or_stuck(Box::pin(call), self.answer_timeout);
        drop(tokio::spawn(async {
            let _stuck = call.await;
        }));
    }
}

/// Runs what serves one call at a time: one call over HTTP/2, or a connection of HTTP/1.1. Returns `true`, before it has ended,
/// if nothing was taken of an answer during `timeout`. It has to be dropped then.
pub(super) async fn until_ended_or_stuck(
    mut serving: impl Future + Unpin,
    timeout: Duration,
) -> bool {
    let progress = Arc::new(AnswerProgress::new());
    let of_task = Arc::clone(&progress);
    let mut timer = None;
    let ended_or_stuck = poll_fn(move |cx| {
        if Pin::new(&mut serving).poll(cx).is_ready() {
            return Poll::Ready(false);
        }
        let stuck = progress.poll_stuck(&mut timer, timeout, cx);
        stuck.map(|()| {
            progress.is_given_up.store(true, Ordering::Relaxed);
            true
        })
    });
    PROGRESS.scope(of_task, ended_or_stuck).await
}

/// Periods that pieces are told apart by. The oldest ends where the next begins.
const PERIODS: usize = 3;

/// The pieces of answers that a connection has not taken.
#[derive(Debug)]
pub(super) struct Unsent {
    /// How many there are, by the period in which they were made.
    pieces: [AtomicUsize; PERIODS],
    period: AtomicUsize,
    bytes: AtomicUsize,
    of_all: Arc<AtomicUsize>,
}

impl Unsent {
    pub(super) fn new(of_all: Arc<AtomicUsize>) -> Self {
        let (pieces, period) = (Default::default(), AtomicUsize::new(0));
        Self { pieces, period, bytes: AtomicUsize::new(0), of_all }
    }

    /// Returns the bytes of the connection, and of all connections.
    pub(super) fn bytes(&self) -> (usize, usize) {
        (self.bytes.load(Ordering::Relaxed), self.of_all.load(Ordering::Relaxed))
    }

    /// Waits until a piece was not taken for twice `timeout`, or up to thrice. By then its call was reset, if it still ran.
    pub(super) async fn until_stuck(&self, timeout: Duration) {
        let mut ticks = interval(timeout);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let next = (self.period.load(Ordering::Relaxed) + 1) % PERIODS;
            if self.pieces[next].load(Ordering::Relaxed) > 0 {
                return;
            }
            self.period.store(next, Ordering::Relaxed);
        }
    }
}

/// A piece of an answer. Counted until the library has written it, or has dropped its stream.
pub(super) struct Piece {
    bytes: Bytes,
    length: usize,
    period: usize,
    of: Arc<Unsent>,
    progress: Option<Arc<AnswerProgress>>,
}

impl Piece {
    pub(super) fn new(
        bytes: Bytes,
        of: Arc<Unsent>,
        progress: Option<Arc<AnswerProgress>>,
    ) -> Self {
        let (length, period) = (bytes.len(), of.period.load(Ordering::Relaxed));
        if let Some(progress) = &progress {
            progress.hand();
        }
        of.pieces[period].fetch_add(1, Ordering::Relaxed);
        of.bytes.fetch_add(length, Ordering::Relaxed);
        of.of_all.fetch_add(length, Ordering::Relaxed);
        Self { bytes, length, period, of, progress }
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Piece").field("length", &self.length).finish_non_exhaustive()
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(progress) = &self.progress {
            progress.take();
        }
        self.of.pieces[self.period].fetch_sub(1, Ordering::Relaxed);
        self.of.bytes.fetch_sub(self.length, Ordering::Relaxed);
        self.of.of_all.fetch_sub(self.length, Ordering::Relaxed);
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        self.bytes.chunks_vectored(into)
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        self.bytes.copy_to_bytes(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_piece_that_is_not_taken_is_noticed_and_those_that_are_taken_are_not() {
        let unsent = Arc::new(Unsent::new(Arc::default()));
        let timeout = Duration::from_millis(300);
        let busy = async {
            for _ in 0..10 {
                let _taken = Piece::new(Bytes::from_static(b"a"), Arc::clone(&unsent), None);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::select! {
            () = unsent.until_stuck(timeout) => panic!("each was taken in time"),
            () = busy => {}
        }
        let stuck = Piece::new(Bytes::from_static(b"abc"), Arc::clone(&unsent), None);
        let began = Instant::now();
        unsent.until_stuck(timeout).await;
        assert!(began.elapsed() >= 2 * timeout, "{:?}", began.elapsed());
        assert_eq!(unsent.bytes(), (3, 3));
        drop(stuck);
        assert_eq!(unsent.bytes(), (0, 0));
    }
}
