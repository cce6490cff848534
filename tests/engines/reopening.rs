//! A closed duel that is declared anew begins anew, if that is asked for, and nothing of it is left.

use std::collections::HashMap;

use duelhub::config::EngineConfig;
use duelhub::engine::{
    AppendError, Declaration, DuelSettings, EngineError, OpenError, Opened, Page, Participant,
    StatusFilter,
};
use duelhub::event::{DuelStatus, Outcome, Position, Push};
use duelhub::id::TelegramId;

use crate::kit::{DUEL, Subject, id_of, player, pushes, roomy, typed, update, user};
use crate::store::Kind;

fn reopen(participants: &[u64]) -> Declaration {
    let participant = |id: &u64| Participant {
        user: user(*id),
        telegram: TelegramId::try_from(100 + *id).unwrap(),
    };
    let participants = participants.iter().map(participant).collect();
    Declaration { participants, settings: None, reopen: true }
}

/// A closed duel that has everything: participants, settings, keys, and a log that it has outgrown.
async fn ended_duel(engine: &Subject) -> Position {
    let presence_grace = Some(std::time::Duration::from_secs(9));
    let settings = Some(DuelSettings { presence_grace });
    engine.open(id_of(DUEL), Declaration { settings, ..reopen(&[1, 2]) }).await.unwrap();
    engine.pushed(DUEL, typed("score", 1)).await;
    engine.append(id_of(DUEL), update(DUEL, 2), Some("key".into())).await.unwrap();
    engine.push_all(DUEL, 3..=20).await;
    engine.close(id_of(DUEL), Outcome::Cancelled, None).await.unwrap().position
}

fn outgrown(kind: Kind) -> Subject {
    Subject::with(kind, EngineConfig { log_events_max: 5, ..roomy() })
}

async fn a_closed_duel_begins_anew_as_if_it_had_never_been(kind: Kind) {
    let engine = outgrown(kind);
    let ended = ended_duel(&engine).await;
    let opened = engine.open(id_of(DUEL), reopen(&[3])).await.unwrap();
    assert_ne!(opened.position.epoch, ended.epoch);
    assert_eq!(opened, Opened { position: Position { seq: 0, ..opened.position }, created: true });
    assert_eq!(engine.told_opened(DUEL).last(), Some(&opened.position));
    let record = engine.get(id_of(DUEL)).await.unwrap().unwrap();
    assert_eq!((record.head.position, record.head.oldest_seq), (opened.position, 0));
    assert_eq!((record.head.status, record.updated_at), (DuelStatus::Open, None));
    assert_eq!(record.settings, DuelSettings::default());
    assert!(record.allows(player(3)) && !record.allows(player(1)));
    for seq in 0..=ended.seq {
        let position = Position { seq, ..ended };
        assert_eq!(record.head.carried(position), position, "nothing goes on from it");
        assert_eq!(engine.seqs(DUEL, position, 100).await, None);
    }
    assert_eq!(engine.log(DUEL).await, []);
    assert!(engine.latest_seqs(player(3)).await.is_empty());
    assert!(engine.latest_up_to(player(1), ended).await.is_empty());
    let other = engine.append(id_of(DUEL), update(DUEL, 7), Some("key".into())).await.unwrap();
    assert_eq!((other.position, other.declared), (Position { seq: 1, ..opened.position }, true));
    assert!(other.event.is_some(), "the key is as good as new");
    engine.push_all(DUEL, 8..=20).await;
    assert_eq!(engine.latest_seqs(player(3)).await, [14], "no score is left");
    let closed = engine.close(id_of(DUEL), Outcome::Finished, None).await.unwrap();
    assert_eq!(closed.position, Position { seq: 15, ..opened.position });
}

async fn an_open_duel_goes_on(engine: Subject) {
    ended_duel(&engine).await;
    let first = engine.open(id_of(DUEL), reopen(&[3])).await.unwrap();
    let pushed = engine.pushed(DUEL, update(DUEL, 1)).await.position;
    // The answer was lost, and the call is made again.
    let again = engine.open(id_of(DUEL), reopen(&[3])).await.unwrap();
    assert_eq!(again, Opened { position: pushed, created: false });
    assert_eq!(pushed, Position { seq: 1, ..first.position });
    assert_eq!(pushes(&engine.log(DUEL).await), [update(DUEL, 1)]);
    assert_eq!(engine.told_opened(DUEL).len(), 2);
    assert!(engine.open(id_of(78), reopen(&[])).await.unwrap().created, "there was none");
    assert_eq!(engine.told_opened(78).len(), 1);
}

async fn unless_it_is_asked_for_a_closed_duel_stays_closed(engine: Subject) {
    let ended = ended_duel(&engine).await;
    let declaration = Declaration { reopen: false, ..reopen(&[1]) };
    assert_eq!(engine.open(id_of(DUEL), declaration).await, Err(OpenError::Closed));
    assert_eq!(engine.head(DUEL).await.position, ended);
    let push = engine.append(id_of(DUEL), update(DUEL, 1), None).await;
    assert_eq!(push, Err(AppendError::Closed));
}

