//! Start, health, metrics, shutdown.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use duelhub::config::Config;
use duelhub::engine::MemoryEngine;
use duelhub::hub::{CloseRequest, Hub};
use duelhub::metrics::Metrics;
use duelhub::pb;
use duelhub_testkit::fixtures::ticket;
use duelhub_testkit::{Backend, TestServer, assert_refused, get, has_tool, is_ready, push, soon};
use tonic::Code;

#[tokio::test]
async fn ready_means_that_a_push_has_reached_its_delivery() {
    let server = TestServer::start().await;
    let admin = server.addresses.admin;
    is_ready(&server).await;
    assert!(get(admin, "/readyz", &[]).await.body.starts_with("ready: push to delivery took"));
    assert_eq!(get(admin, "/healthz", &[]).await.body, "ok\n");
    assert!(get(admin, "/metrics", &[]).await.body.contains("duelhub_ready 1\n"));
    let backend = Backend::connect(&server).await;
    assert_eq!(backend.node().await.counts.unwrap().duels, 0, "the probe's own duel does not show");
    let listed = backend.client.clone().list_duels(pb::ListDuelsRequest::default()).await.unwrap();
    assert!(listed.into_inner().duels.is_empty());
}

#[tokio::test]
async fn metrics_count_what_happened_with_units_in_their_names() {
    let (server, backend) = TestServer::start_with_backend(&[]).await;
    let mut one = backend.player(77, 1).await;
    backend.push(77, "{}").await;
    one.until_events(1).await;
    let reply = get(server.addresses.admin, "/metrics", &[]).await;
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for line in [
        "duelhub_connections 1\n",
        "duelhub_connections_opened_total 1\n",
        "duelhub_pushes_total{kind=\"new\"} 1\n",
        "duelhub_push_duration_seconds_count 1\n",
        "duelhub_deliveries_total 1\n",
        "duelhub_duels 1\n",
        "duelhub_remembered_tickets 1\n",
        "duelhub_rpcs_total{method=\"PushEvent\",code=\"OK\"} 1\n",
        "duelhub_tickets_issued_total{kind=\"grpc\"} 1\n",
        "# TYPE process_cpu_seconds_total counter\n",
        "\nprocess_cpu_seconds_total ",
        "\nprocess_resident_memory_bytes ",
        "\nprocess_open_fds ",
        "\nprocess_max_fds ",
        "\nprocess_start_time_seconds ",
        concat!("duelhub_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\",revision=\""),
    ] {
        assert!(reply.body.contains(line), "{line} is not in\n{}", reply.body);
    }
}

