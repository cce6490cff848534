//! Events reach those to whom they are addressed, in order, each once, also those who were away.

use duelhub::pb;
use duelhub_testkit::{Backend, Join, Player, TestServer, push, soon, until};
use futures_util::future::join_all;
use futures_util::{SinkExt as _, StreamExt as _, stream};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

async fn duel_of_two(server: &TestServer, duel: u64) -> (Backend, Player, Player) {
    let backend = Backend::connect(server).await;
    let one = backend.player(duel, 1).await;
    let two = backend.player(duel, 2).await;
    (backend, one, two)
}

fn audience(to: pb::audience::To) -> Option<pb::Audience> {
    Some(pb::Audience { to: Some(to) })
}

fn users(ids: &[u64]) -> pb::UserList {
    pb::UserList { user_ids: ids.to_vec() }
}

#[tokio::test]
async fn a_push_reaches_both_players() {
    let server = TestServer::start().await;
    let (backend, mut one, mut two) = duel_of_two(&server, 77).await;
    let pushed = backend.push_event(push(77, r#"{"round":1}"#)).await;
    assert_eq!((pushed.connections, pushed.duplicate), (2, false));
    for player in [&mut one, &mut two] {
        player.until_events(1).await;
        let expected =
            json!({"type": "duel_update", "seq": 1, "payload": {"duel_id": 77, "round": 1}});
        assert_eq!(player.events, [expected]);
        assert_eq!(player.connected["epoch"], pushed.position.as_ref().unwrap().epoch);
    }
    server.stop().await;
}

#[tokio::test]
async fn the_payload_is_passed_on_byte_for_byte() {
    let server = TestServer::start().await;
    let (backend, mut one, _two) = duel_of_two(&server, 77).await;
    let payload = "{ \"duel_id\" : 77, \"x\":1.500,\"s\":\"\\u00e9 \u{1f600}\\n\", \"x\": 2 }";
    backend.push(77, payload).await;
    let text = loop {
        let message = soon("a frame", one.ws.next()).await.unwrap().unwrap().into_text().unwrap();
        if message.contains("duel_update") {
            break message;
        }
    };
    assert_eq!(text.as_str(), format!(r#"{{"type":"duel_update","seq":1,"payload":{payload}}}"#));
}

#[tokio::test]
async fn two_players_see_two_views_of_one_event() {
    let server = TestServer::start().await;
    let (backend, mut one, mut two) = duel_of_two(&server, 77).await;
    let view = pb::View { user_id: 1, payload_json: r#"{"mine":true}"#.into(), payload: None };
    backend.push_event(pb::PushEventRequest { views: vec![view], ..push(77, "{}") }).await;
    one.until_events(1).await;
    two.until_events(1).await;
    assert_eq!(one.events[0]["payload"], json!({"duel_id": 77, "mine": true}));
    assert_eq!(two.events[0]["payload"], json!({"duel_id": 77}));
    assert_eq!(one.events[0]["seq"], two.events[0]["seq"]);
}

#[tokio::test]
async fn an_audience_receives_and_nobody_else() {
    use pb::audience::To;
    let server = TestServer::start().await;
    let (backend, mut one, mut two) = duel_of_two(&server, 77).await;
    let mut looker = backend.spectator(77, 3).await;
    let audiences = [
        (To::Players(true), 2),
        (To::Only(users(&[2, 3])), 2),
        (To::Except(users(&[2])), 2),
        (To::Only(users(&[9])), 0),
    ];
    for (to, connections) in audiences {
        let request = pb::PushEventRequest { audience: audience(to), ..push(77, "{}") };
        assert_eq!(backend.push_event(request).await.connections, connections);
    }
    assert_eq!(backend.push(77, "{}").await, 5, "every event takes a seq, whoever sees it");
    for (player, expected) in
        [(&mut one, vec![1, 3, 5]), (&mut two, vec![1, 2, 5]), (&mut looker, vec![2, 3, 5])]
    {
        player.until_events(3).await;
        assert_eq!(player.seqs(), expected);
        player.ping().await;
        assert_eq!(player.pong["seq"], 5, "what was not addressed to a player is behind them too");
    }
}

#[tokio::test]
async fn many_pushes_at_a_time_arrive_in_one_order_without_gap_or_double() {
    let server = TestServer::start().await;
    let (backend, mut one, mut two) = duel_of_two(&server, 77).await;
    const EACH: u64 = 250;
    let pushers: Vec<_> = (0..4)
        .map(|pusher| {
            let backend = backend.clone();
            tokio::spawn(async move {
                for nth in 0..EACH {
                    backend.push(77, &format!(r#"{{"by":{pusher},"nth":{nth}}}"#)).await;
                }
            })
        })
        .collect();
    let count = usize::try_from(4 * EACH).unwrap();
    tokio::join!(one.until_events(count), two.until_events(count));
    for pusher in pushers {
        pusher.await.unwrap();
    }
    assert_eq!(one.seqs(), (1..=4 * EACH).collect::<Vec<_>>());
    assert_eq!(one.events, two.events);
    for pusher in 0..4 {
        let own: Vec<_> = one.events.iter().filter(|e| e["payload"]["by"] == pusher).collect();
        let nths = own.iter().map(|event| event["payload"]["nth"].as_u64().unwrap());
        assert!(nths.eq(0..EACH), "a pusher's own order holds");
    }
}

/// Follows until the last of `events`, and comes back after each `stay` of them: the seqs, in the order in which they came.
async fn follow(
    server: &TestServer,
    mut player: Player,
    events: usize,
    stay: usize,
) -> (Player, Vec<u64>) {
    let mut seen = Vec::new();
    loop {
        player.until_events(stay.min(events - seen.len())).await;
        seen.extend(player.seqs());
        if seen.len() >= events {
            return (player, seen);
        }
        player = player.rejoin(server).await;
        assert_eq!(player.connected["recovered"], true);
    }
}

#[tokio::test]
async fn spectators_receive_everything_while_some_of_them_come_and_go() {
    const EVENTS: usize = 400;
    let (server, backend) = TestServer::start_with_backend(&[]).await;
    let mut spectators = Vec::new();
    for user in 1..=150 {
        let player = backend.spectator(77, user).await;
        let stay = if user % 3 == 0 { 37 } else { EVENTS };
        spectators.push(follow(&server, player, EVENTS, stay));
    }
    // So many at a time that the next event tends to be stored while the one before is still being handed over.
    let pushes = stream::iter(0..EVENTS).map(|_| backend.push(77, "{}")).buffer_unordered(64);
    let (_, spectators) = tokio::join!(pushes.collect::<Vec<_>>(), join_all(spectators));
    // And one after which nothing follows that would have anybody look again.
    let last = backend.push(77, "{}").await;
    for (mut player, mut seqs) in spectators {
        player.until(|player| player.seqs().last() == Some(&last)).await;
        seqs.push(last);
        assert_eq!(seqs, (1..=last).collect::<Vec<_>>());
    }
    server.stop().await;
}

#[tokio::test]
async fn a_fresh_connection_starts_with_the_latest_of_each_type() {
    let (_server, backend) = TestServer::start_with_backend(&[]).await;
    for round in 1..=3 {
        backend.push(77, &format!(r#"{{"round":{round}}}"#)).await;
    }
    let score = pb::PushEventRequest { r#type: "score".into(), ..push(77, "{}") };
    backend.push_event(score.clone()).await;
    backend.push_event(pb::PushEventRequest { transient: true, ..score }).await;
    let mut player = backend.player(77, 1).await;
    assert_eq!(player.connected["head"], 5);
    assert!(player.connected.get("seq").is_none(), "nothing that could be taken for a position");
    assert_eq!(player.connected["recovered"], json!(null));
    backend.push(77, r#"{"round":4}"#).await;
    player.until_events(3).await;
    assert_eq!(player.seqs(), [3, 4, 6], "the latest of each type, then what is new");
}

#[tokio::test]
async fn a_fresh_connection_does_not_start_with_what_is_addressed_to_another() {
    let (_server, backend) = TestServer::start_with_backend(&[]).await;
    backend.push(77, r#"{"for":"all"}"#).await;
    let audience = audience(pb::audience::To::Only(users(&[2])));
    backend.push_event(pb::PushEventRequest { audience, ..push(77, r#"{"for":2}"#) }).await;
    let mut one = backend.player(77, 1).await;
    let mut two = backend.player(77, 2).await;
    one.until_events(1).await;
    two.until_events(1).await;
    assert_eq!((one.seqs(), two.seqs()), (vec![1], vec![2]));
}

#[tokio::test]
async fn who_was_away_receives_what_was_missed_as_it_would_have_been() {
    let server = TestServer::start().await;
    let (backend, mut one, mut two) = duel_of_two(&server, 77).await;
    backend.push(77, r#"{"n":1}"#).await;
    one.until_events(1).await;
    let position = one.position();
    let ticket = one.resume_ticket();
    drop(one);
    for n in 2..=200 {
        backend.push(77, &format!(r#"{{"n":{n}}}"#)).await;
    }
    let mut one = Player::join(&server, Join::ticket(ticket).resume(position)).await;
    assert_eq!(one.connected["recovered"], true);
    assert_eq!(one.connected["head"], 200, "up to where it will come");
    one.until_events(199).await;
    two.until_events(200).await;
    assert_eq!(one.events, two.events[1..], "the same frames");
    // And on: positions have advanced with the replay.
    let mut one = one.rejoin(&server).await;
    assert_eq!(
        (one.connected["recovered"].clone(), one.connected["head"].clone()),
        (json!(true), json!(200))
    );
    backend.push(77, r#"{"n":201}"#).await;
    one.until_events(1).await;
    assert_eq!(one.seqs(), [201]);
}

#[tokio::test]
async fn who_was_away_for_too_long_is_told_so_and_starts_from_the_state() {
    let (_server, backend) =
        TestServer::start_with_backend(&[("ENGINE_MAX_LOG_EVENTS", "10")]).await;
    let mut one = backend.player(77, 1).await;
    one.ping().await;
    let start = one.position();
    drop(one);
    let typed =
        |event_type: &str| pb::PushEventRequest { r#type: event_type.into(), ..push(77, "{}") };
    backend.push_event(typed("rare")).await;
    backend.push_event(typed("score")).await;
    for _ in 3..=20 {
        backend.push(77, "{}").await;
    }
    backend.push_event(typed("score")).await;
    assert_eq!(backend.duel(77).await.oldest_seq, 12);
    for position in [start, "0123456789abcdef:20".into(), "nonsense".into()] {
        let mut one = backend.resuming(77, 1, &position).await;
        assert_eq!(one.connected["recovered"], false, "{position}");
        assert_eq!(one.connected["head"], 21);
        one.ping().await;
        assert_eq!(
            one.seqs(),
            [1, 20, 21],
            "the latest of each type, also one that fell off the log"
        );
    }
    let epoch = backend.duel(77).await.position.unwrap().epoch;
    for (seq, recovered) in [(10, false), (11, true), (21, true), (22, false)] {
        let one = backend.resuming(77, 1, format!("{epoch}:{seq}")).await;
        assert_eq!(one.connected["recovered"], recovered, "from {seq}");
    }
}

#[tokio::test]
async fn a_client_that_never_reads_is_dropped_and_harms_nobody() {
    let (server, backend) =
        TestServer::start_with_backend(&[("ENGINE_MAX_LOG_EVENTS", "100")]).await;
    let join = Join { receive_buffer: Some(4096), ..Join::ticket(backend.ticket(77, 1).await) };
    let mut stuck = Player::join(&server, join).await;
    let mut other = backend.player(77, 2).await;
    let payload = format!(r#"{{"fill":"{}"}}"#, "x".repeat(60_000));
    const EVENTS: usize = 300;
    let pushing = async {
        for _ in 0..EVENTS {
            backend.push(77, &payload).await;
        }
    };
    tokio::join!(pushing, other.until_events(EVENTS));
    assert_eq!(other.seqs(), (1..=300).collect::<Vec<_>>());
    until("the stuck client is dropped", || async { backend.duel(77).await.connections == 1 })
        .await;
    // It may still read what the kernel holds; what it gets is in order and without a gap.
    while stuck.next().await {}
    let seqs = stuck.seqs();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    let mut back = stuck.rejoin(&server).await;
    assert_eq!(back.connected["recovered"], false, "the log has gone on without it");
    back.until_events(1).await;
    assert_eq!(back.seqs(), [300]);
}

#[tokio::test]
async fn a_client_that_pings_and_never_reads_the_answers_is_dropped() {
    let (server, backend) = TestServer::start_with_backend(&[]).await;
    let join = Join { receive_buffer: Some(4096), ..Join::ticket(backend.ticket(77, 1).await) };
    let mut stuck = Player::join(&server, join).await;
    let pinging =
        async { while stuck.ws.send(Message::Ping(vec![0; 125].into())).await.is_ok() {} };
    let dropped =
        until("the client is dropped", || async { backend.duel(77).await.connections == 0 });
    tokio::join!(pinging, dropped);
}

#[tokio::test]
async fn an_event_that_fits_in_part_is_finished_when_there_is_room_though_nothing_follows_it() {
    let large = [("CONTROL_MAX_PAYLOAD_BYTES", "262144"), ("ENGINE_MAX_LOG_BYTES", "67108864")];
    let (server, backend) = TestServer::start_with_backend(&large).await;
    let payload = format!(r#"{{"fill":"{}"}}"#, "x".repeat(250_000));
    // At some of these counts the last event is the one that fits in part.
    for count in 1..=16 {
        let ticket = backend.ticket(count, 1).await;
        let join = Join { receive_buffer: Some(4096), ..Join::ticket(ticket) };
        let mut player = Player::join(&server, join).await;
        for _ in 0..count {
            backend.push(count, &payload).await;
        }
        player.until_events(usize::try_from(count).unwrap()).await;
        assert_eq!(player.seqs(), (1..=count).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn of_what_is_coalesced_a_lagging_client_receives_the_newest() {
    let server = TestServer::start().await;
    let (backend, mut one, _two) = duel_of_two(&server, 77).await;
    one.ping().await;
    let position = one.position();
    let ticket = one.resume_ticket();
    drop(one);
    for n in 1..=5 {
        let coalesce_key = "timer".into();
        let timer = pb::PushEventRequest { coalesce_key, ..push(77, &format!(r#"{{"n":{n}}}"#)) };
        backend.push_event(timer).await;
    }
    backend.push(77, "{}").await;
    let mut one = Player::join(&server, Join::ticket(ticket).resume(position)).await;
    one.ping().await;
    assert_eq!(one.seqs(), [5, 6]);
    assert_eq!(one.pong["seq"], 6);
}

#[tokio::test]
async fn the_end_of_a_duel_comes_last_and_closes() {
    let server = TestServer::start().await;
    let (backend, mut one, mut two) = duel_of_two(&server, 77).await;
    let last_event = pb::LastEvent { payload_json: r#"{"winner":1}"#.into(), ..Default::default() };
    let request = pb::CloseDuelRequest {
        duel_id: 77,
        status: pb::DuelStatus::Finished.into(),
        last_event: Some(last_event),
    };
    let closed = backend.client.clone().close_duel(request.clone()).await.unwrap().into_inner();
    assert_eq!((closed.connections, closed.duplicate), (2, false));
    for player in [&mut one, &mut two] {
        assert_eq!(player.until_closed().await, 4503);
        let expected = [
            json!({"type": "duel_update", "seq": 1, "payload": {"duel_id": 77, "winner": 1}}),
            json!({"type": "duel_closed", "duel_id": 77, "seq": 2, "status": "finished"}),
        ];
        assert_eq!(player.events, expected);
    }
    let again = backend.client.clone().close_duel(request).await.unwrap().into_inner();
    assert_eq!((again.position, again.duplicate), (closed.position, true));
}

#[tokio::test]
async fn who_was_away_at_the_end_learns_how_it_ended() {
    let server = TestServer::start().await;
    let (backend, mut one, _two) = duel_of_two(&server, 77).await;
    backend.push(77, "{}").await;
    one.until_events(1).await;
    let unused = [backend.ticket(77, 1).await, backend.ticket(77, 1).await];
    let used = backend.ticket(77, 1).await;
    drop(Player::join(&server, Join::ticket(&used)).await);
    let resuming = one.resume_ticket();
    let position = one.position();
    drop(one);
    backend.push(77, r#"{"last":true}"#).await;
    backend.close(77).await;
    let [fresh, done] = unused;
    let mut one = Player::join(&server, Join::ticket(resuming).resume(&position)).await;
    assert_eq!(one.connected["recovered"], true);
    assert_eq!(one.until_closed().await, 4503);
    assert_eq!(one.seqs(), [2, 3]);
    assert_eq!(one.events[1]["type"], "duel_closed");
    // Who has a ticket from before the end fetches it, though the answer to that ticket was lost.
    for ticket in [fresh, used.clone(), used] {
        let mut late = Player::join(&server, Join::ticket(ticket)).await;
        assert_eq!(late.until_closed().await, 4503);
        assert_eq!(late.seqs(), [2, 3]);
        assert!(late.connected.get("resume_ticket").is_none(), "there is nothing to come back to");
    }
    // Who has everything is told that there is nothing to come.
    let mut late = Player::knock(&server, Join::ticket(done).resume(one.position())).await;
    assert_eq!(late.until_closed().await, 4503);
    assert_eq!(
        (&late.error["message"], &late.error["retry"]),
        (&"duel_closed".into(), &false.into())
    );
    assert!(backend.duel(77).await.online.is_empty(), "nobody came online for it");
}

#[tokio::test]
async fn a_duel_forgotten_and_begun_anew_has_another_epoch() {
    let variables = [
        ("ENGINE_CLOSED_RETENTION_SECONDS", "1"),
        ("WEBSOCKET_TICKET_TTL_SECONDS", "1"),
        ("WEBSOCKET_RESUME_TTL_SECONDS", "1"),
        ("WEBSOCKET_SYNC_INTERVAL", "0.5"),
    ];
    let (_server, backend) = TestServer::start_with_backend(&variables).await;
    let first = backend.push_event(push(77, "{}")).await.position.unwrap();
    backend.close(77).await;
    until("the closed duel is forgotten", || async { backend.try_duel(77).await.is_err() }).await;
    let second = backend.push_event(push(77, "{}")).await.position.unwrap();
    assert_eq!((first.seq, second.seq), (1, 1));
    assert_ne!(first.epoch, second.epoch);
}
