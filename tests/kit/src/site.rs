//! What a hub is started with, again and again: its `DATA_DIR`, its ports, its variables.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};

use tempfile::TempDir;
use tokio::process::Command;

use crate::{Backend, Exit, Hub, Starting};

/// What signs tickets where a test says nothing else.
pub const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The engine under test. `ENGINE=memory` shows what of a failure is the tests' own.
fn engine() -> String {
    std::env::var("ENGINE").unwrap_or_else(|_| "embedded".to_owned())
}

/// Where a hub lives.
#[derive(Debug)]
pub struct Site {
    /// Holds `DATA_DIR`, and is gone with the test.
    directory: TempDir,
    variables: BTreeMap<String, String>,
    /// The words before the hub's own name, of a program that becomes the hub.
    pub wrapper: Vec<String>,
}

impl Site {
    /// As in production, with free ports, no grace and no drain, and an empty `DATA_DIR`.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let defaults = [
            ("APP_ENV", "production"),
            ("WEBAPP_URL", "https://a.example"),
            ("WEBSOCKET_TICKET_SECRET", SECRET),
            ("WEBSOCKET_PORT", "0"),
            ("CONTROL_PORT", "0"),
            ("ADMIN_PORT", "0"),
            ("WEBSOCKET_DRAIN_SECONDS", "0"),
            ("PRESENCE_GRACE_SECONDS", "0"),
            // Players of tests come back more often than people do.
            ("WEBSOCKET_MAX_HANDSHAKES_PER_USER_PER_MINUTE", "1000000"),
        ];
        let variables = defaults.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
        let mut site = Self { directory, variables, wrapper: Vec::new() };
        site.set("ENGINE", engine());
        site.set("DATA_DIR", site.data_dir().display().to_string());
        site
    }

    /// With one variable more, or another value.
    pub fn with(mut self, name: &str, text: impl Into<String>) -> Self {
        self.set(name, text);
        self
    }

    /// Sets one variable.
    pub fn set(&mut self, name: &str, text: impl Into<String>) {
        self.variables.insert(name.to_owned(), text.into());
    }

    /// On ports that stay the same, so that clients find the hub again.
    pub fn on_ports_of_its_own(mut self) -> Self {
        for name in ["WEBSOCKET_PORT", "CONTROL_PORT", "ADMIN_PORT"] {
            self.set(name, free_port().to_string());
        }
        self
    }

    /// A directory for what the test needs besides.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// `DATA_DIR`, unless a test has set another.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The binary with its environment, ready to be started.
    pub fn command(&self) -> Command {
        let binary = std::env::var("CARGO_BIN_EXE_duelhub").expect("cargo runs the tests");
        let mut words = self.wrapper.iter().chain([&binary]);
        let mut command = Command::new(words.next().expect("the hub's name"));
        command.args(words).env_clear().envs(&self.variables).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// A hub that serves.
    pub async fn start(&self) -> Hub {
        self.try_start().await.unwrap_or_else(|exit| panic!("it does not start: {exit}"))
    }

    /// The same, and a backend of it.
    pub async fn start_with_backend(&self) -> (Hub, Backend) {
        let hub = self.start().await;
        let backend = Backend::connect(&hub).await;
        (hub, backend)
    }

    /// A hub that serves, or how it ended instead.
    pub async fn try_start(&self) -> Result<Hub, Exit> {
        Hub::spawn(self.command()).serving().await
    }

    /// A hub that may or may not get as far as serving.
    pub fn begin_start(&self) -> Starting {
        Hub::spawn(self.command())
    }
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

/// A port that is free now, below those that Linux gives to clients (from 32768): a client that knocks while the hub is
/// away could be given the hub's own port, and then speaks to itself.
fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id() * 31;
    loop {
        let nth = start + u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = FIRST + u16::try_from(nth % u32::from(COUNT)).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
