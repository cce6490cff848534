//! A day of short duels through the embedded engine, in fast motion: how large its files and the process become, and how
//! long the slowest push waits while duels are forgotten and tables are merged: `CHURN_DUELS=1000000 cargo bench --bench churn`.
//!
//! Every duel is declared, admits two tickets, takes 20 pushes with idempotency keys of 256 bytes each, and is closed. A
//! closed one is forgotten after 20 s, which at this pace keeps about as many as an hour does of a million a day. Beside
//! the load, one backend pushes one event at a time: it is its waiting that is shown. `CHURN_PER_SECOND=80` begins as many
//! duels a second instead of as many as it can: 80 make 2,000 changes a second.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use duelhub::clock;
use duelhub::config::{Config, Durability, EngineConfig, StoreConfig};
use duelhub::engine::{Declaration, EmbeddedEngine, Engine, Participant};
use duelhub::event::{Outcome, Role, Viewer};
use duelhub::id::{DuelId, Jti, TelegramId, TicketKey, UserId};
use duelhub::ticket::{Generation, Revision, Ticket};
use duelhub_testkit::fixtures::push_of_256_bytes as push;
use parking_lot::Mutex;

const PUSHES: u64 = 20;
const RETENTION: Duration = Duration::from_secs(20);
/// Duels under way at a time.
const AT_A_TIME: u64 = 64;
/// The duel of the backend whose waiting is measured.
const MEASURED: u64 = 1 << 50;

fn main() {
    let duels = std::env::var("CHURN_DUELS").map_or(50_000, |text| text.parse().unwrap());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let parent = std::env::var_os("DATA_DIR").map_or_else(std::env::temp_dir, Into::into);
    let directory = tempfile::tempdir_in(parent).unwrap();
    runtime.unwrap().block_on(churn(duels, directory.path()));
}

async fn churn(duels: u64, directory: &Path) {
    let store = StoreConfig { data_dir: directory.to_owned(), durability: Durability::Fsync };
    let defaults = Config::read(&|_| None).unwrap().engine;
    let config = EngineConfig { closed_retention: RETENTION, ..defaults };
    let engine: Arc<dyn Engine> = Arc::new(EmbeddedEngine::open(config, &store).unwrap());
    let (next, done) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicBool::new(false)));
    let waits = Arc::new(Mutex::new(Vec::new()));
    let lone = tokio::spawn(push_alone(Arc::clone(&engine), Arc::clone(&waits), Arc::clone(&done)));
    let pruner = tokio::spawn(prune(Arc::clone(&engine), Arc::clone(&done)));
    let pace = std::env::var("CHURN_PER_SECOND").ok().map(|text| text.parse::<f64>().unwrap());
    let pace = pace.map(|per_second| Duration::from_secs_f64(1.0 / per_second));
    let load: Vec<_> = (0..AT_A_TIME)
        .map(|_| tokio::spawn(play(Arc::clone(&engine), Arc::clone(&next), duels, pace)))
        .collect();
    println!(
        "{:>9}{:>9}{:>9}{:>10}{:>9}{:>10}{:>10}{:>10}",
        "duels", "held", "s", "disk MB", "RSS MB", "p50 ms", "p99 ms", "max ms"
    );
    let began = Instant::now();
    for step in 1..=20 {
        while next.load(Ordering::Relaxed) < duels * step / 20 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        show(next.load(Ordering::Relaxed), &*engine, began, directory, &waits);
    }
    for player in load {
        player.await.unwrap();
    }
    tokio::time::sleep(RETENTION + Duration::from_secs(10)).await;
    show(duels, &*engine, began, directory, &waits);
    done.store(true, Ordering::Relaxed);
    lone.await.unwrap();
    pruner.await.unwrap();
    engine.stop().await.unwrap();
    reopen(&store);
}

fn reopen(store: &StoreConfig) {
    let began = Instant::now();
    let engine = EmbeddedEngine::open(Config::read(&|_| None).unwrap().engine, store).unwrap();
    println!(
        "opened again in {:?}, {:.0} MB",
        began.elapsed(),
        megabytes(disk_bytes(&store.data_dir))
    );
    drop(engine);
}

fn show(
    duel: u64,
    engine: &dyn Engine,
    began: Instant,
    directory: &Path,
    waits: &Mutex<Vec<Duration>>,
) {
    let mut waits = std::mem::take(&mut *waits.lock());
    waits.sort_unstable();
    let at =
        |share: usize| waits.get((waits.len() * share / 1000).min(waits.len().saturating_sub(1)));
    let ms = |wait: Option<&Duration>| wait.map_or(0.0, |wait| wait.as_secs_f64() * 1e3);
    println!(
        "{duel:>9}{:>9}{:>9.0}{:>10.0}{:>9.0}{:>10.2}{:>10.2}{:>10.1}",
        engine.counts().duels,
        began.elapsed().as_secs_f64(),
        megabytes(disk_bytes(directory)),
        megabytes(resident_bytes()),
        ms(at(500)),
        ms(at(990)),
        ms(waits.last()),
    );
}

async fn push_alone(
    engine: Arc<dyn Engine>,
    waits: Arc<Mutex<Vec<Duration>>>,
    done: Arc<AtomicBool>,
) {
    while !done.load(Ordering::Relaxed) {
        let called = Instant::now();
        engine.append(DuelId::try_from(MEASURED).unwrap(), push(MEASURED), None).await.unwrap();
        waits.lock().push(called.elapsed());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// In a day the hub prunes once a second; this day runs some 200 times as fast.
async fn prune(engine: Arc<dyn Engine>, done: Arc<AtomicBool>) {
    while !done.load(Ordering::Relaxed) {
        engine.prune(clock::now()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn play(engine: Arc<dyn Engine>, next: Arc<AtomicU64>, duels: u64, pace: Option<Duration>) {
    let began = tokio::time::Instant::now();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number > duels {
            return;
        }
        if let Some(pace) = pace {
            tokio::time::sleep_until(began + pace * u32::try_from(number).unwrap()).await;
        }
        let duel = DuelId::try_from(number).unwrap();
        let users = [2 * number - 1, 2 * number].map(|user| UserId::try_from(user).unwrap());
        let participants = users
            .map(|user| Participant { user, telegram: TelegramId::try_from(user.get()).unwrap() });
        let declaration =
            Declaration { participants: participants.to_vec(), settings: None, reopen: false };
        engine.open(duel, declaration).await.unwrap();
        for user in users {
            engine.redeem(&ticket(duel, user)).await.unwrap();
        }
        for round in 0..PUSHES {
            let key = format!("{number}:{round}").into_boxed_str();
            engine.append(duel, push(number), Some(key)).await.unwrap();
        }
        engine.close(duel, Outcome::Finished, None).await.unwrap();
    }
}

fn ticket(duel: DuelId, user: UserId) -> Ticket {
    let viewer = Viewer { user, role: Role::Player };
    let (jti, expires_at) = (Jti::random(), clock::now().plus(RETENTION));
    let generation = Generation { session: TicketKey::of(&jti), number: 0 };
    Ticket { jti, duel, viewer, generation, revision: Revision::default(), expires_at }
}

fn megabytes(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes / 1024).unwrap()) / 1024.0
}

/// Blocks that the files take, as the disk counts them.
fn disk_bytes(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = fs::read_dir(directory).map(|entries| entries.flatten().collect::<Vec<_>>());
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    };
    entries.unwrap_or_default().into_iter().map(bytes).sum()
}

fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}
