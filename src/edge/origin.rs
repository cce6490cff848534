//! Which pages may use the data plane from a browser.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, header};
use axum::middleware::Next;
use parking_lot::Mutex;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tracing::warn;

use super::Edge;
use super::request::{RequestInfo, X_REQUEST_ID};
use super::tickets::TicketRefusal;
use crate::limits;

/// Telegram's proof of who the user is.
pub(super) const X_TELEGRAM_INIT_DATA: HeaderName = HeaderName::from_static("x-telegram-init-data");

/// Stands in for it in development.
pub(super) const X_DEV_TELEGRAM_USER_ID: HeaderName =
    HeaderName::from_static("x-dev-telegram-user-id");

/// The code of a refusal because of the Origin.
pub(super) const REFUSED: &str = "origin";

/// The origins whose pages may use the data plane.
#[derive(Debug)]
pub(super) struct Origins {
    /// Empty: any.
    allowed: Vec<String>,
    /// The refused ones that the log has named.
    warned: Mutex<HashSet<HeaderValue>>,
}

impl Origins {
    pub(super) fn new(allowed: Vec<String>) -> Self {
        Self { allowed, warned: Mutex::default() }
    }

    /// Returns whether a request's Origin is allowed. Only browsers are checked: other programs may omit the header, or write
    /// into it what they like. Warns of an origin that is not, once.
    pub(super) fn admit(&self, headers: &HeaderMap) -> bool {
        let mut given = headers.get_all(header::ORIGIN).iter();
        match (given.next(), given.next()) {
            (None, _) => true,
            (Some(origin), None) if self.is_allowed(origin) => true,
            (Some(origin), _) => {
                self.warn_once(origin);
                false
            }
        }
    }

    fn is_allowed(&self, origin: &HeaderValue) -> bool {
        let is_origin = |allowed: &String| allowed.as_bytes() == origin.as_bytes();
        self.allowed.is_empty() || self.allowed.iter().any(is_origin)
    }

    fn warn_once(&self, origin: &HeaderValue) {
        if origin.len() > limits::ORIGIN_BYTES_SHOWN_MAX {
            return;
        }
        let mut warned = self.warned.lock();
        if warned.len() < limits::ORIGINS_WARNED_MAX && warned.insert(origin.clone()) {
            drop(warned);
            warn!(?origin, "pages of this origin are refused: it is not in WEBAPP_URL");
        }
    }

    /// Applies the same rule to `fetch` (Fetch Standard, "HTTP-CORS protocol").
    pub(super) fn cors(&self) -> CorsLayer {
        let list = self.allowed.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
        let list: Vec<_> = list.collect();
        let allow = if list.is_empty() { AllowOrigin::any() } else { AllowOrigin::list(list) };
        CorsLayer::new()
            .allow_origin(allow)
            .allow_methods([Method::GET, Method::OPTIONS])
            .allow_headers([header::CONTENT_TYPE, X_TELEGRAM_INIT_DATA, X_DEV_TELEGRAM_USER_ID])
            .expose_headers([header::RETRY_AFTER, X_REQUEST_ID])
            .max_age(Duration::from_secs(600))
    }
}

/// Refuses what a page of another origin asks the ticket API, before anything is done for it: its browser would not hand the
/// answer over. The preflight as well, which is all that a browser sends then.
pub(super) async fn refuse_others(
    State(edge): State<Arc<Edge>>,
    Extension(info): Extension<RequestInfo>,
    request: Request,
    next: Next,
) -> Response<Body> {
    if edge.origins.admit(request.headers()) {
        next.run(request).await
    } else {
        TicketRefusal::Origin.answer(&edge, &info)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refused_origin_is_told_once_and_a_flood_of_them_ends() {
        let origins = Origins::new(vec!["https://a.example".to_owned()]);
        let admit = |origin: &str| {
            let headers = [(header::ORIGIN, HeaderValue::from_str(origin).unwrap())];
            origins.admit(&HeaderMap::from_iter(headers))
        };
        let warned = || origins.warned.lock().len();
        assert!(origins.admit(&HeaderMap::new()) && admit("https://a.example"));
        assert_eq!(warned(), 0);
        assert!(!admit("https://b.example") && !admit("https://b.example"));
        assert_eq!(warned(), 1);
        assert!(!admit(&"x".repeat(limits::ORIGIN_BYTES_SHOWN_MAX + 1)));
        assert_eq!(warned(), 1);
        for number in 0..2 * limits::ORIGINS_WARNED_MAX {
            assert!(!admit(&format!("https://{number}.example")));
        }
        assert_eq!(warned(), limits::ORIGINS_WARNED_MAX);
    }
}
