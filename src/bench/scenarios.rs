//! The scenarios: who connects, what is pushed, what is measured.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::backend::{self, Clock, Plan, PlayerSpec, PushTiming};
use super::hub::TargetHub;
use super::players::{Delivery, Entry, Players};
use super::report::BenchReport;
use super::{BenchError, BenchOptions, Progress, PushBy, Scenario, process};
use crate::pb;

/// Connections in progress at a time while a scenario is set up, and how many begin per second. Below a hub's default limits.
const SETUP_AT_A_TIME: usize = 128;
const SETUP_PER_SECOND: u32 = 4000;

/// The same in a storm.
const STORM_AT_A_TIME: usize = 200;
const STORM_PER_SECOND: u32 = 1_000_000;

/// How long connecting or receiving may take without any progress.
const PATIENCE: Duration = Duration::from_secs(10);

/// The time between two checks of the progress.
const LOOK_PAUSE: Duration = Duration::from_millis(2);

/// How long a hub may be busy with a connection after it was opened: its first ping, its presence.
const SETTLE: Duration = Duration::from_secs(1);

/// A hub can take a rate if 99 of 100 deliveries take less.
const CEILING_P99: Duration = Duration::from_millis(10);

/// Pushes per second where they only prove that everybody is served.
const ROUND_RATE: u32 = 2000;

/// How long a rate is tried, the first rate, and how often the range is halved.
const CEILING_STEP: Duration = Duration::from_secs(3);
const CEILING_FIRST: u32 = 1000;
const CEILING_HALVINGS: usize = 4;

/// A running scenario.
struct Bench<'a> {
    options: &'a BenchOptions,
    progress: Progress<'a>,
    clock: Clock,
    hub: TargetHub,
    players: Players,
    report: BenchReport,
}

pub(super) async fn run(
    options: &BenchOptions,
    progress: Progress<'_>,
) -> Result<BenchReport, BenchError> {
    let clock = Clock::start();
    let hub = TargetHub::new(&options.target).await?;
    let players = Players::spawn(hub.data.clone(), &hub.path, clock)?;
    let report = BenchReport::new(title(options));
    let mut bench = Bench { options, progress, clock, hub, players, report };
    match options.scenario {
        Scenario::Duels { duels, rate } => {
            bench.connect(pairs(duels)).await?;
            bench.push_runs(Load { duels, rate, audience: 2 }).await?;
        }
        Scenario::Broadcast { spectators, rate } => {
            let spectator = |user| PlayerSpec { duel: 1, user, role: pb::Role::Spectator };
            bench.connect((1..=spectators).map(spectator).collect()).await?;
            bench.push_runs(Load { duels: 1, rate, audience: spectators }).await?;
        }
        Scenario::Idle { connections } => bench.idle(connections).await?,
        Scenario::Storm { connections } => bench.storm(connections).await?,
        Scenario::Ceiling { duels } => bench.ceiling(duels).await?,
    }
    let Bench { players, mut report, hub, .. } = bench;
    report.fault_count += players.tally.faults.load(Ordering::Relaxed);
    report.faults.extend(players.tally.messages());
    drop(players);
    hub.stop().await?;
    Ok(report)
}

fn title(options: &BenchOptions) -> String {
    let (runs, seconds) = (options.runs, options.duration.as_secs_f64());
    let pushes = match options.push_by {
        PushBy::Unary => "calls of PushEvent",
        PushBy::Stream => "a stream of PushEvents",
        PushBy::Http => "HTTP posts",
    };
    let bytes = options.payload_bytes;
    match options.scenario {
        Scenario::Duels { duels, rate } => format!(
            "duels: {duels} duels of two players, {rate} pushes/s by {pushes}, {bytes} bytes, {runs} runs of {seconds} s"
        ),
        Scenario::Broadcast { spectators, rate } => format!(
            "broadcast: one duel, {spectators} spectators, {rate} pushes/s by {pushes}, {bytes} bytes, {runs} runs of {seconds} s"
        ),
        Scenario::Idle { connections } => {
            format!("idle: {connections} connections, two in a duel, {runs} runs of {seconds} s")
        }
        Scenario::Storm { connections } => {
            format!("storm: {connections} connections, two in a duel")
        }
        Scenario::Ceiling { duels } => {
            format!("ceiling: {duels} duels of two players, {bytes} bytes, by {pushes}")
        }
    }
}

/// Returns two players for each duel.
fn pairs(duels: u64) -> Vec<PlayerSpec> {
    let role = pb::Role::Player;
    let pair = |duel| [2 * duel - 1, 2 * duel].map(|user| PlayerSpec { duel, user, role });
    (1..=duels).flat_map(pair).collect()
}

