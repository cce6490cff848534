//! What the model knows of a push: enough to say who is shown what, without asking the code that is tested.

use duelhub::event::{Audience, DUEL_UPDATE, EventType, Payload, Push, Role, Viewer};
use duelhub::id::{DuelId, UserId};
use duelhub::limits;

/// The types that events have. With the audiences below they are fewer kinds than an engine keeps beyond its log.
pub(crate) const TYPES: [&str; 3] = [DUEL_UPDATE, "score", "timer"];

/// To whom a push goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    All,
    Players,
    Only(u64),
    Except(u64),
}

/// The audiences that events have.
pub(crate) const AUDIENCES: [To; 5] =
    [To::All, To::Players, To::Only(1), To::Only(2), To::Except(1)];

const _: () = assert!(TYPES.len() * AUDIENCES.len() <= limits::LATEST_TYPES_MAX);

/// One push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spec {
    /// Tells it from every other push of the schedule.
    pub(crate) nth: u64,
    pub(crate) event_type: &'static str,
    pub(crate) to: To,
    /// The user who has a view of their own.
    pub(crate) view: Option<u64>,
    /// The number of its idempotency key.
    pub(crate) key: Option<u64>,
    pub(crate) coalesce: Option<&'static str>,
    pub(crate) transient: bool,
}

/// One event as a player sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) seq: u64,
    /// `duel_closed` for the end of a duel.
    pub(crate) event_type: String,
    /// The text of the payload; for the end of a duel, how it ended.
    pub(crate) body: String,
}

/// A user's id.
pub(crate) fn user(user: u64) -> UserId {
    UserId::try_from(user).unwrap()
}

impl Spec {
    /// As the hub takes it.
    pub(crate) fn push(&self, duel: DuelId) -> Push {
        let payload = |of| Payload::parse(duel, self.payload(of), limits::PUSH_BYTES_MAX).unwrap();
        let view = |id| (user(id), payload(Some(id)));
        Push {
            event_type: EventType::parse(self.event_type).unwrap(),
            payload: payload(None),
            audience: match self.to {
                To::All => Audience::All,
                To::Players => Audience::Players,
                To::Only(id) => Audience::Only([user(id)].into()),
                To::Except(id) => Audience::Except([user(id)].into()),
            },
            views: self.view.map(view).into_iter().collect(),
            coalesce_key: self.coalesce.map(Into::into),
            transient: self.transient,
        }
    }

    /// What the backend pushes for everybody, or for the user who has a view of their own.
    pub(crate) fn payload(&self, of: Option<u64>) -> String {
        let nth = self.nth;
        match of {
            None => format!(r#"{{"nth":{nth}}}"#),
            Some(id) => format!(r#"{{"nth":{nth},"for":{id}}}"#),
        }
    }

    /// Its idempotency key as the hub takes it.
    pub(crate) fn idempotency_key(&self) -> Option<Box<str>> {
        self.key.map(|key| format!("key {key}").into())
    }

    /// Whether it is addressed to `viewer`.
    pub(crate) fn includes(&self, viewer: Viewer) -> bool {
        match self.to {
            To::All => true,
            To::Players => viewer.role == Role::Player,
            To::Only(id) => viewer.user.get() == id,
            To::Except(id) => viewer.user.get() != id,
        }
    }

    /// The body that `viewer` is shown.
    pub(crate) fn body(&self, duel: DuelId, viewer: Viewer) -> String {
        let (nth, id) = (self.nth, viewer.user.get());
        if self.view == Some(id) {
            format!(r#"{{"duel_id":{duel},"nth":{nth},"for":{id}}}"#)
        } else {
            format!(r#"{{"duel_id":{duel},"nth":{nth}}}"#)
        }
    }
}
