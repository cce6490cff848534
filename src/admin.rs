//! Health, readiness and metrics, on a listener of their own that no player reaches. Plain text, nobody is asked who
//! they are: that is why it stays on loopback.

use std::sync::Arc;
use std::sync::atomic::Ordering;

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

/// Kernel clock ticks in a second, as `/proc` counts CPU time: 100 on every Linux of today.
const TICKS_PER_SECOND: f64 = 100.0;

/// What the listener shows.
#[derive(Debug)]
pub struct Admin {
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
}

impl Admin {
    /// Over `hub`.
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

    /// Sets the gauges that others know better.
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
        if let Some(process) = Process::read() {
            metrics.resident_bytes.set(process.resident_bytes);
            metrics.cpu_seconds.set(process.cpu_seconds);
            metrics.open_descriptors.set(process.open_descriptors);
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
            let why = "not ready: no push has reached its delivery of late; see the log\n";
            (StatusCode::SERVICE_UNAVAILABLE, why.to_owned())
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

/// What the kernel says of this process (proc(5)).
struct Process {
    resident_bytes: i64,
    cpu_seconds: f64,
    open_descriptors: i64,
}

impl Process {
    /// `None` where there is no such `/proc`.
    fn read() -> Option<Self> {
        let page = i64::try_from(rustix::param::page_size()).ok()?;
        let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
        let resident_pages: i64 = statm.split(' ').nth(1)?.parse().ok()?;
        // The name, in parentheses, may have spaces of its own; utime and stime are the 12th and 13th field after it.
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks: f64 =
            fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
        let descriptors = std::fs::read_dir("/proc/self/fd").ok()?.count();
        Some(Self {
            resident_bytes: resident_pages * page,
            cpu_seconds: ticks / TICKS_PER_SECOND,
            open_descriptors: gauge(descriptors),
        })
    }
}
