//! Calls as no well-behaved client makes them: frame by frame over HTTP/2. Deadlines, callers who go away, content types, peers who
//! fall silent, and what the log and the metrics say of each.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use duelhub::pb;
use duelhub_testkit::redis_server::{self, RedisServer};
use duelhub_testkit::{HowToEnd, Hub, Site, TestServer, error_info, get, push, soon, until};
use futures_util::future::join_all;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use prost::Message as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tonic::codegen::http::{HeaderMap, Request, StatusCode};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// How long a stop may take that waits for nobody. Far below the 10 s that calls under way are given.
const STOP: Duration = Duration::from_secs(5);

/// A connection that sends what a test says.
pub(crate) struct Raw {
    address: SocketAddr,
    requests: SendRequest<Bytes>,
    _connection: AbortOnDropHandle<()>,
}

/// A call of which the request may not be complete.
pub(crate) struct Open {
    request: SendStream<Bytes>,
    response: ResponseFuture,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    http: StatusCode,
    headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// Of the trailers, or of the head if there was nothing else.
    status: Option<Status>,
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (requests, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = AbortOnDropHandle::new(tokio::spawn(async {
            let _ended = connection.await;
        }));
        Self { address, requests, _connection: connection }
    }

    /// Begins a call with these headers, which may be any.
    pub(crate) fn begin(&self, verb: &str, method: &str, headers: &[(&str, &str)]) -> Open {
        let path = format!("http://{}/duelhub.v1.ControlService/{method}", self.address);
        let mut request = Request::builder().method(verb).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        let (response, request) = self.requests.clone().send_request(request, false).unwrap();
        Open { request, response }
    }

    /// Begins a call of gRPC.
    fn grpc(&self, method: &str, headers: &[(&str, &str)]) -> Open {
        let all = [&[("content-type", "application/grpc"), ("te", "trailers")], headers].concat();
        self.begin("POST", method, &all)
    }
}

/// As gRPC frames a message that is not compressed.
pub(crate) fn framed(message: &impl prost::Message) -> Bytes {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &length, &message].concat().into()
}

impl Open {
    fn send(&mut self, bytes: Bytes, end: bool) {
        self.request.send_data(bytes, end).unwrap();
    }

    /// Sends one whole message, and reads the whole answer.
    async fn exchange(self, message: &impl prost::Message) -> Answer {
        self.exchange_bytes(framed(message)).await
    }

    /// Sends a whole body, and reads the whole answer.
    pub(crate) async fn exchange_bytes(mut self, body: Bytes) -> Answer {
        self.send(body, true);
        self.answer().await
    }

    async fn answer(self) -> Answer {
        let (parts, body) = soon("an answer", self.response).await.unwrap().into_parts();
        let (body, trailers) = soon("the end of the answer", read(body)).await;
        let status = Status::from_header_map(trailers.as_ref().unwrap_or(&parts.headers));
        Answer { http: parts.status, headers: parts.headers, body, status }
    }
}

async fn read(mut body: RecvStream) -> (Vec<u8>, Option<HeaderMap>) {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        bytes.extend_from_slice(&data);
    }
    (bytes, body.trailers().await.unwrap())
}

impl Answer {
    fn failed(&self) -> &Status {
        self.status.as_ref().filter(|status| status.code() != Code::Ok).expect("it failed")
    }

    fn request_id(&self) -> &str {
        self.headers["x-request-id"].to_str().unwrap()
    }

    /// It says that its deadline has passed, and whether it may have taken effect.
    fn assert_deadline_exceeded(&self, may_have_taken_effect: &str) {
        let status = self.failed();
        let (reason, request_id, field) = error_info(status);
        let expected = (Code::DeadlineExceeded, "DEADLINE_EXCEEDED", None);
        assert_eq!((status.code(), reason.as_str(), field), expected, "{self:?}");
        assert_eq!(request_id, self.request_id());
        let details = status.get_error_details();
        let metadata = &details.error_info().unwrap().metadata;
        assert_eq!(metadata["may_have_taken_effect"], may_have_taken_effect, "{self:?}");
    }
}

