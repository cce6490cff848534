//! An event as engines write it down: a protobuf message, whose fields can be added to without misreading an older one.
//! The tags are the format of every store.

use std::sync::Arc;

use prost::Message;
use prost::encoding::encoded_len_varint;

use crate::clock::UnixMs;
use crate::event::{Audience, Content, DuelStatus, Event, EventType, Outcome, Payload, Push};
use crate::id::UserId;

/// What was read is not what an engine writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is malformed")]
pub(super) struct Malformed(pub(super) &'static str);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
pub(super) enum StatusRow {
    Open = 0,
    Finished = 1,
    Cancelled = 2,
}

impl From<DuelStatus> for StatusRow {
    fn from(status: DuelStatus) -> Self {
        match status {
            DuelStatus::Open => Self::Open,
            DuelStatus::Closed(Outcome::Finished) => Self::Finished,
            DuelStatus::Closed(Outcome::Cancelled) => Self::Cancelled,
        }
    }
}

/// An event. Its seq stands beside it.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct EventRow {
    #[prost(uint64, tag = "1")]
    stored_at: u64,
    /// Set for the end of a duel, which has nothing else.
    #[prost(enumeration = "StatusRow", tag = "2")]
    ending: i32,
    #[prost(string, tag = "3")]
    event_type: String,
    #[prost(string, tag = "4")]
    json: String,
    #[prost(enumeration = "AudienceRow", tag = "5")]
    audience: i32,
    #[prost(uint64, repeated, tag = "6")]
    users: Vec<u64>,
    #[prost(message, repeated, tag = "7")]
    views: Vec<ViewRow>,
    #[prost(string, optional, tag = "8")]
    coalesce_key: Option<String>,
    #[prost(bool, tag = "9")]
    transient: bool,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct ViewRow {
    #[prost(uint64, tag = "1")]
    user: u64,
    #[prost(string, tag = "2")]
    json: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
enum AudienceRow {
    All = 0,
    Players = 1,
    Only = 2,
    Except = 3,
}

/// Returns what an event counts in a log, in every engine alike: the length of its row, in bytes, without its time.
#[must_use]
pub fn stored_size(content: &Content) -> usize {
    // What a field of bytes takes: its tag, its length, itself.
    let field = |bytes: usize| 1 + encoded_len_varint(bytes as u64) + bytes;
    // Of an enumeration or a bool, whose first value is not written.
    const ENUM: usize = 2;
    let Content::Pushed(push) = content else { return ENUM };
    let id = |user: &UserId| encoded_len_varint(user.get());
    let json = |payload: &Payload| field(payload.json().len());
    let audience = match &push.audience {
        Audience::All => 0,
        Audience::Players => ENUM,
        Audience::Only(users) | Audience::Except(users) if users.is_empty() => ENUM,
        Audience::Only(users) | Audience::Except(users) => ENUM + field(users.iter().map(id).sum()),
    };
    let view = |(user, payload): &(UserId, Payload)| field(1 + id(user) + json(payload));
    field(push.event_type.as_str().len())
        + json(&push.payload)
        + audience
        + push.views.iter().map(view).sum::<usize>()
        + push.coalesce_key.as_ref().map_or(0, |key| field(key.len()))
        + if push.transient { ENUM } else { 0 }
}

/// An event that is not yet numbered, and its row, but for when it is stored.
#[derive(Debug)]
pub(super) struct Unnumbered {
    content: Content,
    row: Vec<u8>,
}

impl Unnumbered {
    pub(super) fn of(content: Content) -> Self {
        let row = EventRow::of(&content).encode_to_vec();
        Self { content, row }
    }

    /// Returns its row, without its time. Its length is the event's [`stored_size`].
    pub(super) fn row(&self) -> &[u8] {
        &self.row
    }

    /// The event alone.
    pub(super) fn number(self, seq: u64, stored_at: UnixMs) -> Arc<Event> {
        Arc::new(Event { seq, stored_at, content: self.content })
    }

    /// The event, and its row.
    pub(super) fn store(self, seq: u64, stored_at: UnixMs) -> (Arc<Event>, Vec<u8>) {
        let Self { content, mut row } = self;
        // A message after a message is one with the fields of both.
        row.extend(EventRow { stored_at: stored_at.0, ..EventRow::default() }.encode_to_vec());
        (Arc::new(Event { seq, stored_at, content }), row)
    }
}

impl EventRow {
    fn of(content: &Content) -> Self {
        let mut row = Self::default();
        let push = match content {
            Content::Closed(ending) => {
                row.set_ending(DuelStatus::Closed(*ending).into());
                return row;
            }
            Content::Pushed(push) => push,
        };
        let (audience, users): (_, &[UserId]) = match &push.audience {
            Audience::All => (AudienceRow::All, &[]),
            Audience::Players => (AudienceRow::Players, &[]),
            Audience::Only(users) => (AudienceRow::Only, users),
            Audience::Except(users) => (AudienceRow::Except, users),
        };
        row.set_audience(audience);
        row.users = users.iter().map(|user| user.get()).collect();
        row.event_type = push.event_type.as_str().to_owned();
        row.json = push.payload.json().to_owned();
        let view = |(user, payload): &(UserId, Payload)| ViewRow {
            user: user.get(),
            json: payload.json().to_owned(),
        };
        row.views = push.views.iter().map(view).collect();
        row.coalesce_key = push.coalesce_key.as_deref().map(ToOwned::to_owned);
        row.transient = push.transient;
        row
    }

    pub(super) fn into_event(self, seq: u64) -> Result<Arc<Event>, Malformed> {
        let stored_at = UnixMs(self.stored_at);
        let content = match self.ending() {
            StatusRow::Finished => Content::Closed(Outcome::Finished),
            StatusRow::Cancelled => Content::Closed(Outcome::Cancelled),
            StatusRow::Open => Content::Pushed(self.into_push()?),
        };
        Ok(Arc::new(Event { seq, stored_at, content }))
    }

    fn into_push(self) -> Result<Push, Malformed> {
        let user = |id: u64| UserId::try_from(id).map_err(|_| Malformed("a user's id"));
        let audience = self.audience();
        let users = self.users.into_iter().map(user).collect::<Result<Box<[_]>, _>>()?;
        let view = |row: ViewRow| Ok((user(row.user)?, Payload::from_stored(row.json.into())));
        Ok(Push {
            event_type: EventType::from_stored(self.event_type.into()),
            payload: Payload::from_stored(self.json.into()),
            audience: match audience {
                AudienceRow::All => Audience::All,
                AudienceRow::Players => Audience::Players,
                AudienceRow::Only => Audience::Only(users),
                AudienceRow::Except => Audience::Except(users),
            },
            views: self.views.into_iter().map(view).collect::<Result<_, Malformed>>()?,
            coalesce_key: self.coalesce_key.map(Into::into),
            transient: self.transient,
        })
    }
}

/// Reads an event.
pub(super) fn read(row: &[u8], seq: u64) -> Result<Arc<Event>, Malformed> {
    EventRow::decode(row).map_err(|_| Malformed("a row"))?.into_event(seq)
}

/// Reads an event whose row does not say when it was stored.
pub(super) fn read_undated(
    row: &[u8],
    seq: u64,
    stored_at: UnixMs,
) -> Result<Arc<Event>, Malformed> {
    let row = EventRow::decode(row).map_err(|_| Malformed("a row"))?;
    EventRow { stored_at: stored_at.0, ..row }.into_event(seq)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::DuelId;

    #[test]
    fn events_are_read_as_they_were_written() {
        let duel = DuelId::try_from(7).unwrap();
        let [one, two] = [1, 2].map(|id| UserId::try_from(id).unwrap());
        let payload = |json: &str| Payload::parse(duel, json, 100).unwrap();
        let push = |audience, views: Box<[_]>, coalesce_key: Option<&str>| {
            Content::Pushed(Push {
                event_type: EventType::parse("round.started").unwrap(),
                payload: payload(r#"{"a":1}"#),
                audience,
                views,
                coalesce_key: coalesce_key.map(Into::into),
                transient: coalesce_key.is_some(),
            })
        };
        let contents = [
            push(Audience::All, Box::default(), None),
            push(Audience::Only([].into()), Box::default(), None),
            push(
                Audience::Except(
                    (1..300).map(|id| UserId::try_from(id * id * id).unwrap()).collect(),
                ),
                [(one, payload(&format!(r#"{{"a":"{}"}}"#, "x".repeat(80))))].into(),
                Some(&"k".repeat(200)),
            ),
            push(Audience::Players, [(two, payload("{}"))].into(), Some("")),
            push(Audience::Only([one, two].into()), Box::default(), Some("key")),
            push(Audience::Except([one].into()), Box::default(), None),
            Content::Closed(Outcome::Finished),
            Content::Closed(Outcome::Cancelled),
        ];
        for content in contents {
            let size = stored_size(&content);
            let unnumbered = Unnumbered::of(content);
            assert_eq!(unnumbered.row().len(), size);
            let (event, row) = unnumbered.store(3, UnixMs(5));
            assert_eq!((event.seq, event.stored_at), (3, UnixMs(5)));
            let read = super::read(&row, 3).unwrap();
            assert_eq!(read, event);
        }
    }
}
