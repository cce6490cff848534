//! The rules of tickets and sessions. The ledger has one record per session, whose first ticket names it.
//!
//! | the ticket | decided |
//! |---|---|
//! | is of a newer generation than the one used last, or its session has no record | accepted |
//! | was the last one used, and is a resume ticket | accepted: its client may not have heard the answer |
//! | was the last one used, and is the backend's | refused: it was used. [`RedeemError::Spent`] |
//! | is of an older generation | refused: a newer one was used |
//! | is of the generation used last, but is another one | refused, and the session ends: one of the two is a copy |
//!
//! *Time.* The ledger has one clock for all nodes, a [`LedgerClock`]. It never goes back behind the records that it has forgotten, so
//! no record is needed again that is gone. Tickets are issued by this clock, and expire by it. An engine never shortens the life of
//! an entry.
//!
//! *Revocation* compares no times. Revoking a user's tickets raises the ledger's revision, and marks the user with it. A
//! ticket says which revision it was issued at, and is refused if the mark is above it.
//!
//! Bound: `ENGINE_MAX_REMEMBERED_TICKETS` entries. A sixteenth of them is kept for revocations. Past the rest new sessions are
//! refused, because forgetting one would let a ticket be used twice. What concerns a remembered entry needs no new one, and
//! goes on. The node is not ready from seven eighths on.

use std::time::Duration;

use crate::clock::UnixMs;
use crate::engine::{EngineError, Obstacle, RedeemError};
use crate::id::TicketKey;
use crate::ticket::{Revision, Ticket};

/// The longest life of a ticket, and so the time for which a revocation is remembered: a day, and the second to which a ticket's
/// expiry is rounded up.
pub(in crate::engine) const TICKET_LIFE_MAX: Duration = Duration::from_secs(86_401);

/// The engine remembers as many tickets as it may.
pub(in crate::engine) const TICKETS_FULL: EngineError =
    EngineError::Full { limit: "ENGINE_MAX_REMEMBERED_TICKETS" };

/// Returns how many entries there may be for one more session to begin.
pub(in crate::engine) const fn sessions_max(tickets_max: usize) -> usize {
    tickets_max - tickets_max / 16
}

/// Returns whether so many entries are close to the bound.
pub(in crate::engine) fn ledger_obstacle(count: usize, tickets_max: usize) -> Option<Obstacle> {
    (count >= tickets_max - tickets_max / 8).then_some(Obstacle::TicketsNearlyFull)
}

/// What the ledger remembers of a session, or of a single ticket that was revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::engine) struct TicketRecord {
    /// The generation used last.
    pub(in crate::engine) generation: u32,
    /// The ticket of that generation which was used.
    pub(in crate::engine) used: Option<TicketKey>,
    /// The ticket was revoked, or the session has ended. No ticket of it is accepted any more.
    pub(in crate::engine) revoked: bool,
}

/// The ledger's clock: the wall clock, as far ahead as that has ever gone back behind what was forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::engine) struct LedgerClock {
    /// The latest expiry of what was forgotten.
    pub(in crate::engine) forgotten_until: UnixMs,
    /// By how many milliseconds it is ahead.
    pub(in crate::engine) ahead_ms: u64,
}

impl LedgerClock {
    /// Returns the ledger's time when the wall clock says `now`.
    pub(in crate::engine) fn time(&self, now: UnixMs) -> UnixMs {
        UnixMs(now.0.saturating_add(self.ahead_ms)).max(self.forgotten_until)
    }

    /// Has the clock go on from its present time, should the wall clock have gone back. Until then it stands still.
    pub(in crate::engine) fn advance(&mut self, now: UnixMs) {
        self.ahead_ms = self.ahead_ms.max(self.forgotten_until.0.saturating_sub(now.0));
    }

    /// Notes that something was forgotten that had expired.
    pub(in crate::engine) fn forget(&mut self, expired_at: UnixMs) {
        self.forgotten_until = self.forgotten_until.max(expired_at);
    }
}

/// What the ledger knows when a ticket comes.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::engine) struct Known {
    pub(in crate::engine) session: Option<TicketRecord>,
    /// The ticket itself was revoked.
    pub(in crate::engine) revoked: bool,
    /// The revision at which all tickets of its user in its duel were revoked last.
    pub(in crate::engine) user_mark: Option<Revision>,
    /// There is no room for a new entry.
    pub(in crate::engine) is_full: bool,
}

/// What becomes of a session's record, and until when it is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Redeemed {
    pub(in crate::engine) record: TicketRecord,
    pub(in crate::engine) expires_at: UnixMs,
    /// The ticket is refused with [`RedeemError::Copied`] once the record is stored.
    pub(in crate::engine) is_copy: bool,
}

impl Known {
    /// Whether a ticket was revoked that was issued at `revision`, or its session has ended.
    pub(in crate::engine) fn is_revoked(&self, revision: Revision) -> bool {
        self.revoked
            || self.session.is_some_and(|session| session.revoked)
            || self.user_mark.is_some_and(|mark| mark > revision)
    }
}

