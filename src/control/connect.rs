//! The Connect protocol (connectrpc.com/docs/protocol), turned into gRPC and back.
//!
//! A unary request is one message without gRPC's frame around it, and its answer has its status in the head. A stream's messages
//! have the frame of gRPC, and its last one, flagged, says how it ended.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use serde::Serialize;
use tonic::body::Body;
use tonic::codegen::http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header,
};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::body::RequestBody;
use super::json;
use super::protocol::{ConnectCall, Encoding};
use super::request_fault::RequestFault;
use super::schema::Schema;
use super::status::Failure;
use crate::limits;

/// Bytes before each message of a stream: flags, and its length. gRPC has the same.
const FRAME_HEAD_BYTES: usize = 5;

/// The flag of the message that ends a stream.
const END_OF_STREAM: u8 = 0b10;

/// Headers of an answer that concern gRPC alone, or one way of writing it.
const NOT_METADATA: [&str; 5] =
    ["content-type", "grpc-status", "grpc-message", "grpc-status-details-bin", "grpc-encoding"];

/// Why a call by Connect fails.
pub(super) enum Fault {
    /// For a reason that is not noted yet.
    Failure(Failure),
    /// With what its caller is told.
    Status(Status),
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl Encoding {
    const fn unary_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Json => "application/json",
            Self::Proto => "application/proto",
        })
    }

    const fn stream_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Json => "application/connect+json",
            Self::Proto => "application/connect+proto",
        })
    }

    fn decode(self, of: &MessageDescriptor, bytes: Bytes) -> Result<Bytes, Failure> {
        match self {
            Self::Proto => Ok(bytes),
            Self::Json => json::decode(of, &bytes).map(Bytes::from),
        }
    }

    fn encode(self, of: &MessageDescriptor, bytes: Bytes) -> Result<Bytes, Failure> {
        match self {
            Self::Proto => Ok(bytes),
            Self::Json => json::encode(of, &bytes).map(Bytes::from),
        }
    }
}

/// Reads a request to its end, and returns it as gRPC's.
pub(super) async fn request(
    call: &ConnectCall,
    request: Request<RequestBody>,
) -> Result<Request<RequestBody>, Fault> {
    let (mut head, body) = request.into_parts();
    let bytes = whole(body).await?;
    let message = if call.is_stream { only_message(bytes)? } else { bytes };
    let message = framed(0, &call.encoding.decode(&call.method.input(), message)?);
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    Ok(Request::from_parts(head, RequestBody::Read(Some(message))))
}

async fn whole(mut body: RequestBody) -> Result<Bytes, Fault> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(Fault::Status)?.into_data() else { continue };
        if bytes.len() + data.len() > limits::GRPC_MESSAGE_BYTES_MAX + FRAME_HEAD_BYTES {
            return Err(Fault::Failure(RequestFault::TooLarge.into()));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

/// Takes the one message out of the stream that a request is.
fn only_message(mut stream: Bytes) -> Result<Bytes, Failure> {
    if stream.len() < FRAME_HEAD_BYTES {
        return Err(RequestFault::NotOneMessage.into());
    }
    let (flags, length) = (stream.get_u8(), stream.get_u32());
    match flags {
        0 if usize::try_from(length).is_ok_and(|length| length == stream.len()) => Ok(stream),
        1 => Err(RequestFault::Compressed.into()),
        _ => Err(RequestFault::NotOneMessage.into()),
    }
}

fn framed(flags: u8, message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(FRAME_HEAD_BYTES + message.len());
    frame.put_u8(flags);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.extend_from_slice(message);
    frame.freeze()
}

/// Returns the answer of a service as Connect's. That of a stream is turned as it leaves ([`StreamEncoder`]).
pub(super) async fn response(
    call: &ConnectCall,
    mut response: Response<Body>,
) -> Result<Response<Body>, Fault> {
    if let Some(status) = failed(response.headers()) {
        return Err(Fault::Status(status));
    }
    if call.is_stream {
        response.headers_mut().insert(header::CONTENT_TYPE, call.encoding.stream_type());
        return Ok(response);
    }
    let (mut head, body) = response.into_parts();
    let collected = body.collect().await.map_err(Fault::Status)?;
    let trailers = collected.trailers().cloned().unwrap_or_default();
    for (name, value) in metadata(&trailers) {
        if let Ok(name) = HeaderName::try_from(format!("trailer-{name}")) {
            head.headers.append(name, value.clone());
        }
    }
    if let Some(mut status) = failed(&trailers) {
        *status.metadata_mut() = MetadataMap::from_headers(head.headers);
        return Err(Fault::Status(status));
    }
    let mut message = collected.to_bytes();
    message.advance(FRAME_HEAD_BYTES.min(message.len()));
    let message = call.encoding.encode(&call.method.output(), message)?;
    head.headers.insert(header::CONTENT_TYPE, call.encoding.unary_type());
    Ok(Response::from_parts(head, Body::new(Full::new(message))))
}

/// Returns the status of an answer that is an error.
fn failed(headers: &HeaderMap) -> Option<Status> {
    Status::from_header_map(headers).filter(|status| status.code() != Code::Ok)
}

fn metadata(headers: &HeaderMap) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
    headers.iter().filter(|(name, _)| !NOT_METADATA.contains(&name.as_str()))
}

/// Turns the answer of a stream into Connect's, piece by piece.
#[derive(Debug)]
pub(super) struct StreamEncoder {
    schema: Schema,
    message: MessageDescriptor,
    encoding: Encoding,
}

impl StreamEncoder {
    pub(super) fn new(call: &ConnectCall, schema: &Schema) -> Self {
        Self { schema: schema.clone(), message: call.method.output(), encoding: call.encoding }
    }

