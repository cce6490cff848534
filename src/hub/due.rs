//! What is to be done at some time, the one that is due first first. Bound: as many as its callers add.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Each has a key, so that several may be due at one time.
#[derive(Debug)]
pub(super) struct Due<K, V> {
    queue: Mutex<BTreeMap<(Instant, K), V>>,
    changed: Notify,
}

impl<K, V> Default for Due<K, V> {
    fn default() -> Self {
        Self { queue: Mutex::default(), changed: Notify::new() }
    }
}

impl<K: Ord, V> Due<K, V> {
    pub(super) fn add(&self, at: Instant, key: K, value: V) {
        self.queue.lock().insert((at, key), value);
        self.changed.notify_one();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.lock().is_empty()
    }

    /// Waits for the next to be due. Cancel safe.
    pub(super) async fn next(&self) -> (K, V) {
        loop {
            let changed = self.changed.notified();
            let next = match self.queue.lock().first_entry() {
                Some(entry) if entry.key().0 <= Instant::now() => {
                    let ((_, key), value) = entry.remove_entry();
                    return (key, value);
                }
                Some(entry) => Some(entry.key().0),
                None => None,
            };
            match next {
                None => changed.await,
                Some(at) => {
                    let _changed = tokio::time::timeout_at(at, changed).await;
                }
            }
        }
    }
}
