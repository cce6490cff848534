//! Sockets of peers that have proved nothing yet. They have few places, and the oldest one gives its place to the next.
//!
//! So a stranger who holds sockets open keeps nobody out: whoever comes gets in, and has until as many others have come.
//! Used by the listeners of the control plane and of [`crate::admin`]. Bound: as many places as [`Newcomers::new`] is given.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The places of one listener.
#[derive(Debug)]
pub struct Newcomers {
    count_max: usize,
    list: Mutex<PlaceList>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct PlaceList {
    /// The oldest first.
    places: VecDeque<(u64, CancellationToken)>,
    next: u64,
}

/// One place. Dropping it gives it back.
#[derive(Debug)]
pub struct Newcomer {
    of: Arc<Newcomers>,
    number: u64,
    crowded_out: CancellationToken,
}

impl Newcomers {
    /// Creates `count_max` places, at least 1.
    #[must_use]
    pub fn new(count_max: usize) -> Arc<Self> {
        Arc::new(Self { count_max, list: Mutex::default(), freed: Notify::new() })
    }

    /// Takes a place. If there is none, tells the oldest newcomer to go, and waits until a place is free. Called by one task
    /// at a time. Cancel safe.
    pub async fn enter(self: &Arc<Self>) -> Newcomer {
        loop {
            if let Some(newcomer) = self.try_enter() {
                return newcomer;
            }
            self.freed.notified().await;
        }
    }

    fn try_enter(self: &Arc<Self>) -> Option<Newcomer> {
        let mut list = self.list.lock();
        if list.places.len() >= self.count_max {
            list.places.front()?.1.cancel();
            return None;
        }
        let (number, crowded_out) = (list.next, CancellationToken::new());
        list.next += 1;
        list.places.push_back((number, crowded_out.clone()));
        Some(Newcomer { of: Arc::clone(self), number, crowded_out })
    }
}

impl Newcomer {
    /// Returns the token that is cancelled when the newcomer has to go, which then must be at once.
    #[must_use]
    pub fn crowded_out(&self) -> CancellationToken {
        self.crowded_out.clone()
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        self.of.list.lock().places.retain(|(number, _)| *number != self.number);
        self.of.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn the_oldest_gives_its_place_to_the_next() {
        let newcomers = Newcomers::new(2);
        let first = newcomers.enter().await;
        let second = newcomers.enter().await;
        let mut third = Box::pin(newcomers.enter());
        assert!(third.as_mut().now_or_never().is_none(), "it waits for the place");
        assert!(first.crowded_out().is_cancelled() && !second.crowded_out().is_cancelled());
        drop(first);
        let third = third.await;
        assert!(!second.crowded_out().is_cancelled() && !third.crowded_out().is_cancelled());
        drop(second);
        assert!(newcomers.enter().now_or_never().is_some());
        assert!(!third.crowded_out().is_cancelled());
    }
}
