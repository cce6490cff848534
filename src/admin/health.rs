//! Whether the node is ready, and what is in its way.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;

use super::Admin;

/// How the node stands.
pub(super) enum Health {
    /// The last probe's push reached its delivery in so much time.
    Ready(Duration),
    /// It is stopping.
    Stopping,
    /// It is not ready, for this reason.
    NotReady(String),
}

impl Health {
    pub(super) fn of(admin: &Admin) -> Self {
        let readiness = admin.hub.readiness();
        match readiness.ready() {
            Some(took) => Self::Ready(took),
            None if readiness.is_stopping() => Self::Stopping,
            None => Self::NotReady(readiness.obstacle().map_or_else(
                || "no push has reached its delivery of late; see the log".to_owned(),
                |obstacle| obstacle.to_string(),
            )),
        }
    }
}

pub(super) async fn readyz(State(admin): State<Arc<Admin>>) -> (StatusCode, String) {
    const NOT_READY: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
    match Health::of(&admin) {
        Health::Ready(took) => (StatusCode::OK, format!("ready: push to delivery took {took:?}\n")),
        Health::Stopping => (NOT_READY, "not ready: the node is stopping\n".to_owned()),
        Health::NotReady(why) => (NOT_READY, format!("not ready: {why}\n")),
    }
}
