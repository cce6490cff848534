//! Hours of play in fast motion against the real binary, and what its memory is all the while:
//! `SOAK_SECONDS=1800 cargo bench --bench soak`.
//!
//! Duels are declared, joined by two players, pushed to, left and joined again, played to the end and closed, as many as the
//! machine can. What the hub remembers for an hour it remembers for 60 s here, so a minute of the soak stands for an hour. A
//! line every `SOAK_LINE_SECONDS` shows what the hub holds. Afterwards nobody plays, and everything is forgotten. The memory
//! must be the same in the last quarter of the load as in the one before, within a tenth. The allocator's variables
//! (`MIMALLOC_…`) reach the hub.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use duelhub_testkit::{Backend, Hub, Join, PING, Player, Site, get, push};
use tokio::time::sleep;

/// Duels under way at a time.
const AT_A_TIME: u64 = 100;
const ROUNDS: u64 = 20;
/// After so many rounds, each player loses the connection.
const RECONNECT_EVERY: u64 = 4;
/// How long the hub remembers what it remembers for an hour by default.
const RETENTION: &str = "60";
/// After the load, until everything is forgotten.
const AFTERWARDS: Duration = Duration::from_secs(150);
const PAYLOAD: &str = r#"{"question":"Which of these is the longest river of them all, from its source to the sea?","answers":["the first","the second","the third","the fourth"],"ends_in_ms":15000,"score":[12,9]}"#;

/// What all duels share.
struct World {
    backend: Backend,
    hub: duelhub::server::Addresses,
    done: AtomicBool,
    next_duel: AtomicU64,
    reconnects: AtomicU64,
}

/// Plays duels from the first to the last event.
async fn play(world: Arc<World>) {
    while !world.done.load(Ordering::Relaxed) {
        let duel = world.next_duel.fetch_add(1, Ordering::Relaxed);
        let users = [2 * duel - 1, 2 * duel];
        world.backend.open(duel, &users).await;
        let mut players = Vec::new();
        for user in users {
            players.push(world.backend.player(duel, user).await);
        }
        for round in 1..=ROUNDS {
            let mut request = push(duel, PAYLOAD);
            request.idempotency_key = format!("{duel}:{round}");
            world.backend.push_event(request).await;
            for player in &mut players {
                player.until(|player| player.seqs().last() == Some(&round)).await;
                player.events.clear();
            }
            if round % RECONNECT_EVERY == 0 {
                for player in std::mem::take(&mut players) {
                    players.push(reconnect(&world, player).await);
                }
            }
        }
        world.backend.close(duel).await;
        for player in &mut players {
            assert_eq!(player.until_closed().await, 4503);
        }
    }
}

/// Leaves without a word and comes back.
async fn reconnect(world: &World, player: Player) -> Player {
    world.reconnects.fetch_add(1, Ordering::Relaxed);
    let join = Join::ticket(player.resume_ticket()).resume(player.position());
    drop(player);
    let mut player = Player::join(&world.hub, join).await;
    player.send(PING).await;
    player.until(|player| !player.pong.is_null()).await;
    player
}

/// Resident and anonymous memory of the hub, in MB.
fn memory(pid: u32) -> [f64; 2] {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    ["Rss:", "Anonymous:"].map(|name| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches("kB").trim().parse::<f64>().unwrap() * 1024.0 / 1e6
    })
}

/// Prints what the hub holds, and returns its resident memory in MB.
async fn show(world: &World, pid: u32, began: Instant) -> f64 {
    let metrics = get(world.hub.admin, "/metrics", &[]).await.body;
    let count = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_default().to_owned()
    };
    let [resident, anonymous] = memory(pid);
    println!(
        "{:>7.0}{:>9}{:>11}{:>8}{:>9}{:>13}{resident:>9.1}{anonymous:>9.1}",
        began.elapsed().as_secs_f64(),
        world.next_duel.load(Ordering::Relaxed) - 1,
        world.reconnects.load(Ordering::Relaxed),
        count("duelhub_duels"),
        count("duelhub_remembered_tickets"),
        count("duelhub_connections"),
    );
    resident
}

async fn soak(seconds: u64, line: Duration) {
    let mut site = Site::new()
        .with("WEBSOCKET_TICKET_TTL_SECONDS", "30")
        .with("WEBSOCKET_RESUME_TTL_SECONDS", RETENTION)
        .with("ENGINE_CLOSED_RETENTION_SECONDS", RETENTION)
        .with("LOG_LEVEL", "info");
    for (name, text) in std::env::vars().filter(|(name, _)| name.starts_with("MIMALLOC_")) {
        site.set(&name, text);
    }
    let (hub, backend): (Hub, _) = site.start_with_backend().await;
    let pid = hub.pid().unwrap();
    let world = Arc::new(World {
        backend,
        hub: hub.addresses,
        done: AtomicBool::new(false),
        next_duel: AtomicU64::new(1),
        reconnects: AtomicU64::new(0),
    });
    println!("      s    duels reconnects    held  tickets  connections   RSS MB  anon MB");
    let began = Instant::now();
    show(&world, pid, began).await;
    let playing: Vec<_> = (0..AT_A_TIME).map(|_| tokio::spawn(play(Arc::clone(&world)))).collect();
    let mut resident = Vec::new();
    while began.elapsed() < Duration::from_secs(seconds) {
        sleep(line).await;
        resident.push(show(&world, pid, began).await);
    }
    world.done.store(true, Ordering::Relaxed);
    for duels in playing {
        duels.await.unwrap();
    }
    println!("nobody plays any more");
    let idle = Instant::now();
    while idle.elapsed() < AFTERWARDS {
        sleep(line).await;
        show(&world, pid, began).await;
    }
    let quarter = resident.len() / 4;
    let mean =
        |values: &[f64]| values.iter().sum::<f64>() / f64::from(u32::try_from(quarter).unwrap());
    let (last, before) = (&resident[3 * quarter..4 * quarter], &resident[2 * quarter..3 * quarter]);
    println!("the last quarter: {:.1} MB; the one before: {:.1} MB", mean(last), mean(before));
    assert!(mean(last) < 1.1 * mean(before), "the memory still grows");
}

fn main() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |t| t.parse().unwrap());
    let (seconds, line) = (number("SOAK_SECONDS", 240), number("SOAK_LINE_SECONDS", 10));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(soak(seconds, Duration::from_secs(line)));
}
