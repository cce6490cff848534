//! Which tickets are spent or revoked, each remembered until it would have expired anyway.
//!
//! Bound: `ENGINE_MAX_REMEMBERED_TICKETS` entries in all. When it is reached, tickets are refused: forgetting one would
//! let it be used twice.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::{EngineError, RedeemError, Revocation};
use crate::clock::UnixMs;
use crate::id::{DuelId, Jti, UserId};
use crate::ticket::Ticket;

/// No ticket lives longer than this, so what is revoked need not be remembered for longer.
pub(super) const TICKET_LIFE_MAX: Duration = Duration::from_secs(86_400);

/// How far the clock may step back without a ticket being forgotten before it has expired.
pub(super) const CLOCK_STEP_MAX: Duration = Duration::from_secs(60);

/// Entries that one call takes out at most, so that no caller pays for a mass of them.
const PRUNE_AT_ONCE: usize = 1024;

/// 128 bits that stand for a jti, whatever its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct JtiKey(pub(super) [u8; 16]);

impl JtiKey {
    pub(super) fn of(jti: &Jti) -> Self {
        let digest = Sha256::digest(jti.as_str().as_bytes());
        let mut first = [0; 16];
        first.copy_from_slice(&digest[..16]);
        Self(first)
    }
}

/// The tickets remembered.
#[derive(Debug)]
pub(super) struct Ledger {
    used: Expiring<JtiKey, ()>,
    revoked: Expiring<JtiKey, ()>,
    /// Tickets issued to a user until an instant, that instant included.
    revoked_users: Expiring<(DuelId, UserId), UnixMs>,
    entries_max: usize,
}

impl Ledger {
    pub(super) fn new(entries_max: usize) -> Self {
        Self {
            used: Expiring::default(),
            revoked: Expiring::default(),
            revoked_users: Expiring::default(),
            entries_max,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.used.len() + self.revoked.len() + self.revoked_users.len()
    }

    pub(super) fn admit(&mut self, ticket: &Ticket, now: UnixMs) -> Result<(), RedeemError> {
        self.prune(now);
        // Its signature was checked a moment ago; from here on it counts as what it is by then.
        if ticket.expires_at <= now {
            return Err(RedeemError::Expired);
        }
        let key = JtiKey::of(&ticket.jti);
        let user = (ticket.duel, ticket.viewer.user);
        let user_revoked = self.revoked_users.get(&user).is_some_and(|at| ticket.issued_at <= *at);
        if user_revoked || self.revoked.get(&key).is_some() {
            return Err(RedeemError::Revoked);
        }
        if self.used.get(&key).is_some() {
            return Err(RedeemError::AlreadyUsed);
        }
        self.check_room()?;
        self.used.insert(key, (), ticket.expires_at.plus(CLOCK_STEP_MAX));
        Ok(())
    }

    pub(super) fn revoke(
        &mut self,
        revocation: &Revocation,
        now: UnixMs,
    ) -> Result<(), EngineError> {
        self.prune(now);
        self.check_room()?;
        let expires_at = now.plus(TICKET_LIFE_MAX + CLOCK_STEP_MAX);
        match revocation {
            Revocation::Ticket(jti) => self.revoked.insert(JtiKey::of(jti), (), expires_at),
            Revocation::User { duel, user, issued_until } => {
                let key = (*duel, *user);
                // Never back: of two revocations at a time the later one holds.
                let until =
                    self.revoked_users.get(&key).map_or(*issued_until, |at| *issued_until.max(at));
                self.revoked_users.insert(key, until, expires_at);
            }
        }
        Ok(())
    }

    fn check_room(&self) -> Result<(), EngineError> {
        if self.len() < self.entries_max {
            return Ok(());
        }
        Err(EngineError::Full { limit: "ENGINE_MAX_REMEMBERED_TICKETS" })
    }

    pub(super) fn prune(&mut self, now: UnixMs) {
        self.used.prune(now);
        self.revoked.prune(now);
        self.revoked_users.prune(now);
    }
}

/// A map whose entries go when they have expired.
#[derive(Debug)]
struct Expiring<K, V> {
    entries: HashMap<K, (V, UnixMs)>,
    soonest_first: BTreeSet<(UnixMs, K)>,
}

impl<K, V> Default for Expiring<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), soonest_first: BTreeSet::new() }
    }
}

impl<K: Copy + Eq + Ord + Hash, V> Expiring<K, V> {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(value, _)| value)
    }

    fn insert(&mut self, key: K, value: V, expires_at: UnixMs) {
        if let Some((_, before)) = self.entries.insert(key, (value, expires_at)) {
            self.soonest_first.remove(&(before, key));
        }
        self.soonest_first.insert((expires_at, key));
    }

    fn prune(&mut self, now: UnixMs) {
        for _ in 0..PRUNE_AT_ONCE {
            match self.soonest_first.first().copied() {
                Some((expires_at, key)) if expires_at <= now => {
                    self.soonest_first.pop_first();
                    self.entries.remove(&key);
                }
                _ => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Role, Viewer};

    fn ticket(issued_at: u64, expires_at: u64) -> Ticket {
        Ticket {
            jti: Jti::random(),
            duel: DuelId::try_from(1).unwrap(),
            viewer: Viewer { user: UserId::try_from(1).unwrap(), role: Role::Player },
            issued_at: UnixMs(issued_at),
            expires_at: UnixMs(expires_at),
        }
    }

    #[test]
    fn a_ticket_is_admitted_once_also_at_the_instant_it_expires_and_when_the_clock_steps_back() {
        let mut ledger = Ledger::new(10);
        let ticket = ticket(0, 5000);
        assert_eq!(ledger.admit(&ticket, UnixMs(4999)), Ok(()));
        assert_eq!(ledger.admit(&ticket, UnixMs(4999)), Err(RedeemError::AlreadyUsed));
        assert_eq!(ledger.admit(&ticket, UnixMs(5000)), Err(RedeemError::Expired));
        assert_eq!(ledger.admit(&ticket, UnixMs(4000)), Err(RedeemError::AlreadyUsed));
    }

    #[test]
    fn what_has_expired_is_forgotten() {
        let mut ledger = Ledger::new(10);
        ledger.admit(&ticket(0, 5000), UnixMs(0)).unwrap();
        ledger.prune(UnixMs(5000).plus(CLOCK_STEP_MAX));
        assert_eq!(ledger.len(), 0);
    }

    #[test]
    fn an_earlier_revocation_does_not_take_a_later_one_back() {
        let mut ledger = Ledger::new(10);
        let ticket = ticket(2000, 9000);
        for issued_until in [3000, 1000] {
            let (duel, user) = (ticket.duel, ticket.viewer.user);
            let revocation = Revocation::User { duel, user, issued_until: UnixMs(issued_until) };
            ledger.revoke(&revocation, UnixMs(3000)).unwrap();
        }
        assert_eq!(ledger.admit(&ticket, UnixMs(4000)), Err(RedeemError::Revoked));
    }
}
