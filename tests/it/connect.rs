//! The control plane as a backend without gRPC calls it: the Connect protocol, over HTTP/1.1 in plain bytes, over HTTP/2 and TLS.

use std::net::SocketAddr;

use duelhub::pb;
use duelhub_testkit::{Backend, Reply, TestServer, get, soon, until};
use prost::Message as _;
use serde_json::{Value, json};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::TcpStream;

use crate::calls::Raw;

pub(crate) const TOKEN: &str = "a-token-of-16-bytes-or-more";
pub(crate) const JSON: &str = "application/json";

/// A connection of HTTP/1.1, kept open.
pub(crate) struct Http1<S> {
    pub(crate) stream: BufReader<S>,
    /// What has come of a stream.
    chunked: Vec<u8>,
}

impl<S: AsyncRead> Http1<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream: BufReader::new(stream), chunked: Vec::new() }
    }
}

impl Http1<TcpStream> {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).await.unwrap())
    }
}

/// A request, as it goes over the wire.
pub(crate) fn request(
    method: &str,
    content_type: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Vec<u8> {
    let headers: String =
        headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let head = format!(
        "POST /duelhub.v1.ControlService/{method} HTTP/1.1\r\nHost: hub\r\nContent-Type: {content_type}\r\n\
         Content-Length: {length}\r\n{headers}\r\n"
    );
    [head.as_bytes(), body].concat()
}

impl<S: AsyncRead + AsyncWrite + Unpin> Http1<S> {
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).await.unwrap();
    }

    async fn head(&mut self) -> Reply {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            soon("a line of the head", self.stream.read_line(&mut line)).await.unwrap();
            if line.trim_end().is_empty() {
                break;
            }
            lines.push(line.trim_end().to_owned());
        }
        let status = lines[0].split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines[1..].iter().filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(k, v)| (k.to_lowercase(), v.to_owned())).collect();
        Reply { status, headers, body: String::new() }
    }

    pub(crate) async fn reply(&mut self) -> Reply {
        let mut reply = self.head().await;
        let length = reply.header("content-length").expect("a length").parse().unwrap();
        let mut body = vec![0; length];
        soon("the body", self.stream.read_exact(&mut body)).await.unwrap();
        reply.body = String::from_utf8_lossy(&body).into_owned();
        reply
    }

    pub(crate) async fn call(&mut self, method: &str, body: &Value) -> Reply {
        self.send(&request(method, JSON, &[], body.to_string().as_bytes())).await;
        self.reply().await
    }

    /// Reads so many bytes of a body that comes in chunks. Returns `false` if it has ended.
    async fn read_chunked(&mut self, count: usize) -> bool {
        while self.chunked.len() < count {
            let mut size = String::new();
            soon("a chunk", self.stream.read_line(&mut size)).await.unwrap();
            let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
            let mut chunk = vec![0; size + 2];
            soon("all of it", self.stream.read_exact(&mut chunk)).await.unwrap();
            self.chunked.extend_from_slice(&chunk[..size]);
            if size == 0 {
                return false;
            }
        }
        true
    }

    /// The next message of a stream: its flags, and what it says. `None`: the stream has ended.
    async fn message(&mut self) -> Option<(u8, Value)> {
        if !self.read_chunked(5).await {
            return None;
        }
        let head: Vec<_> = self.chunked.drain(..5).collect();
        let length = u32::from_be_bytes(head[1..].try_into().unwrap()).try_into().unwrap();
        assert!(self.read_chunked(length).await, "half a message");
        let message: Vec<_> = self.chunked.drain(..length).collect();
        Some((head[0], serde_json::from_slice(&message).unwrap()))
    }
}

fn envelope(message: &Value) -> Vec<u8> {
    let message = message.to_string();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &length, message.as_bytes()].concat()
}

/// What an error says: its code, its reason, and the field at fault.
fn error(error: &Value) -> (&str, &str, Option<&str>) {
    let detail = |name: &str| {
        error["details"].as_array().unwrap().iter().find(|detail| detail["type"] == name)
    };
    let info = detail("google.rpc.ErrorInfo").expect("a reason");
    let field = detail("google.rpc.BadRequest");
    let field =
        field.map(|detail| detail["debug"]["fieldViolations"][0]["field"].as_str().unwrap());
    (error["code"].as_str().unwrap(), info["debug"]["reason"].as_str().unwrap(), field)
}

