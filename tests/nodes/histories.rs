//! Random histories of one Redis after another, with pushes lost and players who saw them: whoever is told `recovered` has
//! seen exactly what the log holds, from its first event on.

use duelhub::engine::Page;
use duelhub::event::{Content, Position};
use duelhub::hub::Recovery;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::timeout;

use crate::kit::{DEADLINE, LocalPlayer, Node, id_of, nth_of, until};
use crate::proxy::{Proxy, Weather};
use crate::redis_server::RedisServer;

const DUELS: std::ops::RangeInclusive<u64> = 1..=4;
const OPTIONS: &[&str] = &["--appendonly", "yes", "--repl-diskless-sync-delay", "0"];

/// Two nodes, whichever Redis is there for them, and a player of each duel.
struct World {
    random: StdRng,
    redis: RedisServer,
    /// It began as a replica, so it would again.
    promoted: bool,
    network: Proxy,
    nodes: [Node; 2],
    clients: Vec<Client>,
    pushes: u64,
    recovered: usize,
    not_recovered: usize,
}

/// A player, and the numbers of all updates of the duel that they know of, from the first on.
struct Client {
    duel: u64,
    position: Option<Position>,
    player: Option<LocalPlayer>,
    known: Vec<u64>,
}

impl Client {
    /// Reads some of what there is, or finds out that the connection is no good any more.
    async fn look(&mut self, up_to: u64) {
        let Some(player) = &mut self.player else { return };
        let reading = async {
            while player.position.seq < up_to {
                match player.read().await {
                    Ok(seen) => self.known.extend(seen),
                    Err(_) => return false,
                }
            }
            true
        };
        let good = timeout(DEADLINE, reading).await.expect("what was pushed never came");
        self.position = Some(player.position);
        if !good {
            self.player = None;
        }
    }
}

impl World {
    async fn new(seed: u64) -> Self {
        let redis = RedisServer::start(OPTIONS);
        let network = Proxy::to(redis.port()).await;
        let nodes = [Node::at(network.url()), Node::at(network.url())];
        let client = |duel| Client { duel, position: None, player: None, known: Vec::new() };
        Self {
            random: StdRng::seed_from_u64(seed),
            redis,
            promoted: false,
            network,
            nodes,
            clients: DUELS.map(client).collect(),
            pushes: 0,
            recovered: 0,
            not_recovered: 0,
        }
    }

    /// A few pushes to each duel, by either node, of which the players look at as many as they like.
    async fn play(&mut self) {
        for client in &mut self.clients {
            let mut head = 0;
            for _ in 0..self.random.random_range(0..4) {
                self.pushes += 1;
                let node = &self.nodes[self.random.random_range(0..2)];
                head = node.push_surely(client.duel, self.pushes).await.position.seq;
            }
            let looked = client.position.map_or(0, |position| position.seq);
            client.look(self.random.random_range(looked.min(head)..=head)).await;
        }
    }

    /// Redis is killed, and starts again on what it has on the disk; or a replica that did not hear of everything follows.
    async fn lose_redis(&mut self) {
        if !self.promoted && self.random.random() {
            self.network.set(Weather::Cut);
            self.redis.kill();
            self.redis.start_again();
            self.network.set(Weather::Fine);
            return;
        }
        let master = format!("127.0.0.1 {}", self.redis.port());
        let replica = RedisServer::start(&[OPTIONS, &["--replicaof", &master]].concat());
        until("replicated", async || self.redis.ask_count("WAIT 1 1000") == 1).await;
        self.play().await;
        assert_eq!(self.redis.ask_count("WAIT 1 20000"), 1);
        replica.ask("REPLICAOF NO ONE").unwrap();
        self.play().await;
        self.redis.kill();
        self.network.lead_to(replica.port());
        (self.redis, self.promoted) = (replica, true);
    }

    /// Everybody comes back, and has everything that the log has; who is told so without the state in between.
    async fn come_back(&mut self) {
        for client in &mut self.clients {
            client.player = None;
            let node = &self.nodes[self.random.random_range(0..2)];
            let player = match client.position {
                Some(position) => node.back(client.duel, 1, position).await,
                None => node.player(client.duel, 1).await,
            };
            let at = player.position;
            match player.recovery {
                Recovery::Recovered => self.recovered += 1,
                Recovery::NotRecovered | Recovery::Fresh => {
                    self.not_recovered += usize::from(player.recovery == Recovery::NotRecovered);
                    client.known = log(node, client.duel, at).await;
                    client.known.truncate(usize::try_from(at.seq).unwrap());
                }
            }
            (client.player, client.position) = (Some(player), Some(at));
            let log = log(node, client.duel, at).await;
            client.look(log.len() as u64).await;
            assert_eq!(client.known, log, "duel {}, from {at:?} on", client.duel);
        }
    }
}

/// The numbers of all updates of a duel.
async fn log(node: &Node, duel: u64, at: Position) -> Vec<u64> {
    let page = node.engine.read(id_of(duel), Position { seq: 0, ..at }, 1000).await.unwrap();
    let Page::Events(events) = page else { panic!("the log has all events") };
    let numbers = events.iter().map(|event| match &event.content {
        Content::Pushed(push) => nth_of(push),
        Content::Closed(_) => unreachable!("no duel is closed"),
    });
    numbers.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_recovered_has_seen_what_the_log_holds() {
    let (mut recovered, mut not_recovered) = (0, 0);
    for seed in 1..=3 {
        let mut world = World::new(seed).await;
        world.come_back().await;
        for _ in 0..6 {
            world.play().await;
            world.lose_redis().await;
            world.play().await;
            world.come_back().await;
        }
        recovered += world.recovered;
        not_recovered += world.not_recovered;
    }
    assert!(recovered > 10 && not_recovered > 10, "{recovered} to {not_recovered}");
}
