//! The operators' console: what it shows, to whom, and what it keeps to itself.

use std::net::SocketAddr;
use std::time::Duration;

use duelhub::pb;
use duelhub_testkit::{Backend, Reply, TestServer, exchange, get, is_ready, push, until};
use serde_json::{Value, json};

const TOKEN: &str = "the-control-token-of-the-console";
const PRODUCTION: [(&str, &str); 2] =
    [("APP_ENV", "production"), ("WEBAPP_URL", "https://a.example")];

/// `GET path` as a browser says it, with these header lines besides.
async fn visit(admin: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Reply {
    let headers: String =
        headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    exchange(admin, &format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\n{headers}\r\n")).await
}

async fn ask(server: &TestServer, call: &str) -> Value {
    let reply = visit(server.addresses.admin, &format!("/console/api/{call}"), &[]).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/json"));
    reply.json()
}

#[tokio::test]
async fn the_page_comes_with_all_its_files_and_may_load_nothing_else() {
    let server = TestServer::with(&PRODUCTION).await;
    let admin = server.addresses.admin;
    for path in ["/", "/console"] {
        let reply = visit(admin, path, &[]).await;
        assert_eq!((reply.status, reply.header("location")), (307, Some("/console/")), "{path}");
    }
    let page = visit(admin, "/console/", &[("Sec-Fetch-Site", "none")]).await;
    assert!(page.status == 200 && page.body.contains("<html lang=\"en\""), "{page:?}");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
    ] {
        assert_eq!(page.header(name), Some(value));
    }
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"));
    assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");

    let mut wanted: Vec<_> = linked(&page.body, "\"./").collect();
    assert!(wanted.len() > 4, "{wanted:?}");
    let mut seen = 0;
    while seen < wanted.len() {
        let file = visit(admin, &format!("/console/{}", wanted[seen]), &[]).await;
        assert_eq!(file.status, 200, "{}", wanted[seen]);
        if wanted[seen].ends_with(".js") {
            assert!(file.header("content-type").unwrap().starts_with("text/javascript"));
            wanted.extend(linked(&file.body, "'./"));
        }
        wanted.dedup();
        seen += 1;
    }
    let nothing = visit(admin, "/console/nothing.js", &[]).await;
    assert_eq!(nothing.status, 404);
    assert!(nothing.header("content-security-policy").is_some(), "on refusals as well");
}

/// The files that a text names behind `begin`, up to the quote that begins it.
fn linked(text: &str, begin: &'static str) -> impl Iterator<Item = String> + use<> {
    let quote = begin.chars().next().unwrap();
    let names = text.split(begin).skip(1).map(move |rest| rest.split(quote).next().unwrap());
    names.map(str::to_owned).collect::<Vec<_>>().into_iter()
}

#[tokio::test]
async fn every_reason_and_every_limit_has_words_for_people() {
    let server = TestServer::start().await;
    let admin = server.addresses.admin;
    let metrics = get(admin, "/metrics", &[]).await.body;
    let words = visit(admin, "/console/words.js", &[]).await.body;
    let mut checked = 0;
    for family in [
        "connections_closed",
        "handshakes_refused",
        "limits_reached",
        "control_connections_closed",
        "ticket_api_answers",
    ] {
        let name = format!("duelhub_{family}_total{{");
        for line in metrics.lines().filter_map(|line| line.strip_prefix(&name)) {
            let word = line.split('"').nth(1).unwrap();
            assert!(words.contains(&format!("  {word}: '")), "{family}: words.js lacks {word}");
            checked += 1;
        }
    }
    assert!(checked > 40, "{checked}");
}

#[tokio::test]
async fn the_node_tells_its_numbers_and_what_is_in_the_way_of_its_readiness() {
    let mut server = TestServer::start().await;
    let backend = Backend::connect(&server).await;
    let _player = backend.player(77, 1).await;
    backend.push(77, "{}").await;
    is_ready(&server).await;
    let node = ask(&server, "node").await;
    assert_eq!(node["health"]["state"], "ready");
    assert!(node["health"]["probe_ms"].as_f64().unwrap() > 0.0);
    assert_eq!((&node["engine"], &node["production"]), (&json!("embedded"), &json!(false)));
    assert_eq!(node["version"], env!("CARGO_PKG_VERSION"));
    let samples = &node["samples"];
    assert_eq!(samples["duelhub_connections"], 1);
    assert_eq!(samples["duelhub_pushes_total{kind=\"new\"}"], 1);
    assert_eq!(samples["duelhub_push_duration_seconds_bucket{le=\"+Inf\"}"], 1);
    assert_eq!(samples["duelhub_connections_closed_total{reason=\"lost\"}"], 0);
    assert!(samples["process_resident_memory_bytes"].as_u64().unwrap() > 1 << 20);
    let later = ask(&server, "node").await;
    assert!(later["uptime_ms"].as_f64() > node["uptime_ms"].as_f64());

    // It has to wait for a player who never answers the close, and tells what it does meanwhile.
    server.begin_stop();
    until("it is stopping", async || {
        ask(&server, "node").await["health"] == json!({"state": "stopping"})
    })
    .await;
}

#[tokio::test]
async fn many_duels_come_in_pages_and_those_with_somebody_in_them_alone() {
    let (server, backend) = TestServer::start_with_backend(&[("ENGINE", "memory")]).await;
    for duel in 1..=120 {
        backend.push(duel, "{}").await;
    }
    let mut players = Vec::new();
    for (duel, user) in [(7, 1), (7, 2), (90, 3)] {
        players.push(backend.player(duel, user).await);
    }
    backend.close(8).await;
    let mut pages = Vec::new();
    let mut after = String::new();
    loop {
        let page = ask(&server, &format!("duels{after}")).await;
        let ids = page["duels"].as_array().unwrap().iter().map(|row| row["duel"].as_u64().unwrap());
        pages.push(ids.collect::<Vec<_>>());
        let Some(next) = page["next"].as_u64() else { break };
        after = format!("?after={next}");
    }
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [50, 50, 20]);
    assert!(pages.concat().into_iter().eq(1..=120), "each once, in order");

    let live = ask(&server, "duels?live=true").await;
    let rows = live["duels"].as_array().unwrap();
    assert_eq!(rows.iter().map(|row| &row["duel"]).collect::<Vec<_>>(), [7, 90]);
    assert_eq!((&rows[0]["online"], &rows[0]["connections"]), (&json!(2), &json!(2)));
    assert_eq!(rows[0]["users"][1], json!({"user": 2, "role": "player"}));
    assert_eq!(rows[0]["position"]["seq"], 1);
    assert_eq!(ask(&server, "duels?live=true&after=7").await["duels"][0]["duel"], 90);
    let finished = ask(&server, "duels?status=finished").await;
    assert_eq!(finished["duels"][0]["duel"], 8);
    assert_eq!(finished["duels"][0]["status"], "finished");
    assert_eq!(finished["duels"].as_array().unwrap().len(), 1);
}

