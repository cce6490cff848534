//! Backends push at full rate, players follow, and the process is killed again and again at random moments.
//!
//! What was acknowledged must be there for everybody, once, in order, at its position. What was shown to anybody must be
//! as durable as what was acknowledged: after each kill a producer first pushes something new and only then repeats
//! what was not answered, so that a position shown too early is given to another event, and the player who saw it finds
//! out, by the event that comes next or by not being `recovered`.

mod admin_client;
mod producer;
mod returning_player;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use duelhub::server::Addresses;
use duelhub_testkit::is_ready;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::admin_client::AdminClient;
use self::producer::{Log, Producer};
use self::returning_player::{Followed, ReturningPlayer};
use crate::kit::{Backend, Disk, Fault, HowToEnd, Hub, Site, dice, number, say, soon};

/// Duels at a time, each with a producer and two players.
const DUELS: u64 = 3;

/// Harms until the duels are checked and new ones begun, so that a long run does not need more and more memory.
const HARMS_PER_ROUND: u64 = 6;

/// Harms until a store is checked as a whole and another begun: at each start all of it is read.
const HARMS_PER_STORE: u64 = 24;

/// What the tasks of a run share.
#[derive(Debug)]
struct Shared {
    /// Finds the hub again by itself.
    backend: Backend,
    addresses: Addresses,
    /// No further events, but everything begun is brought to its end.
    finish: AtomicBool,
    /// Tickets that opened a connection, and so must never open another.
    used: parking_lot::Mutex<Vec<String>>,
}

/// A duel of a round.
#[derive(Debug)]
struct DuelUnderTest {
    id: u64,
    epoch: String,
    /// How far each player is, so that the producer does not leave them behind without bound.
    served: [AtomicU64; 2],
    /// The last position there will be, once it is known.
    last: watch::Sender<Option<u64>>,
}

