//! What is wrong with how a request comes, before anybody looks at what it asks for.

use std::borrow::Cow;

use tonic::Code;
use tonic::codegen::http::{HeaderName, StatusCode, header};

/// Why a request is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RequestFault {
    /// There is no such method.
    UnknownMethod,
    /// The call is not offered in the content type. With those in which it is.
    ContentType(&'static str),
    /// The method of HTTP is not POST.
    HttpMethod,
    /// gRPC comes over HTTP/1.1.
    HttpVersion,
    /// A page in a browser sends it, and no token shows that it may.
    Browser,
    /// It is a stream of requests, and does not come by gRPC.
    StreamOfRequests,
    /// Its messages are compressed.
    Compressed,
    /// The rest of a message has not come in time.
    Incomplete,
    /// It is larger than [`crate::limits::GRPC_MESSAGE_BYTES_MAX`].
    TooLarge,
    /// It is a stream of Connect of no message or of several, or its frame is none.
    NotOneMessage,
    /// It is no protobuf of its type.
    Undecodable,
    /// It is no JSON object, or too much of one. With what is wrong.
    NotJson(String),
}

impl RequestFault {
    /// Returns its code, its stable reason, and a text for people.
    pub(super) fn row(&self) -> (Code, &'static str, Cow<'static, str>) {
        let (code, reason, message) = match self {
            Self::UnknownMethod => (
                Code::Unimplemented,
                "UNKNOWN_METHOD",
                "there is no such call: a call is POST /duelhub.v1.ControlService/<its name>",
            ),
            Self::ContentType(accepted) => {
                let text = "the content-type must be one that this call takes";
                let message = format!("{text}: {accepted}").into();
                return (Code::Unknown, "CONTENT_TYPE_UNSUPPORTED", message);
            }
            Self::HttpMethod => (Code::Unknown, "METHOD_NOT_ALLOWED", "the method must be POST"),
            Self::HttpVersion => (
                Code::Unknown,
                "HTTP_VERSION_UNSUPPORTED",
                "gRPC needs HTTP/2; over HTTP/1.1 calls are POSTs of application/json",
            ),
            Self::Browser => (
                Code::PermissionDenied,
                "BROWSER_REFUSED",
                "pages in a browser (header origin) are refused where no CONTROL_TOKEN is set",
            ),
            Self::StreamOfRequests => (
                Code::Unimplemented,
                "GRPC_ONLY",
                "this call is a stream of requests, which is offered over gRPC only",
            ),
            Self::Compressed => (
                Code::Unimplemented,
                "COMPRESSION_UNSUPPORTED",
                "compressed messages are not read: send them as they are, encoded as identity",
            ),
            Self::Incomplete => (
                Code::DeadlineExceeded,
                "REQUEST_INCOMPLETE",
                "the rest of the message has not come in time: 10 s are waited",
            ),
            Self::TooLarge => (
                Code::InvalidArgument,
                "INVALID_FIELD",
                "the request is too large: at most 4 MiB are read",
            ),
            Self::NotOneMessage => (
                Code::Unimplemented,
                "NOT_ONE_MESSAGE",
                "the request must be one message: a byte of 0, four bytes of length, the message",
            ),
            Self::Undecodable => (
                Code::InvalidArgument,
                "INVALID_FIELD",
                "the request cannot be decoded: a field has another type, or a text is not UTF-8",
            ),
            Self::NotJson(problem) => {
                return (Code::InvalidArgument, "INVALID_FIELD", problem.clone().into());
            }
        };
        (code, reason, message.into())
    }

    /// Returns the status of HTTP of an answer that is not gRPC's, if it is another one than its code has.
    pub(super) const fn http_status(&self) -> Option<StatusCode> {
        match self {
            Self::UnknownMethod => Some(StatusCode::NOT_FOUND),
            Self::ContentType(_) => Some(StatusCode::UNSUPPORTED_MEDIA_TYPE),
            Self::HttpMethod => Some(StatusCode::METHOD_NOT_ALLOWED),
            Self::HttpVersion => Some(StatusCode::HTTP_VERSION_NOT_SUPPORTED),
            Self::Browser
            | Self::StreamOfRequests
            | Self::Compressed
            | Self::Incomplete
            | Self::TooLarge
            | Self::NotOneMessage
            | Self::Undecodable
            | Self::NotJson(_) => None,
        }
    }

    /// Returns the header that tells a client what would be taken (RFC 9110, sections 10.2.1 and 12.5.3; Accept-Post: W3C Linked
    /// Data Platform, section 7.1).
    pub(super) const fn header(&self) -> Option<(HeaderName, &'static str)> {
        match self {
            Self::ContentType(accepted) => Some((HeaderName::from_static("accept-post"), accepted)),
            Self::HttpMethod => Some((header::ALLOW, "POST")),
            Self::Compressed => Some((header::ACCEPT_ENCODING, "identity")),
            Self::UnknownMethod
            | Self::HttpVersion
            | Self::Browser
            | Self::StreamOfRequests
            | Self::Incomplete
            | Self::TooLarge
            | Self::NotOneMessage
            | Self::Undecodable
            | Self::NotJson(_) => None,
        }
    }
}
