//! Admission control: how many sockets there may be, and how fast they may come.
//!
//! Bounds, each with its variable: sockets without a valid ticket yet, connections in all, connections of one address,
//! handshakes per second. What exceeds one of them is refused with 429 or 503 and counted.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::client::Client;
use crate::config::EdgeConfig;
use crate::metrics::{KindLabel, Metrics, at_zero};

/// The limits of this node, and how much of each is used.
#[derive(Debug)]
pub(super) struct Admission {
    pending: Arc<Semaphore>,
    handshakes: Mutex<TokenBucket>,
    ticket_requests: Mutex<TokenBucket>,
    counts: Arc<ConnectionCounts>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct ConnectionCounts {
    connections: AtomicUsize,
    connections_max: usize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
    per_address_max: usize,
}

/// A socket that has not shown a valid ticket yet. Dropped when it has, or is closed.
#[derive(Debug)]
pub(super) struct PendingSocket {
    _permit: OwnedSemaphorePermit,
    metrics: Arc<Metrics>,
}

/// One of the connections that the limits allow. Dropped with the connection.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    counts: Arc<ConnectionCounts>,
    /// `None`: the address is not counted.
    address: Option<IpAddr>,
}

/// The limit that is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LimitReached {
    /// Too many handshakes a second.
    Rate,
    /// Too many connections in all.
    Full,
    /// Too many connections of this address.
    Address,
}

impl LimitReached {
    const LIMITS: [&str; 3] = [Self::Rate.limit(), Self::Full.limit(), Self::Address.limit()];

    /// Returns the variable that sets the limit.
    pub(super) const fn limit(self) -> &'static str {
        match self {
            Self::Rate => "WEBSOCKET_MAX_HANDSHAKES_PER_SECOND",
            Self::Full => "WEBSOCKET_MAX_CONNECTIONS",
            Self::Address => "WEBSOCKET_MAX_CONNECTIONS_PER_ADDRESS",
        }
    }
}

/// The variable that bounds the sockets without a valid ticket.
const PENDING: &str = "WEBSOCKET_MAX_PENDING_HANDSHAKES";

impl Admission {
    pub(super) fn new(config: &EdgeConfig, metrics: Arc<Metrics>) -> Self {
        at_zero(&metrics.limits_reached, [PENDING].into_iter().chain(LimitReached::LIMITS));
        Self {
            pending: Arc::new(Semaphore::new(config.pending_handshakes_max)),
            handshakes: Mutex::new(TokenBucket::new(config.handshakes_per_second_max)),
            ticket_requests: Mutex::new(TokenBucket::new(config.handshakes_per_second_max)),
            counts: Arc::new(ConnectionCounts {
                connections: AtomicUsize::new(0),
                connections_max: config.connections_max,
                by_address: Mutex::default(),
                per_address_max: config.connections_per_address_max,
            }),
            metrics,
        }
    }

    /// Admits a new socket. Returns `None` if there are too many without a ticket.
    pub(super) fn pending(&self) -> Option<PendingSocket> {
        let Ok(permit) = Arc::clone(&self.pending).try_acquire_owned() else {
            self.count(PENDING);
            return None;
        };
        self.metrics.pending_handshakes.inc();
        Some(PendingSocket { _permit: permit, metrics: Arc::clone(&self.metrics) })
    }

    /// Reserves a connection for a handshake from `client`.
    pub(super) fn reserve(&self, client: Client) -> Result<ConnectionSlot, LimitReached> {
        let reserved = if self.handshakes.lock().take(Instant::now()) {
            ConnectionCounts::reserve(&self.counts, client.counted())
        } else {
            Err(LimitReached::Rate)
        };
        if let Err(reached) = reserved {
            self.count(reached.limit());
        }
        reserved
    }

    /// Returns whether a request for a ticket is within the rate. The rate is that of handshakes, but counted apart, so that
    /// requests without a right to a ticket do not use up the handshakes of others.
    pub(super) fn allow_ticket_request(&self) -> bool {
        let allowed = self.ticket_requests.lock().take(Instant::now());
        if !allowed {
            self.count(LimitReached::Rate.limit());
        }
        allowed
    }

    fn count(&self, limit: &'static str) {
        self.metrics.limits_reached.get_or_create(&KindLabel { kind: limit }).inc();
    }
}

impl ConnectionCounts {
    fn reserve(this: &Arc<Self>, address: Option<IpAddr>) -> Result<ConnectionSlot, LimitReached> {
        if this.connections.fetch_add(1, Ordering::Relaxed) >= this.connections_max {
            this.connections.fetch_sub(1, Ordering::Relaxed);
            return Err(LimitReached::Full);
        }
        // From here on, dropping it gives everything back.
        let mut slot = ConnectionSlot { counts: Arc::clone(this), address: None };
        if let Some(address) = address {
            let mut by_address = this.by_address.lock();
            let count = by_address.entry(address).or_default();
            if *count >= this.per_address_max {
                return Err(LimitReached::Address);
            }
            *count += 1;
            slot.address = Some(address);
        }
        Ok(slot)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.counts.connections.fetch_sub(1, Ordering::Relaxed);
        let Some(address) = self.address else { return };
        let mut by_address = self.counts.by_address.lock();
        if let Some(count) = by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&address);
            }
        }
    }
}

impl Drop for PendingSocket {
    fn drop(&mut self) {
        self.metrics.pending_handshakes.dec();
    }
}

/// A token bucket that holds the tokens of one second. `governor` would add five crates to the build.
#[derive(Debug)]
struct TokenBucket {
    per_second: f64,
    tokens: f64,
    filled_at: Instant,
}

impl TokenBucket {
    fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second);
        Self { per_second, tokens: per_second, filled_at: Instant::now() }
    }

    fn take(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + elapsed * self.per_second).min(self.per_second);
        self.filled_at = now;
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bucket_gives_its_rate_and_one_second_of_burst() {
        let mut bucket = TokenBucket::new(10);
        let start = bucket.filled_at;
        let taken = |bucket: &mut TokenBucket, at| (0..100).filter(|_| bucket.take(at)).count();
        assert_eq!(taken(&mut bucket, start), 10);
        assert_eq!(taken(&mut bucket, start + Duration::from_millis(550)), 5);
        assert_eq!(taken(&mut bucket, start + Duration::from_secs(60)), 10);
    }

    #[test]
    fn a_place_given_back_is_free_again() {
        let counts = Arc::new(ConnectionCounts {
            connections: AtomicUsize::new(0),
            connections_max: 3,
            by_address: Mutex::default(),
            per_address_max: 2,
        });
        let [one, two] =
            ["2001:db8::1", "2001:db8::2"].map(|ip| Client::Known(ip.parse().unwrap()).counted());
        let first = ConnectionCounts::reserve(&counts, one).unwrap();
        let second = ConnectionCounts::reserve(&counts, two).unwrap();
        assert_eq!(
            ConnectionCounts::reserve(&counts, one).unwrap_err(),
            LimitReached::Address,
            "one /64"
        );
        let third = ConnectionCounts::reserve(&counts, None).unwrap();
        assert_eq!(ConnectionCounts::reserve(&counts, None).unwrap_err(), LimitReached::Full);
        drop((first, second, third));
        assert_eq!(counts.connections.load(Ordering::Relaxed), 0);
        assert!(counts.by_address.lock().is_empty());
    }
}
