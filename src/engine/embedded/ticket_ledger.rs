//! The ticket ledger, row by row. It is decided upon by [`rules`].

use fjall::UserKey;

use super::error::{Fault, StepError};
use super::rows::{self, Kind, LedgerRow, TicketRow, UserMarkRow};
use super::store::{Snapshot, WriteBatch};
use crate::clock::UnixMs;
use crate::engine::rules::{self, Known, TicketRecord};
use crate::engine::{EngineError, RedeemError, Redemption, Revocation};
use crate::id::{DuelId, TicketKey, UserId};
use crate::limits;
use crate::ticket::{Revision, Stamp, Ticket};

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
    pub(super) fn redeem(&mut self, ticket: &Ticket) -> Result<Redemption, StepError<RedeemError>> {
        let key = ticket_key(&ticket.generation.session);
        let session = self.record(&key)?;
        let itself = self.record(&ticket_key(&TicketKey::of(&ticket.jti)))?;
        let mark = self.row::<UserMarkRow>(&user_key(ticket.duel, ticket.viewer.user))?;
        let known = Known {
            session,
            revoked: itself.is_some_and(|record| record.revoked),
            user_mark: mark.map(|row| Revision(row.revision)),
            is_full: self.is_full(),
        };
        let stamp = self.ledger()?.stamp(self.now);
        let redeemed = rules::redeem(ticket, known, self.config.resume_ttl, stamp.now)?;
        self.put_record(key, session.is_some(), &redeemed.record, redeemed.expires_at)?;
        if redeemed.is_copy {
            return Err(RedeemError::Copied.into());
        }
        Ok(Redemption { stamp, uses: redeemed.record.uses })
    }

    /// Revokes a ticket, or all of a user.
    pub(super) fn revoke(&mut self, revocation: &Revocation) -> Result<(), StepError<EngineError>> {
        let mut ledger = self.ledger()?;
        let now = ledger.time(self.now);
        match revocation {
            Revocation::Ticket(jti) => {
                let key = ticket_key(&TicketKey::of(jti));
                let known = self.record(&key)?;
                let expires_at = rules::revoke(known.is_some(), self.is_full(), now)?;
                let record = TicketRecord { revoked: true, ..known.unwrap_or_default() };
                self.put_record(key, known.is_some(), &record, expires_at)?;
            }
            Revocation::User { duel, user } => {
                let key = user_key(*duel, *user);
                let before = self.row::<UserMarkRow>(&key)?.map(|row| row.expires_at);
                let is_known = before.is_some();
                let expires_at = rules::revoke(is_known, self.is_full(), now)?.0;
                let expires_at = expires_at.max(before.unwrap_or_default());
                let revision = rules::next_revision(Revision(ledger.revision), now).0;
                ledger.revision = revision;
                self.put(ledger_key(), &ledger);
                self.hints.counts.remembered_tickets += usize::from(!is_known);
                self.put(key.clone(), &UserMarkRow { revision, expires_at });
                self.plan_expiry(expires_at, &key);
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
        is_known: bool,
        record: &TicketRecord,
        expires_at: UnixMs,
    ) -> Result<(), Fault> {
        // Never shortens the life of a record.
        let before = self.expires_at_of(&key)?.map_or(UnixMs::default(), UnixMs);
        let expires_at = expires_at.max(before);
        self.hints.counts.remembered_tickets += usize::from(!is_known);
        self.plan_expiry(expires_at.0, &key);
        self.put(key, &TicketRow::new(record, expires_at.0));
        Ok(())
    }

    const fn is_full(&self) -> bool {
        self.hints.counts.remembered_tickets >= self.config.tickets_max
    }

    fn plan_expiry(&mut self, at: u64, key: &[u8]) {
        self.hints.tickets_due = self.hints.tickets_due.min(at);
        self.put_bytes(Kind::TicketDue.key_ending(&[at], key), []);
    }

    /// Forgets what has expired by `now`. Returns whether there may be more.
    pub(super) fn prune_tickets(&mut self, now: UnixMs) -> Result<bool, Fault> {
        let rows =
            self.due(Kind::TicketDue, self.hints.tickets_due, now, limits::PRUNE_ROWS_MAX)?;
        let all = rows.len() < limits::PRUNE_ROWS_MAX;
        let mut ledger = self.ledger()?;
        let forgotten_until = ledger.forgotten_until;
        for (due, _) in rows {
            self.hints.tickets_due = rows::number(&due, 0)?.min(self.now.0);
            let key = due.get(9..).ok_or(Fault::Malformed("a key"))?;
            // Otherwise it was changed since, and another entry says when it expires now.
            if let Some(at) = self.expires_at_of(key)?.filter(|at| *at <= now.0) {
                self.remove(key.into());
                self.hints.counts.remembered_tickets =
                    self.hints.counts.remembered_tickets.saturating_sub(1);
                ledger.forgotten_until = ledger.forgotten_until.max(at);
            }
            self.remove(due);
        }
        if ledger.forgotten_until > forgotten_until {
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

fn ledger_key() -> UserKey {
    Kind::Ledger.key(&[])
}
