//! What a Redis may suffer.

use std::process::Command;

use crate::redis_server::RedisServer;

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
