//! Places for sockets, of which there are so many: past that, the socket that has been idle for longest gives its place to the
//! next.
//!
//! All listeners have places for peers that have proved nothing yet: the data plane, the control plane and [`crate::admin`]. So
//! whoever holds sockets open keeps nobody out who proves something before as many others have come. Backends that have proved who
//! they are have others. A socket is idle while the hub waits for its peer.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use tokio_util::sync::CancellationToken;

/// So many places.
#[derive(Debug)]
pub struct Places {
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
pub struct Place {
    of: Arc<Places>,
    /// `None`: it is busy.
    idle_since: Mutex<Option<u64>>,
    crowded_out: CancellationToken,
}

impl Places {
    /// Creates `count_max` places. `gauge` shows how many are taken.
    #[must_use]
    pub fn new(count_max: usize, gauge: Gauge) -> Arc<Self> {
        Arc::new(Self { count_max, state: Mutex::default(), gauge })
    }

    /// Takes a place, idle. If there is none, the one that has been idle for longest has to go. Returns `None` if none is idle.
    pub fn enter(self: &Arc<Self>) -> Option<Place> {
        self.enter_from(CancellationToken::new())
    }

    /// Does what [`Places::enter`] does for a socket that had another place, whose token tells it when it has to go.
    pub fn enter_from(self: &Arc<Self>, crowded_out: CancellationToken) -> Option<Place> {
        let mut state = self.state.lock();
        if state.count >= self.count_max {
            // It goes as soon as its task runs.
            let (_, longest_idle) = state.idle.pop_first()?;
            longest_idle.cancel();
        }
        state.count += 1;
        let idle_since = Mutex::new(Some(state.note_idle(crowded_out.clone())));
        self.gauge.inc();
        Some(Place { of: Arc::clone(self), idle_since, crowded_out })
    }
}

impl State {
    fn note_idle(&mut self, crowded_out: CancellationToken) -> u64 {
        self.next += 1;
        self.idle.insert(self.next, crowded_out);
        self.next
    }
}

impl Place {
    /// Returns the token that is cancelled when the socket has to go, which then must be at once.
    #[must_use]
    pub fn crowded_out(&self) -> CancellationToken {
        self.crowded_out.clone()
    }

    /// The hub has something to do for the peer. Returns whether the socket may stay until it is idle again: not if it has to
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

impl Drop for Place {
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
        let newcomers = Places::new(3, Gauge::default());
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
