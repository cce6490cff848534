//! Health, readiness and metrics in plain text, and the operators' [`console`], on a listener of their own. Health and metrics have
//! no authentication, and so the listener stays on loopback.
//!
//! A connection is for one request, and has [`limits::ADMIN_TIMEOUT`] for it and its answer. There are so many places
//! ([`AdminConfig`]); past that the oldest connection gives way, so that who sends nothing keeps no health check out.

mod console;
mod exposition;
mod health;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::config::AdminConfig;
use crate::hub::Hub;
use crate::limits;
use crate::metrics::{BuildLabels, Metrics};
use crate::places::Places;
use crate::version;

/// The admin listener.
#[derive(Debug)]
pub struct Admin {
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    config: AdminConfig,
    started_at: Instant,
}

impl Admin {
    /// Creates the listener of `hub`.
    #[must_use]
    pub fn new(config: AdminConfig, hub: Arc<Hub>, metrics: Arc<Metrics>) -> Self {
        let build = BuildLabels { version: version::VERSION, revision: version::REVISION };
        metrics.build_info.get_or_create(&build).set(1);
        if let Some(seconds) = exposition::start_seconds() {
            metrics.start_seconds.set(seconds);
        }
        Self { hub, metrics, config, started_at: Instant::now() }
    }

    /// Serves `listener` until `stop`.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let AdminConfig { timeout, connections_max, .. } = self.config;
        let newcomers = Places::new(connections_max, self.metrics.admin_connections.clone());
        let crowded_out = self.metrics.admin_connections_crowded_out.clone();
        let admin = Arc::new(self);
        let router = Router::new()
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(health::readyz))
            .route("/metrics", get(exposition::metrics))
            .merge(console::router(Arc::clone(&admin)))
            .with_state(admin);
        let serving = async {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let Some(newcomer) = newcomers.enter() else { continue };
                        let router = router.clone();
                        let crowded_out = crowded_out.clone();
                        let answer = answer(stream, router, timeout);
                        tokio::spawn(async move {
                            let has_to_go = newcomer.crowded_out();
                            if has_to_go.run_until_cancelled(answer).await.is_none() {
                                crowded_out.inc();
                            }
                            drop(newcomer);
                        });
                    }
                    Err(error) => {
                        warn!(%error, "a connection to the admin port could not be accepted");
                        tokio::time::sleep(limits::ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        stop.run_until_cancelled(serving).await;
    }
}

/// Answers one request, for no longer than `timeout` in all.
async fn answer(stream: TcpStream, router: Router, timeout: Duration) {
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(limits::HTTP_HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // Whoever does not speak HTTP, or goes away, is of no concern.
    let _ended = tokio::time::timeout(timeout, connection).await;
}
