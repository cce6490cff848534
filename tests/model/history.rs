//! The model of one duel: what was pushed, in the order of the calls. A list is all that it takes.

use std::collections::HashMap;

use duelhub::engine::{AppendError, EpochHistory, Head};
use duelhub::event::{Content, DuelStatus, Epoch, Event, Outcome, Position, Viewer};
use duelhub::hub::Pushed;
use duelhub::id::DuelId;

use crate::check::{Violation, ensure, expect, unexpected};
use crate::spec::{Shown, Spec};

/// One entry of the log; the first has seq 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Pushed(Spec),
    /// Pushed in one step with the end that follows.
    Last(Spec),
    Closed(Outcome),
}

/// What a push or a close must be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    Stored(u64),
    Duplicate(u64),
    KeyReused,
    Closed,
}

/// Everything that was asked of one duel, as if it all took effect: calls do, in their order, unless a kill comes between.
#[derive(Debug)]
pub(crate) struct History {
    pub(crate) duel: DuelId,
    /// Known from the first answer on.
    pub(crate) epoch: Option<Epoch>,
    epochs_before: Vec<Epoch>,
    /// Where the epochs ended that this one went on from, in order.
    ends: Vec<Position>,
    entries: Vec<Entry>,
    /// Everything up to here was answered to the backend or shown to a player.
    witnessed: u64,
    /// Answers that are awaited.
    pub(crate) under_way: usize,
    keys: HashMap<u64, (Spec, u64)>,
    closed: Option<Outcome>,
    /// Whether participants were declared.
    pub(crate) declared: bool,
    log_events_max: u64,
}

impl Entry {
    fn spec(&self) -> Option<&Spec> {
        match self {
            Self::Pushed(spec) | Self::Last(spec) => Some(spec),
            Self::Closed(_) => None,
        }
    }
}

/// How the model shows the end of a duel.
pub(crate) fn shown_end(seq: u64, outcome: Outcome) -> Shown {
    Shown { seq, event_type: "duel_closed".to_owned(), body: format!("{outcome:?}") }
}

impl History {
    pub(crate) fn new(duel: DuelId, log_events_max: usize) -> Self {
        Self {
            duel,
            epoch: None,
            epochs_before: Vec::new(),
            ends: Vec::new(),
            entries: Vec::new(),
            witnessed: 0,
            under_way: 0,
            keys: HashMap::new(),
            closed: None,
            declared: false,
            log_events_max: log_events_max as u64,
        }
    }

    /// The seq of the last entry, if everything under way takes effect.
    pub(crate) fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    /// The last entry that the engine must show by now.
    pub(crate) fn settled(&self) -> u64 {
        if self.under_way == 0 { self.len() } else { self.witnessed }
    }

    pub(crate) const fn outcome(&self) -> Option<Outcome> {
        self.closed
    }

    /// A push is called: what it must be answered.
    pub(crate) fn push(&mut self, spec: &Spec) -> Expected {
        if let Some((known, seq)) = spec.key.and_then(|key| self.keys.get(&key)) {
            return if known == spec { Expected::Duplicate(*seq) } else { Expected::KeyReused };
        }
        if self.closed.is_some() {
            return Expected::Closed;
        }
        self.entries.push(Entry::Pushed(spec.clone()));
        if let Some(key) = spec.key {
            self.keys.insert(key, (spec.clone(), self.len()));
        }
        Expected::Stored(self.len())
    }

    /// A close is called: what it must be answered.
    pub(crate) fn close(&mut self, outcome: Outcome, last: Option<Spec>) -> Expected {
        match self.closed {
            Some(known) if known == outcome => return Expected::Duplicate(self.len()),
            Some(_) => return Expected::Closed,
            None => {}
        }
        self.entries.extend(last.map(Entry::Last));
        self.entries.push(Entry::Closed(outcome));
        self.closed = Some(outcome);
        Expected::Stored(self.len())
    }

    /// A push of which the idempotency key is known; which of them, `which` says.
    pub(crate) fn keyed(&self, which: usize) -> Option<&Spec> {
        let mut keyed: Vec<_> = self.keys.values().collect();
        keyed.sort_by_key(|(_, seq)| *seq);
        let at = which.checked_rem(keyed.len())?;
        Some(&keyed[at].0)
    }

