//! A schedule's steps, done to real nodes over a real engine.
//!
//! With several nodes, players come to one after the other, and so do the calls of a duel: those whose answers are awaited
//! together go to one node, because of calls to two nodes nobody can say which comes first. What one node does reaches
//! players on another in its time, so a check that must find it there waits for it.

mod backend;
mod entry;
mod restarts;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use duelhub::engine::Engine;
use duelhub::hub::CloseRequest;
use duelhub::id::{DuelId, UserId};
use duelhub::ticket::Tickets;
use duelhub_testkit::soon;

use self::backend::Call;
use crate::Tally;
use crate::check::{Violation, expect};
use crate::deployment::{Deployment, Environment, tickets};
use crate::devices::{Device, PLAYERS};
use crate::history::History;
use crate::ledger::Ledger;
use crate::node::Node;
use crate::schedule::{DUELS, Schedule, Step};
use crate::spec::Spec;

/// Between two looks at what a process does in its time.
const PAUSE: Duration = Duration::from_millis(1);

/// Everything.
pub(crate) struct World {
    deployment: Deployment,
    environment: Environment,
    nodes: Vec<Node>,
    /// Turns that nodes have had.
    turns: usize,
    /// By duel, the node to which its calls go.
    called: Vec<usize>,
    /// Looks at the logs where the nodes are processes.
    observer: Option<Arc<dyn Engine>>,
    connections_per_user_max: usize,
    tickets: Tickets,
    histories: Vec<History>,
    players: Vec<Device>,
    /// In their order.
    calls: Vec<Call>,
    ledger: Ledger,
    /// Whose connections may be thought to be there although a kill ended them, until its lease has.
    maybe_ghosts: HashSet<(usize, UserId)>,
    /// Who was disconnected: another node may hear of it when they have come back already.
    disconnected: HashSet<(usize, UserId)>,
    /// By whom, in which duel, up to where.
    acked: HashMap<(usize, UserId), u64>,
    tally: Tally,
}

impl World {
    pub(crate) async fn new(deployment: Deployment, schedule: &Schedule) -> Self {
        let environment = deployment.environment(schedule);
        let mut nodes = Vec::new();
        for node in 0..deployment.nodes() {
            nodes.push(environment.start(node).await);
        }
        let histories = (1..=DUELS as u64)
            .map(|id| History::new(DuelId::try_from(id).unwrap(), schedule.log_events_max));
        Self {
            deployment,
            observer: (deployment == Deployment::ThreeProcesses).then(|| environment.observer()),
            environment,
            nodes,
            turns: 0,
            called: vec![0; DUELS],
            connections_per_user_max: schedule.per_user_max,
            tickets: tickets(),
            histories: histories.collect(),
            players: (0..).zip(PLAYERS).map(|(at, who)| Device::new(who, at % 2 == 0)).collect(),
            calls: Vec::new(),
            ledger: Ledger::default(),
            maybe_ghosts: HashSet::new(),
            disconnected: HashSet::new(),
            acked: HashMap::new(),
            tally: Tally::new(),
        }
    }

    /// The node whose turn it is.
    fn turn(&mut self) -> usize {
        self.turns += 1;
        self.turns % self.nodes.len()
    }

    /// The node for the next call of this duel: another one, as soon as no answer is awaited.
    fn node_to_call(&mut self, duel: usize) -> usize {
        if self.is_quiet(duel) {
            self.called[duel] = self.turn();
        }
        self.called[duel]
    }

    /// What can look at the logs.
    fn engine(&self) -> Arc<dyn Engine> {
        self.observer.clone().or_else(|| self.nodes[0].engine()).expect("one of them is here")
    }

    /// A player's connection goes, and its node has told the others.
    async fn cut(&mut self, player: usize) {
        self.players[player].cut();
        let (duel, node) = (self.players[player].duel, self.players[player].node);
        self.left(duel, node).await;
    }

    /// Waits until a node has taken in which connections to a duel are there, and has told the others who left.
    async fn left(&mut self, duel: usize, node: usize) {
        let (id, nodes, players) = (self.histories[duel].duel, &self.nodes, &self.players);
        let taken_in = async {
            while nodes[node].connections(id).await != there(players, duel, node).count() {
                tokio::time::sleep(PAUSE).await;
            }
        };
        soon("connections are taken in", taken_in).await;
    }

    fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    /// Does one step; a restart leaves nothing of the world before, so it is handed through.
    pub(crate) async fn step(mut self, step: &Step) -> Result<Self, Violation> {
        match step.clone() {
            Step::Push { duel, spec, awaited } => {
                self.push(duel, &spec, awaited).await;
                if awaited {
                    self.settle(false).await?
                }
            }
            Step::PushAgain { duel, which, nth, same } => {
                let known = self.histories[duel].keyed(which).cloned();
                if let Some(known) = known {
                    let spec = if same { known } else { Spec { nth, ..known } };
                    self.push(duel, &spec, false).await;
                }
            }
            Step::Burst { duel, specs } => {
                for spec in &specs {
                    self.push(duel, spec, false).await;
                }
            }
            Step::Settle { backwards } => self.settle(backwards).await?,
            Step::Declare { duel } => self.declare(duel).await?,
            Step::Close { duel, outcome, last, awaited } => {
                self.close(duel, outcome, last.as_ref()).await?;
                if awaited {
                    self.settle(true).await?
                }
            }
            Step::Connect { player, resume, from_pocket } => {
                self.connect(player, resume, from_pocket).await?;
            }
            Step::Cut { player } => self.cut(player).await,
            Step::Read { player, batches } => {
                let (player, history, tally) = self.reader(player);
                for _ in 0..batches {
                    player.read(history, tally).await?;
                }
            }
            Step::CatchUp { player } => _ = self.catch_up(player).await?,
            Step::Ping { player } => self.ping(player)?,
            Step::Ack { player } => self.ack(player).await?,
            Step::Pocket { player } => self.pocket(player).await,
            Step::UseAgain { player } => self.use_again(player).await?,
            Step::Copy { player } => self.copy(player).await?,
            Step::Revoke { player, all } => self.revoke(player, all).await?,
            Step::Disconnect { player } => self.disconnect(player).await?,
            Step::Stranger { duel } => self.stranger(duel).await?,
            Step::Kill => self = self.restart(true).await?,
            Step::Restart => self = self.restart(false).await?,
        }
        Ok(self)
    }

    /// Everybody comes back and catches up; then the logs are looked through.
    pub(crate) async fn finish(mut self) -> Result<Tally, Violation> {
        self.settle(false).await?;
        for player in 0..self.players.len() {
            loop {
                let of = &self.players[player];
                if of.line.is_none() && of.position.is_some() {
                    self.connect(player, true, None).await?;
                }
                if self.catch_up(player).await? {
                    break;
                }
            }
        }
        for duel in 0..DUELS {
            self.check_log(duel).await?;
        }
        self.players.clear();
        for node in self.nodes {
            node.end(&self.environment.store, false).await;
        }
        Ok(self.tally)
    }

    /// A player reads everything that there must be by now: whether they did, or were sent away meanwhile.
    async fn catch_up(&mut self, at: usize) -> Result<bool, Violation> {
        let (player, history, tally) = self.reader(at);
        player.catch_up(history, tally).await?;
        if self.players[at].line.as_ref().is_none_or(|(line, _)| line.close_request().is_none()) {
            return Ok(true);
        }
        self.let_go(at)?;
        Ok(false)
    }

    /// A player takes their position from a pong, which says up to where they were served.
    fn ping(&mut self, player: usize) -> Result<(), Violation> {
        let (player, history, tally) = self.reader(player);
        player.pong(history, tally)
    }

    /// A player acks what they have; the hub knows the highest of the user's connections.
    async fn ack(&mut self, at: usize) -> Result<(), Violation> {
        let player = &mut self.players[at];
        let history = &self.histories[player.duel];
        let current = player.position.filter(|position| Some(position.epoch) == history.epoch);
        let (Some((line, _)), Some(position)) = (&mut player.line, current) else {
            return Ok(());
        };
        if !line.is_open() {
            return Ok(());
        }
        line.ack(position.seq).await;
        if line.close_request().is_some() {
            return self.let_go(at);
        }
        let user = player.viewer.user;
        let acked = self.acked.entry((player.duel, user)).or_default();
        *acked = (*acked).max(position.seq);
        let known = self.nodes[player.node].acked(history.duel, user).await;
        // Of a user who was away between, the nodes that are left remember nothing, or all of it.
        let as_expected = known.is_some_and(|known| (position.seq..=*acked).contains(&known));
        let as_expected = if self.nodes.len() == 1 { known == Some(*acked) } else { as_expected };
        // Who only fetches the end of a closed duel is not online, unless they are still thought to be from before.
        let as_expected = as_expected || history.outcome().is_some() && known <= Some(*acked);
        expect(as_expected, || format!("acked {known:?} instead of {acked}"))?;
        self.count("acked");
        Ok(())
    }

    /// A player was dismissed, which must be for something that came before and was heard late.
    fn let_go(&mut self, player: usize) -> Result<(), Violation> {
        let of = &mut self.players[player];
        let close_request = of.line.as_ref().and_then(|(line, _)| line.close_request());
        let who = (of.duel, of.viewer.user);
        let late = match &close_request {
            Some(CloseRequest::Replaced) => self.maybe_ghosts.contains(&who),
            Some(CloseRequest::Disconnected { .. }) => {
                self.nodes.len() > 1 && self.disconnected.contains(&who)
            }
            Some(CloseRequest::SessionEnded | CloseRequest::Restart { .. }) | None => false,
        };
        of.cut();
        self.count("heard late");
        expect(late, || format!("dismissed: {close_request:?}"))
    }

    fn reader(&mut self, player: usize) -> (&mut Device, &mut History, &mut Tally) {
        let player = &mut self.players[player];
        let history = &mut self.histories[player.duel];
        (player, history, &mut self.tally)
    }
}

/// The players who are connected to a duel on a node.
fn there(players: &[Device], duel: usize, node: usize) -> impl Iterator<Item = &Device> {
    let players = players.iter().filter(|player| player.open_line().is_some());
    players.filter(move |player| (player.duel, player.node) == (duel, node))
}
