//! Three real processes, each in a network namespace of its own, and a real Redis: a cable is pulled, so that packets vanish
//! without a word, and plugged in again, while a backend pushes. Needs root.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use duelhub_testkit::redis_server::RedisServer;
use duelhub_testkit::{Backend, Hub, Player, Site, numbered, say, soon, until};
use parking_lot::Mutex;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status};

const NODES: usize = 3;
const DUELS: u64 = 3;

/// The node whose cables are pulled; the backend pushes to the others.
const CUT_OFF: usize = 1;
const OTHERS: [usize; 2] = [0, 2];
const ALL: [usize; NODES] = [0, 1, 2];

/// Who may call what is reached from elsewhere.
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// What a node has a cable to.
#[derive(Debug, Clone, Copy)]
enum Side {
    /// Players and backends.
    Front,
    /// Redis.
    Back,
}

impl Side {
    const fn name(self) -> &'static str {
        match self {
            Self::Front => "front",
            Self::Back => "back",
        }
    }
}

/// A switch for either side, and the nodes' namespaces, each with a cable to both. All gone when it is dropped.
#[derive(Debug)]
struct Network {
    /// What all names begin with. The kernel allows 15 characters.
    name: String,
    /// Of the addresses, the two in the middle.
    middle: [u8; 2],
    /// What removes what was made.
    removals: Vec<String>,
}

impl Network {
    /// `Err`: why there is none.
    fn build() -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (pid, nth) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // Of 10.0.0.0/8 the upper half, another part for every test and process, so that none meets another.
        let [_, _, high, low] = (pid * 2 + nth).to_be_bytes();
        let name = format!("dh{pid}x{nth}");
        let mut this = Self { name, middle: [high | 0x80, low], removals: Vec::new() };
        for side in [Side::Front, Side::Back] {
            let (switch, address) = (this.switch(side), this.here(side));
            this.make(&format!("link add {switch} type bridge"), format!("link del {switch}"))?;
            ip(&format!("addr add {address}/25 dev {switch}"))?;
            ip(&format!("link set {switch} up"))?;
        }
        for node in 0..NODES {
            this.add(node)?;
        }
        Ok(this)
    }

    fn make(&mut self, what: &str, removal: String) -> Result<(), String> {
        ip(what)?;
        self.removals.push(removal);
        Ok(())
    }

    fn add(&mut self, node: usize) -> Result<(), String> {
        let namespace = self.namespace(node);
        self.make(&format!("netns add {namespace}"), format!("netns del {namespace}"))?;
        ip(&format!("-n {namespace} link set lo up"))?;
        for side in [Side::Front, Side::Back] {
            let (cable, end, address) = (self.cable(side, node), side.name(), self.of(side, node));
            let pair = format!("link add {cable} type veth peer name {end} netns {namespace}");
            self.make(&pair, format!("link del {cable}"))?;
            ip(&format!("-n {namespace} addr add {address}/25 dev {end}"))?;
            ip(&format!("-n {namespace} link set {end} up"))?;
            ip(&format!("link set {cable} master {} up", self.switch(side)))?;
        }
        Ok(())
    }

    fn namespace(&self, node: usize) -> String {
        format!("{}n{node}", self.name)
    }

    fn switch(&self, side: Side) -> String {
        format!("{}{}", self.name, &side.name()[..1])
    }

    /// The end of a node's cable that is in the switch.
    fn cable(&self, side: Side, node: usize) -> String {
        format!("{}{node}", self.switch(side))
    }

    /// This machine's own address on one side.
    fn here(&self, side: Side) -> Ipv4Addr {
        let [high, low] = self.middle;
        Ipv4Addr::new(10, high, low, if matches!(side, Side::Front) { 1 } else { 129 })
    }

    /// A node's address.
    fn of(&self, side: Side, node: usize) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.here(side).to_bits() + 1 + u32::try_from(node).unwrap())
    }

    /// From now on what is sent either way vanishes, and nobody is told: at the switch's end, since a node would lose its route
    /// with its own end, and be told so.
    fn pull(&self, side: Side, node: usize) {
        ip(&format!("link set {} down", self.cable(side, node))).unwrap();
    }

    fn plug_in(&self, side: Side, node: usize) {
        ip(&format!("link set {} up", self.cable(side, node))).unwrap();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for removal in self.removals.iter().rev() {
            if let Err(why) = ip(removal) {
                say(&format!("it stays: {why}"));
            }
        }
    }
}

