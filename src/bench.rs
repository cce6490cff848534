//! The bench: puts load on a hub, and measures the cost of deliveries, pushes and connections, and the latency of deliveries.
//!
//! The bench is a client of a running hub, or of one that it starts. All players are on one thread ([`players`]), which checks
//! that each of them receives every event once and in order. Another thread makes the pushes ([`backend`]). CPU time and
//! memory come from `/proc` ([`process`]), those of the bench included, which show whether it was the bottleneck.
//!
//! Bounds: connections by this process's descriptors, samples by pushes and players of one run.

mod backend;
mod frames;
mod hub;
mod players;
mod process;
mod report;
mod scenarios;
mod unary;

use std::net::SocketAddr;
use std::time::Duration;

use tonic::Status;

pub use self::report::{BenchReport, Figure};
use crate::config::Secret;

/// What to measure, and how.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// The kind of load.
    pub scenario: Scenario,
    /// The hub under load.
    pub target: BenchTarget,
    /// How pushes are made.
    pub push_by: PushBy,
    /// Bytes of a push's payload, at least [`PAYLOAD_BYTES_MIN`].
    pub payload_bytes: usize,
    /// The length of one run.
    pub duration: Duration,
    /// The number of runs, of which the report shows medians and spread.
    pub runs: usize,
}

/// Bytes of the smallest payload: it carries the number of its push.
pub const PAYLOAD_BYTES_MIN: usize = 64;

/// A kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Duels of two players each, and pushes to all of them in turn.
    Duels {
        /// Duels.
        duels: u64,
        /// Pushes per second.
        rate: u32,
    },
    /// One duel with many spectators, and pushes to all of them.
    Broadcast {
        /// Connections.
        spectators: u64,
        /// Pushes per second.
        rate: u32,
    },
    /// Connections that only send their pings.
    Idle {
        /// Connections, two in a duel.
        connections: u64,
    },
    /// All connect at once. The bench's own hub is then killed and restarted, and all reconnect.
    Storm {
        /// Connections, two in a duel.
        connections: u64,
    },
    /// The highest rate of pushes at which 99 of 100 deliveries take less than 10 ms.
    Ceiling {
        /// Duels of two players each.
        duels: u64,
    },
}

/// The hub to load.
#[derive(Debug, Clone)]
pub enum BenchTarget {
    /// A hub that the bench starts from this program, and stops.
    Own {
        /// The engine: `memory`, or `embedded` with a directory of its own.
        engine: &'static str,
    },
    /// A running hub.
    Running {
        /// Where players connect: over all nodes in turn.
        data: Vec<SocketAddr>,
        /// The path of the WebSocket.
        path: String,
        /// The address of the control plane.
        control: SocketAddr,
        /// The control plane's token.
        token: Option<Secret>,
        /// The hub's processes on this machine. Without them there are no figures of CPU and memory.
        pids: Vec<u32>,
    },
}

/// How pushes are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushBy {
    /// `PushEvent`, a call each.
    Unary,
    /// `PushEvents`, one stream.
    Stream,
    /// `POST /push?duel=<id>`, as the yardstick in `benches/bare_writer.rs` takes them. Its tickets are `<duel>.<user>`.
    Http,
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// This machine failed.
    #[error("{what}: {error}")]
    Machine {
        /// What was tried.
        what: &'static str,
        /// Why it did not work.
        error: std::io::Error,
    },
    /// The hub's control plane refused, or did not answer.
    #[error("{call}: {} ({:?})", status.message(), status.code())]
    Refused {
        /// The call.
        call: &'static str,
        /// The answer.
        status: Box<Status>,
    },
    /// The bench's own hub did not become ready.
    #[error("the hub that was started did not become ready in time")]
    NotReady,
    /// The bench's own hub did not stop in order.
    #[error("the hub that was started did not end in good order")]
    NotEnded,
    /// Not everybody connected.
    #[error("{connected} of {wanted} connections came about: {why}")]
    NotConnected {
        /// Connections that were opened.
        connected: u64,
        /// Connections wanted.
        wanted: u64,
        /// The first reason.
        why: String,
    },
    /// The options contradict each other.
    #[error("{0}")]
    Options(&'static str),
}

impl BenchError {
    fn machine(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |error| Self::Machine { what, error }
    }

    fn refused(call: &'static str) -> impl FnOnce(Status) -> Self {
        move |status| Self::Refused { call, status: Box::new(status) }
    }
}

/// Takes lines that show the progress.
pub type Progress<'a> = &'a mut dyn FnMut(&str);

/// Runs a bench, best on a current-thread runtime, so that it takes few threads. The report has the faults that were found: an
/// event lost, duplicated or out of order, a connection lost.
///
/// # Errors
/// [`BenchError`], if nothing could be measured.
pub async fn run(
    options: &BenchOptions,
    progress: Progress<'_>,
) -> Result<BenchReport, BenchError> {
    scenarios::run(options, progress).await
}