/// What happens to the hub while it works.
#[derive(Debug, Clone, Copy)]
enum Harm {
    /// SIGKILL, and now and then all that was not synced is gone as well.
    Killed,
    /// The disk fails for a while.
    DiskFails,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again() {
    run("killed_again_and_again", Harm::Killed, number("DUELHUB_KILLS", 12)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_disk_that_fails_again_and_again() {
    run("on_a_disk_that_fails", Harm::DiskFails, number("DUELHUB_KILLS", 12)).await;
}

async fn run(test: &str, harm: Harm, times: u64) {
    let mut dice = dice(test);
    let mut left = times;
    loop {
        let now = left.min(HARMS_PER_STORE);
        life(test, harm, now, &mut dice).await;
        left -= now;
        if left == 0 {
            break;
        }
        say(&format!("{test}: {} of {times}", times - left));
    }
}

/// The life of one store.
async fn life(test: &str, harm: Harm, times: u64, dice: &mut StdRng) {
    let mut site = site();
    let disk = Disk::under(&mut site);
    let mut hub = site.start().await;
    let shared = Arc::new(Shared {
        backend: Backend::lazy(&hub),
        addresses: hub.addresses,
        finish: AtomicBool::new(false),
        used: parking_lot::Mutex::default(),
    });
    let admin = tokio::spawn(AdminClient::new(StdRng::from_rng(dice)).run(Arc::clone(&shared)));
    let mut harness = Harness { site, disk, harm, dice, shared: Arc::clone(&shared) };
    let (mut left, mut events) = (times, 0);
    for round in 0.. {
        let now = left.min(HARMS_PER_ROUND);
        let pushed;
        (hub, pushed) = harness.play(hub, round, now).await;
        events += pushed;
        left -= now;
        if left == 0 {
            break;
        }
    }
    shared.finish.store(true, Ordering::Relaxed);
    let admin = soon("the admin client ends", admin).await.unwrap();
    if times > 0 {
        // Everything once more, of a process that has not seen any of it.
        hub.end(HowToEnd::Kill).await;
        hub = harness.site.start().await;
    }
    let used = shared.used.lock().clone();
    admin.check(&shared, &hub).await;
    returning_player::refuse_all(&hub, &used).await;
    let (tickets, told) = (used.len(), admin.summary());
    say(&format!("{test}: {times} times, {events} events, {tickets} tickets used, {told}"));
    hub.end(HowToEnd::Term).await;
}

fn site() -> Site {
    Site::new()
        .on_ports_of_its_own()
        .with("LOG_LEVEL", "info")
        // Nothing falls off the log, and nothing expires, while the test looks.
        .with("ENGINE_MAX_LOG_EVENTS", "1000000")
        .with("ENGINE_MAX_LOG_BYTES", "1073741824")
        .with("WEBSOCKET_TICKET_TTL_SECONDS", "7200")
        .with("WEBSOCKET_RESUME_TTL_SECONDS", "7200")
        .with("ENGINE_CLOSED_RETENTION_SECONDS", "7200")
}

/// A hub and those who use it, and what is done to it.
struct Harness<'a> {
    site: Site,
    disk: Disk,
    harm: Harm,
    dice: &'a mut StdRng,
    shared: Arc<Shared>,
}

impl Harness<'_> {
    /// One round: new duels, harm so many times, and everything checked. The hub that is there then, and how many
    /// events there were.
    async fn play(&mut self, mut hub: Hub, round: u64, times: u64) -> (Hub, u64) {
        let shared = Arc::clone(&self.shared);
        let stop = Arc::new(AtomicBool::new(false));
        let (mut producers, mut players) = (JoinSet::new(), JoinSet::new());
        let dice = &mut *self.dice;
        for nth in 0..DUELS {
            let duel = Arc::new(DuelUnderTest::open(&shared, 1000 + round * DUELS + nth).await);
            let producer =
                Producer::new(Arc::clone(&duel), StdRng::from_rng(dice), Arc::clone(&stop));
            producers.spawn(producer.run(Arc::clone(&shared)));
            for index in 0..2 {
                let player = ReturningPlayer::new(Arc::clone(&duel), index, StdRng::from_rng(dice));
                players.spawn(player.run(Arc::clone(&shared)));
            }
        }
        for _ in 0..times {
            let pause = Duration::from_millis(self.dice.random_range(50..1000));
            tokio::time::sleep(pause).await;
            hub = match self.harm {
                Harm::Killed => self.kill(hub).await,
                Harm::DiskFails => self.fail(hub).await,
            };
            let used: Vec<_> = shared.used.lock().sample(&mut self.dice, 3).cloned().collect();
            returning_player::refuse_all(&hub, &used).await;
        }
        // Also without any harm there is something to check.
        tokio::time::sleep(Duration::from_millis(500)).await;
        stop.store(true, Ordering::Relaxed);
        let logs: Vec<Log> = soon("every push is answered", producers.join_all()).await;
        for log in &logs {
            log.duel.last.send_replace(Some(log.last()));
        }
        let followed: Vec<Followed> = soon("every player has everything", players.join_all()).await;
        for seen in &followed {
            let log = logs.iter().find(|log| log.duel.id == seen.duel).unwrap();
            log.compare("a player", &seen.ids);
        }
        for log in &logs {
            let late = returning_player::read_from_the_start(&shared, &log.duel).await;
            log.compare("who was never there", &late);
            log.check_head(&shared).await;
        }
        (hub, logs.iter().map(Log::last).sum())
    }

    /// Kills the hub and starts it again, in spite of further kills before it serves.
    async fn kill(&mut self, hub: Hub) -> Hub {
        hub.end(HowToEnd::Kill).await;
        self.maybe_lose_power();
        while self.dice.random_bool(0.25) {
            let starting = self.site.begin_start();
            let pause = Duration::from_millis(self.dice.random_range(0..60));
            tokio::time::sleep(pause).await;
            starting.send(HowToEnd::Kill);
            let exit = starting.ended().await;
            assert!(exit.code.is_none() && !exit.panicked(), "it did not end by itself: {exit}");
            self.maybe_lose_power();
        }
        self.site.start().await
    }

    fn maybe_lose_power(&mut self) {
        if self.dice.random_bool(0.5) {
            self.disk.lose_power(self.dice);
        }
    }

    /// Has the disk fail for a while; the hub must live through it, and be well again afterwards. Unless the power goes,
    /// before or after that.
    async fn fail(&mut self, mut hub: Hub) -> Hub {
        let faults = [Fault::Full, Fault::HalfWritten, Fault::Sync, Fault::Read];
        self.disk.set(*faults.choose(self.dice).unwrap());
        let pause = Duration::from_millis(self.dice.random_range(1..1500));
        tokio::time::sleep(pause).await;
        assert!(hub.lives(), "{}", hub.output());
        let dies = self.dice.random_bool(0.4);
        if dies && self.dice.random_bool(0.5) {
            return self.power_cycle(hub).await;
        }
        self.disk.set(Fault::None);
        if dies {
            let pause = Duration::from_millis(self.dice.random_range(1..1500));
            tokio::time::sleep(pause).await;
            return self.power_cycle(hub).await;
        }
        is_ready(&hub).await;
        hub
    }

    /// The power goes, and comes back with a disk that works.
    async fn power_cycle(&mut self, hub: Hub) -> Hub {
        hub.end(HowToEnd::Kill).await;
        self.disk.set(Fault::None);
        self.disk.lose_power(self.dice);
        self.site.start().await
    }
}
