//! `duelhub serve`: the hub.
#![expect(clippy::print_stdout, reason = "the newcomer's greeting is not a log line")]

use std::process::ExitCode;

use duelhub::config::{AppEnv, Config};
use duelhub::control::ServeError;
use duelhub::demo::{self, FIRST_DUEL};
use duelhub::engine::StoreError;
use duelhub::server::{Addresses, Server, StartError};
use duelhub::telemetry;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, warn};

pub(super) async fn run(config: Config) -> ExitCode {
    telemetry::init(&config);
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
        let server = Server::bind(config).await?;
        if development {
            greet(server.addresses(), token);
        }
        server.run(shutdown).await
    };
    match served.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ (StartError::Control(ServeError::Tls) | StartError::Redis(_))) => {
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

fn greet(Addresses { edge, control, admin }: Addresses, token: bool) {
    let line = demo::grpcurl_line(FIRST_DUEL, control, token);
    println!(
        "
  duelhub {version}, development mode

    page           http://{edge}/demo/
    WebSocket      ws://{edge}/ws
    gRPC           {control}
    health         http://{admin}/readyz   http://{admin}/metrics

  Open the page: two players are in a duel. Then push to both of them:

    {line}
",
        version = env!("CARGO_PKG_VERSION"),
    );
}

/// Returns a future that completes at SIGTERM (systemd, Docker) or SIGINT (Ctrl-C).
fn shutdown_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
