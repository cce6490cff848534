//! The real binary: configuration, exit status, tickets by hand, signals.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use duelhub::server::Addresses;
use duelhub_testkit::{Backend, Join, Player, SECRET, TestServer, exchange, get, soon};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long a line may be waited for. Generous: a busy machine is no failure.
const DEADLINE: Duration = Duration::from_secs(30);

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

fn env_file(contents: impl AsRef<[u8]>) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(contents.as_ref()).unwrap();
    file
}

/// A hub, and the lines that it prints. Stopped when the test ends, however it does.
struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
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
        Self::of(&mut duelhub(&[], variables, &directory), directory)
    }

    fn of(command: &mut Command, directory: TempDir) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        // It reads no further than what was asked for: some tests leave the rest in the pipe.
        let (lines_tx, lines) = mpsc::sync_channel(0);
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| lines_tx.send(line))
        });
        Self { child, lines, _directory: directory }
    }

    /// Reads lines until one contains `text`.
    fn until(&mut self, text: &str) -> String {
        let mut read = String::new();
        loop {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) => read = read + &line + "\n",
                Err(error) => panic!("{error} before {text:?}:\n{read}"),
            }
            if read.lines().next_back().is_some_and(|line| line.contains(text)) {
                return read;
            }
        }
    }

    /// Returns where health and metrics are, as the greeting says.
    fn admin(&mut self) -> SocketAddr {
        address_after(&self.until("/readyz"), "health         http://")
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }
}

/// Returns the address that follows `label` in a text.
fn address_after(text: &str, label: &str) -> SocketAddr {
    let (_, rest) = text.split_once(label).unwrap();
    rest.split(['/', ' ', '\n']).next().unwrap().parse().unwrap()
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
fn what_packages_install_needs_no_configuration() {
    let broken = [("WEBSOCKET_PORT", "http")];
    let (status, version, _) = run(&["--version"], &broken);
    let beginning = concat!("duelhub ", env!("CARGO_PKG_VERSION"), " (");
    assert!(status == 0 && version.starts_with(beginning), "{version}");
    for shell in ["bash", "zsh", "fish"] {
        let (status, script, _) = run(&["completions", shell], &broken);
        assert!(status == 0 && script.contains("redis-url"), "{shell}");
    }
    assert_eq!(run(&["completions", "cmd.exe"], &broken).0, 64);
    let pages = tempfile::tempdir().unwrap();
    assert_eq!(run(&["man", pages.path().to_str().unwrap()], &broken).0, 0);
    let page = fs::read_to_string(pages.path().join("duelhub-check.1")).unwrap();
    assert!(page.starts_with(".ie"), "{page:.40}");
    assert_eq!(run(&["man", "/does/not/exist"], &broken).0, 1);
}

#[test]
fn the_format_of_the_log_is_chosen() {
    let mut running = Running::start(&[("LOG_FORMAT", "json")]);
    let read = running.until("\"serving\"");
    let line: Value = serde_json::from_str(read.lines().next_back().unwrap()).unwrap();
    assert_eq!(line["version"], env!("CARGO_PKG_VERSION"));
    assert!(line["revision"].is_string(), "{line}");
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
fn an_env_file_may_begin_with_a_byte_order_mark_and_is_told_its_encoding_if_that_is_wrong() {
    let line = "WEBSOCKET_TICKET_SECRET=0123456789abcdef0123456789abcdef\n";
    let issue = |file: tempfile::NamedTempFile| {
        let path = file.path().to_str().unwrap();
        run(&["--env-file", path, "ticket", "issue", "--duel", "77", "--user", "5"], &[])
    };
    let (status, _, stderr) = issue(env_file(format!("\u{feff}{line}")));
    assert_eq!(status, 0, "the first variable is read: {stderr}");
    let utf16 = |bytes: fn(u16) -> [u8; 2]| line.encode_utf16().flat_map(bytes).collect::<Vec<_>>();
    let (little, big) = (utf16(u16::to_le_bytes), utf16(u16::to_be_bytes));
    let marked = [&[0xff, 0xfe], &*little].concat();
    for bytes in [marked, [&[0xfe, 0xff], &*big].concat(), little, big] {
        let (status, _, stderr) = issue(env_file(bytes));
        assert!(status == 64 && stderr.contains("is in UTF-16: save it as UTF-8"), "{stderr}");
        assert_eq!(stderr.lines().count(), 2, "one line tells it: {stderr}");
    }
    let (status, _, stderr) = issue(env_file([line.as_bytes(), b"DB_NAME=\xe9\n"].concat()));
    assert!(status == 64 && stderr.contains("is not in UTF-8"), "{stderr}");
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
    for name in ["TERM", "INT", "HUP"] {
        let mut hub = Running::start(&[]);
        let greeting = hub.until("serving");
        for needed in ["/demo/", "ws://127.0.0.1:", "-d '{\"duelId\":77", "PushEvent", "/readyz"] {
            assert!(greeting.contains(needed), "{needed}: {greeting}");
        }
        hub.signal(name);
        hub.until("stopped");
        assert_eq!(hub.child.wait().unwrap().code(), Some(0), "SIG{name}");
    }
}

#[test]
fn under_nohup_it_outlives_its_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let plain = duelhub(&[], &[], &directory);
    let mut command = Command::new("nohup");
    command.arg(plain.get_program()).env_clear().current_dir(&directory);
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut hub = Running::of(&mut command, directory);
    hub.until("serving");
    hub.signal("HUP");
    hub.signal("TERM");
    let rest = hub.until("stopped");
    assert!(rest.contains("SIGTERM"), "{rest}");
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
        let admin = running.admin();
        let mut state = [0; 64];
        let length = told.recv(&mut state).unwrap();
        assert!(state[..length].starts_with(b"READY=1"));
        assert_eq!(get(admin, "/readyz", &[]).await.status, 200);
    }
}

