//! What a request is about, for the log: the duel and the user that it names.

use crate::pb;
use crate::pb::revoke_tickets_request::Tickets;

/// A duel and a user as a request names them, in range or not. `None`: it names none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) duel_id: Option<u64>,
    pub(super) user_id: Option<u64>,
}

impl Subject {
    fn new(duel_id: u64, user_id: u64) -> Self {
        let named = |id| (id != 0).then_some(id);
        Self { duel_id: named(duel_id), user_id: named(user_id) }
    }
}

/// A request that may name a duel and a user.
pub(super) trait Named {
    /// Returns what the request is about.
    fn subject(&self) -> Subject;
}

macro_rules! named {
    ($($request:ident: |$of:ident| $duel:expr, $user:expr;)*) => {
        $(impl Named for pb::$request {
            fn subject(&self) -> Subject {
                let $of = self;
                Subject::new($duel, $user)
            }
        })*
    };
}

named! {
    OpenDuelRequest: |of| of.duel_id, 0;
    IssueTicketRequest: |of| of.duel_id, of.user_id;
    PushEventRequest: |of| of.duel_id, 0;
    CloseDuelRequest: |of| of.duel_id, 0;
    GetDuelRequest: |of| of.duel_id, 0;
    DisconnectRequest: |of| of.duel_id, of.user_id;
}

impl Named for pb::RevokeTicketsRequest {
    fn subject(&self) -> Subject {
        match &self.tickets {
            Some(Tickets::User(tickets)) => Subject::new(tickets.duel_id, tickets.user_id),
            Some(Tickets::Jti(_)) | None => Subject::default(),
        }
    }
}

impl Named for pb::PushEventsRequest {
    fn subject(&self) -> Subject {
        self.push.as_ref().map(Named::subject).unwrap_or_default()
    }
}

impl Named for pb::ListDuelsRequest {
    fn subject(&self) -> Subject {
        Subject::default()
    }
}

impl Named for pb::WatchDuelsRequest {
    /// A watch of one duel names it.
    fn subject(&self) -> Subject {
        match self.duel_ids[..] {
            [duel_id] => Subject::new(duel_id, 0),
            _ => Subject::default(),
        }
    }
}
