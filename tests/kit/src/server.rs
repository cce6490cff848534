//! A hub in this process, on free ports.

use std::collections::HashMap;
use std::sync::Arc;

use duelhub::config::Config;
use duelhub::metrics::Metrics;
use duelhub::server::{Addresses, Server};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::{Backend, Reachable, SECRET, soon};

/// Telegram's token of the bot that the tests' hubs belong to.
pub const BOT_TOKEN: &str = "123456:the-bot-token-of-the-tests";

/// Stops with the test; [`TestServer::stop`] stops it in good order.
#[derive(Debug)]
pub struct TestServer {
    /// Where it listens.
    pub addresses: Addresses,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
    /// Goes with the server.
    _data: TempDir,
}

impl Reachable for TestServer {
    fn addresses(&self) -> Addresses {
        self.addresses
    }
}

impl TestServer {
    /// With defaults that suit tests: free ports, an empty store, no grace, no drain.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With `variables` besides, or instead.
    pub async fn with(variables: &[(&str, &str)]) -> Self {
        Self::tuned(variables, |_| {}).await
    }

    /// With settings besides that no variable changes.
    pub async fn tuned(variables: &[(&str, &str)], tune: impl FnOnce(&mut Config)) -> Self {
        let (server, data) = Self::bound_and_tuned(variables, tune).await;
        let addresses = server.addresses();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(async move {
            let stopped = async {
                let _stopped = stopped.await;
            };
            server.run(stopped).await.unwrap();
        });
        Self { addresses, stop: Some(stop), running, _data: data }
    }

    /// The same, and a backend of it.
    pub async fn start_with_backend(variables: &[(&str, &str)]) -> (Self, Backend) {
        let server = Self::with(variables).await;
        let backend = Backend::connect(&server).await;
        (server, backend)
    }

    /// One that listens, and does not serve.
    pub async fn bound(variables: &[(&str, &str)]) -> (Server, TempDir) {
        Self::bound_and_tuned(variables, |_| {}).await
    }

    async fn bound_and_tuned(
        variables: &[(&str, &str)],
        tune: impl FnOnce(&mut Config),
    ) -> (Server, TempDir) {
        let defaults = [
            ("WEBSOCKET_PORT", "0"),
            ("CONTROL_PORT", "0"),
            ("ADMIN_PORT", "0"),
            ("WEBSOCKET_TICKET_SECRET", SECRET),
            ("WEBSOCKET_DRAIN_SECONDS", "0"),
            ("TELEGRAM_BOT_TOKEN", BOT_TOKEN),
            ("PRESENCE_GRACE_SECONDS", "0"),
            // Players of tests come back more often than people do.
            ("WEBSOCKET_MAX_HANDSHAKES_PER_USER_PER_MINUTE", "1000000"),
        ];
        let data = tempfile::tempdir().unwrap();
        let data_dir = [("DATA_DIR", data.path().to_str().unwrap())];
        let set: HashMap<_, _> =
            defaults.iter().chain(&data_dir).chain(variables).copied().collect();
        let config = Config::read(&|name| set.get(name).map(|text| (*text).to_owned()));
        let mut config = config.unwrap();
        tune(&mut config);
        (Server::bind(config, Arc::new(Metrics::new())).await.unwrap(), data)
    }

    /// Asks it to stop; what it does on the way can be watched.
    pub fn begin_stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// Waits until it has stopped, in good order.
    pub async fn stopped(&mut self) {
        soon("the server stops", &mut self.running).await.unwrap();
    }

    /// Stops it in good order.
    pub async fn stop(mut self) {
        self.begin_stop();
        self.stopped().await;
    }
}