    /// Turns messages in gRPC's frames, of which there is no part.
    pub(super) fn messages(&self, mut frames: Bytes) -> Result<Bytes, Failure> {
        if self.encoding == Encoding::Proto {
            return Ok(frames);
        }
        let mut turned = BytesMut::new();
        while frames.len() >= FRAME_HEAD_BYTES {
            let _flags = frames.get_u8();
            let length = usize::try_from(frames.get_u32()).unwrap_or(usize::MAX);
            let message = frames.split_to(length.min(frames.len()));
            turned.extend_from_slice(&framed(0, &self.encoding.encode(&self.message, message)?));
        }
        Ok(turned.freeze())
    }

    /// Returns the message that ends the stream, as the trailers of gRPC do.
    pub(super) fn end(&self, trailers: &HeaderMap) -> Bytes {
        end_of_stream(failed(trailers).as_ref(), trailers, &self.schema)
    }
}

fn end_of_stream(failed: Option<&Status>, trailers: &HeaderMap, schema: &Schema) -> Bytes {
    let mut of_all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (name, value) in metadata(trailers) {
        of_all.entry(name.as_str()).or_default().extend(value.to_str());
    }
    let error = failed.map(|status| Error::new(status, schema));
    framed(END_OF_STREAM, &json_text(&EndOfStream { error, metadata: of_all }))
}

/// Returns the answer to a call that fails. `call` is `None` if it speaks no protocol.
pub(super) fn refusal(
    call: Option<&ConnectCall>,
    failure: Option<&Failure>,
    status: &Status,
    schema: &Schema,
) -> Response<Body> {
    let of_status = status.metadata().clone().into_headers();
    let mut response = Response::default();
    if let Some(call) = call.filter(|call| call.is_stream) {
        response.headers_mut().insert(header::CONTENT_TYPE, call.encoding.stream_type());
        let end = end_of_stream(Some(status), &of_status, schema);
        return response.map(|()| Body::new(Full::new(end)));
    }
    let fault = failure.and_then(Failure::request_fault);
    *response.status_mut() =
        fault.and_then(RequestFault::http_status).unwrap_or(row(status.code()).1);
    let headers = response.headers_mut();
    for (name, value) in metadata(&of_status) {
        headers.append(name.clone(), value.clone());
    }
    headers.insert(header::CONTENT_TYPE, Encoding::Json.unary_type());
    let told = match failure {
        // RFC 9110, section 11.6.1.
        Some(Failure::Unauthenticated) => Some((header::WWW_AUTHENTICATE, "Bearer")),
        _ => fault.and_then(RequestFault::header),
    };
    if let Some((name, value)) = told {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let error = json_text(&Error::new(status, schema));
    response.map(|()| Body::new(Full::new(error)))
}

/// An error as Connect writes it.
#[derive(Serialize)]
struct Error<'a> {
    code: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<Detail>,
}

/// A detail of an error. `debug` shows what `value` encodes.
#[derive(Serialize)]
struct Detail {
    r#type: String,
    value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    debug: Option<DynamicMessage>,
}

/// The last message of a stream.
#[derive(Serialize)]
struct EndOfStream<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Error<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<&'a str, Vec<&'a str>>,
}

impl<'a> Error<'a> {
    fn new(status: &'a Status, schema: &Schema) -> Self {
        let details = tonic_types::pb::Status::decode(status.details()).unwrap_or_default().details;
        let details = details.into_iter().map(|detail| {
            let name = detail.type_url.rsplit('/').next().unwrap_or_default();
            let message = schema.message(name);
            Detail {
                r#type: name.to_owned(),
                value: STANDARD_NO_PAD.encode(&detail.value),
                debug: message.and_then(|of| DynamicMessage::decode(of, &*detail.value).ok()),
            }
        });
        Self { code: row(status.code()).0, message: status.message(), details: details.collect() }
    }
}

/// Writes what cannot fail to be written: its keys are strings.
fn json_text(of: &impl Serialize) -> Bytes {
    serde_json::to_vec(of).unwrap_or_default().into()
}

/// The name of a code, and the status of HTTP that goes with it (connectrpc.com/docs/protocol, "Error Codes").
fn row(of: Code) -> (&'static str, StatusCode) {
    match of {
        Code::Ok => ("ok", StatusCode::OK),
        Code::Cancelled => ("canceled", StatusCode::from_u16(499).unwrap_or_default()),
        Code::Unknown => ("unknown", StatusCode::INTERNAL_SERVER_ERROR),
        Code::InvalidArgument => ("invalid_argument", StatusCode::BAD_REQUEST),
        Code::DeadlineExceeded => ("deadline_exceeded", StatusCode::GATEWAY_TIMEOUT),
        Code::NotFound => ("not_found", StatusCode::NOT_FOUND),
        Code::AlreadyExists => ("already_exists", StatusCode::CONFLICT),
        Code::PermissionDenied => ("permission_denied", StatusCode::FORBIDDEN),
        Code::ResourceExhausted => ("resource_exhausted", StatusCode::TOO_MANY_REQUESTS),
        Code::FailedPrecondition => ("failed_precondition", StatusCode::BAD_REQUEST),
        Code::Aborted => ("aborted", StatusCode::CONFLICT),
        Code::OutOfRange => ("out_of_range", StatusCode::BAD_REQUEST),
        Code::Unimplemented => ("unimplemented", StatusCode::NOT_IMPLEMENTED),
        Code::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR),
        Code::Unavailable => ("unavailable", StatusCode::SERVICE_UNAVAILABLE),
        Code::DataLoss => ("data_loss", StatusCode::INTERNAL_SERVER_ERROR),
        Code::Unauthenticated => ("unauthenticated", StatusCode::UNAUTHORIZED),
    }
}
