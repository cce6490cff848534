//! The engines that there are, and what it is for each to be stopped, killed, and started again.

use std::sync::Arc;

use duelhub::config::{Durability, EngineConfig, RedisConfig, Secret, StoreConfig};
use duelhub::engine::{EmbeddedEngine, Engine, MemoryEngine, RedisEngine};
use tempfile::TempDir;

use crate::redis_server::{self, RedisServer};
use crate::until;

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Keeps nothing.
    Memory,
    /// Keeps everything in a directory.
    Embedded,
    /// Keeps everything in a Redis.
    Redis,
    /// The same, with several nodes on it.
    RedisNodes,
}

impl Kind {
    /// How many nodes there are.
    pub const fn nodes(self) -> usize {
        match self {
            Self::Memory | Self::Embedded | Self::Redis => 1,
            Self::RedisNodes => 3,
        }
    }

    /// Whether this machine has what it needs. What is not there is not tested; that is said once.
    pub fn is_here(self) -> bool {
        match self {
            Self::Memory | Self::Embedded => true,
            Self::Redis | Self::RedisNodes => redis_server::is_installed(),
        }
    }

    /// Whether what was answered outlives the engine.
    pub const fn is_durable(self) -> bool {
        match self {
            Self::Memory => false,
            Self::Embedded | Self::Redis | Self::RedisNodes => true,
        }
    }

    /// Whether every start begins a new epoch. On Redis it is Redis that orders the events, and goes on.
    pub const fn begins_an_epoch(self) -> bool {
        match self {
            Self::Memory | Self::Embedded => true,
            Self::Redis | Self::RedisNodes => false,
        }
    }
}

/// Where an engine of one kind keeps what it keeps. Outlives the engines opened in it.
#[derive(Debug)]
pub struct Store {
    /// Whose it is.
    pub kind: Kind,
    config: EngineConfig,
    directory: TempDir,
    redis: Option<RedisServer>,
}

impl Store {
    /// An empty one.
    pub fn new(kind: Kind, config: EngineConfig) -> Self {
        let on_redis = matches!(kind, Kind::Redis | Kind::RedisNodes);
        let redis = on_redis.then(|| RedisServer::start(&[]));
        Self { kind, config, directory: tempfile::tempdir().unwrap(), redis }
    }

    /// Where a node finds its Redis: there every node has a name of its own, so that what it has sent can be waited for.
    pub fn redis_url(&self, node: usize) -> String {
        let redis = self.redis.as_ref().unwrap();
        redis.ask(&format!("ACL SETUSER node{node} on nopass ~* &* +@all")).unwrap();
        format!("{}?user=node{node}&pass=any", redis.url())
    }

    /// Starts the engine of a node on what is there. Only Redis has more than one node at a time.
    pub fn open(&self, node: usize) -> Arc<dyn Engine> {
        match self.kind {
            Kind::Memory => Arc::new(MemoryEngine::new(self.config.clone())),
            Kind::Embedded => {
                let data_dir = self.directory.path().to_owned();
                let store = StoreConfig { data_dir, durability: Durability::Fsync };
                Arc::new(EmbeddedEngine::open(self.config.clone(), &store).unwrap())
            }
            Kind::Redis | Kind::RedisNodes => {
                let redis = RedisConfig {
                    url: Secret::new(self.redis_url(node)),
                    prefix: "test".to_owned(),
                    wait_replicas: 0,
                };
                Arc::new(RedisEngine::new(self.config.clone(), &redis).unwrap())
            }
        }
    }

    /// Stops the engine in good order: what is under way is stored.
    pub async fn stop(&self, node: usize, engine: Arc<dyn Engine>) {
        engine.stop().await.unwrap();
        self.kill(node, engine).await;
    }

    /// Ends the engine as a kill would: what is under way may be lost. The engine's own threads may hold it for another
    /// moment; that it is gone when this returns is what lets the next one be opened.
    pub async fn kill(&self, node: usize, engine: Arc<dyn Engine>) {
        until("nobody else holds the engine", async || Arc::strong_count(&engine) == 1).await;
        drop(engine);
        self.wait_until_gone(node).await;
    }

    /// Waits until a node that has ended is connected no more: what it has sent has been done.
    pub async fn wait_until_gone(&self, node: usize) {
        let Some(redis) = &self.redis else { return };
        let name = format!(" user=node{node} ");
        let gone = async || !redis.ask("CLIENT LIST").unwrap().contains(&name);
        until("it is connected no more", gone).await;
    }
}
