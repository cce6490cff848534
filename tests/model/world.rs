//! A schedule's steps, done to a real hub over a real engine.

mod backend;
mod doors;
mod lives;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use duelhub::config::{EngineConfig, HubConfig, Secret, TicketConfig};
use duelhub::engine::Engine;
use duelhub::hub::Hub;
use duelhub::id::{DuelId, Jti, UserId};
use duelhub::metrics::Metrics;
use duelhub::ticket::Tickets;

use self::backend::Call;
use crate::Tally;
use crate::check::{Objection, ensure};
use crate::history::History;
use crate::players::{PLAYERS, Player};
use crate::schedule::{DUELS, Schedule, Step};
use crate::spec::Spec;
use crate::store::{Kind, Store};

/// One node's life.
struct Node {
    engine: Arc<dyn Engine>,
    hub: Arc<Hub>,
}

/// Everything.
pub(crate) struct World {
    kind: Kind,
    store: Store,
    hub_config: HubConfig,
    node: Node,
    tickets: Tickets,
    histories: Vec<History>,
    players: Vec<Player>,
    /// In their order.
    calls: Vec<Call>,
    spent: HashSet<Jti>,
    revoked: HashSet<Jti>,
    /// By whom, in which duel, up to where.
    acked: HashMap<(usize, UserId), u64>,
    tally: Tally,
}

impl Node {
    fn start(store: &Store, config: &HubConfig) -> Self {
        let engine = store.open();
        let hub = Hub::new(Arc::clone(&engine), config.clone(), Arc::new(Metrics::new()));
        Self { engine, hub }
    }
}

impl World {
    pub(crate) fn new(kind: Kind, schedule: &Schedule) -> Self {
        let hour = Duration::from_secs(3600);
        let engine_config = EngineConfig {
            duels_max: 100,
            log_events_max: schedule.log_events_max,
            log_bytes_max: 1024 * 1024,
            tickets_max: 10_000,
            closed_retention: hour,
            idle_retention: hour,
        };
        let hub_config = HubConfig {
            sync_interval: Duration::from_secs(1),
            connections_per_user_max: schedule.per_user_max,
            presence_grace: Duration::from_secs(3),
            watchers_max: 1,
        };
        let store = Store::new(kind, engine_config);
        let histories = (1..=DUELS as u64)
            .map(|id| History::new(DuelId::try_from(id).unwrap(), schedule.log_events_max));
        Self {
            kind,
            node: Node::start(&store, &hub_config),
            store,
            hub_config,
            tickets: Tickets::new(&TicketConfig {
                secret: Secret::random(),
                configured: true,
                secret_previous: None,
                ttl: hour,
                resume_ttl: hour,
            }),
            histories: histories.collect(),
            players: (0..).zip(PLAYERS).map(|(at, who)| Player::new(who, at % 2 == 0)).collect(),
            calls: Vec::new(),
            spent: HashSet::new(),
            revoked: HashSet::new(),
            acked: HashMap::new(),
            tally: Tally::new(),
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    /// Does one step; a restart leaves nothing of the world before, so it is handed through.
    pub(crate) async fn step(mut self, step: &Step) -> Result<Self, Objection> {
        match step.clone() {
            Step::Push { duel, spec, awaited } => {
                self.push(duel, &spec, awaited);
                if awaited {
                    self.settle(false).await?
                }
            }
            Step::PushAgain { duel, which, nth, same } => {
                let known = self.histories[duel].keyed(which).cloned();
                if let Some(known) = known {
                    self.push(duel, &if same { known } else { Spec { nth, ..known } }, false);
                }
            }
            Step::Burst { duel, specs } => {
                specs.iter().for_each(|spec| self.push(duel, spec, false))
            }
            Step::Settle { backwards } => self.settle(backwards).await?,
            Step::Declare { duel } => self.declare(duel).await?,
            Step::Close { duel, ending, last, awaited } => {
                self.close(duel, ending, last);
                if awaited {
                    self.settle(true).await?
                }
            }
            Step::Connect { player, resume, from_pocket } => {
                self.connect(player, resume, from_pocket).await?;
            }
            Step::Cut { player } => self.players[player].cut(),
            Step::Read { player, batches } => {
                let (player, history, tally) = self.reader(player);
                for _ in 0..batches {
                    player.read(history, tally).await?;
                }
            }
            Step::CatchUp { player } => {
                let (player, history, tally) = self.reader(player);
                player.catch_up(history, tally).await?;
            }
            Step::Ping { player } => self.ping(player)?,
            Step::Ack { player } => self.ack(player).await?,
            Step::Pocket { player } => self.pocket(player),
            Step::UseAgain { player } => self.use_again(player).await?,
            Step::Revoke { player, all } => self.revoke(player, all).await?,
            Step::Disconnect { player } => self.disconnect(player).await?,
            Step::Stranger { duel } => self.stranger(duel).await?,
            Step::Kill => self = self.restart(true).await?,
            Step::Restart => self = self.restart(false).await?,
        }
        Ok(self)
    }

    /// Everybody comes back and catches up; then the logs are looked through.
    pub(crate) async fn finish(mut self) -> Result<Tally, Objection> {
        self.settle(false).await?;
        for player in 0..self.players.len() {
            if self.players[player].line.is_none() && self.players[player].position.is_some() {
                self.connect(player, true, false).await?;
            }
            let (player, history, tally) = self.reader(player);
            player.catch_up(history, tally).await?;
        }
        for duel in 0..DUELS {
            self.check_log(duel).await?;
        }
        self.players.clear();
        let Node { engine, hub } = self.node;
        drop(hub);
        self.store.stop(engine).await;
        Ok(self.tally)
    }

    /// A player takes their position from a pong, which says up to where they were served.
    fn ping(&mut self, player: usize) -> Result<(), Objection> {
        let (player, history, tally) = self.reader(player);
        player.pong(history, tally)
    }

    /// A player acks what they have; the hub knows the highest of the user's connections.
    async fn ack(&mut self, player: usize) -> Result<(), Objection> {
        let player = &mut self.players[player];
        let history = &self.histories[player.duel];
        let current = player.position.filter(|position| Some(position.epoch) == history.epoch);
        let (Some((attachment, _)), Some(position)) = (&mut player.line, current) else {
            return Ok(());
        };
        attachment.ack(position.seq).await;
        let user = player.viewer.user;
        let acked = self.acked.entry((player.duel, user)).or_default();
        *acked = (*acked).max(position.seq);
        let view = self.node.hub.duel(history.duel).await.unwrap().expect("somebody is in it");
        let known = view.online.iter().find(|online| online.user == user);
        let known = known.map(|online| online.acked_seq);
        let what = format!("acked {known:?} instead of {acked}");
        ensure(known == Some(*acked), Objection::Unexpected(what))?;
        self.count("acked");
        Ok(())
    }

    fn reader(&mut self, player: usize) -> (&mut Player, &mut History, &mut Tally) {
        let player = &mut self.players[player];
        let history = &mut self.histories[player.duel];
        (player, history, &mut self.tally)
    }
}
