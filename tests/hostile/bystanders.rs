//! Those who do nothing wrong: two who play, those who come in, and the backend that pushes.

use std::sync::Arc;
use std::time::Duration;

use duelhub_testkit::{Join, Player};
use parking_lot::Mutex;
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::{SHARED, Target};

/// Their duel.
const DUEL: u64 = 7;

/// How long somebody waits to come in.
const PATIENCE: Duration = Duration::from_secs(3);

/// What they saw. Of two counts the first is of those at an address of their own, the second of those at the guest's.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// From a push to its delivery.
    latencies: Vec<Duration>,
    /// Events that did not come within [`PATIENCE`].
    pub(crate) lost: u64,
    pub(crate) came_in: [u64; 2],
    pub(crate) refused: [u64; 2],
}

impl Seen {
    pub(crate) fn p99(&self) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() * 99 / 100).copied().unwrap_or_default()
    }
}

/// They act until this is dropped.
pub(crate) struct Bystanders {
    seen: Arc<Mutex<Seen>>,
    _acting: [AbortOnDropHandle<()>; 3],
}

impl Bystanders {
    pub(crate) async fn begin(target: Target) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let mut players = Vec::new();
        for user in [1, 2] {
            let ticket = target.backend.ticket(DUEL, user).await;
            let join = Join::ticket(ticket).header("x-forwarded-for", "10.0.0.1");
            players.push(Player::join(&*target.hub, join).await);
        }
        let play = tokio::spawn(play(target.clone(), players, Arc::clone(&seen)));
        let come = |shared| tokio::spawn(come_in(target.clone(), shared, Arc::clone(&seen)));
        let acting = [play, come(false), come(true)].map(AbortOnDropHandle::new);
        Self { seen, _acting: acting }
    }

    /// Returns what they see from now on for so long.
    pub(crate) async fn seen_for(&self, time: Duration) -> Seen {
        drop(std::mem::take(&mut *self.seen.lock()));
        sleep(time).await;
        std::mem::take(&mut *self.seen.lock())
    }
}

/// Pushes, and both players wait for it.
async fn play(target: Target, mut players: Vec<Player>, seen: Arc<Mutex<Seen>>) {
    let mut ticks = interval(Duration::from_millis(20));
    loop {
        ticks.tick().await;
        let pushed_at = Instant::now();
        let seq = target.backend.push(DUEL, "{}").await;
        for player in &mut players {
            let waiting = player.until(|player| player.seqs().last() == Some(&seq));
            let came = timeout(PATIENCE, waiting).await.is_ok();
            let mut seen = seen.lock();
            seen.latencies.push(pushed_at.elapsed());
            seen.lost += u64::from(!came);
            player.events.clear();
        }
    }
}

/// New people come in, stay for a moment and go.
async fn come_in(target: Target, shared: bool, seen: Arc<Mutex<Seen>>) {
    let mut ticks = interval(Duration::from_millis(40));
    let first = 1000 + 100_000 * u64::from(shared);
    for user in first.. {
        ticks.tick().await;
        let own = format!("10.1.{}.{}", user / 250 % 250, user % 250);
        let address = if shared { SHARED.to_owned() } else { own };
        let ticket = target.backend.ticket(user, user).await;
        let join = Join::ticket(ticket).header("x-forwarded-for", address);
        let coming = async {
            let mut player = Player::try_knock(&*target.hub, join).await.ok()?;
            player.next().await.then_some(player)
        };
        let came = timeout(PATIENCE, coming).await;
        let came = matches!(came, Ok(Some(player)) if player.connected["type"] == "connected");
        let mut seen = seen.lock();
        let counts = if came { &mut seen.came_in } else { &mut seen.refused };
        counts[usize::from(shared)] += 1;
    }
}
