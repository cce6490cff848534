//! The tickets that are used or revoked, in memory. They are decided upon by [`rules`].

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use crate::clock::UnixMs;
use crate::engine::rules::{self, JtiKey, KnownTicket};
use crate::engine::{EngineError, RedeemError, Revocation};
use crate::id::{DuelId, UserId};
use crate::ticket::Ticket;

/// Entries that one call removes at most, so that no caller pays for a mass of them.
const PRUNE_AT_ONCE: usize = 1024;

/// How a ticket was used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spent {
    Used,
    Revoked,
}

/// The tickets remembered.
#[derive(Debug)]
pub(super) struct TicketLedger {
    tickets: Expiring<JtiKey, Spent>,
    /// Tickets issued to a user until an instant, that instant included.
    revoked_users: Expiring<(DuelId, UserId), UnixMs>,
    entries_max: usize,
}

impl TicketLedger {
    pub(super) fn new(entries_max: usize) -> Self {
        Self { tickets: Expiring::default(), revoked_users: Expiring::default(), entries_max }
    }

    pub(super) fn len(&self) -> usize {
        self.tickets.entries.len() + self.revoked_users.entries.len()
    }

    fn is_full(&self) -> bool {
        self.len() >= self.entries_max
    }

    pub(super) fn redeem(&mut self, ticket: &Ticket, now: UnixMs) -> Result<(), RedeemError> {
        self.prune(now);
        let key = JtiKey::of(&ticket.jti);
        let spent = self.tickets.get(&key);
        let known = KnownTicket {
            used: spent == Some(Spent::Used),
            revoked: spent == Some(Spent::Revoked),
            user_revoked_until: self.revoked_users.get(&(ticket.duel, ticket.viewer.user)),
        };
        let expires_at = rules::redeem(ticket, known, self.is_full(), now)?;
        self.tickets.insert(key, Spent::Used, expires_at);
        Ok(())
    }

    pub(super) fn revoke(
        &mut self,
        revocation: &Revocation,
        now: UnixMs,
    ) -> Result<(), EngineError> {
        self.prune(now);
        match revocation {
            Revocation::Ticket(jti) => {
                let key = JtiKey::of(jti);
                let is_known = self.tickets.get(&key).is_some();
                let expires_at = rules::revoke(is_known, self.is_full(), now)?;
                self.tickets.insert(key, Spent::Revoked, expires_at);
            }
            Revocation::User { duel, user, issued_until } => {
                let key = (*duel, *user);
                let before = self.revoked_users.get(&key);
                let expires_at = rules::revoke(before.is_some(), self.is_full(), now)?;
                // Never back: of two revocations at a time the later one holds.
                let until = before.map_or(*issued_until, |before| before.max(*issued_until));
                self.revoked_users.insert(key, until, expires_at);
            }
        }
        Ok(())
    }

    pub(super) fn prune(&mut self, now: UnixMs) {
        self.tickets.prune(now);
        self.revoked_users.prune(now);
    }
}

/// A map whose entries are removed once they have expired.
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

impl<K: Copy + Eq + Ord + Hash, V: Copy> Expiring<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        self.entries.get(key).map(|(value, _)| *value)
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
    use crate::engine::rules::CLOCK_STEP_MAX;
    use crate::event::{Role, Viewer};
    use crate::id::Jti;

    #[test]
    fn a_ticket_is_used_once_also_at_the_instant_it_expires_and_when_the_clock_steps_back() {
        let mut ledger = TicketLedger::new(10);
        let ticket = Ticket {
            jti: Jti::random(),
            duel: DuelId::try_from(1).unwrap(),
            viewer: Viewer { user: UserId::try_from(1).unwrap(), role: Role::Player },
            issued_at: UnixMs(0),
            expires_at: UnixMs(5000),
        };
        assert_eq!(ledger.redeem(&ticket, UnixMs(4999)), Ok(()));
        assert_eq!(ledger.redeem(&ticket, UnixMs(4999)), Err(RedeemError::AlreadyUsed));
        assert_eq!(ledger.redeem(&ticket, UnixMs(5000)), Err(RedeemError::Expired));
        assert_eq!(ledger.redeem(&ticket, UnixMs(4000)), Err(RedeemError::AlreadyUsed));
        ledger.prune(UnixMs(5000).plus(CLOCK_STEP_MAX));
        assert_eq!(ledger.len(), 0, "what has expired is forgotten");
    }
}
