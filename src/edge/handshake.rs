//! The opening handshake (RFC 6455, section 4.2): from an HTTP request to an accepted WebSocket.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header,
};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Redirect};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::admission::{ConnectionSlot, LimitReached};
use super::request::{CLIENT_ERROR, RequestInfo, asks_for_page, failure};
use super::{Edge, HandshakeCell, origin};
use crate::config::Secret;
use crate::event::{Epoch, Position};
use crate::metrics::ReasonLabel;
use crate::ticket::{InvalidTicket, Ticket};

/// The subprotocol of this hub. A ticket may be offered beside it, which keeps the ticket out of access logs.
const SUBPROTOCOL: &str = "duelhub.v1";

/// A handshake that succeeded.
#[derive(Debug)]
pub(super) struct Handshake {
    pub(super) info: RequestInfo,
    /// The ticket, and the connection that is reserved for it. Held for as long as the connection lives.
    pub(super) admitted: Result<(Ticket, ConnectionSlot), InvalidTicket>,
    /// The position that the client asks to resume from.
    pub(super) resume: Option<Position>,
}

/// Answers `GET /`, `/ws` and `/ws/`.
pub(super) async fn open(
    State(edge): State<Arc<Edge>>,
    Extension(info): Extension<RequestInfo>,
    Extension(cell): Extension<HandshakeCell>,
    request: Request<Body>,
) -> Response<Body> {
    let headers = request.headers();
    let accept = match accept_key(request.version(), headers) {
        Ok(accept) => accept,
        Err(refusal) => return refusal.answer(&edge, &info),
    };
    if !edge.origins.admit(headers) {
        return HandshakeRefusal::Origin.answer(&edge, &info);
    }
    let (speaks, offered_ticket) = subprotocols(headers);
    let query = request.uri().query().unwrap_or_default();
    let ticket = offered_ticket.or_else(|| parameter(query, "ticket")).map(Secret::new);
    let verified = edge.tickets.verify(ticket.as_ref().map_or("", Secret::as_str));
    let admitted = match verified {
        Ok(ticket) => {
            edge.admission.reserve(ticket.viewer.user, info.client).map(|slot| Ok((ticket, slot)))
        }
        Err(invalid) => edge.admission.admit_stranger(info.client).map(|()| Err(invalid)),
    };
    let admitted = match admitted {
        Ok(admitted) => admitted,
        Err(limit) => return HandshakeRefusal::Limit(limit).answer(&edge, &info),
    };
    // An unreadable position is in no history, so that the client is told that it was not recovered.
    let resume = parameter(query, "resume")
        .map(|text| text.parse().unwrap_or_else(|_| Position { epoch: Epoch::random(), seq: 0 }));
    *cell.lock() = Some(Handshake { info, admitted, resume });
    switching_protocols(&accept, speaks)
}

/// Redirects a browser that opens `/` to `home`, if there is one. A handshake, and whoever asks for anything but a page, goes on.
pub(super) async fn lead_browsers_home(
    State(home): State<Option<&'static str>>,
    request: Request<Body>,
    next: Next,
) -> Response<Body> {
    let headers = request.headers();
    let is_browser = asks_for_page(headers)
        && request.method() == Method::GET
        && !headers.contains_key(header::UPGRADE);
    match home.filter(|_| is_browser) {
        // Not for good: on this port the next program may have no such page.
        Some(home) => Redirect::temporary(home).into_response(),
        None => next.run(request).await,
    }
}

fn switching_protocols(accept: &str, speaks: bool) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if speaks {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    response
}

/// What is counted of a client that does not speak HTTP.
pub(super) const NO_HTTP: &str = "http";

/// Returns what refusals without a WebSocket are counted as.
pub(super) fn refusals() -> impl Iterator<Item = &'static str> {
    use HandshakeRefusal as Refusal;
    let refusals = [Refusal::NotAHandshake, Refusal::Version, Refusal::Key, Refusal::Origin];
    let refusals = refusals.into_iter().chain(LimitReached::ALL.map(Refusal::Limit));
    [NO_HTTP].into_iter().chain(refusals.map(|refusal| refusal.row().1))
}

/// Why a handshake is refused with plain HTTP.
enum HandshakeRefusal {
    /// Not a WebSocket handshake: somebody opens the address in a browser.
    NotAHandshake,
    /// A handshake of another version (RFC 6455, section 4.4).
    Version,
    /// No usable `Sec-WebSocket-Key`.
    Key,
    /// The Origin is not the WebApp's.
    Origin,
    /// A limit is reached.
    Limit(LimitReached),
}

