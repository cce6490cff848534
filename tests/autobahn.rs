//! The Autobahn cases against the data plane's WebSocket layer: the very stream that players are served on, echoing.
//!
//! Needs `tests/tools/install`. Cases 12 and 13 are left out: they are of compression, which the hub does not offer.

use std::collections::BTreeMap;
use std::process::Stdio;

use duelhub::edge::websocket;
use duelhub_testkit::has_tool;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

const TOOL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/venv/bin/kosoku");

/// The largest message of the cases is 16 MiB.
const MESSAGE_BYTES_MAX: usize = 17 << 20;

async fn echo(stream: TcpStream) {
    let Ok(accepted) = tokio_tungstenite::accept_async(stream).await else { return };
    let mut ws = websocket(accepted.into_inner(), Vec::new(), MESSAGE_BYTES_MAX).await;
    while let Some(received) = ws.next().await {
        let code = match received {
            Ok(message) if message.is_text() || message.is_binary() => {
                if ws.send(message).await.is_err() {
                    return;
                }
                continue;
            }
            Ok(_) => continue,
            Err(Error::Utf8(_)) => 1007,
            Err(_) => 1002,
        };
        let _closed = ws.close(Some(CloseFrame { code: code.into(), reason: "".into() })).await;
        return;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_case_is_ok_non_strict_or_informational() {
    if !has_tool(TOOL, "the Autobahn cases") {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo(stream));
        }
    });
    let reports = tempfile::tempdir().unwrap();
    let mut tool = Command::new(TOOL);
    tool.args(["-x", "12.*", "-x", "13.*", "-p", "2", "-o"]).arg(reports.path()).arg(&address);
    let output =
        tool.stdout(Stdio::null()).output().await.expect("tests/tools/install has been run");
    let index = std::fs::read_to_string(reports.path().join("index.json"));
    let index: BTreeMap<String, BTreeMap<String, Value>> =
        serde_json::from_str(&index.unwrap_or_else(|_| panic!("{output:?}"))).unwrap();
    let cases = index.into_values().next().unwrap();
    let passes =
        |result: &Value| matches!(result.as_str(), Some("OK" | "NON-STRICT" | "INFORMATIONAL"));
    let failed: Vec<_> = cases
        .iter()
        .filter(|(_, case)| !passes(&case["behavior"]) || !passes(&case["behaviorClose"]))
        .map(|(id, case)| format!("{id}: {} {}", case["behavior"], case["behaviorClose"]))
        .collect();
    assert!(cases.len() >= 300, "only {} cases ran", cases.len());
    assert!(failed.is_empty(), "{failed:#?}");
}
