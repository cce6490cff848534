//! The metrics as text, for Prometheus, and as numbers, for the console. Some are kept elsewhere, and fetched when they are asked
//! for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Map, Value};

use super::Admin;
use crate::clock;

/// The media type of OpenMetrics, and the content type (OpenMetrics 1.0, "Content Type").
const OPENMETRICS: [&str; 2] =
    ["application/openmetrics-text", "application/openmetrics-text; version=1.0.0; charset=utf-8"];

/// The content type of the Prometheus text format.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Admin {
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
        if let Some(descriptors) = open_descriptors() {
            metrics.open_descriptors.set(descriptors);
        }
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        metrics.max_descriptors.set(i64::try_from(limit).unwrap_or(i64::MAX));
    }

    /// Returns every sample by its name and labels, as they stand in the text: `duelhub_connections`,
    /// `duelhub_connections_closed_total{reason="lost"}`.
    ///
    /// # Errors
    /// As [`crate::metrics::Metrics::to_openmetrics`].
    pub(super) fn samples(&self) -> Result<Map<String, Value>, std::fmt::Error> {
        self.refresh();
        Ok(samples_of(&self.metrics.to_openmetrics()?))
    }
}

/// Reads the samples of a text in OpenMetrics.
fn samples_of(text: &str) -> Map<String, Value> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let samples = lines.filter_map(|line| {
        // No label of the hub has a space in it after its closing brace, and no sample has a time.
        let (name, number) = line.rsplit_once(' ')?;
        let whole = number.parse::<u64>().map(Value::from);
        let value = whole.or_else(|_| number.parse::<f64>().map(Value::from)).ok()?;
        Some((name.to_owned(), value))
    });
    samples.collect()
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

pub(super) async fn metrics(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response {
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
pub(super) fn start_seconds() -> Option<f64> {
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

/// Returns how many descriptors are open, or `None` if there is no `/proc`.
///
/// Since Linux 6.2 the size of the directory says so. To read its names takes 8 ms for 10,000 of them, and the console asks each
/// second.
fn open_descriptors() -> Option<i64> {
    const DIRECTORY: &str = "/proc/self/fd";
    let size = std::fs::metadata(DIRECTORY).ok()?.len();
    let count = match size {
        0 => std::fs::read_dir(DIRECTORY).ok()?.count(),
        size => usize::try_from(size).ok()?,
    };
    Some(gauge(count))
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

    #[test]
    fn as_many_descriptors_are_open_as_have_names() {
        let named = std::fs::read_dir("/proc/self/fd").unwrap().count();
        let counted = usize::try_from(open_descriptors().unwrap()).unwrap();
        // Other tests open and close some meanwhile.
        assert!(counted > 2 && counted.abs_diff(named) < 200, "{counted}, {named}");
    }

    #[test]
    fn samples_are_what_the_text_says() {
        let text =
            "# HELP a Things.\na_total{kind=\"x y\"} 3\nb 0.5\nc_bucket{le=\"+Inf\"} 7\n# EOF\n";
        let samples = samples_of(text);
        assert_eq!(samples.len(), 3);
        assert_eq!(samples["a_total{kind=\"x y\"}"], 3);
        assert_eq!(samples["b"], 0.5);
        assert_eq!(samples["c_bucket{le=\"+Inf\"}"], 7);
    }
}
