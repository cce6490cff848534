//! A restart, in good order or not, is like a short absence for clients and backends, but for the epoch, which is new.

use duelhub::engine::EpochHistory;
use duelhub::pb;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tonic::Code;

use crate::kit::{Away, Backend, Facts, HowToEnd, Hub, Join, Player, Site, error_info, push};

const HOWS: [HowToEnd; 2] = [HowToEnd::Term, HowToEnd::Kill];

/// Ends the hub, and starts another in its place.
async fn restart(site: &Site, hub: Hub, how: HowToEnd) -> (Hub, Backend) {
    hub.end(how).await;
    let hub = site.start().await;
    let backend = Backend::connect(&hub).await;
    (hub, backend)
}

async fn begin(site: &Site) -> (Hub, Backend) {
    let hub = site.start().await;
    let backend = Backend::connect(&hub).await;
    (hub, backend)
}

async fn push_numbered(backend: &Backend, numbers: std::ops::RangeInclusive<u64>) {
    for n in numbers {
        assert_eq!(backend.push(77, &format!(r#"{{"n":{n}}}"#)).await, n);
    }
}

fn seq(position: Option<pb::Position>) -> u64 {
    position.unwrap().seq
}

fn but_for_the_epoch(mut duel: pb::Duel) -> pb::Duel {
    duel.position.as_mut().unwrap().epoch.clear();
    duel
}

/// The code and the word with which a ticket is refused.
async fn refused(hub: &Hub, join: Join) -> (u16, String) {
    let mut player = Player::knock(hub, join).await;
    let code = player.until_closed().await;
    (code, player.error["message"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn positions_go_on_and_who_was_away_receives_what_was_missed() {
    for how in HOWS {
        let site = Site::new();
        let (hub, backend) = begin(&site).await;
        let mut one = Player::join(&hub, Join::ticket(backend.ticket(77, 1).await)).await;
        let mut two = Player::join(&hub, Join::ticket(backend.ticket(77, 2).await)).await;
        push_numbered(&backend, 1..=5).await;
        one.until_events(5).await;
        two.until_events(3).await;
        let epoch = one.connected["epoch"].clone();
        let two = Away::leave(two);
        hub.send(how);
        if how == HowToEnd::Term {
            assert_eq!(one.until_closed().await, 1012);
        }
        let one = Away::leave(one);
        hub.ended(how).await;
        let (hub, backend) = begin(&site).await;
        push_numbered(&backend, 6..=8).await;
        for (away, missed) in [(one, 6..=8), (two, 4..=8)] {
            let mut player = away.back(&hub).await;
            assert_eq!(player.connected["recovered"], true, "{how:?}");
            assert_ne!(player.connected["epoch"], epoch, "{how:?}");
            assert_eq!(player.connected["head"], 8);
            player.ping().await;
            let expected: Vec<_> =
                missed.map(|n| event(n, &json!({"duel_id": 77, "n": n}))).collect();
            assert_eq!(player.events, expected, "{how:?}");
        }
        hub.end(HowToEnd::Term).await;
    }
}

#[tokio::test]
async fn who_was_away_over_many_restarts_is_recovered_as_long_as_the_epoch_is_remembered() {
    let site = Site::new();
    let (mut hub, mut backend) = begin(&site).await;
    let mut seen = Vec::new();
    for life in 0..=EpochHistory::EPOCHS_MAX as u64 {
        // In every third life something happens.
        if life % 3 == 0 {
            backend.push(77, &format!(r#"{{"life":{life}}}"#)).await;
        }
        seen.push(backend.duel(77).await.position.unwrap());
        (hub, backend) = restart(&site, hub, HOWS[usize::from(life % 2 == 0)]).await;
    }
    let head = backend.duel(77).await.position.unwrap();
    for (restarts, position) in (1..).zip(seen.into_iter().rev()) {
        for (seq, kept) in [(position.seq, true), (position.seq + 1, false)] {
            let join = Join::ticket(backend.ticket(77, 1).await);
            let mut one =
                Player::join(&hub, join.resume(format!("{}:{seq}", position.epoch))).await;
            let remembered = restarts <= EpochHistory::EPOCHS_MAX;
            assert_eq!(one.connected["recovered"], kept && remembered, "{restarts}: {position:?}");
            assert_eq!(one.connected["epoch"], head.epoch);
            one.ping().await;
            let missed: Vec<_> = (position.seq + 1..=head.seq).collect();
            assert!(!(kept && remembered) || one.seqs() == missed, "{restarts}: {:?}", one.seqs());
        }
    }
    hub.end(HowToEnd::Term).await;
}

fn event(seq: u64, payload: &Value) -> Value {
    json!({"type": "duel_update", "seq": seq, "payload": payload})
}

#[tokio::test]
async fn who_resumes_from_before_the_log_starts_from_the_state() {
    let site = Site::new().with("ENGINE_MAX_LOG_EVENTS", "10");
    let (hub, backend) = begin(&site).await;
    let mut one = Player::join(&hub, Join::ticket(backend.ticket(77, 1).await)).await;
    one.ping().await;
    let one = Away::leave(one);
    let typed =
        |event_type: &str| pb::PushEventRequest { r#type: event_type.into(), ..push(77, "{}") };
    backend.push_event(typed("rare")).await;
    for _ in 2..=20 {
        backend.push(77, "{}").await;
    }
    backend.push_event(typed("score")).await;
    let before = backend.duel(77).await;
    let (hub, backend) = restart(&site, hub, HowToEnd::Kill).await;
    assert_eq!(backend.duel(77).await.oldest_seq, 12);
    assert_eq!(seq(backend.duel(77).await.position), seq(before.position.clone()));
    let mut one = one.back(&hub).await;
    assert_eq!(one.connected["recovered"], false);
    one.ping().await;
    assert_eq!(one.seqs(), [1, 20, 21], "the latest of each type, also what fell off the log");
    drop(one);
    let epoch = before.position.unwrap().epoch;
    for (seq, recovered) in [(10, false), (11, true), (21, true), (22, false)] {
        let join = Join::ticket(backend.ticket(77, 1).await).resume(format!("{epoch}:{seq}"));
        let one = Player::join(&hub, join).await;
        assert_eq!(one.connected["recovered"], recovered, "from {seq}");
    }
    hub.end(HowToEnd::Term).await;
}

#[tokio::test]
async fn a_key_used_before_the_restart_is_known_after_it() {
    let keyed = |payload: &str| {
        let idempotency_key = "round-1".to_owned();
        pb::PushEventRequest { idempotency_key, ..push(77, payload) }
    };
    for how in HOWS {
        let site = Site::new();
        let (hub, backend) = begin(&site).await;
        let first = backend.push_event(keyed(r#"{"n":1}"#)).await;
        backend.push(77, r#"{"n":2}"#).await;
        let (hub, backend) = restart(&site, hub, how).await;
        let again = backend.push_event(keyed(r#"{"n":1}"#)).await;
        assert_eq!((seq(again.position), again.duplicate), (seq(first.position), true), "{how:?}");
        let status = backend.client.clone().push_event(keyed(r#"{"n":3}"#)).await.unwrap_err();
        let (reason, ..) = error_info(&status);
        assert_eq!(
            (status.code(), reason.as_str()),
            (Code::AlreadyExists, "IDEMPOTENCY_KEY_REUSED")
        );
        assert_eq!(backend.push(77, r#"{"n":3}"#).await, 3);
        hub.end(HowToEnd::Term).await;
    }
}

#[tokio::test]
async fn a_ticket_used_or_revoked_before_the_restart_opens_nothing_after_it() {
    use pb::revoke_tickets_request::Tickets;
    for how in HOWS {
        let site = Site::new();
        let (hub, backend) = begin(&site).await;
        let used = backend.ticket(77, 1).await;
        let player = Player::join(&hub, Join::ticket(&used)).await;
        let resume = player.resume_ticket();
        drop(player);
        let (one, others, unused) =
            (issue(&backend, 2).await, issue(&backend, 3).await, issue(&backend, 4).await);
        let user = pb::UserTickets { duel_id: 77, user_id: 3 };
        for tickets in [Tickets::Jti(one.jti), Tickets::User(user)] {
            let request = pb::RevokeTicketsRequest { tickets: Some(tickets) };
            backend.client.clone().revoke_tickets(request).await.unwrap();
        }
        let (hub, backend) = restart(&site, hub, how).await;
        let known = (4002, "ticket_already_used".to_owned());
        let revoked = (4501, "invalid_ticket".to_owned());
        assert_eq!(refused(&hub, Join::ticket(&used)).await, known, "{how:?}");
        assert_eq!(refused(&hub, Join::ticket(one.ticket)).await, revoked, "{how:?}");
        assert_eq!(refused(&hub, Join::ticket(others.ticket)).await, revoked, "{how:?}");
        Player::join(&hub, Join::ticket(unused.ticket)).await;
        Player::join(&hub, Join::ticket(issue(&backend, 3).await.ticket)).await;
        let next = Player::join(&hub, Join::ticket(&resume)).await.resume_ticket();
        let (hub, _) = restart(&site, hub, how).await;
        assert_eq!(refused(&hub, Join::ticket(used)).await, known, "{how:?}, twice");
        // Its welcome may have been lost, until its successor is used.
        Player::join(&hub, Join::ticket(&resume)).await;
        Player::join(&hub, Join::ticket(next)).await;
        assert_eq!(refused(&hub, Join::ticket(resume)).await, known, "{how:?}");
        hub.end(HowToEnd::Term).await;
    }
}

async fn issue(backend: &Backend, user_id: u64) -> pb::IssueTicketResponse {
    backend.issue(pb::IssueTicketRequest { duel_id: 77, user_id, ..Default::default() }).await
}

#[tokio::test]
async fn a_duel_closed_before_the_restart_stays_closed_and_who_was_away_learns_how_it_ended() {
    for how in HOWS {
        let site = Site::new();
        let (hub, backend) = begin(&site).await;
        let mut one = Player::join(&hub, Join::ticket(backend.ticket(77, 1).await)).await;
        push_numbered(&backend, 1..=1).await;
        one.until_events(1).await;
        let (resume, position) = (one.resume_ticket(), one.position());
        let [late, fresh] = [backend.ticket(77, 1).await, backend.ticket(77, 2).await];
        drop(one);
        push_numbered(&backend, 2..=2).await;
        let closed = backend.close(77).await;
        let (hub, backend) = restart(&site, hub, how).await;
        let mut one = Player::join(&hub, Join::ticket(resume).resume(&position)).await;
        assert_eq!(one.connected["recovered"], true);
        assert_eq!(one.until_closed().await, 4503);
        let end = json!({"type": "duel_closed", "duel_id": 77, "seq": 3, "status": "finished"});
        assert_eq!(one.events, [event(2, &json!({"duel_id": 77, "n": 2})), end]);
        let end = one.position();
        drop(one);
        let late = Join::ticket(late).resume(end);
        assert_eq!(refused(&hub, late).await, (4503, "duel_closed".to_owned()), "{how:?}");
        let mut other = Player::join(&hub, Join::ticket(fresh)).await;
        assert_eq!((other.until_closed().await, other.seqs()), (4503, vec![2, 3]), "{how:?}");
        let again = backend.close(77).await;
        assert_eq!((seq(again.position), again.duplicate), (seq(closed.position), true));
        closed_to_backends(&backend).await;
        hub.end(HowToEnd::Term).await;
    }
}

async fn closed_to_backends(backend: &Backend) {
    let mut client = backend.client.clone();
    let open = pb::OpenDuelRequest { duel_id: 77, ..Default::default() };
    let ticket = pb::IssueTicketRequest { duel_id: 77, user_id: 1, ..Default::default() };
    let cancelled = pb::DuelStatus::Cancelled.into();
    let close = pb::CloseDuelRequest { duel_id: 77, status: cancelled, last_event: None };
    let refusals = [
        client.push_event(push(77, "{}")).await.unwrap_err(),
        client.open_duel(open).await.unwrap_err(),
        client.issue_ticket(ticket).await.unwrap_err(),
        client.close_duel(close).await.unwrap_err(),
    ];
    for status in refusals {
        assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
        assert_eq!(error_info(&status).0, "DUEL_CLOSED");
    }
}

#[tokio::test]
async fn what_was_declared_before_the_restart_holds_after_it() {
    for how in HOWS {
        let site = Site::new();
        let (hub, backend) = begin(&site).await;
        let participants = [(1, 1001), (2, 0)]
            .map(|(user_id, telegram_id)| pb::Participant { user_id, telegram_id });
        let presence_grace = Some(prost_types::Duration { seconds: 7, nanos: 0 });
        let request = pb::OpenDuelRequest {
            duel_id: 77,
            participants: participants.into(),
            settings: Some(pb::DuelSettings { presence_grace }),
            reopen: false,
        };
        backend.client.clone().open_duel(request).await.unwrap();
        push_numbered(&backend, 1..=3).await;
        backend.open(78, &[1, 2]).await;
        let before = [77, 78].map(async |duel| but_for_the_epoch(backend.duel(duel).await));
        let before = join_all(before).await;
        let (hub, backend) = restart(&site, hub, how).await;
        let after = [77, 78].map(async |duel| but_for_the_epoch(backend.duel(duel).await));
        assert_eq!(join_all(after).await, before, "{how:?}");
        for duel_id in [77, 78] {
            let request = pb::IssueTicketRequest { duel_id, user_id: 3, ..Default::default() };
            let status = backend.client.clone().issue_ticket(request).await.unwrap_err();
            let (reason, ..) = error_info(&status);
            assert_eq!(
                (status.code(), reason.as_str()),
                (Code::PermissionDenied, "NOT_A_PARTICIPANT")
            );
            Player::join(&hub, Join::ticket(backend.ticket(duel_id, 2).await)).await;
        }
        let listed =
            backend.client.clone().list_duels(pb::ListDuelsRequest::default()).await.unwrap();
        let ids: Vec<_> = listed.into_inner().duels.iter().map(|duel| duel.duel_id).collect();
        assert_eq!(ids, [77, 78]);
        hub.end(HowToEnd::Term).await;
    }
}

/// What a power loss may take with it is shown in `power.rs`.
#[tokio::test]
async fn with_durability_os_a_kill_loses_nothing() {
    let site = Site::new().with("DURABILITY", "os");
    let mut facts = Facts::default();
    for life in 0..3 {
        let hub = site.start().await;
        let backend = Backend::connect(&hub).await;
        facts.hold(&hub).await.unwrap_or_else(|missing| panic!("life {life}: {missing}"));
        facts.push(&backend, 1, 50, 300).await;
        facts.use_ticket(&hub, &backend, 1).await;
        facts.close(&backend, 10 + life).await;
        hub.end(HowToEnd::Kill).await;
    }
    facts.hold(&site.start().await).await.unwrap();
}
