//! The real binary: configuration, exit status, tickets by hand, signals.

use std::io::{BufRead as _, BufReader, Lines, Read as _, Write as _};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use duelhub_testkit::{SECRET, TestServer, get};
use serde_json::{Value, json};
use tempfile::TempDir;

/// With an environment and a directory of its own, and free ports.
fn duelhub(arguments: &[&str], variables: &[(&str, &str)], directory: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_duelhub"));
    command.args(arguments).env_clear().current_dir(directory);
    command.envs([("WEBSOCKET_PORT", "0"), ("CONTROL_PORT", "0"), ("ADMIN_PORT", "0")]);
    command.envs(variables.iter().copied());
    command
}

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let directory = tempfile::tempdir().unwrap();
    let output = duelhub(arguments, variables, &directory).output().unwrap();
    let Output { status, stdout, stderr } = output;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn env_file(contents: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(contents.as_bytes()).unwrap();
    file
}

/// A hub, and the lines that it prints. Stopped when the test ends, however it does.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    _directory: TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Running {
    fn start(variables: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = duelhub(&[], variables, &directory);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, _directory: directory }
    }

    /// Reads lines until one contains `text`.
    fn until(&mut self, text: &str) -> String {
        let mut read = String::new();
        for line in self.lines.by_ref() {
            let line = line.unwrap();
            read = read + &line + "\n";
            if line.contains(text) {
                return read;
            }
        }
        panic!("it ended before {text:?}:\n{read}");
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }
}

#[test]
fn a_wrong_configuration_is_told_all_at_once_with_status_64() {
    let secret = "short-and-secret";
    let variables = [
        ("APP_ENV", "production"),
        ("WEBSOCKET_PORT", "http"),
        ("ENGINE", "paper"),
        ("WEBSOCKET_TICKET_SECRET", secret),
        ("WEBSOCKET_PROT", "1"),
    ];
    let (status, stdout, stderr) = run(&[], &variables);
    assert_eq!((status, stdout.as_str()), (64, ""));
    for name in
        ["WEBSOCKET_PORT ", "ENGINE ", "WEBSOCKET_TICKET_SECRET ", "WEBAPP_URL ", "WEBSOCKET_PROT "]
    {
        assert!(stderr.contains(&format!("\n  {name}")), "{name}: {stderr}");
    }
    assert!(!stderr.contains(secret));
}

#[test]
fn an_unknown_flag_or_file_is_status_64() {
    assert_eq!(run(&["--nonsense"], &[]).0, 64);
    assert_eq!(run(&["nonsense"], &[]).0, 64);
    let (status, _, stderr) = run(&["--env-file", "/does/not/exist"], &[]);
    assert!(status == 64 && stderr.contains("/does/not/exist"), "{stderr}");
    let file = env_file("LOG_LEVEL=info\nthis is secret\n");
    let (status, _, stderr) = run(&["--env-file", file.path().to_str().unwrap()], &[]);
    assert!(status == 64 && stderr.contains("entry 2") && !stderr.contains("secret"), "{stderr}");
    assert_eq!(run(&["--version"], &[]).0, 0);
    assert!(run(&["--help"], &[]).1.contains("--websocket-sync-interval"));
}

#[test]
fn flags_come_before_the_environment_and_that_before_the_file() {
    let file = env_file(
        "WEBSOCKET_TICKET_SECRET='0123456789abcdef0123456789abcdef'\nWEBSOCKET_TICKET_TTL_SECONDS=100\nDB_HOST=elsewhere\n",
    );
    let path = file.path().to_str().unwrap();
    let issue = ["--env-file", path, "ticket", "issue", "--duel", "77", "--user", "5"];
    let life = |arguments: &[&str], variables: &[(&str, &str)]| {
        let (status, ticket, stderr) = run(arguments, variables);
        assert_eq!(status, 0, "{stderr}");
        let claims: Value = duelhub::ticket::Tickets::claims(ticket.trim()).unwrap();
        (claims["exp"].as_f64().unwrap() - claims["iat"].as_f64().unwrap()).ceil()
    };
    assert!((100.0..=100.0 + 1.0).contains(&life(&issue, &[])));
    let environment = [("WEBSOCKET_TICKET_TTL_SECONDS", "200")];
    assert!((200.0..=200.0 + 1.0).contains(&life(&issue, &environment)));
    let flagged = [&issue[..], &["--websocket-ticket-ttl-seconds", "250"]].concat();
    assert!((250.0..=250.0 + 1.0).contains(&life(&flagged, &environment)));
}

#[test]
fn operators_issue_and_inspect_tickets() {
    let secret = [("WEBSOCKET_TICKET_SECRET", SECRET)];
    let issue =
        ["ticket", "issue", "--duel", "77", "--user", "5", "--role", "spectator", "--ttl", "60"];
    let (status, ticket, _) = run(&issue, &secret);
    assert_eq!(status, 0);
    let (status, stdout, _) = run(&["ticket", "inspect", ticket.trim()], &secret);
    assert_eq!(status, 0, "{stdout}");
    assert!(stdout.contains("\"role\": \"spectator\"") && stdout.contains("accepted"), "{stdout}");
    let other = [("WEBSOCKET_TICKET_SECRET", "another secret")];
    let (status, stdout, _) = run(&["ticket", "inspect", ticket.trim()], &other);
    assert!(status == 1 && stdout.contains("refused: the ticket is invalid"), "{stdout}");
    assert_eq!(run(&issue, &[]).0, 1, "without a secret the ticket would be worth nothing");
    assert_eq!(run(&["ticket", "issue", "--duel", "0", "--user", "5"], &secret).0, 64);
}

