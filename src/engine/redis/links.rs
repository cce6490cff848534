//! The connections on which Redis is asked: one; or, of a Cluster, one for each hash tag, so that what is in one slot is asked
//! in one order, wherever the slot is.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use redis::Arg;

use super::endpoint::Endpoint;
use super::keys::{BUCKETS, Keys};
use super::link::{Link, Order, REFUSED, Reply};
use crate::engine::StoreCounts;
use crate::id::DuelId;

/// All of them.
#[derive(Debug)]
pub(super) enum Links {
    /// There is one server.
    One(Arc<Link>),
    /// By hash tag.
    ByTag(HashMap<String, Arc<Link>>),
}

impl Links {
    pub(super) fn new(endpoint: &Endpoint, keys: &Keys, wait_replicas: u32) -> Arc<Self> {
        if !endpoint.is_cluster() {
            return Arc::new(Self::One(Link::new(endpoint.clone(), wait_replicas)));
        }
        let link = |tag: String| {
            let link = Link::new(endpoint.clone().with_tag(&tag), wait_replicas);
            (tag, link)
        };
        Arc::new(Self::ByTag(keys.tags().into_iter().map(link).collect()))
    }

    /// See [`Link::ask`]. Which connection it is, the hash tag of the first key says, as in Redis itself.
    pub(super) fn ask(&self, order: impl Into<Order>, read: impl FnOnce(Reply) + Send + 'static) {
        let order = order.into();
        let link = match self {
            Self::One(link) => Some(link),
            Self::ByTag(links) => tag(&order).and_then(|tag| links.get(tag)),
        };
        match link {
            Some(link) => link.ask(order, read),
            None => read(Reply::failed(REFUSED)),
        }
    }

    /// Which server is asked about a tag. Empty: none was, so far.
    pub(super) fn server(&self, tag: &str) -> String {
        match self {
            Self::One(link) => link.server(),
            Self::ByTag(links) => links.get(tag).map(|link| link.server()).unwrap_or_default(),
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

    /// How they do together.
    pub(super) fn counts(&self) -> StoreCounts {
        let mut counts =
            StoreCounts { usable: true, commits: 0, failures: 0, waiting: 0, disk_bytes: 0 };
        match self {
            Self::One(link) => link.count(&mut counts),
            Self::ByTag(links) => links.values().for_each(|link| link.count(&mut counts)),
        }
        counts
    }

    pub(super) fn stop(&self) {
        match self {
            Self::One(link) => link.stop(),
            Self::ByTag(links) => links.values().for_each(|link| link.stop()),
        }
    }
}

/// The hash tag of the first key.
fn tag(order: &Order) -> Option<&str> {
    order.arguments().find_map(|argument| {
        let Arg::Simple(bytes) = argument else { return None };
        let key = std::str::from_utf8(bytes).ok()?.strip_prefix('{')?;
        key.split_once('}').map(|(tag, _)| tag)
    })
}
