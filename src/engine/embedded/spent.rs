//! Tickets that are used or revoked, row by row. The same rules as of the ledger in memory ([`crate::engine::ledger`]);
//! one test suite holds both to them.

use fjall::UserKey;

use super::Fault;
use super::rows::{self, Kind, RevokedUserRow, TicketRow};
use super::store::Draft;
use crate::clock::UnixMs;
use crate::engine::ledger::{CLOCK_STEP_MAX, JtiKey, TICKET_LIFE_MAX};
use crate::engine::{EngineError, RedeemError, Revocation};
use crate::id::{DuelId, UserId};
use crate::limits;
use crate::ticket::Ticket;

impl Draft<'_> {
    /// Spends a ticket.
    pub(super) fn admit(&mut self, ticket: &Ticket) -> Result<Result<(), RedeemError>, Fault> {
        // Its signature was checked a moment ago; from here on it counts as what it is by then.
        if ticket.expires_at <= self.now {
            return Ok(Err(RedeemError::Expired));
        }
        let key = ticket_key(&JtiKey::of(&ticket.jti));
        let user_key = user_key(ticket.duel, ticket.viewer.user);
        let user = self.row::<RevokedUserRow>(&user_key)?;
        let known = self.row::<TicketRow>(&key)?.unwrap_or_default();
        if known.revoked || user.is_some_and(|row| ticket.issued_at.0 <= row.issued_until) {
            return Ok(Err(RedeemError::Revoked));
        }
        if known.used {
            return Ok(Err(RedeemError::AlreadyUsed));
        }
        if let Err(full) = self.make_room() {
            return Ok(Err(full.into()));
        }
        let expires_at = ticket.expires_at.plus(CLOCK_STEP_MAX).0;
        self.put(key.clone(), &TicketRow { used: true, revoked: false, expires_at });
        self.plan_expiry(expires_at, &key);
        Ok(Ok(()))
    }

    /// Makes tickets worthless.
    pub(super) fn revoke(
        &mut self,
        revocation: &Revocation,
    ) -> Result<Result<(), EngineError>, Fault> {
        let expires_at = self.now.plus(TICKET_LIFE_MAX + CLOCK_STEP_MAX).0;
        let key = match revocation {
            Revocation::Ticket(jti) => ticket_key(&JtiKey::of(jti)),
            Revocation::User { duel, user, .. } => user_key(*duel, *user),
        };
        if self.row::<()>(&key)?.is_none()
            && let Err(full) = self.make_room()
        {
            return Ok(Err(full));
        }
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
        Ok(Ok(()))
    }

    fn make_room(&mut self) -> Result<(), EngineError> {
        if self.held.counts.remembered_tickets >= self.config.tickets_max {
            return Err(EngineError::Full { limit: "ENGINE_MAX_REMEMBERED_TICKETS" });
        }
        self.held.counts.remembered_tickets += 1;
        Ok(())
    }

    fn plan_expiry(&mut self, at: u64, key: &[u8]) {
        self.held.tickets_due = self.held.tickets_due.min(at);
        self.put_bytes(Kind::TicketDue.key_ending(&[at], key), []);
    }

    /// Forgets tickets that have expired by `now`: whether there may be more.
    pub(super) fn prune_tickets(&mut self, now: UnixMs) -> Result<bool, Fault> {
        let rows = self.due(Kind::TicketDue, self.held.tickets_due, now, limits::PRUNE_ROWS_MAX)?;
        let all = rows.len() < limits::PRUNE_ROWS_MAX;
        for (due, _) in rows {
            self.held.tickets_due = rows::number(&due, 0)?.min(self.now.0);
            let key = due.get(9..).ok_or(Fault::Malformed("a key"))?;
            let expires_at = self.expires_at_of(key)?;
            // Otherwise it was revoked since, and another entry says when it expires now.
            if expires_at.is_some_and(|at| at <= now.0) {
                self.remove(key.into());
                self.held.counts.remembered_tickets =
                    self.held.counts.remembered_tickets.saturating_sub(1);
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
