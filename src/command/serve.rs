//! `duelhub serve`: the hub.
#![expect(clippy::print_stdout, reason = "the newcomer's greeting is not a log line")]

use std::process::ExitCode;

use duelhub::config::{AppEnv, Config};
use duelhub::demo::{self, FIRST_DUEL};
use duelhub::server::{Addresses, Server, StartError};
use duelhub::telemetry;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, warn};

pub(super) async fn run(config: Config) -> ExitCode {
    telemetry::init(&config);
    config.warnings.iter().for_each(|warning| warn!("{warning}"));
    let (development, token) =
        (config.app_env == AppEnv::Development, config.control.token.is_some());
    let served = async {
        let server = Server::bind(config).await?;
        if development {
            greet(server.addresses(), token);
        }
        server.run(shutdown_signal()).await
    };
    match served.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ StartError::Tls(_)) => {
            error!(%error, "not started");
            super::USAGE.into()
        }
        Err(error @ StartError::Bind { .. }) => {
            error!(%error, "not started");
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

/// Completes at SIGTERM (systemd, Docker) or SIGINT (Ctrl-C).
async fn shutdown_signal() {
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        (Err(error), _) | (_, Err(error)) => error!(%error, "signals cannot be received: stopping"),
    }
}
