//! What a player is shown, held against the history of the duel. Knows nothing of hubs and engines.

use duelhub::event::{Position, Viewer};
use duelhub::hub::Recovery;

use crate::history::History;
use crate::spec::Shown;

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error("{0} was addressed to the player and never came")]
    Lost(u64),
    #[error("{0} came twice")]
    Doubled(u64),
    #[error("{0} came after a later one")]
    Disordered(u64),
    #[error("{0} came, and was never pushed")]
    NeverPushed(u64),
    #[error("{0} came, and was not addressed to the player")]
    NotAddressed(u64),
    #[error("{0} came with the body of another")]
    Foreign(u64),
    #[error("told of a position that is none: {0}")]
    NoPosition(Position),
    #[error("the duel was of another epoch before, or should be by now")]
    EpochChanged,
    #[error("a history that began anew has an epoch that was there before")]
    EpochReused,
    #[error("told recovered, although something since {0} is gone")]
    FalselyRecovered(Position),
    #[error("told not recovered, although everything since {0} is there")]
    NeedlesslyNotRecovered(Position),
    #[error("the opening state is of {shown:?} instead of {expected:?}")]
    WrongState { expected: Vec<u64>, shown: Vec<u64> },
    #[error("closed as too slow, although everything after {0} is there")]
    NotTooSlow(u64),
    #[error("{witnessed} had been seen, and the log ends at {head} after a restart")]
    NotDurable { witnessed: u64, head: u64 },
    #[error("of a close only the last event is there")]
    Torn,
    #[error("{0}")]
    Unexpected(String),
    #[error("{0}: {1}")]
    At(String, Box<Violation>),
}

impl Violation {
    /// The same, with where it was.
    pub(crate) fn at(self, place: &str) -> Self {
        Self::At(place.to_owned(), Box::new(self))
    }
}

/// What is wrong, in words of its own.
pub(crate) fn unexpected<T>(what: impl Into<String>) -> Result<T, Violation> {
    Err(Violation::Unexpected(what.into()))
}

/// Objects unless it holds.
pub(crate) fn ensure(holds: bool, violation: Violation) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(violation) }
}

/// Objects in words of its own unless it holds.
pub(crate) fn expect(holds: bool, what: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { unexpected(what()) }
}

/// What a connection is welcomed with.
#[derive(Debug)]
pub(crate) struct Welcomed {
    /// Where the client goes on from: the position it came with, if it recovered, and otherwise the log's newest.
    pub(crate) position: Position,
    pub(crate) recovery: Recovery,
    pub(crate) state: Vec<Shown>,
    /// For coming back, where one is handed out.
    pub(crate) resume_ticket: Option<String>,
}

/// One connection, as far as it has been served.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) viewer: Viewer,
    /// Up to where it has been served.
    pub(crate) cursor: u64,
    /// Events that were left out because a newer one was served.
    pub(crate) left_out: u64,
}

impl Follower {
    /// Checks how a connection begins that asked to go on after `resume`.
    pub(crate) fn welcome(
        history: &mut History,
        viewer: Viewer,
        resume: Option<Position>,
        welcomed: &Welcomed,
    ) -> Result<Self, Violation> {
        let position = welcomed.position;
        // What is still under way may or may not have been there when the connection came.
        let (least, most) = (history.settled(), history.len());
        history.witness(position)?;
        match (welcomed.recovery, resume) {
            (Recovery::Recovered, Some(resume)) => {
                let there =
                    position == history.carried(resume) && history.holds_after(resume, least);
                ensure(there, Violation::FalselyRecovered(resume))?;
                ensure(welcomed.state.is_empty(), wrong_state(&[], &welcomed.state))?;
            }
            (Recovery::NotRecovered, Some(resume)) => {
                let there = resume.seq <= least && history.holds_after(resume, most);
                ensure(!there, Violation::NeedlesslyNotRecovered(resume))?;
            }
            (Recovery::Fresh, None) => {}
            (recovery, _) => unexpected(format!("{recovery:?} for {resume:?}"))?,
        }
        if welcomed.recovery != Recovery::Recovered {
            ensure(position.seq >= least, Violation::NoPosition(position))?;
            check_state(history, viewer, welcomed)?;
            if history.is_end(position.seq) {
                // It is no part of the state, and comes after it.
                return Ok(Self { viewer, cursor: position.seq - 1, left_out: 0 });
            }
        }
        Ok(Self { viewer, cursor: position.seq, left_out: 0 })
    }

    /// Checks the events that were served, up to `served`.
    pub(crate) fn batch(
        &mut self,
        history: &mut History,
        events: &[Shown],
        served: u64,
    ) -> Result<(), Violation> {
        let mut last = self.cursor;
        for shown in events {
            let seq = shown.seq;
            ensure(seq > self.cursor && seq != last, Violation::Doubled(seq))?;
            ensure(seq > last, Violation::Disordered(seq))?;
            check_event(history, self.viewer, shown)?;
            last = seq;
        }
        ensure(
            served >= last && served <= history.len(),
            Violation::NeverPushed(served.max(last)),
        )?;
        for seq in self.cursor + 1..=served {
            let came = events.iter().any(|shown| shown.seq == seq);
            if came || history.shown(seq, self.viewer).is_none() {
                continue;
            }
            ensure(history.is_superseded(seq, served, self.viewer), Violation::Lost(seq))?;
            self.left_out += 1;
        }
        self.cursor = served;
        history.witness_seq(served);
        Ok(())
    }

    /// Checks that the connection could indeed not be served any further.
    pub(crate) fn too_slow(&self, history: &History) -> Result<(), Violation> {
        let gone = !history.log_holds(self.cursor + 1, history.len());
        ensure(gone, Violation::NotTooSlow(self.cursor))
    }
}

/// One event as `viewer` was shown it.
fn check_event(history: &History, viewer: Viewer, shown: &Shown) -> Result<(), Violation> {
    let seq = shown.seq;
    ensure(seq >= 1 && seq <= history.len(), Violation::NeverPushed(seq))?;
    let expected = history.shown(seq, viewer).ok_or(Violation::NotAddressed(seq))?;
    ensure(*shown == expected, Violation::Foreign(seq))
}

fn wrong_state(expected: &[u64], shown: &[Shown]) -> Violation {
    let shown = shown.iter().map(|shown| shown.seq).collect();
    Violation::WrongState { expected: expected.to_vec(), shown }
}

fn check_state(history: &History, viewer: Viewer, welcomed: &Welcomed) -> Result<(), Violation> {
    let (shown, up_to) = (&welcomed.state, welcomed.position.seq);
    let expected = history.latest(viewer, up_to);
    for event in shown {
        check_event(history, viewer, event)?;
    }
    let seqs: Vec<_> = shown.iter().map(|event| event.seq).collect();
    if history.settled() == history.len() {
        return ensure(seqs == expected, wrong_state(&expected, shown));
    }
    // What is under way may push the latest off the log, and out of what is kept beyond it, while the state is being
    // read: then it may be missing, and the connection is about to be shown what came instead, or to be told too slow.
    let types = shown.iter().map(|event| &event.event_type);
    let distinct: std::collections::HashSet<_> = types.collect();
    let plausible =
        seqs.is_sorted() && seqs.iter().all(|seq| *seq <= up_to) && distinct.len() == shown.len();
    ensure(plausible, wrong_state(&expected, shown))
}
