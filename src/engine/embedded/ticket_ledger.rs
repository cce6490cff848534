//! The ticket ledger, row by row. It is decided upon by [`rules`].

use fjall::UserKey;
use prost::Message;

use super::error::{Fault, StepError};
use super::rows::{self, Kind};
use super::store::{Snapshot, WriteBatch};
use crate::clock::UnixMs;
use crate::engine::rules::{self, Known, LedgerClock, TicketRecord};
use crate::engine::{EngineError, RedeemError, Revocation};
use crate::id::{DuelId, TicketKey, UserId};
use crate::limits;
use crate::ticket::{Revision, Stamp, Ticket};

/// A session, or a ticket that was revoked. See [`TicketRecord`].
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct TicketRow {
    #[prost(uint32, tag = "1")]
    generation: u32,
    /// Empty: none.
    #[prost(bytes = "vec", tag = "2")]
    used: Vec<u8>,
    // Tag 3 was how often the ticket was used.
    #[prost(bool, tag = "4")]
    revoked: bool,
    /// From then on the row is needed no more.
    #[prost(uint64, tag = "5")]
    expires_at: u64,
}

impl TicketRow {
    fn new(record: &TicketRecord, expires_at: u64) -> Self {
        let TicketRecord { generation, used, revoked } = *record;
        let used = used.map(|key| key.0.to_vec()).unwrap_or_default();
        Self { generation, used, revoked, expires_at }
    }

    pub(super) fn record(&self) -> Result<TicketRecord, Fault> {
        let used = match &self.used[..] {
            [] => None,
            key => Some(TicketKey(key.try_into().map_err(|_| Fault::Malformed("a ticket's key"))?)),
        };
        Ok(TicketRecord { generation: self.generation, used, revoked: self.revoked })
    }
}

/// All tickets of a user in a duel were revoked.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct UserMarkRow {
    /// The revision at which they were.
    #[prost(uint64, tag = "1")]
    revision: u64,
    #[prost(uint64, tag = "2")]
    expires_at: u64,
}

/// The ticket ledger as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct LedgerRow {
    #[prost(uint64, tag = "1")]
    revision: u64,
    /// See [`LedgerClock`].
    #[prost(uint64, tag = "2")]
    forgotten_until: u64,
    #[prost(uint64, tag = "3")]
    ahead_ms: u64,
}

impl LedgerRow {
    const fn clock(&self) -> LedgerClock {
        let forgotten_until = UnixMs(self.forgotten_until);
        LedgerClock { forgotten_until, ahead_ms: self.ahead_ms }
    }

    const fn set_clock(&mut self, clock: LedgerClock) {
        (self.forgotten_until, self.ahead_ms) = (clock.forgotten_until.0, clock.ahead_ms);
    }

    fn stamp(&self, now: UnixMs) -> Stamp {
        Stamp { now: self.clock().time(now), revision: Revision(self.revision) }
    }
}

impl Snapshot<'_> {
    /// Returns what a ticket issued now has to say.
    pub(super) fn stamp(&self, now: UnixMs) -> Result<Stamp, Fault> {
        Ok(self.row::<LedgerRow>(&ledger_key())?.unwrap_or_default().stamp(now))
    }

    /// Returns the same, or `None` if a ticket of this session and owner that was issued at `revision` is revoked.
    pub(super) fn renew(
        &self,
        session: TicketKey,
        (duel, user): (DuelId, UserId),
        revision: Revision,
        now: UnixMs,
    ) -> Result<Option<Stamp>, Fault> {
        let session = self.row::<TicketRow>(&ticket_key(&session))?;
        let mark = self.row::<UserMarkRow>(&user_key(duel, user))?;
        let known = Known {
            session: session.map(|row| row.record()).transpose()?,
            user_mark: mark.map(|row| Revision(row.revision)),
            ..Known::default()
        };
        if known.is_revoked(revision) { Ok(None) } else { self.stamp(now).map(Some) }
    }
}

