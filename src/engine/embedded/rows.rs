//! The keys and rows of the store. Rows are protobuf messages, so fields can be added without misreading an older store.
//! The tags are the format; a change of meaning needs a new [`FORMAT`].
//!
//! One keyspace holds everything. A key is one letter for the kind of the row, then numbers in big-endian, so that the
//! rows of a duel stand together in the order of `seq`.

use std::sync::Arc;
use std::time::Duration;

use bytes::BufMut as _;
use fjall::UserKey;
use prost::Message;

use super::Fault;
use crate::clock::UnixMs;
use crate::engine::event_row::{StatusRow, stored_size};
use crate::engine::rules::Retained;
use crate::engine::{Appended, DuelRecord, DuelSettings, EpochHistory, Head, Participant};
use crate::event::{DuelStatus, Epoch, Event, Outcome, Position};
use crate::id::{DuelId, TelegramId, UserId};

/// The version of everything below.
pub(super) const FORMAT: u32 = 4;

/// The one row about the store itself.
pub(super) const META: &[u8] = b"m";

/// The longest key: a kind, an instant, and the key of a user's watermark.
const KEY_BYTES_MAX: usize = 1 + 8 + 18;

/// Kinds of rows, by the first byte of their key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// `duel` → [`DuelRow`].
    Duel = b'd',
    /// `duel, seq` → [`EventRow`](crate::engine::event_row::EventRow): the log, and what fell off it and is retained.
    Event = b'e',
    /// `duel, hash` → [`KeyRow`]: an idempotency key.
    Key = b'k',
    /// `duel, seq` → hash: the idempotency keys by age.
    KeyOrder = b'o',
    /// `instant, duel` → nothing: when to check whether a duel has expired.
    DuelDue = b'x',
    /// `hash` → [`TicketRow`](super::ticket_ledger::TicketRow).
    Ticket = b't',
    /// `duel, user` → [`UserRow`](super::ticket_ledger::UserRow).
    User = b'u',
    /// `instant, key` → nothing: when an entry of the ticket ledger expires.
    TicketDue = b'y',
    /// Nothing → [`LedgerRow`](super::ticket_ledger::LedgerRow).
    Ledger = b'l',
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::Duel,
        Self::Event,
        Self::Key,
        Self::KeyOrder,
        Self::DuelDue,
        Self::Ticket,
        Self::User,
        Self::TicketDue,
        Self::Ledger,
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
    /// See [`Lives`].
    #[prost(fixed64, repeated, tag = "3")]
    lives: Vec<u64>,
}

impl MetaRow {
    /// Of an empty store that no process has opened.
    pub(super) fn new() -> Self {
        Self { format: FORMAT, ..Self::default() }
    }

    /// Begins a life. The oldest is forgotten if there are too many.
    pub(super) fn begin_life(&mut self) {
        self.lives.push(rand::random());
        let ended = self.lives.len() - 1;
        self.lives.drain(..ended.saturating_sub(EpochHistory::EPOCHS_MAX));
    }

    /// Returns the present life; 0 if none has begun.
    pub(super) fn present_life(&self) -> u64 {
        self.lives.last().copied().unwrap_or(0)
    }

    pub(super) fn knows_life(&self, life: u64) -> bool {
        self.lives.contains(&life)
    }

    pub(super) fn lives(&self) -> Lives {
        Lives { present: self.present_life(), all: self.lives.clone() }
    }
}

/// The lives of a store, in order. A life is a random number that stands for one process; the last one is the present one.
///
/// Bound: the present one, and the latest [`EpochHistory::EPOCHS_MAX`] that have ended.
#[derive(Debug, Default)]
pub(super) struct Lives {
    all: Vec<u64>,
    present: u64,
}

impl Lives {
    /// Returns those that have ended, from `life` on; all of them if that one is forgotten.
    fn ended_from(&self, life: u64) -> &[u64] {
        let from = self.all.iter().position(|known| *known == life).unwrap_or(0);
        self.all.get(from..self.all.len().saturating_sub(1)).unwrap_or_default()
    }
}

/// A duel, without its events.
///
/// The row on the disk may be older than the last events. Those are of the row's own life, because the first change of a
/// duel in each life stores the row; [`DuelRow::follow`] says what they make of it. So a restart costs a duel nothing.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct DuelRow {
    /// Random. Together with a life it makes the duel's epoch in that life.
    #[prost(fixed64, tag = "1")]
    birth: u64,
    #[prost(enumeration = "StatusRow", tag = "2")]
    pub(super) status: i32,
    /// The last event's.
    #[prost(uint64, tag = "3")]
    pub(super) seq: u64,
    /// The oldest event's in the log; 0 if there is none.
    #[prost(uint64, tag = "4")]
    pub(super) oldest_seq: u64,
    /// Bytes of the events in the log, by [`stored_size`].
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
    /// Events that fell off the log and are retained, in the order in which they fell.
    #[prost(message, repeated, tag = "14")]
    pub(super) retained: Vec<RetainedRow>,
    /// The life in which the duel was changed last.
    #[prost(fixed64, tag = "15")]
    life: u64,
    /// Where earlier lives ended, in order. Bound: [`EpochHistory::EPOCHS_MAX`], the latest.
    #[prost(message, repeated, tag = "16")]
    ends: Vec<EndRow>,
}

