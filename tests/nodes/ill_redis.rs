//! What a Redis may suffer.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::redis_server::RedisServer;

/// A real Sentinel that watches over a master called `game`. Killed when it is dropped.
pub(crate) struct Sentinel {
    directory: TempDir,
    port: u16,
    child: Child,
}

impl Sentinel {
    pub(crate) fn of(master: &RedisServer) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let directory = tempfile::tempdir().unwrap();
        let config = format!(
            "port {port}\nsentinel monitor game 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds game 1000\nsentinel failover-timeout game 5000\n",
            master.port()
        );
        std::fs::write(directory.path().join("sentinel.conf"), config).unwrap();
        let child = Command::new("redis-server")
            .args(["sentinel.conf", "--sentinel"])
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { directory, port, child }
    }

    /// As a node names it.
    pub(crate) fn url(&self) -> String {
        format!("redis+sentinel://127.0.0.1:{}/game", self.port)
    }

    /// Whether it has found the master's replica, which it writes down.
    pub(crate) fn knows_a_replica(&self) -> bool {
        let config = std::fs::read_to_string(self.directory.path().join("sentinel.conf"));
        config.unwrap().contains("known-replica game")
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl RedisServer {
    /// Kills it: what is not on the disk is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it again on what it has left on the disk.
    pub(crate) fn start_again(&mut self) {
        self.run();
    }

    /// Has it stand still (`STOP`), or go on (`CONT`).
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Where it listens.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// The same of what is answered with a number.
    pub(crate) fn ask_count(&self, line: &str) -> u64 {
        self.ask_for(line).unwrap()
    }
}