    /// Checks what a push or a close was answered.
    pub(crate) fn answered(
        &mut self,
        expected: Expected,
        answer: Result<Pushed, AppendError>,
    ) -> Result<(), Violation> {
        let as_expected = match (expected, answer) {
            (Expected::Stored(seq), Ok(pushed)) => !pushed.duplicate && pushed.position.seq == seq,
            (Expected::Duplicate(seq), Ok(pushed)) => {
                pushed.duplicate && pushed.position.seq == seq
            }
            (Expected::KeyReused, Err(error)) => error == AppendError::KeyReused,
            (Expected::Closed, Err(error)) => error == AppendError::Closed,
            _ => false,
        };
        if !as_expected {
            return unexpected(format!("{answer:?} instead of {expected:?}"));
        }
        answer.map_or(Ok(()), |pushed| self.witness(pushed.position))
    }

    /// Somebody was told of a position: from now on everything up to it stays, and the epoch with it.
    pub(crate) fn witness(&mut self, position: Position) -> Result<(), Violation> {
        let epoch = *self.epoch.get_or_insert(position.epoch);
        ensure(epoch == position.epoch, Violation::EpochChanged)?;
        ensure(!self.epochs_before.contains(&epoch), Violation::EpochReused)?;
        ensure(position.seq <= self.len(), Violation::NoPosition(position))?;
        self.witness_seq(position.seq);
        Ok(())
    }

    /// The same within a connection.
    pub(crate) fn witness_seq(&mut self, seq: u64) {
        self.witnessed = self.witnessed.max(seq);
    }

    /// How `viewer` is shown an entry, if it is there and addressed to them.
    pub(crate) fn shown(&self, seq: u64, viewer: Viewer) -> Option<Shown> {
        let at = usize::try_from(seq.checked_sub(1)?).unwrap();
        let spec = match self.entries.get(at)? {
            Entry::Pushed(spec) | Entry::Last(spec) => spec,
            Entry::Closed(outcome) => return Some(shown_end(seq, *outcome)),
        };
        let body = spec.body(self.duel, viewer);
        spec.includes(viewer).then(|| Shown { seq, event_type: spec.event_type.to_owned(), body })
    }

    fn numbered(&self) -> impl DoubleEndedIterator<Item = (u64, &Entry)> + ExactSizeIterator {
        self.entries.iter().enumerate().map(|(index, entry)| (index as u64 + 1, entry))
    }

    /// Whether an entry up to `served` that is addressed to `viewer` has the coalesce key of an earlier one.
    pub(crate) fn is_superseded(&self, seq: u64, served: u64, viewer: Viewer) -> bool {
        let key = |entry: &Entry| entry.spec().and_then(|spec| spec.coalesce);
        let Some(own) = self.numbered().find(|(at, _)| *at == seq).and_then(|(_, e)| key(e)) else {
            return false;
        };
        let mut newer = self.numbered().filter(|(at, _)| (seq + 1..=served).contains(at));
        newer.any(|(at, entry)| key(entry) == Some(own) && self.shown(at, viewer).is_some())
    }

    /// The seqs of the latest of each type that are addressed to `viewer` and not transient.
    pub(crate) fn latest(&self, viewer: Viewer, up_to: u64) -> Vec<u64> {
        let mut latest: HashMap<&str, u64> = HashMap::new();
        for (seq, entry) in self.numbered().filter(|(seq, _)| *seq <= up_to) {
            let spec = entry.spec().filter(|spec| spec.includes(viewer) && !spec.transient);
            latest.extend(spec.map(|spec| (spec.event_type, seq)));
        }
        let mut seqs: Vec<_> = latest.into_values().collect();
        seqs.sort_unstable();
        seqs
    }

    /// Whether the entry is the end of the duel.
    pub(crate) fn is_end(&self, seq: u64) -> bool {
        self.closed.is_some() && seq == self.len()
    }

