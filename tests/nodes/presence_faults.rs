//! Random traffic over three nodes, with faults and without: at every quiet moment what a watcher has put together, what every
//! node answers, and what is attached are one and the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use duelhub::event::Role;
use duelhub::hub::{Change, ChangeKind, Hub, WatchError, WatchFilter};
use duelhub::limits;
use duelhub::ticket::Ticket;
use futures_util::future::join_all;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use crate::kit::{DEADLINE, LocalPlayer, Node, id_of, resume_ticket, ticket, until, user};
use crate::proxy::{Proxy, Weather};
use crate::redis_server::RedisServer;

const DUELS: std::ops::RangeInclusive<u64> = 1..=8;
const USERS: std::ops::RangeInclusive<u64> = 1..=5;
const CONNECTIONS_MAX: usize = 3;

/// Who is online, by duel and user: as what, and up to where they acked.
type Picture = BTreeMap<(u64, u64), (Role, u64)>;

/// What a client of `WatchDuels` knows, who begins again when the watch ends.
#[derive(Default)]
struct Fold {
    picture: Picture,
    is_begun: bool,
    interruptions: usize,
    came: usize,
    came_again: usize,
}

impl Fold {
    fn begun(&self) -> Option<Picture> {
        self.is_begun.then(|| self.picture.clone())
    }

    fn take(&mut self, Change { duel, initial, kind }: Change) {
        let key = |user: duelhub::id::UserId| (duel.get(), user.get());
        match kind {
            ChangeKind::Online(viewer, _) => {
                let known = self.picture.entry(key(viewer.user));
                let again = matches!(&known, std::collections::btree_map::Entry::Occupied(known)
                    if known.get().0 == viewer.role);
                self.came += usize::from(!initial);
                self.came_again += usize::from(again && !initial);
                known.or_insert((viewer.role, 0)).0 = viewer.role;
            }
            ChangeKind::Offline(user, _) => drop(self.picture.remove(&key(user))),
            ChangeKind::Acked(user, seq) => {
                let known = self.picture.get_mut(&key(user));
                known.into_iter().for_each(|(_, acked)| *acked = seq.max(*acked));
            }
            ChangeKind::Opened(_) | ChangeKind::Closed(..) | ChangeKind::SessionEnded(_) => {}
        }
    }

