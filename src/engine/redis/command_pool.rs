//! The connections on which Redis is asked: one; or, of a Cluster, one for each hash tag, so that what is in one slot is asked
//! in one order, wherever the slot is.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use redis::{Arg, Cmd, Value};
use tokio::sync::{oneshot, watch};

use super::command_connection::{CommandConnection, Reply, Request};
use super::discovery::Endpoint;
use super::keys::{BUCKETS, Keys};
use crate::engine::{EngineError, Obstacle, StoreCounts};
use crate::id::DuelId;

/// All of them.
#[derive(Debug)]
pub(super) enum CommandPool {
    /// There is one server.
    One(Arc<CommandConnection>),
    /// By hash tag.
    ByTag(HashMap<String, Arc<CommandConnection>>),
}

impl CommandPool {
    pub(super) fn new(endpoint: &Endpoint, keys: &Keys, wait_replicas: u32) -> Arc<Self> {
        if !endpoint.is_cluster() {
            return Arc::new(Self::One(CommandConnection::new(endpoint.clone(), wait_replicas)));
        }
        let connection = |tag: String| {
            let connection = CommandConnection::new(endpoint.clone().with_tag(&tag), wait_replicas);
            (tag, connection)
        };
        Arc::new(Self::ByTag(keys.tags().into_iter().map(connection).collect()))
    }

    /// See [`CommandConnection::ask`]. The hash tag of the first key says which connection it is, as in Redis itself.
    pub(super) fn ask(
        &self,
        request: impl Into<Request>,
        read: impl FnOnce(Reply) + Send + 'static,
    ) -> Result<(), EngineError> {
        let request = request.into();
        let connection = match self {
            Self::One(connection) => Some(connection),
            Self::ByTag(connections) => tag(&request).and_then(|tag| connections.get(tag)),
        };
        connection.ok_or(EngineError::UNAVAILABLE)?.ask(request, read)
    }

    /// Asks at once, and answers what Redis does.
    pub(super) fn reply_to(
        &self,
        command: Cmd,
    ) -> impl Future<Output = Result<Value, EngineError>> + use<> {
        let (value_tx, value_rx) = oneshot::channel();
        let asked = self.ask(command, move |reply| {
            let _gone = value_tx.send(reply.value);
        });
        async move {
            asked?;
            value_rx.await.unwrap_or(Err(EngineError::IN_DOUBT))
        }
    }

    /// Which server is asked about a tag, now and from now on. `None`: none is at the moment.
    pub(super) fn server(&self, tag: &str) -> watch::Receiver<Option<Arc<str>>> {
        let connection = match self {
            Self::One(connection) => Some(connection),
            Self::ByTag(connections) => connections.get(tag),
        };
        connection.map_or_else(|| watch::channel(None).1, |connection| connection.server())
    }

    /// Why a server cannot be relied on, if one cannot.
    pub(super) fn obstacle(&self) -> Option<Obstacle> {
        match self {
            Self::One(connection) => connection.obstacle(),
            Self::ByTag(connections) => connections.values().find_map(|c| c.obstacle()),
        }
    }

    /// Duels that can be asked about in one step, at most `count` together.
    pub(super) fn groups(&self, duels: &[DuelId], count: usize) -> Vec<Vec<DuelId>> {
        let mut groups: BTreeMap<u64, Vec<DuelId>> = BTreeMap::new();
        for duel in duels {
            let group = if matches!(self, Self::One(_)) { 0 } else { duel.get() % BUCKETS };
            groups.entry(group).or_default().push(*duel);
        }
        let chunks = groups.values().flat_map(|group| group.chunks(count));
        chunks.map(<[_]>::to_vec).collect()
    }

    /// Buckets that can be looked at in one step.
    pub(super) fn bucket_groups(&self) -> Vec<Range<u64>> {
        match self {
            Self::One(_) => std::iter::once(0..BUCKETS).collect(),
            Self::ByTag(_) => (0..BUCKETS).map(|bucket| bucket..bucket + 1).collect(),
        }
    }

    /// How they do together.
    pub(super) fn counts(&self) -> StoreCounts {
        let mut counts =
            StoreCounts { usable: true, commits: 0, failures: 0, waiting: 0, disk_bytes: 0 };
        match self {
            Self::One(connection) => connection.count(&mut counts),
            Self::ByTag(commands) => {
                commands.values().for_each(|connection| connection.count(&mut counts))
            }
        }
        counts
    }

    pub(super) fn stop(&self) {
        match self {
            Self::One(connection) => connection.stop(),
            Self::ByTag(commands) => commands.values().for_each(|connection| connection.stop()),
        }
    }
}

/// The hash tag of the first key.
fn tag(request: &Request) -> Option<&str> {
    request.arguments().find_map(|argument| {
        let Arg::Simple(bytes) = argument else { return None };
        let key = std::str::from_utf8(bytes).ok()?.strip_prefix('{')?;
        key.split_once('}').map(|(tag, _)| tag)
    })
}
