//! The operators' console: a page that shows how the node does, the duels, and one duel's log as it grows. It changes nothing.
//!
//! The page is in `webapp/console/`. It asks [`api`] about once a second while somebody looks at it, and keeps the history itself,
//! so that the hub does nothing for it otherwise. On loopback it is as open as `/metrics`; beyond, [`ConsoleAccess`] says who reads.
//!
//! Pages of strangers run in the operator's browser, too, which reaches this listener on loopback or through a tunnel.
//! [`refuse_strangers`] refuses what they send: under a name that was made to lead here (DNS rebinding), or from another origin.

mod api;
mod payload_text;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;

use self::api::Refusal;
use super::Admin;
use crate::config::ConsoleAccess;

/// The page's files in `webapp/`, and the paths under `/console/` at which they are served.
const FILES: [(&str, &str, &str); 15] = [
    ("", "text/html; charset=utf-8", include_str!("../../webapp/console/index.html")),
    ("console.css", CSS, include_str!("../../webapp/console/console.css")),
    ("theme.css", CSS, include_str!("../../webapp/theme.css")),
    ("icon.svg", "image/svg+xml", include_str!("../../webapp/console/icon.svg")),
    ("main.js", JAVASCRIPT, include_str!("../../webapp/console/main.js")),
    ("hub.js", JAVASCRIPT, include_str!("../../webapp/console/hub.js")),
    ("history.js", JAVASCRIPT, include_str!("../../webapp/console/history.js")),
    ("chart.js", JAVASCRIPT, include_str!("../../webapp/console/chart.js")),
    ("overview.js", JAVASCRIPT, include_str!("../../webapp/console/overview.js")),
    ("duels.js", JAVASCRIPT, include_str!("../../webapp/console/duels.js")),
    ("duel.js", JAVASCRIPT, include_str!("../../webapp/console/duel.js")),
    ("format.js", JAVASCRIPT, include_str!("../../webapp/console/format.js")),
    ("words.js", JAVASCRIPT, include_str!("../../webapp/console/words.js")),
    ("vendor/uPlot.esm.js", JAVASCRIPT, include_str!("../../webapp/vendor/uPlot.esm.js")),
    ("vendor/uPlot.min.css", CSS, include_str!("../../webapp/vendor/uPlot.min.css")),
];
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// What every answer says. The page loads nothing from elsewhere, runs no script that stands in it, and is shown in no frame.
const HEADERS: [(HeaderName, HeaderValue); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        ),
    ),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

/// Returns the routes of the console.
pub(super) fn router(admin: Arc<Admin>) -> Router<Arc<Admin>> {
    let api = api::router().layer(from_fn_with_state(admin, refuse_unauthorized));
    Router::new()
        .route("/", get(to_console))
        .route("/console", get(to_console))
        .route("/console/", get(file))
        .route("/console/{*path}", get(file))
        .nest("/console/api", api)
        .layer(from_fn(refuse_strangers))
}

/// Not for good: another program may have this port next.
async fn to_console() -> Redirect {
    Redirect::temporary("/console/")
}

async fn file(path: Option<Path<String>>) -> Response {
    let path = path.map_or_else(String::new, |Path(path)| path);
    let Some((_, kind, text)) = FILES.iter().find(|(name, ..)| *name == path) else {
        return Refusal::new(StatusCode::NOT_FOUND, "There is no such file").into_response();
    };
    ([(header::CONTENT_TYPE, *kind)], *text).into_response()
}

/// Refuses what a page of another origin sends, and says the [`HEADERS`] in every answer.
async fn refuse_strangers(request: Request, next: Next) -> Response {
    let mut response = match stranger(&request) {
        None => next.run(request).await,
        Some(why) => Refusal::new(StatusCode::FORBIDDEN, why).into_response(),
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, value);
    }
    response
}

/// Returns why a request may be a stranger's, if it may.
fn stranger(request: &Request) -> Option<&'static str> {
    let headers = request.headers();
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    let named = host.filter(|_| hosts.next().is_none()).and_then(|host| host.parse().ok());
    // The host of the request's line counts for more, if there is one (RFC 9112, section 3.2.2).
    let in_line = request.uri().authority();
    if !named.as_ref().is_some_and(is_address) || in_line.is_some_and(|host| !is_address(host)) {
        return Some("The console answers under an IP address or localhost alone");
    }
    let own = host.map(|host| format!("http://{host}"));
    let is_own = |origin: &HeaderValue| own.as_ref().is_some_and(|own| origin == own.as_str());
    if headers.get_all(header::ORIGIN).iter().any(|origin| !is_own(origin)) {
        return Some("The request comes from a page of another origin");
    }
    // A link on a page of this machine, such as the demo's, may lead here. That page reads nothing of what opens.
    let is_visit = headers.get("sec-fetch-mode").is_some_and(|mode| mode == "navigate");
    let is_trusted = |site: &HeaderValue| {
        site == "same-origin" || site == "none" || site == "same-site" && is_visit
    };
    if headers.get_all("sec-fetch-site").iter().any(|site| !is_trusted(site)) {
        return Some("The request comes from a page of another site");
    }
    None
}

/// Returns whether a host is no name that others could make lead here.
fn is_address(host: &Authority) -> bool {
    let name = host.host();
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.parse::<IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost")
}

async fn refuse_unauthorized(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    request: Request,
    next: Next,
) -> Response {
    match &admin.config.console_access {
        ConsoleAccess::Local => next.run(request).await,
        ConsoleAccess::Token(token) if token.is_shown_by(&headers) => next.run(request).await,
        ConsoleAccess::Token(_) => {
            let refusal = Refusal::new(StatusCode::UNAUTHORIZED, "The control token is needed");
            ([(header::WWW_AUTHENTICATE, "Bearer")], refusal).into_response()
        }
        ConsoleAccess::Nobody => Refusal::new(
            StatusCode::FORBIDDEN,
            "ADMIN_HOST is not loopback, so the console needs CONTROL_TOKEN, which is unset",
        )
        .into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_address_or_localhost() {
        for good in
            ["127.0.0.1:8091", "10.1.2.3", "[::1]:8091", "[::1]", "localhost", "LocalHost:9"]
        {
            assert!(is_address(&good.parse().unwrap()), "{good}");
        }
        for bad in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "a:80"] {
            assert!(!is_address(&bad.parse().unwrap()), "{bad}");
        }
    }
}