fn ip(line: &str) -> Result<(), String> {
    let output = Command::new("ip").args(line.split(' ')).output();
    let output = output.map_err(|error| format!("ip: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("ip {line}: {}", said.trim())) }
}

/// A node in its namespace, and a backend of it.
struct Node {
    hub: Hub,
    namespace: String,
    backend: Backend,
}

impl Node {
    async fn start(network: &Network, redis_url: &str, node: usize) -> Self {
        let (namespace, front) = (network.namespace(node), network.of(Side::Front, node));
        let mut site = Site::new();
        site.wrapper = ["ip", "netns", "exec", &namespace].map(str::to_owned).into();
        let hub = site
            .with("ENGINE", "redis")
            .with("REDIS_URL", redis_url)
            .with("WEBSOCKET_HOST", front.to_string())
            .with("CONTROL_HOST", front.to_string())
            .with("CONTROL_TOKEN", SECRET)
            // More than is pushed while a node is away, however slow this machine is.
            .with("ENGINE_MAX_LOG_EVENTS", "100000")
            .start()
            .await;
        let backend = Backend::with_token(&hub, SECRET);
        let this = Self { hub, namespace, backend };
        this.answers("/readyz", "200").await;
        this
    }

    /// What a program says that runs beside the hub.
    async fn beside(&self, words: &[&str]) -> String {
        let mut command = tokio::process::Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).args(words);
        let output = soon(words[0], command.output()).await.unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits until a path of the administration, which is reached from within alone, is answered with a status.
    async fn answers(&self, path: &str, status: &str) {
        let url = format!("http://{}{path}", self.hub.addresses.admin);
        let curl = ["curl", "-so", "/dev/null", "-w", "%{http_code}", &url];
        until(&format!("{path} is answered with {status}"), async || {
            self.beside(&curl).await == status
        })
        .await;
    }

    async fn refuses(&self, duel: u64, n: u64) {
        let status = push(&self.backend, duel, n).await.expect_err("Redis is out of reach");
        assert_eq!(status.code(), Code::Unavailable, "{status}");
    }

    /// Waits until the kernel sends no more of what was written to connections that have been closed since.
    async fn has_sent_all(&self) {
        until("all has been sent", async || {
            self.beside(&["ss", "-Htn", "state", "fin-wait-1"]).await.is_empty()
        })
        .await;
    }
}

/// Pushes a number: the seq.
async fn push(backend: &Backend, duel: u64, n: u64) -> Result<u64, Status> {
    let pushed = soon("an answer", backend.try_push(numbered(duel, n))).await?;
    Ok(pushed.position.unwrap().seq)
}

/// Pushes until it is answered, as a backend does: this machine may be slow.
async fn push_surely(backend: &Backend, duel: u64, n: u64) -> u64 {
    let pushing = async {
        loop {
            match push(backend, duel, n).await {
                Ok(seq) => return seq,
                Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("a push", pushing).await
}

/// Waits until the users online in every duel are those of these nodes.
async fn says_online(backend: &Backend, nodes: &[usize]) {
    for duel in 1..=DUELS {
        until(&format!("online are the users of {nodes:?}"), async || {
            let online = backend.duel(duel).await.online;
            online.iter().map(|user| user.user_id).eq(nodes.iter().map(|node| user_of(*node)))
        })
        .await;
    }
}

/// The user who sits on a node at first.
const fn user_of(node: usize) -> u64 {
    node as u64 + 1
}

/// What was acknowledged: by duel and seq, the number that was pushed.
#[derive(Debug, Clone, Default)]
struct Ledger(Arc<Mutex<BTreeMap<(u64, u64), u64>>>);

impl Ledger {
    fn note(&self, duel: u64, seq: u64, n: u64) {
        let before = self.0.lock().insert((duel, seq), n);
        assert!(before.is_none(), "{seq} was given to {before:?} and to {n}");
    }

    fn of(&self, duel: u64) -> BTreeMap<u64, u64> {
        let all = self.0.lock();
        all.range((duel, 0)..(duel + 1, 0)).map(|((_, seq), n)| (*seq, *n)).collect()
    }
}

/// Pushes all the while, to nodes that must not mind what happens to another one.
async fn push_on(nodes: Vec<Backend>, ledger: Ledger, enough: Arc<AtomicBool>) {
    for (n, node) in (1..).zip(nodes.iter().cycle()) {
        for duel in 1..=DUELS {
            ledger.note(duel, push_surely(node, duel, n).await, n);
        }
        if enough.load(Ordering::Relaxed) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// All that there is. It ends in this order: the nodes before their network.
struct Scene {
    pushing: AbortOnDropHandle<()>,
    enough: Arc<AtomicBool>,
    ledger: Ledger,
    /// Those who sit on a node at first, one for each duel.
    players: Vec<Vec<Player>>,
    nodes: Vec<Node>,
    _redis: RedisServer,
    network: Network,
}

impl Scene {
    /// Everything is well. `None`: this machine has no such networks.
    async fn begin() -> Option<Self> {
        let network = Network::build().inspect_err(|why| {
            say(&format!(
                "NOT TESTED: nodes with cables that are pulled, which needs root and network namespaces: {why}\n\
                 (tests/nodes/faults.rs has tested it with a proxy)"
            ));
        });
        let network = network.ok()?;
        let address = network.here(Side::Back).to_string();
        let redis = RedisServer::start(&["--bind", &address, "--requirepass", SECRET]);
        let url = format!("redis://:{SECRET}@{address}:{}", redis.port());
        let (mut nodes, mut players) = (Vec::new(), Vec::new());
        for index in ALL {
            let node = Node::start(&network, &url, index).await;
            let mut seats = Vec::new();
            for duel in 1..=DUELS {
                seats.push(node.backend.player(duel, user_of(index)).await);
            }
            nodes.push(node);
            players.push(seats);
        }
        let (ledger, enough) = (Ledger::default(), Arc::<AtomicBool>::default());
        let backends = OTHERS.map(|node| nodes[node].backend.clone()).to_vec();
        let pushing = tokio::spawn(push_on(backends, ledger.clone(), Arc::clone(&enough)));
        let pushing = AbortOnDropHandle::new(pushing);
        let mut this = Self { pushing, enough, ledger, players, nodes, _redis: redis, network };
        until("some are pushed", async || this.ledger.of(DUELS).len() > 10).await;
        for node in ALL {
            says_online(&this.nodes[node].backend, &ALL).await;
            this.hears(node).await;
        }
        Some(this)
    }

    /// The players of a node receive what is acknowledged by now, each event once and in order.
    async fn hears(&mut self, node: usize) {
        for (player, duel) in self.players[node].iter_mut().zip(1..) {
            let log = self.ledger.of(duel);
            let last = log.keys().last().copied().unwrap_or_default();
            player.until_events(usize::try_from(last).unwrap()).await;
            assert!(player.seqs().into_iter().eq(1..=player.events.len() as u64));
            for (seq, n) in log {
                let event = &player.events[usize::try_from(seq).unwrap() - 1];
                assert_eq!(event["payload"]["n"], n, "what was acknowledged as {seq}");
            }
        }
    }

    /// The connections of a node's players are open, both ways.
    async fn stays(&mut self, node: usize) {
        for player in &mut self.players[node] {
            player.ping().await;
        }
    }

    /// A node's players, who hear nothing any more, come back to another node from where they were.
    async fn moves(&mut self, from: usize, to: usize) {
        for player in std::mem::take(&mut self.players[from]) {
            let heard = player.events.clone();
            let mut back = player.rejoin(&self.nodes[to].hub).await;
            assert_eq!(back.connected["recovered"], true);
            back.events.splice(0..0, heard);
            self.players[from].push(back);
        }
    }

    /// Nothing more is pushed: everybody has everything and nothing else, and sees everybody online.
    async fn end(mut self) {
        self.enough.store(true, Ordering::Relaxed);
        soon("the last push", &mut self.pushing).await.unwrap();
        for node in ALL {
            self.hears(node).await;
            self.stays(node).await;
            for (player, duel) in self.players[node].iter_mut().zip(1..) {
                assert_eq!(player.events.len(), self.ledger.of(duel).len());
                player.until(|player| player.online.len() == NODES).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_redis_refuses_keeps_its_players_and_catches_up_by_itself() {
    let Some(mut scene) = Scene::begin().await else { return };
    scene.network.pull(Side::Back, CUT_OFF);
    // This one is sent, and nobody tries it again: what was refused must not turn up when the cable is back.
    scene.nodes[CUT_OFF].refuses(1, u64::MAX).await;
    scene.nodes[CUT_OFF].answers("/readyz", "503").await;
    scene.nodes[CUT_OFF].answers("/healthz", "200").await;
    scene.nodes[CUT_OFF].refuses(1, 0).await;
    for node in OTHERS {
        says_online(&scene.nodes[node].backend, &OTHERS).await;
        scene.hears(node).await;
    }
    scene.stays(CUT_OFF).await;
    scene.network.plug_in(Side::Back, CUT_OFF);
    scene.nodes[CUT_OFF].answers("/readyz", "200").await;
    let seq = push_surely(&scene.nodes[CUT_OFF].backend, 1, 0).await;
    scene.ledger.note(1, seq, 0);
    scene.hears(CUT_OFF).await;
    for node in OTHERS {
        says_online(&scene.nodes[node].backend, &ALL).await;
    }
    scene.nodes[CUT_OFF].has_sent_all().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn players_who_hear_nothing_from_their_node_miss_nothing_on_another() {
    let Some(mut scene) = Scene::begin().await else { return };
    scene.network.pull(Side::Front, CUT_OFF);
    for player in &mut scene.players[CUT_OFF] {
        assert!(timeout(Duration::from_secs(1), player.ping()).await.is_err(), "a pong came");
    }
    scene.moves(CUT_OFF, OTHERS[0]).await;
    scene.hears(CUT_OFF).await;
    scene.nodes[CUT_OFF].answers("/readyz", "200").await;
    scene.network.plug_in(Side::Front, CUT_OFF);
    for duel in 1..=DUELS {
        until("the node has noticed who has gone", async || {
            scene.nodes[CUT_OFF].backend.duel(duel).await.connections == 0
        })
        .await;
    }
    for node in ALL {
        says_online(&scene.nodes[node].backend, &ALL).await;
    }
    scene.end().await;
}
