//! Where a log stands, and which histories it has gone on from.

use super::Page;
use crate::event::{DuelStatus, Epoch, Position};

/// Where a log stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The last event's.
    pub position: Position,
    /// The epochs before this one, as far as the log has gone on from them.
    pub history: EpochHistory,
    /// The oldest event still in the log; 0 if there is none.
    pub oldest_seq: u64,
    /// Open or closed.
    pub status: DuelStatus,
}

/// The epochs that a log has gone on from, and where each ended. Up to there its events are this log's.
///
/// Bound: the latest [`EpochHistory::EPOCHS_MAX`] are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EpochHistory(Vec<Position>);

impl EpochHistory {
    /// The most epochs known: enough for a client that is away during an hour of rolling restarts.
    pub const EPOCHS_MAX: usize = 16;

    /// Makes a history of the ends of epochs, the latest first. Ends past the bound are forgotten.
    #[must_use]
    pub fn new(ends: impl IntoIterator<Item = Position>) -> Self {
        Self(ends.into_iter().take(Self::EPOCHS_MAX).collect())
    }
}

impl Head {
    /// Returns whether everything after `position` is still in the log.
    #[must_use]
    pub fn holds_after(&self, position: Position) -> bool {
        let seq = position.seq;
        position.epoch == self.position.epoch
            && seq <= self.position.seq
            && (seq == self.position.seq || self.oldest_seq <= seq + 1)
    }

    /// Returns what there is to read after a position after which the log does not hold everything.
    #[must_use]
    pub fn page_lacking(&self, position: Position) -> Page {
        if position.epoch == self.position.epoch && position.seq <= self.position.seq {
            Page::Gone
        } else {
            Page::Ended
        }
    }

    /// Translates a position of an earlier epoch into the present one. Returns a position unchanged if it is past the end of
    /// its epoch, or its epoch is not in the history.
    #[must_use]
    pub fn carried(&self, position: Position) -> Position {
        let end = self.history.0.iter().find(|end| end.epoch == position.epoch);
        match end {
            Some(end) if position.seq <= end.seq => {
                Position { epoch: self.position.epoch, seq: position.seq }
            }
            Some(_) | None => position,
        }
    }

    /// Returns the epochs that ended where the log stands now: nothing has happened since.
    pub fn ended_here(&self) -> impl Iterator<Item = Epoch> {
        let here = self.position.seq;
        self.history.0.iter().filter(move |end| end.seq == here).map(|end| end.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(seq: u64, past: &[(Epoch, u64)]) -> Head {
        Head {
            position: Position { epoch: Epoch::random(), seq },
            history: EpochHistory::new(
                past.iter().map(|(epoch, seq)| Position { epoch: *epoch, seq: *seq }),
            ),
            oldest_seq: 1,
            status: DuelStatus::Open,
        }
    }

    #[test]
    fn a_position_is_carried_as_far_as_its_epoch_was_kept() {
        let [one, two, other] = [(); 3].map(|()| Epoch::random());
        let head = head(9, &[(two, 7), (one, 5)]);
        let carried = |epoch, seq| head.carried(Position { epoch, seq });
        let present = head.position.epoch;
        for (epoch, end) in [(one, 5), (two, 7)] {
            assert_eq!(carried(epoch, end), Position { epoch: present, seq: end });
            assert_eq!(carried(epoch, 0), Position { epoch: present, seq: 0 });
            assert_eq!(carried(epoch, end + 1), Position { epoch, seq: end + 1 });
        }
        assert_eq!(carried(other, 1), Position { epoch: other, seq: 1 });
        assert_eq!(head.ended_here().count(), 0);
    }

    #[test]
    fn epochs_without_an_event_of_their_own_ended_where_the_log_stands() {
        let epochs = [(); EpochHistory::EPOCHS_MAX + 2].map(|()| Epoch::random());
        let ends = epochs.map(|epoch| (epoch, if epoch == epochs[2] { 6 } else { 7 }));
        let known = epochs[..EpochHistory::EPOCHS_MAX].iter().copied();
        let expected = known.filter(|epoch| *epoch != epochs[2]);
        assert!(head(7, &ends).ended_here().eq(expected), "of the latest");
    }
}
