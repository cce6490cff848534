//! Events take their places in the order of the calls, are told in that order, and are there when the answer is.

use duelhub::clock;
use duelhub::engine::{AppendError, Declaration};
use duelhub::event::{Audience, Content, Outcome, Position, Push};

use crate::kit::{DUEL, Subject, id_of, payload, pushes, typed, update, user, users};
use crate::store::Kind;

async fn seqs_are_dense_from_one_in_each_duel(engine: Subject) {
    for nth in 1..=50 {
        assert_eq!(engine.push(DUEL, nth).await.seq, nth);
        assert_eq!(engine.push(78, nth).await.seq, nth);
    }
    let (one, other) = (engine.head(DUEL).await.position, engine.head(78).await.position);
    assert_eq!((one.seq, other.seq), (50, 50));
    assert_ne!(one.epoch, other.epoch, "each history has an epoch of its own");
    assert_eq!(engine.push(DUEL, 51).await.epoch, one.epoch, "an epoch stays");
}

async fn calls_take_effect_in_the_order_in_which_they_are_made(engine: Subject) {
    let calls: Vec<_> =
        (1..=300).map(|nth| engine.pinned().append(id_of(DUEL), update(DUEL, nth), None)).collect();
    for (call, nth) in calls.into_iter().rev().zip((1..=300).rev()) {
        let appended = call.await.unwrap();
        assert_eq!(appended.position.seq, nth);
        let event = appended.event.unwrap();
        assert_eq!((event.seq, event.push()), (nth, Some(&update(DUEL, nth))));
    }
    let log = pushes(&engine.log(DUEL).await);
    assert_eq!(log, (1..=300).map(|nth| update(DUEL, nth)).collect::<Vec<_>>());
}

async fn calls_of_different_kinds_keep_their_order(engine: Subject) {
    let duel = id_of(DUEL);
    let before = engine.pinned().append(duel, update(DUEL, 1), None);
    let close = engine.pinned().close(duel, Outcome::Finished, Some(update(DUEL, 2)));
    let after = engine.pinned().append(duel, update(DUEL, 3), None);
    assert_eq!(after.await, Err(AppendError::Closed));
    assert_eq!(close.await.unwrap().position.seq, 3);
    assert_eq!(before.await.unwrap().position.seq, 1);
}

async fn a_dropped_answer_does_not_undo_the_call(engine: Subject) {
    for nth in 1..=20 {
        drop(engine.pinned().append(id_of(DUEL), update(DUEL, nth), None));
    }
    let next = engine.pinned().append(id_of(DUEL), update(DUEL, 21), None).await.unwrap();
    assert_eq!(next.position.seq, 21);
    assert_eq!(engine.log(DUEL).await.len(), 21);
}

async fn an_answered_event_was_told_and_can_be_read(engine: Subject) {
    for nth in 1..=50 {
        let asked_at = clock::now();
        let appended = engine.pushed(DUEL, update(DUEL, nth)).await;
        let told = engine.told_events(DUEL);
        let event = appended.event.unwrap();
        assert_eq!(told.last(), Some(&(appended.position.epoch, event.clone())));
        assert_eq!(engine.log(DUEL).await.last(), Some(&event));
        assert!((asked_at..=clock::now()).contains(&event.stored_at));
        let record = engine.get(id_of(DUEL)).await.unwrap().unwrap();
        assert_eq!(record.head.position, appended.position);
        assert_eq!(record.updated_at, Some(event.stored_at));
    }
}

async fn what_is_told_is_what_is_stored_in_order_each_once(engine: Subject) {
    let calls: Vec<_> = (1..=200)
        .map(|nth| {
            engine.pinned().append(id_of(DUEL), update(DUEL, nth), Some(format!("{nth}").into()))
        })
        .collect();
    let again: Vec<_> = (1..=200)
        .map(|nth| {
            engine.pinned().append(id_of(DUEL), update(DUEL, nth), Some(format!("{nth}").into()))
        })
        .collect();
    for call in calls.into_iter().chain(again) {
        call.await.unwrap();
    }
    let epoch = engine.head(DUEL).await.position.epoch;
    let told = engine.told_events(DUEL);
    assert!(told.iter().all(|(of, _)| *of == epoch));
    let told: Vec<_> = told.into_iter().map(|(_, event)| event).collect();
    assert!(told.iter().map(|event| event.seq).eq(1..=200));
    assert_eq!(told, engine.log(DUEL).await);
}

