//! Guests of the control plane and of the admin listener that harm nobody: who says nothing, who sends half, who takes no answer.
//! What is waited for is shortened, so that no test takes as long as the hub waits in earnest.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use duelhub::config::Config;
use duelhub::pb;
use duelhub_testkit::{Backend, TestServer, assert_refused, error_info, get, push, soon, until};
use futures_util::future::join_all;
use h2::client::SendRequest;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::codegen::http::Request;
use tonic::{Code, Status};

use crate::calls::{certificate, framed};

/// What the hub waits for its peers in these tests.
const SHORT: Duration = Duration::from_millis(300);

const TOKEN: &str = "a-token-of-16-bytes-or-more";

/// The preface of HTTP/2 and SETTINGS with nothing in it (RFC 9113, sections 3.4 and 6.5).
const SPOKEN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// The first bytes of a `ClientHello`.
const HALF_OF_TLS: &[u8] = &[22, 3, 1, 2, 0, 1, 0];

async fn said(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

/// Waits until the hub has closed a connection.
async fn closed(mut stream: TcpStream) {
    // A reset is an end as well.
    let _end = soon("the hub closes it", stream.read_to_end(&mut Vec::new())).await;
}

async fn metrics(server: &TestServer) -> String {
    get(server.addresses.admin, "/metrics", &[]).await.body
}

/// Waits until a sample has this value.
async fn metric(server: &TestServer, sample: &str) {
    let line = format!("{sample}\n");
    until(sample, async || metrics(server).await.contains(&line)).await;
}

fn closed_for(reason: &str, count: u64) -> String {
    format!("duelhub_control_connections_closed_total{{reason=\"{reason}\"}} {count}")
}

/// A connection that sends what a test says.
struct Raw {
    address: SocketAddr,
    requests: SendRequest<Bytes>,
    _connection: AbortOnDropHandle<()>,
}

impl Raw {
    /// The client takes so many bytes of an answer before it says that it takes more, which it never does.
    async fn connect(address: SocketAddr, window: u32) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut client = h2::client::Builder::new();
        client.initial_window_size(window).initial_max_send_streams(1024);
        let (requests, connection) = client.handshake(stream).await.unwrap();
        let connection = AbortOnDropHandle::new(tokio::spawn(async {
            let _ended = connection.await;
        }));
        Self { address, requests, _connection: connection }
    }

    async fn begin(&self, method: &str) -> (h2::client::ResponseFuture, h2::SendStream<Bytes>) {
        let path = format!("http://{}/duelhub.v1.ControlService/{method}", self.address);
        let request = Request::builder().method("POST").uri(path);
        let request = request.header("content-type", "application/grpc").header("te", "trailers");
        let mut requests = soon("a stream", self.requests.clone().ready()).await.unwrap();
        requests.send_request(request.body(()).unwrap(), false).unwrap()
    }
}

/// Returns the status of an answer without a message.
async fn status(answer: h2::client::ResponseFuture) -> Status {
    let answer = soon("an answer", answer).await.unwrap();
    Status::from_header_map(answer.headers()).expect("it fails at once")
}

/// A message that is a field of no message of ours, as long as is wanted. Its last byte is missing.
fn almost(length: usize) -> Bytes {
    let head = [&[0][..], &u32::try_from(length).unwrap().to_be_bytes()].concat();
    [head, vec![0; length - 1]].concat().into()
}

