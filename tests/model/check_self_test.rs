//! The checks object to what they are there for: histories that are broken in one place each.

use duelhub::event::{Epoch, Outcome, Position, Role, Viewer};
use duelhub::hub::Recovery;
use duelhub::id::DuelId;

use crate::check::{Follower, Violation, Welcomed};
use crate::history::History;
use crate::spec::{Shown, Spec, To, user};

const PLAYER: u64 = 1;

fn viewer() -> Viewer {
    Viewer { user: user(PLAYER), role: Role::Player }
}

fn spec(nth: u64) -> Spec {
    Spec {
        nth,
        event_type: "score",
        to: To::All,
        view: None,
        key: None,
        coalesce: None,
        transient: false,
    }
}

/// A duel of so many events, all answered, in a log that holds 10.
fn history(specs: impl IntoIterator<Item = Spec>) -> History {
    let mut history = History::new(DuelId::try_from(7).unwrap(), 10);
    for spec in specs {
        history.push(&spec);
    }
    let position = Position { epoch: Epoch::random(), seq: history.len() };
    history.witness(position).unwrap();
    history
}

/// Events as the player would be shown them.
fn shown(history: &History, seqs: &[u64]) -> Vec<Shown> {
    seqs.iter().map(|seq| history.shown(*seq, viewer()).unwrap()).collect()
}

/// Serves a connection that begins after `cursor`.
fn serve(
    history: &mut History,
    cursor: u64,
    events: &[Shown],
    served: u64,
) -> Result<(), Violation> {
    let mut follower = Follower { viewer: viewer(), cursor, left_out: 0 };
    follower.batch(history, events, served)
}

#[test]
fn what_is_lost_doubled_or_out_of_order_is_noticed_wherever_it_was() {
    let served = |cursor, seqs: &[u64], served| {
        let mut history = history((1..=5).map(spec));
        let events = shown(&history, seqs);
        serve(&mut history, cursor, &events, served)
    };
    assert_eq!(served(2, &[3, 4, 5], 5), Ok(()));
    for missing in 1..=5 {
        let seqs: Vec<_> = (1..=5).filter(|seq| *seq != missing).collect();
        assert_eq!(served(0, &seqs, 5), Err(Violation::Lost(missing)));
    }
    assert_eq!(served(0, &[1, 2, 2, 3], 3), Err(Violation::Doubled(2)), "within a batch");
    assert_eq!(served(3, &[3, 4], 4), Err(Violation::Doubled(3)), "across two");
    assert_eq!(served(0, &[1, 3, 2], 3), Err(Violation::Disordered(2)));
}

#[test]
fn a_foreign_body_is_noticed() {
    let view = Spec { view: Some(PLAYER), ..spec(2) };
    let mut history = history([spec(1), view, spec(3)]);
    let mut events = shown(&history, &[1, 2, 3]);
    assert_eq!(serve(&mut history, 0, &events, 3), Ok(()));
    events[1].body = r#"{"duel_id":7,"nth":2}"#.to_owned();
    assert_eq!(serve(&mut history, 0, &events, 3), Err(Violation::Foreign(2)), "another's view");
    events[1].event_type = "timer".to_owned();
    assert_eq!(serve(&mut history, 0, &events, 3), Err(Violation::Foreign(2)), "another's type");
}

#[test]
fn an_event_for_somebody_else_is_noticed() {
    let mut history = history([spec(1), Spec { to: To::Only(2), ..spec(2) }]);
    let mut events = shown(&history, &[1]);
    assert_eq!(serve(&mut history, 0, &events, 2), Ok(()));
    events.push(Shown { seq: 2, ..events[0].clone() });
    assert_eq!(serve(&mut history, 0, &events, 2), Err(Violation::NotAddressed(2)));
}

#[test]
fn an_event_that_was_never_pushed_is_noticed() {
    let mut history = history([spec(1)]);
    let mut events = shown(&history, &[1]);
    events.push(Shown { seq: 2, ..events[0].clone() });
    assert_eq!(serve(&mut history, 0, &events, 2), Err(Violation::NeverPushed(2)));
    assert_eq!(serve(&mut history, 1, &[], 2), Err(Violation::NeverPushed(2)), "by its place");
}

#[test]
fn only_what_is_superseded_may_be_left_out() {
    let timer = |nth| Spec { coalesce: Some("timer"), ..spec(nth) };
    let for_another = Spec { to: To::Only(2), ..timer(3) };
    let mut history = history([timer(1), timer(2), for_another]);
    let events = shown(&history, &[2]);
    assert_eq!(serve(&mut history, 0, &events, 3), Ok(()));
    let nothing = serve(&mut history, 0, &[], 3);
    assert_eq!(nothing, Err(Violation::Lost(2)), "the third is not addressed to the player");
    assert_eq!(serve(&mut history, 0, &[], 1), Err(Violation::Lost(1)), "not of this batch");
}

