//! The tail: a cache of a live duel's newest events. An older one is read from the engine.
//!
//! Bounds: [`limits::TAIL_EVENTS_MAX`], [`limits::TAIL_BYTES_MAX`]. The oldest event is dropped first.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::engine::{Head, stored_size};
use crate::event::{Epoch, Event, Position};
use crate::limits;

/// The events have no gap and end at the newest position known, or there are none.
#[derive(Debug, Default)]
pub(super) struct Tail {
    newest: Option<Position>,
    /// Epochs that ended at `newest`.
    ended_at_newest: Vec<Epoch>,
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// The seqs of which this node was last told too late, with those that were dropped then. A cursor in there that cannot be
    /// served is not of a slow client.
    missed: Range<u64>,
}

impl Tail {
    /// Returns the newest position known. `None` until the first event or head.
    pub(super) const fn newest(&self) -> Option<Position> {
        self.newest
    }

    /// Returns the epochs that ended at the newest position: nothing has happened since.
    pub(super) fn ended_at_newest(&self) -> &[Epoch] {
        &self.ended_at_newest
    }

    /// Takes a head that the engine reported. Returns whether it was new.
    pub(super) fn observe_head(&mut self, head: &Head) -> bool {
        let new = self.advance(head.position);
        if new {
            self.ended_at_newest = head.ended_here().collect();
        }
        new
    }

    /// Returns whether this node was told too late of what follows `seq`.
    pub(super) fn missed_after(&self, seq: u64) -> bool {
        self.missed.contains(&seq)
    }

    /// Notes that what lies between the newest position and `position` was missed.
    fn note_missed(&mut self, position: Position) {
        let Some(newest) = self.newest.filter(|newest| newest.epoch == position.epoch) else {
            self.missed = 0..0;
            return;
        };
        let served = self.events.front().map_or(newest.seq, |oldest| oldest.seq - 1);
        // Several in a row are one.
        let begins = served <= self.missed.end && self.missed.start < served;
        let start = if begins { self.missed.start } else { served };
        self.missed = start..position.seq;
    }

    /// Jumps to a position, if it is new, and drops the events before it. Returns whether it was new.
    fn advance(&mut self, position: Position) -> bool {
        let new = self
            .newest
            .is_none_or(|newest| newest.epoch != position.epoch || newest.seq < position.seq);
        if new {
            self.note_missed(position);
            self.newest = Some(position);
            self.ended_at_newest = Vec::new();
            self.events.clear();
            self.bytes = 0;
        }
        new
    }

    /// Takes an event that the engine stored.
    pub(super) fn push(&mut self, epoch: Epoch, event: &Arc<Event>) {
        let follows =
            self.newest.is_some_and(|newest| newest.epoch == epoch && newest.seq + 1 == event.seq);
        let position = Position { epoch, seq: event.seq };
        if follows {
            self.newest = Some(position);
            self.ended_at_newest = Vec::new();
        } else if !self.advance(position) {
            return;
        }
        self.bytes += memory(event);
        self.events.push_back(Arc::clone(event));
        while self.events.len() > limits::TAIL_EVENTS_MAX || self.bytes > limits::TAIL_BYTES_MAX {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes -= memory(&oldest);
        }
    }

    /// Returns at most `count` events after `seq`, or `None` if the first of them is not here.
    pub(super) fn after(&self, seq: u64, count: usize) -> Option<Vec<Arc<Event>>> {
        let oldest = self.events.front()?.seq;
        let skip = usize::try_from((seq + 1).checked_sub(oldest)?).ok()?;
        Some(self.events.iter().skip(skip).take(count).cloned().collect())
    }
}

