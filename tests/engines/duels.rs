//! How a duel comes into being, what is declared of it, how duels are listed and bounded.

use std::time::Duration;

use duelhub::config::EngineConfig;
use duelhub::engine::{
    AppendError, Declaration, DuelSettings, EngineError, OpenError, Participant, StatusFilter,
};
use duelhub::event::{DuelStatus, Outcome};
use duelhub::id::{DuelId, TelegramId};
use duelhub::limits;

use crate::kit::{DUEL, Subject, id_of, player, roomy, spectator, update, user};
use crate::store::Kind;

/// Somebody whom Telegram knows as `telegram`.
fn participant(id: u64, telegram: u64) -> Participant {
    Participant { user: user(id), telegram: TelegramId::try_from(telegram).unwrap() }
}

fn declare(participants: &[(u64, u64)]) -> Declaration {
    let participants = participants.iter().map(|(id, telegram)| participant(*id, *telegram));
    Declaration { participants: participants.collect(), settings: None, reopen: false }
}

/// Who takes part, as `(user, telegram)`.
async fn participants(engine: &Subject) -> Option<Vec<(u64, u64)>> {
    let record = engine.get(id_of(DUEL)).await.unwrap().unwrap();
    let plain = |participant: &Participant| (participant.user.get(), participant.telegram.get());
    record.participants.map(|participants| participants.iter().map(plain).collect())
}

async fn a_duel_comes_into_being_once_whatever_asks_first(engine: Subject) {
    engine.open(id_of(1), declare(&[])).await.unwrap();
    engine.get_or_create(id_of(2)).await.unwrap();
    engine.push(3, 1).await;
    engine.close(id_of(4), Outcome::Finished, None).await.unwrap();
    for duel in 1..=4 {
        let told = engine.told_opened(duel);
        let position = engine.get_or_create(id_of(duel)).await.unwrap().head.position;
        assert_eq!(told.len(), 1, "{duel}");
        assert_eq!((told[0].epoch, told[0].seq), (position.epoch, 0));
    }
    engine.push(1, 1).await;
    engine.push(2, 1).await;
    engine.open(id_of(3), declare(&[])).await.unwrap();
    assert!((1..=4).all(|duel| engine.told_opened(duel).len() == 1), "and not again");
}

async fn looking_brings_nothing_into_being(engine: Subject) {
    assert!(engine.get(id_of(DUEL)).await.unwrap().is_none());
    assert_eq!(engine.heads(vec![id_of(DUEL)]).await.unwrap(), []);
    assert_eq!(engine.list(None, StatusFilter::Any, 10).await.unwrap(), []);
    assert!(engine.told().is_empty());
    assert_eq!(engine.counts().duels, 0);
}

async fn opening_says_whether_it_was_news(engine: Subject) {
    let opened = engine.open(id_of(DUEL), declare(&[(1, 11)])).await.unwrap();
    assert!(opened.created);
    assert_eq!(opened.position.seq, 0);
    let position = engine.push(DUEL, 1).await;
    let again = engine.open(id_of(DUEL), declare(&[(1, 11)])).await.unwrap();
    assert!(!again.created);
    assert_eq!(again.position, position);
    engine.push(78, 1).await;
    assert!(!engine.open(id_of(78), declare(&[])).await.unwrap().created, "the push was first");
}

async fn participants_are_added_to_those_there_before(engine: Subject) {
    engine.push(DUEL, 1).await;
    assert_eq!(participants(&engine).await, None, "not declared yet");
    let record = engine.get(id_of(DUEL)).await.unwrap().unwrap();
    assert!(record.allows(player(9)));
    engine.open(id_of(DUEL), declare(&[(1, 11), (2, 12)])).await.unwrap();
    engine.open(id_of(DUEL), declare(&[])).await.unwrap();
    engine.open(id_of(DUEL), declare(&[(3, 13), (2, 22)])).await.unwrap();
    assert_eq!(participants(&engine).await, Some(vec![(1, 11), (2, 22), (3, 13)]));
    let record = engine.get_or_create(id_of(DUEL)).await.unwrap();
    assert!(record.allows(player(2)) && !record.allows(player(9)) && record.allows(spectator(9)));
}

