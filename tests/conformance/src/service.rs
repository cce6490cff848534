//! The service of the suite, in gRPC's bytes: the library has no way to send trailers with a success.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use http_body_util::channel::{Channel, Sender};
use prost::{Message, Name};
use prost_types::Any;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower::Service;

use crate::pb::conformance_payload::RequestInfo;
use crate::pb::unary_response_definition::Response as Outcome;
use crate::pb::{
    ConformancePayload, Error, Header, IdempotentUnaryRequest, IdempotentUnaryResponse,
    ServerStreamRequest, ServerStreamResponse, UnaryRequest, UnaryResponse,
    UnaryResponseDefinition,
};

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct Conformance;

impl NamedService for Conformance {
    const NAME: &'static str = "connectrpc.conformance.v1.ConformanceService";
}

impl Service<Request<Body>> for Conformance {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(async { Ok(answer(request).await.unwrap_or_else(Status::into_http)) })
    }
}

async fn answer(request: Request<Body>) -> Result<Response<Body>, Status> {
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let message = body.slice(5.min(body.len())..);
    match method.as_str() {
        "Unary" => {
            let request: UnaryRequest = decoded(&message)?;
            let info = request_info(&head.headers, &request);
            let of = |payload| UnaryResponse { payload: Some(payload) };
            Ok(unary(request.response_definition, info, of).await)
        }
        "IdempotentUnary" => {
            let request: IdempotentUnaryRequest = decoded(&message)?;
            let info = request_info(&head.headers, &request);
            let of = |payload| IdempotentUnaryResponse { payload: Some(payload) };
            Ok(unary(request.response_definition, info, of).await)
        }
        "ServerStream" => {
            let request: ServerStreamRequest = decoded(&message)?;
            let info = request_info(&head.headers, &request);
            Ok(server_stream(request, info))
        }
        _ => Err(Status::unimplemented("not offered")),
    }
}

fn decoded<M: Message + Default>(bytes: &[u8]) -> Result<M, Status> {
    M::decode(bytes).map_err(|_| Status::invalid_argument("it cannot be decoded"))
}

async fn unary<M: Message>(
    definition: Option<UnaryResponseDefinition>,
    info: RequestInfo,
    of: impl FnOnce(ConformancePayload) -> M + Send + 'static,
) -> Response<Body> {
    let definition = definition.unwrap_or_default();
    tokio::time::sleep(Duration::from_millis(definition.response_delay_ms.into())).await;
    let (mut sender, response) = begin(&definition.response_headers);
    let outcome = match definition.response {
        Some(Outcome::Error(error)) => Err((error, Some(info))),
        Some(Outcome::ResponseData(data)) => {
            Ok(ConformancePayload { data, request_info: Some(info) })
        }
        None => Ok(ConformancePayload { data: Vec::new(), request_info: Some(info) }),
    };
    tokio::spawn(async move {
        let failed = match outcome {
            Ok(payload) => {
                let _gone = sender.send_data(framed(&of(payload).encode_to_vec())).await;
                None
            }
            Err(failed) => Some(failed),
        };
        let _gone = sender.send_trailers(trailers(&definition.response_trailers, failed)).await;
    });
    response
}

fn server_stream(request: ServerStreamRequest, info: RequestInfo) -> Response<Body> {
    let definition = request.response_definition.unwrap_or_default();
    let (mut sender, response) = begin(&definition.response_headers);
    tokio::spawn(async move {
        let mut info = Some(info);
        for data in definition.response_data {
            let delay = Duration::from_millis(definition.response_delay_ms.into());
            tokio::time::sleep(delay).await;
            let payload = Some(ConformancePayload { data, request_info: info.take() });
            let message = ServerStreamResponse { payload }.encode_to_vec();
            if sender.send_data(framed(&message)).await.is_err() {
                return;
            }
        }
        let failed = definition.error.map(|error| (error, info));
        let _gone = sender.send_trailers(trailers(&definition.response_trailers, failed)).await;
    });
    response
}

fn begin(headers: &[Header]) -> (Sender<Bytes, Infallible>, Response<Body>) {
    let (sender, body) = Channel::new(4);
    let mut response = Response::new(Body::new(body));
    add(response.headers_mut(), headers);
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    (sender, response)
}

fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.extend_from_slice(message);
    frame.freeze()
}

/// The trailers with which a call ends. What was asked for is told by an error that is all of the answer.
fn trailers(given: &[Header], failed: Option<(Error, Option<RequestInfo>)>) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    add(&mut trailers, given);
    let status = match failed {
        None => Status::new(Code::Ok, ""),
        Some((error, info)) => {
            let mut details = error.details;
            details.extend(info.and_then(|info| Any::from_msg(&info).ok()));
            let message = error.message.unwrap_or_default();
            let of_all =
                tonic_types::pb::Status { code: error.code, message: message.clone(), details };
            Status::with_details(Code::from_i32(error.code), message, of_all.encode_to_vec().into())
        }
    };
    let _written = status.add_header(&mut trailers);
    trailers
}

fn add(to: &mut HeaderMap, headers: &[Header]) {
    for Header { name, value } in headers {
        for value in value {
            if let (Ok(name), Ok(value)) =
                (HeaderName::try_from(name), HeaderValue::try_from(value))
            {
                to.append(name, value);
            }
        }
    }
}

fn request_info<M: Message + Name>(headers: &HeaderMap, request: &M) -> RequestInfo {
    let values = |name: &HeaderName| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok().map(str::to_owned))
            .collect()
    };
    let request_headers =
        headers.keys().map(|name| Header { name: name.to_string(), value: values(name) }).collect();
    RequestInfo {
        request_headers,
        timeout_ms: timeout_ms(headers),
        requests: Any::from_msg(request).into_iter().collect(),
        connect_get_info: None,
    }
}

fn timeout_ms(headers: &HeaderMap) -> Option<i64> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(ms) = text("connect-timeout-ms") {
        return ms.parse().ok();
    }
    let (number, unit) = text("grpc-timeout")?.split_at_checked(text("grpc-timeout")?.len() - 1)?;
    let number: i64 = number.parse().ok()?;
    Some(match unit {
        "H" => number * 3_600_000,
        "M" => number * 60_000,
        "S" => number * 1000,
        "u" => number / 1000,
        "n" => number / 1_000_000,
        _ => number,
    })
}
