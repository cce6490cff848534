//! What decodes bytes of strangers, of other nodes and of files, as fuzzing calls it: none of it may panic, whatever the bytes.
//!
//! `fuzz/` has a target for each. The test here tries mutated seeds, on a stable compiler, for as long as a test may take.

use std::time::Duration;

use crate::clock::UnixMs;
use crate::config::{self, Secret, TicketConfig};
use crate::control::fuzz as control;
use crate::edge::fuzz as edge;
use crate::engine::fuzz as engine;
use crate::event::{Position, Role, Viewer};
use crate::id::{DuelId, TelegramId, UserId};
use crate::telegram;
use crate::ticket::{Revision, Stamp, Tickets};

/// One decoder.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The name of its binary in `fuzz/`.
    pub name: &'static str,
    /// Decodes the bytes.
    pub run: fn(&[u8]),
    /// What it is like when all is well.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [Target; 10] = [
    Target { name: "handshake", run: edge::handshake, seeds: edge::handshakes },
    Target { name: "websocket", run: edge::websocket, seeds: edge::websockets },
    Target { name: "ticket", run: ticket, seeds: || vec![ticket_text().into_bytes()] },
    Target { name: "init_data", run: init_data, seeds: || vec![init_data_text().into_bytes()] },
    Target { name: "resume", run: resume, seeds: || vec![b"0123456789abcdef:42".to_vec()] },
    Target { name: "calls", run: control::calls, seeds: control::messages },
    Target { name: "json_calls", run: control::json_calls, seeds: control::json_messages },
    Target { name: "redis", run: engine::redis, seeds: engine::redis_replies },
    Target { name: "rows", run: engine::rows, seeds: engine::stored_rows },
    Target { name: "env_file", run: env_file, seeds: || vec![ENV_FILE.to_vec()] },
];

/// Decodes the bytes as the target of this name does.
///
/// # Panics
/// If the decoder does, or there is no such target.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.expect("the targets of `fuzz/` are these").run)(bytes);
}

const NOW: UnixMs = UnixMs(1_795_000_000_000);

const ENV_FILE: &[u8] =
    b"\xef\xbb\xbf# a comment\nexport A=1\nB='two words'\nC=\"a $A \\n b\"\nD=\n";

fn tickets() -> Tickets {
    Tickets::new(&TicketConfig {
        secret: Secret::new("0123456789abcdef0123456789abcdef".to_owned()),
        configured: true,
        secret_previous: None,
        ttl: Duration::from_secs(300),
        resume_ttl: Duration::from_secs(3600),
    })
}

fn ticket_text() -> String {
    let (Ok(duel), Ok(user)) = (DuelId::try_from(77), UserId::try_from(5)) else {
        return String::new();
    };
    let stamp = Stamp { now: NOW, revision: Revision(7) };
    let issued = tickets().issue(duel, Viewer { user, role: Role::Player }, None, stamp);
    issued.text.as_str().to_owned()
}

fn ticket(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    drop(Tickets::claims(text));
    let _verified = tickets().verify(text);
}

fn bot_token() -> Secret {
    Secret::new("123456:a-token".to_owned())
}

fn init_data_text() -> String {
    let user = TelegramId::try_from(5);
    user.map(|user| telegram::sign(user, &bot_token(), NOW)).unwrap_or_default()
}

fn init_data(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let _verified = telegram::verify(text, &bot_token(), Duration::from_secs(60), NOW);
}

fn resume(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(position) = text.parse::<Position>() {
        assert_eq!(position.to_string().parse(), Ok(position));
    }
}

fn env_file(bytes: &[u8]) {
    drop(config::env_file_variables("a file", bytes));
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::Instant;

    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    /// How long each target is tried, unless `FUZZ_SECONDS` says otherwise.
    const TRIED: Duration = Duration::from_millis(500);

    /// Changes some bytes: their bits, their number, or into what decoders look for.
    fn mutate(bytes: &mut Vec<u8>, others: &[Vec<u8>], random: &mut StdRng) {
        const TOKENS: [&[u8]; 12] = [
            b"\0",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b".",
            b":",
            b",",
            b"\r\n",
            b"{",
            b"\"",
            b"-1",
            b"18446744073709551616",
            b"=",
            b"%",
        ];
        for _ in 0..random.random_range(1..=4) {
            let at = random.random_range(0..=bytes.len());
            match random.random_range(0..6) {
                0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
                1 if at < bytes.len() => bytes[at] = random.random(),
                2 => bytes.truncate(at),
                3 => drop(
                    bytes.splice(at..at, TOKENS[random.random_range(0..TOKENS.len())].to_vec()),
                ),
                4 => {
                    let other = &others[random.random_range(0..others.len())];
                    let from = random.random_range(0..=other.len());
                    bytes.splice(at.., other[from..].iter().copied());
                }
                _ => {
                    let end = random.random_range(at..=bytes.len());
                    let copy = bytes[at..end].to_vec();
                    bytes.splice(at..at, copy);
                }
            }
        }
    }

    /// `FUZZ_SEEDS=fuzz/seeds` writes them anew.
    #[test]
    fn the_seeds_are_those_of_the_targets() {
        let written = std::env::var("FUZZ_SEEDS");
        for target in TARGETS {
            let kept =
                Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds")).join(target.name);
            if written.is_ok() {
                fs::create_dir_all(&kept).unwrap();
                for (nth, seed) in (target.seeds)().iter().enumerate() {
                    fs::write(kept.join(nth.to_string()), seed).unwrap();
                }
            }
            assert_eq!(fs::read_dir(&kept).unwrap().count(), (target.seeds)().len(), "{kept:?}");
        }
    }

    #[test]
    fn no_decoder_panics_whatever_the_bytes() {
        let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
        let tried = seconds.map_or(TRIED, Duration::from_secs);
        let mut random = StdRng::seed_from_u64(17);
        for target in TARGETS {
            let seeds = (target.seeds)();
            seeds.iter().for_each(|seed| (target.run)(seed));
            let (started, mut inputs) = (Instant::now(), 0);
            while started.elapsed() < tried {
                let mut bytes = seeds[random.random_range(0..seeds.len())].clone();
                mutate(&mut bytes, &seeds, &mut random);
                let shown = String::from_utf8_lossy(&bytes).into_owned();
                let run = std::panic::catch_unwind(|| (target.run)(&bytes));
                assert!(run.is_ok(), "{}: {shown:?}, {bytes:?}", target.name);
                inputs += 1;
            }
            assert!(inputs > 20, "{}: only {inputs} inputs", target.name);
        }
    }
}