/// Waits until so many calls of a method were counted with a code.
async fn counted(server: &TestServer, method: &str, code: &str, count: u64) {
    let line = format!("duelhub_rpcs_total{{method=\"{method}\",code=\"{code}\"}} {count}\n");
    let admin = server.addresses.admin;
    let has_line = async || get(admin, "/metrics", &[]).await.body.contains(&line);
    until(&line, has_line).await;
}

#[tokio::test]
async fn a_call_that_had_not_begun_by_its_deadline_has_not_taken_effect() {
    let (server, backend) = TestServer::start_with_backend(&[]).await;
    let raw = Raw::connect(server.addresses.control).await;
    for timeout in ["0n", "0S"] {
        let call = raw.grpc("PushEvent", &[("grpc-timeout", timeout)]);
        call.answer().await.assert_deadline_exceeded("false");
    }
    let mut half = raw.grpc("PushEvent", &[("grpc-timeout", "50m")]);
    half.send(framed(&push(77, "{}")).slice(..9), false);
    half.answer().await.assert_deadline_exceeded("false");
    let read_only = raw.grpc("WatchDuels", &[("grpc-timeout", "2S")]);
    let watched = read_only.exchange(&pb::WatchDuelsRequest::default()).await;
    watched.assert_deadline_exceeded("false");
    assert!(!watched.body.is_empty(), "the state was sent before");
    counted(&server, "PushEvent", "DEADLINE_EXCEEDED", 3).await;
    counted(&server, "WatchDuels", "DEADLINE_EXCEEDED", 1).await;
    assert_eq!(backend.push(77, "{}").await, 1, "nothing was stored");
}

#[tokio::test]
async fn a_stream_of_pushes_ends_at_its_deadline() {
    let server = TestServer::start().await;
    let raw = Raw::connect(server.addresses.control).await;
    let mut stream = raw.grpc("PushEvents", &[("grpc-timeout", "2S")]);
    let request = pb::PushEventsRequest { tag: 9, push: Some(push(77, "{}")) };
    stream.send(framed(&request), false);
    let answer = stream.answer().await;
    answer.assert_deadline_exceeded("true");
    let pushed = pb::PushEventsResponse::decode(&answer.body[5..]).unwrap();
    assert_eq!(pushed.tag, 9, "{answer:?}");
    counted(&server, "PushEvents", "DEADLINE_EXCEEDED", 1).await;
}

#[tokio::test]
async fn pushes_that_are_stored_after_their_deadline_are_counted() {
    if !redis_server::is_installed() {
        return;
    }
    let redis = RedisServer::start(&[]);
    let variables = [("ENGINE", "redis"), ("REDIS_URL", &redis.url())];
    let (server, backend) = TestServer::start_with_backend(&variables).await;
    assert_eq!(backend.push(77, "{}").await, 1);
    let raw = Raw::connect(server.addresses.control).await;
    redis.signal("STOP");
    let calls = (0..8).map(|_| {
        let call = raw.grpc("PushEvent", &[("grpc-timeout", "1S")]);
        async { call.exchange(&push(77, "{}")).await.assert_deadline_exceeded("true") }
    });
    join_all(calls).await;
    redis.signal("CONT");
    counted(&server, "PushEvent", "DEADLINE_EXCEEDED", 8).await;
    let admin = server.addresses.admin;
    let pushes = "duelhub_pushes_total{kind=\"new\"} 9\n";
    until(pushes, async || get(admin, "/metrics", &[]).await.body.contains(pushes)).await;
    assert_eq!(backend.push(77, "{}").await, 10, "all of them were stored");
}