async fn an_event_is_stored_as_it_was_pushed(engine: Subject) {
    let odd = "{ \"s\" : \"\\u00e9 \u{1f600}\\n\", \"x\":1.500 , \"x\": [ ] }";
    let large = format!(r#"{{"large":"{}"}}"#, "x".repeat(100_000));
    let views = [(user(1), payload(DUEL, r#"{"mine":1}"#)), (user(2), payload(DUEL, odd))];
    let sent = [
        Push { payload: payload(DUEL, odd), ..update(DUEL, 0) },
        Push { payload: payload(DUEL, &large), ..typed("round.started-2_x", 0) },
        Push { audience: Audience::Players, views: views.into(), ..update(DUEL, 0) },
        Push { audience: Audience::Only(users(&[2, 1])), ..update(DUEL, 0) },
        Push { audience: Audience::Only(users(&[])), ..update(DUEL, 0) },
        Push { audience: Audience::Except(users(&[1, 3])), ..update(DUEL, 0) },
        Push { coalesce_key: Some("timer é".into()), ..update(DUEL, 0) },
    ];
    for push in &sent {
        let event = engine.pushed(DUEL, push.clone()).await.event.unwrap();
        assert_eq!(event.content, Content::Pushed(push.clone()));
    }
    assert_eq!(pushes(&engine.log(DUEL).await), sent);
}

async fn many_at_a_time_make_one_dense_log_per_duel(kind: Kind) {
    const TASKS: u64 = 8;
    const EACH: u64 = 200;
    const DUELS: u64 = 4;
    let engine = Subject::new(kind);
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let engine = engine.engine();
            tokio::spawn(async move {
                for nth in 0..EACH {
                    let duel = 1 + (task + nth) % DUELS;
                    let push = update(duel, task * EACH + nth);
                    let appended = engine.append(id_of(duel), push.clone(), None).await.unwrap();
                    assert_eq!(appended.event.unwrap().push(), Some(&push));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    for duel in 1..=DUELS {
        assert_eq!(engine.told_opened(duel).len(), 1, "a duel comes into being once");
        let told: Vec<_> = engine.told_events(duel).into_iter().map(|(_, event)| event).collect();
        assert!(told.iter().map(|event| event.seq).eq(1..=TASKS * EACH / DUELS));
        assert_eq!(told, engine.log(duel).await);
        let mut pushed: Vec<_> =
            pushes(&told).iter().map(|p| p.payload.json().to_owned()).collect();
        pushed.sort_unstable();
        pushed.dedup();
        assert_eq!(pushed.len(), told.len(), "every push is there once");
    }
}

async fn a_reader_never_sees_a_gap_while_others_push(kind: Kind) {
    const EVENTS: u64 = 500;
    let engine = Subject::new(kind);
    let epoch = engine.get_or_create(id_of(DUEL)).await.unwrap().head.position.epoch;
    let pushing = engine.engine();
    let pusher = tokio::spawn(async move {
        for nth in 1..=EVENTS {
            pushing.append(id_of(DUEL), update(DUEL, nth), None).await.unwrap();
        }
    });
    let mut seq = 0;
    while seq < EVENTS {
        let seqs = engine.seqs(DUEL, Position { epoch, seq }, 16).await.expect("nothing falls off");
        assert!(seqs.iter().copied().eq(seq + 1..=seq + seqs.len() as u64), "{seqs:?} after {seq}");
        seq += seqs.len() as u64;
        tokio::task::yield_now().await;
    }
    pusher.await.unwrap();
}

async fn a_push_says_whether_the_duel_was_declared(engine: Subject) {
    let keyed = |key: &str| engine.append(id_of(DUEL), update(DUEL, 1), Some(key.into()));
    assert!(!keyed("a").await.unwrap().declared);
    assert!(!keyed("a").await.unwrap().declared, "as a duplicate");
    let declaration = Declaration { participants: Vec::new(), settings: None, reopen: false };
    engine.open(id_of(DUEL), declaration).await.unwrap();
    assert!(keyed("b").await.unwrap().declared);
    assert!(keyed("a").await.unwrap().declared, "by now");
    assert!(engine.close(id_of(DUEL), Outcome::Finished, None).await.unwrap().declared);
    assert!(!engine.close(id_of(78), Outcome::Finished, None).await.unwrap().declared);
}

on_every_engine!(
    a_push_says_whether_the_duel_was_declared,
    seqs_are_dense_from_one_in_each_duel,
    calls_take_effect_in_the_order_in_which_they_are_made,
    calls_of_different_kinds_keep_their_order,
    a_dropped_answer_does_not_undo_the_call,
    an_answered_event_was_told_and_can_be_read,
    what_is_told_is_what_is_stored_in_order_each_once,
    an_event_is_stored_as_it_was_pushed,
    many_at_a_time_make_one_dense_log_per_duel,
    a_reader_never_sees_a_gap_while_others_push,
);