#[tokio::test]
async fn metrics_come_in_the_format_that_is_asked_for_and_pass_the_linter() {
    let server = TestServer::start().await;
    let metrics =
        async |accept| get(server.addresses.admin, "/metrics", &[("Accept", accept)]).await;
    let reply = metrics("application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1").await;
    assert!(reply.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    assert!(reply.body.ends_with("# EOF\n"), "{}", reply.body);
    let reply = metrics("*/*").await;
    assert!(reply.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    // What never happened is there as well, or a rate would miss its first time.
    for limit in [
        "WEBSOCKET_MAX_PENDING_HANDSHAKES",
        "WEBSOCKET_MAX_HANDSHAKES_PER_SECOND",
        "WEBSOCKET_MAX_CONNECTIONS",
        "WEBSOCKET_MAX_CONNECTIONS_PER_ADDRESS",
        "CONTROL_MAX_PUSHES_IN_FLIGHT",
    ] {
        let line = format!("duelhub_limits_reached_total{{kind=\"{limit}\"}} 0\n");
        assert!(reply.body.contains(&line), "{line} is not in\n{}", reply.body);
    }
    for sample in [
        "duelhub_limits_reached_total{kind=\"DISK_ROOM_MIN\"}",
        "duelhub_handshakes_refused_total{reason=\"too_many_connections\"}",
        "duelhub_handshakes_refused_total{reason=\"ticket_already_used\"}",
        "duelhub_connections_closed_total{reason=\"too_slow\"}",
        "duelhub_frames_received_total{kind=\"binary\"}",
    ] {
        assert!(
            reply.body.contains(&format!("{sample} 0\n")),
            "{sample} is not in\n{}",
            reply.body
        );
    }
    if !has_tool("promtool", "the format of the metrics") {
        return;
    }
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut promtool = promtool.stderr(Stdio::piped()).spawn().unwrap();
    promtool.stdin.take().unwrap().write_all(reply.body.as_bytes()).unwrap();
    let checked = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success() && said.is_empty(), "{said}\n{}", reply.body);
}

#[tokio::test]
async fn a_thousand_who_come_at_once_wait_for_a_busy_hub_and_are_not_dropped() {
    // Bound and not running: nobody accepts, so whoever is connected is so by the kernel's queue.
    let (server, _data) = TestServer::bound(&[]).await;
    let address = server.addresses().edge;
    let wait = Duration::from_millis(900);
    let connected = (0..1000).map(|_| std::net::TcpStream::connect_timeout(&address, wait));
    let connected: Result<Vec<_>, _> = connected.collect();
    // A dropped one is tried again by the kernel after a second.
    assert_eq!(connected.unwrap().len(), 1000);
}

#[tokio::test]
async fn a_node_alone_closes_everybody_at_once_and_spreads_their_return() {
    // Of 20 handshakes a second half are for those who come back: one in 100 ms.
    let mut server = TestServer::with(&[
        ("WEBSOCKET_DRAIN_SECONDS", "300"),
        ("WEBSOCKET_MAX_HANDSHAKES_PER_SECOND", "20"),
    ])
    .await;
    let admin = server.addresses.admin;
    let backend = Backend::connect(&server).await;
    let mut players = Vec::new();
    for user in 1..=10 {
        players.push(backend.player(user, user).await);
    }
    let mut watch = watch(&backend).await;
    // The drain is far longer than a test waits.
    server.begin_stop();
    let mut returns = Vec::new();
    for player in &mut players {
        assert_eq!(player.until_closed().await, 1012);
        assert_eq!(player.error["message"], "server_restart");
        returns.push(player.error["retry_after_ms"].as_u64().unwrap());
    }
    returns.sort_unstable();
    // The node's own probe is connected, too, and may have a turn.
    let turns: Vec<_> = (0..=10).map(|nth| 1000 + 100 * nth).collect();
    assert!(returns.iter().all(|after| turns.contains(after)), "{returns:?}");
    assert!(returns.is_sorted_by(|one, next| one < next), "two have the same turn: {returns:?}");
    let ended = loop {
        match soon("the watch ends", watch.message()).await {
            Ok(change) => assert!(change.is_some()),
            Err(ended) => break ended,
        }
    };
    assert_refused(&ended, Code::Unavailable, "SHUTTING_DOWN");
    server.stopped().await;
    for address in [server.addresses.edge, server.addresses.control, admin] {
        assert!(tokio::net::TcpStream::connect(address).await.is_err(), "{address} still listens");
    }
}

async fn watch(backend: &Backend) -> tonic::Streaming<pb::WatchDuelsResponse> {
    let watching = backend.client.clone().watch_duels(pb::WatchDuelsRequest::default()).await;
    let mut watch = watching.unwrap().into_inner();
    while soon("the state", watch.message()).await.unwrap().unwrap().duel_id != 0 {}
    watch
}

#[tokio::test]
async fn a_node_alone_takes_pushes_until_its_clients_are_closed() {
    let mut server = TestServer::start().await;
    let (admin, edge) = (server.addresses.admin, server.addresses.edge);
    let backend = Backend::connect(&server).await;
    let mut player = backend.player(1, 1).await;
    // Never answers the close, so the node waits for it as long as for anybody.
    let _silent = backend.player(2, 2).await;
    is_ready(&server).await;
    let mut watch = watch(&backend).await;
    server.begin_stop();
    assert_eq!(player.until_closed().await, 1012);
    let ready = get(admin, "/readyz", &[]).await;
    assert_eq!((ready.status, ready.body.as_str()), (503, "not ready: the node is stopping\n"));
    assert_eq!(get(admin, "/healthz", &[]).await.status, 200, "it lives until it has stopped");
    assert!(tokio::net::TcpStream::connect(edge).await.is_err());
    // On a new connection.
    Backend::connect(&server).await.push(1, "{}").await;
    for _ in 0..2 {
        let change = soon("both are offline", watch.message()).await.unwrap().unwrap();
        assert!(matches!(change.change, Some(pb::watch_duels_response::Change::UserOffline(_))));
    }
    server.stopped().await;
}

#[tokio::test]
async fn who_is_let_in_while_the_node_stops_is_sent_away_at_once() {
    let config = Config::read(&|_| None).unwrap();
    let engine = Arc::new(MemoryEngine::new(config.engine));
    let hub = Hub::new(engine, config.hub, Arc::new(Metrics::new()));
    hub.readiness().stop();
    hub.drain().await;
    let (attachment, _) = hub.attach(&ticket(7, 1), None).await.unwrap();
    assert!(matches!(attachment.close_request(), Some(CloseRequest::Restart { .. })));
}

#[tokio::test]
async fn pushes_in_flight_at_a_shutdown_are_answered() {
    let (mut server, backend) = TestServer::start_with_backend(&[]).await;
    let (pushes, answers) = tokio::sync::mpsc::channel(64);
    let stream = tokio_stream::wrappers::ReceiverStream::new(answers);
    let mut answered = backend.client.clone().push_events(stream).await.unwrap().into_inner();
    for tag in 1..=50 {
        let push = Some(push(77, "{}"));
        pushes.send(pb::PushEventsRequest { tag, push }).await.unwrap();
    }
    for tag in 1..=50 {
        let answer = soon("an answer", answered.message()).await.unwrap().unwrap();
        assert_eq!(answer.tag, tag);
    }
    server.begin_stop();
    let ended = soon("the stream ends", answered.message()).await.unwrap_err();
    assert_refused(&ended, Code::Unavailable, "SHUTTING_DOWN");
    server.stopped().await;
}