#[tokio::test]
async fn the_log_says_under_the_request_id_why_a_call_was_refused() {
    let (hub, backend) = Site::new().start_with_backend().await;
    backend.open(77, &[1]).await;
    let mut client = backend.client.clone();
    let secret = r#"{"duel_id":78,"secret":"swordfish"}"#;
    let refused = [
        ("field", client.push_event(named("field", push(77, secret))).await.err()),
        ("out-of-range", client.push_event(named("out-of-range", push(1 << 60, "{}"))).await.err()),
        (
            "unknown",
            client.get_duel(named("unknown", pb::GetDuelRequest { duel_id: 78 })).await.err(),
        ),
        ("stranger", client.issue_ticket(named("stranger", ticket_of(77, 2))).await.err()),
    ];
    assert!(refused.iter().all(|(_, status)| status.is_some()));
    let stream = tokio_stream::iter([pb::PushEventsRequest { tag: 1, push: Some(push(77, "[]")) }]);
    let mut request = tonic::Request::new(stream);
    request.metadata_mut().insert("x-request-id", "stream".parse().unwrap());
    let mut answers = client.push_events(request).await.unwrap().into_inner();
    assert!(soon("an answer", answers.message()).await.unwrap().is_some());
    for (id, code, reason, field, duel, user) in [
        (
            "field",
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
            json!("payload_json"),
            json!(77),
            Value::Null,
        ),
        (
            "out-of-range",
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
            json!("duel_id"),
            json!(1_u64 << 60),
            Value::Null,
        ),
        ("unknown", "NOT_FOUND", "DUEL_UNKNOWN", Value::Null, json!(78), Value::Null),
        ("stranger", "PERMISSION_DENIED", "NOT_A_PARTICIPANT", Value::Null, json!(77), json!(2)),
    ] {
        let line = logged(&hub, id, "call").await;
        assert_eq!((&line["code"], &line["reason"]), (&json!(code), &json!(reason)), "{line}");
        assert_eq!(
            [&line["field"], &line["duel_id"], &line["user_id"]],
            [&field, &duel, &user],
            "{line}"
        );
    }
    let line = logged(&hub, "stream", "push refused").await;
    assert_eq!(
        [&line["reason"], &line["field"], &line["duel_id"]],
        [&json!("INVALID_FIELD"), &json!("payload_json"), &json!(77)]
    );
    let exit = hub.end(HowToEnd::Term).await;
    assert!(!exit.output.contains("swordfish"), "{exit}");
}

/// A request with an id of its own.
fn named<T>(id: &'static str, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("x-request-id", tonic::metadata::MetadataValue::from_static(id));
    request
}

fn ticket_of(duel_id: u64, user_id: u64) -> pb::IssueTicketRequest {
    pb::IssueTicketRequest { duel_id, user_id, ..Default::default() }
}

/// The line with this message about a call.
async fn logged(hub: &Hub, request_id: &str, message: &str) -> Value {
    let find = || {
        let lines = hub.output();
        let mut lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.find(|line| line["request_id"] == request_id && line["message"] == message)
    };
    until(request_id, async || find().is_some()).await;
    find().unwrap()
}

#[tokio::test]
async fn a_timeout_that_is_none_is_refused_and_a_long_one_is_taken() {
    let server = TestServer::start().await;
    let raw = Raw::connect(server.addresses.control).await;
    for malformed in ["1", "S", "5s", "+1S", "123456789S", "soon"] {
        let call = raw.grpc("PushEvent", &[("grpc-timeout", malformed)]);
        let answer = call.exchange(&push(77, "{}")).await;
        let (reason, request_id, field) = error_info(answer.failed());
        let told = (reason.as_str(), field.as_deref());
        assert_eq!(told, ("INVALID_FIELD", Some("grpc-timeout")), "{malformed}");
        assert_eq!(
            (answer.failed().code(), &*request_id),
            (Code::InvalidArgument, answer.request_id())
        );
    }
    for long in ["99999999H", "60S"] {
        let call = raw.grpc("PushEvent", &[("grpc-timeout", long)]);
        let answer = call.exchange(&push(77, "{}")).await;
        assert_eq!(answer.status.unwrap().code(), Code::Ok, "{long}");
    }
}