    /// Whether a log that ends at `head` holds the entry.
    pub(crate) const fn log_holds(&self, seq: u64, head: u64) -> bool {
        seq + self.log_events_max > head
    }

    /// Whether a log that ends at `head` holds everything after `position`.
    pub(crate) fn holds_after(&self, position: Position, head: u64) -> bool {
        let position = self.carried(position);
        self.epoch == Some(position.epoch)
            && position.seq <= self.len()
            && self.log_holds(position.seq + 1, head)
    }

    /// The same position in the present epoch, unless it is past where its own ended.
    pub(crate) fn carried(&self, position: Position) -> Position {
        let ends = self.ends.iter().rev().take(EpochHistory::EPOCHS_MAX);
        let kept = ends.filter(|end| end.epoch == position.epoch && end.seq >= position.seq);
        let epoch = kept.map(|_| self.epoch).next().flatten().unwrap_or(position.epoch);
        Position { epoch, ..position }
    }

    /// A durable engine goes on in `epoch`, which must be a new one or must not.
    pub(crate) fn go_on(&mut self, epoch: Epoch, is_new: bool) -> Result<(), Violation> {
        let Some(before) = self.epoch.replace(epoch) else { return Ok(()) };
        ensure((before != epoch) == is_new, Violation::EpochChanged)?;
        if is_new {
            self.epochs_before.push(before);
            self.ends.push(Position { epoch: before, seq: self.len() });
        }
        Ok(())
    }

    /// The engine has forgotten everything.
    pub(crate) fn begin_anew(&mut self) {
        self.ends.clear();
        self.epochs_before.extend(self.epoch.take());
        self.entries.clear();
        self.keys.clear();
        (self.witnessed, self.under_way) = (0, 0);
        (self.closed, self.declared) = (None, false);
    }

    /// A durable engine has come back with a log that ends at `head`: what was under way may be missing from the end.
    pub(crate) fn come_back(&mut self, head: u64, complete: bool) -> Result<(), Violation> {
        let witnessed = if complete { self.len() } else { self.witnessed };
        ensure(head >= witnessed, Violation::NotDurable { witnessed, head })?;
        ensure(head <= self.len(), Violation::NeverPushed(head))?;
        self.entries.truncate(usize::try_from(head).unwrap());
        self.keys.retain(|_, (_, seq)| *seq <= head);
        self.closed = match self.entries.last() {
            Some(Entry::Closed(outcome)) => Some(*outcome),
            Some(Entry::Last(_)) => return Err(Violation::Torn),
            Some(Entry::Pushed(_)) | None => None,
        };
        self.under_way = 0;
        self.witness_seq(head);
        Ok(())
    }

    /// Checks all that a log holds.
    pub(crate) fn check_log(
        &self,
        head: &Head,
        events: &[std::sync::Arc<Event>],
    ) -> Result<(), Violation> {
        ensure(
            self.epoch.is_none_or(|epoch| epoch == head.position.epoch),
            Violation::EpochChanged,
        )?;
        ensure(head.position.seq == self.len(), Violation::NoPosition(head.position))?;
        let status = self.closed.map_or(DuelStatus::Open, DuelStatus::Closed);
        expect(head.status == status, || format!("it is {:?}", head.status))?;
        let held = self.numbered().filter(|(seq, _)| self.log_holds(*seq, self.len()));
        let held: Vec<_> = held.collect();
        let seqs = |at: usize| events.get(at).map_or(0, |event| event.seq);
        for (at, (seq, entry)) in held.iter().enumerate() {
            ensure(seqs(at) == *seq, Violation::Lost(*seq))?;
            let same = match (&events[at].content, entry) {
                (Content::Pushed(push), Entry::Pushed(spec) | Entry::Last(spec)) => {
                    *push == spec.push(self.duel)
                }
                (Content::Closed(outcome), Entry::Closed(expected)) => outcome == expected,
                (Content::Pushed(_) | Content::Closed(_), _) => false,
            };
            ensure(same, Violation::Foreign(*seq))?;
        }
        ensure(events.len() == held.len(), Violation::NeverPushed(head.position.seq))
    }
}
