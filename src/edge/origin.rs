//! Which pages may use the data plane from a browser.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::request::X_REQUEST_ID;

/// Telegram's proof of who the user is.
pub(super) const X_TELEGRAM_INIT_DATA: HeaderName = HeaderName::from_static("x-telegram-init-data");

/// Stands in for it in development.
pub(super) const X_DEV_TELEGRAM_USER_ID: HeaderName =
    HeaderName::from_static("x-dev-telegram-user-id");

/// Returns whether a handshake's Origin is allowed. Only browsers are checked: other programs may omit the header, or write
/// into it what they like.
pub(super) fn is_allowed(headers: &HeaderMap, origins: &[String]) -> bool {
    let mut given = headers.get_all(header::ORIGIN).iter();
    match (given.next(), given.next()) {
        (None, _) => true,
        (Some(origin), None) => {
            origins.is_empty()
                || origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes())
        }
        (Some(_), Some(_)) => false,
    }
}

/// Applies the same rule to `fetch` (Fetch Standard, "HTTP-CORS protocol").
pub(super) fn cors(origins: &[String]) -> CorsLayer {
    let list: Vec<_> = origins.iter().filter_map(|o| HeaderValue::from_str(o).ok()).collect();
    let allow = if list.is_empty() { AllowOrigin::any() } else { AllowOrigin::list(list) };
    CorsLayer::new()
        .allow_origin(allow)
        .allow_methods([Method::GET, Method::OPTIONS])
        .allow_headers([header::CONTENT_TYPE, X_TELEGRAM_INIT_DATA, X_DEV_TELEGRAM_USER_ID])
        .expose_headers([X_REQUEST_ID])
        .max_age(Duration::from_secs(600))
}
