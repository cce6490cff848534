//! What a schedule is run against: an engine, how many nodes, and whether they are real processes.

use std::sync::Arc;
use std::time::Duration;

use duelhub::config::{EngineConfig, HubConfig, Secret, TicketConfig};
use duelhub::engine::Engine;
use duelhub::ticket::Tickets;
use duelhub_testkit::Site;
use duelhub_testkit::store::{Kind, Store};

use crate::node::{LocalNode, Node, ProcessNode};
use crate::schedule::Schedule;

/// Long enough that nothing is forgotten while a schedule lasts.
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// What signs the tickets, also where a node is a process.
const SECRET: &str = "a secret that the model and its nodes share";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deployment {
    OneNode(Kind),
    /// On one Redis.
    ThreeNodes,
    /// On one Redis, with the real protocols between.
    ThreeProcesses,
}

/// Where the nodes live, and what they start with again after they have ended.
#[derive(Debug)]
pub(crate) struct Environment {
    pub(crate) store: Store,
    hub_config: HubConfig,
    /// By node, for those that are processes.
    sites: Vec<Site>,
    several: bool,
}

impl Deployment {
    pub(crate) const fn kind(self) -> Kind {
        match self {
            Self::OneNode(kind) => kind,
            Self::ThreeNodes | Self::ThreeProcesses => Kind::RedisNodes,
        }
    }

    pub(crate) const fn nodes(self) -> usize {
        self.kind().nodes()
    }

    /// Schedules under way at a time: enough to fill the pauses in which one waits, and no more processes than two cores carry.
    pub(crate) const fn at_a_time(self) -> usize {
        match self {
            Self::OneNode(_) | Self::ThreeNodes => 8,
            Self::ThreeProcesses => 2,
        }
    }

    pub(crate) fn environment(self, schedule: &Schedule) -> Environment {
        let hub_config = HubConfig {
            sync_interval: Duration::from_secs(1),
            connections_per_user_max: schedule.per_user_max,
            presence_grace: Duration::from_secs(3),
            watchers_max: 1,
            drain: Duration::ZERO,
            restart_gap: Duration::ZERO,
            reconnects_per_second: 1_000_000,
        };
        let store = Store::new(self.kind(), engine_config(schedule));
        let sites = match self {
            Self::OneNode(_) | Self::ThreeNodes => Vec::new(),
            Self::ThreeProcesses => {
                (0..self.nodes()).map(|node| site(schedule, store.redis_url(node))).collect()
            }
        };
        Environment { store, hub_config, sites, several: self.nodes() > 1 }
    }
}

impl Environment {
    /// Something that looks at what the nodes have stored.
    pub(crate) fn observer(&self) -> Arc<dyn Engine> {
        let engine = self.store.open(self.sites.len());
        engine.connect(Box::new(|_notice| 0));
        engine
    }

    pub(crate) async fn start(&self, node: usize) -> Node {
        match self.sites.get(node) {
            None => Node::Local(Box::new(LocalNode::start(
                node,
                &self.store,
                self.hub_config.clone(),
                self.several,
            ))),
            Some(site) => Node::Process(Box::new(ProcessNode::start(node, site).await)),
        }
    }
}

fn engine_config(schedule: &Schedule) -> EngineConfig {
    EngineConfig {
        duels_max: 100,
        log_events_max: schedule.log_events_max,
        log_bytes_max: 1024 * 1024,
        tickets_max: 10_000,
        resume_ttl: HOUR,
        closed_retention: HOUR,
        idle_retention: HOUR,
    }
}

/// The same for a process.
fn site(schedule: &Schedule, redis_url: String) -> Site {
    Site::new()
        .with("ENGINE", "redis")
        .with("REDIS_URL", redis_url)
        .with("REDIS_PREFIX", "test")
        .with("WEBSOCKET_TICKET_SECRET", SECRET)
        .with("WEBSOCKET_MAX_CONNECTIONS_PER_USER", schedule.per_user_max.to_string())
        .with("WEBSOCKET_SYNC_INTERVAL", "1")
        .with("ENGINE_MAX_LOG_EVENTS", schedule.log_events_max.to_string())
        .with("PRESENCE_GRACE_SECONDS", "3")
}

/// What signs tickets as every node does.
pub(crate) fn tickets() -> Tickets {
    Tickets::new(&TicketConfig {
        secret: Secret::new(SECRET.to_owned()),
        configured: true,
        secret_previous: None,
        ttl: HOUR,
        resume_ttl: HOUR,
    })
}