impl WriteBatch<'_> {
    /// Uses a ticket. The refusal of a copy changes something as well: its session ends.
    pub(super) fn redeem(&mut self, ticket: &Ticket) -> Result<Stamp, StepError<RedeemError>> {
        let key = ticket_key(&ticket.generation.session);
        let session = self.record(&key)?;
        let itself = self.record(&ticket_key(&TicketKey::of(&ticket.jti)))?;
        let mark = self.row::<UserMarkRow>(&user_key(ticket.duel, ticket.viewer.user))?;
        let known = Known {
            session,
            revoked: itself.is_some_and(|record| record.revoked),
            user_mark: mark.map(|row| Revision(row.revision)),
            is_full: self.hints.counts.remembered_tickets
                >= rules::sessions_max(self.config.tickets_max),
        };
        let stamp = self.ledger()?.stamp(self.now);
        let redeemed = rules::redeem(ticket, known, self.config.resume_ttl, stamp.now)?;
        self.put_record(key, &redeemed.record, redeemed.expires_at)?;
        if redeemed.is_copy { Err(RedeemError::Copied.into()) } else { Ok(stamp) }
    }

    /// Revokes a ticket, or all of a user.
    pub(super) fn revoke(&mut self, revocation: &Revocation) -> Result<(), StepError<EngineError>> {
        let mut ledger = self.ledger()?;
        let now = ledger.stamp(self.now).now;
        match revocation {
            Revocation::Ticket(jti) => {
                let key = ticket_key(&TicketKey::of(jti));
                let known = self.record(&key)?;
                let expires_at = rules::revoke(known.is_some(), self.is_full(), now)?;
                let record = TicketRecord { revoked: true, ..known.unwrap_or_default() };
                self.put_record(key, &record, expires_at)?;
            }
            Revocation::User { duel, user } => {
                let key = user_key(*duel, *user);
                let is_known = self.expires_at_of(&key)?.is_some();
                let expires_at = rules::revoke(is_known, self.is_full(), now)?;
                let revision = rules::next_revision(Revision(ledger.revision), now).0;
                ledger.revision = revision;
                self.put(ledger_key(), &ledger);
                let expires_at = self.plan_expiry(&key, expires_at)?;
                self.put(key, &UserMarkRow { revision, expires_at });
            }
        }
        Ok(())
    }

    fn ledger(&self) -> Result<LedgerRow, Fault> {
        Ok(self.row::<LedgerRow>(&ledger_key())?.unwrap_or_default())
    }

    fn record(&self, key: &[u8]) -> Result<Option<TicketRecord>, Fault> {
        self.row::<TicketRow>(key)?.map(|row| row.record()).transpose()
    }

    fn put_record(
        &mut self,
        key: UserKey,
        record: &TicketRecord,
        expires_at: UnixMs,
    ) -> Result<(), Fault> {
        let expires_at = self.plan_expiry(&key, expires_at)?;
        self.put(key, &TicketRow::new(record, expires_at));
        Ok(())
    }

    const fn is_full(&self) -> bool {
        self.hints.counts.remembered_tickets >= self.config.tickets_max
    }

    /// Notes when an entry, which may be a new one, is to be forgotten. Returns when that is: never earlier than before.
    fn plan_expiry(&mut self, key: &[u8], at: UnixMs) -> Result<u64, Fault> {
        let before = self.expires_at_of(key)?;
        let at = at.0.max(before.unwrap_or_default());
        self.hints.counts.remembered_tickets += usize::from(before.is_none());
        if let Some(before) = before {
            self.remove(due_key(before, key));
        }
        self.hints.tickets_due = self.hints.tickets_due.min(at);
        self.put_bytes(due_key(at, key), []);
        Ok(at)
    }

    /// Forgets what has expired by `now`. Returns whether there may be more.
    pub(super) fn prune_tickets(&mut self, now: UnixMs) -> Result<bool, Fault> {
        let mut ledger = self.ledger()?;
        let mut clock = ledger.clock();
        clock.advance(now);
        let time = clock.time(now);
        let rows =
            self.due(Kind::TicketDue, self.hints.tickets_due, time, limits::PRUNE_ROWS_MAX)?;
        let all = rows.len() < limits::PRUNE_ROWS_MAX;
        for (due, _) in rows {
            let expired_at = rows::number(&due, 0)?;
            self.hints.tickets_due = expired_at.min(self.now.0);
            self.remove(due.get(9..).ok_or(Fault::Malformed("a key"))?.into());
            self.hints.counts.remembered_tickets =
                self.hints.counts.remembered_tickets.saturating_sub(1);
            clock.forget(UnixMs(expired_at));
            self.remove(due);
        }
        if clock != ledger.clock() {
            ledger.set_clock(clock);
            self.put(ledger_key(), &ledger);
        }
        Ok(!all)
    }

    fn expires_at_of(&self, key: &[u8]) -> Result<Option<u64>, Fault> {
        if key.first() == Some(&(Kind::Ticket as u8)) {
            return Ok(self.row::<TicketRow>(key)?.map(|row| row.expires_at));
        }
        Ok(self.row::<UserMarkRow>(key)?.map(|row| row.expires_at))
    }
}

fn ticket_key(key: &TicketKey) -> UserKey {
    Kind::Ticket.key_ending(&[], &key.0)
}

fn user_key(duel: DuelId, user: UserId) -> UserKey {
    Kind::UserMark.key(&[duel.get(), user.get()])
}

fn due_key(at: u64, key: &[u8]) -> UserKey {
    Kind::TicketDue.key_ending(&[at], key)
}

fn ledger_key() -> UserKey {
    Kind::Ledger.key(&[])
}
