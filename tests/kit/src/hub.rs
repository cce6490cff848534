//! The real binary as a child process: what it prints, when it serves, how it ends.

use std::fmt;
use std::net::SocketAddr;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use duelhub::server::Addresses;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::{Reachable, soon};

/// How a hub is made to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HowToEnd {
    /// SIGTERM: in good order.
    Term,
    /// SIGKILL: in the middle of whatever it does.
    Kill,
}

/// How a hub ended.
#[derive(Debug)]
pub struct Exit {
    /// `None`: by a signal.
    pub code: Option<i32>,
    /// What it printed, on either stream.
    pub output: String,
}

impl Exit {
    /// Whether something in it panicked, even if the process went on.
    pub fn panicked(&self) -> bool {
        self.output.contains("panicked")
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {:?}:\n{}", self.code, self.output)
    }
}

/// A hub that was started and does not serve yet.
#[derive(Debug)]
pub struct Starting {
    child: Child,
    output: Arc<Mutex<String>>,
    readers: [JoinHandle<()>; 2],
}

/// A hub that serves. Killed when it is dropped.
#[derive(Debug)]
pub struct Hub {
    /// Where it listens.
    pub addresses: Addresses,
    process: Starting,
}

impl Reachable for Hub {
    fn addresses(&self) -> Addresses {
        self.addresses
    }
}

impl Hub {
    /// Starts the binary.
    pub(crate) fn spawn(mut command: Command) -> Starting {
        let mut child = command.spawn().unwrap();
        let output = Arc::new(Mutex::new(String::new()));
        let readers = [
            tokio::spawn(collect(child.stdout.take().unwrap(), Arc::clone(&output))),
            tokio::spawn(collect(child.stderr.take().unwrap(), Arc::clone(&output))),
        ];
        Starting { child, output, readers }
    }

    /// What it has printed so far.
    pub fn output(&self) -> String {
        self.process.output.lock().clone()
    }

    /// The process's id, until it has been waited for.
    pub fn pid(&self) -> Option<u32> {
        self.process.child.id()
    }

    /// Whether the process is there.
    pub fn lives(&mut self) -> bool {
        self.process.child.try_wait().unwrap().is_none()
    }

    /// Sends the signal, and does not wait.
    pub fn send(&self, how: HowToEnd) {
        self.process.send(how);
    }

    /// Makes it end, and waits until it has. After SIGTERM it must have done so in good order.
    pub async fn end(self, how: HowToEnd) -> Exit {
        self.send(how);
        self.ended(how).await
    }

    /// Kills it: how it ended, whatever it did before.
    pub async fn kill(self) -> Exit {
        self.send(HowToEnd::Kill);
        self.process.ended().await
    }

    /// Waits until it has ended, as `how` was sent before.
    pub async fn ended(self, how: HowToEnd) -> Exit {
        let exit = self.process.ended().await;
        let expected = (how == HowToEnd::Term).then_some(0);
        assert!(exit.code == expected && !exit.panicked(), "after {how:?}: {exit}");
        exit
    }
}

impl Starting {
    /// Waits until it serves, or has ended instead.
    pub async fn serving(mut self) -> Result<Hub, Exit> {
        let addresses = soon("it serves or ends", async {
            loop {
                if let Some(addresses) = serving(&self.output.lock()) {
                    return Some(addresses);
                }
                if self.child.try_wait().unwrap().is_some() {
                    return None;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        match addresses.await {
            Some(addresses) => Ok(Hub { addresses, process: self }),
            None => Err(self.ended().await),
        }
    }

    /// Sends the signal, and does not wait.
    pub fn send(&self, how: HowToEnd) {
        let signal = match how {
            HowToEnd::Term => Signal::TERM,
            HowToEnd::Kill => Signal::KILL,
        };
        // Once the process has been waited for, there is no id any more, and nobody to signal.
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        kill_process(pid.expect("the process was not waited for"), signal).unwrap();
    }

    /// Waits until it has ended.
    pub async fn ended(mut self) -> Exit {
        let status: ExitStatus = soon("it ends", self.child.wait()).await.unwrap();
        for reader in self.readers {
            soon("its output ends", reader).await.unwrap();
        }
        Exit { code: status.code(), output: std::mem::take(&mut self.output.lock()) }
    }
}

async fn collect(stream: impl AsyncRead + Unpin, output: Arc<Mutex<String>>) {
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut output = output.lock();
        output.push_str(&line);
        output.push('\n');
    }
}

/// Where it serves, once it has said so.
fn serving(output: &str) -> Option<Addresses> {
    let line = output.lines().find(|line| line.contains("\"serving\""))?;
    let line: Value = serde_json::from_str(line).unwrap();
    let address = |name: &str| line[name].as_str().unwrap().parse::<SocketAddr>().unwrap();
    Some(Addresses { edge: address("edge"), control: address("control"), admin: address("admin") })
}
