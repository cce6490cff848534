//! The log keeps the newest events within its bounds, and says so when it is asked for more.

use duelhub::config::EngineConfig;
use duelhub::engine::{Page, stored_size};
use duelhub::event::{Epoch, Position, Push};

use crate::kit::{DUEL, Subject, id_of, payload, roomy, size_of, update};
use crate::store::Kind;

async fn it_keeps_as_many_as_it_may(kind: Kind) {
    let engine = Subject::with(kind, EngineConfig { log_events_max: 5, ..roomy() });
    for nth in 1..=12 {
        let position = engine.push(DUEL, nth).await;
        let head = engine.head(DUEL).await;
        assert_eq!((head.position, head.oldest_seq), (position, nth.saturating_sub(4).max(1)));
    }
    let epoch = engine.head(DUEL).await.position.epoch;
    let after = async |seq| engine.seqs(DUEL, Position { epoch, seq }, 100).await;
    assert_eq!(after(7).await, Some((8..=12).collect()));
    assert_eq!(after(11).await, Some(vec![12]));
    assert_eq!(after(12).await, Some(vec![]), "nothing is after the head");
    for seq in [6, 0] {
        let page = engine.read(id_of(DUEL), Position { epoch, seq }, 100).await.unwrap();
        assert_eq!(page, Page::Gone, "7 has fallen off");
    }
}

async fn it_keeps_as_many_bytes_as_it_may(kind: Kind) {
    let size = size_of(update(DUEL, 1));
    let log_bytes_max = 3 * size + size / 2;
    let engine = Subject::with(kind, EngineConfig { log_bytes_max, ..roomy() });
    engine.push_all(DUEL, 1..=10).await;
    assert_eq!(engine.head(DUEL).await.oldest_seq, 8);
    let held: usize = engine.log(DUEL).await.iter().map(|event| stored_size(&event.content)).sum();
    assert_eq!(held, 3 * size);
}

async fn the_newest_is_kept_whatever_its_size(kind: Kind) {
    let small = size_of(update(DUEL, 1));
    let engine = Subject::with(kind, EngineConfig { log_bytes_max: 4 * small, ..roomy() });
    engine.push(DUEL, 1).await;
    let large = format!(r#"{{"large":"{}"}}"#, "x".repeat(8 * small));
    let large = Push { payload: payload(DUEL, &large), ..update(DUEL, 2) };
    engine.pushed(DUEL, large.clone()).await;
    let log = engine.log(DUEL).await;
    assert_eq!(log.iter().map(|event| event.push()).collect::<Vec<_>>(), [Some(&large)]);
    engine.push(DUEL, 3).await;
    assert_eq!(engine.head(DUEL).await.oldest_seq, 3, "and goes for the next");
}

async fn a_page_holds_at_most_what_was_asked_for(engine: Subject) {
    engine.push_all(DUEL, 1..=100).await;
    let epoch = engine.head(DUEL).await.position.epoch;
    let mut seq = 0;
    while seq < 100 {
        let seqs = engine.seqs(DUEL, Position { epoch, seq }, 7).await.unwrap();
        assert_eq!(seqs, (seq + 1..=(seq + 7).min(100)).collect::<Vec<_>>());
        seq = *seqs.last().unwrap();
    }
}

async fn what_never_was_is_of_another_epoch(engine: Subject) {
    let position = engine.push(DUEL, 1).await;
    let ahead = Position { seq: 2, ..position };
    let page = async |duel, after| engine.read(id_of(duel), after, 10).await.unwrap();
    assert_eq!(page(DUEL, ahead).await, Page::Ended, "ahead of the head");
    for seq in [0, 1] {
        let foreign = Position { epoch: Epoch::random(), seq };
        assert_eq!(page(DUEL, foreign).await, Page::Ended, "another epoch");
    }
    assert_eq!(page(78, position).await, Page::Ended, "no such duel");
    assert!(!engine.has(78).await, "reading brings nothing into being");
}

async fn an_empty_log_has_nothing_after_its_beginning(engine: Subject) {
    let head = engine.get_or_create(id_of(DUEL)).await.unwrap().head;
    assert_eq!((head.position.seq, head.oldest_seq), (0, 0));
    assert_eq!(engine.seqs(DUEL, head.position, 10).await, Some(vec![]));
    let ahead = Position { seq: 1, ..head.position };
    assert_eq!(engine.seqs(DUEL, ahead, 10).await, None);
}

on_every_engine!(
    it_keeps_as_many_as_it_may,
    it_keeps_as_many_bytes_as_it_may,
    the_newest_is_kept_whatever_its_size,
    a_page_holds_at_most_what_was_asked_for,
    what_never_was_is_of_another_epoch,
    an_empty_log_has_nothing_after_its_beginning,
);
