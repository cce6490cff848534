//! The ticket ledger, in memory. It is decided upon by [`rules`].

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use crate::clock::UnixMs;
use crate::config::EngineConfig;
use crate::engine::rules::{self, Known, LedgerClock, TicketRecord};
use crate::engine::{EngineError, RedeemError, Revocation};
use crate::id::{DuelId, TicketKey, UserId};
use crate::ticket::{Revision, Stamp, Ticket};

/// Entries that one call removes at most, so that no caller pays for a mass of them.
const PRUNE_AT_ONCE: usize = 1024;

/// Sessions, and revocations.
#[derive(Debug)]
pub(super) struct TicketLedger {
    sessions: Expiring<TicketKey, TicketRecord>,
    /// The revision at which a user's tickets were revoked last.
    user_marks: Expiring<(DuelId, UserId), Revision>,
    clock: LedgerClock,
    revision: Revision,
    config: EngineConfig,
}

impl TicketLedger {
    pub(super) fn new(config: EngineConfig) -> Self {
        let (sessions, user_marks) = (Expiring::default(), Expiring::default());
        let (clock, revision) = (LedgerClock::default(), Revision::default());
        Self { sessions, user_marks, clock, revision, config }
    }

    pub(super) fn len(&self) -> usize {
        self.sessions.entries.len() + self.user_marks.entries.len()
    }

    pub(super) const fn tickets_max(&self) -> usize {
        self.config.tickets_max
    }

    fn is_full(&self) -> bool {
        self.len() >= self.config.tickets_max
    }

    pub(super) fn stamp(&self, now: UnixMs) -> Stamp {
        Stamp { now: self.clock.time(now), revision: self.revision }
    }

    fn known(&self, session: TicketKey, owner: (DuelId, UserId)) -> Known {
        Known {
            session: self.sessions.get(&session),
            revoked: false,
            user_mark: self.user_marks.get(&owner),
            is_full: self.len() >= rules::sessions_max(self.config.tickets_max),
        }
    }

    pub(super) fn redeem(&mut self, ticket: &Ticket, now: UnixMs) -> Result<Stamp, RedeemError> {
        self.prune(now);
        let session = ticket.generation.session;
        let itself = self.sessions.get(&TicketKey::of(&ticket.jti));
        let known = Known {
            revoked: itself.is_some_and(|record| record.revoked),
            ..self.known(session, (ticket.duel, ticket.viewer.user))
        };
        let stamp = self.stamp(now);
        let redeemed = rules::redeem(ticket, known, self.config.resume_ttl, stamp.now)?;
        self.sessions.insert(session, redeemed.record, redeemed.expires_at);
        if redeemed.is_copy {
            return Err(RedeemError::Copied);
        }
        Ok(stamp)
    }

    pub(super) fn renew(
        &self,
        session: TicketKey,
        owner: (DuelId, UserId),
        revision: Revision,
        now: UnixMs,
    ) -> Option<Stamp> {
        let revoked = self.known(session, owner).is_revoked(revision);
        (!revoked).then(|| self.stamp(now))
    }

    pub(super) fn revoke(
        &mut self,
        revocation: &Revocation,
        now: UnixMs,
    ) -> Result<(), EngineError> {
        self.prune(now);
        let now = self.clock.time(now);
        match revocation {
            Revocation::Ticket(jti) => {
                let key = TicketKey::of(jti);
                let known = self.sessions.get(&key);
                let expires_at = rules::revoke(known.is_some(), self.is_full(), now)?;
                let record = TicketRecord { revoked: true, ..known.unwrap_or_default() };
                self.sessions.insert(key, record, expires_at);
            }
            Revocation::User { duel, user } => {
                let key = (*duel, *user);
                let is_known = self.user_marks.get(&key).is_some();
                let expires_at = rules::revoke(is_known, self.is_full(), now)?;
                self.revision = rules::next_revision(self.revision, now);
                self.user_marks.insert(key, self.revision, expires_at);
            }
        }
        Ok(())
    }

    pub(super) fn prune(&mut self, now: UnixMs) {
        self.clock.advance(now);
        let time = self.clock.time(now);
        self.sessions.prune(time, &mut self.clock);
        self.user_marks.prune(time, &mut self.clock);
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

    /// Never shortens the life of an entry.
    fn insert(&mut self, key: K, value: V, expires_at: UnixMs) {
        let before = self.entries.get(&key).map(|(_, before)| *before);
        let expires_at = before.map_or(expires_at, |before| before.max(expires_at));
        self.entries.insert(key, (value, expires_at));
        if let Some(before) = before {
            self.soonest_first.remove(&(before, key));
        }
        self.soonest_first.insert((expires_at, key));
    }

    fn prune(&mut self, now: UnixMs, clock: &mut LedgerClock) {
        for _ in 0..PRUNE_AT_ONCE {
            match self.soonest_first.first().copied() {
                Some((expires_at, key)) if expires_at <= now => {
                    self.soonest_first.pop_first();
                    self.entries.remove(&key);
                    clock.forget(expires_at);
                }
                _ => break,
            }
        }
    }
}
