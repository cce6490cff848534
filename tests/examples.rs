//! The programs of `examples/`, run as their first lines say, against the real binary.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

#[path = "kit/tools.rs"]
mod tools;

/// Where `tests/tools/install` puts grpcurl.
const TOOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/venv/bin");

/// A hub on free ports. Killed when it is dropped.
struct Hub {
    child: Child,
    control: String,
    /// Open, so that the hub can go on writing to it.
    _output: BufReader<ChildStdout>,
    _directory: TempDir,
}

impl Hub {
    fn start(variables: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_duelhub"));
        command.env_clear().current_dir(&directory).stdout(Stdio::piped());
        // Production logs in JSON, from which the addresses are read.
        command.envs([("APP_ENV", "production"), ("WEBAPP_URL", "https://a.example")]);
        command.env("WEBSOCKET_TICKET_SECRET", "0123456789abcdef0123456789abcdef");
        command.envs([("WEBSOCKET_PORT", "0"), ("CONTROL_PORT", "0"), ("ADMIN_PORT", "0")]);
        command.envs(variables.iter().copied());
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
    let hub = Hub::start(&[]);
    let url = format!("http://{}", hub.control);
    let output = Command::new(example("backend")).arg(url).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for line in ["event 1 is stored, a duplicate: false", "event 1 is stored, a duplicate: true"] {
        assert!(said.contains(line), "{said}");
    }
    assert!(said.contains("watched: Synced") && said.contains("watched: Closed"), "{said}");
}

#[test]
fn a_shell_pushes_with_the_token() {
    if !tools::has(Path::new(TOOLS).join("grpcurl"), "examples/push.sh") {
        return;
    }
    let token = [("CONTROL_TOKEN", "a token of the example")];
    let hub = Hub::start(&token);
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/push.sh"));
    command.args(["78", r#"{"text":"with a \"quote\""}"#]);
    let path = format!("{TOOLS}:{}", std::env::var("PATH").unwrap());
    command.env("PATH", path).env("CONTROL", &hub.control).envs(token);
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains(r#""duelId": "78""#), "{said}");
}
