//! The connections on which Redis tells: one; or, of a Cluster, one for each bucket of duels, wherever its slot is.

use std::sync::Arc;

use super::discovery::Endpoint;
use super::keys::BUCKETS;
use super::subscriber::{Scope, Subscriber};
use super::sweep::Sweep;
use crate::engine::EngineError;
use crate::id::DuelId;

/// All of them. What is told of all duels comes on the first.
#[derive(Debug)]
pub(super) struct SubscriberPool(Vec<Subscriber>);

impl SubscriberPool {
    pub(super) fn new(endpoint: &Endpoint, sweep: &Arc<Sweep>) -> Self {
        if !endpoint.is_cluster() {
            return Self(vec![Subscriber::new(endpoint.clone(), Scope::All, Arc::clone(sweep))]);
        }
        let buckets = (0..BUCKETS).zip(sweep.keys.tags());
        let of_bucket = buckets.map(|(bucket, tag)| {
            let endpoint = endpoint.clone().with_tag(&tag);
            Subscriber::new(endpoint, Scope::Bucket { bucket, tag }, Arc::clone(sweep))
        });
        Self(of_bucket.collect())
    }

    fn of(&self, duel: DuelId) -> &Subscriber {
        let nth = usize::try_from(duel.get() % BUCKETS).unwrap_or_default();
        self.0.get(nth).unwrap_or(&self.0[0])
    }

    pub(super) async fn subscribe(&self, duel: DuelId) -> Result<(), EngineError> {
        self.of(duel).subscribe(duel).await
    }

    pub(super) fn unsubscribe(&self, duel: DuelId) {
        self.of(duel).unsubscribe(duel);
    }

    pub(super) async fn watch(&self) -> Result<(), EngineError> {
        self.0[0].watch().await
    }

    pub(super) fn unwatch(&self) {
        self.0[0].unwatch();
    }
}