async fn a_declaration_that_contradicts_changes_nothing(engine: Subject) {
    engine.open(id_of(DUEL), declare(&[(1, 11), (2, 12)])).await.unwrap();
    let too_many = (1..=limits::USERS_NAMED_MAX as u64 + 1).map(|id| (id, 100 + id));
    let too_many: Vec<_> = too_many.collect();
    for contradiction in [&[(3, 11)][..], &[(2, 11)], &[(3, 13), (4, 13)], &too_many] {
        let grace = DuelSettings { presence_grace: Some(Duration::from_secs(9)) };
        let declaration = Declaration { settings: Some(grace), ..declare(contradiction) };
        let opened = engine.open(id_of(DUEL), declaration).await;
        assert_eq!(opened, Err(OpenError::Participants), "{contradiction:?}");
    }
    assert_eq!(participants(&engine).await, Some(vec![(1, 11), (2, 12)]));
    let record = engine.get(id_of(DUEL)).await.unwrap().unwrap();
    assert_eq!(record.settings, DuelSettings::default());
    engine.open(id_of(DUEL), declare(&too_many[..limits::USERS_NAMED_MAX])).await.unwrap();
}

async fn a_contradictory_declaration_brings_nothing_into_being(engine: Subject) {
    let opened = engine.open(id_of(DUEL), declare(&[(1, 11), (2, 11)])).await;
    assert_eq!(opened, Err(OpenError::Participants));
    assert!(!engine.has(DUEL).await);
    assert!(engine.told().is_empty());
}

async fn settings_stay_until_others_are_declared(engine: Subject) {
    let grace = |seconds| DuelSettings { presence_grace: Some(Duration::from_secs(seconds)) };
    for (settings, expected) in [
        (None, DuelSettings::default()),
        (Some(grace(5)), grace(5)),
        (None, grace(5)),
        (Some(grace(6)), grace(6)),
        (Some(DuelSettings::default()), DuelSettings::default()),
    ] {
        let declaration = Declaration { participants: Vec::new(), settings, reopen: false };
        engine.open(id_of(DUEL), declaration).await.unwrap();
        let record = engine.get(id_of(DUEL)).await.unwrap().unwrap();
        assert_eq!(record.settings, expected);
    }
}

async fn a_record_says_when_things_were(engine: Subject) {
    let asked_at = duelhub::clock::now();
    let created_at = engine.get_or_create(id_of(DUEL)).await.unwrap().created_at;
    assert!((asked_at..=duelhub::clock::now()).contains(&created_at));
    assert_eq!(engine.get_or_create(id_of(DUEL)).await.unwrap().updated_at, None, "no event yet");
    let event = engine.pushed(DUEL, update(DUEL, 1)).await.event.unwrap();
    let record = engine.get_or_create(id_of(DUEL)).await.unwrap();
    assert_eq!((record.created_at, record.updated_at), (created_at, Some(event.stored_at)));
}

async fn heads_are_those_of_the_duels_that_there_are(engine: Subject) {
    for duel in 1..=3 {
        engine.push(duel, 1).await;
    }
    engine.close(id_of(3), Outcome::Cancelled, None).await.unwrap();
    let mut heads = engine.heads([3, 9, 1].map(id_of).into()).await.unwrap();
    heads.sort_by_key(|(duel, _)| *duel);
    let expected = [(id_of(1), engine.head(1).await), (id_of(3), engine.head(3).await)];
    assert_eq!(heads, expected);
    assert!(!engine.has(9).await);
}

