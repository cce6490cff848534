//! `duelhub store`: what an operator can do with a store that no hub has open.
#![expect(clippy::print_stdout, reason = "a command line prints")]

use std::io::BufWriter;
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use duelhub::config::{Config, EngineKind, StoreConfig};
use duelhub::engine::export::{self, Contents, Exported};

pub(super) fn command() -> Command {
    let check = "Read all of it: exit status 0 if it is whole, 1 if not";
    let export = "Write duels and events as lines of JSON, as far as they can be read";
    Command::new("store")
        .about("Look into the store under DATA_DIR while no hub runs on it")
        .subcommand_required(true)
        .subcommand(Command::new("check").about(check))
        .subcommand(Command::new("export").about(export))
}

pub(super) fn run(matches: &ArgMatches, config: Config) -> ExitCode {
    let EngineKind::Embedded(store) = config.engine_kind else {
        return super::fail("ENGINE=memory has no store");
    };
    match matches.subcommand_name() {
        Some("export") => write_export(&store),
        _ => check(&store),
    }
}

fn check(store: &StoreConfig) -> ExitCode {
    match export::check(store) {
        Ok(Contents { counts, disk_bytes }) => {
            println!(
                "whole: {} duels, {} remembered tickets, {disk_bytes} bytes",
                counts.duels, counts.remembered_tickets
            );
            ExitCode::SUCCESS
        }
        Err(error) => super::fail(&error.to_string()),
    }
}

fn write_export(store: &StoreConfig) -> ExitCode {
    let mut out = BufWriter::new(std::io::stdout().lock());
    match export::export(store, &mut out) {
        Ok(Exported { unreadable: 0, .. }) => ExitCode::SUCCESS,
        Ok(Exported { duels, events, unreadable }) => super::fail(&format!(
            "{duels} duels and {events} events were written; {unreadable} duels could not be read to their end"
        )),
        Err(error) => super::fail(&error.to_string()),
    }
}
