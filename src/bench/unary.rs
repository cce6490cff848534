//! Unary calls of `PushEvent`, each written to the socket at once: head and message together.
//!
//! gRPC's C core, which PHP and Python use, and grpc-go do so, too. tonic's client makes three writes of one call, and would
//! measure how the hub wakes up for the parts. One connection carries all calls, as a channel does.

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use prost::Message as _;
use tokio::net::TcpStream;
use tonic::codegen::http::{Method, Request, Version, header};
use tonic::{Code, Status};

use super::BenchError;
use super::hub::TargetHub;
use crate::pb;
use crate::pb::control_service_server::SERVICE_NAME;

/// Large, because the HTTP/2 library ends a connection with too many small unread frames in its window (RFC 9113, section
/// 5.2), such as answers that a busy machine has not read yet.
const WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// Bytes before a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// A connection to the control plane.
pub(super) struct UnaryClient {
    connection: SendRequest<Bytes>,
    /// The head of every call.
    head: Request<()>,
}

impl UnaryClient {
    pub(super) async fn connect(hub: &TargetHub) -> Result<Self, BenchError> {
        let failed = BenchError::machine("a connection to the control plane");
        let stream = TcpStream::connect(hub.control).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(BenchError::machine("TCP_NODELAY"))?;
        let refused = |error: h2::Error| BenchError::refused("PushEvent")(Status::from(error));
        let mut client = h2::client::Builder::new();
        client.initial_connection_window_size(WINDOW_BYTES);
        let (connection, driver) = client.handshake(stream).await.map_err(refused)?;
        // If it ends, the calls fail.
        tokio::spawn(async move { driver.await.ok() });
        let uri = format!("http://{}/{SERVICE_NAME}/PushEvent", hub.control);
        let mut head = Request::builder()
            .method(Method::POST)
            .version(Version::HTTP_2)
            .uri(uri)
            .header(header::TE, "trailers")
            .header(header::CONTENT_TYPE, "application/grpc");
        if let Some(token) = &hub.token {
            head = head.header(header::AUTHORIZATION, format!("Bearer {}", token.as_str()));
        }
        let head = head.body(()).map_err(|_| BenchError::Options("the control plane's token"))?;
        Ok(Self { connection, head })
    }

    /// Begins a call. The returned future waits for its answer.
    pub(super) fn push(
        &self,
        request: &pb::PushEventRequest,
    ) -> impl Future<Output = Result<(), Status>> + use<> {
        let begun = self.begin(request);
        async move { answer(begun?).await }
    }

    fn begin(&self, request: &pb::PushEventRequest) -> Result<ResponseFuture, h2::Error> {
        let length = request.encoded_len();
        let mut message = BytesMut::with_capacity(PREFIX_BYTES + length);
        message.put_u8(0);
        message.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        message.put(request.encode_to_vec().as_slice());
        // One handle lets only one call wait for its turn.
        let mut connection = self.connection.clone();
        let (answer, mut body) = connection.send_request(self.head.clone(), false)?;
        body.send_data(message.freeze(), true)?;
        Ok(answer)
    }
}

async fn answer(answer: ResponseFuture) -> Result<(), Status> {
    let (head, mut body) = answer.await?.into_parts();
    while let Some(data) = body.data().await {
        let received = data?.len();
        body.flow_control().release_capacity(received)?;
    }
    let trailers = body.trailers().await?.unwrap_or(head.headers);
    match Status::from_header_map(&trailers) {
        Some(status) if status.code() == Code::Ok => Ok(()),
        Some(status) => Err(status),
        None => Err(Status::unknown("an answer without a status")),
    }
}
