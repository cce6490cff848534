//! Start, health, metrics, shutdown.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use duelhub::pb;
use duelhub_testkit::{Backend, TestServer, assert_refused, get, has_tool, is_ready, push, soon};
use tokio::time::Instant;
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
        concat!("duelhub_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1\n"),
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
async fn a_shutdown_sends_everybody_away_in_good_order() {
    let mut server = TestServer::with(&[("WEBSOCKET_DRAIN_SECONDS", "1")]).await;
    let admin = server.addresses.admin;
    let backend = Backend::connect(&server).await;
    let mut players = Vec::new();
    for user in 1..=10 {
        players.push(backend.player(user, user).await);
    }
    let watching = backend.client.clone().watch_duels(pb::WatchDuelsRequest::default()).await;
    let mut watch = watching.unwrap().into_inner();
    while soon("the state", watch.message()).await.unwrap().unwrap().duel_id != 0 {}
    let began = Instant::now();
    server.begin_stop();
    let mut away = Vec::new();
    for player in &mut players {
        assert_eq!(player.until_closed().await, 1012);
        assert_eq!(player.error["message"], "server_restart");
        away.push(began.elapsed());
    }
    assert!(away[9] - away[0] >= Duration::from_millis(500), "spread over the drain: {away:?}");
    let ended = soon("the watch ends", watch.message()).await.unwrap_err();
    assert_refused(&ended, Code::Unavailable, "SHUTTING_DOWN");
    server.stopped().await;
    for address in [server.addresses.edge, server.addresses.control, admin] {
        assert!(tokio::net::TcpStream::connect(address).await.is_err(), "{address} still listens");
    }
}

#[tokio::test]
async fn while_it_stops_it_is_not_ready_and_accepts_nobody() {
    let mut server = TestServer::with(&[("WEBSOCKET_DRAIN_SECONDS", "2")]).await;
    let (admin, edge) = (server.addresses.admin, server.addresses.edge);
    let backend = Backend::connect(&server).await;
    let mut first = backend.player(1, 1).await;
    let mut last = backend.player(2, 2).await;
    is_ready(&server).await;
    server.begin_stop();
    assert_eq!(first.until_closed().await, 1012);
    let ready = get(admin, "/readyz", &[]).await;
    assert_eq!((ready.status, ready.body.as_str()), (503, "not ready: the node is stopping\n"));
    assert_eq!(get(admin, "/healthz", &[]).await.status, 200, "it lives until it has stopped");
    assert!(tokio::net::TcpStream::connect(edge).await.is_err());
    assert_eq!(last.until_closed().await, 1012);
    server.stopped().await;
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

#[tokio::test]
async fn the_demo_page_is_served_in_development_alone() {
    let development = TestServer::start().await;
    let page = get(development.addresses.edge, "/demo/", &[]).await;
    assert!(page.status == 200 && page.body.contains("<html"));
    assert_eq!(get(development.addresses.edge, "/demo", &[]).await.status, 308);
    assert_eq!(get(development.addresses.edge, "/demo/src/nothing.js", &[]).await.status, 404);
    let production =
        TestServer::with(&[("APP_ENV", "production"), ("WEBAPP_URL", "https://a.example")]).await;
    assert_eq!(get(production.addresses.edge, "/demo/", &[]).await.status, 404);
}
