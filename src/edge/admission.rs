//! How many sockets may be there, and how fast they may come.
//!
//! Bounds, each with its variable: sockets that have not shown a valid ticket, connections in all, connections of one
//! address, handshakes a second. What is over one of them is answered with 429 or 503, counted, and touches nobody else.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::config::EdgeConfig;
use crate::metrics::{Kind, Metrics};

/// The counts of a node.
#[derive(Debug)]
pub(super) struct Admission {
    pending: Arc<Semaphore>,
    handshakes: Mutex<Bucket>,
    requests: Mutex<Bucket>,
    counts: Arc<Counts>,
    metrics: Arc<Metrics>,
    trusted_proxies: Vec<IpAddr>,
}

#[derive(Debug)]
struct Counts {
    connections: AtomicUsize,
    connections_max: usize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
    per_address_max: usize,
}

/// A socket that has not shown a valid ticket. Dropped when it has, or is gone.
#[derive(Debug)]
pub(super) struct Pending {
    _permit: OwnedSemaphorePermit,
    metrics: Arc<Metrics>,
}

/// A place among the connections. Dropped with the connection.
#[derive(Debug)]
pub(super) struct Place {
    counts: Arc<Counts>,
    /// `None`: the address is not counted.
    address: Option<IpAddr>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Too many handshakes a second.
    Rate,
    /// Too many connections in all.
    Full,
    /// Too many connections of this address.
    Address,
}

impl Refusal {
    /// The variable that bounds it.
    pub(super) const fn limit(self) -> &'static str {
        match self {
            Self::Rate => "WEBSOCKET_MAX_HANDSHAKES_PER_SECOND",
            Self::Full => "WEBSOCKET_MAX_CONNECTIONS",
            Self::Address => "WEBSOCKET_MAX_CONNECTIONS_PER_ADDRESS",
        }
    }
}

impl Admission {
    pub(super) fn new(config: &EdgeConfig, metrics: Arc<Metrics>) -> Self {
        Self {
            pending: Arc::new(Semaphore::new(config.pending_handshakes_max)),
            handshakes: Mutex::new(Bucket::new(config.handshakes_per_second_max)),
            requests: Mutex::new(Bucket::new(config.handshakes_per_second_max)),
            counts: Arc::new(Counts {
                connections: AtomicUsize::new(0),
                connections_max: config.connections_max,
                by_address: Mutex::default(),
                per_address_max: config.connections_per_address_max,
            }),
            metrics,
            trusted_proxies: config.trusted_proxies.clone(),
        }
    }

    /// A new socket; `None` if too many have not shown a ticket.
    pub(super) fn begin(&self) -> Option<Pending> {
        let Ok(permit) = Arc::clone(&self.pending).try_acquire_owned() else {
            self.count("WEBSOCKET_MAX_PENDING_HANDSHAKES");
            return None;
        };
        self.metrics.pending_handshakes.inc();
        Some(Pending { _permit: permit, metrics: Arc::clone(&self.metrics) })
    }

    /// A handshake from `client`.
    pub(super) fn admit(&self, client: IpAddr) -> Result<Place, Refusal> {
        let admitted = if self.handshakes.lock().take(Instant::now()) {
            // A proxy on this machine that does not say for whom it speaks speaks for everybody.
            let counted = (!self.trusted_proxies.contains(&client)).then(|| network(client));
            Counts::admit(&self.counts, counted)
        } else {
            Err(Refusal::Rate)
        };
        if let Err(refusal) = admitted {
            self.count(refusal.limit());
        }
        admitted
    }

    /// A request for a ticket. As fast as handshakes, but counted apart: who asks for tickets without ever getting one must not
    /// use up the handshakes of those who have theirs.
    pub(super) fn admit_request(&self) -> bool {
        let admitted = self.requests.lock().take(Instant::now());
        if !admitted {
            self.count(Refusal::Rate.limit());
        }
        admitted
    }

    fn count(&self, limit: &'static str) {
        self.metrics.limits_reached.get_or_create(&Kind { kind: limit }).inc();
    }
}

impl Counts {
    fn admit(this: &Arc<Self>, address: Option<IpAddr>) -> Result<Place, Refusal> {
        if this.connections.fetch_add(1, Ordering::Relaxed) >= this.connections_max {
            this.connections.fetch_sub(1, Ordering::Relaxed);
            return Err(Refusal::Full);
        }
        // From here on, dropping it gives everything back.
        let mut place = Place { counts: Arc::clone(this), address: None };
        if let Some(address) = address {
            let mut by_address = this.by_address.lock();
            let count = by_address.entry(address).or_default();
            if *count >= this.per_address_max {
                return Err(Refusal::Address);
            }
            *count += 1;
            place.address = Some(address);
        }
        Ok(place)
    }
}

impl Drop for Place {
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

impl Drop for Pending {
    fn drop(&mut self) {
        self.metrics.pending_handshakes.dec();
    }
}

/// What counts as one address: of IPv6 the /64, which one household or phone has to itself.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}

/// A token bucket that holds one second's worth.
#[derive(Debug)]
struct Bucket {
    per_second: f64,
    tokens: f64,
    filled_at: Instant,
}

impl Bucket {
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
        let mut bucket = Bucket::new(10);
        let start = bucket.filled_at;
        let taken = |bucket: &mut Bucket, at| (0..100).filter(|_| bucket.take(at)).count();
        assert_eq!(taken(&mut bucket, start), 10);
        assert_eq!(taken(&mut bucket, start + Duration::from_millis(550)), 5);
        assert_eq!(taken(&mut bucket, start + Duration::from_secs(60)), 10);
    }

    #[test]
    fn a_place_given_back_is_free_again() {
        let counts = Arc::new(Counts {
            connections: AtomicUsize::new(0),
            connections_max: 3,
            by_address: Mutex::default(),
            per_address_max: 2,
        });
        let [one, two] =
            ["2001:db8::1", "2001:db8::2"].map(|ip| Some(network(ip.parse().unwrap())));
        let first = Counts::admit(&counts, one).unwrap();
        let second = Counts::admit(&counts, two).unwrap();
        assert_eq!(Counts::admit(&counts, one).unwrap_err(), Refusal::Address, "one /64");
        let third = Counts::admit(&counts, None).unwrap();
        assert_eq!(Counts::admit(&counts, None).unwrap_err(), Refusal::Full);
        drop((first, second, third));
        assert_eq!(counts.connections.load(Ordering::Relaxed), 0);
        assert!(counts.by_address.lock().is_empty());
    }
}
