//! An idempotency key makes a push take effect once.

use duelhub::config::EngineConfig;
use duelhub::engine::{AppendError, Appended};
use duelhub::event::{Audience, Outcome, Push};
use duelhub::limits;

use crate::kit::{DUEL, Subject, id_of, payload, roomy, typed, update, user, users};
use crate::store::Kind;

async fn keyed(engine: &Subject, push: Push, key: &str) -> Result<Appended, AppendError> {
    engine.append(id_of(DUEL), push, Some(key.into())).await
}

async fn a_duplicate_gets_the_first_answer_and_stores_nothing(engine: Subject) {
    let first = keyed(&engine, update(DUEL, 1), "key").await.unwrap();
    assert!(first.event.is_some());
    engine.push(DUEL, 2).await;
    for _ in 0..3 {
        let again = keyed(&engine, update(DUEL, 1), "key").await.unwrap();
        assert_eq!(
            again,
            Appended { position: first.position, event: None, connections: 0, declared: false }
        );
    }
    assert_eq!(engine.log(DUEL).await.len(), 2);
    assert_eq!(engine.told_events(DUEL).len(), 2);
}

async fn a_duplicate_is_one_also_while_the_first_is_under_way(engine: Subject) {
    let call = || engine.pinned().append(id_of(DUEL), update(DUEL, 1), Some("key".into()));
    let (first, again) = (call(), call());
    let again = again.await.unwrap();
    let first = first.await.unwrap();
    assert!(first.event.is_some());
    assert_eq!(
        again,
        Appended { position: first.position, event: None, connections: 0, declared: false }
    );
    assert_eq!(engine.log(DUEL).await.len(), 1, "the answer of a duplicate waits for the first");
}

async fn a_key_stands_for_one_content(engine: Subject) {
    let first = keyed(&engine, update(DUEL, 1), "key").await.unwrap();
    let others = [
        update(DUEL, 2),
        typed("score", 1),
        Push { audience: Audience::Players, ..update(DUEL, 1) },
        Push { audience: Audience::Only(users(&[1])), ..update(DUEL, 1) },
        Push { views: [(user(1), payload(DUEL, "{}"))].into(), ..update(DUEL, 1) },
        Push { coalesce_key: Some("timer".into()), ..update(DUEL, 1) },
    ];
    for other in others {
        assert_eq!(keyed(&engine, other, "key").await, Err(AppendError::KeyReused));
    }
    assert_eq!(engine.head(DUEL).await.position, first.position, "nothing was stored");
    assert_eq!(engine.told_events(DUEL).len(), 1);
}

async fn keys_are_each_duels_own(engine: Subject) {
    for duel in [77, 78] {
        let appended = engine.append(id_of(duel), update(duel, duel), Some("key".into())).await;
        assert!(appended.unwrap().event.is_some());
    }
}

async fn a_key_outlives_its_event_in_the_log(kind: Kind) {
    let engine = Subject::with(kind, EngineConfig { log_events_max: 2, ..roomy() });
    let first = keyed(&engine, update(DUEL, 1), "key").await.unwrap();
    engine.push_all(DUEL, 2..=10).await;
    assert_eq!(engine.head(DUEL).await.oldest_seq, 9);
    let again = keyed(&engine, update(DUEL, 1), "key").await.unwrap();
    assert_eq!(
        again,
        Appended { position: first.position, event: None, connections: 0, declared: false }
    );
}

async fn the_keys_used_last_are_remembered(engine: Subject) {
    let keys_max = limits::IDEMPOTENCY_KEYS_MAX as u64;
    for nth in 1..=keys_max + 1 {
        keyed(&engine, update(DUEL, nth), &format!("{nth}")).await.unwrap();
    }
    for nth in 2..=keys_max + 1 {
        let again = keyed(&engine, update(DUEL, nth), &format!("{nth}")).await.unwrap();
        assert_eq!((again.position.seq, again.event), (nth, None));
    }
    let forgotten = keyed(&engine, update(DUEL, 1), "1").await.unwrap();
    assert_eq!(forgotten.position.seq, keys_max + 2, "the oldest key was forgotten");
    assert!(forgotten.event.is_some());
}

async fn a_closed_duel_still_answers_duplicates(engine: Subject) {
    let first = keyed(&engine, update(DUEL, 1), "key").await.unwrap();
    let closed = engine.close(id_of(DUEL), Outcome::Finished, None).await.unwrap();
    let again = keyed(&engine, update(DUEL, 1), "key").await.unwrap();
    assert_eq!(
        again,
        Appended { position: first.position, event: None, connections: 0, declared: false }
    );
    assert_eq!(keyed(&engine, update(DUEL, 2), "other").await, Err(AppendError::Closed));
    assert_eq!(engine.head(DUEL).await.position, closed.position);
}

on_every_engine!(
    a_duplicate_gets_the_first_answer_and_stores_nothing,
    a_duplicate_is_one_also_while_the_first_is_under_way,
    a_key_stands_for_one_content,
    keys_are_each_duels_own,
    a_key_outlives_its_event_in_the_log,
    the_keys_used_last_are_remembered,
    a_closed_duel_still_answers_duplicates,
);
