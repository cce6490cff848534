//! Which nodes live: each has a lease, by Redis' own clock, which it renews while it lives.
//!
//! A node is gone once it was heard of before a heartbeat was sent and is not among the living that the heartbeat answers. A node
//! that finds its own lease ended or missing judges nobody for the time of one lease: Redis itself may have been away, and with it
//! everybody's leases.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::info;

use super::command_pool::CommandPool;
use super::keys::Keys;
use super::reply::{self, Parts, understood};
use super::script::{self, Args as _, HEARTBEAT, millis};
use crate::engine::EngineError;
use crate::limits;

/// Nodes that are known to be gone. Beyond it all of them are forgotten, and judged again when they are heard of.
const GONE_MAX: usize = 1024;

/// This node's lease, and what is known of the other nodes.
#[derive(Debug)]
pub(super) struct Membership {
    commands: Arc<CommandPool>,
    keys: Arc<Keys>,
    nodes: Mutex<Nodes>,
}

#[derive(Debug)]
struct Nodes {
    /// As of the last heartbeat.
    alive: HashSet<Box<str>>,
    /// Heard of since then, or not judged yet. Each is of a process that was among the living once.
    unknown: HashSet<Box<str>>,
    gone: HashSet<Box<str>>,
    judges_from: Instant,
}

/// What a heartbeat brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Beat {
    /// This node's lease had ended: others may have evicted it.
    pub(super) had_lapsed: bool,
    /// Other nodes are gone than before.
    pub(super) news: bool,
}

impl Membership {
    pub(super) fn new(commands: Arc<CommandPool>, keys: Arc<Keys>) -> Arc<Self> {
        let nodes = Nodes {
            alive: HashSet::new(),
            unknown: HashSet::new(),
            gone: HashSet::new(),
            judges_from: Instant::now(),
        };
        Arc::new(Self { commands, keys, nodes: Mutex::new(nodes) })
    }

    /// Renews the lease.
    pub(super) async fn beat(&self, lease: Duration) -> Result<Beat, EngineError> {
        let heard = self.nodes.lock().unknown.clone();
        let command = script::call(&HEARTBEAT, &[self.keys.nodes()]).with(&self.keys.node);
        let value = self.commands.reply_to(command.with(millis(lease))).await?;
        let read = || {
            let mut parts = Parts::of(value)?;
            let had_lapsed = parts.number()? == 0;
            Ok((had_lapsed, parts.parts()?.each(reply::text)?))
        };
        let (had_lapsed, alive) = understood(read())?;
        let alive = alive.into_iter().map(Into::into).collect();
        let news = self.nodes.lock().take(had_lapsed, heard, alive, Instant::now());
        Ok(Beat { had_lapsed, news })
    }

    /// Shortens the lease, so that who does not come back elsewhere is soon offline.
    pub(super) async fn end(&self) {
        let _unreachable = self.beat(limits::NODE_LEASE / 3).await;
    }

    /// Whether a node that was heard of is gone.
    pub(super) fn is_gone(&self, node: &str) -> bool {
        self.nodes.lock().is_gone(node)
    }
}

impl Nodes {
    fn is_gone(&mut self, node: &str) -> bool {
        if self.gone.contains(node) {
            return true;
        }
        if !self.alive.contains(node) && !self.unknown.contains(node) {
            self.unknown.insert(node.into());
        }
        false
    }

    /// Takes the living, as they were after the nodes were `heard` of. Returns whether others are gone than before.
    fn take(
        &mut self,
        had_lapsed: bool,
        mut heard: HashSet<Box<str>>,
        alive: HashSet<Box<str>>,
        now: Instant,
    ) -> bool {
        if had_lapsed {
            self.judges_from = now + limits::NODE_LEASE;
        }
        heard.extend(std::mem::replace(&mut self.alive, alive));
        heard.retain(|node| !self.alive.contains(node));
        let gone_before = self.gone.len();
        self.gone.retain(|node| !self.alive.contains(node));
        let are_back = self.gone.len() < gone_before;
        self.unknown.retain(|node| !self.alive.contains(node));
        if now < self.judges_from {
            self.unknown.extend(heard);
            return are_back;
        }
        if self.gone.len() + heard.len() > GONE_MAX {
            self.gone.clear();
        }
        self.unknown.retain(|node| !heard.contains(node));
        let is_news = are_back || !heard.is_empty();
        for node in heard {
            info!(%node, "a node is gone; its users are offline");
            self.gone.insert(node);
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_gone_once_a_heartbeat_that_may_judge_lacks_it() {
        let mut now = Instant::now();
        let set = |nodes: &[&str]| nodes.iter().map(|node| (*node).into()).collect();
        let [alive, unknown, gone] = Default::default();
        let mut nodes = Nodes { alive, unknown, gone, judges_from: now };
        let beat = |nodes: &mut Nodes, had_lapsed, alive: &[&str], now| {
            let heard = nodes.unknown.clone();
            nodes.take(had_lapsed, heard, set(alive), now)
        };
        assert!(!beat(&mut nodes, true, &["me", "a"], now), "it has just begun");
        assert!(!nodes.is_gone("new"), "it was heard of after the heartbeat");
        assert!(!beat(&mut nodes, false, &["me"], now), "too soon to judge");
        assert!(!nodes.is_gone("a") && !nodes.is_gone("new"));
        now += limits::NODE_LEASE;
        assert!(beat(&mut nodes, false, &["me", "new"], now));
        assert!(nodes.is_gone("a") && !nodes.is_gone("new"));
        assert!(!nodes.is_gone("late"));
        assert!(
            !nodes.take(false, set(&[]), set(&["me", "new"]), now),
            "sent before it was heard of"
        );
        assert!(beat(&mut nodes, false, &["me", "a", "new", "late"], now), "it had only paused");
        assert!(!nodes.is_gone("a") && !nodes.is_gone("late"));
        assert!(!beat(&mut nodes, true, &["me"], now), "after a flush nobody is judged");
        assert!(!nodes.is_gone("a") && !nodes.is_gone("new"));
    }
}
