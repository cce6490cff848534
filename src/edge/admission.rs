//! Admission control: how many connections there may be, and how fast they may come.
//!
//! Whoever shows a ticket of ours uses up the rate of its user at that address, and then the one of all; with valid initData,
//! the rate of the user. Whoever shows neither uses up the rate of the address, and then one of all such. So no stranger uses
//! up what is for players, whatever address they share. What exceeds a bound is refused with 429 or 503 and counted.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::client::Client;
use super::rate::{Rate, RateByKey, SharedRate};
use crate::config::EdgeConfig;
use crate::id::{TelegramId, UserId};
use crate::metrics::{KindLabel, Metrics, at_zero};
use crate::places::{Place, Places};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// The limits of this node, and how much of each is used.
#[derive(Debug)]
pub(super) struct Admission {
    newcomers: Arc<Places>,
    /// By address as well: whoever holds an old ticket of somebody must not use up their rate.
    handshakes: Rates<(UserId, Option<IpAddr>)>,
    ticket_requests: Rates<TelegramId>,
    strangers: Rates<IpAddr>,
    counts: Arc<ConnectionCounts>,
    metrics: Arc<Metrics>,
}

/// A rate for each key, and one for all together.
#[derive(Debug)]
struct Rates<K> {
    each: RateByKey<K>,
    all: SharedRate,
}

#[derive(Debug)]
struct ConnectionCounts {
    connections: AtomicUsize,
    connections_max: usize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
    per_address_max: usize,
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
    /// Too many a second in all.
    Rate,
    /// Too many of this user.
    UserRate,
    /// Too many of this address without a valid ticket or initData.
    StrangerRate,
    /// Too many connections in all.
    Full,
    /// Too many connections of this address.
    Address,
}

impl LimitReached {
    pub(super) const ALL: [Self; 5] =
        [Self::Rate, Self::UserRate, Self::StrangerRate, Self::Full, Self::Address];

    /// Returns the variable that sets the limit.
    pub(super) const fn limit(self) -> &'static str {
        match self {
            Self::Rate => "WEBSOCKET_MAX_HANDSHAKES_PER_SECOND",
            Self::UserRate => "WEBSOCKET_MAX_HANDSHAKES_PER_USER_PER_MINUTE",
            Self::StrangerRate => "WEBSOCKET_MAX_INVALID_PER_ADDRESS_PER_MINUTE",
            Self::Full => "WEBSOCKET_MAX_CONNECTIONS",
            Self::Address => "WEBSOCKET_MAX_CONNECTIONS_PER_ADDRESS",
        }
    }
}

/// The variable that bounds the sockets without a valid ticket.
const PENDING: &str = "WEBSOCKET_MAX_PENDING_HANDSHAKES";

impl Admission {
    pub(super) fn new(config: &EdgeConfig, metrics: Arc<Metrics>) -> Self {
        let limits = [PENDING].into_iter().chain(LimitReached::ALL.map(LimitReached::limit));
        at_zero(&metrics.limits_reached, limits);
        let per_user = Rate::per(MINUTE, config.handshakes_per_user_max);
        let per_address = Rate::per(MINUTE, config.invalid_per_address_max);
        let all = Rate::per(SECOND, config.handshakes_per_second_max);
        Self {
            newcomers: Places::new(
                config.pending_handshakes_max,
                metrics.pending_handshakes.clone(),
            ),
            handshakes: Rates::new(per_user, all),
            ticket_requests: Rates::new(per_user, all),
            strangers: Rates::new(per_address, all),
            counts: Arc::new(ConnectionCounts {
                connections: AtomicUsize::new(0),
                connections_max: config.connections_max,
                by_address: Mutex::default(),
                per_address_max: config.connections_per_address_max,
            }),
            metrics,
        }
    }

    /// Admits a new socket. Returns `None` if there are too many without a ticket that the hub is busy with.
    pub(super) fn enter(&self) -> Option<Place> {
        let newcomer = self.newcomers.enter();
        if newcomer.is_none() {
            self.count_crowded_out();
        }
        newcomer
    }

    /// Reserves a connection for a handshake of `user` from `client`.
    pub(super) fn reserve(
        &self,
        user: UserId,
        client: Client,
    ) -> Result<ConnectionSlot, LimitReached> {
        let reserved = self.handshakes.take((user, client.counted()), LimitReached::UserRate);
        let reserved =
            reserved.and_then(|()| ConnectionCounts::reserve(&self.counts, client.counted()));
        self.counted(reserved)
    }

    /// Uses up the rate of a user who has a connection, so that their next handshake has to wait.
    pub(super) fn use_up(&self, user: UserId, slot: &ConnectionSlot) {
        self.handshakes.each.use_up(&(user, slot.address));
    }

    /// Admits a request for a ticket by a user whom Telegram vouches for.
    pub(super) fn admit_ticket_request(&self, user: TelegramId) -> Result<(), LimitReached> {
        self.counted(self.ticket_requests.take(user, LimitReached::UserRate))
    }

    /// Admits the refusal, in words that its client understands, of a handshake without a valid ticket, or of a request for a
    /// ticket without valid initData.
    pub(super) fn admit_stranger(&self, client: Client) -> Result<(), LimitReached> {
        let admitted = match client.counted() {
            Some(address) => self.strangers.take(address, LimitReached::StrangerRate),
            None => self.strangers.take_of_all(),
        };
        self.counted(admitted)
    }

    /// Counts a socket that had to go for want of a place.
    pub(super) fn count_crowded_out(&self) {
        self.count(PENDING);
    }

    fn counted<T>(&self, outcome: Result<T, LimitReached>) -> Result<T, LimitReached> {
        outcome.inspect_err(|reached| self.count(reached.limit()))
    }

    fn count(&self, limit: &'static str) {
        self.metrics.limits_reached.get_or_create(&KindLabel { kind: limit }).inc();
    }
}

impl<K: std::hash::Hash + Eq> Rates<K> {
    fn new(each: Rate, all: Rate) -> Self {
        Self { each: RateByKey::new(each), all: SharedRate::new(all) }
    }

    fn take(&self, key: K, reached: LimitReached) -> Result<(), LimitReached> {
        // First its own: what is refused by that uses up nothing of the others'.
        if self.each.allows(key) { self.take_of_all() } else { Err(reached) }
    }

    fn take_of_all(&self) -> Result<(), LimitReached> {
        if self.all.allows() { Ok(()) } else { Err(LimitReached::Rate) }
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

#[cfg(test)]
mod tests {
    use super::*;

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