/// Pushes to `duels` duels. Each push reaches `audience` players.
#[derive(Clone, Copy)]
struct Load {
    duels: u64,
    rate: u32,
    audience: u64,
}

/// The measurements of one run of pushes.
struct Run {
    pushed: Vec<PushTiming>,
    deliveries: Vec<Delivery>,
    wall: Duration,
    server_cpu: Option<Duration>,
    own_cpu: Duration,
    players_cpu: Duration,
}

/// Latencies in µs, sorted.
struct Latencies(Vec<f64>);

impl Latencies {
    fn of(deliveries: &[Delivery], since: impl Fn(usize) -> Option<u64>) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a bench fit into 52 bits")]
        let took = |delivery: &Delivery| {
            Some((delivery.at_ns as f64 - since(delivery.push as usize)? as f64) / 1e3)
        };
        let mut all: Vec<_> = deliveries.iter().filter_map(took).collect();
        all.sort_unstable_by(f64::total_cmp);
        Self(all)
    }

    /// Returns the latency that so many per thousand are below.
    fn at(&self, per_mille: usize) -> f64 {
        let index = (self.0.len() * per_mille / 1000).min(self.0.len().saturating_sub(1));
        self.0.get(index).copied().unwrap_or(f64::NAN)
    }
}

impl Run {
    fn since_call(&self) -> Latencies {
        let since = |push: usize| Some(self.pushed.get(push)?.called_ns);
        Latencies::of(&self.deliveries, since)
    }

