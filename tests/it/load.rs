//! Under load: `duelhub bench` against a hub of its own, the real binary on both sides. It is exact in what it checks, so it is
//! what shows that no tuning loses, doubles or reorders an event. How fast it was is not looked at here.

use std::process::Command;

use serde_json::Value;

fn bench(engine: &str, arguments: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_duelhub"));
    command.args(["bench"]).args(arguments).args(["--json"]).env_clear().env("ENGINE", engine);
    let output = command.output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    assert!(output.status.success(), "{engine} {arguments:?}: {report:#}");
    assert_eq!(report["fault_count"], 0);
    report
}

fn figure(report: &Value, name: &str) -> f64 {
    let rows = report["figures"].as_array().unwrap();
    let row = rows.iter().find(|row| row["name"] == name);
    row.unwrap_or_else(|| panic!("no {name} in {report:#}"))["median"].as_f64().unwrap()
}

#[test]
fn every_event_is_received_once_and_in_order_however_it_was_pushed() {
    for engine in ["memory", "embedded"] {
        for push in ["unary", "stream"] {
            let load = ["--duels", "100", "--rate", "2000", "--seconds", "1", "--runs", "2"];
            let report = bench(engine, &[&["duels", "--push", push], &load[..]].concat());
            assert!(figure(&report, "server CPU per delivery") > 0.0);
            assert!(figure(&report, "PSS per connection") > 0.0);
        }
    }
}

#[test]
fn every_spectator_receives_everything() {
    // At the second rate the next event tends to be stored while the one before is still being handed over.
    for rate in ["100", "1000"] {
        let load = ["--spectators", "300", "--rate", rate, "--seconds", "1", "--runs", "1"];
        bench("memory", &[&["broadcast", "--push", "stream"], &load[..]].concat());
    }
}

#[test]
fn everybody_is_back_and_has_missed_nothing_after_the_hub_was_killed() {
    let report = bench("embedded", &["storm", "--connections", "300"]);
    assert_eq!(figure(&report, "recovered"), 300.0);
}

#[test]
fn idle_connections_have_their_pings_answered() {
    let report =
        bench("memory", &["idle", "--connections", "100", "--seconds", "1", "--runs", "1"]);
    assert!(figure(&report, "pings answered") >= 100.0);
}
