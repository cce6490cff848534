//! The metrics. There is one registry per process. It is passed in, never global.
//!
//! [`crate::admin`] sets the gauges whose values are kept elsewhere, such as the number of duels, when it is asked.

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

/// The labels of an RPC.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RpcLabels {
    /// The method's name; `other` for what the hub does not serve.
    pub method: &'static str,
    /// The gRPC status code in words.
    pub code: &'static str,
}

/// Declares each metric once: field, type, name without prefix and suffix, unit if any, help. The help is the field's doc.
macro_rules! metrics {
    ($($field:ident: $type:ty $(= $new:expr)?, $name:literal $(in $unit:ident)?, $help:literal;)*) => {
        /// All metrics of the process.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            $(#[doc = $help] pub $field: $type,)*
        }

        impl Metrics {
            /// Registers every metric, at zero.
            #[must_use]
            pub fn new() -> Self {
                let mut registry = Registry::with_prefix("duelhub");
                $(
                    let $field = metrics!(@new $type $(, $new)?);
                    metrics!(@register registry, $field, $name, $help $(, $unit)?);
                )*
                Self { registry, $($field,)* }
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

metrics! {
    connections: Gauge, "connections", "Open WebSocket connections";
    connections_opened: Counter, "connections_opened", "Connections that were attached";
    connections_closed: Family<ReasonLabel, Counter>, "connections_closed", "Connections closed, by reason";
    handshakes_refused: Family<ReasonLabel, Counter>, "handshakes_refused", "Handshakes refused, by reason";
    pending_handshakes: Gauge, "pending_handshakes", "Sockets without a valid ticket yet";
    deliveries: Counter, "deliveries", "Frames with an event written to sockets";
    sent_bytes: Counter, "sent" in Bytes, "Bytes of frames written to sockets";
    frames_received: Family<KindLabel, Counter>, "frames_received", "Frames received from clients, by kind";
    pushes: Family<KindLabel, Counter>, "pushes", "Pushes stored, by whether they were new";
    pushes_undeclared: Counter, "pushes_undeclared", "Pushes to duels that no backend has declared";
    push_duration: Histogram = push_buckets(), "push_duration" in Seconds, "From a push's arrival to its answer";
    pushes_in_flight: Gauge, "pushes_in_flight", "Pushes being stored";
    rpcs: Family<RpcLabels, Counter>, "rpcs", "RPCs answered, by method and code";
    tickets_issued: Family<KindLabel, Counter>, "tickets_issued", "Tickets issued, by kind";
    ticket_api_answers: Family<KindLabel, Counter>, "ticket_api_answers", "Answers of the HTTP ticket API, by code";
    limits_reached: Family<KindLabel, Counter>, "limits_reached", "Requests that met a limit, by its variable";
    sweep_repairs: Counter, "sweep_repairs", "Duels in which a sweep found missed events";
    watchers_too_slow: Counter, "watchers_too_slow", "Watches ended because the watcher read too slowly";
    duels: Gauge, "duels", "Duels that the engine holds";
    live_duels: Gauge, "live_duels", "Duels with a connection on this node";
    watchers: Gauge, "watchers", "Watches of backends";
    remembered_tickets: Gauge, "remembered_tickets", "Used and revoked tickets remembered";
    store_usable: Gauge, "store_usable", "1 if the store takes pushes, else 0";
    store_commits: Counter, "store_commits", "Commits of the store, each of a group of calls";
    store_failures: Counter, "store_failures", "Commits of the store that failed";
    store_waiting: Gauge, "store_waiting", "Calls that wait for a commit of the store";
    store_bytes: Gauge, "store" in Bytes, "Bytes of the store on the disk";
    ready: Gauge, "ready", "1 if the node is ready, else 0";
    probe_duration: GaugeF64, "probe_duration" in Seconds, "From the last probe's push to its delivery";
    resident_bytes: Gauge, "process_resident_memory" in Bytes, "Resident memory of the process";
    cpu_seconds: GaugeF64, "process_cpu_time" in Seconds, "CPU time of the process since its start";
    open_descriptors: Gauge, "process_open_descriptors", "Open descriptors of the process";
}

/// 20 µs to 1.3 s in steps of two: a push in memory takes microseconds, on a disk milliseconds.
fn push_buckets() -> Histogram {
    Histogram::new(exponential_buckets(20e-6, 2.0, 17))
}

impl Metrics {
    /// Returns all metrics in the `OpenMetrics` text format 1.0, which Prometheus reads.
    ///
    /// # Errors
    /// Never, unless the hub has an error of its own.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
