//! After a restart a duel goes on from where it was, or it is another history; nothing is in between.
//!
//! A durable engine goes on, with everything that it has answered: in a new epoch if the engine orders the events itself,
//! which every position of before is carried to. Any other begins anew, and nobody can take that for going on. Whether it
//! was stopped or killed makes a difference only to what was not answered.

use std::time::Duration;

use duelhub::clock;
use duelhub::config::EngineConfig;
use duelhub::engine::{
    AppendError, Appended, Declaration, DuelRecord, DuelSettings, EpochHistory, Notice,
    Participant, RedeemError, Revocation, StatusFilter,
};
use duelhub::event::{Audience, Event, Outcome, Position, Push};
use duelhub::id::{DuelId, TelegramId};
use duelhub::limits::SESSIONS_PER_USER_MAX;
use duelhub::ticket::Ticket;

use crate::kit::{
    DUEL, Subject, id_of, payload, player, pushes, resume_ticket, roomy, ticket_for, typed, update,
    user, users,
};
use crate::store::Kind;

/// How an engine ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Stop,
    Kill,
}

const ENDS: [End; 2] = [End::Stop, End::Kill];

async fn again(engine: Subject, end: End) -> Subject {
    match end {
        End::Stop => engine.restarted().await,
        End::Kill => engine.killed().await,
    }
}

/// Everything of a record that a restart leaves as it is.
fn plain(record: DuelRecord) -> impl PartialEq + std::fmt::Debug {
    let DuelRecord { head, participants, settings, created_at, updated_at, .. } = record;
    let standing = (head.position.seq, head.oldest_seq, head.status);
    (standing, participants, settings, created_at, updated_at)
}

/// A duel with everything: declared, closed, views, audiences, and a log that it has outgrown.
async fn full_duel(engine: &Subject) -> Position {
    let telegram = TelegramId::try_from(11).unwrap();
    let settings = DuelSettings { presence_grace: Some(Duration::from_millis(1500)) };
    let participants = vec![Participant { user: user(1), telegram }];
    let declaration = Declaration { participants, settings: Some(settings), reopen: false };
    engine.open(id_of(DUEL), declaration).await.unwrap();
    engine.pushed(DUEL, typed("score", 1)).await;
    engine.append(id_of(DUEL), update(DUEL, 2), Some("key".into())).await.unwrap();
    for nth in 3..=20 {
        let views = [(user(1), payload(DUEL, "{\"s\": \"\u{1f600}\"}"))].into();
        let audience = Audience::Except(users(&[2]));
        let push = Push { audience, views, coalesce_key: Some("k".into()), ..update(DUEL, nth) };
        engine.pushed(DUEL, push).await;
    }
    let last = Some(typed("result", 0));
    engine.close(id_of(DUEL), Outcome::Cancelled, last).await.unwrap().position
}

async fn events_for(engine: &Subject, up_to: Position) -> Vec<std::sync::Arc<Event>> {
    engine.latest(id_of(DUEL), player(1), up_to).await.unwrap().unwrap()
}

async fn a_durable_duel_goes_on_as_it_was(kind: Kind) {
    for end in ENDS {
        let engine = Subject::with(kind, EngineConfig { log_events_max: 5, ..roomy() });
        let position = full_duel(&engine).await;
        let record = plain(engine.get(id_of(DUEL)).await.unwrap().unwrap());
        let (log, latest) = (engine.log(DUEL).await, events_for(&engine, position).await);
        let engine = again(engine, end).await;
        if !kind.is_durable() {
            assert!(!engine.has(DUEL).await);
            continue;
        }
        assert!(engine.told().is_empty(), "it is no news, {end:?}");
        assert_eq!(plain(engine.get(id_of(DUEL)).await.unwrap().unwrap()), record, "{end:?}");
        assert_eq!(engine.log(DUEL).await, log, "{end:?}");
        let before = position;
        let position = engine.head(DUEL).await.carried(before);
        assert_eq!(position.epoch != before.epoch, kind.begins_an_epoch(), "{end:?}");
        assert_eq!(position, engine.head(DUEL).await.position, "{end:?}");
        assert_eq!(events_for(&engine, position).await, latest, "{end:?}");
        let duplicate = engine.append(id_of(DUEL), update(DUEL, 2), Some("key".into())).await;
        assert_eq!(
            duplicate,
            Ok(Appended {
                position: Position { seq: 2, ..position },
                event: None,
                connections: 0,
                declared: true
            })
        );
        let reused = engine.append(id_of(DUEL), update(DUEL, 3), Some("key".into())).await;
        assert_eq!(reused, Err(AppendError::KeyReused));
        let closed = engine.append(id_of(DUEL), update(DUEL, 3), None).await;
        assert_eq!(closed, Err(AppendError::Closed));
        assert_eq!(engine.counts().duels, 1);
        assert_eq!(engine.list(None, StatusFilter::Any, 9).await.unwrap().len(), 1);
    }
}