    fn report(&self, report: &mut BenchReport) {
        let (pushes, deliveries) =
            (count(self.pushed.len() as u64), count(self.deliveries.len() as u64));
        if let Some(cpu) = self.server_cpu {
            report.add("server CPU per delivery", "µs", micros(cpu) / deliveries);
            report.add("server CPU per push", "µs", micros(cpu) / pushes);
        }
        let since_call = self.since_call();
        report.add("push call to frame, p50", "µs", since_call.at(500));
        report.add("push call to frame, p99", "µs", since_call.at(990));
        report.add("push call to frame, most", "µs", since_call.at(1000));
        let since = |push: usize| Some(self.pushed.get(push)?.answered_ns);
        let since_answer = Latencies::of(&self.deliveries, since);
        report.add("acknowledgement to frame, p50", "µs", since_answer.at(500));
        report.add("acknowledgement to frame, p99", "µs", since_answer.at(990));
        let wall = self.wall.as_secs_f64();
        report.add("deliveries", "per second", deliveries / wall);
        report.add("bench's own CPU", "% of a core", 100.0 * self.own_cpu.as_secs_f64() / wall);
        report.add(
            "of it the players",
            "% of a core",
            100.0 * self.players_cpu.as_secs_f64() / wall,
        );
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[expect(clippy::cast_precision_loss, reason = "what a bench counts fits into 52 bits")]
fn count(number: u64) -> f64 {
    number as f64
}

impl Bench<'_> {
    fn server_cpu(&self) -> Option<Duration> {
        // Of all processes, or of none.
        self.hub.pids.iter().map(|pid| process::cpu(*pid)).reduce(|sum, cpu| Some(sum? + cpu?))?
    }

    fn memory(&self) -> Option<process::Memory> {
        let each = self.hub.pids.iter().map(|pid| process::memory(*pid));
        each.reduce(|sum, memory| Some(sum?.plus(memory?)))?
    }

    fn open(&self) -> u64 {
        self.players.tally.open.load(Ordering::Relaxed)
    }

    /// Connects everybody, at a pace that any hub takes.
    async fn connect(&mut self, players: Vec<PlayerSpec>) -> Result<(), BenchError> {
        (self.progress)(&format!("{} tickets", players.len()));
        let wanted = players.len() as u64;
        let entries = self.entries(&players).await?;
        self.players.open(entries, SETUP_AT_A_TIME, SETUP_PER_SECOND);
        self.until_open(wanted).await?;
        sleep(SETTLE).await;
        Ok(())
    }

    async fn entries(&self, players: &[PlayerSpec]) -> Result<Vec<Entry>, BenchError> {
        let tickets = backend::tickets(&self.hub, self.options.push_by, players).await?;
        let both = players.iter().zip(tickets);
        Ok(both.map(|(player, ticket)| Entry { duel: player.duel, ticket }).collect())
    }

    async fn until_open(&mut self, wanted: u64) -> Result<(), BenchError> {
        let tally = std::sync::Arc::clone(&self.players.tally);
        let open = self.until(wanted, "connections", || tally.open.load(Ordering::Relaxed)).await;
        if open == wanted {
            return Ok(());
        }
        let why = self.players.tally.messages().into_iter().next();
        let why = why.unwrap_or_else(|| "the hub puts them off".to_owned());
        Err(BenchError::NotConnected { connected: open, wanted, why })
    }

    /// Waits until there are so many, or there was no progress for [`PATIENCE`]. Returns how many there are.
    async fn until(&mut self, wanted: u64, what: &str, so_far: impl Fn() -> u64) -> u64 {
        let (mut last, mut since, mut shown) = (0, Instant::now(), Instant::now());
        loop {
            let now = so_far();
            if now >= wanted || (now == last && since.elapsed() > PATIENCE) {
                return now;
            }
            if now != last {
                (last, since) = (now, Instant::now());
            }
            if shown.elapsed() > Duration::from_millis(500) {
                shown = Instant::now();
                (self.progress)(&format!("{now} of {wanted} {what}"));
            }
            sleep(LOOK_PAUSE).await;
        }
    }

    async fn push_runs(&mut self, load: Load) -> Result<(), BenchError> {
        for run in 1..=self.options.runs {
            (self.progress)(&format!("run {run} of {}", self.options.runs));
            let found = self.push_run(load, self.options.duration).await?;
            found.report(&mut self.report);
        }
        self.measure_memory();
        Ok(())
    }

    async fn push_run(&mut self, load: Load, duration: Duration) -> Result<Run, BenchError> {
        let Load { duels, rate, audience } = load;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
        let count = (f64::from(rate) * duration.as_secs_f64()) as u32;
        let (by, payload_bytes) = (self.options.push_by, self.options.payload_bytes);
        let plan = Plan { by, count, rate, duels, payload_bytes };
        let before = self.players.take();
        let tally = std::sync::Arc::clone(&self.players.tally);
        let so_far = || tally.deliveries.load(Ordering::Relaxed);
        let expected = so_far() + u64::from(count) * audience;
        let (server, own, began) = (self.server_cpu(), process::own_cpu(), Instant::now());
        let pushed = backend::push(&self.hub, plan, self.clock).await?;
        let received = self.until(expected, "deliveries", so_far).await;
        let wall = began.elapsed();
        let server_cpu = self.server_cpu().zip(server).map(|(after, before)| after - before);
        let own_cpu = process::own_cpu() - own;
        let taken = self.players.take();
        if received != expected {
            self.report.fault(format!("{received} deliveries where {expected} were expected"));
        }
        let players_cpu = taken.cpu - before.cpu;
        let deliveries = taken.deliveries;
        Ok(Run { pushed, deliveries, wall, server_cpu, own_cpu, players_cpu })
    }

    /// Measures the memory of the hub with everybody connected.
    fn measure_memory(&mut self) {
        let Some(memory) = self.memory() else { return };
        let connections = count(self.open()).max(1.0);
        self.report.add("proportional memory (PSS)", "MB", count(memory.pss) / 1e6);
        self.report.add("resident memory (RSS)", "MB", count(memory.rss) / 1e6);
        self.report.add("PSS per connection", "bytes", count(memory.pss) / connections);
    }

    async fn idle(&mut self, connections: u64) -> Result<(), BenchError> {
        let (before, slab) = (self.memory(), process::kernel_slab());
        self.connect(pairs(connections / 2)).await?;
        // Everybody's first ping is answered.
        sleep(SETTLE).await;
        let open = count(self.open()).max(1.0);
        for run in 1..=self.options.runs {
            (self.progress)(&format!("run {run} of {}", self.options.runs));
            let (cpu, began) = (self.server_cpu(), Instant::now());
            sleep(self.options.duration).await;
            let cpu = self.server_cpu().zip(cpu).map(|(after, before)| after - before);
            if let Some(cpu) = cpu {
                let share = cpu.as_secs_f64() / began.elapsed().as_secs_f64();
                self.report.add("CPU per 10,000 connections", "% of a core", 1e6 * share / open);
            }
        }
        if let (Some(before), Some(after)) = (before, self.memory()) {
            let grown = |before: u64, after: u64| count(after.saturating_sub(before)) / open;
            self.report.add("PSS per connection", "bytes", grown(before.pss, after.pss));
            self.report.add("RSS per connection", "bytes", grown(before.rss, after.rss));
            self.report.add("PSS before", "MB", count(before.pss) / 1e6);
        }
        if let (Some(before), Some(after)) = (slab, process::kernel_slab()) {
            let grown = count(after.saturating_sub(before)) / open;
            self.report.add("kernel objects per connection, both ends", "bytes", grown);
        }
        // Proves that they are alive.
        self.push_round(connections / 2).await?;
        let pongs = self.players.tally.pongs.load(Ordering::Relaxed);
        self.report.add("pings answered", "", count(pongs));
        self.report.add("connections", "", open);
        Ok(())
    }

    async fn storm(&mut self, connections: u64) -> Result<(), BenchError> {
        let players = pairs(connections / 2);
        (self.progress)(&format!("{} tickets", players.len()));
        let entries = self.entries(&players).await?;
        let (cpu, own, began) = (self.server_cpu(), process::own_cpu(), Instant::now());
        self.players.open(entries, STORM_AT_A_TIME, STORM_PER_SECOND);
        self.until_open(connections / 2 * 2).await?;
        let (took, own) = (began.elapsed(), process::own_cpu() - own);
        let open = count(self.open());
        self.report.add("connects", "per second", open / took.as_secs_f64());
        if let Some((after, before)) = self.server_cpu().zip(cpu) {
            let cpu = (after - before).as_secs_f64();
            self.report.add("connects per core of the hub", "per second", open / cpu);
            self.report.add("server CPU per connect", "µs", 1e6 * cpu / open);
        }
        let share = 100.0 * own.as_secs_f64() / took.as_secs_f64();
        self.report.add("bench's own CPU", "% of a core", share);
        let refused = self.players.tally.refused.load(Ordering::Relaxed);
        let refused = count(refused);
        self.report.add("handshakes that were put off", "", refused);
        if self.hub.is_own() {
            sleep(SETTLE).await;
            self.restart(connections / 2).await?;
        }
        Ok(())
    }

    /// Kills and restarts the hub, and checks that everybody reconnects and has missed nothing.
    async fn restart(&mut self, duels: u64) -> Result<(), BenchError> {
        // What was acknowledged just before the end reaches the players now or when they are back.
        let load = Load { duels, rate: ROUND_RATE, audience: 2 };
        self.push_run(load, Duration::from_secs(1)).await?;
        self.players.reconnect();
        (self.progress)("killed");
        self.hub.kill().await;
        self.until_gone().await;
        let killed = Instant::now();
        self.hub.start().await?;
        let ready = Instant::now();
        self.until_open(duels * 2).await?;
        self.report.add("from start to ready", "s", (ready - killed).as_secs_f64());
        self.report.add("from ready until all are back", "s", ready.elapsed().as_secs_f64());
        let recovered = self.players.tally.recovered.load(Ordering::Relaxed);
        self.report.add("recovered", "", count(recovered));
        if self.hub.keeps_events() && recovered != duels * 2 {
            self.report.fault(format!("{recovered} of {} connections recovered", duels * 2));
        }
        // A player who missed something would notice a gap.
        self.push_round(duels).await
    }

    /// Pushes to every duel once.
    async fn push_round(&mut self, duels: u64) -> Result<(), BenchError> {
        let every = Load { duels, rate: ROUND_RATE, audience: 2 };
        #[expect(clippy::cast_precision_loss, reason = "duels of a bench fit into 52 bits")]
        let whole_round = Duration::from_secs_f64(duels as f64 / f64::from(ROUND_RATE));
        self.push_run(every, whole_round).await?;
        Ok(())
    }

    async fn until_gone(&self) {
        let since = Instant::now();
        while self.open() > 0 && since.elapsed() < PATIENCE {
            sleep(LOOK_PAUSE).await;
        }
    }

    async fn ceiling(&mut self, duels: u64) -> Result<(), BenchError> {
        self.connect(pairs(duels)).await?;
        let (mut good, mut bad) = (0, None);
        let mut rate = CEILING_FIRST;
        for _ in 0..32 {
            if self.takes(duels, rate).await? {
                good = rate;
            } else {
                bad = Some(rate);
                break;
            }
            rate = rate.saturating_mul(2);
        }
        for _ in 0..CEILING_HALVINGS {
            let Some(least_bad) = bad else { break };
            let rate = good.midpoint(least_bad);
            if self.takes(duels, rate).await? {
                good = rate;
            } else {
                bad = Some(rate);
            }
        }
        self.report.add("highest rate with p99 under 10 ms", "pushes/s", f64::from(good));
        Ok(())
    }

    /// Returns whether the hub and the bench can take this rate.
    async fn takes(&mut self, duels: u64, rate: u32) -> Result<bool, BenchError> {
        let run = self.push_run(Load { duels, rate, audience: 2 }, CEILING_STEP).await?;
        let p99 = run.since_call().at(990);
        (self.progress)(&format!("{rate} pushes/s: p99 {:.2} ms", p99 / 1e3));
        // If the backend cannot keep the pace, the rate was not reached.
        let kept_pace = run.wall < CEILING_STEP.mul_f64(1.1);
        if kept_pace && p99 < micros(CEILING_P99) {
            self.report.rows.retain(|row| row.name != "at that rate: server CPU per push");
            if let Some(cpu) = run.server_cpu {
                let per_push = micros(cpu) / count(run.pushed.len() as u64);
                self.report.add("at that rate: server CPU per push", "µs", per_push);
            }
            return Ok(true);
        }
        Ok(false)
    }
}
