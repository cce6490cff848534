//! What all HTTP requests have in common: an id, the client's address, a log line, the envelope of the answer.

use axum::Extension;
use axum::body::Body;
use axum::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header,
};
use axum::response::{IntoResponse as _, Json};
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;
use tracing::info;

use super::client::Client;
use super::refusal_log::RefusalLog;
use crate::id::RequestId;
use crate::limits;

/// The header that carries a request's id, both ways.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The code of a malformed request.
pub const CLIENT_ERROR: &str = "bad_request";

/// Returns whether a browser asks for a page to show, rather than a program for an answer.
#[must_use]
pub fn asks_for_page(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted
        .flat_map(|list| list.split(','))
        .any(|kind| kind.split(';').next().is_some_and(|kind| kind.trim() == "text/html"))
}

/// A request's id and origin.
#[derive(Debug, Clone)]
pub(super) struct RequestInfo {
    pub(super) id: RequestId,
    pub(super) client: Client,
    received_at: Instant,
}

impl RequestInfo {
    pub(super) fn new<B>(request: &Request<B>, client: Client) -> Self {
        let given = request.headers().get(X_REQUEST_ID).and_then(|id| id.to_str().ok());
        Self {
            id: given.and_then(RequestId::adopt_hex).unwrap_or_else(RequestId::random),
            client,
            received_at: Instant::now(),
        }
    }

    /// Adds the request's id to the answer, and logs the request without its query, which may hold a ticket. Of many that are
    /// refused, some.
    pub(super) fn finish(
        &self,
        method: &Method,
        path: &str,
        mut response: Response<Body>,
        refusals: &RefusalLog,
    ) -> Response<Body> {
        if let Ok(id) = HeaderValue::from_str(self.id.as_str()) {
            response.headers_mut().insert(X_REQUEST_ID, id);
        }
        let status = response.status();
        let is_refused = status.is_client_error() || status.is_server_error();
        let told = if is_refused { refusals.admit() } else { Some(0) };
        if let Some(suppressed) = told.filter(|_| status != StatusCode::SWITCHING_PROTOCOLS) {
            let duration_us = u64::try_from(self.received_at.elapsed().as_micros()).unwrap_or(0);
            info!(request_id = %self.id, %method, path = shown(path), status = status.as_u16(),
                duration_us, client = %self.client, suppressed, "request");
        }
        response
    }
}

/// Returns what the log shows of a path. One that is none of the hub's may be long, and hold a ticket.
fn shown(path: &str) -> &str {
    &path[..path.floor_char_boundary(limits::PATH_BYTES_SHOWN_MAX)]
}

/// Returns whether a request says once which host it is for (RFC 9112, section 3.2).
pub(super) fn has_one_host<B>(request: &Request<B>) -> bool {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    hosts == 1 || hosts == 0 && request.version() < Version::HTTP_11
}

pub(super) fn host_required(id: &RequestId) -> Response<Body> {
    failure(id, StatusCode::BAD_REQUEST, CLIENT_ERROR, "A request must have one Host header")
}

/// Returns a successful answer in the envelope of the API.
pub fn success(id: &RequestId, data: impl Serialize) -> Response<Body> {
    let envelope = json!({"success": true, "request_id": id.as_str(), "data": data});
    no_store(Json(envelope).into_response())
}

/// Returns a refusal in the envelope of the API: a text for people, and a stable code.
pub fn failure(id: &RequestId, status: StatusCode, code: &str, error: &str) -> Response<Body> {
    let id = id.as_str();
    let envelope = json!({"success": false, "request_id": id, "error": error, "code": code});
    no_store((status, Json(envelope)).into_response())
}

fn no_store(mut response: Response<Body>) -> Response<Body> {
    let value = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, value);
    response
}

pub(super) async fn not_found(Extension(info): Extension<RequestInfo>) -> Response<Body> {
    failure(&info.id, StatusCode::NOT_FOUND, "not_found", "There is nothing at this path")
}

pub(super) async fn method_not_allowed(Extension(info): Extension<RequestInfo>) -> Response<Body> {
    let status = StatusCode::METHOD_NOT_ALLOWED;
    let mut response = failure(&info.id, status, "method_not_allowed", "This path is only for GET");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
    response
}
