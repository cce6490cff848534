//! `duelhub ticket`: issues or inspects a ticket by hand.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line prints")]

use std::io::Read as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command, value_parser};
use duelhub::clock;
use duelhub::config::Config;
use duelhub::event::{Role, Viewer};
use duelhub::id::{DuelId, ID_MAX, UserId};
use duelhub::ticket::{Revision, Stamp, Tickets};

pub(super) fn command() -> Command {
    let number = |name: &'static str, help: &'static str| {
        let parser = value_parser!(u64).range(1..=ID_MAX);
        Arg::new(name).long(name).value_parser(parser).required(true).help(help)
    };
    let issue = Command::new("issue")
        .about("Sign a ticket with WEBSOCKET_TICKET_SECRET, and print it")
        .arg(number("duel", "The duel"))
        .arg(number("user", "The user"))
        .arg(
            Arg::new("role")
                .long("role")
                .value_parser(["player", "spectator"])
                .default_value("player")
                .help("The user's role"),
        )
        .arg(
            Arg::new("ttl")
                .long("ttl")
                .value_parser(value_parser!(u64).range(1..=86_400))
                .help("Life in seconds; unset: WEBSOCKET_TICKET_TTL_SECONDS"),
        );
    let inspect = Command::new("inspect")
        .about("Say what a ticket permits, and whether this configuration accepts it")
        .arg(Arg::new("ticket").default_value("-").help(
            "The ticket; - reads it from standard input, which keeps it out of the shell's history",
        ));
    Command::new("ticket")
        .about("Issue or inspect tickets")
        .subcommand_required(true)
        .subcommand(issue)
        .subcommand(inspect)
}

pub(super) fn run(matches: &ArgMatches, config: &Config) -> ExitCode {
    let tickets = Tickets::new(&config.tickets);
    if !config.tickets.configured {
        return super::fail(
            "WEBSOCKET_TICKET_SECRET is unset: no hub would accept, or know, this ticket",
        );
    }
    match matches.subcommand() {
        Some(("issue", matches)) => issue(matches, &tickets),
        Some(("inspect", matches)) => inspect(matches, &tickets),
        _ => super::USAGE.into(),
    }
}

fn issue(matches: &ArgMatches, tickets: &Tickets) -> ExitCode {
    let number = |name| matches.get_one::<u64>(name).copied().unwrap_or_default();
    let (Ok(duel), Ok(user)) = (DuelId::try_from(number("duel")), UserId::try_from(number("user")))
    else {
        return super::USAGE.into();
    };
    let spectator = matches.get_one::<String>("role").is_some_and(|role| role == "spectator");
    let role = if spectator { Role::Spectator } else { Role::Player };
    let ttl = matches.get_one::<u64>("ttl").copied().map(Duration::from_secs);
    // No ledger is asked, so the ticket is older than any revocation, and than any watermark.
    let stamp = Stamp { now: clock::now(), revision: Revision::default() };
    let issued = tickets.issue(duel, Viewer { user, role }, ttl, stamp);
    println!("{}", issued.text.as_str());
    eprintln!(
        "jti {}, good until {} (Unix seconds), for one connection",
        issued.ticket.jti.as_str(),
        issued.ticket.expires_at.seconds()
    );
    ExitCode::SUCCESS
}

fn inspect(matches: &ArgMatches, tickets: &Tickets) -> ExitCode {
    let mut text = matches.get_one::<String>("ticket").cloned().unwrap_or_default();
    if text == "-" {
        text.clear();
        if let Err(error) = std::io::stdin().take(64 * 1024).read_to_string(&mut text) {
            return super::fail(&format!("standard input cannot be read: {error}"));
        }
    }
    let text = text.trim();
    match Tickets::claims(text) {
        Some(claims) => println!("{claims:#}"),
        None => println!("not a JWT"),
    }
    match tickets.verify(text) {
        Ok(ticket) if ticket.expires_at <= clock::now() => {
            println!("refused: the ticket has expired");
            ExitCode::FAILURE
        }
        Ok(_) => {
            println!("accepted by this configuration, unless it was used or revoked");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("refused: {error}");
            ExitCode::FAILURE
        }
    }
}