    async fn follow(fold: Arc<Mutex<Self>>, hub: Arc<Hub>) {
        loop {
            let _ended = Self::follow_once(&fold, &hub).await;
            fold.lock().is_begun = false;
            fold.lock().interruptions += 1;
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn follow_once(fold: &Mutex<Self>, hub: &Arc<Hub>) -> Result<(), WatchError> {
        let mut watch = hub.watch(WatchFilter::All)?;
        let (mut after, mut state) = (None, Vec::new());
        loop {
            let (changes, _, next) = watch.state(after).await?;
            state.extend(changes);
            let Some(next) = next else { break };
            after = Some(next);
        }
        {
            let mut fold = fold.lock();
            fold.picture.clear();
            state.into_iter().for_each(|change| fold.take(change));
            fold.is_begun = true;
        }
        loop {
            let change = watch.next().await?;
            fold.lock().take(change);
        }
    }
}

struct World {
    random: StdRng,
    redis: RedisServer,
    nodes: Vec<Node>,
    players: Vec<Attached>,
    fold: Arc<Mutex<Fold>>,
    pushes: u64,
    /// How often a session was taken over.
    takeovers: u64,
    _fold: AbortOnDropHandle<()>,
}

struct Attached {
    player: LocalPlayer,
    node: usize,
    duel: u64,
    user: u64,
    ticket: Ticket,
    has_to_go: bool,
}

impl World {
    async fn new(seed: u64) -> Self {
        let redis = RedisServer::start(&[]);
        let nodes: Vec<_> = (0..3).map(|_| Node::on(&redis)).collect();
        for node in &nodes {
            node.ready().await;
        }
        let fold = Arc::<Mutex<Fold>>::default();
        let following = Fold::follow(Arc::clone(&fold), Arc::clone(&nodes[0].hub));
        let random = StdRng::seed_from_u64(seed);
        let _fold = AbortOnDropHandle::new(tokio::spawn(following));
        let (players, pushes, takeovers) = (Vec::new(), 0, 0);
        Self { random, redis, nodes, players, fold, pushes, takeovers, _fold }
    }

    /// Some connections come, at the same time, on any nodes.
    async fn come(&mut self) {
        let count = self.random.random_range(1..=4);
        let who: Vec<_> = (0..count)
            .map(|_| {
                let node = self.random.random_range(0..self.nodes.len());
                (node, self.random.random_range(DUELS), self.random.random_range(USERS))
            })
            .collect();
        let coming = who.into_iter().map(async |(node, duel, user)| {
            let ticket = ticket(duel, user);
            let player = self.nodes[node].enter_by(&ticket, None).await.ok()?;
            Some(Attached { player, node, duel, user, ticket, has_to_go: false })
        });
        let came = join_all(coming).await;
        self.players.extend(came.into_iter().flatten());
    }

    /// A client whose network is dead comes back elsewhere in its session, sometimes twice with one ticket since the first welcome was
    /// lost. The connection that it had before is still there.
    async fn take_over(&mut self) {
        let Some(at) = (0..self.players.len()).choose(&mut self.random) else { return };
        let before = &self.players[at].ticket;
        let next = resume_ticket(before, before.generation.number + 1);
        for _ in 0..self.random.random_range(1..=2) {
            let node = self.random.random_range(0..self.nodes.len());
            let Ok(player) = self.nodes[node].enter_by(&next, None).await else { return };
            let session = next.generation.session;
            let mine = self.players.iter_mut().filter(|p| p.ticket.generation.session == session);
            mine.for_each(|older| older.has_to_go = true);
            self.takeovers += 1;
            let (duel, user) = (next.duel.get(), next.viewer.user.get());
            let ticket = next.clone();
            self.players.push(Attached { player, node, duel, user, ticket, has_to_go: false });
        }
    }

    fn go(&mut self) {
        for _ in 0..self.random.random_range(1..=4) {
            if !self.players.is_empty() {
                let at = self.random.random_range(0..self.players.len());
                drop(self.players.swap_remove(at));
            }
        }
    }

    /// What was pushed somebody acks.
    async fn ack(&mut self) {
        let Some(at) = (0..self.players.len()).choose(&mut self.random) else { return };
        let duel = self.players[at].duel;
        self.pushes += 1;
        if self.nodes[0].push(duel, self.pushes).await.is_err() {
            return;
        }
        let attachment = &mut self.players[at].player.attachment;
        while attachment.next().await.is_ok_and(|batch| !batch.is_empty()) {}
        attachment.ack(attachment.served_seq()).await;
    }

    async fn disconnect(&mut self) {
        let (duel, id) = (self.random.random_range(DUELS), self.random.random_range(USERS));
        let node = &self.nodes[self.random.random_range(0..self.nodes.len())];
        let whom = self.random.random_bool(0.8).then_some(id);
        let done = node.hub.disconnect(id_of(duel), whom.map(user), true, None).await;
        for player in &mut self.players {
            let meant = player.duel == duel && whom.is_none_or(|id| player.user == id);
            player.has_to_go |= meant && done.is_ok();
        }
    }

    async fn play(&mut self, steps: usize) {
        for _ in 0..steps {
            match self.random.random_range(0..20) {
                0..6 => self.come().await,
                6..8 => self.take_over().await,
                8..16 => self.go(),
                16..19 => self.ack().await,
                _ => self.disconnect().await,
            }
            self.reap().await;
            let pause = self.random.random_range(0..60);
            sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Who was asked to go goes, as sockets do.
    async fn reap(&mut self) {
        let mut stay = Vec::new();
        for mut attached in self.players.drain(..) {
            let served = attached.player.attachment.next().await.is_ok();
            if served && attached.player.attachment.close_request().is_none() {
                stay.push(attached);
            }
        }
        self.players = stay;
    }

    async fn fail(&mut self) {
        match self.random.random_range(0..4) {
            0 => {
                self.redis.signal("STOP");
                let stopped = Duration::from_millis(self.random.random_range(1000..3000));
                let until = Instant::now() + stopped;
                while Instant::now() < until {
                    self.go();
                    let _in_vain = tokio::time::timeout_at(until, self.come()).await;
                }
                self.redis.signal("CONT");
            }
            1 => {
                self.redis.kill();
                self.play(3).await;
                self.redis.start_again();
            }
            2 => drop(self.redis.ask("FLUSHALL").unwrap()),
            _ => drop(self.redis.ask_count("CLIENT KILL TYPE pubsub")),
        }
    }

    /// Another node takes the place of one that is killed. Whoever watches is on the first.
    fn kill_a_node(&mut self) {
        let at = self.random.random_range(1..self.nodes.len());
        // The node first, so that nothing is said of its players.
        self.nodes[at] = Node::on(&self.redis);
        self.players.retain(|player| player.node != at);
    }

    /// How what is attached, the nodes and the watcher differ, if they do.
    async fn difference(&self) -> Option<String> {
        let attached: BTreeMap<_, _> =
            self.players.iter().map(|player| ((player.duel, player.user), ())).collect();
        let online: Vec<_> = attached.keys().copied().collect();
        let late = self.players.iter().filter(|player| player.has_to_go).count();
        let of =
            |(duel, user)| self.players.iter().filter(|p| (p.duel, p.user) == (duel, user)).count();
        if late > 0 || online.iter().any(|key| of(*key) > CONNECTIONS_MAX) {
            return Some(format!(
                "{late} have to go; connections: {:?}",
                online.iter().map(|key| of(*key))
            ));
        }
        let fold = self.fold.lock().begun();
        let Some(fold) = fold else { return Some("nobody watches".to_owned()) };
        if !fold.keys().copied().eq(online.iter().copied()) {
            return Some(format!("attached {online:?}, watched {fold:?}"));
        }
        for (node, nth) in self.nodes.iter().zip(0..) {
            let mut picture = Picture::new();
            for duel in DUELS {
                let Ok(Some(view)) = node.hub.duel(id_of(duel)).await else {
                    return Some(format!("node {nth} does not answer"));
                };
                let users = view.online.into_iter();
                picture.extend(users.map(|o| ((duel, o.user.get()), (o.role, o.acked_seq))));
            }
            if picture != fold {
                return Some(format!("watched {fold:?}, node {nth} {picture:?}"));
            }
        }
        None
    }

    /// Nothing happens any more: everything is the same, soon.
    async fn rest(&mut self, within: Duration) {
        self.pushes += 1;
        for duel in DUELS {
            // After a flush the duel has to come into being again.
            self.nodes[0].push_surely(duel, self.pushes).await;
        }
        let started = Instant::now();
        loop {
            self.reap().await;
            let Some(difference) = self.difference().await else { break };
            assert!(started.elapsed() < within, "{difference}");
            sleep(Duration::from_millis(50)).await;
        }
        self.welcome().await;
    }

    /// Who enters anywhere is told the same.
    async fn welcome(&mut self) {
        let (duel, user) = (self.random.random_range(DUELS), *USERS.end() + 1);
        let node = self.random.random_range(0..self.nodes.len());
        // Its subscriber may not be back yet.
        let ticket = ticket(duel, user);
        let Ok(player) = self.nodes[node].enter_by(&ticket, None).await else { return };
        let there = self.players.iter().filter(|player| player.duel == duel);
        let online: BTreeSet<_> = there.map(|player| player.user).chain([user]).collect();
        assert!(player.online.iter().map(|user| user.get()).eq(online), "{:?}", player.online);
        self.players.push(Attached { player, node, duel, user, ticket, has_to_go: false });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_fault_nobody_comes_who_is_there() {
    let mut world = World::new(1).await;
    world.rest(DEADLINE).await;
    for _ in 0..12 {
        world.play(25).await;
        world.rest(DEADLINE).await;
    }
    let fold = world.fold.lock();
    assert_eq!((fold.interruptions, fold.came_again), (0, 0), "{} came", fold.came);
    assert!(fold.came > 100, "only {} came", fold.came);
    assert!(world.takeovers > 10, "only {} sessions were taken over", world.takeovers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_failed_everybody_knows_who_is_online() {
    let worlds = (2..=4).map(async |seed| {
        let mut world = World::new(seed).await;
        for _ in 0..6 {
            world.play(10).await;
            world.fail().await;
            world.play(5).await;
            world.rest(DEADLINE).await;
            world.play(5).await;
            world.rest(DEADLINE).await;
        }
        world.kill_a_node();
        world.play(5).await;
        world.rest(3 * limits::NODE_LEASE).await;
        assert!(world.takeovers > 0, "no session was taken over");
    });
    join_all(worlds).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_users_of_a_node_that_is_killed_at_a_flush_go_offline() {
    let mut world = World::new(5).await;
    let killed = Node::on(&world.redis);
    let ghost = killed.player(1, 9).await;
    world.play(20).await;
    world.redis.ask("FLUSHALL").unwrap();
    let since = Instant::now();
    // Long enough for it to write its part again.
    sleep(Duration::from_millis(900)).await;
    drop((killed, ghost));
    world.rest(2 * limits::NODE_LEASE).await;
    assert!(since.elapsed() < 2 * limits::NODE_LEASE, "{:?}", since.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whenever_after_a_flush_a_node_is_killed_its_users_go_offline() {
    // What it has written of itself again by then: nothing, its users, its lease.
    let delays = [0, 30, 300, 600, 1200, 2500].map(Duration::from_millis);
    let killing = delays.map(async |delay| {
        let redis = RedisServer::start(&[]);
        let nodes = [Node::on(&redis), Node::on(&redis)];
        let network = Proxy::to(redis.port()).await;
        let killed = Node::at(network.url());
        let mut beside = nodes[0].player(7, 1).await;
        let _ghosts = [killed.player(7, 2).await, killed.player(8, 3).await];
        let fold = Arc::<Mutex<Fold>>::default();
        let following = Fold::follow(Arc::clone(&fold), Arc::clone(&nodes[1].hub));
        let _following = AbortOnDropHandle::new(tokio::spawn(following));
        let watched = |duel, user| {
            fold.lock().begun().is_some_and(|picture| picture.contains_key(&(duel, user)))
        };
        until("watched", async || watched(7, 2) && watched(8, 3)).await;
        redis.ask("FLUSHALL").unwrap();
        let since = Instant::now();
        sleep(delay).await;
        network.set(Weather::Cut);
        beside.sees(2, false).await;
        nodes[0].push_surely(7, 1).await;
        nodes[1].push_surely(8, 1).await;
        until("unwatched", async || {
            let online = [nodes[0].online(7).await, nodes[1].online(8).await];
            online == [vec![1], vec![]] && watched(7, 1) && !watched(7, 2) && !watched(8, 3)
        })
        .await;
        assert!(since.elapsed() < 2 * limits::NODE_LEASE, "{delay:?}: {:?}", since.elapsed());
    });
    join_all(killing).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_there_before_a_disconnect_goes_and_who_comes_after_it_stays() {
    let redis = RedisServer::start(&[]);
    let nodes = [Node::on(&redis), Node::on(&redis)];
    for duel in 1..=20 {
        let there = join_all(nodes.iter().map(|node| node.player(duel, 1))).await;
        nodes[0].hub.disconnect(id_of(duel), None, true, None).await.unwrap();
        // The other node may not have read of it yet.
        let later = nodes[1].player(duel, 2).await;
        for mut player in there {
            assert_eq!(player.closed().await, None, "it was there");
        }
        assert_eq!(later.attachment.close_request(), None, "it was not");
    }
}
