//! What Redis answers, and what is told on its channels, read.

use std::sync::Arc;

use redis::{FromRedisValue, Value};
use tracing::warn;

use crate::clock::UnixMs;
use crate::engine::event_row::{self, Malformed};
use crate::engine::{DuelSettings, EngineError, EpochHistory, Head, Participant};
use crate::event::{DuelStatus, Epoch, Event, Outcome, Position};
use crate::id::{TelegramId, UserId};

/// The parts of an answer, one after the other.
#[derive(Debug)]
pub(super) struct Parts(std::vec::IntoIter<Value>);

impl Parts {
    pub(super) fn of(value: Value) -> Result<Self, Malformed> {
        let parts: Vec<Value> = read(value)?;
        Ok(Self(parts.into_iter()))
    }

    pub(super) fn value(&mut self) -> Result<Value, Malformed> {
        self.0.next().ok_or(Malformed("an answer"))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    pub(super) fn parts(&mut self) -> Result<Self, Malformed> {
        Self::of(self.value()?)
    }

    /// The rest, each read alike.
    pub(super) fn each<T>(
        self,
        mut read: impl FnMut(Value) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        self.0.map(&mut read).collect()
    }

    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, Malformed> {
        read(self.value()?)
    }

    /// Empty if it is not there.
    pub(super) fn text(&mut self) -> Result<String, Malformed> {
        let text: Option<String> = read(self.value()?)?;
        Ok(text.unwrap_or_default())
    }

    pub(super) fn number(&mut self) -> Result<u64, Malformed> {
        number(self.value()?)
    }

    /// Where a log stands: epoch, seq.
    pub(super) fn position(&mut self) -> Result<Position, Malformed> {
        Ok(Position { epoch: epoch(&self.text()?)?, seq: self.number()? })
    }

    /// Epoch, seq, the oldest in the log, status, the history.
    pub(super) fn head(&mut self) -> Result<Head, Malformed> {
        let position = self.position()?;
        let (oldest_seq, status) = (self.number()?, status(&self.text()?)?);
        Ok(Head { position, history: history(&self.text()?)?, oldest_seq, status })
    }
}

fn read<T: FromRedisValue>(value: Value) -> Result<T, Malformed> {
    redis::from_redis_value(value).map_err(|_| Malformed("an answer"))
}

/// Takes what was read. What is not as it should be says that something else writes in Redis.
pub(super) fn understood<T>(read: Result<T, Malformed>) -> Result<T, EngineError> {
    read.map_err(|error| {
        warn!(%error, "what is in Redis was not understood");
        EngineError::IN_DOUBT
    })
}

/// Why a reply is not what was hoped for.
#[derive(Debug)]
pub(super) enum ReplyError<E> {
    /// It is not as it should be.
    Malformed(Malformed),
    /// It says that it was not done.
    Rejected(E),
}

impl<E> From<Malformed> for ReplyError<E> {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

pub(super) fn text(value: Value) -> Result<String, Malformed> {
    read(value)
}

pub(super) fn number(value: Value) -> Result<u64, Malformed> {
    read(value)
}

/// As [`show_epoch`] writes it.
pub(super) fn epoch(text: &str) -> Result<Epoch, Malformed> {
    u64::from_str_radix(text, 16).map(Epoch::from_bits).map_err(|_| Malformed("an epoch"))
}

pub(super) fn show_epoch(epoch: Epoch) -> String {
    format!("{:016x}", epoch.to_bits())
}

/// `epoch:end`, with spaces between, the latest first.
fn history(text: &str) -> Result<EpochHistory, Malformed> {
    let end = |word: &str| {
        let (ended, seq) = word.split_once(':').ok_or(Malformed("a history"))?;
        let seq = seq.parse().map_err(|_| Malformed("a history"))?;
        Ok(Position { epoch: epoch(ended)?, seq })
    };
    Ok(EpochHistory::new(text.split_whitespace().map(end).collect::<Result<Vec<_>, _>>()?))
}

pub(super) fn status(text: &str) -> Result<DuelStatus, Malformed> {
    match text {
        "0" => Ok(DuelStatus::Open),
        "1" => Ok(DuelStatus::Closed(Outcome::Finished)),
        "2" => Ok(DuelStatus::Closed(Outcome::Cancelled)),
        _ => Err(Malformed("a status")),
    }
}

pub(super) const fn show_outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Finished => "1",
        Outcome::Cancelled => "2",
    }
}

/// An entry of a log: `seq-0`, and its fields by name.
pub(super) fn entry(value: Value) -> Result<Arc<Event>, Malformed> {
    let mut parts = Parts::of(value)?;
    let id = parts.text()?;
    let seq = id.strip_suffix("-0").and_then(|seq| seq.parse().ok()).ok_or(Malformed("a seq"))?;
    let mut fields = parts.parts()?;
    let (mut row, mut stored_at) = (None, None);
    while let Ok(name) = fields.bytes() {
        match &name[..] {
            b"r" => row = Some(fields.bytes()?),
            b"t" => stored_at = Some(UnixMs(fields.number()?)),
            _ => drop(fields.value()?),
        }
    }
    let row = row.ok_or(Malformed("an entry"))?;
    event_row::read_undated(&row, seq, stored_at.ok_or(Malformed("an entry"))?)
}

/// An event that is retained beside its log: seq, when it was stored, row.
pub(super) fn retained(value: Value) -> Result<Arc<Event>, Malformed> {
    let mut parts = Parts::of(value)?;
    let (seq, stored_at) = (parts.number()?, UnixMs(parts.number()?));
    event_row::read_undated(&parts.bytes()?, seq, stored_at)
}

pub(super) fn user(text: &str) -> Option<UserId> {
    UserId::try_from(text.parse::<u64>().ok()?).ok()
}

/// `user:telegram`, with commas between; `-` if the duel was declared without anybody.
pub(super) fn participants(text: &str) -> Result<Vec<Participant>, Malformed> {
    if text.is_empty() || text == "-" {
        return Ok(Vec::new());
    }
    let participant = |text: &str| {
        let (user, telegram) = text.split_once(':')?;
        let telegram = TelegramId::try_from(telegram.parse::<u64>().ok()?).ok()?;
        Some(Participant { user: self::user(user)?, telegram })
    };
    let all: Option<_> = text.split(',').map(participant).collect();
    all.ok_or(Malformed("a participant"))
}

pub(super) fn show_participants(participants: &[Participant]) -> String {
    if participants.is_empty() {
        return "-".to_owned();
    }
    let show = |p: &Participant| format!("{}:{}", p.user.get(), p.telegram.get());
    participants.iter().map(show).collect::<Vec<_>>().join(",")
}

/// Milliseconds; empty: the node's.
pub(super) fn settings(text: &str) -> Result<DuelSettings, Malformed> {
    if text.is_empty() {
        return Ok(DuelSettings::default());
    }
    let ms = text.parse().map_err(|_| Malformed("a grace"))?;
    Ok(DuelSettings { presence_grace: Some(std::time::Duration::from_millis(ms)) })
}

pub(super) fn show_settings(settings: DuelSettings) -> String {
    settings.presence_grace.map(|grace| grace.as_millis().to_string()).unwrap_or_default()
}
