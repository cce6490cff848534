//! Pushes per second and their latency, through the engines, with 1, 16 and 256 pushes in flight, beside what the disk's
//! own fsync takes, measured in the same run: `cargo bench --bench engines`.
//!
//! Goals: with 256 in flight, the embedded engine stores at least 20 times as many pushes as the disk does syncs; a single
//! push takes no longer than 1.3 syncs. `DATA_DIR=/some/disk` measures another disk than that of the temporary directory.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use duelhub::config::{Config, Durability, EngineConfig, StoreConfig};
use duelhub::engine::{EmbeddedEngine, Engine, MemoryEngine};
use duelhub::id::DuelId;
use duelhub_testkit::fixtures::push_of_256_bytes as push;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

/// How long each figure is measured, and how often; the median of the repetitions is shown.
const MEASURED: Duration = Duration::from_millis(1500);
const REPETITIONS: usize = 7;

/// Duels that are pushed to, in turn.
const DUELS: u64 = 2500;

/// What one repetition found.
#[derive(Clone, Copy)]
struct Figure {
    per_second: f64,
    p50: Duration,
    p99: Duration,
    max: Duration,
    cpu: Duration,
}

/// An engine under a number of pushes, and what its repetitions found; each with what the disk did just before, where that
/// is to be compared.
struct Case {
    name: &'static str,
    in_flight: usize,
    figures: Vec<(Figure, Option<Figure>)>,
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let parent = std::env::var_os("DATA_DIR").map_or_else(std::env::temp_dir, Into::into);
    let directory = tempfile::tempdir_in(parent).unwrap();
    println!(
        "{:<22}{:>9}{:>12}{:>10}{:>10}{:>10}{:>9}",
        "", "in flight", "per second", "p50 µs", "p99 µs", "max µs", "CPU µs"
    );
    let embedded = |name, durability| -> Arc<dyn Engine> {
        let store = StoreConfig { data_dir: directory.path().join(name), durability };
        Arc::new(EmbeddedEngine::open(engine_config(), &store).unwrap())
    };
    measure(&runtime, "embedded, fsync", &embedded("fsync", Durability::Fsync), || {
        Some(plain_syncs(directory.path()))
    });
    measure(&runtime, "embedded, os", &embedded("os", Durability::Os), || None);
    let memory: Arc<dyn Engine> = Arc::new(MemoryEngine::new(engine_config()));
    measure(&runtime, "memory", &memory, || None);
}

fn engine_config() -> EngineConfig {
    Config::read(&|_| None).unwrap().engine
}

/// All cases of an engine, in turn, so that the machine's moods meet all of them; before each one what it is compared with.
fn measure(
    runtime: &tokio::runtime::Runtime,
    name: &'static str,
    engine: &Arc<dyn Engine>,
    before: impl Fn() -> Option<Figure>,
) {
    let mut cases = [1, 16, 256].map(|in_flight| Case { name, in_flight, figures: Vec::new() });
    for _ in 0..REPETITIONS {
        for case in &mut cases {
            let before = before();
            case.figures.push((runtime.block_on(pushes(engine, case.in_flight)), before));
        }
    }
    runtime.block_on(engine.stop()).unwrap();
    let syncs = cases.iter().flat_map(|case| &case.figures).filter_map(|(_, before)| *before);
    let syncs: Vec<_> = syncs.collect();
    if !syncs.is_empty() {
        show("write + fdatasync", 1, &syncs);
    }
    for case in cases {
        let figures: Vec<_> = case.figures.iter().map(|(figure, _)| *figure).collect();
        show(case.name, case.in_flight, &figures);
        compare(&case);
    }
}

fn show(name: &str, in_flight: usize, figures: &[Figure]) {
    let mut figures = figures.to_vec();
    figures.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    let figure = figures[figures.len() / 2];
    let micros = |duration: Duration| duration.as_secs_f64() * 1e6;
    println!(
        "{name:<22}{in_flight:>9}{:>12.0}{:>10.0}{:>10.0}{:>10.0}{:>9.1}   ({:.0} to {:.0} per second)",
        figure.per_second,
        micros(figure.p50),
        micros(figure.p99),
        micros(figures.iter().map(|figure| figure.max).max().unwrap()),
        micros(figure.cpu),
        figures[0].per_second,
        figures[figures.len() - 1].per_second,
    );
}

fn compare(case: &Case) {
    let ratio = |(pushes, sync): &(Figure, Option<Figure>)| {
        let sync = (*sync)?;
        Some(match case.in_flight {
            1 => pushes.p50.as_secs_f64() / sync.p50.as_secs_f64(),
            _ => pushes.per_second / sync.per_second,
        })
    };
    let mut ratios: Vec<_> = case.figures.iter().filter_map(ratio).collect();
    if ratios.is_empty() {
        return;
    }
    ratios.sort_by(f64::total_cmp);
    let (median, least, most) = (ratios[ratios.len() / 2], ratios[0], ratios[ratios.len() - 1]);
    let spread = format!("{least:.2} to {most:.2}");
    match case.in_flight {
        1 => println!("{:<22}a push takes {median:.2} syncs ({spread}; goal: at most 1.3)", ""),
        256 => println!("{:<22}{median:.1} times the syncs ({spread}; goal: at least 20)", ""),
        _ => println!("{:<22}{median:.1} times the syncs ({spread})", ""),
    }
}

/// The disk's own rate: as many bytes as a push takes, appended to a file and synced.
fn plain_syncs(directory: &Path) -> Figure {
    let path = directory.join("plain");
    let mut file = File::create(&path).unwrap();
    let (began, cpu) = (Instant::now(), cpu_time());
    let mut took = Vec::new();
    while began.elapsed() < MEASURED {
        let one = Instant::now();
        file.write_all(&[b'x'; 512]).unwrap();
        file.sync_data().unwrap();
        took.push(one.elapsed());
    }
    fs::remove_file(path).unwrap();
    figure(began.elapsed(), took, cpu_time() - cpu)
}

async fn pushes(engine: &Arc<dyn Engine>, in_flight: usize) -> Figure {
    let (began, cpu) = (Instant::now(), cpu_time());
    let mut under_way = FuturesUnordered::new();
    let mut took = Vec::new();
    let mut next = 0;
    loop {
        while under_way.len() < in_flight && began.elapsed() < MEASURED {
            next = (next + 7919) % DUELS;
            let called = Instant::now();
            let answer = engine.append(DuelId::try_from(next + 1).unwrap(), push(next + 1), None);
            under_way.push(async move {
                answer.await.unwrap();
                called.elapsed()
            });
        }
        let Some(one) = under_way.next().await else { break };
        took.push(one);
    }
    figure(began.elapsed(), took, cpu_time() - cpu)
}

fn figure(elapsed: Duration, mut took: Vec<Duration>, cpu: Duration) -> Figure {
    took.sort_unstable();
    let count = took.len();
    let each = u32::try_from(count).unwrap();
    Figure {
        per_second: f64::from(each) / elapsed.as_secs_f64(),
        p50: took[count / 2],
        p99: took[count * 99 / 100],
        max: took[count - 1],
        cpu: cpu / each,
    }
}

/// CPU time of this process, all threads, the kernel's part included.
fn cpu_time() -> Duration {
    let usage = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(usage.tv_sec).unwrap(), u32::try_from(usage.tv_nsec).unwrap())
}
