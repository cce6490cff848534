//! `duelhub bench`: load for a hub.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line prints")]

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use duelhub::bench::{self, BenchOptions, BenchTarget, PAYLOAD_BYTES_MIN, PushBy, Scenario};
use duelhub::config::{Config, EngineKind};
use duelhub::limits;
use duelhub::server::raise_descriptor_limit;

const USAGE: &str = "\
Without --url it starts a hub of its own (ENGINE says which; embedded gets a directory of its own) and loads that. With \
--url, CONTROL_HOST, CONTROL_PORT and CONTROL_TOKEN say where the hub is controlled, and --pid which process of this \
machine it is. Fails if an event was lost, doubled or out of order. More connections than this process has descriptors \
need several processes, each with duels of its own hub.";

pub(super) fn command() -> Command {
    Command::new("bench")
        .about("Load a hub, and measure what it costs: CPU, latency, memory; checks every delivery")
        .after_help(USAGE)
        .subcommand_required(true)
        .subcommand(
            scenario("duels", "Duels of two players, pushes to all of them").args([
                number("duels", "5000", "Duels"),
                number("rate", "2000", "Pushes a second"),
            ]),
        )
        .subcommand(scenario("broadcast", "One duel with many spectators").args([
            number("spectators", "5000", "Spectators"),
            number("rate", "20", "Pushes a second"),
        ]))
        .subcommand(scenario("idle", "Connections that only send their pings").arg(number(
            "connections",
            "10000",
            "Connections, two in a duel",
        )))
        .subcommand(
            scenario(
                "storm",
                "All connect at once; a hub of its own is then killed, and all come back",
            )
            .arg(number("connections", "10000", "Connections, two in a duel")),
        )
        .subcommand(
            scenario("ceiling", "The highest rate of pushes with p99 under 10 ms")
                .arg(number("duels", "5000", "Duels")),
        )
}

fn number(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    let parser = value_parser!(u32).range(1..=10_000_000);
    Arg::new(name).long(name).value_name("N").value_parser(parser).default_value(default).help(help)
}

fn scenario(name: &'static str, about: &'static str) -> Command {
    Command::new(name).about(about).args([
        Arg::new("url")
            .long("url")
            .value_name("URL")
            .action(ArgAction::Append)
            .help("Load this hub: ws://host:port/path; once for each of several nodes"),
        Arg::new("pid")
            .long("pid")
            .requires("url")
            .action(ArgAction::Append)
            .value_parser(value_parser!(u32))
            .help("A process of it on this machine, for CPU and memory"),
        Arg::new("push")
            .long("push")
            .value_parser(["unary", "stream", "http"])
            .default_value("unary")
            .help("How pushes are made; http is for the yardstick in benches/"),
        number("payload-bytes", "256", "Bytes of a push's payload"),
        number("seconds", "10", "Seconds that a run takes"),
        number("runs", "5", "How often it is repeated"),
        Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print JSON"),
    ])
}

pub(super) async fn run(matches: &ArgMatches, config: Config) -> ExitCode {
    let Some((name, matches)) = matches.subcommand() else { return super::USAGE.into() };
    let options = match options(name, matches, config) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("duelhub: {problem}");
            return super::USAGE.into();
        }
    };
    // A connection is a descriptor.
    let _limit = raise_descriptor_limit();
    // Or the load measures its own pauses.
    let _refused = super::refuse_huge_pages();
    // On one thread of its own: the load leaves the machine's other cores to the hub.
    let measured = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok::<_, std::io::Error>(
            runtime.block_on(bench::run(&options, &mut |line| eprintln!("{line}"))),
        )
    });
    let report = match measured.await {
        Ok(Ok(Ok(report))) => report,
        Ok(Ok(Err(error))) => return super::fail(&error.to_string()),
        Ok(Err(error)) => return super::fail(&format!("the runtime does not start: {error}")),
        Err(error) => return super::fail(&format!("the bench ended: {error}")),
    };
    match matches.get_flag("json") {
        true => println!("{:#}", report.to_json()),
        false => println!("\n{report}"),
    }
    if report.is_exact() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn options(name: &str, matches: &ArgMatches, config: Config) -> Result<BenchOptions, String> {
    let number = |name: &str| matches.get_one::<u32>(name).copied().unwrap_or_default();
    let many = |name: &str| u64::from(number(name));
    let scenario = match name {
        "duels" => Scenario::Duels { duels: many("duels"), rate: number("rate") },
        "broadcast" => Scenario::Broadcast { spectators: many("spectators"), rate: number("rate") },
        "idle" => Scenario::Idle { connections: many("connections") },
        "storm" => Scenario::Storm { connections: many("connections") },
        _ => Scenario::Ceiling { duels: many("duels") },
    };
    let payload_bytes = usize::try_from(number("payload-bytes")).unwrap_or(usize::MAX);
    if !(PAYLOAD_BYTES_MIN..=limits::PUSH_BYTES_MAX).contains(&payload_bytes) {
        let most = limits::PUSH_BYTES_MAX;
        return Err(format!("--payload-bytes must be from {PAYLOAD_BYTES_MIN} to {most}"));
    }
    let push_by = match matches.get_one::<String>("push").map(String::as_str) {
        Some("stream") => PushBy::Stream,
        Some("http") => PushBy::Http,
        _ => PushBy::Unary,
    };
    let target = target(matches, config)?;
    if push_by == PushBy::Http && matches!(target, BenchTarget::Own { .. }) {
        return Err("--push http needs --url: a hub takes no pushes over HTTP".to_owned());
    }
    Ok(BenchOptions {
        scenario,
        target,
        push_by,
        payload_bytes,
        duration: Duration::from_secs(many("seconds")),
        runs: usize::try_from(number("runs")).unwrap_or(1),
    })
}

fn target(matches: &ArgMatches, config: Config) -> Result<BenchTarget, String> {
    let Some(urls) = matches.get_many::<String>("url") else {
        let engine = match config.engine_kind {
            EngineKind::Memory => "memory",
            EngineKind::Embedded(_) => "embedded",
            EngineKind::Redis(_) => "redis",
        };
        if engine == "redis" {
            return Err("with ENGINE=redis a bench needs --url, of nodes that run".to_owned());
        }
        return Ok(BenchTarget::Own { engine });
    };
    if config.control.tls.is_some() {
        return Err("the control plane uses TLS, which a load does not speak".to_owned());
    }
    let (mut data, mut path) = (Vec::new(), String::new());
    for url in urls {
        let rest = url.strip_prefix("ws://").ok_or("--url must begin with ws://")?;
        let (host, path_of) = rest.split_once('/').unwrap_or((rest, ""));
        let address: Option<SocketAddr> =
            host.to_socket_addrs().ok().and_then(|mut all| all.next());
        data.push(address.ok_or_else(|| format!("--url: {host} is no address with a port"))?);
        path = format!("/{path_of}");
    }
    let pids = matches.get_many::<u32>("pid").into_iter().flatten().copied().collect();
    let (control, token) = (config.control.address, config.control.token);
    Ok(BenchTarget::Running { data, path, control, token, pids })
}