async fn positions_go_on_or_are_of_another_epoch(kind: Kind) {
    let mut engine = Subject::new(kind);
    let mut known: Vec<Position> = Vec::new();
    for end in ENDS.into_iter().cycle().take(6) {
        for nth in 0..10 {
            let position = engine.push(DUEL, nth).await;
            assert!(!known.contains(&position), "{position} was given out before");
            assert!(!kind.is_durable() || position.seq == known.len() as u64 + 1);
            known.push(position);
        }
        engine = again(engine, end).await;
    }
    let epochs: std::collections::HashSet<_> = known.iter().map(|p| p.epoch).collect();
    assert_eq!(epochs.len(), if kind.begins_an_epoch() { 6 } else { 1 });
    if kind.is_durable() {
        let head = engine.head(DUEL).await;
        assert!(known.iter().all(|position| head.carried(*position).epoch == head.position.epoch));
    }
}

/// Where duel 78 stands, after an event or without one.
async fn pushed_or_not(engine: &Subject, pushes: bool) -> Position {
    match pushes {
        true => engine.push(78, 1).await,
        false => engine.get_or_create(id_of(78)).await.unwrap().head.position,
    }
}

/// Whoever was away over restarts goes on as long as the epoch is known, unless they claim to have seen more of it.
async fn a_position_is_carried_over_as_many_restarts_as_are_known(kind: Kind) {
    let mut engine = Subject::new(kind);
    let mut seen = Vec::new();
    for life in 0..=EpochHistory::EPOCHS_MAX as u64 {
        // In every other life nothing happens to one of the duels.
        seen.push([engine.push(DUEL, life).await, pushed_or_not(&engine, life % 2 == 0).await]);
        engine = again(engine, ENDS[usize::from(life % 2 == 0)]).await;
    }
    let heads = [DUEL, 78].map(async |duel| engine.get_or_create(id_of(duel)).await.unwrap().head);
    let heads = futures_util::future::join_all(heads).await;
    for (restarts, positions) in seen.into_iter().rev().zip(1..).map(|(seen, nth)| (nth, seen)) {
        for (head, position) in heads.iter().zip(positions) {
            let is_known = match kind {
                Kind::Memory => false,
                Kind::Embedded => restarts <= EpochHistory::EPOCHS_MAX,
                Kind::Redis | Kind::RedisNodes => true,
            };
            assert_eq!(head.carried(position).epoch == head.position.epoch, is_known, "{restarts}");
            let past_it = Position { seq: position.seq + 1, ..position };
            assert_eq!(head.carried(past_it), past_it, "{restarts}: it was never given out");
        }
    }
}

async fn what_was_not_answered_at_a_stop_is_stored_by_a_durable_engine(kind: Kind) {
    let engine = Subject::new(kind);
    for nth in 1..=300 {
        drop(engine.pinned().append(id_of(DUEL), update(DUEL, nth), None));
    }
    let engine = engine.restarted().await;
    if kind.is_durable() {
        let expected: Vec<_> = (1..=300).map(|nth| update(DUEL, nth)).collect();
        assert_eq!(pushes(&engine.log(DUEL).await), expected);
    }
}