/// Decides whether a ticket may be used at the instant `now` of the ledger's clock.
pub(in crate::engine) fn redeem(
    ticket: &Ticket,
    known: Known,
    resume_ttl: Duration,
    now: UnixMs,
) -> Result<Redeemed, RedeemError> {
    // One that expires later than any that is issued now was issued before the clock went back, or not by a hub.
    if ticket.expires_at <= now || ticket.expires_at > now.plus(TICKET_LIFE_MAX) {
        return Err(RedeemError::Expired);
    }
    if known.is_revoked(ticket.revision) {
        return Err(RedeemError::Revoked);
    }
    let (generation, key) = (ticket.generation.number, TicketKey::of(&ticket.jti));
    // All tickets of this generation and of those before were issued by now.
    let expires_at = now.plus(resume_ttl).max(ticket.expires_at);
    match known.session {
        None if known.is_full => return Err(TICKETS_FULL.into()),
        Some(last) if generation < last.generation => return Err(RedeemError::AlreadyUsed),
        Some(last) if generation == last.generation && last.used != Some(key) => {
            let record = TicketRecord { revoked: true, ..last };
            return Ok(Redeemed { record, expires_at, is_copy: true });
        }
        Some(last) if generation == last.generation && generation == 0 => {
            return Err(RedeemError::Spent);
        }
        _ => {}
    }
    let record = TicketRecord { generation, used: Some(key), revoked: false };
    Ok(Redeemed { record, expires_at, is_copy: false })
}

/// Decides whether a ticket or a user may be revoked: always, if there is an entry of it. Returns until when the revocation
/// must be remembered.
pub(in crate::engine) fn revoke(
    is_known: bool,
    is_full: bool,
    now: UnixMs,
) -> Result<UnixMs, EngineError> {
    if is_full && !is_known {
        return Err(TICKETS_FULL);
    }
    Ok(now.plus(TICKET_LIFE_MAX))
}

/// Returns the revision after `last`. A ledger that was lost begins above those that it had, unless the clock went back.
pub(in crate::engine) fn next_revision(last: Revision, now: UnixMs) -> Revision {
    Revision((last.0 + 1).max(now.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Role, Viewer};
    use crate::id::{DuelId, Jti, UserId};
    use crate::ticket::Generation;

    const NOW: UnixMs = UnixMs(1000);
    const TTL: Duration = Duration::from_secs(3600);

    fn ticket(jti: &str, number: u32) -> Ticket {
        Ticket {
            jti: Jti::parse(jti).unwrap(),
            duel: DuelId::try_from(1).unwrap(),
            viewer: Viewer { user: UserId::try_from(1).unwrap(), role: Role::Player },
            generation: Generation { session: TicketKey([0; 16]), number },
            revision: Revision(5),
            expires_at: UnixMs(5000),
        }
    }

    /// Presents tickets one after another, as jti and generation. Returns how each was answered.
    fn present(tickets: &[(&str, u32)]) -> Vec<Result<(), RedeemError>> {
        let mut known = Known::default();
        let mut answers = Vec::new();
        for (jti, number) in tickets {
            answers.push(redeem(&ticket(jti, *number), known, TTL, NOW).and_then(|redeemed| {
                known.session = Some(redeemed.record);
                if redeemed.is_copy { Err(RedeemError::Copied) } else { Ok(()) }
            }));
        }
        answers
    }

    #[test]
    fn a_resume_ticket_is_good_until_its_successor_is_used() {
        use RedeemError::{AlreadyUsed, Copied, Revoked, Spent};
        assert_eq!(present(&[("a", 0), ("a", 0)]), [Ok(()), Err(Spent)]);
        assert_eq!(present(&[("a", 0), ("b", 1), ("b", 1), ("b", 1)]), [Ok(()); 4]);
        assert_eq!(
            present(&[("b", 1), ("d", 3), ("b", 1), ("c", 2), ("d", 3)]),
            [Ok(()), Ok(()), Err(AlreadyUsed), Err(AlreadyUsed), Ok(())]
        );
        assert_eq!(
            present(&[("b", 1), ("copy", 1), ("b", 1), ("c", 2)]),
            [Ok(()), Err(Copied), Err(Revoked), Err(Revoked)]
        );
    }

    #[test]
    fn what_is_revoked_is_told_by_revisions_and_what_has_expired_by_the_ledgers_clock() {
        let at = |known, now| redeem(&ticket("a", 0), known, TTL, UnixMs(now)).map(|_| ());
        let marked = |mark| Known { user_mark: Some(Revision(mark)), ..Known::default() };
        assert_eq!(at(marked(5), 1000), Ok(()));
        assert_eq!(at(marked(6), 1000), Err(RedeemError::Revoked));
        assert_eq!(at(Known::default(), 4999), Ok(()));
        assert_eq!(at(Known::default(), 5000), Err(RedeemError::Expired));
        let endless = Ticket { expires_at: UnixMs(1 << 50), ..ticket("a", 0) };
        let used = redeem(&endless, Known::default(), TTL, NOW);
        assert_eq!(used, Err(RedeemError::Expired), "its revocation would be forgotten before it");
        assert_eq!(at(Known { is_full: true, ..Known::default() }, 0), Err(TICKETS_FULL.into()));
        assert_eq!(next_revision(Revision(9), UnixMs(4)), Revision(10));
        assert_eq!(next_revision(Revision(0), UnixMs(4)), Revision(4));
    }

    #[test]
    fn the_ledgers_clock_never_goes_back_and_never_stands_still_for_good() {
        let mut clock = LedgerClock::default();
        assert_eq!(clock.time(UnixMs(1000)), UnixMs(1000));
        clock.forget(UnixMs(900));
        assert_eq!(clock.time(UnixMs(400)), UnixMs(900));
        clock.advance(UnixMs(400));
        assert_eq!([400, 450].map(|now| clock.time(UnixMs(now))), [900, 950].map(UnixMs));
        clock.advance(UnixMs(1000));
        assert_eq!(clock.time(UnixMs(1000)), UnixMs(1500), "what was issued stays in order");
    }

    #[test]
    fn a_record_outlives_every_ticket_that_it_decides_about() {
        let expires_at =
            |ttl| redeem(&ticket("a", 0), Known::default(), ttl, NOW).unwrap().expires_at;
        assert_eq!(expires_at(TTL), NOW.plus(TTL));
        assert_eq!(expires_at(Duration::ZERO), UnixMs(5000));
    }
}
