//! What stands in the store: the keys, and the rows as protobuf messages, whose fields can be added to without misreading
//! an older store. The tags are the format; a change of meaning needs a new [`FORMAT`].
//!
//! One keyspace holds everything. A key is one letter for the kind of the row, then numbers in big-endian, so that the
//! rows of a duel stand together in the order of `seq`.

use std::time::Duration;

use bytes::BufMut as _;
use fjall::UserKey;
use prost::Message;

use super::Fault;
use crate::clock::UnixMs;
use crate::engine::event_row::StatusRow;
use crate::engine::{DuelRecord, DuelSettings, EpochHistory, Head, Participant};
use crate::event::{DuelStatus, Epoch, Event, Outcome, Position};
use crate::id::{DuelId, TelegramId, UserId};

/// The version of everything below.
pub(super) const FORMAT: u32 = 2;

/// The first, where the row of a duel was stored with each of its events. So it can be read as it is, and is of this version
/// once this version has written to it.
pub(super) const FORMAT_BEFORE: u32 = 1;

/// The one row about the store itself.
pub(super) const META: &[u8] = b"m";

/// The longest key: a kind, an instant, and the key of a ticket.
const KEY_BYTES_MAX: usize = 1 + 8 + 17;

/// Kinds of rows, by the first byte of their key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// `duel` → [`DuelRow`].
    Duel = b'd',
    /// `duel, seq` → [`EventRow`](crate::engine::event_row::EventRow): the log, and what fell off it and is still the latest of its kind.
    Event = b'e',
    /// `duel, hash` → [`KeyRow`]: an idempotency key.
    Key = b'k',
    /// `duel, seq` → hash: the idempotency keys by age.
    KeyOrder = b'o',
    /// `instant, duel` → nothing: when to look whether a duel is to be forgotten.
    DuelDue = b'x',
    /// `hash` → [`TicketRow`].
    Ticket = b't',
    /// `duel, user` → [`RevokedUserRow`].
    RevokedUser = b'u',
    /// `instant, key` → nothing: when a ticket's row expires.
    TicketDue = b'y',
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Duel,
        Self::Event,
        Self::Key,
        Self::KeyOrder,
        Self::DuelDue,
        Self::Ticket,
        Self::RevokedUser,
        Self::TicketDue,
    ];

    /// The kind of the row at a key; `None` if it is of none, as [`META`] is.
    pub(super) fn of(key: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| key.first() == Some(&(*kind as u8)))
    }

    /// The key of a row with two numbers; or, with fewer, what the keys of such rows begin with.
    pub(super) fn key(self, numbers: &[u64]) -> UserKey {
        self.key_ending(numbers, &[])
    }

    /// The key of a row with numbers, and then a hash or another row's key.
    pub(super) fn key_ending(self, numbers: &[u64], ending: &[u8]) -> UserKey {
        // On the stack: the library keeps a key of up to 20 bytes without an allocation.
        let mut key = [0; KEY_BYTES_MAX];
        let mut rest = &mut key[..];
        rest.put_u8(self as u8);
        numbers.iter().for_each(|number| rest.put_u64(*number));
        rest.put_slice(ending);
        let left = rest.len();
        UserKey::from(&key[..KEY_BYTES_MAX - left])
    }
}

/// The number at `index` of a key.
pub(super) fn number(key: &[u8], index: usize) -> Result<u64, Fault> {
    let bytes = key.get(1 + 8 * index..9 + 8 * index).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u64::from_be_bytes).ok_or(Fault::Malformed("a key"))
}

/// The duel that a number in a key stands for.
pub(super) fn duel_id(number: u64) -> Result<DuelId, Fault> {
    if number == DuelId::PROBE.get() {
        return Ok(DuelId::PROBE);
    }
    DuelId::try_from(number).map_err(|_| Fault::Malformed("a duel's id"))
}

