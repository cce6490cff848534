//! Checks with systemd that the service restarts after a crash.

use std::collections::HashMap;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::Instant;

use super::{CheckOptions, Reporter, Verdict, bad};
use crate::config::Config;

/// How long the service may take to restart: several times `RestartSec` and a start.
const RESTART_TIMEOUT: Duration = Duration::from_secs(30);

const LOOK: &str =
    "systemctl status and journalctl -u of the unit, deploy/quizbot-websocket.service";

/// What systemd says of a program or a directory that is not there (systemd.exec(5), "Process Exit Codes").
const NO_SUCH_PATH: [&str; 2] = ["200", "203"];

pub(super) async fn check(unit: &str, options: &CheckOptions, report: Reporter<'_>) {
    let what = format!("{unit} would restart after a crash");
    let before = match properties(unit).await {
        Ok(properties) => properties,
        Err(error) => return report(&what, bad(error, LOOK)),
    };
    let is = |name: &str, value: &str| before.get(name).is_some_and(|text| text == value);
    let verdict = if !is("ActiveState", "active") {
        bad(not_active(&before), LOOK)
    } else if let Some(other) = another_env_file(&before, options) {
        bad(format!("the unit reads {other}, and not the file that this check was given"), LOOK)
    } else if !is("Restart", "always") {
        bad("Restart is not always", LOOK)
    } else if is("WatchdogUSec", "0") || is("WatchdogUSec", "infinity") {
        bad("WatchdogSec is not set: a hub that hangs would hang for ever", LOOK)
    } else {
        let watchdog = before.get("WatchdogUSec").map_or("none", String::as_str);
        let restarts = before.get("NRestarts").map_or("0", String::as_str);
        Verdict::Good(format!("Restart=always, watchdog {watchdog}, {restarts} restarts so far"))
    };
    let good = matches!(verdict, Verdict::Good(_));
    report(&what, verdict);
    if options.kill && good {
        let verdict = killed(unit, &before, &options.config).await;
        report(&format!("{unit} is back after SIGKILL"), verdict);
    }
}

fn not_active(properties: &HashMap<String, String>) -> String {
    let property = |name: &str| properties.get(name).map_or("unknown", String::as_str);
    let (state, status) = (property("ActiveState"), property("ExecMainStatus"));
    if NO_SUCH_PATH.contains(&status) {
        return format!("the unit is {state}: status {status}, a path in it is not there");
    }
    format!("the unit is {state}")
}

/// Returns the env file in the unit's command line, if the check was given another.
fn another_env_file<'a>(
    properties: &'a HashMap<String, String>,
    options: &CheckOptions,
) -> Option<&'a str> {
    let checked = std::fs::canonicalize(options.env_file.as_ref()?).ok()?;
    let (_, rest) = properties.get("ExecStart")?.split_once("--env-file")?;
    let used = rest.trim_start_matches([' ', '=']).split([' ', ';']).next()?;
    let same = std::fs::canonicalize(used).is_ok_and(|path| path == checked);
    (!same).then_some(used)
}

async fn killed(unit: &str, before: &HashMap<String, String>, config: &Config) -> Verdict {
    let started = Instant::now();
    if let Err(error) = systemctl(&["kill", "--kill-whom=main", "--signal=KILL", unit]).await {
        return bad(error, LOOK);
    }
    while started.elapsed() < RESTART_TIMEOUT {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let Ok(now) = properties(unit).await else { continue };
        let active = now.get("ActiveState").is_some_and(|state| state == "active");
        let another = now.get("MainPID") != before.get("MainPID");
        if active && another && TcpStream::connect(config.edge.address).await.is_ok() {
            let restarts = now.get("NRestarts").map_or("?", String::as_str);
            return Verdict::Good(format!(
                "after {:.1?}, restart number {restarts}",
                started.elapsed()
            ));
        }
    }
    bad(format!("not back within {RESTART_TIMEOUT:?}"), LOOK)
}

async fn properties(unit: &str) -> Result<HashMap<String, String>, String> {
    let names =
        "--property=ActiveState,Restart,NRestarts,MainPID,WatchdogUSec,ExecStart,ExecMainStatus";
    let text = systemctl(&["show", names, unit]).await?;
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

async fn systemctl(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("systemctl").args(arguments).output().await;
    let output = output.map_err(|error| format!("systemctl cannot be run: {error}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(format!("systemctl {}: {}", arguments[0], text.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
