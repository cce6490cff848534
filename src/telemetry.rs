//! Logs: JSON lines in production, readable lines in development, both on standard output.
//!
//! Levels: `error` somebody must act, `warn` something is wrong, `info` life cycle, `debug` details of requests and
//! connections. Field names end with their unit. Tickets, secrets and payloads are never logged.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, fmt};

use crate::config::{AppEnv, Config};

/// Installs the process's one subscriber. Does nothing if there is one.
pub fn init(config: &Config) {
    let level = LevelFilter::from_level(config.log_level);
    let format = match config.app_env {
        AppEnv::Production => {
            fmt::layer().json().flatten_event(true).with_span_list(false).with_target(false).boxed()
        }
        AppEnv::Development => {
            fmt::layer().with_ansi(std::io::stdout().is_terminal()).with_target(false).boxed()
        }
    };
    // The libraries' own lines are for their developers, and might show a header.
    let ours = tracing_subscriber::filter::filter_fn(|meta| meta.target().starts_with("duelhub"));
    let _installed =
        Registry::default().with(format.with_filter(level).with_filter(ours)).try_init();
}
