//! What the backend pushes, and where it stands.
//!
//! An event is made once, shared by `Arc`, and never changed. Who may see it is decided here and nowhere else
//! ([`Push::payload_for`]), so that live delivery, resume and the opening state cannot disagree about it.
//! Deliberately absent: WebSocket frames, protobuf, storage.

mod payload;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

pub use self::payload::{Payload, PayloadError};
use crate::clock::UnixMs;
use crate::id::UserId;

/// One unbroken history of a duel. Random, so that a history begun anew is never taken for the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// A new history.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// As an engine stores it.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// What an engine has stored.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Where an event stands in its duel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// The history that `seq` counts in.
    pub epoch: Epoch,
    /// Dense within the epoch, from 1. 0 is the place before the first event.
    pub seq: u64,
}

/// A text that is no position: it must be 16 hex digits, a colon, and a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be <epoch>:<seq>")]
pub struct PositionError;

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let (epoch, seq) = text.split_once(':').ok_or(PositionError)?;
        if epoch.len() != 16 || seq.starts_with('+') {
            return Err(PositionError);
        }
        let epoch = Epoch(u64::from_str_radix(epoch, 16).map_err(|_| PositionError)?);
        let seq = seq.parse().map_err(|_| PositionError)?;
        Ok(Self { epoch, seq })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.seq)
    }
}

/// What a user may do in a duel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Takes part.
    Player,
    /// Looks on.
    Spectator,
}

/// Who looks at an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Viewer {
    /// The user.
    pub user: UserId,
    /// In which role.
    pub role: Role,
}

/// The state of a duel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DuelStatus {
    /// Open for pushes and connections.
    Open,
    /// Closed for good.
    Closed(Outcome),
}

/// How a duel was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It came to its end.
    Finished,
    /// It was called off.
    Cancelled,
}

/// To whom an event is addressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// Everybody in the duel.
    All,
    /// Everybody in the role of a player.
    Players,
    /// These users.
    Only(Box<[UserId]>),
    /// Everybody but these users.
    Except(Box<[UserId]>),
}

impl Audience {
    /// Whether the event is addressed to `viewer`.
    #[must_use]
    pub fn includes(&self, viewer: Viewer) -> bool {
        match self {
            Self::All => true,
            Self::Players => viewer.role == Role::Player,
            Self::Only(users) => users.contains(&viewer.user),
            Self::Except(users) => !users.contains(&viewer.user),
        }
    }
}

/// The longest event type, in bytes.
pub const EVENT_TYPE_BYTES_MAX: usize = 64;

/// The type that every WebApp knows.
pub const DUEL_UPDATE: &str = "duel_update";

/// Frame types that are the hub's own, so that no backend can forge them.
const RESERVED_TYPES: [&str; 5] = ["connected", "presence", "duel_closed", "pong", "error"];

/// The type of an event: 1 to [`EVENT_TYPE_BYTES_MAX`] characters out of `a-z 0-9 _ . -`, beginning with a letter. Most are
/// [`DUEL_UPDATE`], which takes no memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EventType(Cow<'static, str>);

/// A text that is no event type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EventTypeError {
    /// Too long, or of other characters.
    #[error("must be 1 to 64 characters out of a-z 0-9 _ . - beginning with a letter")]
    Malformed,
    /// One of the hub's own.
    #[error("is reserved for the hub's own frames")]
    Reserved,
}

impl EventType {
    /// Checks the text.
    ///
    /// # Errors
    /// [`EventTypeError`], with what is wrong.
    pub fn parse(text: &str) -> Result<Self, EventTypeError> {
        if text == DUEL_UPDATE {
            return Ok(Self::duel_update());
        }
        let fits = text.len() <= EVENT_TYPE_BYTES_MAX
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-'));
        if !fits {
            return Err(EventTypeError::Malformed);
        }
        if RESERVED_TYPES.contains(&text) {
            return Err(EventTypeError::Reserved);
        }
        Ok(Self(Cow::Owned(text.to_owned())))
    }