#[tokio::test]
async fn a_service_manager_that_does_not_read_holds_nothing_up_and_is_told_later() {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let name = format!("duelhub-test-notify-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let told = UnixDatagram::bind_addr(&address).unwrap();
    let sender = UnixDatagram::unbound().unwrap();
    sender.set_nonblocking(true).unwrap();
    while sender.send_to_addr(b"full", &address).is_ok() {}
    let notify = format!("@{name}");
    let mut hub = Running::start(&[("NOTIFY_SOCKET", &notify), ("WATCHDOG_USEC", "30000")]);
    let admin = hub.admin();
    hub.until("cannot be told");
    // Once for each thread of the runtime, and more: each could be held up.
    for _ in 0..20 {
        assert_eq!(get(admin, "/readyz", &[]).await.status, 200);
    }
    told.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let mut state = [0; 64];
    let mut read = || {
        let length = told.recv(&mut state).unwrap();
        String::from_utf8(state[..length].to_vec()).unwrap()
    };
    let first = std::iter::repeat_with(&mut read).find(|state| state != "full").unwrap();
    assert_eq!(first, "READY=1");
    assert_eq!(read(), "WATCHDOG=1");
    hub.until("is told again");
    let metrics = get(admin, "/metrics", &[]).await.body;
    let failures = metrics.lines().find(|line| line.starts_with("duelhub_notify_failures_total "));
    assert_ne!(failures.unwrap(), "duelhub_notify_failures_total 0");
    // It goes even if it can tell nobody.
    while sender.send_to_addr(b"full", &address).is_ok() {}
    hub.signal("TERM");
    hub.until("stopped");
}

#[test]
fn what_is_stored_is_for_its_own_user_and_a_directory_that_is_open_is_told_of() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    let variables = [("DATA_DIR", data.to_str().unwrap()), ("WEBSOCKET_TICKET_SECRET", SECRET)];
    let hub = duelhub(&[], &variables, &directory);
    let mut command = Command::new("sh");
    command.args(["-c", "umask 022 && exec \"$0\""]).arg(hub.get_program()).env_clear();
    command.envs(hub.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut hub = Running::of(&mut command, directory);
    let started = hub.until("/readyz");
    assert!(
        started.contains("DATA_DIR is open to other users") && started.contains("0755"),
        "{started}"
    );
    let mut found = 0;
    let mut directories = vec![data];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let mode = path.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{path:?}: {mode:o}");
            found += 1;
            directories.extend(path.is_dir().then_some(path));
        }
    }
    assert!(found > 3, "{found} files");
}