pub(crate) fn assert_error(
    reply: &Reply,
    status: u16,
    code: &str,
    reason: &str,
    field: Option<&str>,
) {
    let json = reply.json();
    assert_eq!((reply.status, error(&json)), (status, (code, reason, field)), "{reply:?}");
    assert_eq!(reply.header("content-type"), Some(JSON));
    let id = &json["details"][0]["debug"]["metadata"]["request_id"];
    assert_eq!(id.as_str(), reply.header("x-request-id"));
}

pub(crate) fn assert_invalid(reply: &Reply, field: Option<&str>) {
    assert_error(reply, 400, "invalid_argument", "INVALID_FIELD", field);
}

#[tokio::test]
async fn a_push_is_one_post() {
    let (server, backend) = TestServer::start_with_backend(&[]).await;
    let mut player = backend.player(77, 1).await;
    let mut http = Http1::connect(server.addresses.control).await;
    let payload = json!({"question": "Wer?", "round": 3, "share": 0.5, "options": ["a", null]});
    let reply = http.call("PushEvent", &json!({"duelId": 77, "payload": payload})).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some(JSON)));
    let pushed = reply.json();
    assert_eq!((&pushed["position"]["seq"], &pushed["connections"]), (&json!("1"), &json!(1)));
    // What is not set is written, too.
    assert_eq!((&pushed["duplicate"], &pushed["declared"]), (&json!(false), &json!(false)));
    player.until_events(1).await;
    let event = &player.events[0];
    assert_eq!(event["payload"]["question"], "Wer?");
    assert_eq!(event["payload"]["duel_id"], 77);
    assert_eq!((&event["payload"]["round"], &event["payload"]["share"]), (&json!(3), &json!(0.5)));
    // A driver's text for a number, the names of the proto, and a payload as text.
    let again = json!({"duel_id": "77", "payload_json": "{\"a\": 1.50}", "idempotency_key": "k",
                       "audience": {"only": {"user_ids": ["1"]}}});
    for duplicate in [false, true] {
        let reply = http.call("PushEvent", &again).await.json();
        assert_eq!(
            (&reply["position"]["seq"], &reply["duplicate"]),
            (&json!("2"), &json!(duplicate))
        );
    }
    player.until_events(2).await;
    assert_eq!(player.events[1]["payload"]["a"], 1.5);
    let views = json!([{"userId": 1, "payload": {"own": true}}]);
    http.call("PushEvent", &json!({"duelId": 77, "views": views, "type": "x"})).await;
    player.until_events(3).await;
    let event = &player.events[2];
    assert_eq!((&event["type"], &event["payload"]["own"]), (&json!("x"), &json!(true)));
    let last = json!({"payload": {"winner": 1}});
    let close = json!({"duelId": 77, "status": "DUEL_STATUS_FINISHED", "lastEvent": last});
    assert_eq!(http.call("CloseDuel", &close).await.status, 200);
    player.until_events(4).await;
    assert_eq!(player.events[3]["payload"]["winner"], 1);
}

