//! A real redis-server of a test's own, on a socket in a directory of its own, and on a port if one is asked for.

#[path = "tools.rs"]
pub(crate) mod tools;

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use tempfile::TempDir;

/// How long anything may take that works.
const DEADLINE: Duration = Duration::from_secs(20);

/// Whether there is one to be started. Said once, if not.
pub(crate) fn is_installed() -> bool {
    static INSTALLED: LazyLock<bool> =
        LazyLock::new(|| tools::has("redis-server", "whatever is on Redis"));
    *INSTALLED
}

/// One server. Killed when it is dropped.
#[derive(Debug)]
pub(crate) struct RedisServer {
    directory: TempDir,
    options: Vec<String>,
    pub(crate) port: u16,
    pub(crate) child: Option<Child>,
}

impl RedisServer {
    /// Starts one that keeps nothing on the disk. Where none is installed, ends the program of tests that wants one: it has
    /// nothing else to test, or has asked [`is_installed`] before.
    pub(crate) fn start(options: &[&str]) -> Self {
        if !is_installed() {
            std::process::exit(0);
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let directory = tempfile::tempdir().unwrap();
        let mut server = Self { directory, options, port, child: None };
        server.run();
        server
    }

    /// Starts it on what is on the disk.
    pub(crate) fn run(&mut self) {
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

    /// Its URL, without a network between.
    pub(crate) fn url(&self) -> String {
        let mut options = self.options.iter().skip_while(|option| *option != "--requirepass");
        let password = options.nth(1).map(|password| format!("?pass={password}"));
        format!("redis+unix://{}{}", self.socket().display(), password.unwrap_or_default())
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }

    /// Says something to it, on a connection of its own.
    pub(crate) fn ask(&self, line: &str) -> redis::RedisResult<String> {
        self.ask_for(line)
    }

    /// The same, for an answer of another kind.
    pub(crate) fn ask_for<T: redis::FromRedisValue>(&self, line: &str) -> redis::RedisResult<T> {
        let mut connection = redis::Client::open(self.url())?.get_connection()?;
        let mut words = line.split_whitespace();
        let mut command = redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            command.arg(word);
        });
        command.query(&mut connection)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