/// Welcomes the player back after `seq`.
fn come_back(
    history: &mut History,
    seq: u64,
    recovery: Recovery,
    state: &[u64],
) -> Option<Violation> {
    let resume = Position { epoch: history.epoch.unwrap(), seq };
    let seq = if recovery == Recovery::Recovered { seq } else { history.len() };
    let welcomed = Welcomed {
        position: Position { seq, ..resume },
        recovery,
        state: shown(history, state),
        resume_ticket: None,
    };
    Follower::welcome(history, viewer(), Some(resume), &welcomed).err()
}

#[test]
fn a_false_recovered_is_noticed() {
    let mut history = history((1..=25).map(spec));
    assert_eq!(come_back(&mut history, 15, Recovery::Recovered, &[]), None);
    let gone = come_back(&mut history, 14, Recovery::Recovered, &[]);
    assert!(matches!(gone, Some(Violation::FalselyRecovered(_))), "15 has fallen off: {gone:?}");
    let known = history.epoch.unwrap();
    history.begin_anew();
    history.push(&spec(1));
    let foreign = Position { epoch: known, seq: 1 };
    let recovery = Recovery::Recovered;
    let welcomed = Welcomed { position: foreign, recovery, state: Vec::new(), resume_ticket: None };
    let anew = Follower::welcome(&mut history, viewer(), Some(foreign), &welcomed).unwrap_err();
    assert_eq!(anew, Violation::EpochReused, "another history");
}

#[test]
fn a_new_epoch_goes_on_as_far_as_the_one_before_was_kept() {
    let known = |history: &History, seq| Position { epoch: history.epoch.unwrap(), seq };
    let mut history = history((1..=5).map(spec));
    for nth in 6..=7 {
        history.push(&spec(nth));
    }
    let before = [known(&history, 6), known(&history, 7)];
    history.come_back(6, false).unwrap();
    history.go_on(Epoch::random(), true).unwrap();
    for (seen, is_kept) in before.into_iter().zip([true, false]) {
        let carried = history.carried(seen);
        assert_eq!(carried.epoch != seen.epoch, is_kept, "of 7 it kept 6");
        assert_eq!(history.holds_after(seen, 6), is_kept);
    }
    let same = history.epoch.unwrap();
    assert_eq!(history.go_on(same, true), Err(Violation::EpochChanged), "no start without one");
    assert_eq!(history.go_on(Epoch::random(), false), Err(Violation::EpochChanged));
}

#[test]
fn a_needless_not_recovered_is_noticed() {
    let mut history = history((1..=25).map(spec));
    assert_eq!(come_back(&mut history, 14, Recovery::NotRecovered, &[25]), None);
    let there = come_back(&mut history, 15, Recovery::NotRecovered, &[25]);
    assert!(matches!(there, Some(Violation::NeedlesslyNotRecovered(_))), "{there:?}");
}

#[test]
fn a_wrong_opening_state_is_noticed() {
    let update = |nth| Spec { event_type: "duel_update", ..spec(nth) };
    let mut history =
        history([update(1), spec(2), update(3), spec(4)].into_iter().chain((5..=20).map(spec)));
    assert_eq!(come_back(&mut history, 1, Recovery::NotRecovered, &[3, 20]), None);
    for state in [&[20][..], &[3], &[1, 20], &[3, 19], &[20, 3], &[3, 20, 20], &[]] {
        let wrong = come_back(&mut history, 1, Recovery::NotRecovered, state);
        assert!(matches!(wrong, Some(Violation::WrongState { .. })), "{state:?}: {wrong:?}");
    }
}

#[test]
fn who_is_not_too_slow_is_not_told_so() {
    let history = history((1..=25).map(spec));
    let at = |cursor| Follower { viewer: viewer(), cursor, left_out: 0 }.too_slow(&history);
    assert_eq!(at(14), Ok(()));
    assert_eq!(at(15), Err(Violation::NotTooSlow(15)));
}

#[test]
fn what_was_seen_and_is_gone_after_a_restart_is_noticed() {
    let fresh = || {
        let mut history = history((1..=5).map(spec));
        // Under way when the engine was killed.
        history.push(&spec(6));
        history.close(Outcome::Finished, Some(spec(7)));
        history
    };
    assert_eq!(fresh().come_back(4, false), Err(Violation::NotDurable { witnessed: 5, head: 4 }));
    assert_eq!(fresh().come_back(5, false), Ok(()));
    assert_eq!(fresh().come_back(6, false), Ok(()));
    assert_eq!(fresh().come_back(7, false), Err(Violation::Torn), "without the end");
    assert_eq!(fresh().come_back(8, false), Ok(()));
    assert_eq!(fresh().come_back(9, false), Err(Violation::NeverPushed(9)));
    let stopped = fresh().come_back(6, true);
    assert_eq!(stopped, Err(Violation::NotDurable { witnessed: 8, head: 6 }), "in good order");
}
