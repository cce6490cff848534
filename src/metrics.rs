//! What is counted, by families whose names carry their unit. One registry per process, passed in, never global.
//!
//! Gauges that somebody else knows better (connections, duels) are not kept twice: [`crate::admin`] sets them when it is
//! asked.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry, Unit};

/// A gauge of fractions.
pub type GaugeF64 = Gauge<f64, AtomicU64>;

/// One label that says why.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// Out of a fixed set of words.
    pub reason: &'static str,
}

/// One label that says which kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Kind {
    /// Out of a fixed set of words.
    pub kind: &'static str,
}

/// An RPC and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Rpc {
    /// The method's name; `other` for what the hub does not serve.
    pub method: &'static str,
    /// The gRPC status code in words.
    pub code: &'static str,
}

/// All families.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Open WebSocket connections.
    pub connections: Gauge,
    /// Connections that were welcomed.
    pub connections_opened: Counter,
    /// Connections that ended, by reason.
    pub connections_closed: Family<Reason, Counter>,
    /// Handshakes that were refused, by reason.
    pub handshakes_refused: Family<Reason, Counter>,
    /// Sockets that have not shown a valid ticket yet.
    pub pending_handshakes: Gauge,
    /// Frames with an event that were written to a socket.
    pub deliveries: Counter,
    /// Bytes of frames that were written to sockets.
    pub sent_bytes: Counter,
    /// Frames received from clients, by kind.
    pub frames_received: Family<Kind, Counter>,
    /// Pushes stored, by whether they were new.
    pub pushes: Family<Kind, Counter>,
    /// Time from a push's arrival to its answer.
    pub push_duration: Histogram,
    /// Pushes being stored.
    pub pushes_in_flight: Gauge,
    /// RPCs answered.
    pub rpcs: Family<Rpc, Counter>,
    /// Tickets issued, by kind.
    pub tickets_issued: Family<Kind, Counter>,
    /// Answers of the HTTP ticket API, by code.
    pub ticket_api_answers: Family<Kind, Counter>,
    /// Requests that met a limit, by the limit's variable.
    pub limits_reached: Family<Kind, Counter>,
    /// Duels in which a sweep found missed events.
    pub sweep_repairs: Counter,
    /// Watches ended because the watcher read too slowly.
    pub watchers_too_slow: Counter,
    /// Duels that the engine holds.
    pub duels: Gauge,
    /// Duels with a connection on this node.
    pub live_duels: Gauge,
    /// Streams of `WatchDuels`.
    pub watchers: Gauge,
    /// Used and revoked tickets that are remembered.
    pub remembered_tickets: Gauge,
    /// 1 if the store takes pushes.
    pub store_usable: Gauge,
    /// Commits of the store.
    pub store_commits: Counter,
    /// Commits of the store that failed.
    pub store_failures: Counter,
    /// Calls that wait for a commit of the store.
    pub store_waiting: Gauge,
    /// What the store takes on the disk.
    pub store_bytes: Gauge,
    /// 1 if the node is ready.
    pub ready: Gauge,
    /// What the last proof of readiness took.
    pub probe_duration: GaugeF64,
    /// Resident memory of the process.
    pub resident_bytes: Gauge,
    /// CPU time of the process.
    pub cpu_seconds: GaugeF64,
    /// Open descriptors of the process.
    pub open_descriptors: Gauge,
}

/// Registers a metric and hands back the handle that counts.
struct Registrar(Registry);

impl Registrar {
    fn add<M: Metric + Clone + Default>(&mut self, name: &str, help: &str) -> M {
        let metric = M::default();
        self.0.register(name, help, metric.clone());
        metric
    }

    fn unit<M: Metric + Clone>(&mut self, name: &str, help: &str, unit: Unit, metric: M) -> M {
        self.0.register_with_unit(name, help, unit, metric.clone());
        metric
    }
}

impl Metrics {
    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut add = Registrar(Registry::with_prefix("duelhub"));
        // 20 µs to 1.3 s in steps of two: a push in memory takes microseconds, on a disk milliseconds.
        let buckets = prometheus_client::metrics::histogram::exponential_buckets(20e-6, 2.0, 17);
        let push_duration = Histogram::new(buckets);
        Self {
            connections: add.add("connections", "Open WebSocket connections"),
            connections_opened: add.add("connections_opened", "Connections that were welcomed"),
            connections_closed: add.add("connections_closed", "Connections that ended, by reason"),
            handshakes_refused: add.add("handshakes_refused", "Handshakes refused, by reason"),
            pending_handshakes: add.add("pending_handshakes", "Sockets without a valid ticket yet"),
            deliveries: add.add("deliveries", "Frames with an event written to sockets"),
            sent_bytes: add.unit(
                "sent",
                "Bytes of frames written",
                Unit::Bytes,
                Counter::default(),
            ),
            frames_received: add.add("frames_received", "Frames received from clients, by kind"),
            pushes: add.add("pushes", "Pushes stored, by whether they were new"),
            push_duration: add.unit(
                "push_duration",
                "From a push's arrival to its answer",
                Unit::Seconds,
                push_duration,
            ),
            pushes_in_flight: add.add("pushes_in_flight", "Pushes being stored"),
            rpcs: add.add("rpcs", "RPCs answered, by method and code"),
            tickets_issued: add.add("tickets_issued", "Tickets issued, by kind"),
            ticket_api_answers: add.add("ticket_api_answers", "Answers of the ticket API, by code"),
            limits_reached: add.add("limits_reached", "Requests that met a limit, by its variable"),
            sweep_repairs: add.add("sweep_repairs", "Duels in which a sweep found missed events"),
            watchers_too_slow: add.add("watchers_too_slow", "Watches ended for reading too slowly"),
            duels: add.add("duels", "Duels that the engine holds"),
            live_duels: add.add("live_duels", "Duels with a connection on this node"),
            watchers: add.add("watchers", "Streams of WatchDuels"),
            remembered_tickets: add
                .add("remembered_tickets", "Used and revoked tickets remembered"),
            store_usable: add.add("store_usable", "1 if the store takes pushes, else 0"),
            store_commits: add
                .add("store_commits", "Commits of the store, each of a group of calls"),
            store_failures: add.add("store_failures", "Commits of the store that failed"),
            store_waiting: add.add("store_waiting", "Calls that wait for a commit of the store"),
            store_bytes: add.unit(
                "store",
                "What the store takes on the disk",
                Unit::Bytes,
                Gauge::default(),
            ),
            ready: add.add("ready", "1 if the path from push to delivery works, else 0"),
            probe_duration: add.unit(
                "probe_duration",
                "What the last push through the engine to its delivery took",
                Unit::Seconds,
                GaugeF64::default(),
            ),
            resident_bytes: add.unit(
                "process_resident_memory",
                "Resident memory of the process",
                Unit::Bytes,
                Gauge::default(),
            ),
            cpu_seconds: add.unit(
                "process_cpu_time",
                "CPU time of the process since its start",
                Unit::Seconds,
                GaugeF64::default(),
            ),
            open_descriptors: add
                .add("process_open_descriptors", "Open descriptors of the process"),
            registry: add.0,
        }
    }

    /// All of them in the `OpenMetrics` text format 1.0, which Prometheus reads.
    ///
    /// # Errors
    /// A metric that cannot be written, which would be a fault of ours.
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
