//! `duelhub serve`: the hub.

use std::process::ExitCode;
use std::sync::Arc;

use duelhub::config::{AppEnv, Config};
use duelhub::control::ServeError;
use duelhub::demo::{self, FIRST_DUEL};
use duelhub::engine::StoreError;
use duelhub::metrics::Metrics;
use duelhub::server::{Addresses, Server, StartError};
use duelhub::telemetry;
use duelhub::version;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

pub(super) async fn run(config: Config) -> ExitCode {
    let metrics = Arc::new(Metrics::new());
    let logs = match telemetry::init(&config, metrics.log_lines_lost.clone()) {
        Ok(logs) => logs,
        Err(error) => return super::fail(&format!("nothing can be logged: {error}")),
    };
    config.warnings.iter().for_each(|warning| warn!("{warning}"));
    if let Err(error) = super::refuse_huge_pages() {
        warn!(%error, "huge pages cannot be refused: single pushes may take a millisecond longer");
    }
    // Before the process can be seen: a signal must stop it, and not kill it.
    let shutdown = match shutdown_signal() {
        Ok(shutdown) => shutdown,
        Err(error) => return super::fail(&format!("signals cannot be received: {error}")),
    };
    let (development, token) =
        (config.app_env == AppEnv::Development, config.control.token.is_some());
    let served = async {
        let server = Server::bind(config, metrics).await?;
        if development {
            logs.print(&greeting(server.addresses(), token));
        }
        server.run(shutdown).await
    };
    match served.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(
            error @ (StartError::Control(ServeError::Tls)
            | StartError::Descriptors(_)
            | StartError::Redis(_)),
        ) => {
            error!(%error, "not started");
            super::USAGE.into()
        }
        Err(StartError::Store(
            error @ (StoreError::Damaged { .. } | StoreError::Format { .. }),
        )) => {
            error!(%error, "not started");
            super::DATA.into()
        }
        Err(
            error @ (StartError::Bind { .. }
            | StartError::Control(ServeError::Threads(_))
            | StartError::Store(_)
            | StartError::WorkEnded),
        ) => {
            error!(%error, "not serving");
            ExitCode::FAILURE
        }
    }
}

/// Returns what the newcomer is told, which is no log line.
fn greeting(Addresses { edge, control, admin }: Addresses, token: bool) -> String {
    let line = demo::curl_line(FIRST_DUEL, control, token);
    format!(
        "
  duelhub {version}, development mode

    page           http://{edge}/demo/
    WebSocket      ws://{edge}/ws
    backends       {control}   gRPC, or JSON over HTTP
    console        http://{admin}/console/
    health         http://{admin}/readyz   http://{admin}/metrics

  Open the page: two players are in a duel. Then push to both of them:

    {line}

",
        version = version::VERSION,
    )
}

/// Returns a future that completes at SIGTERM (systemd, Docker), SIGINT (Ctrl-C), or SIGHUP (the terminal is gone).
fn shutdown_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Whoever starts the hub with nohup(1) wants it to outlive the terminal.
    let mut hangup = (!is_hangup_ignored()).then(|| signal(SignalKind::hangup())).transpose()?;
    Ok(async move {
        let signal = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            Some(_) = async { hangup.as_mut()?.recv().await } => "SIGHUP",
        };
        info!(signal, "a signal asks the hub to stop");
    })
}

/// Returns whether this process was started with SIGHUP ignored (proc(5), `SigIgn`).
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // SIGHUP is signal 1, and has the lowest bit.
    mask.is_some_and(|mask| mask & 1 == 1)
}
