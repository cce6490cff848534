//! The connections on which Redis tells: one; or, of a Cluster, one for each bucket of duels, wherever its slot is.

use std::sync::Arc;

use futures_util::future::join_all;

use super::discovery::Endpoint;
use super::dispatcher::Dispatcher;
use super::heads::Heads;
use super::keys::BUCKETS;
use super::subscriber::{Channel, Scope, Subscriber};
use crate::engine::EngineError;
use crate::id::DuelId;

/// All of them. What is told of all duels comes on the first.
#[derive(Debug)]
pub(super) struct SubscriberPool {
    subscribers: Vec<Subscriber>,
    dispatcher: Arc<Dispatcher>,
}

impl SubscriberPool {
    pub(super) fn new(endpoint: &Endpoint, heads: &Arc<Heads>) -> Self {
        let scopes: Vec<_> = if endpoint.is_cluster() {
            let buckets = (0..BUCKETS).zip(heads.keys.tags());
            buckets.map(|(bucket, tag)| Scope::Bucket { bucket, tag }).collect()
        } else {
            vec![Scope::All]
        };
        let subscriber = |scope: Scope| {
            let endpoint = endpoint.clone().with_tag(scope.tag());
            Subscriber::new(endpoint, scope, Arc::clone(heads))
        };
        let subscribers = scopes.into_iter().map(subscriber).collect();
        Self { subscribers, dispatcher: Arc::clone(&heads.dispatcher) }
    }

    fn of(&self, duel: DuelId) -> &Subscriber {
        self.subscribers.get(nth(duel)).unwrap_or(&self.subscribers[0])
    }

    /// Returns once whatever happens in the duel is told. Cancel safe.
    pub(super) async fn subscribe(&self, duel: DuelId) -> Result<(), EngineError> {
        self.dispatcher.subscribe(duel);
        self.of(duel).subscribe(Channel::Duel(duel)).await
    }

    pub(super) fn unsubscribe(&self, duel: DuelId) {
        if self.dispatcher.unsubscribe(duel) {
            self.of(duel).unsubscribe(Channel::Duel(duel));
        }
    }

    /// Returns whether everything was told that was published of a duel before this is called: as a function of the duel.
    pub(super) async fn have_told_everything(&self) -> impl Fn(DuelId) -> bool + use<> {
        let checks = self.subscribers.iter().map(Subscriber::has_told_everything);
        let told = join_all(checks).await;
        move |duel| *told.get(nth(duel)).unwrap_or(&told[0])
    }

    /// Returns once what watchers hear of is told of all duels. Cancel safe.
    pub(super) async fn watch(&self) -> Result<(), EngineError> {
        self.subscribers[0].subscribe(Channel::Watch).await
    }

    pub(super) fn unwatch(&self) {
        self.subscribers[0].unsubscribe(Channel::Watch);
    }
}

/// Which connection it is about, if there are several.
fn nth(duel: DuelId) -> usize {
    usize::try_from(duel.get() % BUCKETS).unwrap_or_default()
}
