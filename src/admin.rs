//! Health, readiness and metrics, in plain text on a listener of their own. It has no authentication, and so stays on
//! loopback.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::hub::Hub;
use crate::metrics::Metrics;

/// The content type that Prometheus asks for (OpenMetrics 1.0, "Content Type").
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The admin listener.
#[derive(Debug)]
pub struct Admin {
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
}

impl Admin {
    /// Creates the listener of `hub`.
    #[must_use]
    pub const fn new(hub: Arc<Hub>, metrics: Arc<Metrics>) -> Self {
        Self { hub, metrics }
    }

    /// Serves `listener` until `stop`.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let router = Router::new()
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(Arc::new(self));
        let serving = axum::serve(listener, router);
        tokio::select! {
            _never = serving => {}
            () = stop.cancelled() => {}
        }
    }

    /// Sets the gauges whose values are kept elsewhere.
    fn refresh(&self) {
        let counts = self.hub.counts();
        let ready = self.hub.readiness().ready();
        let metrics = &self.metrics;
        metrics.duels.set(gauge(counts.engine.duels));
        metrics.remembered_tickets.set(gauge(counts.engine.remembered_tickets));
        metrics.live_duels.set(gauge(counts.live_duels));
        metrics.watchers.set(gauge(counts.watchers));
        metrics.ready.set(i64::from(ready.is_some()));
        metrics.probe_duration.set(ready.unwrap_or_default().as_secs_f64());
        if let Some(store) = counts.store {
            metrics.store_usable.set(i64::from(store.usable));
            metrics.store_commits.inner().store(store.commits, Ordering::Relaxed);
            metrics.store_failures.inner().store(store.failures, Ordering::Relaxed);
            metrics.store_waiting.set(i64::try_from(store.waiting).unwrap_or(i64::MAX));
            metrics.store_bytes.set(i64::try_from(store.disk_bytes).unwrap_or(i64::MAX));
        }
        metrics.cpu_seconds.set(cpu_seconds());
        if let Some(bytes) = resident_bytes() {
            metrics.resident_bytes.set(bytes);
        }
        if let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") {
            metrics.open_descriptors.set(gauge(descriptors.count()));
        }
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

async fn readyz(State(admin): State<Arc<Admin>>) -> (StatusCode, String) {
    match admin.hub.readiness().ready() {
        Some(took) => (StatusCode::OK, format!("ready: push to delivery took {took:?}\n")),
        None if admin.hub.readiness().is_stopping() => {
            (StatusCode::SERVICE_UNAVAILABLE, "not ready: the node is stopping\n".to_owned())
        }
        None => {
            let why = admin.hub.readiness().obstacle().map_or_else(
                || "no push has reached its delivery of late; see the log".to_owned(),
                |obstacle| obstacle.to_string(),
            );
            (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n"))
        }
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    admin.refresh();
    match admin.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Returns the resident memory of this process (proc(5)), or `None` if there is no `/proc`.
fn resident_bytes() -> Option<i64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: i64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * i64::try_from(rustix::param::page_size()).ok()?)
}

fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default().as_secs_f64()
}
