//! Logs: JSON lines or readable ones, on standard output.
//!
//! Levels: `error` somebody must act, `warn` something is wrong, `info` life cycle, `debug` details of requests and
//! connections. Field names end with their unit. Tickets, secrets and payloads are never logged. Logging never waits for
//! whoever reads standard output, and nothing else in a running hub writes to it or to standard error.

mod log_queue;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::panic::PanicHookInfo;
use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use tracing::{error, warn};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, fmt};

use self::log_queue::LogQueue;
use crate::config::{Config, LogFormat};
use crate::limits;

/// The log of the process. Dropped at its end, it waits [`limits::LOG_FLUSH_TIMEOUT`] for what is queued to be written.
#[derive(Debug)]
pub struct Logs(Arc<LogQueue>);

impl Logs {
    /// Prints a text between the lines of the log.
    pub fn print(&self, text: &str) {
        let _queued = (&*self.0).write_all(text.as_bytes());
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        self.0.flush(limits::LOG_FLUSH_TIMEOUT);
    }
}

/// Installs the process's one subscriber, unless there is one, and logs panics. Counts in `lost` the lines that nobody took.
///
/// # Errors
/// Standard output cannot be used, or the thread that writes to it cannot be started.
pub fn init(config: &Config, lost: Counter) -> io::Result<Logs> {
    let level = LevelFilter::from_level(config.log_level);
    // Not through `std`, whose lock a write that blocks would hold, also against the end of the process.
    let output = io::stdout().as_fd().try_clone_to_owned()?;
    let queue = LogQueue::start(output.into(), lost, |lines| {
        warn!(lines, "log lines were lost: standard output was not read in time");
    })?;
    let lines = fmt::layer().with_writer(Arc::clone(&queue)).with_target(false);
    let format = match config.log_format {
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
        LogFormat::Text => lines.with_ansi(io::stdout().is_terminal()).boxed(),
    };
    // The libraries' own lines are for their developers, and might show a header.
    let ours = tracing_subscriber::filter::filter_fn(|meta| meta.target().starts_with("duelhub"));
    let _installed =
        Registry::default().with(format.with_filter(level).with_filter(ours)).try_init();
    std::panic::set_hook(Box::new(log_panic));
    Ok(Logs(queue))
}

/// Logs a panic. `std` would write it to standard error, and wait for whoever reads that.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or_default();
    let place = panic.location().map(ToString::to_string);
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
    error!(
        panic = message,
        place,
        backtrace = backtrace.map(tracing::field::display),
        "a part of the process has panicked"
    );
}