#[tokio::test]
async fn every_call_is_offered_in_json_and_in_protobuf_over_both_versions_of_http() {
    let (server, backend) = TestServer::start_with_backend(&[]).await;
    let mut http = Http1::connect(server.addresses.control).await;
    let raw = Raw::connect(server.addresses.control).await;
    let participants = json!([{"userId": 1, "telegramId": "1001"}, {"userId": 2}]);
    let settings = json!({"presenceGrace": "1.5s"});
    let calls = [
        ("OpenDuel", json!({"duelId": 5, "participants": participants, "settings": settings})),
        ("IssueTicket", json!({"duelId": 5, "userId": 1, "role": "ROLE_PLAYER", "ttl": "60s"})),
        ("RevokeTickets", json!({"user": {"duelId": 5, "userId": 1}})),
        ("PushEvent", json!({"duelId": 5})),
        ("GetDuel", json!({"duelId": 5})),
        ("ListDuels", json!({"pageSize": 10})),
        ("Disconnect", json!({"duelId": 5, "reconnect": true})),
        ("CloseDuel", json!({"duelId": 5, "status": "DUEL_STATUS_CANCELLED"})),
        ("GetNode", json!({})),
    ];
    for (method, body) in &calls {
        let reply = http.call(method, body).await;
        assert_eq!(reply.status, 200, "{method}: {reply:?}");
        let call =
            raw.begin("POST", method, &[("content-type", "application/json; charset=utf-8")]);
        let answer = call.exchange_bytes(body.to_string().into()).await;
        let as_http2: Value = serde_json::from_slice(&answer.body).unwrap();
        if !matches!(*method, "PushEvent" | "OpenDuel" | "IssueTicket") {
            let without_time = |mut answer: Value| {
                let fields = answer.as_object_mut().unwrap();
                fields.retain(|name, _| !["uptime", "duplicate"].contains(&name.as_str()));
                answer
            };
            assert_eq!(without_time(as_http2), without_time(reply.json()), "{method}");
        }
    }
    let get_duel = pb::GetDuelRequest { duel_id: 5 }.encode_to_vec();
    http.send(&request("GetDuel", "application/proto", &[], &get_duel)).await;
    let reply = http.head().await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/proto")));
    let mut body = vec![0; reply.header("content-length").unwrap().parse().unwrap()];
    http.stream.read_exact(&mut body).await.unwrap();
    let call = raw.begin("POST", "GetDuel", &[("content-type", "application/proto")]);
    let answer = call.exchange_bytes(get_duel.into()).await;
    for body in [body, answer.body] {
        let duel = pb::GetDuelResponse::decode(&*body).unwrap().duel.unwrap();
        assert_eq!(duel, backend.duel(5).await);
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told_by_the_fields_path() {
    let (server, backend) = TestServer::start_with_backend(&[]).await;
    let mut http = Http1::connect(server.addresses.control).await;
    let deep = (0..30).fold(json!(1), |inner, _| json!([inner]));
    let many: Vec<u32> = vec![1; 5000];
    let table = [
        (json!({"duelId": "x"}), Some("duel_id")),
        (json!({"duelId": 1.5}), Some("duel_id")),
        (json!({"duelId": -1}), Some("duel_id")),
        (json!({"duelId": 0}), Some("duel_id")),
        (json!({"duelId": 77, "typ": "x"}), Some("typ")),
        (json!({"duelId": 77, "type": 5}), Some("type")),
        (json!({"duelId": 77, "payload": []}), Some("payload")),
        (json!({"duelId": 77, "payload": "{}"}), Some("payload")),
        (json!({"duelId": 77, "payload": {"duel_id": "77"}}), Some("payload")),
        (json!({"duelId": 77, "payload": {"a": deep}}), Some("payload")),
        (json!({"duelId": 77, "payload": {"a": many}}), Some("payload")),
        (json!({"duelId": 77, "payload": {}, "payloadJson": "{}"}), Some("payload")),
        (json!({"duelId": 77, "payloadJson": {"a": 1}}), Some("payload_json")),
        (json!({"duelId": 77, "payloadJson": "[]"}), Some("payload_json")),
        (json!({"duelId": 77, "audience": []}), Some("audience")),
        (json!({"duelId": 77, "audience": {"players": "yes"}}), Some("audience.players")),
        (
            json!({"duelId": 77, "audience": {"only": {"userIds": [1, {}]}}}),
            Some("audience.only.user_ids[1]"),
        ),
        (
            json!({"duelId": 77, "audience": {"only": {"userIds": 1}}}),
            Some("audience.only.user_ids"),
        ),
        (json!({"duelId": 77, "audience": {"players": true, "only": {}}}), Some("audience.to")),
        (
            json!({"duelId": 77, "views": [{"userId": 1, "payload": {}, "extra": 1}]}),
            Some("views[0].extra"),
        ),
        (json!([]), None),
        (json!("text"), None),
        (json!(null), None),
    ];
    for (body, field) in table {
        let reply = http.call("PushEvent", &body).await;
        assert!(reply.status == 400, "{body} {reply:?}");
        assert_invalid(&reply, field);
    }
    let role = http.call("IssueTicket", &json!({"duelId": 77, "userId": 1, "role": "KING"})).await;
    assert_invalid(&role, Some("role"));
    assert!(role.json()["message"].as_str().unwrap().contains("ROLE_SPECTATOR"), "{role:?}");
    let ttl = http.call("IssueTicket", &json!({"duelId": 77, "userId": 1, "ttl": 60})).await;
    assert_invalid(&ttl, Some("ttl"));
    let deepest = format!("{{\"a\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
    let widest = format!("{{\"views\":[{}{{}}]}}", "{},".repeat(100_000));
    for body in ["", "{", "{}{}", "{\"duelId\":77,}", "\u{feff}{}", "{'a':1}", &deepest, &widest] {
        http.send(&request("PushEvent", JSON, &[], body.as_bytes())).await;
        assert_invalid(&http.reply().await, None);
    }
    http.send(&request("PushEvent", JSON, &[], b"{\"type\":\"\xff\"}")).await;
    assert_invalid(&http.reply().await, None);
    assert_eq!(backend.push(77, "{}").await, 1, "none of them took effect");
}

#[tokio::test]
async fn errors_have_the_status_of_http_and_are_counted_and_logged_like_any() {
    let server = TestServer::with(&[("CONTROL_TOKEN", TOKEN)]).await;
    let backend = Backend::with_token(&server, TOKEN);
    let mut http = Http1::connect(server.addresses.control).await;
    let bearer = format!("bearer {TOKEN}");
    let call =
        async |http: &mut Http1<TcpStream>, method: &str, headers: &[(&str, &str)], body: Value| {
            let headers = [&[("Authorization", &*bearer)], headers].concat();
            http.send(&request(method, JSON, &headers, body.to_string().as_bytes())).await;
            http.reply().await
        };
    let stranger = http.call("GetNode", &json!({})).await;
    assert_error(&stranger, 401, "unauthenticated", "UNAUTHENTICATED", None);
    assert_eq!(stranger.header("www-authenticate"), Some("Bearer"));
    let id = [("X-Request-Id", "my-own")];
    let unknown = call(&mut http, "GetDuel", &id, json!({"duelId": 9})).await;
    assert_error(&unknown, 404, "not_found", "DUEL_UNKNOWN", None);
    assert_eq!(unknown.header("x-request-id"), Some("my-own"));
    let first = json!({"duelId": 9, "idempotencyKey": "k"});
    assert_eq!(call(&mut http, "PushEvent", &[], first).await.status, 200);
    let other = json!({"duelId": 9, "idempotencyKey": "k", "payload": {"b": 1}});
    let reused = call(&mut http, "PushEvent", &[], other).await;
    assert_error(&reused, 409, "already_exists", "IDEMPOTENCY_KEY_REUSED", None);
    backend.close(9).await;
    let closed = call(&mut http, "PushEvent", &[], json!({"duelId": 9})).await;
    assert_error(&closed, 400, "failed_precondition", "DUEL_CLOSED", None);
    let late =
        call(&mut http, "PushEvent", &[("Connect-Timeout-Ms", "0")], json!({"duelId": 8})).await;
    assert_error(&late, 504, "deadline_exceeded", "DEADLINE_EXCEEDED", None);
    let metadata = &late.json()["details"][0]["debug"]["metadata"]["may_have_taken_effect"];
    assert_eq!(metadata, "false");
    let timeout = [("Connect-Timeout-Ms", "1s")];
    let malformed = call(&mut http, "GetNode", &timeout, json!({})).await;
    assert_invalid(&malformed, Some("connect-timeout-ms"));
    let version = call(&mut http, "GetNode", &[("Connect-Protocol-Version", "2")], json!({})).await;
    assert_invalid(&version, Some("connect-protocol-version"));
    let headers = [("Connect-Protocol-Version", "1"), ("Connect-Timeout-Ms", "60000")];
    assert_eq!(call(&mut http, "GetNode", &headers, json!({})).await.status, 200);
    let gzip = call(&mut http, "GetNode", &[("Content-Encoding", "gzip")], json!({})).await;
    assert_error(&gzip, 501, "unimplemented", "COMPRESSION_UNSUPPORTED", None);
    assert_eq!(gzip.header("accept-encoding"), Some("identity"));
    for (method, code, count) in
        [("PushEvent", "ALREADY_EXISTS", 1), ("PushEvent", "OK", 1), ("GetDuel", "NOT_FOUND", 1)]
    {
        let line = format!("duelhub_rpcs_total{{method=\"{method}\",code=\"{code}\"}} {count}\n");
        until(&line, async || {
            get(server.addresses.admin, "/metrics", &[]).await.body.contains(&line)
        })
        .await;
    }
}

#[tokio::test]
async fn whatever_is_no_call_is_told_how_to_call() {
    let server = TestServer::start().await;
    let mut http = Http1::connect(server.addresses.control).await;
    for request in
        ["GET / HTTP/1.1", "GET /metrics HTTP/1.1", "POST /duelhub.v1.ControlService/Nope HTTP/1.1"]
    {
        http.send(
            format!("{request}\r\nHost: hub\r\nContent-Type: {JSON}\r\nContent-Length: 0\r\n\r\n")
                .as_bytes(),
        )
        .await;
        assert_error(&http.reply().await, 404, "unimplemented", "UNKNOWN_METHOD", None);
    }
    for verb in ["GET", "PUT", "DELETE", "OPTIONS"] {
        let path = "/duelhub.v1.ControlService/PushEvent";
        http.send(format!("{verb} {path} HTTP/1.1\r\nHost: hub\r\n\r\n").as_bytes()).await;
        let reply = http.reply().await;
        assert_error(&reply, 405, "unknown", "METHOD_NOT_ALLOWED", None);
        assert_eq!(reply.header("allow"), Some("POST"));
    }
    for (method, content_type, accepted) in [
        ("PushEvent", "text/plain", "application/json, application/proto, application/grpc"),
        (
            "PushEvent",
            "application/connect+json",
            "application/json, application/proto, application/grpc",
        ),
        (
            "PushEvent",
            "application/x-www-form-urlencoded",
            "application/json, application/proto, application/grpc",
        ),
        (
            "WatchDuels",
            JSON,
            "application/connect+json, application/connect+proto, application/grpc",
        ),
        ("PushEvents", JSON, "application/grpc"),
    ] {
        http.send(&request(method, content_type, &[], b"{}")).await;
        let reply = http.reply().await;
        assert_error(&reply, 415, "unknown", "CONTENT_TYPE_UNSUPPORTED", None);
        assert_eq!(reply.header("accept-post"), Some(accepted));
        assert!(reply.json()["message"].as_str().unwrap().ends_with(accepted), "{reply:?}");
    }
    // A page that was led to this port by its host's name.
    http.send(&request("GetNode", JSON, &[("Origin", "http://evil.example")], b"{}")).await;
    assert_error(&http.reply().await, 403, "permission_denied", "BROWSER_REFUSED", None);
    http.send(&request("GetNode", "application/grpc", &[], b"\0\0\0\0\0")).await;
    assert_error(&http.reply().await, 505, "unknown", "HTTP_VERSION_UNSUPPORTED", None);
    // The connection is as good as before.
    assert_eq!(http.call("GetNode", &json!({})).await.status, 200);
    let health = "POST /grpc.health.v1.Health/Check HTTP/1.1\r\nHost: hub\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    soon("it serves", async {
        loop {
            http.send(health.as_bytes()).await;
            if http.reply().await.json()["status"] == "SERVING" {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_watch_is_a_stream_over_http_1_too() {
    let (mut server, backend) = TestServer::start_with_backend(&[]).await;
    backend.push(77, "{}").await;
    let mut http = Http1::connect(server.addresses.control).await;
    let stream = "application/connect+json";
    http.send(&request("WatchDuels", stream, &[], &envelope(&json!({"duelIds": [77]})))).await;
    let head = http.head().await;
    assert_eq!((head.status, head.header("content-type")), (200, Some(stream)));
    let (flags, opened) = http.message().await.unwrap();
    assert_eq!((flags, &opened["opened"]["position"]["seq"]), (0, &json!("1")));
    let (_, synced) = http.message().await.unwrap();
    assert_eq!(synced["synced"]["duels"], "1");
    let player = backend.player(77, 5).await;
    let (_, online) = http.message().await.unwrap();
    assert_eq!((&online["initial"], &online["userOnline"]["userId"]), (&json!(false), &json!("5")));
    drop(player);
    server.begin_stop();
    let (flags, end) = loop {
        let message = http.message().await.unwrap();
        if message.0 != 0 {
            break message;
        }
    };
    assert_eq!((flags, error(&end["error"]).1), (2, "SHUTTING_DOWN"));
    assert_eq!(http.message().await, None);
    server.stopped().await;
}

#[tokio::test]
async fn a_stream_that_fails_says_so_in_its_last_message() {
    let server = TestServer::start().await;
    let mut http = Http1::connect(server.addresses.control).await;
    let too_many: Vec<u32> = (1..=1001).collect();
    let message = envelope(&json!({"duelIds": too_many}));
    let bad = |bytes: &[u8]| bytes.to_vec();
    for (body, reason) in [
        (message, "INVALID_FIELD"),
        (bad(b""), "NOT_ONE_MESSAGE"),
        (bad(b"\0\0\0\0\x02{"), "NOT_ONE_MESSAGE"),
        (bad(b"\0\0\0\0\x02{}\0\0\0\0\x02{}"), "NOT_ONE_MESSAGE"),
        (bad(b"\x01\0\0\0\x02{}"), "COMPRESSION_UNSUPPORTED"),
        (envelope(&json!({"duels": []})), "INVALID_FIELD"),
    ] {
        http.send(&request("WatchDuels", "application/connect+json", &[], &body)).await;
        let reply = http.reply().await;
        assert_eq!((reply.status, reply.body.as_bytes()[0]), (200, 2), "{reply:?}");
        let end: Value = serde_json::from_str(&reply.body[5..]).unwrap();
        assert_eq!(error(&end["error"]).1, reason, "{reply:?}");
    }
    http.send(&request("PushEvents", "application/connect+json", &[], &envelope(&json!({})))).await;
    let end: Value = serde_json::from_str(&http.reply().await.body[5..]).unwrap();
    assert_eq!(error(&end["error"]).1, "GRPC_ONLY");
}