#[test]
fn it_greets_the_newcomer_and_stops_on_a_signal_with_status_0() {
    for name in ["TERM", "INT"] {
        let mut hub = Running::start(&[]);
        let greeting = hub.until("serving");
        for needed in ["/demo/", "ws://127.0.0.1:", "grpcurl -plaintext -d", "PushEvent", "/readyz"]
        {
            assert!(greeting.contains(needed), "{needed}: {greeting}");
        }
        hub.signal(name);
        hub.until("stopped");
        assert_eq!(hub.child.wait().unwrap().code(), Some(0), "SIG{name}");
    }
}

#[tokio::test]
async fn the_service_manager_is_told_ready_when_it_is() {
    for _ in 0..5 {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let told = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        told.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        let variables = [("NOTIFY_SOCKET", path.to_str().unwrap())];
        let mut running = Running::start(&variables);
        let greeting = running.until("/readyz");
        let (before, _) = greeting.split_once("/readyz").unwrap();
        let (_, admin) = before.rsplit_once("http://").unwrap();
        let admin: std::net::SocketAddr = admin.parse().unwrap();
        let mut state = [0; 64];
        let length = told.recv(&mut state).unwrap();
        assert!(state[..length].starts_with(b"READY=1"));
        assert_eq!(get(admin, "/readyz", &[]).await.status, 200);
    }
}

#[test]
fn in_production_every_line_is_json_and_a_taken_port_is_an_error() {
    let variables = [
        ("APP_ENV", "production"),
        ("WEBAPP_URL", "https://a.example"),
        ("WEBSOCKET_TICKET_SECRET", SECRET),
    ];
    let mut hub = Running::start(&variables);
    let read = hub.until("serving");
    let line: Vec<Value> = read.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let serving = line.last().unwrap();
    let port = serving["edge"].as_str().unwrap().rsplit_once(':').unwrap().1;
    let (status, stdout, _) = run(&["--websocket-port", port], &variables);
    assert_eq!(status, 1, "no bad configuration: systemd should try again");
    assert!(stdout.contains("WEBSOCKET_PORT: cannot listen"), "{stdout}");
    hub.signal("TERM");
    hub.until("\"stopped\"");
    hub.child.wait().unwrap();
    let mut said = String::new();
    hub.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "", "every line is JSON, and on the standard output");
}

#[tokio::test]
async fn operators_check_and_export_a_store_while_no_hub_runs_on_it() {
    let data = tempfile::tempdir().unwrap();
    let data_dir = data.path().to_str().unwrap();
    let flags = |command| ["store", command, "--data-dir", data_dir];
    let (status, _, stderr) = run(&flags("check"), &[]);
    assert!(status == 1 && stderr.contains(data_dir), "there is no store yet: {stderr}");

    let (server, backend) = TestServer::start_with_backend(&[("DATA_DIR", data_dir)]).await;
    backend.open(7, &[1, 2]).await;
    backend.push(7, r#"{"round" : 1}"#).await;
    backend.close(7).await;
    let (status, _, stderr) = run(&flags("check"), &[]);
    assert!(status == 1 && stderr.contains("in use"), "{stderr}");
    server.stop().await;

    let (status, stdout, _) = run(&flags("check"), &[]);
    assert!(status == 0 && stdout.starts_with("whole: 1 duels, 0 remembered tickets"), "{stdout}");
    let (status, stdout, _) = run(&flags("export"), &[]);
    let lines: Vec<Value> =
        stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((status, lines.len()), (0, 3), "{stdout}");
    assert_eq!((&lines[0]["duel_id"], &lines[0]["status"]), (&json!(7), &json!("finished")));
    assert_eq!(lines[1]["payload_json"], r#"{"duel_id":7,"round" : 1}"#);
    assert_eq!((&lines[2]["type"], &lines[2]["seq"]), (&json!("duel_closed"), &json!(2)));
}

#[tokio::test]
async fn a_store_of_another_format_is_refused_by_its_number() {
    let data = tempfile::tempdir().unwrap();
    let data_dir = data.path().to_str().unwrap();
    TestServer::with(&[("DATA_DIR", data_dir)]).await.stop().await;
    let version = data.path().join("store/version");
    // The library's own marker: three letters and a number.
    let mut marker = std::fs::read(&version).unwrap();
    marker[3] = 2;
    std::fs::write(&version, marker).unwrap();
    let (status, stdout, stderr) = run(&["--data-dir", data_dir], &[]);
    assert_eq!(status, 65);
    let said = stdout + &stderr;
    assert!(said.contains("format") && said.contains("use the version that wrote it"), "{said}");
}