/// Reads a row.
pub(super) fn decode<R: Message + Default>(bytes: &[u8]) -> Result<R, Fault> {
    R::decode(bytes).map_err(|_| Fault::Malformed("a row"))
}

/// About the store.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct MetaRow {
    /// [`FORMAT`].
    #[prost(uint32, tag = "1")]
    pub(super) format: u32,
    /// Commits until now.
    #[prost(uint64, tag = "2")]
    pub(super) commit: u64,
    /// Makes every duel's epoch: another one, another epoch for all of them.
    #[prost(fixed64, tag = "3")]
    pub(super) lineage: u64,
    /// The marks of the files that this row was written for.
    #[prost(bytes = "vec", tag = "4")]
    pub(super) marks: Vec<u8>,
    /// Commits since then may not have been synced.
    #[prost(bool, tag = "5")]
    pub(super) unsynced: bool,
}

/// A duel, without its events. The row on the disk may be older than the last of them: what came of those after it is
/// what [`DuelRow::follow`] says.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct DuelRow {
    /// Together with the store's lineage, the duel's epoch.
    #[prost(fixed64, tag = "1")]
    pub(super) epoch: u64,
    #[prost(enumeration = "StatusRow", tag = "2")]
    pub(super) status: i32,
    /// The last event's.
    #[prost(uint64, tag = "3")]
    pub(super) seq: u64,
    /// The oldest event's in the log; 0 if there is none.
    #[prost(uint64, tag = "4")]
    pub(super) oldest_seq: u64,
    /// Bytes of the events in the log, by [`Event::size`].
    #[prost(uint64, tag = "5")]
    pub(super) log_bytes: u64,
    #[prost(uint64, tag = "6")]
    pub(super) created_at: u64,
    #[prost(uint64, optional, tag = "7")]
    pub(super) updated_at: Option<u64>,
    /// When something last happened, or a sweep last asked, to an eighth of the idle retention.
    #[prost(uint64, tag = "8")]
    pub(super) used_at: u64,
    #[prost(bool, tag = "9")]
    pub(super) declared: bool,
    #[prost(message, repeated, tag = "10")]
    pub(super) participants: Vec<ParticipantRow>,
    #[prost(uint64, optional, tag = "11")]
    pub(super) presence_grace_ms: Option<u64>,
    /// Idempotency keys remembered. Counted anew at start, as is the next.
    #[prost(uint64, tag = "12")]
    pub(super) keys: u64,
    /// The oldest of them is of this event or a later one.
    #[prost(uint64, tag = "13")]
    pub(super) keys_from: u64,
    /// Events that fell off the log and were then the latest of their kind, oldest first.
    #[prost(message, repeated, tag = "14")]
    pub(super) fallen: Vec<FallenRow>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct FallenRow {
    /// A hash of its type and audience.
    #[prost(bytes = "vec", tag = "1")]
    pub(super) kind: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub(super) seq: u64,
    /// By [`Event::size`].
    #[prost(uint64, tag = "3")]
    pub(super) bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct ParticipantRow {
    #[prost(uint64, tag = "1")]
    pub(super) user: u64,
    #[prost(uint64, tag = "2")]
    pub(super) telegram: u64,
}

impl DuelRow {
    pub(super) fn new(now: UnixMs) -> Self {
        Self {
            epoch: Epoch::random().to_bits(),
            created_at: now.0,
            used_at: now.0,
            ..Self::default()
        }
    }

    pub(super) fn duel_status(&self) -> DuelStatus {
        match self.status() {
            StatusRow::Open => DuelStatus::Open,
            StatusRow::Finished => DuelStatus::Closed(Outcome::Finished),
            StatusRow::Cancelled => DuelStatus::Closed(Outcome::Cancelled),
        }
    }

    pub(super) const fn position(&self, lineage: u64) -> Position {
        Position { epoch: Epoch::from_bits(self.epoch ^ lineage), seq: self.seq }
    }

    pub(super) fn head(&self, lineage: u64) -> Head {
        Head {
            position: self.position(lineage),
            history: EpochHistory::NONE,
            oldest_seq: self.oldest_seq,
            status: self.duel_status(),
        }
    }

    /// What one more event makes of it, if nothing falls off the log.
    pub(super) fn follow(&mut self, event: &Event) {
        self.seq = event.seq;
        self.oldest_seq = self.oldest_seq.max(1);
        self.log_bytes += event.size() as u64;
        self.updated_at = Some(event.stored_at.0);
        self.used_at = self.used_at.max(event.stored_at.0);
    }

    /// Before the keys are counted that are there.
    pub(super) const fn forget_keys(&mut self) {
        (self.keys, self.keys_from) = (0, 0);
    }

    /// Counts an idempotency key, in the order of the events that they are of.
    pub(super) const fn count_key(&mut self, seq: u64) {
        if self.keys == 0 {
            self.keys_from = seq;
        }
        self.keys += 1;
    }

    /// Events in the log.
    pub(super) const fn log_events(&self) -> u64 {
        if self.oldest_seq == 0 { 0 } else { self.seq - self.oldest_seq + 1 }
    }

    pub(super) fn settings(&self) -> DuelSettings {
        DuelSettings { presence_grace: self.presence_grace_ms.map(Duration::from_millis) }
    }

    pub(super) fn set_settings(&mut self, settings: DuelSettings) {
        let ms = |grace: Duration| u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.presence_grace_ms = settings.presence_grace.map(ms);
    }

    pub(super) fn participants(&self) -> Result<Vec<Participant>, Fault> {
        let participant = |row: &ParticipantRow| {
            let telegram = TelegramId::try_from(row.telegram).ok()?;
            Some(Participant { user: UserId::try_from(row.user).ok()?, telegram })
        };
        let participants: Option<_> = self.participants.iter().map(participant).collect();
        participants.ok_or(Fault::Malformed("a participant"))
    }

    pub(super) fn set_participants(&mut self, participants: &[Participant]) {
        self.declared = true;
        let row =
            |p: &Participant| ParticipantRow { user: p.user.get(), telegram: p.telegram.get() };
        self.participants = participants.iter().map(row).collect();
    }

    pub(super) fn record(&self, lineage: u64) -> Result<DuelRecord, Fault> {
        let participants = self.participants()?;
        Ok(DuelRecord {
            head: self.head(lineage),
            participants: self.declared.then(|| participants.into()),
            settings: self.settings(),
            created_at: UnixMs(self.created_at),
            updated_at: self.updated_at.map(UnixMs),
            attach_number: 0,
        })
    }
}

/// An idempotency key that was used.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct KeyRow {
    /// Of the content that it was used for.
    #[prost(bytes = "vec", tag = "1")]
    pub(super) fingerprint: Vec<u8>,
    /// The event's.
    #[prost(uint64, tag = "2")]
    pub(super) seq: u64,
}

/// A ticket that was used or revoked.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct TicketRow {
    #[prost(bool, tag = "1")]
    pub(super) used: bool,
    #[prost(bool, tag = "2")]
    pub(super) revoked: bool,
    /// From then on the row is needed no more.
    #[prost(uint64, tag = "3")]
    pub(super) expires_at: u64,
}

/// Tickets of a user in a duel that were revoked together.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct RevokedUserRow {
    /// All that were issued until then, that instant included.
    #[prost(uint64, tag = "1")]
    pub(super) issued_until: u64,
    #[prost(uint64, tag = "2")]
    pub(super) expires_at: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_duel_and_seq() {
        let keys = [[1, 255], [1, 256], [2, 0], [256, 1]].map(|numbers| Kind::Event.key(&numbers));
        assert!(keys.is_sorted());
        assert_eq!((number(&keys[1], 0).unwrap(), number(&keys[1], 1).unwrap()), (1, 256));
        assert!(number(&keys[1], 2).is_err());
    }
}
