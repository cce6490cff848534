//! The programs of `examples/`, run as their first lines say, against the real binary.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A hub on free ports. Killed when it is dropped.
struct Hub {
    child: Child,
    control: String,
    /// Open, so that the hub can go on writing to it.
    _output: BufReader<ChildStdout>,
    _directory: TempDir,
}

impl Hub {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_duelhub"));
        command.env_clear().current_dir(&directory).stdout(Stdio::piped());
        // Production logs in JSON, from which the addresses are read.
        command.envs([("APP_ENV", "production"), ("WEBAPP_URL", "https://a.example")]);
        command.env("WEBSOCKET_TICKET_SECRET", "0123456789abcdef0123456789abcdef");
        command.envs([("WEBSOCKET_PORT", "0"), ("CONTROL_PORT", "0"), ("ADMIN_PORT", "0")]);
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let control = output.by_ref().lines().find_map(|line| {
            let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
            line["control"].as_str().map(str::to_owned)
        });
        let control = control.expect("it says where it serves");
        Self { child, control, _output: output, _directory: directory }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Cargo builds the examples before it runs tests, beside the directory of this one.
fn example(name: &str) -> PathBuf {
    let here = std::env::current_exe().unwrap();
    here.parent().unwrap().with_file_name("examples").join(name)
}

#[test]
fn a_backend_opens_pushes_watches_and_closes() {
    let hub = Hub::start();
    let url = format!("http://{}", hub.control);
    let output = Command::new(example("backend")).arg(url).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for line in ["event 1 is stored, a duplicate: false", "event 1 is stored, a duplicate: true"] {
        assert!(said.contains(line), "{said}");
    }
    assert!(said.contains("watched: Synced") && said.contains("watched: Closed"), "{said}");
}
