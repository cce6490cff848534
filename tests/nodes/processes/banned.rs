//! Whoever the backend throws out stays out: on nodes whose clocks differ, under load, however the player tries to come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use duelhub::pb;
use duelhub::server::Addresses;
use duelhub_testkit::redis_server::RedisServer;
use duelhub_testkit::{Backend, Join, Player, WallClock, numbered, soon};
use tokio::task::JoinSet;

use super::chaos::{sites, start};

const USERS: u64 = 1000;

/// As many are banned at a time.
const AT_ONCE: u64 = 25;

/// How long somebody who is out goes on to try.
const PATIENCE: Duration = Duration::from_millis(400);

/// A player who comes back at once, on one node after the other, by whatever ticket there is.
struct Guest {
    nodes: Arc<[Addresses]>,
    /// They were thrown out, and the backend knows it.
    is_out: Arc<AtomicBool>,
    /// How often they were let in.
    entries: Arc<AtomicU64>,
}

impl Guest {
    /// Comes in again and again. Returns how often that worked after they were thrown out.
    async fn come_back(self, mut unspent: Vec<String>) -> u64 {
        let (mut ticket, mut since, mut broke_in) = (unspent.pop().unwrap(), None, 0);
        for node in self.nodes.iter().cycle() {
            let was_out = self.is_out.load(Ordering::SeqCst);
            let mut player = Player::knock(node, Join::ticket(&ticket)).await;
            player.next().await;
            if player.connected.is_null() {
                // What was issued before may still do.
                ticket = unspent.pop().unwrap_or(ticket);
                tokio::time::sleep(Duration::from_millis(5)).await;
            } else {
                self.entries.fetch_add(1, Ordering::Relaxed);
                broke_in += u64::from(was_out);
                ticket = player.resume_ticket();
            }
            let out_since = *since.get_or_insert_with(tokio::time::Instant::now);
            if !was_out {
                since = None;
            } else if out_since.elapsed() > PATIENCE {
                break;
            }
        }
        broke_in
    }
}

/// Lets a player in, throws them out after a while, and returns how often they came in after that.
async fn ban(nodes: Arc<[Addresses]>, backends: [Backend; 2], user: u64) -> u64 {
    let duel = user / 2 + 1;
    let unspent = [backends[0].ticket(duel, user).await, backends[1].ticket(duel, user).await];
    let (is_out, entries) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let guest = Guest {
        nodes: Arc::clone(&nodes),
        is_out: Arc::clone(&is_out),
        entries: Arc::clone(&entries),
    };
    let guest = tokio::spawn(guest.come_back(unspent.into()));
    let some = 2 + user % 5;
    let coming = async {
        while entries.load(Ordering::Relaxed) < some {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    soon("the player comes and goes", coming).await;
    let by = &backends[usize::try_from(user % 2).unwrap()];
    by.revoke_user(duel, user).await;
    let request = pb::DisconnectRequest { duel_id: duel, user_id: user, ..Default::default() };
    by.client.clone().disconnect(request).await.unwrap();
    is_out.store(true, Ordering::SeqCst);
    let broke_in = soon("the player gives up", guest).await.unwrap();
    let fresh = backends[0].ticket(duel, user).await;
    let mut back = Player::knock(&nodes[1], Join::ticket(fresh)).await;
    back.next().await;
    assert_eq!(back.connected["type"], "connected", "who is forgiven comes in: {:?}", back.error);
    broke_in
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_thrown_out_stays_out_though_the_nodes_clocks_differ() {
    let redis = RedisServer::start(&[]);
    let mut sites = sites(&redis, 2);
    let clocks: Vec<_> = sites.iter_mut().map(WallClock::of).collect();
    clocks[1].set_ahead(5);
    let hubs = start(&sites).await;
    let nodes: Arc<[Addresses]> = hubs.iter().map(|hub| hub.addresses).collect();
    let backends = [Backend::connect(&hubs[0]).await, Backend::connect(&hubs[1]).await];
    // Load: each duel is played on.
    let mut load = JoinSet::new();
    for backend in backends.clone() {
        load.spawn(async move {
            for n in 1.. {
                for duel in 1..=AT_ONCE {
                    drop(backend.try_push(numbered(duel, n)).await);
                }
            }
        });
    }
    let mut broke_in = 0;
    for first in (1..=USERS).step_by(usize::try_from(AT_ONCE).unwrap()) {
        let mut banned = JoinSet::new();
        for user in first..first + AT_ONCE {
            banned.spawn(ban(Arc::clone(&nodes), backends.clone(), user));
        }
        broke_in += banned.join_all().await.into_iter().sum::<u64>();
    }
    assert_eq!(broke_in, 0, "of {USERS} who were thrown out");
}