async fn send(stream: &mut h2::SendStream<Bytes>, mut bytes: Bytes) {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx));
        let Some(Ok(room)) = soon("a window", room).await else { return };
        let sent = stream.send_data(bytes.split_to(room.min(bytes.len())), false);
        if sent.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn who_says_nothing_to_the_control_plane_is_closed_and_a_backend_that_idles_is_not() {
    let tune = |config: &mut Config| {
        (config.control.patience.handshake, config.control.patience.first_call) =
            (SHORT, 3 * SHORT);
    };
    let server = TestServer::tuned(&[("CONTROL_TOKEN", TOKEN)], tune).await;
    let address = server.addresses.control;
    for reason in ["crowded_out", "no_handshake", "no_call", "answers_not_taken"] {
        metric(&server, &closed_for(reason, 0)).await;
    }
    let backend = Backend::with_token(&server, TOKEN);
    assert_eq!(backend.push(77, "{}").await, 1);
    let stranger = Raw::connect(address, 1 << 16).await;
    let (answer, _open) = stranger.begin("GetNode").await;
    assert_eq!(status(answer).await.code(), Code::Unauthenticated);
    let nothing = said(address, &[]).await;
    let half = said(address, &SPOKEN[..7]).await;
    let spoken = said(address, SPOKEN).await;
    join_all([closed(nothing), closed(half)]).await;
    metric(&server, &closed_for("no_handshake", 2)).await;
    closed(spoken).await;
    // The stranger, too: a call that is refused is none.
    metric(&server, &closed_for("no_call", 2)).await;
    metric(&server, "duelhub_control_connections 1").await;
    assert_eq!(backend.push(77, "{}").await, 2, "on the connection that it had");
}

#[tokio::test]
async fn half_a_tls_handshake_is_closed() {
    let (_directory, [cert, key]) = certificate();
    let variables = [("CONTROL_TLS_CERT", &*cert), ("CONTROL_TLS_KEY", &*key)];
    let tune = |config: &mut Config| config.control.patience.handshake = SHORT;
    let server = TestServer::tuned(&variables, tune).await;
    closed(said(server.addresses.control, HALF_OF_TLS).await).await;
    metric(&server, &closed_for("no_handshake", 1)).await;
}

#[tokio::test]
async fn strangers_keep_no_backend_out() {
    let server = TestServer::with(&[("CONTROL_TOKEN", TOKEN)]).await;
    let mut strangers = Vec::new();
    for _ in 0..200 {
        strangers.push(said(server.addresses.control, SPOKEN).await);
    }
    let backend = Backend::with_token(&server, TOKEN);
    assert_eq!(backend.push(77, "{}").await, 1);
    let oldest = strangers.remove(0);
    closed(oldest).await;
    // Of 200 and the backend, 32 have a place.
    until("they gave way", async || {
        let metrics = metrics(&server).await;
        let open = metrics.lines().find_map(|l| l.strip_prefix("duelhub_control_connections "));
        open.unwrap().parse::<u64>().unwrap() <= 33
    })
    .await;
}

