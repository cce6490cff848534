//! `duelhub check`: checks a live deployment.
#![expect(clippy::print_stdout, reason = "a command line prints")]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use duelhub::check::{self, CheckOptions, GameOptions, Verdict};
use duelhub::config::Config;

pub(super) fn command() -> Command {
    let arg = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    Command::new("check")
        .about("Check a live deployment: a line for each thing that must work; fails if one does not")
        .arg(arg("url", "URL", "The WebApp's VITE_WS_URL, like wss://your-domain.com/ws").required(true))
        .arg(arg("api", "URL", "Its VITE_API_URL in full, like https://your-domain.com/api").required(true))
        .arg(
            arg("origin", "URL", "The WebApp's origin; unset: that of --api; several: give it again")
                .action(ArgAction::Append),
        )
        .arg(
            arg("ca-file", "PEM", "Trust this authority besides the system's")
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(arg("unit", "NAME", "Ask systemd on this host about this unit"))
        .arg(
            Arg::new("kill")
                .long("kill")
                .action(ArgAction::SetTrue)
                .requires("unit")
                .help("Kill the service with SIGKILL and see it come back; interrupts the players for seconds"),
        )
        .args(game_args())
}

/// For a game that moves to the hub (deploy/GUIDE.md, section 12).
fn game_args() -> [Arg; 3] {
    let arg = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    [
        arg(
            "game-route",
            "URL",
            "A URL that the game must still answer to GET; several: give it again",
        )
        .action(ArgAction::Append),
        arg(
            "game-webhook",
            "URL",
            "Where the game takes updates from Telegram; it is sent an empty one",
        ),
        arg("game-env-file", "PATH", "The game's env file: PHP's parse_ini_file must take it")
            .value_parser(value_parser!(PathBuf)),
    ]
}

pub(super) async fn run(matches: &ArgMatches, config: Config) -> ExitCode {
    config.warnings.iter().for_each(|warning| println!("warn  {warning}"));
    let text = |name| matches.get_one::<String>(name).cloned();
    let texts = |name| matches.get_many(name).into_iter().flatten().cloned().collect();
    let path = |name| matches.get_one::<PathBuf>(name).cloned();
    let options = CheckOptions {
        url: text("url").unwrap_or_default(),
        api: text("api").unwrap_or_default(),
        origins: texts("origin"),
        ca_file: path("ca-file"),
        unit: text("unit"),
        kill: matches.get_flag("kill"),
        game: GameOptions {
            routes: texts("game-route"),
            webhook: text("game-webhook"),
            env_file: path("game-env-file"),
        },
        env_file: path("env-file"),
        config,
    };
    let mut failed = 0;
    let mut report = |what: &str, verdict: Verdict| match verdict {
        Verdict::Good(detail) => println!("ok    {what}: {detail}"),
        Verdict::Doubtful { doubt, remedy } => {
            println!("warn  {what}: {doubt}\n      do: {remedy}")
        }
        Verdict::Bad { wrong, look } => {
            failed += 1;
            println!("FAIL  {what}: {wrong}\n      look at: {look}");
        }
    };
    if let Err(problem) = check::run(&options, &mut report).await {
        return super::fail(&problem);
    }
    if failed == 0 {
        println!("everything works");
        return ExitCode::SUCCESS;
    }
    println!("{failed} of the checks failed");
    ExitCode::FAILURE
}
