//! What a connection starts with: the latest events addressed to it, also when the log no longer holds them.

use duelhub::config::EngineConfig;
use duelhub::event::{Audience, Epoch, Position, Push};
use duelhub::limits;

use crate::kit::{DUEL, Subject, id_of, player, roomy, size_of, spectator, typed, users};
use crate::store::Kind;

/// Pushes an event of `event_type` to `audience`.
async fn push_to(engine: &Subject, event_type: &str, audience: Audience) -> u64 {
    let push = Push { audience, ..typed(event_type, 0) };
    engine.pushed(DUEL, push).await.position.seq
}

async fn the_latest_of_each_type(engine: Subject) {
    for event_type in ["duel_update", "score", "timer", "duel_update", "timer", "score"] {
        push_to(&engine, event_type, Audience::All).await;
    }
    assert_eq!(engine.latest_seqs(player(1)).await, [4, 5, 6]);
    let up_to = engine.head(DUEL).await.position;
    let events = engine.latest(id_of(DUEL), player(1), up_to).await.unwrap();
    let log = engine.log(DUEL).await;
    assert_eq!(events.unwrap(), log[3..], "they are the events themselves");
}

/// One event of two types for each audience, in two rounds, so that the second hides the first.
async fn push_to_everybody_in_turn(engine: &Subject) {
    for _ in 0..2 {
        for event_type in ["duel_update", "score"] {
            push_to(engine, event_type, Audience::All).await;
            push_to(engine, event_type, Audience::Except(users(&[1]))).await;
            push_to(engine, event_type, Audience::Players).await;
            push_to(engine, event_type, Audience::Only(users(&[1]))).await;
        }
    }
}

/// The seqs of the second round are 9 to 16: all, all but 1, players, only 1; once per type.
async fn assert_everybody_starts_with_their_own(engine: &Subject) {
    let table = [
        (player(1), [12, 16]),
        (player(2), [11, 15]),
        (spectator(3), [10, 14]),
        (spectator(1), [12, 16]),
    ];
    for (viewer, expected) in table {
        let latest = engine.latest_seqs(viewer).await;
        assert_eq!(latest, expected, "{viewer:?}");
    }
}

async fn everybody_starts_with_what_is_addressed_to_them(engine: Subject) {
    push_to_everybody_in_turn(&engine).await;
    assert_everybody_starts_with_their_own(&engine).await;
}

async fn also_when_it_has_fallen_off_the_log(kind: Kind) {
    let engine = Subject::with(kind, EngineConfig { log_events_max: 2, ..roomy() });
    push_to_everybody_in_turn(&engine).await;
    assert_everybody_starts_with_their_own(&engine).await;
    for nth in 0..5 {
        engine.pushed(DUEL, typed("timer", nth)).await;
    }
    let latest = engine.latest_seqs(player(1)).await;
    assert_eq!(latest, [12, 16, 21], "the log holds nothing but timers by now");
}

async fn also_after_the_end_has_pushed_it_off_the_log(kind: Kind) {
    let engine = Subject::with(kind, EngineConfig { log_events_max: 1, ..roomy() });
    engine.push(DUEL, 1).await;
    let outcome = duelhub::event::Outcome::Finished;
    engine.close(id_of(DUEL), outcome, Some(typed("result", 0))).await.unwrap();
    let latest = engine.latest_seqs(player(1)).await;
    assert_eq!(latest, [1, 2]);
}

async fn beyond_the_log_as_many_types_are_kept_as_the_limit_says(kind: Kind) {
    let engine = Subject::with(kind, EngineConfig { log_events_max: 1, ..roomy() });
    let types = limits::LATEST_TYPES_MAX as u64 + 1;
    for nth in 1..=types {
        engine.pushed(DUEL, typed(&format!("t{nth}"), nth)).await;
    }
    let latest = engine.latest_seqs(player(1)).await;
    assert!(latest.iter().copied().eq(1..=types), "one in the log, the others beyond it");
    engine.pushed(DUEL, typed("one-more", 0)).await;
    let latest = engine.latest_seqs(player(1)).await;
    assert!(latest.iter().copied().eq(2..=types + 1), "the one pushed longest ago is forgotten");
}

async fn a_type_pushed_again_is_not_the_one_forgotten(kind: Kind) {
    let engine = Subject::with(kind, EngineConfig { log_events_max: 1, ..roomy() });
    let types = limits::LATEST_TYPES_MAX as u64;
    for nth in (1..=types).chain([1]) {
        engine.pushed(DUEL, typed(&format!("t{nth}"), nth)).await;
    }
    for event_type in ["new", "newer"] {
        engine.pushed(DUEL, typed(event_type, 0)).await;
    }
    let latest = engine.latest_seqs(player(1)).await;
    assert!(latest.iter().copied().eq(3..=types + 3), "{latest:?}");
}

async fn as_many_bytes_are_kept_beyond_the_log_as_in_it(kind: Kind) {
    let size = size_of(typed("t1", 1));
    let config = EngineConfig { log_events_max: 1, log_bytes_max: 3 * size + size / 2, ..roomy() };
    let engine = Subject::with(kind, config);
    for nth in 1..=8 {
        engine.pushed(DUEL, typed(&format!("t{nth}"), nth)).await;
    }
    let latest = engine.latest_seqs(player(1)).await;
    assert_eq!(latest, [5, 6, 7, 8]);
}

async fn nothing_after_the_position_asked_for(engine: Subject) {
    for event_type in ["duel_update", "score", "duel_update", "score"] {
        push_to(&engine, event_type, Audience::All).await;
    }
    let epoch = engine.head(DUEL).await.position.epoch;
    for (seq, latest) in
        [(0, vec![]), (1, vec![1]), (2, vec![1, 2]), (3, vec![2, 3]), (4, vec![3, 4])]
    {
        let up_to = Position { epoch, seq };
        assert_eq!(engine.latest_up_to(player(1), up_to).await, latest);
    }
}

async fn nothing_of_another_epoch_or_duel(engine: Subject) {
    let position = engine.push(DUEL, 1).await;
    let foreign = Position { epoch: Epoch::random(), seq: 1 };
    assert_eq!(engine.latest(id_of(DUEL), player(1), foreign).await.unwrap(), None);
    assert_eq!(engine.latest(id_of(78), player(1), position).await.unwrap(), None);
    assert!(!engine.has(78).await, "asking brings nothing into being");
}

/// In the log, and after it has fallen off.
async fn a_transient_event_is_no_part_of_it(kind: Kind) {
    for log_events_max in [100, 2] {
        let engine = Subject::with(kind, EngineConfig { log_events_max, ..roomy() });
        for (event_type, transient) in
            [("score", false), ("timer", true), ("score", true), ("timer", true), ("hint", false)]
        {
            engine.pushed(DUEL, Push { transient, ..typed(event_type, 0) }).await;
        }
        assert_eq!(engine.latest_seqs(player(1)).await, [1, 5], "the last score but one");
        let last = engine.log(DUEL).await.pop().unwrap();
        assert!(!last.push().unwrap().transient);
    }
}

on_every_engine!(
    the_latest_of_each_type,
    everybody_starts_with_what_is_addressed_to_them,
    also_when_it_has_fallen_off_the_log,
    also_after_the_end_has_pushed_it_off_the_log,
    beyond_the_log_as_many_types_are_kept_as_the_limit_says,
    a_type_pushed_again_is_not_the_one_forgotten,
    as_many_bytes_are_kept_beyond_the_log_as_in_it,
    nothing_after_the_position_asked_for,
    nothing_of_another_epoch_or_duel,
    a_transient_event_is_no_part_of_it,
);