#[tokio::test]
async fn backends_are_bounded_and_give_their_place_back() {
    let server = TestServer::with(&[("CONTROL_MAX_CONNECTIONS", "2")]).await;
    metric(&server, "duelhub_limits_reached_total{kind=\"CONTROL_MAX_CONNECTIONS\"} 0").await;
    let first = Backend::connect(&server).await;
    let second = Backend::connect(&server).await;
    assert_eq!((first.push(77, "{}").await, second.push(77, "{}").await), (1, 2));
    let third = Backend::connect(&server).await;
    let refused = third.client.clone().push_event(push(77, "{}")).await.unwrap_err();
    assert_refused(&refused, Code::ResourceExhausted, "LIMIT_REACHED");
    metric(&server, "duelhub_limits_reached_total{kind=\"CONTROL_MAX_CONNECTIONS\"} 1").await;
    drop(first);
    until("a place is free", async || {
        third.client.clone().push_event(push(77, "{}")).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn limits_that_calls_meet_are_counted_from_zero() {
    let variables = [("ENGINE_MAX_DUELS", "1"), ("CONTROL_MAX_WATCHERS", "1")];
    let (server, backend) = TestServer::start_with_backend(&variables).await;
    let count =
        |kind: &str, count: u64| format!("duelhub_limits_reached_total{{kind=\"{kind}\"}} {count}");
    for kind in ["ENGINE_MAX_DUELS", "ENGINE_MAX_REMEMBERED_TICKETS", "CONTROL_MAX_WATCHERS"] {
        metric(&server, &count(kind, 0)).await;
    }
    backend.push(77, "{}").await;
    let mut client = backend.client.clone();
    assert!(client.push_event(push(78, "{}")).await.is_err());
    let pushes = [pb::PushEventsRequest { tag: 1, push: Some(push(79, "{}")) }];
    let mut answers = client.push_events(tokio_stream::iter(pushes)).await.unwrap().into_inner();
    assert!(soon("an answer", answers.message()).await.unwrap().is_some());
    metric(&server, &count("ENGINE_MAX_DUELS", 2)).await;
    let _watch = client.watch_duels(pb::WatchDuelsRequest::default()).await.unwrap();
    assert!(client.watch_duels(pb::WatchDuelsRequest::default()).await.is_err());
    metric(&server, &count("CONTROL_MAX_WATCHERS", 1)).await;
}

#[tokio::test]
async fn half_a_message_is_not_waited_for_and_pauses_of_a_stream_are() {
    let tune = |config: &mut Config| config.control.patience.message = SHORT;
    let server = TestServer::tuned(&[], tune).await;
    let raw = Raw::connect(server.addresses.control, 1 << 16).await;
    let (nothing, _open) = raw.begin("PushEvent").await;
    let (half, mut open) = raw.begin("PushEvent").await;
    open.send_data(framed(&push(77, "{}")).slice(..9), false).unwrap();
    let (endless, mut unended) = raw.begin("PushEvent").await;
    unended.send_data(framed(&push(77, "{}")), false).unwrap();
    for answer in [nothing, half, endless] {
        let status = status(answer).await;
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert_eq!(error_info(&status).0, "REQUEST_INCOMPLETE");
    }
    let (answers, mut stream) = raw.begin("PushEvents").await;
    let mut answers = soon("the head", answers).await.unwrap().into_body();
    for tag in 1..=2 {
        tokio::time::sleep(2 * SHORT).await;
        let request = pb::PushEventsRequest { tag, push: Some(push(77, "{}")) };
        stream.send_data(framed(&request), false).unwrap();
        let answer = soon("an answer", answers.data()).await.unwrap().unwrap();
        assert_eq!(pb::PushEventsResponse::decode(&answer[5..]).unwrap().tag, tag);
    }
    stream.send_data(Bytes::from_static(&[0, 0, 0]), false).unwrap();
    let trailers = soon("the end", answers.trailers()).await.unwrap().unwrap();
    let status = Status::from_header_map(&trailers).unwrap();
    assert_eq!(error_info(&status).0, "REQUEST_INCOMPLETE");
}

/// As clients do that fill frames from one buffer.
#[tokio::test]
async fn a_stream_whose_frames_never_end_with_a_message_goes_on() {
    let tune = |config: &mut Config| config.control.patience.message = SHORT;
    let server = TestServer::tuned(&[], tune).await;
    let raw = Raw::connect(server.addresses.control, 1 << 16).await;
    let (answers, mut stream) = raw.begin("PushEvents").await;
    let message = |tag| framed(&pb::PushEventsRequest { tag, push: Some(push(77, "{}")) });
    stream.send_data(message(0).slice(..3), false).unwrap();
    let mut answers = soon("the head", answers).await.unwrap().into_body();
    for tag in 0..8 {
        tokio::time::sleep(SHORT / 3).await;
        let frame = [message(tag).slice(3..), message(tag + 1).slice(..3)].concat();
        stream.send_data(frame.into(), false).unwrap();
        let answer = soon("an answer", answers.data()).await.unwrap().unwrap();
        assert_eq!(pb::PushEventsResponse::decode(&answer[5..]).unwrap().tag, tag);
    }
}

#[tokio::test]
async fn messages_under_way_are_bounded_in_bytes() {
    let (server, backend) = TestServer::start_with_backend(&[]).await;
    let raw = Raw::connect(server.addresses.control, 1 << 16).await;
    let nearly_four_mib = (4 << 20) - 16;
    let mut streams = Vec::new();
    for _ in 0..3 {
        let (answer, mut stream) = raw.begin("PushEvents").await;
        send(&mut stream, almost(nearly_four_mib)).await;
        streams.push((answer, stream));
    }
    // The third does not fit into the 8 MiB of a connection.
    let (answer, _open) = streams.pop().unwrap();
    let mut answer = soon("the head", answer).await.unwrap();
    let trailers = match Status::from_header_map(answer.headers()) {
        Some(_) => answer.headers().clone(),
        None => soon("the end", answer.body_mut().trailers()).await.unwrap().unwrap(),
    };
    let status = Status::from_header_map(&trailers).unwrap();
    assert_refused(&status, Code::ResourceExhausted, "LIMIT_REACHED");
    metric(&server, "duelhub_limits_reached_total{kind=\"GRPC_REQUEST_BYTES_MAX\"} 1").await;
    assert_eq!(backend.push(77, "{}").await, 1, "others do not notice");
    drop(streams);
    drop(raw);
    // What was held is given back.
    let raw = Raw::connect(server.addresses.control, 1 << 16).await;
    let (answer, mut stream) = raw.begin("PushEvent").await;
    stream.send_data(framed(&push(77, "{}")), true).unwrap();
    assert!(soon("an answer", answer).await.unwrap().status().is_success());
}

#[tokio::test]
async fn a_message_of_empty_elements_is_refused_and_its_field_is_named() {
    let (server, backend) = TestServer::start_with_backend(&[]).await;
    let raw = Raw::connect(server.addresses.control, 1 << 16).await;
    let (answer, mut stream) = raw.begin("PushEvent").await;
    // Four megabytes of field 5, `views`, each empty.
    let views: Bytes = [0x2a, 0].repeat((4 << 20) / 2).into();
    let length = u32::try_from(views.len()).unwrap().to_be_bytes();
    send(&mut stream, [&[0][..], &length, &views].concat().into()).await;
    stream.send_data(Bytes::new(), true).unwrap();
    let status = status(answer).await;
    let (reason, _, field) = error_info(&status);
    assert_eq!((status.code(), reason.as_str()), (Code::InvalidArgument, "INVALID_FIELD"));
    assert_eq!(field.as_deref(), Some("views"));
    assert_eq!(backend.push(77, "{}").await, 1);
}

#[tokio::test]
async fn a_watcher_that_takes_nothing_loses_its_slot() {
    let tune = |config: &mut Config| config.control.patience.answer = 2 * SHORT;
    for window in [0, 1] {
        let server = TestServer::tuned(&[("CONTROL_MAX_WATCHERS", "1")], tune).await;
        let backend = Backend::connect(&server).await;
        backend.push(77, "{}").await;
        let raw = Raw::connect(server.addresses.control, window).await;
        let (answer, mut stream) = raw.begin("WatchDuels").await;
        stream.send_data(framed(&pb::WatchDuelsRequest::default()), true).unwrap();
        let answer = soon("the head", answer).await.unwrap();
        let watch =
            async || backend.client.clone().watch_duels(pb::WatchDuelsRequest::default()).await;
        assert_refused(&watch().await.unwrap_err(), Code::ResourceExhausted, "LIMIT_REACHED");
        until("the slot is free", async || watch().await.is_ok()).await;
        metric(&server, "duelhub_watchers_too_slow_total 1").await;
        let mut body = answer.into_body();
        let reset = soon("the stream is reset", async {
            loop {
                match body.data().await {
                    Some(Ok(_)) => {}
                    other => return other,
                }
            }
        });
        assert!(reset.await.is_some_and(|end| end.is_err_and(|error| error.is_reset())));
        // Its connection goes on.
        let (answer, mut stream) = raw.begin("GetNode").await;
        stream.send_data(framed(&pb::GetNodeRequest {}), true).unwrap();
        assert!(soon("an answer", answer).await.unwrap().status().is_success());
    }
}

#[tokio::test]
async fn a_watcher_to_whom_nothing_happens_keeps_its_slot() {
    let tune = |config: &mut Config| config.control.patience.answer = SHORT;
    let server = TestServer::tuned(&[], tune).await;
    let backend = Backend::connect(&server).await;
    let mut client = backend.client.clone();
    let watch = client.watch_duels(pb::WatchDuelsRequest::default()).await.unwrap();
    let mut watch = watch.into_inner();
    assert!(soon("the state", watch.message()).await.unwrap().is_some());
    tokio::time::sleep(4 * SHORT).await;
    backend.push(77, "{}").await;
    assert!(soon("a change", watch.message()).await.unwrap().is_some());
}

#[tokio::test]
async fn answers_that_are_never_taken_end_with_their_connection() {
    let tune = |config: &mut Config| config.control.patience.answer = 2 * SHORT;
    let server = TestServer::tuned(&[], tune).await;
    // A window of one byte: hyper is done with an answer of which the library keeps the rest.
    let raw = Raw::connect(server.addresses.control, 1).await;
    let (_answer, mut stream) = raw.begin("GetNode").await;
    stream.send_data(framed(&pb::GetNodeRequest {}), true).unwrap();
    metric(&server, &closed_for("answers_not_taken", 1)).await;
    metric(&server, "duelhub_control_connections 0").await;
}

#[tokio::test]
async fn pages_of_lists_are_bounded() {
    let (server, backend) = TestServer::start_with_backend(&[]).await;
    backend.push(77, "{}").await;
    let raw = Raw::connect(server.addresses.control, 0).await;
    let mut held = Vec::new();
    for _ in 0..8 {
        let (answer, mut stream) = raw.begin("ListDuels").await;
        stream.send_data(framed(&pb::ListDuelsRequest::default()), true).unwrap();
        held.push(soon("the head", answer).await.unwrap());
    }
    let (answer, mut stream) = raw.begin("ListDuels").await;
    stream.send_data(framed(&pb::ListDuelsRequest::default()), true).unwrap();
    assert_refused(&status(answer).await, Code::ResourceExhausted, "LIMIT_REACHED");
    let listed = backend.client.clone().list_duels(pb::ListDuelsRequest::default()).await;
    assert_eq!(listed.unwrap().into_inner().duels.len(), 1, "another connection has its own");
    drop(held);
    until("the pages are given back", async || {
        let (answer, mut stream) = raw.begin("ListDuels").await;
        stream.send_data(framed(&pb::ListDuelsRequest::default()), true).unwrap();
        let answer = soon("an answer", answer).await.unwrap();
        Status::from_header_map(answer.headers()).is_none()
    })
    .await;
}

#[tokio::test]
async fn who_says_nothing_to_the_admin_port_is_closed_and_keeps_nobody_out() {
    let tune = |config: &mut Config| config.admin.timeout = 2 * SHORT;
    let server = TestServer::tuned(&[], tune).await;
    let address = server.addresses.admin;
    let mut silent = Vec::new();
    for bytes in [&b""[..], b"GET /metr", b"GET /metrics HTTP/1.1\r\nHost: hub\r\n"] {
        silent.push(closed(said(address, bytes).await));
    }
    // One whose request is answered, and which says no more.
    silent.push(closed(said(address, b"GET /healthz HTTP/1.1\r\nHost: hub\r\n\r\n").await));
    join_all(silent).await;
    let server = TestServer::start().await;
    let mut strangers = Vec::new();
    for _ in 0..300 {
        strangers.push(said(server.addresses.admin, b"GET /").await);
    }
    assert_eq!(get(server.addresses.admin, "/healthz", &[]).await.status, 200);
    closed(strangers.remove(0)).await;
    until("they gave way, and that is counted", async || {
        !metrics(&server).await.contains("duelhub_admin_connections_crowded_out_total 0\n")
    })
    .await;
}
