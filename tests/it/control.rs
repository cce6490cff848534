//! The control plane: what each call answers, and what it refuses by name.

use duelhub::pb;
use duelhub::pb::audience::To;
use duelhub::pb::control_service_client::ControlServiceClient;
use duelhub_testkit::{Backend, TestServer, error_info, push, soon, until};
use futures_util::StreamExt as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};
use tonic::{Code, Request, Status};

fn assert_refused(status: &Status, code: Code, reason: &str, field: Option<&str>) {
    let (known, request_id, at) = error_info(status);
    assert_eq!((status.code(), known.as_str(), at.as_deref()), (code, reason, field), "{status:?}");
    let metadata = status.metadata().get("x-request-id").unwrap().to_str().unwrap();
    assert_eq!(metadata, request_id);
}

/// Refused for the value of one field.
fn assert_invalid<T>(answer: Result<T, Status>, field: &str) {
    let status = answer.err().expect("it is refused");
    assert_refused(&status, Code::InvalidArgument, "INVALID_FIELD", Some(field));
}

#[tokio::test]
async fn a_bad_push_names_the_field() {
    let (_server, backend) = TestServer::start_with_backend(&[]).await;
    let good = || push(77, "{}");
    let users = |ids: &[u64]| pb::UserList { user_ids: ids.to_vec() };
    let to = |to| pb::PushEventRequest { audience: Some(pb::Audience { to: Some(to) }), ..good() };
    let view = |user_id, json: &str| pb::View { user_id, payload_json: json.into(), payload: None };
    let views = |views: Vec<pb::View>| pb::PushEventRequest { views, ..good() };
    let large = format!(r#"{{"x":"{}"}}"#, "x".repeat(65_536));
    let half = format!(r#"{{"x":"{}"}}"#, "x".repeat(60_000));
    let typed = |event_type: &str| pb::PushEventRequest { r#type: event_type.into(), ..good() };
    let table = [
        (push(0, "{}"), "duel_id"),
        (push(1 << 53, "{}"), "duel_id"),
        (push(77, "[]"), "payload_json"),
        (push(77, r#"{"duel_id":78}"#), "payload_json"),
        (push(77, &large), "payload_json"),
        (push(77, &"x".repeat(1 << 20)), "payload_json"),
        (typed("A"), "type"),
        (typed("pong"), "type"),
        (typed(&"x".repeat(65)), "type"),
        (to(To::Players(false)), "audience.players"),
        (to(To::Only(users(&[]))), "audience.only.user_ids"),
        (to(To::Except(users(&[1; 65]))), "audience.except.user_ids"),
        (to(To::Only(users(&[1, 0]))), "audience.only.user_ids[1]"),
        (to(To::Only(users(&[1, 1]))), "audience.only.user_ids[1]"),
        (views(vec![view(1, "{}"), view(0, "{}")]), "views[1].user_id"),
        (views(vec![view(1, "{}"), view(1, "{}")]), "views[1].user_id"),
        (views(vec![view(1, "x")]), "views[0].payload_json"),
        (views((1..=65).map(|user| view(user, "{}")).collect()), "views"),
        (views((1..=5).map(|user| view(user, &half)).collect()), "views"),
        (
            pb::PushEventRequest { views: vec![view(1, "{}")], ..to(To::Only(users(&[2]))) },
            "views[0].user_id",
        ),
        (pb::PushEventRequest { idempotency_key: "x".repeat(129), ..good() }, "idempotency_key"),
        (pb::PushEventRequest { coalesce_key: "x".repeat(65), ..good() }, "coalesce_key"),
    ];
    for (request, field) in table {
        assert_invalid(backend.try_push(request).await, field);
    }
    assert_eq!(backend.push(77, "{}").await, 1, "none of them took effect");
}

#[tokio::test]
async fn other_bad_requests_name_the_field() {
    let server = TestServer::start().await;
    let mut client = Backend::connect(&server).await.client;
    let participant = |user_id, telegram_id| pb::Participant { user_id, telegram_id };
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let open = |participants: Vec<_>| pb::OpenDuelRequest {
        duel_id: 77,
        participants,
        settings: None,
        reopen: false,
    };
    let grace = |grace| pb::OpenDuelRequest {
        settings: Some(pb::DuelSettings { presence_grace: grace }),
        ..open(vec![])
    };
    for (request, field) in [
        (pb::OpenDuelRequest::default(), "duel_id"),
        (open(vec![participant(0, 1)]), "participants[0].user_id"),
        (open(vec![participant(1, 1 << 53)]), "participants[0].telegram_id"),
        (open(vec![participant(1, 0), participant(1, 2)]), "participants[1].user_id"),
        (open(vec![participant(1, 5), participant(5, 0)]), "participants[1].telegram_id"),
        (open((1..=65).map(|user| participant(user, 0)).collect()), "participants"),
        (grace(seconds(61)), "settings.presence_grace"),
        (grace(seconds(-1)), "settings.presence_grace"),
    ] {
        assert_invalid(client.open_duel(request).await, field);
    }
    let issue = pb::IssueTicketRequest { duel_id: 77, user_id: 1, ..Default::default() };
    for (request, field) in [
        (pb::IssueTicketRequest { duel_id: 0, ..issue }, "duel_id"),
        (pb::IssueTicketRequest { user_id: 0, ..issue }, "user_id"),
        (pb::IssueTicketRequest { role: 9, ..issue }, "role"),
        (pb::IssueTicketRequest { ttl: seconds(0), ..issue }, "ttl"),
        (pb::IssueTicketRequest { ttl: seconds(i64::MIN), ..issue }, "ttl"),
        (pb::IssueTicketRequest { ttl: seconds(86_401), ..issue }, "ttl"),
        (
            pb::IssueTicketRequest {
                ttl: Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }),
                ..issue
            },
            "ttl",
        ),
    ] {
        assert_invalid(client.issue_ticket(request).await, field);
    }
}

#[tokio::test]
async fn bad_requests_about_tickets_and_lists_name_the_field() {
    use pb::revoke_tickets_request::Tickets;
    let server = TestServer::start().await;
    let mut client = Backend::connect(&server).await.client;
    for (tickets, field) in [
        (None, "tickets"),
        (Some(Tickets::Jti(String::new())), "jti"),
        (Some(Tickets::Jti("x".repeat(65))), "jti"),
        (Some(Tickets::User(pb::UserTickets { duel_id: 0, user_id: 1 })), "user.duel_id"),
        (Some(Tickets::User(pb::UserTickets { duel_id: 1, user_id: 0 })), "user.user_id"),
    ] {
        assert_invalid(client.revoke_tickets(pb::RevokeTicketsRequest { tickets }).await, field);
    }
    let last = |json: &str| Some(pb::LastEvent { payload_json: json.into(), ..Default::default() });
    for (request, field) in [
        (pb::CloseDuelRequest { duel_id: 0, status: 2, last_event: None }, "duel_id"),
        (pb::CloseDuelRequest { duel_id: 1, status: 0, last_event: None }, "status"),
        (pb::CloseDuelRequest { duel_id: 1, status: 1, last_event: None }, "status"),
        (
            pb::CloseDuelRequest { duel_id: 1, status: 2, last_event: last("x") },
            "last_event.payload_json",
        ),
    ] {
        assert_invalid(client.close_duel(request).await, field);
    }
    let list = pb::ListDuelsRequest::default;
    for (request, field) in [
        (pb::ListDuelsRequest { page_size: 1001, ..list() }, "page_size"),
        (pb::ListDuelsRequest { page_token: "x".into(), ..list() }, "page_token"),
        (pb::ListDuelsRequest { status: 9, ..list() }, "status"),
    ] {
        assert_invalid(client.list_duels(request).await, field);
    }
    let reason = "x".repeat(121);
    let status =
        client.disconnect(pb::DisconnectRequest { duel_id: 1, reason, ..Default::default() }).await;
    assert_invalid(status, "reason");
    let status = client.watch_duels(pb::WatchDuelsRequest { duel_ids: vec![1, 0] }).await;
    assert_invalid(status, "duel_ids[1]");
    assert_refused(
        &client.get_duel(pb::GetDuelRequest { duel_id: 404 }).await.unwrap_err(),
        Code::NotFound,
        "DUEL_UNKNOWN",
        None,
    );
}

#[tokio::test]
async fn an_idempotency_key_makes_repeating_safe() {
    let (_server, backend) = TestServer::start_with_backend(&[]).await;
    let keyed = |json: &str| pb::PushEventRequest { idempotency_key: "k".into(), ..push(77, json) };
    let first = backend.push_event(keyed(r#"{"a":1}"#)).await;
    backend.push(77, "{}").await;
    let again = backend.push_event(keyed(r#"{"a":1}"#)).await;
    assert_eq!((again.position, again.duplicate), (first.position, true));
    let other = backend.try_push(keyed(r#"{"a":2}"#)).await.unwrap_err();
    assert_refused(&other, Code::AlreadyExists, "IDEMPOTENCY_KEY_REUSED", None);
    let elsewhere = pb::PushEventRequest { duel_id: 78, ..keyed(r#"{"a":2}"#) };
    assert!(!backend.push_event(elsewhere).await.duplicate, "keys are a duel's own");
    assert_eq!(backend.duel(77).await.position.unwrap().seq, 2);
    backend.close(77).await;
    assert!(
        backend.push_event(keyed(r#"{"a":1}"#)).await.duplicate,
        "also once the duel is closed"
    );
}

#[tokio::test]
async fn a_closed_duel_takes_nothing_more() {
    let (_server, backend) = TestServer::start_with_backend(&[]).await;
    backend.close(77).await;
    let refusals = [
        backend.try_push(push(77, "{}")).await.map(drop),
        backend.try_issue(77, 1).await.map(drop),
        backend.try_open(77, &[]).await.map(drop),
        backend.try_close(77, pb::DuelStatus::Cancelled).await.map(drop),
    ];
    for refusal in refusals {
        assert_refused(&refusal.unwrap_err(), Code::FailedPrecondition, "DUEL_CLOSED", None);
    }
    let duel = backend.duel(77).await;
    assert_eq!((duel.status(), duel.position.unwrap().seq), (pb::DuelStatus::Finished, 1));
}

#[tokio::test]
async fn declaring_widens_and_never_narrows() {
    let (_server, backend) = TestServer::start_with_backend(&[]).await;
    assert!(backend.open(77, &[1]).await.created);
    assert!(!backend.open(77, &[1]).await.created);
    let ask = |user_id, role: pb::Role| {
        let mut client = backend.client.clone();
        let request = pb::IssueTicketRequest { duel_id: 77, user_id, role: role.into(), ttl: None };
        async move { client.issue_ticket(request).await.map(drop) }
    };
    let refused = ask(2, pb::Role::Player).await.unwrap_err();
    assert_refused(&refused, Code::PermissionDenied, "NOT_A_PARTICIPANT", None);
    assert!(ask(2, pb::Role::Spectator).await.is_ok());
    backend.open(77, &[2]).await;
    assert!(ask(1, pb::Role::Player).await.is_ok() && ask(2, pb::Role::Player).await.is_ok());
    let clash = pb::OpenDuelRequest {
        duel_id: 77,
        participants: vec![pb::Participant { user_id: 3, telegram_id: 1 }],
        settings: None,
        reopen: false,
    };
    assert_invalid(backend.client.clone().open_duel(clash).await, "participants");
    assert_eq!(backend.duel(77).await.participants.len(), 2);
}

#[tokio::test]
async fn lists_come_in_pages_and_by_status() {
    let (_server, backend) = TestServer::start_with_backend(&[]).await;
    for duel in 1..=25 {
        backend.push(duel * 1000, "{}").await;
    }
    backend.close(5000).await;
    let list = |request: pb::ListDuelsRequest| {
        let mut client = backend.client.clone();
        async move { client.list_duels(request).await.unwrap().into_inner() }
    };
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let page = list(pb::ListDuelsRequest { page_size: 10, page_token, status: 0 }).await;
        seen.extend(page.duels.iter().map(|duel| duel.duel_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, (1..=25).map(|duel| duel * 1000).collect::<Vec<_>>());
    let by = |status: pb::DuelStatus| {
        list(pb::ListDuelsRequest { status: status.into(), ..Default::default() })
    };
    assert_eq!(by(pb::DuelStatus::Finished).await.duels[0].duel_id, 5000);
    assert_eq!(by(pb::DuelStatus::Open).await.duels.len(), 24);
    assert!(by(pb::DuelStatus::Cancelled).await.duels.is_empty());
}

#[tokio::test]
async fn a_stream_answers_every_push_in_order_and_goes_on_after_a_bad_one() {
    let (_server, backend) = TestServer::start_with_backend(&[]).await;
    const COUNT: u64 = 2000;
    let pushes = (1..=COUNT).map(|tag| {
        let push = match tag {
            7 => Some(push(77, "nonsense")),
            8 => None,
            _ => Some(push(77, &format!(r#"{{"tag":{tag}}}"#))),
        };
        pb::PushEventsRequest { tag, push }
    });
    let mut answers =
        backend.client.clone().push_events(tokio_stream::iter(pushes)).await.unwrap().into_inner();
    let (mut tag, mut seq) = (0, 0);
    while let Some(answer) = soon("an answer", answers.message()).await.unwrap() {
        use pb::push_events_response::Outcome;
        tag += 1;
        assert_eq!(answer.tag, tag);
        match answer.outcome.unwrap() {
            Outcome::Pushed(pushed) => {
                seq += 1;
                assert_eq!(pushed.position.unwrap().seq, seq, "stored in the order sent");
            }
            Outcome::Error(error) => {
                let field = if tag == 7 { "payload_json" } else { "push" };
                let told = (error.code, error.reason.as_str(), error.field.as_str());
                assert_eq!(told, (Code::InvalidArgument as i32, "INVALID_FIELD", field));
            }
        }
    }
    assert_eq!((tag, seq), (COUNT, COUNT - 2));
}

#[tokio::test]
async fn streams_whose_answers_nobody_reads_stall_nobody_else() {
    let (server, backend) =
        TestServer::start_with_backend(&[("CONTROL_MAX_PUSHES_IN_FLIGHT", "64")]).await;
    let mut stalled = Vec::new();
    for stream in 1..=3_u64 {
        let reader = Backend::with_small_window(&server).await;
        let pushes = tokio_stream::iter(1..=5000)
            .map(move |tag| pb::PushEventsRequest { tag, push: Some(push(stream, "{}")) });
        let answers = reader.client.clone().push_events(pushes).await.unwrap();
        stalled.push((reader, answers));
        // Its answers fill the window, and it stalls: nothing more of it is stored, and nothing is under way.
        let before = std::cell::Cell::new(0);
        let stalled = || {
            let request = pb::GetDuelRequest { duel_id: stream };
            let mut client = backend.client.clone();
            let before = &before;
            async move {
                // Until its first push is stored there is no such duel.
                let Ok(duel) = client.get_duel(request).await else { return false };
                let stored = duel.into_inner().duel.unwrap().position.unwrap().seq;
                let same = before.replace(stored) == stored;
                let node = client.get_node(pb::GetNodeRequest {}).await.unwrap().into_inner();
                same && stored > 20 && node.counts.unwrap().pushes_in_flight == 0
            }
        };
        until("the stream has stalled", stalled).await;
    }
    for _ in 0..100 {
        backend.push(77, "{}").await;
    }
    let in_flight = || async { backend.node().await.counts.unwrap().pushes_in_flight };
    until("every place is given back", || async { in_flight().await == 0 }).await;
}

#[tokio::test]
async fn duels_are_bounded_and_the_rest_goes_on() {
    let (_server, backend) = TestServer::start_with_backend(&[("ENGINE_MAX_DUELS", "2")]).await;
    until("the probe is in", || async { backend.node().await.ready }).await;
    backend.push(1, "{}").await;
    backend.push(2, "{}").await;
    assert_refused(
        &backend.try_push(push(3, "{}")).await.unwrap_err(),
        Code::ResourceExhausted,
        "LIMIT_REACHED",
        None,
    );
    assert_eq!(backend.push(1, "{}").await, 2);
    assert!(backend.node().await.ready);
}

#[tokio::test]
async fn request_ids_are_adopted_if_they_are_harmless() {
    let server = TestServer::start().await;
    let mut client = Backend::connect(&server).await.client;
    for (given, adopted) in [("trace-1.a", true), ("a b", false)] {
        let mut request = Request::new(pb::GetNodeRequest {});
        request.metadata_mut().insert("x-request-id", given.parse().unwrap());
        let response = client.get_node(request).await.unwrap();
        let id = response.metadata().get("x-request-id").unwrap().to_str().unwrap();
        assert_eq!(id == given, adopted, "{given}");
    }
}

#[tokio::test]
async fn a_token_is_asked_of_every_call() {
    let token = "a-token-of-16-bytes-or-more";
    let server = TestServer::with(&[("CONTROL_TOKEN", token)]).await;
    let url = format!("http://{}", server.addresses.control);
    let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
    let mut client = ControlServiceClient::new(channel.clone());
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let bad = [
        None,
        Some("Bearer wrong"),
        Some("Bearer "),
        Some("Bearer"),
        Some(token),
        Some("Basic a-token-of-16-bytes-or-more"),
        Some("Bearera-token-of-16-bytes-or-more"),
    ];
    for given in bad {
        let mut request = Request::new(pb::GetNodeRequest {});
        if let Some(given) = given {
            request.metadata_mut().insert("authorization", given.parse().unwrap());
        }
        let status = client.get_node(request).await.unwrap_err();
        assert_refused(&status, Code::Unauthenticated, "UNAUTHENTICATED", None);
        assert!(!status.message().contains(token));
    }
    let check = || Request::new(tonic_health::pb::HealthCheckRequest::default());
    assert_eq!(health.check(check()).await.unwrap_err().code(), Code::Unauthenticated);
    // The scheme's name has no case (RFC 9110, section 11.1).
    for scheme in ["Bearer ", "bearer ", "BEARER ", "Bearer  "] {
        let mut request = Request::new(pb::GetNodeRequest {});
        let given = format!("{scheme}{token}").parse().unwrap();
        request.metadata_mut().insert("authorization", given);
        assert_eq!(client.get_node(request).await.unwrap().into_inner().engine, "embedded");
    }
    let mut request = check();
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    assert!(health.check(request).await.is_ok());
}

#[tokio::test]
async fn mutual_tls_lets_in_whom_the_authority_has_signed() {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let signed = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &authority).unwrap().pem(), key.serialize_pem())
    };
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, contents: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, contents).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (cert, key) = signed("localhost");
    let (cert, key) = (file("cert", &cert), file("key", &key));
    let ca = file("ca", &authority.pem());
    let variables =
        [("CONTROL_TLS_CERT", &*cert), ("CONTROL_TLS_KEY", &*key), ("CONTROL_TLS_CLIENT_CA", &*ca)];
    let server = TestServer::with(&variables).await;
    let call = |identity: Option<Identity>| {
        let url = format!("https://localhost:{}", server.addresses.control.port());
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem()));
        if let Some(identity) = identity {
            tls = tls.identity(identity);
        }
        async move {
            let endpoint = Channel::from_shared(url).unwrap().tls_config(tls).unwrap();
            let channel = endpoint.connect().await.map_err(|error| error.to_string())?;
            let node = ControlServiceClient::new(channel).get_node(pb::GetNodeRequest {}).await;
            node.map(drop).map_err(|status| status.to_string())
        }
    };
    let (cert, key) = signed("backend");
    assert_eq!(call(Some(Identity::from_pem(cert, key))).await, Ok(()));
    assert!(call(None).await.is_err());
    let stranger = rcgen::generate_simple_self_signed(vec!["backend".to_owned()]).unwrap();
    let identity = Identity::from_pem(stranger.cert.pem(), stranger.signing_key.serialize_pem());
    assert!(call(Some(identity)).await.is_err());
}
