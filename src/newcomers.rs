//! Sockets of peers that have proved nothing yet. There is a bound on them, and past it the one that has been idle for longest
//! gives its place to the next.
//!
//! So whoever holds sockets open keeps nobody out who proves something before as many others have come. A socket is idle while
//! the hub waits for its peer. Used by all listeners: the data plane, the control plane and [`crate::admin`].

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use tokio_util::sync::CancellationToken;

/// The places of one listener.
#[derive(Debug)]
pub struct Newcomers {
    count_max: usize,
    state: Mutex<State>,
    gauge: Gauge,
}

#[derive(Debug, Default)]
struct State {
    count: usize,
    /// The idle ones, in the order in which they became so.
    idle: BTreeMap<u64, CancellationToken>,
    next: u64,
}

/// One place. Dropping it gives it back.
#[derive(Debug)]
pub struct Newcomer {
    of: Arc<Newcomers>,
    /// `None`: it is busy.
    idle_since: Mutex<Option<u64>>,
    crowded_out: CancellationToken,
}

impl Newcomers {
    /// Creates `count_max` places. `gauge` shows how many are taken.
    #[must_use]
    pub fn new(count_max: usize, gauge: Gauge) -> Arc<Self> {
        Arc::new(Self { count_max, state: Mutex::default(), gauge })
    }

    /// Takes a place, idle. If there is none, the one that has been idle for longest has to go. Returns `None` if none is idle.
    pub fn enter(self: &Arc<Self>) -> Option<Newcomer> {
        let crowded_out = CancellationToken::new();
        let mut state = self.state.lock();
        if state.count >= self.count_max {
            // It goes as soon as its task runs.
            let (_, longest_idle) = state.idle.pop_first()?;
            longest_idle.cancel();
        }
        state.count += 1;
        let idle_since = Mutex::new(Some(state.note_idle(crowded_out.clone())));
        self.gauge.inc();
        Some(Newcomer { of: Arc::clone(self), idle_since, crowded_out })
    }
}

impl State {
    fn note_idle(&mut self, crowded_out: CancellationToken) -> u64 {
        self.next += 1;
        self.idle.insert(self.next, crowded_out);
        self.next
    }
}

impl Newcomer {
    /// Returns the token that is cancelled when the newcomer has to go, which then must be at once.
    #[must_use]
    pub fn crowded_out(&self) -> CancellationToken {
        self.crowded_out.clone()
    }

    /// The hub has something to do for the peer. Returns whether the newcomer may stay until it is idle again: not if it has to
    /// go.
    pub fn set_busy(&self) -> bool {
        let mut state = self.of.state.lock();
        let idle_since = self.idle_since.lock().take();
        idle_since.is_none_or(|since| state.idle.remove(&since).is_some())
    }

    /// The hub waits for the peer.
    pub fn set_idle(&self) {
        let mut state = self.of.state.lock();
        let mut idle_since = self.idle_since.lock();
        if idle_since.is_none() {
            *idle_since = Some(state.note_idle(self.crowded_out.clone()));
        }
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        self.set_busy();
        self.of.state.lock().count -= 1;
        self.of.gauge.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_has_been_idle_for_longest_makes_room() {
        let newcomers = Newcomers::new(3, Gauge::default());
        let [first, second, third] = [(); 3].map(|()| newcomers.enter().unwrap());
        assert!(first.set_busy());
        let fourth = newcomers.enter().unwrap();
        second.crowded_out().cancelled().await;
        assert!(!second.set_busy(), "too late");
        drop(second);
        first.set_idle();
        let fifth = newcomers.enter().unwrap();
        third.crowded_out().cancelled().await;
        drop(third);
        for newcomer in [&first, &fourth, &fifth] {
            assert!(newcomer.set_busy());
        }
        assert!(newcomers.enter().is_none(), "nobody waits for a peer");
        drop(first);
        let _fits = newcomers.enter().unwrap();
        assert!(!fourth.crowded_out().is_cancelled());
        assert_eq!(newcomers.gauge.get(), 3);
    }
}