fn seqs(duel: &Value) -> Vec<u64> {
    let events = duel["events"].as_array().unwrap().iter();
    events.map(|event| event["seq"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn a_duels_log_is_followed_from_its_newest_events_to_its_end() {
    let (server, backend) = TestServer::start_with_backend(&[]).await;
    backend.open(77, &[1, 2]).await;
    for nth in 1..=60 {
        backend.push(77, &format!("{{\"nth\":{nth}}}")).await;
    }
    let mut player = backend.player(77, 1).await;
    player.ack(60).await;
    until("the ack is there", async || {
        ask(&server, "duel?id=77").await["online"][0]["acked_seq"] == 60
    })
    .await;
    let duel = ask(&server, "duel?id=77").await;
    assert_eq!(seqs(&duel), (11..=60).collect::<Vec<_>>(), "the newest 50");
    assert_eq!(duel["participants"], json!([1, 2]));
    assert_eq!(duel["online"][0]["user"], 1);
    let event = &duel["events"][0];
    assert_eq!(event["type"], "duel_update");
    assert_eq!(event["audience"], json!({"kind": "all"}));
    assert!(event["bytes"].as_u64().unwrap() > 20 && event["at_ms"].as_u64().unwrap() > 0);

    let position = format!("{}:60", duel["position"]["epoch"].as_str().unwrap());
    let poll = format!("duel?id=77&after={position}");
    assert!(seqs(&ask(&server, &poll).await).is_empty(), "nothing new");
    backend.push(77, "{}").await;
    backend.close(77).await;
    let grown = ask(&server, &poll).await;
    assert_eq!(seqs(&grown), [61, 62]);
    assert_eq!(grown["events"][1]["end"], "finished");
    let elsewhere = ask(&server, "duel?id=77&after=0123456789abcdef:61").await;
    assert_eq!(seqs(&elsewhere).len(), 50, "of another epoch: the newest");
    for (call, status) in [
        ("duel?id=78", 404),
        ("duel?id=0", 400),
        ("duel?id=9007199254740992", 400),
        ("duel", 400),
        ("duel?id=77&after=x", 400),
        ("duels?status=strange", 400),
        ("duels?after=x", 400),
        ("nothing", 404),
    ] {
        let reply = visit(server.addresses.admin, &format!("/console/api/{call}"), &[]).await;
        assert_eq!(reply.status, status, "{call}");
        assert!(reply.json()["error"].is_string(), "{call}");
    }
}

/// A push with a view of its own for user 1.
fn secret_push(duel: u64) -> pb::PushEventRequest {
    let payload_json = r#"{"own":"answer-of-one"}"#.to_owned();
    let view = pb::View { user_id: 1, payload_json, payload: None };
    pb::PushEventRequest { views: vec![view], ..push(duel, r#"{"hidden":"answer-of-all"}"#) }
}

#[tokio::test]
async fn payloads_and_views_are_sent_in_development_alone() {
    let (server, backend) = TestServer::start_with_backend(&[]).await;
    backend.push_event(secret_push(77)).await;
    let event = ask(&server, "duel?id=77").await["events"][0].clone();
    assert_eq!(event["payload"]["text"], r#"{"duel_id":77,"hidden":"answer-of-all"}"#);
    assert_eq!(event["views"][0]["user"], 1);
    assert_eq!(event["views"][0]["payload"]["text"], r#"{"duel_id":77,"own":"answer-of-one"}"#);

    let (server, backend) = TestServer::start_with_backend(&PRODUCTION).await;
    backend.push_event(secret_push(77)).await;
    let reply = visit(server.addresses.admin, "/console/api/duel?id=77", &[]).await;
    assert_eq!(reply.json()["events"][0]["seq"], 1);
    for hidden in ["answer-of", "hidden", "views", "payload"] {
        assert!(!reply.body.contains(hidden), "{}", reply.body);
    }
    assert_eq!(ask(&server, "node").await["production"], true);
}

#[tokio::test]
async fn an_answer_is_bounded_however_large_the_payloads_are() {
    let (server, backend) = TestServer::start_with_backend(&[]).await;
    let text = "\\\"".repeat(20_000);
    for _ in 0..50 {
        backend.push(77, &format!("{{\"text\":\"{text}\"}}")).await;
    }
    let reply = visit(server.addresses.admin, "/console/api/duel?id=77", &[]).await;
    assert!(reply.body.len() < 400_000, "{}", reply.body.len());
    let duel = reply.json();
    assert!(duel["events"][0]["payload"]["bytes"].as_u64().unwrap() > 40_000);
    assert_eq!(duel["events"][0]["payload"]["text"].as_str().unwrap().len(), 4096);
}

#[tokio::test]
async fn pages_of_strangers_read_nothing_whichever_way_they_come() {
    let server = TestServer::start().await;
    let admin = server.addresses.admin;
    let own = format!("http://{admin}");
    let refused = async |request: String| {
        let reply = exchange(admin, &request).await;
        assert_eq!(reply.status, 403, "{request}");
        assert!(reply.json()["error"].is_string());
        assert!(reply.header("content-security-policy").is_some());
    };
    for path in ["/console/", "/console/api/node", "/console/main.js", "/", "/console"] {
        for host in ["evil.example", "127.0.0.1.evil.example:80", "localhost.evil.example", "", "["]
        {
            refused(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        }
        refused(format!("GET {path} HTTP/1.0\r\n\r\n")).await;
        refused(format!("GET http://evil.example{path} HTTP/1.1\r\nHost: {admin}\r\n\r\n")).await;
        for header in [
            "Origin: https://evil.example",
            "Origin: null",
            "Origin: http://127.0.0.1:1",
            "Sec-Fetch-Site: cross-site",
            "Sec-Fetch-Site: same-site",
        ] {
            refused(format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\n{header}\r\n\r\n")).await;
        }
    }
    let link = [("Sec-Fetch-Site", "same-site"), ("Sec-Fetch-Mode", "navigate")];
    assert_eq!(visit(admin, "/console/", &link).await.status, 200, "a link of the demo page");
    let link = [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate")];
    assert_eq!(visit(admin, "/console/", &link).await.status, 403);
    let own = [("Origin", own.as_str()), ("Sec-Fetch-Site", "same-origin")];
    assert_eq!(visit(admin, "/console/api/node", &own).await.status, 200);
    for host in ["localhost", "LOCALHOST:1234", "[::1]:8091", "192.0.2.1"] {
        let request = format!("GET /console/api/node HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(exchange(admin, &request).await.status, 200, "{host}: as a tunnel may have it");
    }
    for path in ["/healthz", "/metrics"] {
        assert_eq!(get(admin, path, &[]).await.status, 200, "monitoring may use a name");
    }
    let posted = format!("POST /console/api/node HTTP/1.1\r\nHost: {admin}\r\n\r\n");
    assert_eq!(exchange(admin, &posted).await.status, 405, "it changes nothing");
}

#[tokio::test]
async fn beyond_loopback_the_console_needs_the_control_token() {
    let server = TestServer::with(&[("ADMIN_HOST", "0.0.0.0"), ("CONTROL_TOKEN", TOKEN)]).await;
    let admin = SocketAddr::from(([127, 0, 0, 1], server.addresses.admin.port()));
    assert_eq!(visit(admin, "/console/", &[]).await.status, 200, "the page itself has no secrets");
    let bearer = |token: &str| format!("Bearer {token}");
    for call in ["node", "duels", "duel?id=1"] {
        let path = format!("/console/api/{call}");
        let wrong = [&TOKEN[1..], "", &TOKEN.to_uppercase()].map(bearer);
        for authorization in &wrong {
            let reply = visit(admin, &path, &[("Authorization", authorization)]).await;
            assert_eq!(reply.status, 401, "{call}");
        }
        let reply = visit(admin, &path, &[]).await;
        assert_eq!((reply.status, reply.header("www-authenticate")), (401, Some("Bearer")));
        assert!(reply.json()["error"].is_string());
    }
    let right = bearer(TOKEN);
    let reply = visit(admin, "/console/api/node", &[("Authorization", &right)]).await;
    assert_eq!(reply.status, 200);

    let server = TestServer::with(&[("ADMIN_HOST", "0.0.0.0")]).await;
    let admin = SocketAddr::from(([127, 0, 0, 1], server.addresses.admin.port()));
    for authorization in ["", "Bearer ", "Bearer x"] {
        let reply = visit(admin, "/console/api/node", &[("Authorization", authorization)]).await;
        assert_eq!(reply.status, 403, "there is no token to show");
    }
}

#[tokio::test]
async fn the_page_loads_through_as_few_places_as_the_listener_may_have() {
    let server = TestServer::tuned(&[], |config| config.admin.connections_max = 16).await;
    let admin = server.addresses.admin;
    let page = visit(admin, "/console/", &[]).await;
    // A browser has at most six connections to one address; two operators look at once.
    let files: Vec<_> = linked(&page.body, "\"./").chain([String::from("api/node")]).collect();
    for _ in 0..5 {
        let loads = [&files, &files].map(|files| async move {
            for chunk in files.chunks(6) {
                let paths: Vec<_> = chunk.iter().map(|file| format!("/console/{file}")).collect();
                let replies = paths.iter().map(|path| visit(admin, path, &[]));
                for reply in futures_util::future::join_all(replies).await {
                    assert_eq!(reply.status, 200);
                }
            }
        });
        tokio::time::timeout(Duration::from_secs(10), futures_util::future::join_all(loads))
            .await
            .unwrap();
    }
    let metrics = get(admin, "/metrics", &[]).await.body;
    assert!(metrics.contains("duelhub_admin_connections_crowded_out_total 0\n"));
}
