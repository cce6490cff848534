//! Whether a server can be relied on: it throws nothing away, and as many replicas as are wanted are there.

use std::time::Duration;

use redis::aio::MultiplexedConnection;

use super::discovery;
use crate::engine::Obstacle;

/// How long replicas may take to have what was sent.
const WAIT_TIMEOUT: Duration = Duration::from_secs(1);

/// How many replicas must have what is to be kept, and whether they had what was sent last.
#[derive(Debug)]
pub(super) struct Replicas {
    wanted: u32,
    are_behind: bool,
}

impl Replicas {
    pub(super) const fn new(wanted: u32) -> Self {
        Self { wanted, are_behind: false }
    }

    pub(super) const fn are_wanted(&self) -> bool {
        self.wanted > 0
    }

    /// The server is another one, perhaps, and nothing was sent to it.
    pub(super) const fn begin(&mut self) {
        self.are_behind = false;
    }

    /// Adds to what is sent that it is waited for.
    pub(super) fn wait(&self, pipeline: &mut redis::Pipeline) {
        pipeline.cmd("WAIT").arg(self.wanted).arg(super::script::millis(WAIT_TIMEOUT));
    }

    /// Takes how many have what was sent. Returns whether they are enough.
    pub(super) fn have(&mut self, count: i64) -> bool {
        self.are_behind = count < i64::from(self.wanted);
        !self.are_behind
    }

    /// Whether enough are there to have what is sent next, as far as can be known before it is.
    pub(super) async fn are_there(
        &mut self,
        connection: &mut MultiplexedConnection,
    ) -> Result<bool, String> {
        if !self.are_wanted() {
            return Ok(true);
        }
        if self.are_behind {
            // One that stands still is connected for a minute. Of what was sent last it says nothing.
            let mut wait = redis::cmd("WAIT");
            let have = wait.arg(self.wanted).arg(1).query_async(connection).await;
            if !self.have(have.map_err(|error| discovery::plain(&error))?) {
                return Ok(false);
            }
        }
        let replication = info(connection, "replication").await?;
        let online = replication.lines().filter(|line| line.contains(",state=online,")).count();
        Ok(u32::try_from(online).is_ok_and(|online| online >= self.wanted))
    }
}

/// Why the server cannot be relied on, if it cannot.
pub(super) async fn obstacle(
    connection: &mut MultiplexedConnection,
    replicas: &mut Replicas,
) -> Result<Option<Obstacle>, String> {
    if evicts(connection).await? {
        return Ok(Some(Obstacle::Evicts));
    }
    let are_there = replicas.are_there(connection).await?;
    Ok((!are_there).then_some(Obstacle::TooFewReplicas))
}

/// Whether it throws away what it has no room for: then a ticket could be used twice.
pub(super) async fn evicts(connection: &mut MultiplexedConnection) -> Result<bool, String> {
    let memory = info(connection, "memory").await?;
    let field = |name: &str| memory.lines().find_map(|line| line.strip_prefix(name));
    let (bound, policy) = (field("maxmemory:"), field("maxmemory_policy:"));
    Ok(bound.is_some_and(|bytes| bytes != "0") && policy.is_some_and(|p| p != "noeviction"))
}

async fn info(connection: &mut MultiplexedConnection, section: &str) -> Result<String, String> {
    let info = redis::cmd("INFO").arg(section).query_async(connection).await;
    info.map_err(|error| discovery::plain(&error))
}
