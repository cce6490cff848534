//! The metrics. There is one registry per process. It is passed in, never global.
//!
//! [`crate::admin`] sets the gauges whose values are kept elsewhere, such as the number of duels, when it is asked.

mod prometheus_text;

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// A gauge of fractions.
pub type GaugeF64 = Gauge<f64, AtomicU64>;

/// A counter of fractions.
pub type CounterF64 = Counter<f64, AtomicU64>;

/// A label with a reason.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    /// One of a fixed set of words.
    pub reason: &'static str,
}

/// A label with a kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabel {
    /// One of a fixed set of words.
    pub kind: &'static str,
}

/// The labels of the build.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BuildLabels {
    /// The version of the hub.
    pub version: &'static str,
    /// The commit that was built.
    pub revision: &'static str,
}

/// The labels of an RPC.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RpcLabels {
    /// The method's name; `other` for what the hub does not serve.
    pub method: &'static str,
    /// The gRPC status code in words.
    pub code: &'static str,
}

/// Declares each metric once: field, type, name without prefix and suffix, unit if any, help. The help is the field's doc. Those
/// of the process have the names that Prometheus' own client libraries give them.
macro_rules! metrics {
    (
        duelhub {$($field:ident: $type:ty $(= $new:expr)?, $name:literal $(in $unit:ident)?, $help:literal;)*}
        process {$($p_field:ident: $p_type:ty, $p_name:literal $(in $p_unit:ident)?, $p_help:literal;)*}
    ) => {
        /// All metrics of the process.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            $(#[doc = $help] pub $field: $type,)*
            $(#[doc = $p_help] pub $p_field: $p_type,)*
        }

        impl Metrics {
            /// Registers every metric, at zero.
            #[must_use]
            pub fn new() -> Self {
                let mut registry = Registry::default();
                let prefixed = registry.sub_registry_with_prefix("duelhub");
                $(
                    let $field = metrics!(@new $type $(, $new)?);
                    metrics!(@register prefixed, $field, $name, $help $(, $unit)?);
                )*
                let prefixed = registry.sub_registry_with_prefix("process");
                $(
                    let $p_field = metrics!(@new $p_type);
                    metrics!(@register prefixed, $p_field, $p_name, $p_help $(, $p_unit)?);
                )*
                Self { registry, $($field,)* $($p_field,)* }
            }
        }
    };
    (@new $type:ty) => { <$type>::default() };
    (@new $type:ty, $new:expr) => { $new };
    (@register $registry:ident, $metric:ident, $name:literal, $help:literal) => {
        $registry.register($name, $help, $metric.clone());
    };
    (@register $registry:ident, $metric:ident, $name:literal, $help:literal, $unit:ident) => {
        $registry.register_with_unit($name, $help, Unit::$unit, $metric.clone());
    };
}