/// Asks for a page so often, over one connection.
async fn ask(edge: SocketAddr, count: usize) {
    let one = "GET /demo/ HTTP/1.1\r\nHost: hub\r\n\r\n";
    let last = "GET /demo/ HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n";
    assert_eq!(exchange(edge, &(one.repeat(count - 1) + last)).await.status, 200);
}

#[tokio::test]
async fn standard_output_that_nobody_reads_holds_nothing_up_and_tells_later_what_it_lost() {
    let mut hub = Running::start(&[("WEBSOCKET_TICKET_SECRET", SECRET)]);
    let greeting = hub.until("serving");
    let address = |label| address_after(&greeting, label);
    let (edge, admin) = (address("ws://"), address("health         http://"));
    let lost = async || {
        let metrics = get(admin, "/metrics", &[]).await.body;
        let name = "duelhub_log_lines_lost_total ";
        metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap() != "0"
    };
    // Requests that are answered are all logged. A pipe holds some hundred of their lines, the queue 8192.
    while !lost().await {
        ask(edge, 500).await;
    }
    let addresses = Addresses { edge, control: address("backends       "), admin };
    let backend = Backend::connect(&addresses).await;
    let ticket = backend.ticket(77, 1).await;
    let mut player = Player::join(&addresses, Join::ticket(ticket)).await;
    backend.push(77, r#"{"round":1}"#).await;
    player.until_events(1).await;
    assert_eq!(get(admin, "/readyz", &[]).await.status, 200);
    hub.until("log lines were lost");
    hub.signal("TERM");
    hub.until("stopped");
}

#[tokio::test]
async fn standard_output_that_nobody_reads_does_not_keep_it_from_ending() {
    let mut hub = Running::start(&[]);
    let greeting = hub.until("serving");
    let edge = address_after(&greeting, "ws://");
    ask(edge, 1000).await;
    hub.signal("TERM");
    let ended =
        soon("it ends", tokio::task::spawn_blocking(move || hub.child.wait().unwrap().code()));
    assert_eq!(ended.await.unwrap(), Some(0));
}

#[tokio::test]
async fn under_a_low_descriptor_limit_it_serves_what_fits_or_says_what_it_lacks() {
    let limited = |descriptors: u32| {
        let directory = tempfile::tempdir().unwrap();
        let hub = duelhub(&[], &[("WEBSOCKET_TICKET_SECRET", SECRET)], &directory);
        let mut command = Command::new("sh");
        let script = format!("ulimit -n {descriptors} && exec \"$0\"");
        command.args(["-c", &script]).arg(hub.get_program()).env_clear().current_dir(&directory);
        command.envs(hub.get_envs().filter_map(|(name, value)| Some((name, value?))));
        (command, directory)
    };
    for descriptors in [64, 128, 256, 319] {
        let (mut command, _directory) = limited(descriptors);
        let Output { status, stdout, .. } = command.output().unwrap();
        let said = String::from_utf8(stdout).unwrap();
        assert_eq!(status.code(), Some(64), "{descriptors}: {said}");
        assert!(said.contains(&format!("is {descriptors}: 256 are")), "{said}");
    }
    for descriptors in [320, 1024, 2304] {
        let (mut command, directory) = limited(descriptors);
        let mut hub = Running::of(&mut command, directory);
        let greeting = hub.until("/readyz");
        assert!(greeting.contains("is lowered"), "{descriptors}: {greeting}");
        let edge = address_after(&greeting, "ws://");
        // Of a ticket that is none a client hears after the upgrade: it was let in. As many at a time as the least limit allows.
        let opening = (0..16).map(|_| Join::ticket("x").open(edge));
        let opened = futures_util::future::join_all(opening).await;
        assert!(opened.iter().all(Result::is_ok), "{descriptors}: {opened:?}");
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