async fn duels_are_listed_in_pages_by_id(engine: Subject) {
    for duel in [30, 10, 50, 20, 40] {
        engine.push(duel, duel).await;
    }
    for duel in [20, 50] {
        engine.close(id_of(duel), Outcome::Finished, None).await.unwrap();
    }
    let list = async |after: Option<u64>, status, count| {
        let listed = engine.list(after.map(id_of), status, count).await.unwrap();
        for (duel, head) in &listed {
            assert_eq!(*head, engine.head(duel.get()).await);
        }
        listed.iter().map(|(duel, _)| duel.get()).collect::<Vec<_>>()
    };
    let only = StatusFilter::Only;
    let closed = DuelStatus::Closed(Outcome::Finished);
    assert_eq!(list(None, StatusFilter::Any, 10).await, [10, 20, 30, 40, 50]);
    assert_eq!(list(None, StatusFilter::Any, 2).await, [10, 20]);
    assert_eq!(list(Some(20), StatusFilter::Any, 2).await, [30, 40]);
    assert_eq!(list(Some(25), StatusFilter::Any, 2).await, [30, 40], "20 and 25 alike");
    assert_eq!(list(Some(50), StatusFilter::Any, 2).await, [0; 0]);
    assert_eq!(list(None, only(DuelStatus::Open), 10).await, [10, 30, 40]);
    assert_eq!(list(Some(10), only(DuelStatus::Open), 1).await, [30]);
    assert_eq!(list(None, only(closed), 10).await, [20, 50]);
    assert_eq!(list(None, only(DuelStatus::Closed(Outcome::Cancelled)), 10).await, [0; 0]);
}

async fn past_the_limit_no_duel_comes_into_being(kind: Kind) {
    let engine = Subject::with(kind, EngineConfig { duels_max: 2, ..roomy() });
    engine.push(1, 1).await;
    engine.push(2, 1).await;
    let full = EngineError::Full { limit: "ENGINE_MAX_DUELS" };
    assert_eq!(engine.open(id_of(3), declare(&[])).await, Err(OpenError::Engine(full)));
    assert_eq!(engine.get_or_create(id_of(3)).await.unwrap_err(), full);
    let push = engine.append(id_of(3), update(3, 1), Some("key".into())).await;
    assert_eq!(push, Err(AppendError::Engine(full)));
    let close = engine.close(id_of(3), Outcome::Finished, None).await;
    assert_eq!(close, Err(AppendError::Engine(full)));
    assert!(!engine.has(3).await && engine.told_opened(3).is_empty(), "nothing took effect");
    assert_eq!(engine.counts().duels, 2);
    engine.push(1, 2).await;
    engine.open(id_of(2), declare(&[(1, 11)])).await.unwrap();
}

async fn the_probe_is_no_duel_of_anybodys(kind: Kind) {
    let engine = Subject::with(kind, EngineConfig { duels_max: 1, ..roomy() });
    engine.get_or_create(DuelId::PROBE).await.unwrap();
    engine.push(1, 1).await;
    let mut probe = update(1, 1);
    probe.payload = duelhub::event::Payload::parse(DuelId::PROBE, "{}", 100).unwrap();
    let first = engine.append(DuelId::PROBE, probe.clone(), None).await.unwrap();
    assert_eq!(first.position.seq, 1);
    let again = engine.append(DuelId::PROBE, probe, None).await.unwrap();
    assert_eq!(again.position.seq, 2);
    let listed = engine.list(None, StatusFilter::Any, 10).await.unwrap();
    assert_eq!(listed.iter().map(|(duel, _)| *duel).collect::<Vec<_>>(), [id_of(1)]);
    assert_eq!(engine.counts().duels, 1);
}

on_every_engine!(
    a_duel_comes_into_being_once_whatever_asks_first,
    looking_brings_nothing_into_being,
    opening_says_whether_it_was_news,
    participants_are_added_to_those_there_before,
    a_declaration_that_contradicts_changes_nothing,
    a_contradictory_declaration_brings_nothing_into_being,
    settings_stay_until_others_are_declared,
    a_record_says_when_things_were,
    heads_are_those_of_the_duels_that_there_are,
    duels_are_listed_in_pages_by_id;
    // A node counts what others bring into being when it prunes, and has a probe of its own.
    each node:
    past_the_limit_no_duel_comes_into_being,
    the_probe_is_no_duel_of_anybodys,
);
