//! The model of the ticket ledger: what becomes of a ticket that is shown.

use std::collections::{HashMap, HashSet};

use duelhub::engine::Revocation;
use duelhub::id::{DuelId, TicketKey, UserId};
use duelhub::ticket::{Revision, Ticket};

/// What a ticket is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accepted,
    /// It is the backend's and was used, and no other of its session was.
    Spent,
    /// A newer one of its session was used.
    Used,
    Revoked,
    /// Another one of its generation was used.
    Copied,
}

#[derive(Debug)]
struct Session {
    generation: u32,
    used: TicketKey,
    ended: bool,
}

/// Everything that was done with tickets.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    sessions: HashMap<TicketKey, Session>,
    revoked: HashSet<TicketKey>,
    marks: HashMap<(DuelId, UserId), Revision>,
}

impl Ledger {
    pub(crate) fn verdict(&self, ticket: &Ticket) -> Verdict {
        let (session, key) = (ticket.generation.session, TicketKey::of(&ticket.jti));
        let mark = self.marks.get(&(ticket.duel, ticket.viewer.user));
        let by_user = mark.is_some_and(|mark| *mark > ticket.revision);
        if by_user || self.revoked.contains(&key) || self.revoked.contains(&session) {
            return Verdict::Revoked;
        }
        let Some(known) = self.sessions.get(&session) else { return Verdict::Accepted };
        let number = ticket.generation.number;
        match known {
            Session { ended: true, .. } => Verdict::Revoked,
            Session { generation, .. } if number > *generation => Verdict::Accepted,
            Session { generation, .. } if number < *generation => Verdict::Used,
            Session { used, .. } if *used != key => Verdict::Copied,
            _ if number == 0 => Verdict::Spent,
            _ => Verdict::Accepted,
        }
    }

    /// A ticket is shown, and answered by its verdict.
    pub(crate) fn show(&mut self, ticket: &Ticket, verdict: Verdict) {
        let session = ticket.generation.session;
        match verdict {
            Verdict::Accepted => {
                let (generation, used) = (ticket.generation.number, TicketKey::of(&ticket.jti));
                self.sessions.insert(session, Session { generation, used, ended: false });
            }
            Verdict::Copied => {
                self.sessions.entry(session).and_modify(|session| session.ended = true);
            }
            Verdict::Spent | Verdict::Used | Verdict::Revoked => {}
        }
    }

    /// Tickets are revoked, after which tickets are issued at `revision`.
    pub(crate) fn revoke(&mut self, revocation: &Revocation, revision: Revision) {
        match revocation {
            Revocation::Ticket(jti) => _ = self.revoked.insert(TicketKey::of(jti)),
            Revocation::User { duel, user } => _ = self.marks.insert((*duel, *user), revision),
        }
    }
}
