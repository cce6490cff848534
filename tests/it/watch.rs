//! Watching: the state at the start, then what changes.

use duelhub::pb;
use duelhub::pb::watch_duels_response::Change;
use duelhub_testkit::{Backend, TestServer, assert_refused, soon, until};
use tonic::Code;

struct Watch(tonic::Streaming<pb::WatchDuelsResponse>);

impl Watch {
    async fn start(backend: &Backend, duels: &[u64]) -> Self {
        let request = pb::WatchDuelsRequest { duel_ids: duels.to_vec() };
        Self(backend.client.clone().watch_duels(request).await.unwrap().into_inner())
    }

    /// The next change, in short: initial or not, the duel, what.
    async fn next(&mut self) -> (bool, u64, String) {
        let told = soon("a change", self.0.message()).await.unwrap().unwrap();
        let what = match told.change.unwrap() {
            Change::Opened(_) => "opened".to_owned(),
            Change::Closed(closed) => format!("closed {:?}", closed.status()),
            Change::UserOnline(user) => format!("online {} {:?}", user.user_id, user.role()),
            Change::UserOffline(user) => format!("offline {} {:?}", user.user_id, user.reason()),
            Change::Acked(acked) => format!("acked {} {}", acked.user_id, acked.seq),
            Change::SessionEnded(user) => format!("session ended {}", user.user_id),
            Change::Synced(synced) => format!("synced {}", synced.duels),
        };
        (told.initial, told.duel_id, what)
    }

    async fn expect(&mut self, initial: bool, changes: &[(u64, &str)]) {
        for (duel, what) in changes {
            assert_eq!(self.next().await, (initial, *duel, (*what).to_owned()));
        }
    }
}

#[tokio::test]
async fn a_watch_starts_with_the_state_and_goes_on_with_changes() {
    let (_server, backend) = TestServer::start_with_backend(&[]).await;
    let mut one = backend.player(77, 1).await;
    backend.push(77, "{}").await;
    backend.close(78).await;
    let mut watch = Watch::start(&backend, &[]).await;
    let state = [
        (77, "opened"),
        (77, "online 1 Player"),
        (78, "opened"),
        (78, "closed Finished"),
        (0, "synced 2"),
    ];
    watch.expect(true, &state).await;

    let two = backend.spectator(77, 2).await;
    watch.expect(false, &[(77, "online 2 Spectator")]).await;
    one.until_events(1).await;
    one.send(r#"{"type":"ack","seq":1}"#).await;
    watch.expect(false, &[(77, "acked 1 1")]).await;
    drop(two);
    watch.expect(false, &[(77, "offline 2 Lost")]).await;
    one.ws.close(None).await.unwrap();
    watch.expect(false, &[(77, "offline 1 ClientClosed")]).await;
    backend.push(79, "{}").await;
    watch.expect(false, &[(79, "opened")]).await;
    backend.close(77).await;
    watch.expect(false, &[(77, "closed Finished")]).await;
}

#[tokio::test]
async fn a_watch_of_some_duels_hears_of_no_others() {
    let (_server, backend) = TestServer::start_with_backend(&[]).await;
    backend.push(77, "{}").await;
    backend.push(78, "{}").await;
    let mut watch = Watch::start(&backend, &[77, 80]).await;
    watch.expect(true, &[(77, "opened"), (0, "synced 1")]).await;
    backend.close(78).await;
    backend.push(80, "{}").await;
    watch.expect(false, &[(80, "opened")]).await;
    let _one = backend.player(80, 1).await;
    let _two = backend.player(77, 2).await;
    watch.expect(false, &[(80, "online 1 Player"), (77, "online 2 Player")]).await;
    let request = pb::DisconnectRequest { duel_id: 77, user_id: 2, ..Default::default() };
    backend.client.clone().disconnect(request).await.unwrap();
    watch.expect(false, &[(77, "offline 2 Disconnected")]).await;
    backend.close(80).await;
    watch.expect(false, &[(80, "closed Finished"), (80, "offline 1 DuelClosed")]).await;
}

#[tokio::test]
async fn watchers_are_bounded_and_give_their_place_back() {
    let (_server, backend) = TestServer::start_with_backend(&[("CONTROL_MAX_WATCHERS", "1")]).await;
    let first = Watch::start(&backend, &[]).await;
    let second = backend.client.clone().watch_duels(pb::WatchDuelsRequest::default()).await;
    let status = second.unwrap_err();
    assert_refused(&status, Code::ResourceExhausted, "LIMIT_REACHED");
    drop(first);
    until("the place is free", || async {
        backend.client.clone().watch_duels(pb::WatchDuelsRequest::default()).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_told_to_start_over() {
    let (server, backend) = TestServer::start_with_backend(&[]).await;
    // A watcher whose window is soon full, on a connection of its own.
    let watcher = Backend::with_small_window(&server).await;
    let mut watch = Watch::start(&watcher, &[]).await;
    watch.expect(true, &[(0, "synced 0")]).await;
    let mut duel = 0;
    while !was_too_slow(&server).await {
        for _ in 0..500 {
            duel += 1;
            backend.push(duel, "{}").await;
        }
        assert!(duel < 100_000, "the bound holds");
    }
    let ended = loop {
        match soon("the watch ends", watch.0.message()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ends with a reason"),
            Err(status) => break status,
        }
    };
    assert_refused(&ended, Code::ResourceExhausted, "WATCHER_TOO_SLOW");
}

async fn was_too_slow(server: &TestServer) -> bool {
    let metrics = duelhub_testkit::get(server.addresses.admin, "/metrics", &[]).await.body;
    !metrics.contains("duelhub_watchers_too_slow_total 0\n")
}
