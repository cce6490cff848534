//! The connections on which Redis tells: one; or, of a Cluster, one for each bucket of duels, wherever its slot is.

use std::sync::Arc;

use super::endpoint::Endpoint;
use super::feed::{Feed, Scope};
use super::keys::{BUCKETS, Keys};
use super::roster::Rosters;
use super::teller::Teller;
use crate::engine::EngineError;
use crate::id::DuelId;

/// All of them. What is told of all duels comes on the first.
#[derive(Debug)]
pub(super) struct Feeds(Vec<Feed>);

impl Feeds {
    pub(super) fn new(
        endpoint: &Endpoint,
        keys: &Arc<Keys>,
        teller: &Arc<Teller>,
        rosters: &Arc<Rosters>,
    ) -> Self {
        let feed = |endpoint, scope| {
            Feed::new(endpoint, scope, Arc::clone(keys), Arc::clone(teller), Arc::clone(rosters))
        };
        if !endpoint.is_cluster() {
            return Self(vec![feed(endpoint.clone(), Scope::All)]);
        }
        let buckets = (0..BUCKETS).zip(keys.tags());
        let of_bucket = buckets.map(|(bucket, tag)| {
            let endpoint = endpoint.clone().with_tag(&tag);
            feed(endpoint, Scope::Bucket { bucket, tag })
        });
        Self(of_bucket.collect())
    }

    fn of(&self, duel: DuelId) -> &Feed {
        let nth = usize::try_from(duel.get() % BUCKETS).unwrap_or_default();
        self.0.get(nth).unwrap_or(&self.0[0])
    }

    pub(super) async fn follow(&self, duel: DuelId) -> Result<(), EngineError> {
        self.of(duel).follow(duel).await
    }

    pub(super) fn leave(&self, duel: DuelId) {
        self.of(duel).leave(duel);
    }

    pub(super) async fn watch(&self) -> Result<(), EngineError> {
        self.0[0].watch().await
    }

    pub(super) fn unwatch(&self) {
        self.0[0].unwatch();
    }
}