impl HandshakeRefusal {
    const fn row(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::NotAHandshake => (
                StatusCode::UPGRADE_REQUIRED,
                "upgrade_required",
                "This is a WebSocket: open it as wss://, with a proxy that passes Upgrade on",
            ),
            Self::Version => {
                (StatusCode::UPGRADE_REQUIRED, "version", "Sec-WebSocket-Version must be 13")
            }
            Self::Key => (
                StatusCode::BAD_REQUEST,
                CLIENT_ERROR,
                "Sec-WebSocket-Key must be 16 bytes in base64",
            ),
            Self::Origin => {
                (StatusCode::FORBIDDEN, origin::REFUSED, "Pages of this Origin are not allowed")
            }
            Self::Limit(LimitReached::Address) => {
                (StatusCode::TOO_MANY_REQUESTS, "too_many_connections", "Too many connections")
            }
            Self::Limit(LimitReached::UserRate | LimitReached::StrangerRate) => {
                (StatusCode::TOO_MANY_REQUESTS, "too_many_requests", "Too many handshakes")
            }
            Self::Limit(LimitReached::Rate) => {
                (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Too many handshakes at a time")
            }
            Self::Limit(LimitReached::Full) => {
                (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Too many connections in all")
            }
        }
    }

    fn answer(&self, edge: &Edge, info: &RequestInfo) -> Response<Body> {
        let (status, code, text) = self.row();
        edge.metrics.handshakes_refused.get_or_create(&ReasonLabel { reason: code }).inc();
        let mut response = failure(&info.id, status, code, text);
        let headers = response.headers_mut();
        match self {
            Self::NotAHandshake | Self::Version => {
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            }
            Self::Limit(_) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::Key | Self::Origin => {}
        }
        response
    }
}

/// Reads all that a handshake says.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(query: &str, version: Version, headers: &HeaderMap) {
    drop((accept_key(version, headers), subprotocols(headers)));
    let resume = parameter(query, "resume").map(|text| text.parse::<Position>());
    drop((parameter(query, "ticket"), resume));
}

/// Returns the value of `Sec-WebSocket-Accept` (RFC 6455, section 4.2.2).
fn accept_key(version: Version, headers: &HeaderMap) -> Result<String, HandshakeRefusal> {
    let has = |name, token: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values
            .flat_map(|list| list.split(','))
            .any(|given| given.trim().eq_ignore_ascii_case(token))
    };
    let upgrade = has(header::UPGRADE, "websocket") && has(header::CONNECTION, "upgrade");
    if version < Version::HTTP_11 || !upgrade {
        return Err(HandshakeRefusal::NotAHandshake);
    }
    if only(headers, &header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(HandshakeRefusal::Version);
    }
    let key = only(headers, &header::SEC_WEBSOCKET_KEY).ok_or(HandshakeRefusal::Key)?.as_bytes();
    let base64 = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    // 16 bytes are 22 characters of base64 and two of padding.
    if key.len() != 24 || !key[..22].iter().all(base64) || &key[22..] != b"==" {
        return Err(HandshakeRefusal::Key);
    }
    Ok(derive_accept_key(key))
}

/// Returns the value of a header that must not be given twice (RFC 6455, sections 11.3.1 and 11.3.5).
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Returns whether the client offers our subprotocol, and the ticket that it offers beside it.
fn subprotocols(headers: &HeaderMap) -> (bool, Option<String>) {
    let lists = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let lists = lists.filter_map(|list| list.to_str().ok());
    let offered: Vec<_> = lists.flat_map(|list| list.split(',')).map(str::trim).collect();
    if !offered.contains(&SUBPROTOCOL) {
        return (false, None);
    }
    // An empty element of a list is none (RFC 9110, section 5.6.1.2).
    let ticket = offered.iter().find(|offer| !offer.is_empty() && **offer != SUBPROTOCOL);
    (true, ticket.map(|ticket| (*ticket).to_owned()))
}

/// Returns the value of a query parameter that is given exactly once.
fn parameter(query: &str, name: &str) -> Option<String> {
    let mut values = form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == name);
    match (values.next(), values.next()) {
        (Some((_, value)), None) => Some(value.into_owned()),
        _ => None,
    }
}
