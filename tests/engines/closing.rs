//! The end of a duel is an entry of its log, the last one.

use duelhub::engine::{AppendError, Appended, Declaration, OpenError};
use duelhub::event::{Content, DuelStatus, Outcome};

use crate::kit::{DUEL, Subject, id_of, player, update};

async fn the_last_event_and_the_end_are_stored_in_one_step(engine: Subject) {
    engine.push(DUEL, 1).await;
    let last = Some(update(DUEL, 2));
    let closed = engine.close(id_of(DUEL), Outcome::Cancelled, last).await.unwrap();
    assert_eq!(closed.position.seq, 3, "the end has a seq of its own");
    let end = closed.event.unwrap();
    assert_eq!((end.seq, &end.content), (3, &Content::Closed(Outcome::Cancelled)));
    let log = engine.log(DUEL).await;
    assert_eq!(log[1].push(), Some(&update(DUEL, 2)));
    assert_eq!(log[2], end);
    let told: Vec<_> = engine.told_events(DUEL).into_iter().map(|(_, event)| event).collect();
    assert_eq!(told, log);
    let head = engine.head(DUEL).await;
    assert_eq!(head.position, closed.position);
    assert_eq!(head.status, DuelStatus::Closed(Outcome::Cancelled));
}

async fn without_a_last_event_the_end_stands_alone(engine: Subject) {
    engine.push(DUEL, 1).await;
    let closed = engine.close(id_of(DUEL), Outcome::Finished, None).await.unwrap();
    assert_eq!(closed.position.seq, 2);
    assert_eq!(engine.log(DUEL).await.len(), 2);
}

async fn closing_again_in_the_same_way_stores_nothing(engine: Subject) {
    let close = |nth| engine.close(id_of(DUEL), Outcome::Finished, Some(update(DUEL, nth)));
    let first = close(1).await.unwrap();
    for nth in [1, 2] {
        let again = close(nth).await.unwrap();
        assert_eq!(
            again,
            Appended { position: first.position, event: None, connections: 0, declared: false }
        );
    }
    assert_eq!(engine.told_events(DUEL).len(), 2);
    assert_eq!(engine.log(DUEL).await.len(), 2);
}

async fn a_duel_ends_in_one_way(engine: Subject) {
    let first = engine.close(id_of(DUEL), Outcome::Finished, None).await.unwrap();
    let other = engine.close(id_of(DUEL), Outcome::Cancelled, Some(update(DUEL, 1))).await;
    assert_eq!(other, Err(AppendError::Closed));
    let head = engine.head(DUEL).await;
    assert_eq!(
        (head.position, head.status),
        (first.position, DuelStatus::Closed(Outcome::Finished))
    );
}

async fn a_closed_duel_takes_nothing_and_shows_everything(engine: Subject) {
    engine.push(DUEL, 1).await;
    let closed = engine.close(id_of(DUEL), Outcome::Finished, None).await.unwrap();
    let push = engine.append(id_of(DUEL), update(DUEL, 2), None).await;
    assert_eq!(push, Err(AppendError::Closed));
    let declaration = Declaration { participants: Vec::new(), settings: None, reopen: false };
    assert_eq!(engine.open(id_of(DUEL), declaration).await, Err(OpenError::Closed));
    let record = engine.get_or_create(id_of(DUEL)).await.unwrap();
    assert_eq!(record.head.position, closed.position);
    assert_eq!(engine.log(DUEL).await.len(), 2);
    let latest = engine.latest_seqs(player(1)).await;
    assert_eq!(latest, [1], "the end is no state");
    assert_eq!(engine.told_events(DUEL).len(), 2);
}

async fn closing_brings_a_duel_into_being(engine: Subject) {
    let closed = engine.close(id_of(DUEL), Outcome::Finished, None).await.unwrap();
    assert_eq!(closed.position.seq, 1);
    assert_eq!(engine.told_opened(DUEL).len(), 1);
    assert!(engine.has(DUEL).await);
}

on_every_engine!(
    the_last_event_and_the_end_are_stored_in_one_step,
    without_a_last_event_the_end_stands_alone,
    closing_again_in_the_same_way_stores_nothing,
    a_duel_ends_in_one_way,
    a_closed_duel_takes_nothing_and_shows_everything,
    closing_brings_a_duel_into_being,
);
