//! What guests of the control plane and of the admin listener do. Each goes on until it is stopped.
//!
//! Strangers have no token. Who sends half messages or reads nothing has one: it is a backend at fault.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use duelhub::pb;
use futures_util::future::join_all;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tonic::codegen::http::Request;

use crate::{TOKEN, Target};

const PAUSE: Duration = Duration::from_millis(2);

/// The preface of HTTP/2 and SETTINGS with nothing in it (RFC 9113, sections 3.4 and 6.5).
const SPOKEN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// The largest message that is decoded, and a little less.
const LARGE: usize = (4 << 20) - 16;

/// Calls at a time on one connection.
const CALLS: usize = 200;

/// Nothing, half a preface, or a whole one and no call.
pub(crate) async fn say_nothing_to_control(target: Target, nth: usize) {
    let said = [&b""[..], &SPOKEN[..7], SPOKEN];
    stay_silent(target.hub.addresses.control, said[nth % said.len()]).await;
}

/// Nothing, half a line, or half a request.
pub(crate) async fn say_nothing_to_admin(target: Target, nth: usize) {
    let said = [&b""[..], b"GET /metr", b"GET /metrics HTTP/1.1\r\nHost: hub\r\n"];
    stay_silent(target.hub.addresses.admin, said[nth % said.len()]).await;
}

async fn stay_silent(address: SocketAddr, said: &[u8]) {
    let mut silent = Vec::new();
    loop {
        let connecting = TcpStream::connect(address);
        if let Ok(Ok(mut stream)) = timeout(Duration::from_secs(1), connecting).await {
            let _sent = stream.write_all(said).await;
            silent.push(stream);
        }
        if silent.len() > 500 {
            silent.drain(..100);
        }
        sleep(PAUSE).await;
    }
}

/// Streams of pushes whose first message never ends.
pub(crate) async fn send_half_messages(target: Target, _nth: usize) {
    let length = u32::try_from(LARGE).unwrap().to_be_bytes();
    let half: Bytes = [&[0][..], &length, &vec![0; LARGE - 1]].concat().into();
    loop {
        if let Some(connection) = Connection::open(&target, 1 << 16).await {
            let streams = (0..CALLS).map(|_| async {
                while let Some((answer, mut request)) = connection.begin("PushEvents").await {
                    send(&mut request, half.clone()).await;
                    // Held until the hub ends it.
                    let _ended = ended(answer).await;
                    sleep(PAUSE).await;
                }
            });
            join_all(streams).await;
        }
        sleep(PAUSE).await;
    }
}

/// Watches of all duels, of which nothing is read.
pub(crate) async fn watch_unread(target: Target, _nth: usize) {
    unread(&target, "WatchDuels", &pb::WatchDuelsRequest::default()).await;
}

/// Lists of duels, of which nothing is read.
pub(crate) async fn list_unread(target: Target, _nth: usize) {
    unread(&target, "ListDuels", &pb::ListDuelsRequest::default()).await;
}

async fn unread(target: &Target, method: &str, request: &impl prost::Message) {
    let message = request.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let framed: Bytes = [&[0][..], &length, &message].concat().into();
    loop {
        // No byte of an answer is taken, only its head.
        if let Some(connection) = Connection::open(target, 0).await {
            let calls = (0..CALLS).map(|_| async {
                while let Some((answer, mut request)) = connection.begin(method).await {
                    let _sent = request.send_data(framed.clone(), true);
                    let _ended = ended(answer).await;
                    sleep(PAUSE).await;
                }
            });
            join_all(calls).await;
        }
        sleep(PAUSE).await;
    }
}

/// A connection with a token.
struct Connection {
    address: SocketAddr,
    requests: SendRequest<Bytes>,
    _driven: AbortOnDropHandle<()>,
}

impl Connection {
    async fn open(target: &Target, window: u32) -> Option<Self> {
        let address = target.hub.addresses.control;
        let stream = TcpStream::connect(address).await.ok()?;
        let mut client = h2::client::Builder::new();
        client.initial_window_size(window).initial_max_send_streams(CALLS);
        let (requests, connection) = client.handshake(stream).await.ok()?;
        let driven = AbortOnDropHandle::new(tokio::spawn(async {
            let _ended = connection.await;
        }));
        Some(Self { address, requests, _driven: driven })
    }

    /// Returns `None` once the connection has ended.
    async fn begin(&self, method: &str) -> Option<(ResponseFuture, SendStream<Bytes>)> {
        let path = format!("http://{}/duelhub.v1.ControlService/{method}", self.address);
        let request = Request::builder().method("POST").uri(path);
        let request = request.header("content-type", "application/grpc").header("te", "trailers");
        let request = request.header("authorization", format!("Bearer {TOKEN}")).body(()).unwrap();
        let mut requests = self.requests.clone().ready().await.ok()?;
        requests.send_request(request, false).ok()
    }
}

async fn send(stream: &mut SendStream<Bytes>, mut bytes: Bytes) {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let Some(Ok(room)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else {
            return;
        };
        if stream.send_data(bytes.split_to(room.min(bytes.len())), false).is_err() {
            return;
        }
    }
}

/// Waits until the hub ends a call. What it answers is kept, and not taken.
async fn ended(answer: ResponseFuture) -> Result<(), h2::Error> {
    let mut body: RecvStream = answer.await?.into_body();
    let mut kept = Vec::new();
    while let Some(data) = body.data().await {
        kept.push(data?);
    }
    Ok(())
}