async fn what_was_not_answered_at_a_kill_is_there_up_to_some_point(kind: Kind) {
    for answered in [0, 1, 150] {
        let engine = Subject::new(kind);
        let mut calls: Vec<_> = (1..=300)
            .map(|nth| engine.pinned().append(id_of(DUEL), update(DUEL, nth), None))
            .collect();
        for call in calls.drain(..answered) {
            call.await.unwrap();
        }
        drop(calls);
        let engine = engine.killed().await;
        let there = match engine.get(id_of(DUEL)).await.unwrap() {
            Some(_) => pushes(&engine.log(DUEL).await),
            None => Vec::new(),
        };
        assert!(!kind.is_durable() || there.len() >= answered, "what was answered is there");
        let prefix: Vec<_> = (1..=there.len() as u64).map(|nth| update(DUEL, nth)).collect();
        assert_eq!(there, prefix);
        let next = engine.push(DUEL, 0).await.seq;
        assert_eq!(next, there.len() as u64 + 1, "and goes on from there");
    }
}

async fn what_was_told_is_there_after_a_kill(kind: Kind) {
    let engine = Subject::new(kind);
    for nth in 1..=300 {
        drop(engine.pinned().append(id_of(DUEL), update(DUEL, nth), None));
    }
    // Whatever was told up to here may have been seen by a player.
    while engine.told_events(DUEL).is_empty() {
        tokio::task::yield_now().await;
    }
    let told: Vec<_> = engine.told_events(DUEL).into_iter().map(|(_, event)| event).collect();
    let engine = engine.killed().await;
    if kind.is_durable() {
        assert_eq!(engine.log(DUEL).await[..told.len()], told);
    }
}

async fn what_could_be_read_is_there_after_a_kill(kind: Kind) {
    let engine = Subject::new(kind);
    engine.get_or_create(id_of(DUEL)).await.unwrap();
    for nth in 1..=300 {
        drop(engine.pinned().append(id_of(DUEL), update(DUEL, nth), None));
    }
    while engine.head(DUEL).await.position.seq == 0 {
        tokio::task::yield_now().await;
    }
    let seen = engine.log(DUEL).await;
    let engine = engine.killed().await;
    if kind.is_durable() {
        assert_eq!(engine.log(DUEL).await[..seen.len()], seen);
    }
}

async fn a_duplicate_is_answered_once_the_first_is_safe(kind: Kind) {
    for _ in 0..20 {
        let engine = Subject::new(kind);
        let call = || engine.pinned().append(id_of(DUEL), update(DUEL, 1), Some("key".into()));
        drop(call());
        let position = call().await.unwrap().position;
        let engine = engine.killed().await;
        if kind.is_durable() {
            let head = engine.head(DUEL).await;
            assert_eq!(head.carried(position), head.position);
        }
    }
}

async fn what_a_durable_engine_knows_of_tickets_it_still_knows(kind: Kind) {
    for end in ENDS {
        let engine = Subject::new(kind);
        let ticket = |duel| ticket_for(duel, 1, Duration::from_secs(3600));
        let (used, revoked, of_user, unused) = (ticket(1), ticket(1), ticket(2), ticket(1));
        let [first, next, copy] = [1, 2, 2].map(|number| resume_ticket(&used, number));
        engine.redeem(&used).await.unwrap();
        engine.redeem(&first).await.unwrap();
        engine.revoke(Revocation::Ticket(revoked.jti.clone())).await.unwrap();
        let of = Revocation::User { duel: of_user.duel, user: user(1) };
        engine.revoke(of).await.unwrap();
        let revision = engine.stamp().await.unwrap().revision;
        let engine = again(engine, end).await;
        if kind.is_durable() {
            assert_eq!(engine.stamp().await.unwrap().revision, revision);
            engine.redeem(&first).await.unwrap();
            engine.redeem(&next).await.unwrap();
            assert_eq!(engine.redeem(&used).await, Err(RedeemError::AlreadyUsed), "{end:?}");
            assert_eq!(engine.redeem(&copy).await, Err(RedeemError::Copied), "{end:?}");
            assert_eq!(engine.redeem(&revoked).await, Err(RedeemError::Revoked), "{end:?}");
            assert_eq!(engine.redeem(&of_user).await, Err(RedeemError::Revoked), "{end:?}");
            assert_eq!(engine.counts().remembered_tickets, 3);
        }
        engine.redeem(&unused).await.unwrap();
    }
}

