//! Closed duels that begin anew, and pushes to duels that nobody declared, as backends, watchers and players see them.

use duelhub::pb;
use duelhub::pb::watch_duels_response::Change;
use duelhub_testkit::{Backend, TestServer, assert_refused, get, numbered, push, soon};
use tonic::Code;

async fn reopen(backend: &Backend, duel_id: u64, users: &[u64]) -> pb::OpenDuelResponse {
    let participants =
        users.iter().map(|user_id| pb::Participant { user_id: *user_id, telegram_id: 0 });
    let participants = participants.collect();
    let request = pb::OpenDuelRequest { duel_id, participants, settings: None, reopen: true };
    backend.client.clone().open_duel(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_closed_duel_begins_anew_for_everybody() {
    let (_server, backend) = TestServer::start_with_backend(&[]).await;
    backend.open(77, &[1, 2]).await;
    let mut one = backend.player(77, 1).await;
    for n in 1..=3 {
        backend.push_event(numbered(77, n)).await;
    }
    one.until_events(3).await;
    let seen = one.position();
    backend.close(77).await;
    one.until_closed().await;
    let watching = pb::WatchDuelsRequest { duel_ids: vec![77] };
    let mut watch = backend.client.clone().watch_duels(watching).await.unwrap().into_inner();
    while soon("the state", watch.message()).await.unwrap().unwrap().duel_id != 0 {}

    let opened = reopen(&backend, 77, &[1, 3]).await;
    assert!(opened.created);
    let position = opened.position;
    loop {
        let told = soon("it is opened", watch.message()).await.unwrap().unwrap();
        // User 1 may go offline only now.
        if !matches!(told.change, Some(Change::UserOffline(_))) {
            let expected = Change::Opened(pb::DuelOpened { position: position.clone() });
            assert_eq!((told.initial, told.change), (false, Some(expected)));
            break;
        }
    }
    let first = backend.push_event(numbered(77, 1)).await;
    assert_eq!(
        (first.position.clone().unwrap().seq, first.duplicate),
        (1, false),
        "its keys are gone"
    );
    // The call is made again, as after a lost answer.
    let again = reopen(&backend, 77, &[1, 3]).await;
    assert_eq!((again.position, again.created), (first.position, false));

    let stranger = backend.try_issue(77, 2).await.unwrap_err();
    assert_refused(&stranger, Code::PermissionDenied, "NOT_A_PARTICIPANT");
    let mut back = backend.resuming(77, 1, seen).await;
    assert_eq!(back.connected["recovered"], false);
    assert_eq!(back.connected["epoch"], position.unwrap().epoch);
    backend.push_event(numbered(77, 2)).await;
    back.until_events(2).await;
    assert_eq!(back.seqs(), [1, 2]);
}

#[tokio::test]
async fn a_duel_ends_in_one_way_until_it_begins_anew() {
    let (_server, backend) = TestServer::start_with_backend(&[]).await;
    backend.try_close(77, pb::DuelStatus::Cancelled).await.unwrap();
    let other = backend.try_close(77, pb::DuelStatus::Finished).await.unwrap_err();
    assert_refused(&other, Code::FailedPrecondition, "DUEL_CLOSED");
    let plain = backend.try_open(77, &[1]).await.unwrap_err();
    assert_refused(&plain, Code::FailedPrecondition, "DUEL_CLOSED");
    assert!(reopen(&backend, 77, &[1]).await.created);
    backend.try_close(77, pb::DuelStatus::Finished).await.unwrap();
}

#[tokio::test]
async fn a_push_says_whether_its_duel_was_declared() {
    let (server, backend) = TestServer::start_with_backend(&[]).await;
    let declared = |pushed: pb::PushEventResponse| (pushed.declared, pushed.duplicate);
    assert_eq!(declared(backend.push_event(numbered(77, 1)).await), (false, false));
    assert_eq!(declared(backend.push_event(numbered(77, 1)).await), (false, true));
    let stream = tokio_stream::iter([pb::PushEventsRequest { tag: 1, push: Some(push(77, "{}")) }]);
    let mut answers = backend.client.clone().push_events(stream).await.unwrap().into_inner();
    let answer = soon("an answer", answers.message()).await.unwrap().unwrap();
    let Some(pb::push_events_response::Outcome::Pushed(pushed)) = answer.outcome else {
        panic!("{answer:?}")
    };
    assert!(!pushed.declared);
    backend.open(77, &[]).await;
    assert_eq!(declared(backend.push_event(numbered(77, 2)).await), (true, false));
    assert_eq!(declared(backend.push_event(numbered(77, 1)).await), (true, true));
    let metrics = get(server.addresses.admin, "/metrics", &[]).await.body;
    assert!(metrics.contains("duelhub_pushes_undeclared_total 3\n"), "{metrics}");
}
