//! `duelhub check`: checks a live deployment.
#![expect(clippy::print_stdout, reason = "a command line prints")]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use duelhub::check::{self, CheckOptions, Verdict};
use duelhub::config::Config;

pub(super) fn command() -> Command {
    let arg = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    Command::new("check")
        .about("Check a live deployment: a line for each thing that must work; fails if one does not")
        .arg(arg("url", "URL", "The WebApp's VITE_WS_URL, like wss://your-domain.com/ws").required(true))
        .arg(arg("api", "URL", "Its VITE_API_URL in full, like https://your-domain.com/api").required(true))
        .arg(arg("origin", "URL", "The WebApp's origin; unset: that of --api"))
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
}

pub(super) async fn run(matches: &ArgMatches, config: Config) -> ExitCode {
    config.warnings.iter().for_each(|warning| println!("warn  {warning}"));
    let text = |name| matches.get_one::<String>(name).cloned();
    let options = CheckOptions {
        url: text("url").unwrap_or_default(),
        api: text("api").unwrap_or_default(),
        origin: text("origin"),
        ca_file: matches.get_one::<PathBuf>("ca-file").cloned(),
        unit: text("unit"),
        kill: matches.get_flag("kill"),
        config,
    };
    let mut failed = 0;
    let mut report = |what: &str, verdict: Verdict| match verdict {
        Verdict::Good(detail) => println!("ok    {what}: {detail}"),
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
