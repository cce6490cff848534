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
//! *A user who begins very many sessions in a duel* ([`limits::SESSIONS_PER_USER_MAX`]) has the half of them forgotten that was used
//! longest ago. The ledger's revision is raised, and the user's watermark in the duel is put there: a ticket that was issued before
//! it, and whose session has no record, counts as used. So nothing opens twice, what is still remembered goes on, and a ticket
//! issued afterwards is good. The watermark is kept until the last of the forgotten records would have expired. That is no later
//! than the records that were kept, as long as resume tickets live longer than others.
//!
//! Bound: `ENGINE_MAX_REMEMBERED_TICKETS` entries. A sixteenth of them is kept for revocations. Past the rest new sessions are
//! refused, because forgetting one would let a ticket be used twice. What concerns a remembered entry needs no new one, and
//! goes on. The node is not ready from seven eighths on.

use std::time::Duration;

use crate::clock::UnixMs;
use crate::engine::{EngineError, Obstacle, RedeemError};
use crate::id::TicketKey;
use crate::limits;
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
    /// The revision at which sessions of its user in its duel were crowded out last.
    pub(in crate::engine) watermark: Option<Revision>,
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

    /// Whether the session of a ticket that was issued at `revision` may be one of those that were crowded out.
    fn is_crowded_out(&self, revision: Revision) -> bool {
        self.session.is_none() && self.watermark.is_some_and(|mark| mark > revision)
    }

    /// Whether a connection whose ticket was issued at `revision` may be handed another one.
    pub(in crate::engine) fn may_renew(&self, revision: Revision) -> bool {
        // One that was crowded out may have been revoked before.
        !self.is_revoked(revision) && !self.is_crowded_out(revision)
    }
}

/// The sessions of a user in a duel that have a record, in the order of their last use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::engine) struct UserSessions(Vec<TicketKey>);

impl UserSessions {
    /// Notes that a session is used. Returns those that it crowds out: their records go, and a watermark comes.
    pub(in crate::engine) fn note_use(&mut self, session: TicketKey) -> Vec<TicketKey> {
        self.forget(session);
        self.0.push(session);
        if self.0.len() <= limits::SESSIONS_PER_USER_MAX {
            return Vec::new();
        }
        self.0.drain(..limits::SESSIONS_PER_USER_MAX / 2).collect()
    }

    /// Notes that the record of a session is gone.
    pub(in crate::engine) fn forget(&mut self, session: TicketKey) {
        self.0.retain(|other| *other != session);
    }

    pub(in crate::engine) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads [`UserSessions::to_bytes`]. Returns `None` if it is anything else.
    pub(in crate::engine) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (keys, []) = bytes.as_chunks() else { return None };
        Some(Self(keys.iter().copied().map(TicketKey).collect()))
    }

    pub(in crate::engine) fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|key| key.0).collect()
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
    if known.is_crowded_out(ticket.revision) {
        // Its client gets another one.
        return Err(RedeemError::AlreadyUsed);
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
    fn before_the_watermark_a_session_without_a_record_counts_as_used() {
        let at =
            |mark, session| Known { watermark: Some(Revision(mark)), session, ..Known::default() };
        let answer = |known| redeem(&ticket("b", 1), known, TTL, NOW).map(|_| ());
        let record = Some(TicketRecord::default());
        assert_eq!(answer(at(5, None)), Ok(()), "it was issued afterwards");
        assert_eq!(answer(at(6, None)), Err(RedeemError::AlreadyUsed));
        assert_eq!(answer(at(6, record)), Ok(()), "it is remembered");
        let ended = Some(TicketRecord { revoked: true, ..TicketRecord::default() });
        assert_eq!(answer(at(6, ended)), Err(RedeemError::Revoked));
        let renewed = [at(5, None), at(6, None), at(6, record), at(6, ended)];
        let renewed = renewed.map(|known| known.may_renew(Revision(5)));
        assert_eq!(renewed, [true, false, true, false]);
    }

    #[test]
    fn the_half_of_a_users_sessions_that_was_used_longest_ago_goes_when_there_are_too_many() {
        const MAX: usize = limits::SESSIONS_PER_USER_MAX;
        let key = |number: usize| TicketKey((number as u128).to_be_bytes());
        let mut sessions = UserSessions::default();
        for number in 0..MAX {
            assert_eq!(sessions.note_use(key(number)), []);
        }
        assert_eq!(sessions.note_use(key(0)), [], "it goes on");
        let gone: Vec<_> = (1..=MAX / 2).map(key).collect();
        assert_eq!(sessions.note_use(key(MAX)), gone);
        let kept: Vec<_> = (MAX / 2 + 1..MAX).chain([0, MAX]).map(key).collect();
        assert_eq!(sessions, UserSessions(kept));
        assert_eq!(UserSessions::from_bytes(&sessions.to_bytes()), Some(sessions.clone()));
        assert_eq!(UserSessions::from_bytes(&[0; 17]), None);
        sessions.forget(key(MAX));
        let gone = (100..).map(|number| sessions.note_use(key(number)));
        assert_eq!(gone.take_while(Vec::is_empty).count(), MAX / 2, "and not at each");
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
