//! Load for a hub: what a delivery and a push cost it, how long a delivery takes, what a connection weighs.
//!
//! A client of a running hub, on this machine or elsewhere; unless it is told of one it starts one of its own. All players
//! are on one thread ([`players`]), which checks that every expected event reaches each of them exactly once and in
//! order; pushes are made on another ([`backend`]). What it measures of the hub's process it reads from `/proc`
//! ([`process`]), and so it does of its own: a bench that is the bottleneck shows it.
//!
//! Bounds: connections by this process's descriptors, samples by pushes and players of one run.

mod backend;
mod hub;
mod players;
mod process;
mod report;
mod scenarios;
mod unary;
mod wire;

use std::net::SocketAddr;
use std::time::Duration;

use tonic::Status;

pub use self::report::{Report, Row};
use crate::config::Secret;

/// What to measure, and on what.
#[derive(Debug, Clone)]
pub struct Options {
    /// What kind of load.
    pub scenario: Scenario,
    /// The hub.
    pub target: Target,
    /// How pushes are made.
    pub push_by: PushBy,
    /// Bytes of a push's payload, at least [`PAYLOAD_BYTES_MIN`].
    pub payload_bytes: usize,
    /// How long one run takes.
    pub duration: Duration,
    /// How often it is repeated: medians, and the spread, are of so many.
    pub runs: usize,
}

/// The smallest payload: it says which push it is of.
pub const PAYLOAD_BYTES_MIN: usize = 64;

/// A kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Duels of two players each, and so many pushes a second over all of them.
    Duels {
        /// Duels.
        duels: u64,
        /// Pushes a second.
        rate: u32,
    },
    /// One duel with so many spectators, and pushes to all of them.
    Broadcast {
        /// Connections.
        spectators: u64,
        /// Pushes a second.
        rate: u32,
    },
    /// Connections that only send their pings.
    Idle {
        /// Connections, two in a duel.
        connections: u64,
    },
    /// All connect at once; then, on a hub of its own, it is killed and started again, and all come back.
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
pub enum Target {
    /// One that is started for this, and stopped afterwards, from this very program.
    Own {
        /// Its engine: `memory` or `embedded`, the latter with a directory of its own.
        engine: &'static str,
    },
    /// One that runs.
    Running {
        /// Where players connect: to one node after the other, if there are several.
        data: Vec<SocketAddr>,
        /// Under which path.
        path: String,
        /// Its control plane.
        control: SocketAddr,
        /// The control plane's token.
        token: Option<Secret>,
        /// Its processes, if they are on this machine: without them there are no figures of CPU and memory.
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
    /// This machine's own reasons.
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
        /// Which call.
        call: &'static str,
        /// What it said.
        status: Box<Status>,
    },
    /// The hub of its own did not become ready.
    #[error("the hub that was started did not become ready in time")]
    NotReady,
    /// The hub of its own did not end as it should.
    #[error("the hub that was started did not end in good order")]
    NotEnded,
    /// Not everybody could connect.
    #[error("{connected} of {wanted} connections came about: {why}")]
    NotConnected {
        /// Connections that came about.
        connected: u64,
        /// Connections wanted.
        wanted: u64,
        /// The first thing that went wrong.
        why: String,
    },
    /// What the options ask for does not go together.
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

/// Takes lines that say how far it is.
pub type Progress<'a> = &'a mut dyn FnMut(&str);

/// Measures, best on a current-thread runtime, so that the load takes no more threads than it needs.
///
/// A fault that was found (an event lost, doubled or out of order, a connection that went) is in the report.
///
/// # Errors
/// [`BenchError`]: nothing could be measured.
pub async fn run(options: &Options, progress: Progress<'_>) -> Result<Report, BenchError> {
    scenarios::run(options, progress).await
}