metrics! { duelhub {
    build_info: Family<BuildLabels, Gauge>, "build_info", "1, with the version of the hub and its commit";
    connections: Gauge, "connections", "Open WebSocket connections";
    connections_opened: Counter, "connections_opened", "Connections that were attached";
    connections_closed: Family<ReasonLabel, Counter>, "connections_closed", "Connections closed, by reason";
    handshakes_refused: Family<ReasonLabel, Counter>, "handshakes_refused", "Handshakes refused, by reason";
    forwarded_unreadable: Counter, "forwarded_unreadable", "Requests whose X-Forwarded-For a trusted proxy wrote unreadably";
    pending_handshakes: Gauge, "pending_handshakes", "Sockets without a valid ticket yet";
    deliveries: Counter, "deliveries", "Frames with an event written to sockets";
    sent_bytes: Counter, "sent" in Bytes, "Bytes of frames written to sockets";
    frames_received: Family<KindLabel, Counter>, "frames_received", "Frames received from clients, by kind";
    pushes: Family<KindLabel, Counter>, "pushes", "Pushes stored, by whether they were new";
    pushes_undeclared: Counter, "pushes_undeclared", "Pushes to duels that no backend has declared";
    push_duration: Histogram = push_buckets(), "push_duration" in Seconds, "From a push's arrival to its answer";
    pushes_in_flight: Gauge, "pushes_in_flight", "Pushes being stored";
    rpcs: Family<RpcLabels, Counter>, "rpcs", "RPCs answered, by method and code";
    control_connections: Gauge, "control_connections", "Open connections of the control plane, with those that have made no call";
    control_connections_closed: Family<ReasonLabel, Counter>, "control_connections_closed", "Connections of the control plane that the hub closed, by reason";
    control_newcomers: Gauge, "control_newcomers", "Connections of the control plane of which no call was accepted yet";
    admin_connections: Gauge, "admin_connections", "Connections of the admin listener";
    admin_connections_crowded_out: Counter, "admin_connections_crowded_out", "Connections of the admin listener that gave their place to the next";
    tickets_issued: Family<KindLabel, Counter>, "tickets_issued", "Tickets issued, by kind";
    sessions_ended: Counter, "sessions_ended", "Sessions ended because a resume ticket was copied";
    ticket_api_answers: Family<KindLabel, Counter>, "ticket_api_answers", "Answers of the HTTP ticket API, by code";
    limits_reached: Family<KindLabel, Counter>, "limits_reached", "Requests that met a limit, by its variable or its name";
    sweep_repairs: Counter, "sweep_repairs", "Duels in which a sweep found missed events";
    watchers_too_slow: Counter, "watchers_too_slow", "Watches ended because the watcher read too slowly";
    duels: Gauge, "duels", "Duels that the engine holds";
    live_duels: Gauge, "live_duels", "Duels with a connection on this node";
    watchers: Gauge, "watchers", "Watches of backends";
    remembered_tickets: Gauge, "remembered_tickets", "Sessions and revocations remembered";
    sessions_crowded_out: Counter, "sessions_crowded_out", "Sessions forgotten because their user began too many in one duel";
    store_usable: Gauge, "store_usable", "1 if the store takes pushes, or there is none, else 0";
    store_commits: Counter, "store_commits", "Commits of the store, each of a group of calls";
    store_failures: Counter, "store_failures", "Commits of the store that failed";
    store_waiting: Gauge, "store_waiting", "Calls that wait for a commit of the store";
    store_bytes: Gauge, "store" in Bytes, "Bytes of the store on the disk";
    log_lines_lost: Counter, "log_lines_lost", "Lines of the log lost because standard output was not read in time";
    notify_failures: Counter, "notify_failures", "States that the service manager could not be told";
    ready: Gauge, "ready", "1 if the node is ready, else 0";
    probe_duration: GaugeF64, "probe_duration" in Seconds, "From the last probe's push to its delivery";
} process {
    resident_bytes: Gauge, "resident_memory" in Bytes, "Resident memory of the process";
    cpu_seconds: CounterF64, "cpu" in Seconds, "CPU time of the process since its start";
    start_seconds: GaugeF64, "start_time" in Seconds, "When the process started, since the Unix epoch";
    open_descriptors: Gauge, "open_fds", "Open descriptors of the process";
    max_descriptors: Gauge, "max_fds", "Descriptors that the process may have open";
}}

/// 20 µs to 1.3 s in steps of two: a push in memory takes microseconds, on a disk milliseconds.
fn push_buckets() -> Histogram {
    Histogram::new(exponential_buckets(20e-6, 2.0, 17))
}

impl Metrics {
    /// Returns all metrics in the `OpenMetrics` text format 1.0.
    ///
    /// # Errors
    /// Never, unless the hub has an error of its own.
    pub fn to_openmetrics(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// Returns all metrics in the Prometheus text format 0.0.4.
    ///
    /// # Errors
    /// Never, unless the hub has an error of its own.
    pub fn to_prometheus_text(&self) -> Result<String, std::fmt::Error> {
        Ok(prometheus_text::of_openmetrics(&self.to_openmetrics()?))
    }
}

/// Makes a family show these kinds from the start, at 0: of a counter that appears with its first hit no rate shows that hit.
pub fn at_zero<L>(family: &Family<L, Counter>, words: impl IntoIterator<Item = &'static str>)
where
    L: From<&'static str> + Clone + std::hash::Hash + Eq,
{
    for word in words {
        drop(family.get_or_create(&L::from(word)));
    }
}

impl From<&'static str> for KindLabel {
    fn from(kind: &'static str) -> Self {
        Self { kind }
    }
}

impl From<&'static str> for ReasonLabel {
    fn from(reason: &'static str) -> Self {
        Self { reason }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