/// Returns the bytes that an event takes in memory, roughly: as it was pushed, and encoded as a frame.
fn memory(event: &Event) -> usize {
    size_of::<Event>() + 2 * stored_size(&event.content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMs;
    use crate::engine::EpochHistory;
    use crate::event::{Content, DuelStatus, Outcome};

    fn event(seq: u64) -> Arc<Event> {
        Arc::new(Event { seq, stored_at: UnixMs(0), content: Content::Closed(Outcome::Finished) })
    }

    fn head(position: Position, past: &[Position]) -> Head {
        let history = EpochHistory::new(past.iter().copied());
        Head { position, history, oldest_seq: 1, status: DuelStatus::Open }
    }

    fn seqs(tail: &Tail, after: u64) -> Option<Vec<u64>> {
        tail.after(after, 10).map(|events| events.iter().map(|event| event.seq).collect())
    }

    #[test]
    fn a_gap_empties_what_was_before_it() {
        let epoch = Epoch::random();
        let mut tail = Tail::default();
        for seq in [1, 2, 4, 5] {
            tail.push(epoch, &event(seq));
        }
        assert_eq!(tail.newest(), Some(Position { epoch, seq: 5 }));
        assert_eq!(seqs(&tail, 3), Some(vec![4, 5]));
        assert_eq!(seqs(&tail, 2), None, "3 has to come from the engine");
    }

    #[test]
    fn what_was_missed_is_known_until_the_next_gap() {
        let epoch = Epoch::random();
        let mut tail = Tail::default();
        (1..=3).for_each(|seq| tail.push(epoch, &event(seq)));
        assert!(tail.missed.is_empty());
        tail.push(epoch, &event(6));
        assert_eq!(tail.missed, 0..6, "with what was at hand before");
        tail.observe_head(&head(Position { epoch, seq: 8 }, &[]));
        assert_eq!(tail.missed, 0..8, "one gap");
        (9..=100).for_each(|seq| tail.push(epoch, &event(seq)));
        assert_eq!(tail.missed, 0..8, "nothing more was missed");
        tail.push(epoch, &event(102));
        assert_eq!(tail.missed, 36..102);
        tail.push(Epoch::random(), &event(1));
        assert!(tail.missed.is_empty());
    }

    #[test]
    fn an_event_told_twice_is_there_once() {
        let epoch = Epoch::random();
        let mut tail = Tail::default();
        for seq in [1, 2, 2, 1, 3] {
            tail.push(epoch, &event(seq));
        }
        assert_eq!(seqs(&tail, 0), Some(vec![1, 2, 3]));
    }

    #[test]
    fn another_epoch_starts_over() {
        let mut tail = Tail::default();
        tail.push(Epoch::random(), &event(7));
        let epoch = Epoch::random();
        tail.push(epoch, &event(1));
        assert_eq!(tail.newest(), Some(Position { epoch, seq: 1 }));
        assert_eq!(seqs(&tail, 0), Some(vec![1]));
    }

    #[test]
    fn a_head_ahead_of_the_events_sends_everybody_to_the_engine() {
        let epoch = Epoch::random();
        let mut tail = Tail::default();
        tail.push(epoch, &event(1));
        assert!(tail.observe_head(&head(Position { epoch, seq: 3 }, &[])));
        assert!(!tail.observe_head(&head(Position { epoch, seq: 2 }, &[])));
        assert_eq!(seqs(&tail, 0), None);
    }

    #[test]
    fn an_epoch_has_ended_where_the_log_stands_until_something_happens() {
        let [before, epoch] = [Epoch::random(), Epoch::random()];
        let end = Position { epoch: before, seq: 7 };
        let begun = head(Position { epoch, seq: 7 }, &[end]);
        let mut tail = Tail::default();
        tail.push(before, &event(8));
        assert!(tail.observe_head(&begun));
        assert_eq!(tail.ended_at_newest(), [before]);
        assert!(!tail.observe_head(&begun));
        assert_eq!(tail.ended_at_newest(), [before]);
        tail.push(epoch, &event(8));
        assert_eq!(tail.ended_at_newest(), []);
        let mut late = Tail::default();
        late.observe_head(&head(Position { epoch, seq: 8 }, &[end]));
        assert_eq!(late.ended_at_newest(), []);
    }

    #[test]
    fn the_oldest_go_first() {
        let epoch = Epoch::random();
        let mut tail = Tail::default();
        let newest = limits::TAIL_EVENTS_MAX as u64 + 1;
        (1..=newest).for_each(|seq| tail.push(epoch, &event(seq)));
        assert_eq!(seqs(&tail, 0), None);
        assert_eq!(seqs(&tail, newest - 1), Some(vec![newest]));
    }
}
