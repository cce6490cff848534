//! The sockets that have not shown a valid ticket yet. There is a bound on them, and no stranger can use it up: past it, the
//! one that has been idle for longest makes room for the next.
//!
//! A socket is idle while the hub waits for its peer: for a request, or for the answer to the close of a refused handshake.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// All of them.
#[derive(Debug)]
pub(super) struct PendingSockets {
    state: Mutex<State>,
    max: usize,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct State {
    count: usize,
    /// The idle ones, in the order in which they became so.
    idle: BTreeMap<u64, CancellationToken>,
    next: u64,
}

/// One of them. Dropped when it has shown a valid ticket, or is closed.
#[derive(Debug)]
pub(super) struct PendingSocket {
    sockets: Arc<PendingSockets>,
    idle_since: Mutex<Option<u64>>,
    evicted: CancellationToken,
}

impl PendingSockets {
    pub(super) fn new(max: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), max, metrics })
    }

    /// Adds a socket, which is idle. Past the bound, another one has to go. Returns `None` if none of them is idle.
    pub(super) fn add(self: &Arc<Self>) -> Option<PendingSocket> {
        let evicted = CancellationToken::new();
        let mut state = self.state.lock();
        if state.count >= self.max {
            // It goes as soon as its task runs.
            let (_, longest_idle) = state.idle.pop_first()?;
            longest_idle.cancel();
        }
        state.count += 1;
        let idle_since = Mutex::new(Some(state.note_idle(evicted.clone())));
        drop(state);
        self.metrics.pending_handshakes.inc();
        Some(PendingSocket { sockets: Arc::clone(self), idle_since, evicted })
    }
}

impl State {
    fn note_idle(&mut self, evicted: CancellationToken) -> u64 {
        self.next += 1;
        self.idle.insert(self.next, evicted);
        self.next
    }
}

impl PendingSocket {
    /// Completes when the socket has to make room. Cancel safe.
    pub(super) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }

    /// The hub has something to do for the socket.
    pub(super) fn set_busy(&self) {
        if let Some(since) = self.idle_since.lock().take() {
            self.sockets.state.lock().idle.remove(&since);
        }
    }

    /// The hub waits for the peer.
    pub(super) fn set_idle(&self) {
        let mut idle_since = self.idle_since.lock();
        if idle_since.is_none() {
            *idle_since = Some(self.sockets.state.lock().note_idle(self.evicted.clone()));
        }
    }
}

impl Drop for PendingSocket {
    fn drop(&mut self) {
        self.set_busy();
        self.sockets.state.lock().count -= 1;
        self.sockets.metrics.pending_handshakes.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_has_been_idle_for_longest_makes_room() {
        let sockets = PendingSockets::new(3, Arc::new(Metrics::new()));
        let [first, second, third] = [(); 3].map(|()| sockets.add().unwrap());
        first.set_busy();
        let fourth = sockets.add().unwrap();
        second.evicted().await;
        drop(second);
        first.set_idle();
        let fifth = sockets.add().unwrap();
        third.evicted().await;
        drop(third);
        for socket in [&first, &fourth, &fifth] {
            assert!(!socket.evicted.is_cancelled());
            socket.set_busy();
        }
        assert!(sockets.add().is_none(), "nobody waits for a peer");
        drop(first);
        let _fits = sockets.add().unwrap();
        assert!(!fourth.evicted.is_cancelled());
    }
}
