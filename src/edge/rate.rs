//! How often something may happen: a rate with a burst, for all together or for each user or address.
//!
//! It is the generic cell rate algorithm (ITU-T I.371), whose state is one instant. `governor` has it, too, with five more
//! crates in the build.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::limits;

/// How often keys that are as if they had never come are looked for while there is no room.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// A rate, and how many may come at once after a pause.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    interval: Duration,
    burst: Duration,
}

/// How far a rate is used up. A new one is not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Used(Instant);

impl Rate {
    /// `count` (at least 1) in each `period`, and as many at once.
    pub(super) fn per(period: Duration, count: u32) -> Self {
        Self { interval: period / count.max(1), burst: period }
    }

    /// Returns whether one more is within the rate.
    pub(super) fn allows(self, used: &mut Used, now: Instant) -> bool {
        let next = used.0.max(now) + self.interval;
        let allowed = next <= now + self.burst;
        if allowed {
            used.0 = next;
        }
        allowed
    }
}

impl Used {
    pub(super) fn none() -> Self {
        Self(Instant::now())
    }
}

/// A rate for all together.
#[derive(Debug)]
pub(super) struct SharedRate {
    rate: Rate,
    used: Mutex<Used>,
}

impl SharedRate {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, used: Mutex::new(Used::none()) }
    }

    /// Returns whether one more is within the rate.
    pub(super) fn allows(&self) -> bool {
        self.rate.allows(&mut self.used.lock(), Instant::now())
    }
}

/// The same rate for each key. At most [`limits::RATED_KEYS_MAX`] keys are told apart: past that, new ones share one rate.
#[derive(Debug)]
pub(super) struct RateByKey<K> {
    rate: Rate,
    keys: Mutex<Keys<K>>,
}

#[derive(Debug)]
struct Keys<K> {
    used: HashMap<K, Used>,
    others: Used,
    swept_at: Instant,
}

impl<K: Hash + Eq> RateByKey<K> {
    pub(super) fn new(rate: Rate) -> Self {
        let (used, others, swept_at) = (HashMap::new(), Used::none(), Instant::now());
        Self { rate, keys: Mutex::new(Keys { used, others, swept_at }) }
    }

    /// Returns whether one more of `key` is within its rate.
    pub(super) fn allows(&self, key: K) -> bool {
        self.allows_at(key, Instant::now(), limits::RATED_KEYS_MAX)
    }

    /// Uses up the rate of `key` as far as it goes.
    pub(super) fn use_up(&self, key: &K) {
        let now = Instant::now();
        if let Some(used) = self.keys.lock().used.get_mut(key) {
            used.0 = now + self.rate.burst;
        }
    }

    fn allows_at(&self, key: K, now: Instant, keys_max: usize) -> bool {
        let Keys { used, others, swept_at } = &mut *self.keys.lock();
        if used.len() >= keys_max && *swept_at + SWEEP_INTERVAL <= now {
            *swept_at = now;
            used.retain(|_, used| used.0 > now);
        }
        let used = match used.len() < keys_max || used.contains_key(&key) {
            true => used.entry(key).or_insert(Used(now)),
            false => others,
        };
        self.rate.allows(used, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_rate_gives_its_burst_and_then_so_many_a_period() {
        let (rate, mut used) = (Rate::per(SECOND, 10), Used::none());
        let start = used.0;
        let mut taken = |at| (0..100).filter(|_| rate.allows(&mut used, at)).count();
        assert_eq!(taken(start), 10);
        assert_eq!(taken(start + SECOND * 55 / 100), 5);
        assert_eq!(taken(start + 60 * SECOND), 10);
    }

    #[test]
    fn keys_do_not_use_up_each_others_rate_and_are_forgotten_when_theirs_is_whole_again() {
        let rates = RateByKey::new(Rate::per(SECOND, 2));
        let start = Instant::now() + SECOND;
        let taken = |key, at| (0..100).filter(|_| rates.allows_at(key, at, 2)).count();
        assert_eq!([taken(1, start), taken(2, start)], [2, 2]);
        assert_eq!([taken(3, start), taken(4, start)], [2, 0], "without room they share one");
        assert_eq!(taken(1, start), 0);
        let later = start + 2 * SECOND;
        assert_eq!([taken(3, later), taken(4, later)], [2, 2]);
        assert_eq!(rates.keys.lock().used.len(), 2);
    }
}