    /// One that was checked before an engine stored it.
    #[must_use]
    pub fn from_stored(text: Box<str>) -> Self {
        if &*text == DUEL_UPDATE { Self::duel_update() } else { Self(text.into_string().into()) }
    }

    /// [`DUEL_UPDATE`].
    #[must_use]
    pub const fn duel_update() -> Self {
        Self(Cow::Borrowed(DUEL_UPDATE))
    }

    /// As it stands in the frame.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a backend asks to be pushed, checked and complete.
#[derive(Debug, Clone, PartialEq)]
pub struct Push {
    /// The frame's type.
    pub event_type: EventType,
    /// What everybody in the audience receives who has no view of their own.
    pub payload: Payload,
    /// To whom.
    pub audience: Audience,
    /// Single users' own views, each user once.
    pub views: Box<[(UserId, Payload)]>,
    /// Events of which a lagging connection needs only the newest share this key.
    pub coalesce_key: Option<Box<str>>,
    /// It makes no sense later: it is replayed to who resumes, and is no part of the present state.
    pub transient: bool,
}

/// 128 bits of SHA-256 over the content of a push, or of parts of it: equal for equal content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 16]);

impl Push {
    /// An event with the same payload for everybody, and nothing said of it otherwise.
    #[must_use]
    pub fn new(event_type: EventType, payload: Payload) -> Self {
        Self {
            event_type,
            payload,
            audience: Audience::All,
            views: Box::default(),
            coalesce_key: None,
            transient: false,
        }
    }

    /// The payload that `viewer` receives, or `None` if the event is not addressed to them.
    #[must_use]
    pub fn payload_for(&self, viewer: Viewer) -> Option<&Payload> {
        if !self.audience.includes(viewer) {
            return None;
        }
        let own = self.views.iter().find(|(user, _)| *user == viewer.user);
        Some(own.map_or(&self.payload, |(_, payload)| payload))
    }

    /// Equal for equal content, whatever the process or the node.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let mut parts = Parts::default();
        parts.kind(self);
        parts.add(self.payload.json().as_bytes());
        for (user, payload) in &self.views {
            parts.add(&user.get().to_be_bytes());
            parts.add(payload.json().as_bytes());
        }
        parts.add(self.coalesce_key.as_deref().unwrap_or_default().as_bytes());
        parts.add(&[u8::from(self.transient)]);
        parts.fingerprint()
    }

    /// The same of its type and its audience alone.
    #[must_use]
    pub fn kind_fingerprint(&self) -> Fingerprint {
        let mut parts = Parts::default();
        parts.kind(self);
        parts.fingerprint()
    }
}

/// A hash of several parts, each preceded by its length, so that no two contents run together to the same bytes.
#[derive(Default)]
struct Parts(Sha256);

impl Parts {
    fn add(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    fn kind(&mut self, push: &Push) {
        self.add(push.event_type.as_str().as_bytes());
        let (kind, users): (u8, &[UserId]) = match &push.audience {
            Audience::All => (0, &[]),
            Audience::Players => (1, &[]),
            Audience::Only(users) => (2, users),
            Audience::Except(users) => (3, users),
        };
        self.add(&[kind]);
        self.add(&users.iter().flat_map(|user| user.get().to_be_bytes()).collect::<Vec<_>>());
    }

    fn fingerprint(self) -> Fingerprint {
        let digest = self.0.finalize();
        let mut first = [0; 16];
        first.copy_from_slice(&digest[..16]);
        Fingerprint(first)
    }
}

/// What stands at one place of a log.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// A backend's push.
    Pushed(Push),
    /// The end of the duel; nothing follows it.
    Closed(Outcome),
}

/// One entry of a duel's log.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Where it stands.
    pub seq: u64,
    /// When the engine stored it.
    pub stored_at: UnixMs,
    /// What it is.
    pub content: Content,
}

