//! The programs of `examples/` that need Rust or a shell alone, run as their first lines say, against the real binary.
//! `tests/examples/run` has those of other languages.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::PathBuf;
use std::process::Command;

use duelhub_testkit::{Site, has_tool};

/// Cargo builds the examples before it runs tests, beside the directory of this one.
fn example(name: &str) -> PathBuf {
    let here = std::env::current_exe().unwrap();
    here.parent().unwrap().with_file_name("examples").join(name)
}

#[tokio::test]
async fn a_backend_opens_pushes_watches_and_closes() {
    let hub = Site::new().start().await;
    let url = format!("http://{}", hub.addresses.control);
    let output = Command::new(example("backend")).arg(url).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for line in ["event 1 is stored, a duplicate: false", "event 1 is stored, a duplicate: true"] {
        assert!(said.contains(line), "{said}");
    }
    assert!(said.contains("watched: Synced") && said.contains("watched: Closed"), "{said}");
}

#[tokio::test]
async fn a_shell_needs_curl_alone() {
    if !has_tool("curl", "examples/curl/duel.sh") {
        return;
    }
    let (name, token) = ("CONTROL_TOKEN", "a token of the example");
    let hub = Site::new().with(name, token).start().await;
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/curl/duel.sh"));
    command.arg("78").env("CONTROL", hub.addresses.control.to_string()).env(name, token);
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for line in [r#""duplicate":true"#, r#""synced":"#, r#""closed":"#, r#""reason":"DUEL_CLOSED""#]
    {
        assert!(said.contains(line), "{said}");
    }
}
