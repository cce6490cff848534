//! Which of three protocols a call speaks, by its content type, and which calls there are.
//!
//! gRPC is the protocol of the services. What comes by Connect is turned into gRPC, and its answer back ([`super::connect`]), so
//! that each call exists once.

use prost_reflect::MethodDescriptor;
use tonic::codegen::http::{HeaderValue, Method as HttpMethod, Request, Version, header};

use super::request_fault::RequestFault;
use super::schema::Schema;

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Proto,
    Json,
}

/// What a content type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ContentType {
    Grpc,
    Unary(Encoding),
    Stream(Encoding),
}

/// The protocol of one call.
#[derive(Debug, Clone)]
pub(super) enum Protocol {
    Grpc,
    Connect(ConnectCall),
}

/// A call by Connect. It has one message.
#[derive(Debug, Clone)]
pub(super) struct ConnectCall {
    pub(super) method: MethodDescriptor,
    pub(super) encoding: Encoding,
    /// Whether its messages have frames, because its answer is a stream. A call that asks by a stream is one only to be refused.
    pub(super) is_stream: bool,
}

/// The content types of a call whose request and answer are one message each.
const UNARY_TYPES: &str = "application/json, application/proto, application/grpc";
/// Those of one whose answer is a stream.
const STREAM_TYPES: &str = "application/connect+json, application/connect+proto, application/grpc";
/// That of one whose request is a stream.
const GRPC_TYPE: &str = "application/grpc";

impl Protocol {
    /// Returns the header that names the compression of the request.
    pub(super) const fn compression(&self) -> &'static str {
        match self {
            Self::Grpc => "grpc-encoding",
            Self::Connect(ConnectCall { is_stream: false, .. }) => "content-encoding",
            Self::Connect(ConnectCall { is_stream: true, .. }) => "connect-content-encoding",
        }
    }

    /// Returns whether the messages of the request have frames.
    pub(super) const fn is_framed(&self) -> bool {
        !matches!(self, Self::Connect(ConnectCall { is_stream: false, .. }))
    }
}

impl ContentType {
    fn read(value: &HeaderValue) -> Option<Self> {
        let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        Some(match essence.trim_ascii().to_ascii_lowercase().as_slice() {
            b"application/grpc" | b"application/grpc+proto" => Self::Grpc,
            b"application/json" => Self::Unary(Encoding::Json),
            b"application/proto" => Self::Unary(Encoding::Proto),
            b"application/connect+json" => Self::Stream(Encoding::Json),
            b"application/connect+proto" => Self::Stream(Encoding::Proto),
            _ => return None,
        })
    }
}

impl Schema {
    /// Returns the protocol of a call.
    ///
    /// # Errors
    /// It speaks none of those that the call is offered in. It is answered as Connect says, which people can read, too.
    pub(super) fn protocol<B>(&self, request: &Request<B>) -> Result<Protocol, RequestFault> {
        let content_type = request.headers().get(header::CONTENT_TYPE).and_then(ContentType::read);
        let is_post = request.method() == HttpMethod::POST;
        if content_type == Some(ContentType::Grpc) && is_post {
            // Which call it is, the services say.
            return match request.version() {
                Version::HTTP_2 => Ok(Protocol::Grpc),
                _ => Err(RequestFault::HttpVersion),
            };
        }
        let method = self.method(request.uri().path()).ok_or(RequestFault::UnknownMethod)?;
        if !is_post {
            return Err(RequestFault::HttpMethod);
        }
        let (asks, answers) = (method.is_client_streaming(), method.is_server_streaming());
        let connect = |encoding, is_stream| {
            Ok(Protocol::Connect(ConnectCall { method: method.clone(), encoding, is_stream }))
        };
        match (content_type, asks, answers) {
            (Some(ContentType::Unary(encoding)), false, false) => connect(encoding, false),
            // One that asks by a stream is refused by its own protocol: clients show no more of another answer than its status.
            (Some(ContentType::Stream(encoding)), false, true)
            | (Some(ContentType::Stream(encoding)), true, _) => connect(encoding, true),
            (_, false, false) => Err(RequestFault::ContentType(UNARY_TYPES)),
            (_, false, true) => Err(RequestFault::ContentType(STREAM_TYPES)),
            (_, true, _) => Err(RequestFault::ContentType(GRPC_TYPE)),
        }
    }
}