impl Event {
    /// Whether the event is addressed to `viewer`. The end of a duel concerns everybody.
    #[must_use]
    pub fn includes(&self, viewer: Viewer) -> bool {
        match &self.content {
            Content::Pushed(push) => push.audience.includes(viewer),
            Content::Closed(_) => true,
        }
    }

    /// The push, unless it is the end of the duel.
    #[must_use]
    pub const fn push(&self) -> Option<&Push> {
        match &self.content {
            Content::Pushed(push) => Some(push),
            Content::Closed(_) => None,
        }
    }

    /// The push, if it can be part of the present state.
    #[must_use]
    pub fn state(&self) -> Option<&Push> {
        self.push().filter(|push| !push.transient)
    }
}

/// What the data plane sends for a payload; made by the first connection that needs it, shared by the others.
pub type Encoded = Bytes;

#[cfg(test)]
mod tests {
    use super::*;

    fn viewer(user: u64, role: Role) -> Viewer {
        Viewer { user: UserId::try_from(user).unwrap(), role }
    }

    fn users(ids: &[u64]) -> Box<[UserId]> {
        ids.iter().map(|id| UserId::try_from(*id).unwrap()).collect()
    }

    #[test]
    fn an_audience_includes_whom_it_names() {
        let (one, two) = (viewer(1, Role::Player), viewer(2, Role::Player));
        let looker = viewer(3, Role::Spectator);
        let table = [
            (Audience::All, [true, true, true]),
            (Audience::Players, [true, true, false]),
            (Audience::Only(users(&[2])), [false, true, false]),
            (Audience::Except(users(&[2])), [true, false, true]),
        ];
        for (audience, expected) in table {
            assert_eq!([one, two, looker].map(|v| audience.includes(v)), expected, "{audience:?}");
        }
    }

    #[test]
    fn positions_read_as_they_print() {
        let position = Position { epoch: Epoch::random(), seq: 7 };
        assert_eq!(position.to_string().parse(), Ok(position));
        for bad in [
            "",
            "1",
            ":",
            "0123456789abcdef",
            "0123456789abcdef:",
            "0123456789abcdef:-1",
            "0123456789abcdef:+1",
            "0123456789abcdeg:1",
            "123:1",
            "0123456789abcdef:99999999999999999999",
        ] {
            assert_eq!(bad.parse::<Position>(), Err(PositionError), "{bad:?}");
        }
    }

    #[test]
    fn event_types_are_plain_and_not_the_hubs_own() {
        assert!(EventType::parse("round.started-2_x").is_ok());
        for bad in ["", "A", "1a", "a b", "a\"", &"a".repeat(65)] {
            assert_eq!(EventType::parse(bad), Err(EventTypeError::Malformed), "{bad:?}");
        }
        assert_eq!(EventType::parse("pong"), Err(EventTypeError::Reserved));
    }

    #[test]
    fn fingerprints_differ_with_every_part_of_the_content() {
        let duel = crate::id::DuelId::try_from(5).unwrap();
        let base = Push::new(EventType::duel_update(), Payload::parse(duel, "{}", 100).unwrap());
        assert_eq!(base.fingerprint(), base.clone().fingerprint());
        let others = [
            Push { event_type: EventType::parse("x").unwrap(), ..base.clone() },
            Push { payload: Payload::parse(duel, r#"{"a":1}"#, 100).unwrap(), ..base.clone() },
            Push { audience: Audience::Players, ..base.clone() },
            Push { audience: Audience::Only(users(&[1])), ..base.clone() },
            Push { views: [(users(&[1])[0], base.payload.clone())].into(), ..base.clone() },
            Push { coalesce_key: Some("k".into()), ..base.clone() },
            Push { transient: true, ..base.clone() },
        ];
        for other in others {
            assert_ne!(base.fingerprint(), other.fingerprint(), "{other:?}");
        }
    }
}