async fn sessions_that_were_crowded_out_stay_used(kind: Kind) {
    for end in ENDS {
        let mut engine = Subject::new(kind);
        let mut used = Vec::new();
        // Once they are crowded out by what came before a restart, and once by what comes after it.
        for nth in 1..=SESSIONS_PER_USER_MAX * 3 / 2 + 2 {
            let revision = engine.stamp().await.unwrap().revision;
            let ticket = Ticket { revision, ..ticket_for(DUEL, 1, Duration::from_secs(3600)) };
            engine.redeem(&ticket).await.unwrap();
            used.push(ticket);
            if nth == SESSIONS_PER_USER_MAX || nth == SESSIONS_PER_USER_MAX + 1 {
                engine = again(engine, end).await;
            }
        }
        let engine = again(engine, end).await;
        if !kind.is_durable() {
            continue;
        }
        for ticket in &used {
            let answer = engine.redeem(ticket).await.unwrap_err();
            assert!(matches!(answer, RedeemError::AlreadyUsed | RedeemError::Spent), "{end:?}");
        }
        let sessions = used.len() - SESSIONS_PER_USER_MAX;
        assert_eq!(engine.counts().remembered_tickets, sessions + 1, "and the watermark, {end:?}");
    }
}

async fn what_is_forgotten_stays_forgotten(kind: Kind) {
    for end in ENDS {
        let engine = Subject::new(kind);
        let before = engine.push(DUEL, 1).await;
        let kept = id_of(78);
        engine.prune(clock::now().plus(Duration::from_secs(250))).await.unwrap();
        assert!(!engine.has(DUEL).await);
        engine.push(78, 1).await;
        let engine = again(engine, end).await;
        assert!(!engine.has(DUEL).await, "{end:?}");
        assert_eq!(engine.get(kept).await.unwrap().is_some(), kind.is_durable());
        let after = engine.push(DUEL, 1).await;
        assert_eq!(after.seq, 1);
        assert_ne!(after.epoch, before.epoch);
    }
}

async fn retention_is_counted_from_the_last_sign_of_life_before_a_restart(kind: Kind) {
    for end in ENDS {
        let engine = Subject::new(kind);
        let before = clock::now();
        engine.push(1, 1).await;
        engine.close(id_of(2), Outcome::Finished, None).await.unwrap();
        let after = clock::now();
        let engine = again(engine, end).await;
        engine.prune(before.plus(Duration::from_secs(99))).await.unwrap();
        for duel in [1, 2] {
            assert_eq!(engine.has(duel).await, kind.is_durable(), "{duel}, {end:?}");
        }
        engine.prune(after.plus(Duration::from_secs(250))).await.unwrap();
        assert!(!engine.has(1).await && !engine.has(2).await, "{end:?}");
    }
}

async fn the_probe_may_be_entered_again(kind: Kind) {
    let engine = Subject::with(kind, EngineConfig { duels_max: 1, ..roomy() });
    engine.get_or_create(DuelId::PROBE).await.unwrap();
    engine.push(DUEL, 1).await;
    let engine = engine.killed().await;
    engine.get_or_create(DuelId::PROBE).await.unwrap();
    engine.push(DUEL, 2).await;
    assert_eq!(engine.counts().duels, 1);
    let opened =
        |notice: &Notice| matches!(notice, Notice::Opened { duel, .. } if *duel == id_of(DUEL));
    assert_eq!(engine.told().iter().any(opened), !kind.is_durable());
}

on_every_engine!(
    a_durable_duel_goes_on_as_it_was,
    positions_go_on_or_are_of_another_epoch,
    a_position_is_carried_over_as_many_restarts_as_are_known,
    what_was_not_answered_at_a_stop_is_stored_by_a_durable_engine,
    what_was_not_answered_at_a_kill_is_there_up_to_some_point,
    what_was_told_is_there_after_a_kill,
    what_could_be_read_is_there_after_a_kill,
    a_duplicate_is_answered_once_the_first_is_safe,
    what_a_durable_engine_knows_of_tickets_it_still_knows,
    sessions_that_were_crowded_out_stay_used,
    what_is_forgotten_stays_forgotten,
    retention_is_counted_from_the_last_sign_of_life_before_a_restart,
    the_probe_may_be_entered_again,
);
