//! The command line: commands and flags. Standard output has results, standard error has errors.
#![expect(clippy::print_stderr, reason = "a command line prints")]

mod bench;
mod check;
mod manual;
mod serve;
mod store;
mod ticket;

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};
use duelhub::config::{self, Config, VARIABLES};
use duelhub::version;

/// The exit status for a wrong configuration or command line.
pub(crate) const USAGE: u8 = 64;

/// The exit status for a store that is damaged or of another format: restarting does not help.
pub(crate) const DATA: u8 = 65;

/// Returns all commands.
pub(crate) fn tree() -> Command {
    let env_file = Arg::new("env-file")
        .long("env-file")
        .value_name("PATH")
        .global(true)
        .value_parser(clap::value_parser!(PathBuf))
        .help("Read variables from this file; flags and the environment take precedence");
    let variables = VARIABLES.iter().map(|variable| {
        let default = variable.default.map(|text| format!(" [default: {text}]"));
        Arg::new(variable.name)
            .long(variable.flag())
            .value_name(variable.name)
            .global(true)
            .hide_short_help(true)
            .help(format!("{}{}", variable.help, default.unwrap_or_default()))
            .help_heading("Configuration (each also a variable of the environment or the env file)")
    });
    Command::new("duelhub")
        .version(version::BUILD)
        .about("A gRPC-controlled realtime hub. Without a command it serves.")
        .after_help("--help lists the configuration, -h leaves it out.")
        .arg(env_file)
        .args(variables)
        .subcommand(
            Command::new("serve").about("Serve until SIGTERM, SIGINT or SIGHUP (the default)"),
        )
        .subcommand(check::command())
        .subcommand(bench::command())
        .subcommand(ticket::command())
        .subcommand(store::command())
        .subcommand(manual::completions_command())
        .subcommand(manual::man_command())
}

/// Runs the given command.
pub(crate) async fn run(matches: &ArgMatches) -> ExitCode {
    // These need no configuration.
    match matches.subcommand() {
        Some(("completions", matches)) => return manual::print_completions(matches),
        Some(("man", matches)) => return manual::write_man_pages(matches),
        _ => {}
    }
    let config = match configuration(matches) {
        Ok(config) => config,
        Err(problems) => {
            eprintln!("duelhub: the configuration is wrong:");
            problems.iter().for_each(|problem| eprintln!("  {problem}"));
            return USAGE.into();
        }
    };
    match matches.subcommand() {
        Some(("check", matches)) => check::run(matches, config).await,
        Some(("bench", matches)) => bench::run(matches, config).await,
        Some(("ticket", matches)) => ticket::run(matches, &config),
        Some(("store", matches)) => store::run(matches, config),
        _ => serve::run(config).await,
    }
}

/// Turns off huge pages: the kernel clears one when it is first touched, and a push at that moment waits a millisecond.
pub(crate) fn refuse_huge_pages() -> std::io::Result<()> {
    Ok(rustix::thread::disable_transparent_huge_pages(true)?)
}

/// Prints an error.
pub(crate) fn fail(problem: &str) -> ExitCode {
    eprintln!("duelhub: {problem}");
    ExitCode::FAILURE
}

/// Reads the configuration from flags, the environment and the env file.
fn configuration(matches: &ArgMatches) -> Result<Config, Vec<String>> {
    let mut problems = Vec::new();
    let mut file = HashMap::new();
    if let Some(path) = matches.get_one::<PathBuf>("env-file") {
        match config::read_env_file(path) {
            Ok(variables) => file.extend(variables),
            Err(wrong) => problems.extend(wrong),
        }
    }
    let lookup = |name: &str| {
        let set = |text: &String| !text.trim().is_empty();
        let flag = matches.get_one::<String>(name).cloned();
        let environment = || std::env::var(name).ok().filter(set);
        flag.filter(set).or_else(environment).or_else(|| file.get(name).cloned())
    };
    let read = Config::read(&lookup);
    let environment: Vec<_> =
        std::env::vars_os().filter_map(|(n, _)| n.into_string().ok()).collect();
    let names = environment.iter().chain(file.keys()).map(String::as_str);
    let unknown = config::unknown_names(names).into_iter();
    let unknown = unknown.map(|name| format!("{name} is not a variable of duelhub: misspelt?"));
    match read {
        Ok(mut config) if problems.is_empty() => {
            config.warnings.extend(unknown);
            let flag = |name: &str| matches.get_one::<String>(name).cloned();
            let env_file = matches.get_one::<PathBuf>("env-file");
            config.warn_of_command_line(&flag, env_file.map(PathBuf::as_path));
            Ok(config)
        }
        Ok(_) => Err(problems),
        Err(wrong) => {
            problems.extend(wrong.iter().map(ToString::to_string));
            problems.extend(unknown);
            Err(problems)
        }
    }
}
