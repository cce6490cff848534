//! `duelhub completions` and `duelhub man`: what packages install beside the binary.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};
use clap_complete::Shell;

pub(super) fn completions_command() -> Command {
    let shell = Arg::new("shell").required(true).value_parser(value_parser!(Shell));
    Command::new("completions")
        .about("Print the completions of a shell")
        .arg(shell.help("The shell"))
}

pub(super) fn man_command() -> Command {
    let directory = Arg::new("directory").required(true).value_parser(value_parser!(PathBuf));
    Command::new("man")
        .about("Write a man page for each command")
        .arg(directory.help("Where to: a directory that exists"))
}

pub(super) fn print_completions(matches: &ArgMatches) -> ExitCode {
    let Some(shell) = matches.get_one::<Shell>("shell") else { return super::USAGE.into() };
    let mut script = Vec::new();
    clap_complete::generate(*shell, &mut super::tree(), "duelhub", &mut script);
    // Whoever closes the pipe has read enough.
    let _closed = io::stdout().write_all(&script);
    ExitCode::SUCCESS
}

pub(super) fn write_man_pages(matches: &ArgMatches) -> ExitCode {
    let Some(directory) = matches.get_one::<PathBuf>("directory") else {
        return super::USAGE.into();
    };
    match clap_mangen::generate_to(super::tree(), directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => super::fail(&format!("{}: {error}", directory.display())),
    }
}
