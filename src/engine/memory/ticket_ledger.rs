//! The ticket ledger, in memory. It is decided upon by [`rules`].

use std::collections::{BTreeSet, HashMap, hash_map};
use std::hash::Hash;

use crate::clock::UnixMs;
use crate::config::EngineConfig;
use crate::engine::rules::{self, Known, LedgerClock, TicketRecord, UserSessions};
use crate::engine::{EngineError, RedeemError, Revocation};
use crate::id::{DuelId, TicketKey, UserId};
use crate::ticket::{Revision, Stamp, Ticket};

/// Entries that one call removes at most, so that no caller pays for a mass of them.
const PRUNE_AT_ONCE: usize = 1024;

/// A user in a duel.
type Owner = (DuelId, UserId);

/// A session, or a ticket that was revoked.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    record: TicketRecord,
    /// `None`: no ticket of it was used.
    owner: Option<Owner>,
}

/// Sessions, revocations and watermarks.
#[derive(Debug)]
pub(super) struct TicketLedger {
    sessions: Expiring<TicketKey, Entry>,
    /// The sessions with an owner, by owner.
    user_sessions: HashMap<Owner, UserSessions>,
    /// The revision at which a user's tickets were revoked last.
    user_marks: Expiring<Owner, Revision>,
    /// The revision at which sessions of a user were crowded out last.
    watermarks: Expiring<Owner, Revision>,
    crowded_out: u64,
    clock: LedgerClock,
    revision: Revision,
    config: EngineConfig,
}

impl TicketLedger {
    pub(super) fn new(config: EngineConfig) -> Self {
        Self {
            sessions: Expiring::default(),
            user_sessions: HashMap::new(),
            user_marks: Expiring::default(),
            watermarks: Expiring::default(),
            crowded_out: 0,
            clock: LedgerClock::default(),
            revision: Revision::default(),
            config,
        }
    }

    pub(super) fn len(&self) -> usize {
        let marks = self.user_marks.entries.len() + self.watermarks.entries.len();
        self.sessions.entries.len() + marks
    }

    pub(super) const fn crowded_out(&self) -> u64 {
        self.crowded_out
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

    fn known(&self, session: TicketKey, owner: Owner) -> Known {
        Known {
            session: self.sessions.get(&session).map(|entry| entry.record),
            revoked: false,
            user_mark: self.user_marks.get(&owner),
            watermark: self.watermarks.get(&owner),
            is_full: self.len() >= rules::sessions_max(self.config.tickets_max),
        }
    }

    pub(super) fn redeem(&mut self, ticket: &Ticket, now: UnixMs) -> Result<Stamp, RedeemError> {
        self.prune(now);
        let (session, owner) = (ticket.generation.session, (ticket.duel, ticket.viewer.user));
        let itself = self.sessions.get(&TicketKey::of(&ticket.jti));
        let known = Known {
            revoked: itself.is_some_and(|entry| entry.record.revoked),
            ..self.known(session, owner)
        };
        let time = self.clock.time(now);
        let redeemed = rules::redeem(ticket, known, self.config.resume_ttl, time)?;
        let entry = Entry { record: redeemed.record, owner: Some(owner) };
        self.sessions.insert(session, entry, redeemed.expires_at);
        if redeemed.is_copy {
            return Err(RedeemError::Copied);
        }
        let gone = self.user_sessions.entry(owner).or_default().note_use(session);
        self.crowd_out(owner, &gone, time);
        Ok(self.stamp(now))
    }

    /// Forgets sessions before they expire, and puts their user's watermark.
    fn crowd_out(&mut self, owner: Owner, gone: &[TicketKey], time: UnixMs) {
        let expiries = gone.iter().filter_map(|session| self.sessions.remove(session));
        let Some(expires_at) = expiries.max() else { return };
        self.crowded_out += gone.len() as u64;
        self.revision = rules::next_revision(self.revision, time);
        self.watermarks.insert(owner, self.revision, expires_at);
    }

    pub(super) fn renew(
        &self,
        session: TicketKey,
        owner: Owner,
        revision: Revision,
        now: UnixMs,
    ) -> Option<Stamp> {
        self.known(session, owner).may_renew(revision).then(|| self.stamp(now))
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
                let mut entry = known.unwrap_or_default();
                entry.record.revoked = true;
                self.sessions.insert(key, entry, expires_at);
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
        for (session, entry) in self.sessions.prune(time, &mut self.clock) {
            let Some(owner) = entry.owner else { continue };
            if let hash_map::Entry::Occupied(mut sessions) = self.user_sessions.entry(owner) {
                sessions.get_mut().forget(session);
                if sessions.get().is_empty() {
                    sessions.remove();
                }
            }
        }
        self.user_marks.prune(time, &mut self.clock);
        self.watermarks.prune(time, &mut self.clock);
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

    /// Removes an entry before it expires. Returns when it would have.
    fn remove(&mut self, key: &K) -> Option<UnixMs> {
        let (_, expires_at) = self.entries.remove(key)?;
        self.soonest_first.remove(&(expires_at, *key));
        Some(expires_at)
    }

    /// Returns what it has removed.
    fn prune(&mut self, now: UnixMs, clock: &mut LedgerClock) -> Vec<(K, V)> {
        let mut removed = Vec::new();
        while removed.len() < PRUNE_AT_ONCE {
            match self.soonest_first.first().copied() {
                Some((expires_at, key)) if expires_at <= now => {
                    self.soonest_first.pop_first();
                    removed.extend(self.entries.remove(&key).map(|(value, _)| (key, value)));
                    clock.forget(expires_at);
                }
                _ => break,
            }
        }
        removed
    }
}
