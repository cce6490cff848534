//! Health, readiness and metrics, in plain text on a listener of their own. It has no authentication, and so stays on
//! loopback.
//!
//! A connection is for one request, and has [`limits::ADMIN_TIMEOUT`] for it and its answer. There are so many places
//! ([`AdminConfig`]); past that the oldest connection gives way, so that who sends nothing keeps no health check out.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::clock;
use crate::config::AdminConfig;
use crate::hub::Hub;
use crate::limits;
use crate::metrics::{BuildLabels, Metrics};
use crate::places::Places;
use crate::version;

/// The media type of OpenMetrics, and the content type (OpenMetrics 1.0, "Content Type").
const OPENMETRICS: [&str; 2] =
    ["application/openmetrics-text", "application/openmetrics-text; version=1.0.0; charset=utf-8"];

/// The content type of the Prometheus text format.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The admin listener.
#[derive(Debug)]
pub struct Admin {
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    config: AdminConfig,
}

impl Admin {
    /// Creates the listener of `hub`.
    #[must_use]
    pub fn new(config: AdminConfig, hub: Arc<Hub>, metrics: Arc<Metrics>) -> Self {
        let build = BuildLabels { version: version::VERSION, revision: version::REVISION };
        metrics.build_info.get_or_create(&build).set(1);
        if let Some(seconds) = start_seconds() {
            metrics.start_seconds.set(seconds);
        }
        Self { hub, metrics, config }
    }

    /// Serves `listener` until `stop`.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let AdminConfig { timeout, connections_max, .. } = self.config;
        let newcomers = Places::new(connections_max, self.metrics.admin_connections.clone());
        let crowded_out = self.metrics.admin_connections_crowded_out.clone();
        let router = Router::new()
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(Arc::new(self));
        let serving = async {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let Some(newcomer) = newcomers.enter() else { continue };
                        let router = router.clone();
                        let crowded_out = crowded_out.clone();
                        let answer = answer(stream, router, timeout);
                        tokio::spawn(async move {
                            let has_to_go = newcomer.crowded_out();
                            if has_to_go.run_until_cancelled(answer).await.is_none() {
                                crowded_out.inc();
                            }
                            drop(newcomer);
                        });
                    }
                    Err(error) => {
                        warn!(%error, "a connection to the admin port could not be accepted");
                        tokio::time::sleep(limits::ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        stop.run_until_cancelled(serving).await;
    }

    /// Sets the gauges whose values are kept elsewhere.
    fn refresh(&self) {
        let counts = self.hub.counts();
        let ready = self.hub.readiness().ready();
        let metrics = &self.metrics;
        metrics.duels.set(gauge(counts.engine.duels));
        metrics.remembered_tickets.set(gauge(counts.engine.remembered_tickets));
        let crowded_out = counts.engine.sessions_crowded_out;
        metrics.sessions_crowded_out.inner().store(crowded_out, Ordering::Relaxed);
        metrics.live_duels.set(gauge(counts.live_duels));
        metrics.watchers.set(gauge(counts.watchers));
        metrics.ready.set(i64::from(ready.is_some()));
        metrics.probe_duration.set(ready.unwrap_or_default().as_secs_f64());
        let usable = counts.store.as_ref().is_none_or(|store| store.usable);
        metrics.store_usable.set(i64::from(usable));
        if let Some(store) = counts.store {
            metrics.store_commits.inner().store(store.commits, Ordering::Relaxed);
            metrics.store_failures.inner().store(store.failures, Ordering::Relaxed);
            metrics.store_waiting.set(i64::try_from(store.waiting).unwrap_or(i64::MAX));
            metrics.store_bytes.set(i64::try_from(store.disk_bytes).unwrap_or(i64::MAX));
        }
        metrics.cpu_seconds.inner().store(cpu_seconds().to_bits(), Ordering::Relaxed);
        if let Some(bytes) = resident_bytes() {
            metrics.resident_bytes.set(bytes);
        }
        if let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") {
            metrics.open_descriptors.set(gauge(descriptors.count()));
        }
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        metrics.max_descriptors.set(i64::try_from(limit).unwrap_or(i64::MAX));
    }
}

/// Answers one request, for no longer than `timeout` in all.
async fn answer(stream: TcpStream, router: Router, timeout: Duration) {
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(limits::HTTP_HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // Whoever does not speak HTTP, or goes away, is of no concern.
    let _ended = tokio::time::timeout(timeout, connection).await;
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

async fn metrics(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    admin.refresh();
    let (content_type, text) = if wants_openmetrics(&headers) {
        (OPENMETRICS[1], admin.metrics.to_openmetrics())
    } else {
        (PROMETHEUS_TEXT, admin.metrics.to_prometheus_text())
    };
    let headers = [(header::CONTENT_TYPE, content_type), (header::VARY, "accept")];
    match text {
        Ok(text) => (headers, text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Returns whether `Accept` asks for OpenMetrics, and prefers nothing else that there is (RFC 9110, section 12.5.1).
fn wants_openmetrics(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|list| list.to_str().ok());
    let (mut openmetrics, mut text) = (0.0_f32, 0.0_f32);
    for range in accepted.flat_map(|list| list.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts.find_map(|part| part.strip_prefix("q="));
        let weight = weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0));
        match media_type.as_str() {
            "text/plain" | "text/*" | "*/*" => text = text.max(weight),
            other if other == OPENMETRICS[0] => openmetrics = openmetrics.max(weight),
            _ => {}
        }
    }
    openmetrics > 0.0 && openmetrics >= text
}

/// Returns when this process started, in seconds since the Unix epoch (proc(5), field 22 of `stat`), or `None` if there is no
/// `/proc`.
fn start_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the process, in parentheses, may have spaces and parentheses in it.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: u64 = fields.split_whitespace().nth(19)?.parse().ok()?;
    let after_boot = Duration::from_secs(ticks) / u32::try_from(clock_ticks_per_second()).ok()?;
    let since_boot = Duration::try_from(clock_gettime(ClockId::Boottime)).ok()?;
    let now = Duration::from_millis(clock::now().0);
    Some((now + after_boot).saturating_sub(since_boot).as_secs_f64())
}

/// Returns the resident memory of this process (proc(5)), or `None` if there is no `/proc`.
fn resident_bytes() -> Option<i64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: i64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * i64::try_from(page_size()).ok()?)
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn openmetrics_comes_to_whoever_asks_for_it() {
        let table = [
            (None, false),
            (Some("*/*"), false),
            (Some("text/plain"), false),
            (Some("application/json"), false),
            (Some("application/openmetrics-text"), true),
            (Some("Application/OpenMetrics-Text; version=1.0.0, */*; q=0.1"), true),
            (Some("application/openmetrics-text;q=0"), false),
            (Some("application/openmetrics-text;q=0.2,text/plain;version=0.0.4"), false),
            // As Prometheus 2 and 3 ask.
            (
                Some(
                    "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
                     text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                ),
                true,
            ),
            (
                Some(
                    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
                     application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=1.0.0;q=0.3",
                ),
                true,
            ),
        ];
        for (accept, wants) in table {
            let value = accept.map(|accept| (header::ACCEPT, HeaderValue::from_static(accept)));
            assert_eq!(wants_openmetrics(&HeaderMap::from_iter(value)), wants, "{accept:?}");
        }
    }

    #[test]
    fn the_process_started_a_moment_ago() {
        let ago = clock::now().0 as f64 / 1000.0 - start_seconds().unwrap();
        assert!((-1.0..600.0).contains(&ago), "{ago}");
    }
}