async fn a_declaration_that_contradicts_itself_begins_nothing_anew(engine: Subject) {
    let ended = ended_duel(&engine).await;
    let twice = Participant { user: user(4), telegram: TelegramId::try_from(103).unwrap() };
    let mut declaration = reopen(&[3]);
    declaration.participants.push(twice);
    assert_eq!(engine.open(id_of(DUEL), declaration).await, Err(OpenError::Participants));
    assert_eq!(engine.head(DUEL).await.position, ended);
    // Those of before do not count.
    assert!(
        engine
            .open(id_of(DUEL), Declaration { participants: vec![twice], ..reopen(&[]) })
            .await
            .is_ok()
    );
}

async fn it_takes_the_place_that_it_had(kind: Kind) {
    let engine = Subject::with(kind, EngineConfig { duels_max: 2, ..roomy() });
    engine.push(1, 1).await;
    engine.close(id_of(2), Outcome::Finished, None).await.unwrap();
    for _ in 0..3 {
        assert!(engine.open(id_of(2), reopen(&[])).await.unwrap().created);
        engine.close(id_of(2), Outcome::Finished, None).await.unwrap();
    }
    assert_eq!(engine.counts().duels, 2);
    let full = engine.open(id_of(3), reopen(&[])).await;
    assert!(matches!(full, Err(OpenError::Engine(EngineError::Full { .. }))), "{full:?}");
    assert_eq!(engine.list(None, StatusFilter::Any, 9).await.unwrap().len(), 2);
}

async fn it_is_kept_as_an_open_duel_is(engine: Subject) {
    let before = duelhub::clock::now();
    engine.close(id_of(DUEL), Outcome::Finished, None).await.unwrap();
    engine.open(id_of(DUEL), reopen(&[])).await.unwrap();
    let retention = roomy().idle_retention;
    engine.prune(before.plus(retention / 2)).await.unwrap();
    assert!(engine.has(DUEL).await);
    engine.prune(before.plus(3 * retention)).await.unwrap();
    assert!(!engine.has(DUEL).await);
}

async fn what_began_anew_is_found_after_a_restart(kind: Kind) {
    let engine = outgrown(kind);
    let ended = ended_duel(&engine).await;
    engine.open(id_of(DUEL), reopen(&[3])).await.unwrap();
    let pushed = engine.push(DUEL, 1).await;
    let engine = engine.killed().await;
    if !kind.is_durable() {
        return;
    }
    let record = engine.get(id_of(DUEL)).await.unwrap().unwrap();
    assert_eq!(record.head.carried(pushed), record.head.position);
    assert_eq!(record.head.carried(ended), ended);
    assert!(record.allows(player(3)) && !record.allows(player(1)));
    assert_eq!(pushes(&engine.log(DUEL).await), [update(DUEL, 1)]);
    assert_eq!(engine.counts().duels, 1);
}

/// While a duel begins anew again and again, whoever reads gets the events of the epoch that they ask for, or none.
async fn nobody_reads_events_of_the_one_as_the_others(engine: Subject) {
    const LIVES: u64 = 200;
    let (writer, reader) = (engine.engine(), engine.engine());
    let reading = tokio::spawn(async move {
        let mut read: HashMap<_, Vec<Vec<Push>>> = HashMap::new();
        let mut last = 0;
        while last < LIVES {
            let Some(record) = reader.get(id_of(DUEL)).await.unwrap() else { continue };
            let start = Position { seq: 0, ..record.head.position };
            let page = reader.read(id_of(DUEL), start, 100).await.unwrap();
            let up_to = Position { seq: 3, ..start };
            let latest = reader.latest(id_of(DUEL), player(1), up_to).await;
            let Page::Events(events) = page else { continue };
            let found = [pushes(&events), pushes(&latest.unwrap().unwrap_or_default())];
            last = found[0].first().map_or(last, |first| life_of(first).max(last));
            read.entry(start.epoch).or_default().extend(found);
        }
        read
    });
    let mut lives = HashMap::new();
    for life in 1..=LIVES {
        // Together, so that an engine that commits in groups has the new life and its events in one commit.
        let opened = writer.open(id_of(DUEL), reopen(&[]));
        let [one, two] = [1, 2].map(|_| writer.append(id_of(DUEL), update(DUEL, life), None));
        let closed = writer.close(id_of(DUEL), Outcome::Finished, None);
        lives.insert(opened.await.unwrap().position.epoch, life);
        one.await.unwrap();
        two.await.unwrap();
        closed.await.unwrap();
    }
    for (epoch, found) in reading.await.unwrap() {
        let life = lives[&epoch];
        assert!(found.iter().flatten().all(|push| life_of(push) == life), "{life}: {found:?}");
    }
}

fn life_of(push: &Push) -> u64 {
    duelhub_testkit::fixtures::nth_of(push)
}

on_every_engine!(
    a_closed_duel_begins_anew_as_if_it_had_never_been,
    an_open_duel_goes_on,
    unless_it_is_asked_for_a_closed_duel_stays_closed,
    a_declaration_that_contradicts_itself_begins_nothing_anew,
    it_is_kept_as_an_open_duel_is,
    what_began_anew_is_found_after_a_restart,
    nobody_reads_events_of_the_one_as_the_others;
    // A node counts what others bring into being when it prunes.
    each node:
    it_takes_the_place_that_it_had,
);
