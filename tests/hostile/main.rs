//! Guests who are let in, or nearly, and misbehave: beside each of them people play, come in, and push, backends connect and watch,
//! and a probe asks whether the hub is ready, on the real binary as it is in production with its default limits.
//!
//! What is promised is checked: nobody else is refused, whoever shares the guest's address hardly ever, memory does not grow
//! by more than [`GROWN_MAX`], and two seconds later all is as before. How long the others wait is shown, not checked.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod attacks;
mod bystanders;
mod control_attacks;

use std::sync::Arc;
use std::time::Duration;

use duelhub_testkit::{Backend, Hub, Site, say};
use tokio::sync::Mutex;
use tokio_util::task::AbortOnDropHandle;

use self::bystanders::Bystanders;

/// How long a guest misbehaves.
const ATTACK: Duration = Duration::from_secs(4);

/// The address that guests come from, and some of the others.
const SHARED: &str = "6.6.6.6";

/// Of backends.
const TOKEN: &str = "a-token-of-16-bytes-or-more";

/// One at a time: the machine is small, and each is measured.
static ALONE: Mutex<()> = Mutex::const_new(());

/// What is attacked.
#[derive(Clone)]
struct Target {
    hub: Arc<Hub>,
    backend: Backend,
    /// Holds its directory.
    _site: Arc<Site>,
}

impl Target {
    async fn start() -> Self {
        let per_user = "WEBSOCKET_MAX_HANDSHAKES_PER_USER_PER_MINUTE";
        let site = Site::new().with(per_user, "60").with("CONTROL_TOKEN", TOKEN);
        let hub = site.start().await;
        let backend = Backend::with_token(&hub, TOKEN);
        Self { hub: Arc::new(hub), backend, _site: Arc::new(site) }
    }

    /// MiB of the hub (proc(5), `VmRSS`).
    fn resident(&self) -> u64 {
        let path = format!("/proc/{}/status", self.hub.pid().unwrap());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }
}

/// MiB that the hub may grow by while a guest misbehaves.
const GROWN_MAX: u64 = 64;

/// Has `attack` done `parallel` times over, beside bystanders.
async fn attacked<F>(name: &str, parallel: usize, attack: impl Fn(Target, usize) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let _alone = ALONE.lock().await;
    let target = Target::start().await;
    let bystanders = Bystanders::begin(target.clone()).await;
    let before = bystanders.seen_for(Duration::from_secs(1)).await;
    let resident = target.resident();
    let guests: Vec<_> = (0..parallel)
        .map(|nth| AbortOnDropHandle::new(tokio::spawn(attack(target.clone(), nth))))
        .collect();
    let during = bystanders.seen_for(ATTACK).await;
    let grown = target.resident().saturating_sub(resident);
    drop(guests);
    let recovering = bystanders.seen_for(Duration::from_secs(2)).await;
    let after = bystanders.seen_for(Duration::from_secs(1)).await;
    say(&format!(
        "{name}: pushes p99 {:?} before, {:?} during; came in {} and {} (same address), refused {} and {}; backends {} and {}, probes \
         {} and {}; {grown} MiB more",
        before.p99(),
        during.p99(),
        during.came_in[0],
        during.came_in[1],
        during.refused[0],
        during.refused[1],
        during.backends.served,
        during.backends.refused,
        during.probes.served,
        during.probes.refused,
    ));
    assert!(during.came_in[0] > 10, "{during:?}");
    assert_eq!(during.refused[0], 0, "from other addresses: {during:?}");
    assert!(during.refused[1] * 20 <= during.came_in[1], "behind the same address: {during:?}");
    assert!(during.backends.served > 10 && during.probes.served > 10, "{during:?}");
    assert_eq!(during.backends.refused + during.probes.refused, 0, "{during:?}");
    assert!(grown <= GROWN_MAX, "{grown} MiB more");
    assert_eq!(recovering.lost + during.lost, 0, "events");
    assert_eq!(recovering.watches_ended + during.watches_ended, 0, "watches");
    assert_eq!(after.refused, [0, 0], "two seconds later: {after:?}");
    assert_eq!(after.backends.refused + after.probes.refused, 0, "two seconds later: {after:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_player_who_reconnects_without_end() {
    attacked("40 chains of one user", 40, attacks::reconnect).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_player_who_comes_back_and_never_reads() {
    attacked("clients that never read", 3, attacks::never_read).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_without_a_ticket() {
    attacked("handshakes without a ticket", 48, attacks::knock).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_without_init_data() {
    attacked("ticket requests without initData", 16, attacks::ask_for_tickets).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_that_say_nothing() {
    attacked("silent sockets", 12, attacks::say_nothing).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_player_who_sends_without_end() {
    attacked("pongs without end", 2, attacks::send_pongs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_player_who_sends_fragments_without_end() {
    attacked("empty fragments without end", 2, attacks::send_fragments).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_with_long_paths() {
    attacked("long paths", 8, attacks::long_paths).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_that_say_nothing_to_the_control_plane() {
    attacked("silent sockets, control", 12, control_attacks::say_nothing_to_control).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_that_say_nothing_to_the_admin_listener() {
    attacked("silent sockets, admin", 12, control_attacks::say_nothing_to_admin).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_whose_messages_never_end() {
    let attack = control_attacks::send_half_messages;
    attacked("messages that never end", 4, attack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_watches_and_reads_nothing() {
    attacked("unread watches", 1, control_attacks::watch_unread).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_lists_and_reads_nothing() {
    attacked("unread lists", 1, control_attacks::list_unread).await;
}