/// Where a life ended in a duel.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct EndRow {
    #[prost(fixed64, tag = "1")]
    life: u64,
    /// The last event's.
    #[prost(uint64, tag = "2")]
    seq: u64,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct RetainedRow {
    /// A hash of its type and audience.
    #[prost(bytes = "vec", tag = "1")]
    pub(super) kind: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub(super) seq: u64,
    /// By [`stored_size`].
    #[prost(uint64, tag = "3")]
    pub(super) bytes: u64,
}

impl Retained for RetainedRow {
    fn is_of_kind(&self, other: &Self) -> bool {
        self.kind == other.kind
    }

    fn size(&self) -> usize {
        usize::try_from(self.bytes).unwrap_or(usize::MAX)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct ParticipantRow {
    #[prost(uint64, tag = "1")]
    pub(super) user: u64,
    #[prost(uint64, tag = "2")]
    pub(super) telegram: u64,
}

impl DuelRow {
    pub(super) fn new(now: UnixMs, lives: &Lives) -> Self {
        Self {
            birth: rand::random(),
            life: lives.present,
            created_at: now.0,
            used_at: now.0,
            ..Self::default()
        }
    }

    /// Returns whether both rows are of the one duel, which has not begun anew between them.
    pub(super) const fn is_same_duel(&self, other: &Self) -> bool {
        self.birth == other.birth
    }

    /// Returns whether the duel was changed in the present life, and so is stored as one of it.
    pub(super) fn is_of_present_life(&self, lives: &Lives) -> bool {
        self.life == lives.present
    }

    /// Brings the duel into the present life, before it is changed.
    pub(super) fn enter_life(&mut self, lives: &Lives) {
        if !self.is_of_present_life(lives) {
            let mut ends: Vec<_> = self.ends(lives).collect();
            ends.drain(..ends.len().saturating_sub(EpochHistory::EPOCHS_MAX));
            (self.ends, self.life) = (ends, lives.present);
        }
    }

    /// Returns where each earlier life ended, in order. Since the row's own life nothing has changed, or the row would be
    /// of a later one.
    fn ends(&self, lives: &Lives) -> impl DoubleEndedIterator<Item = EndRow> {
        let since = lives.ended_from(self.life).iter();
        self.ends.iter().copied().chain(since.map(|life| EndRow { life: *life, seq: self.seq }))
    }

    const fn epoch(&self, life: u64) -> Epoch {
        Epoch::from_bits(self.birth ^ life)
    }

    pub(super) fn duel_status(&self) -> DuelStatus {
        match self.status() {
            StatusRow::Open => DuelStatus::Open,
            StatusRow::Finished => DuelStatus::Closed(Outcome::Finished),
            StatusRow::Cancelled => DuelStatus::Closed(Outcome::Cancelled),
        }
    }

    pub(super) fn position(&self, lives: &Lives) -> Position {
        Position { epoch: self.epoch(lives.present), seq: self.seq }
    }

    pub(super) fn head(&self, lives: &Lives) -> Head {
        let end = |end: EndRow| Position { epoch: self.epoch(end.life), seq: end.seq };
        Head {
            position: self.position(lives),
            history: EpochHistory::new(self.ends(lives).rev().map(end)),
            oldest_seq: self.oldest_seq,
            status: self.duel_status(),
        }
    }

    /// What one more event makes of it, if nothing falls off the log.
    pub(super) fn follow(&mut self, event: &Event) {
        self.seq = event.seq;
        self.oldest_seq = self.oldest_seq.max(1);
        self.log_bytes += stored_size(&event.content) as u64;
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
        if self.oldest_seq == 0 { 0 } else { (self.seq + 1).saturating_sub(self.oldest_seq) }
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

    /// Returns the answer to a push or a close.
    pub(super) const fn appended(&self, position: Position, event: Option<Arc<Event>>) -> Appended {
        Appended { position, event, connections: 0, declared: self.declared }
    }

    pub(super) fn record(&self, lives: &Lives) -> Result<DuelRecord, Fault> {
        let participants = self.participants()?;
        Ok(DuelRecord {
            head: self.head(lives),
            participants: self.declared.then(|| participants.into()),
            settings: self.settings(),
            created_at: UnixMs(self.created_at),
            updated_at: self.updated_at.map(UnixMs),
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

    #[test]
    fn a_position_is_carried_over_as_many_lives_as_are_known_whether_or_not_something_happened() {
        let mut meta = MetaRow::default();
        meta.begin_life();
        let mut busy = DuelRow::new(UnixMs(0), &meta.lives());
        let mut idle = busy.clone();
        idle.seq = 1;
        let mut seen = Vec::new();
        for life in 0..40 {
            busy.enter_life(&meta.lives());
            busy.seq += 1;
            // Sometimes something happens in the idle one, too.
            if life % 23 == 22 {
                idle.enter_life(&meta.lives());
                idle.seq += 1;
            }
            seen.push([&busy, &idle].map(|row| row.position(&meta.lives())));
            meta.begin_life();
        }
        for (ago, positions) in seen.iter().rev().enumerate() {
            for (row, position) in [&busy, &idle].into_iter().zip(positions) {
                let head = row.head(&meta.lives());
                let known = ago < EpochHistory::EPOCHS_MAX;
                assert_eq!(head.carried(*position).epoch == head.position.epoch, known, "{ago}");
                let past_it = Position { seq: position.seq + 1, ..*position };
                assert_eq!(head.carried(past_it), past_it, "{ago}");
            }
        }
        busy.enter_life(&meta.lives());
        assert_eq!(busy.ends.len(), EpochHistory::EPOCHS_MAX);
        assert_eq!(busy.head(&meta.lives()).ended_here().count(), 1);
    }
}