#[tokio::test]
async fn callers_who_go_away_are_counted() {
    let (server, backend) = TestServer::start_with_backend(&[]).await;
    let raw = Raw::connect(server.addresses.control).await;
    let mut half = raw.grpc("CloseDuel", &[]);
    half.send(Bytes::from_static(&[0, 0, 0]), false);
    half.request.send_reset(h2::Reason::CANCEL);
    counted(&server, "CloseDuel", "CANCELLED", 1).await;
    let watching = backend.client.clone().watch_duels(pb::WatchDuelsRequest::default()).await;
    let mut watch = watching.unwrap().into_inner();
    assert!(soon("the state", watch.message()).await.unwrap().is_some());
    drop(watch);
    counted(&server, "WatchDuels", "CANCELLED", 1).await;
    let mut stream = raw.grpc("PushEvents", &[]);
    stream.send(framed(&pb::PushEventsRequest { tag: 1, push: Some(push(77, "{}")) }), false);
    until("it is stored", async || backend.try_duel(77).await.is_ok()).await;
    drop(raw);
    counted(&server, "PushEvents", "CANCELLED", 1).await;
}

#[tokio::test]
async fn only_grpc_is_answered_as_grpc() {
    let server = TestServer::with(&[("CONTROL_TOKEN", "a-token-of-16-bytes-or-more")]).await;
    let raw = Raw::connect(server.addresses.control).await;
    let id = ("x-request-id", "my-own");
    for content_type in [
        "text/plain",
        "application/connect+json",
        "application/grpc-web",
        "application/grpc-web+proto",
        "application/grpc+json",
        "application/grpcs",
        "",
    ] {
        let answer = raw.begin("POST", "GetNode", &[("content-type", content_type), id]);
        let answer = answer.exchange(&pb::GetNodeRequest {}).await;
        assert_eq!(answer.http, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{content_type:?}");
        assert_eq!((answer.request_id(), answer.status.is_some()), ("my-own", false));
        let error: Value = serde_json::from_slice(&answer.body).unwrap();
        let expected = "the content-type must be one that this call takes: application/json, \
                        application/proto, application/grpc";
        assert_eq!(error["message"], expected);
    }
    let none = raw.begin("POST", "GetNode", &[]).exchange(&pb::GetNodeRequest {}).await;
    assert_eq!(none.http, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let put = raw.begin("PUT", "GetNode", &[("content-type", "application/grpc"), id]);
    let put = put.exchange(&pb::GetNodeRequest {}).await;
    assert_eq!((put.http, put.request_id()), (StatusCode::METHOD_NOT_ALLOWED, "my-own"));
    assert_eq!(put.headers["allow"], "POST");
    counted(&server, "GetNode", "UNKNOWN", 9).await;
    let token = ("authorization", "bearer a-token-of-16-bytes-or-more");
    for content_type in
        ["application/grpc", "application/grpc+proto", "Application/gRPC", "application/grpc; a=b"]
    {
        let call = raw.begin("POST", "GetNode", &[("content-type", content_type), token]);
        let answer = call.exchange(&pb::GetNodeRequest {}).await;
        assert_eq!((answer.http, answer.status.unwrap().code()), (StatusCode::OK, Code::Ok));
    }
}

#[tokio::test]
async fn every_refusal_has_a_reason_and_the_request_id() {
    let server = TestServer::start().await;
    let raw = Raw::connect(server.addresses.control).await;
    let refused = |answer: &Answer| {
        let (reason, request_id, _) = error_info(answer.failed());
        assert_eq!(request_id, answer.request_id());
        (answer.failed().code(), reason)
    };
    for encoding in ["gzip", "zstd", "snappy"] {
        for method in ["PushEvent", "PushEvents"] {
            let call = raw.grpc(method, &[("grpc-encoding", encoding)]);
            let answer = call.exchange(&push(77, "{}")).await;
            let expected = (Code::Unimplemented, "COMPRESSION_UNSUPPORTED".to_owned());
            assert_eq!(refused(&answer), expected, "{encoding}");
            assert_eq!(answer.headers["grpc-accept-encoding"], "identity");
        }
    }
    let plain = raw.grpc("PushEvent", &[("grpc-encoding", "identity")]);
    assert_eq!(plain.exchange(&push(77, "{}")).await.status.unwrap().code(), Code::Ok);
    // The flag says that it is compressed, and nothing says how.
    for method in ["PushEvent", "PushEvents"] {
        let mut call = raw.grpc(method, &[]);
        call.send(Bytes::from_static(&[1, 0, 0, 0, 0]), true);
        let (code, reason) = refused(&call.answer().await);
        assert_eq!((code, reason.as_str()), (Code::InvalidArgument, "INVALID_FIELD"), "{method}");
    }
    let mut empty = raw.grpc("PushEvent", &[]);
    empty.send(Bytes::new(), true);
    assert_eq!(refused(&empty.answer().await).1, "INVALID_FIELD");
    let unknown = raw.grpc("Nothing", &[]).exchange(&push(77, "{}")).await;
    assert_eq!(refused(&unknown), (Code::Unimplemented, "UNKNOWN_METHOD".to_owned()));
}

/// A peer that said so much, and then nothing.
async fn silent(address: SocketAddr, said: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(said).await.unwrap();
    stream
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// SETTINGS with nothing in it (RFC 9113, section 6.5).
const NO_SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

#[tokio::test]
async fn a_stop_does_not_wait_for_silent_peers() {
    let (mut server, backend) = TestServer::start_with_backend(&[]).await;
    let address = server.addresses.control;
    let spoken = [PREFACE, NO_SETTINGS].concat();
    let mut peers = Vec::new();
    for said in [&[], &PREFACE[..7], PREFACE, &spoken] {
        peers.push(silent(address, said).await);
    }
    // A call of which the rest never comes.
    let raw = Raw::connect(address).await;
    let mut half = raw.grpc("PushEvent", &[]);
    half.send(framed(&push(77, "{}")).slice(..9), false);
    let stream = raw.grpc("PushEvents", &[]);
    // Accepted after all of them.
    assert_eq!(backend.push(77, "{}").await, 1);
    let began = Instant::now();
    server.begin_stop();
    for call in [half, stream] {
        let answer = call.answer().await;
        let (reason, request_id, _) = error_info(answer.failed());
        assert_eq!((reason.as_str(), &*request_id), ("SHUTTING_DOWN", answer.request_id()));
    }
    server.stopped().await;
    assert!(began.elapsed() < STOP, "{:?}", began.elapsed());
}

/// The files of a certificate for `localhost`, and of its key.
pub(crate) fn certificate() -> (TempDir, [String; 2]) {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, contents: String| {
        let path = directory.path().join(name);
        std::fs::write(&path, contents).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let files = [file("cert", key.cert.pem()), file("key", key.signing_key.serialize_pem())];
    (directory, files)
}

#[tokio::test]
async fn a_stop_does_not_wait_for_half_a_tls_handshake() {
    let (_directory, [cert, key]) = certificate();
    let variables = [("CONTROL_TLS_CERT", &*cert), ("CONTROL_TLS_KEY", &*key)];
    let mut server = TestServer::with(&variables).await;
    let mut peers = Vec::new();
    // Nothing, and the first bytes of a ClientHello.
    for said in [&[][..], &[22, 3, 1, 2, 0, 1, 0]] {
        peers.push(silent(server.addresses.control, said).await);
    }
    duelhub_testkit::is_ready(&server).await;
    let began = Instant::now();
    server.begin_stop();
    server.stopped().await;
    assert!(began.elapsed() < STOP, "{:?}", began.elapsed());
}
