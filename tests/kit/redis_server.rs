//! A real redis-server of a test's own, on a socket in a directory of its own, and on a port if one is asked for.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// How long anything may take that works.
const DEADLINE: Duration = Duration::from_secs(20);

/// One server. Killed when it is dropped.
#[derive(Debug)]
pub(crate) struct RedisServer {
    directory: TempDir,
    options: Vec<String>,
    port: u16,
    child: Option<Child>,
}

impl RedisServer {
    /// Starts one that keeps nothing on the disk.
    pub(crate) fn start(options: &[&str]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let directory = tempfile::tempdir().unwrap();
        let mut server = Self { directory, options, port, child: None };
        server.start_again();
        server
    }

    /// Starts it again on what it has left on the disk.
    pub(crate) fn start_again(&mut self) {
        let child = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--logfile", "redis.log", "--unixsocket", "redis.sock"])
            .args(&self.options)
            .current_dir(self.directory.path())
            .stdout(Stdio::null())
            .spawn();
        self.child = Some(child.expect("redis-server is installed"));
        let started = std::time::Instant::now();
        while self.ask("PING").ok() != Some("PONG".to_owned()) {
            assert!(started.elapsed() < DEADLINE, "redis-server does not answer");
            std::thread::yield_now();
        }
    }

    /// Kills it: what is not on the disk is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Where it listens.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Its URL, without a network between.
    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }

    /// Says something to it, on a connection of its own.
    pub(crate) fn ask(&self, line: &str) -> redis::RedisResult<String> {
        let mut connection = redis::Client::open(self.url())?.get_connection()?;
        let mut words = line.split_whitespace();
        let mut command = redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            command.arg(word);
        });
        command.query(&mut connection)
    }

    /// Waits until nobody else is connected: what was sent before has been done.
    pub(crate) async fn wait_until_alone(&self) {
        let started = std::time::Instant::now();
        while self.ask("CLIENT LIST").unwrap().lines().count() > 1 {
            assert!(started.elapsed() < DEADLINE, "somebody stays connected");
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
