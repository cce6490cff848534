//! A real redis-server of a test's own, on a socket in a directory of its own, and on a port if one is asked for.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::has_tool;

/// How long anything may take that works.
const DEADLINE: Duration = Duration::from_secs(20);

/// Whether there is one to be started. Said once, if not.
pub fn is_installed() -> bool {
    static INSTALLED: LazyLock<bool> =
        LazyLock::new(|| has_tool("redis-server", "whatever is on Redis"));
    *INSTALLED
}

/// One server. Killed when it is dropped.
#[derive(Debug)]
pub struct RedisServer {
    directory: TempDir,
    options: Vec<String>,
    port: u16,
    child: Option<Child>,
}

impl RedisServer {
    /// Starts one that keeps nothing on the disk. Where none is installed, ends the program of tests that wants one: it has
    /// nothing else to test, or has asked [`is_installed`] before.
    pub fn start(options: &[&str]) -> Self {
        if !is_installed() {
            std::process::exit(0);
        }
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let directory = tempfile::tempdir().unwrap();
        let mut server = Self { directory, options, port: free_port(), child: None };
        let started = Instant::now();
        // Somebody else may have taken the port by now.
        while !server.try_start() {
            assert!(started.elapsed() < DEADLINE, "redis-server finds no port");
            server.port = free_port();
        }
        server
    }

    /// Starts it again, on what it has left on the disk.
    pub fn start_again(&mut self) {
        let started = Instant::now();
        while !self.try_start() {
            assert!(started.elapsed() < DEADLINE, "redis-server does not start again");
        }
    }

    /// Starts it, and waits until it answers. Returns whether it does: it ends if it cannot have its port.
    fn try_start(&mut self) -> bool {
        let child = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--logfile", "redis.log", "--unixsocket", "redis.sock"])
            .args(&self.options)
            .current_dir(self.directory.path())
            .stdout(Stdio::null())
            .spawn();
        self.child = Some(child.expect("redis-server is installed"));
        let started = Instant::now();
        while self.ask("PING").ok() != Some("PONG".to_owned()) {
            let ended =
                self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_some());
            if ended {
                return false;
            }
            assert!(started.elapsed() < DEADLINE, "redis-server does not answer");
            std::thread::yield_now();
        }
        true
    }

    /// Its URL, without a network between.
    pub fn url(&self) -> String {
        let mut options = self.options.iter().skip_while(|option| *option != "--requirepass");
        let password = options.nth(1).map(|password| format!("?pass={password}"));
        format!("redis+unix://{}{}", self.socket().display(), password.unwrap_or_default())
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }

    /// Says something to it, on a connection of its own.
    pub fn ask(&self, line: &str) -> redis::RedisResult<String> {
        self.ask_for(line)
    }

    /// The same, for an answer of another kind.
    pub fn ask_for<T: redis::FromRedisValue>(&self, line: &str) -> redis::RedisResult<T> {
        let mut connection = redis::Client::open(self.url())?.get_connection()?;
        let mut words = line.split_whitespace();
        let mut command = redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            command.arg(word);
        });
        command.query(&mut connection)
    }

    /// What is answered with a list of texts.
    pub fn ask_list(&self, line: &str) -> Vec<String> {
        self.ask_for(line).unwrap()
    }

    /// Kills it: what is not on the disk is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Has it stand still (`STOP`), or go on (`CONT`).
    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Where it listens.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The same of what is answered with a number.
    pub fn ask_count(&self, line: &str) -> u64 {
        self.ask_for(line).unwrap()
    }
}

/// A port that nobody listens on, at the moment.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
