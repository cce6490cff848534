//! The tickets that are used or revoked, row by row. They are decided upon by [`rules`].

use fjall::UserKey;

use super::error::{Fault, StepError};
use super::rows::{self, Kind, RevokedUserRow, TicketRow};
use super::store::WriteBatch;
use crate::clock::UnixMs;
use crate::engine::rules::{self, JtiKey, KnownTicket};
use crate::engine::{EngineError, RedeemError, Revocation};
use crate::id::{DuelId, UserId};
use crate::limits;
use crate::ticket::Ticket;

impl WriteBatch<'_> {
    /// Uses a ticket.
    pub(super) fn redeem(&mut self, ticket: &Ticket) -> Result<(), StepError<RedeemError>> {
        let key = ticket_key(&JtiKey::of(&ticket.jti));
        let row = self.row::<TicketRow>(&key)?.unwrap_or_default();
        let user = self.row::<RevokedUserRow>(&user_key(ticket.duel, ticket.viewer.user))?;
        let known = KnownTicket {
            used: row.used,
            revoked: row.revoked,
            user_revoked_until: user.map(|row| UnixMs(row.issued_until)),
        };
        let expires_at = rules::redeem(ticket, known, self.is_full(), self.now)?.0;
        self.hints.counts.remembered_tickets += 1;
        self.put(key.clone(), &TicketRow { used: true, revoked: false, expires_at });
        self.plan_expiry(expires_at, &key);
        Ok(())
    }

    /// Revokes a ticket, or all of a user.
    pub(super) fn revoke(&mut self, revocation: &Revocation) -> Result<(), StepError<EngineError>> {
        let key = match revocation {
            Revocation::Ticket(jti) => ticket_key(&JtiKey::of(jti)),
            Revocation::User { duel, user, .. } => user_key(*duel, *user),
        };
        let is_known = self.row::<()>(&key)?.is_some();
        let expires_at = rules::revoke(is_known, self.is_full(), self.now)?.0;
        self.hints.counts.remembered_tickets += usize::from(!is_known);
        match revocation {
            Revocation::Ticket(_) => {
                let known = self.row::<TicketRow>(&key)?.unwrap_or_default();
                let row = TicketRow { revoked: true, expires_at, ..known };
                self.put(key.clone(), &row);
            }
            Revocation::User { issued_until, .. } => {
                let known = self.row::<RevokedUserRow>(&key)?.unwrap_or_default();
                // Never back: of two revocations at a time the later one holds.
                let issued_until = issued_until.0.max(known.issued_until);
                self.put(key.clone(), &RevokedUserRow { issued_until, expires_at });
            }
        }
        self.plan_expiry(expires_at, &key);
        Ok(())
    }

    const fn is_full(&self) -> bool {
        self.hints.counts.remembered_tickets >= self.config.tickets_max
    }

    fn plan_expiry(&mut self, at: u64, key: &[u8]) {
        self.hints.tickets_due = self.hints.tickets_due.min(at);
        self.put_bytes(Kind::TicketDue.key_ending(&[at], key), []);
    }

    /// Forgets tickets that have expired by `now`. Returns whether there may be more.
    pub(super) fn prune_tickets(&mut self, now: UnixMs) -> Result<bool, Fault> {
        let rows =
            self.due(Kind::TicketDue, self.hints.tickets_due, now, limits::PRUNE_ROWS_MAX)?;
        let all = rows.len() < limits::PRUNE_ROWS_MAX;
        for (due, _) in rows {
            self.hints.tickets_due = rows::number(&due, 0)?.min(self.now.0);
            let key = due.get(9..).ok_or(Fault::Malformed("a key"))?;
            let expires_at = self.expires_at_of(key)?;
            // Otherwise it was revoked since, and another entry says when it expires now.
            if expires_at.is_some_and(|at| at <= now.0) {
                self.remove(key.into());
                self.hints.counts.remembered_tickets =
                    self.hints.counts.remembered_tickets.saturating_sub(1);
            }
            self.remove(due);
        }
        Ok(!all)
    }

    fn expires_at_of(&self, key: &[u8]) -> Result<Option<u64>, Fault> {
        if key.first() == Some(&(Kind::Ticket as u8)) {
            return Ok(self.row::<TicketRow>(key)?.map(|row| row.expires_at));
        }
        Ok(self.row::<RevokedUserRow>(key)?.map(|row| row.expires_at))
    }
}

fn ticket_key(jti: &JtiKey) -> UserKey {
    Kind::Ticket.key_ending(&[], &jti.0)
}

fn user_key(duel: DuelId, user: UserId) -> UserKey {
    Kind::RevokedUser.key(&[duel.get(), user.get()])
}
