//! Redis as more than one server: a master that Sentinel watches over, and a Cluster.

use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::redis_server::{RedisServer, free_port};
use crate::until;

/// A real Sentinel that watches over a master called `game`. Killed when it is dropped.
#[derive(Debug)]
pub struct Sentinel {
    directory: TempDir,
    port: u16,
    child: Child,
}

impl Sentinel {
    /// One that fails over a second after the master has stopped answering.
    pub fn of(master: &RedisServer) -> Self {
        let port = free_port();
        let config = format!(
            "port {port}\nsentinel monitor game 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds game 1000\nsentinel failover-timeout game 5000\n",
            master.port()
        );
        Self::with(port, &config)
    }

    /// One with such settings, which say that it listens at `port`.
    pub fn with(port: u16, config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
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
    pub fn url(&self) -> String {
        format!("redis+sentinel://127.0.0.1:{}/game", self.port)
    }

    /// Whether it has found the master's replica, which it writes down.
    pub fn knows_a_replica(&self) -> bool {
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

/// Three masters that share the slots.
#[derive(Debug)]
pub struct Cluster {
    /// Each with a third of the slots at first.
    pub members: [RedisServer; 3],
}

impl Cluster {
    /// Starts them, and waits until they know each other.
    pub async fn start() -> Self {
        let member = || {
            let bus = free_port().to_string();
            RedisServer::start(&["--cluster-enabled", "yes", "--cluster-port", &bus])
        };
        let members = [member(), member(), member()];
        for (member, range) in members.iter().zip(["0 5460", "5461 10922", "10923 16383"]) {
            member.ask(&format!("CLUSTER ADDSLOTSRANGE {range}")).unwrap();
        }
        let bus = members[0].ask_list("CONFIG GET cluster-port")[1].clone();
        for member in &members[1..] {
            member.ask(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", members[0].port())).unwrap();
        }
        let cluster = Self { members };
        until("one cluster", async || {
            let knows_all = |member: &RedisServer| {
                let info = member.ask("CLUSTER INFO").unwrap();
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
            };
            cluster.members.iter().all(knows_all)
        })
        .await;
        cluster
    }

    /// As a node names it.
    pub fn url(&self) -> String {
        let hosts = self.members.iter().map(|member| format!("127.0.0.1:{}", member.port()));
        format!("redis+cluster://{}", hosts.collect::<Vec<_>>().join(","))
    }

    /// Moves the slot of a key, with what is in it, to another master.
    pub fn move_slot_of(&self, key: &str) {
        let slot = self.members[0].ask_count(&format!("CLUSTER KEYSLOT {key}"));
        let own = |member: &RedisServer| {
            let moved = member.ask(&format!("CLUSTER COUNTKEYSINSLOT {slot}"));
            moved.is_err() || member.ask_count(&format!("CLUSTER COUNTKEYSINSLOT {slot}")) > 0
        };
        let from = self.members.iter().find(|member| own(member)).expect("somebody has it");
        let to = self.members.iter().find(|member| member.port() != from.port()).unwrap();
        let (from_id, to_id) = (from.ask("CLUSTER MYID").unwrap(), to.ask("CLUSTER MYID").unwrap());
        to.ask(&format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}")).unwrap();
        from.ask(&format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}")).unwrap();
        for key in from.ask_list(&format!("CLUSTER GETKEYSINSLOT {slot} 1000")) {
            // What has gone meanwhile is answered with NOKEY.
            from.ask(&format!("MIGRATE 127.0.0.1 {} {key} 0 5000", to.port())).unwrap();
        }
        for member in [to, from] {
            member.ask(&format!("CLUSTER SETSLOT {slot} NODE {to_id}")).unwrap();
        }
    }
}
