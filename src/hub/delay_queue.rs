//! A queue of things that are due at some time, the earliest first. Bound: as many as its callers add.
//!
//! `tokio_util::time::DelayQueue` belongs to the task that polls it. This one is filled from `Drop` and from the sink, which
//! cannot wait for that task.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Each entry has a key, so that several may be due at the same time.
#[derive(Debug)]
pub(super) struct DelayQueue<K, V> {
    entries: Mutex<BTreeMap<(Instant, K), V>>,
    added: Notify,
}

impl<K, V> Default for DelayQueue<K, V> {
    fn default() -> Self {
        Self { entries: Mutex::default(), added: Notify::new() }
    }
}

impl<K: Ord, V> DelayQueue<K, V> {
    pub(super) fn add(&self, at: Instant, key: K, value: V) {
        self.entries.lock().insert((at, key), value);
        self.added.notify_one();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.lock().is_empty()
    }

    /// Waits until an entry is due, and takes it out. Cancel safe.
    pub(super) async fn next(&self) -> (K, V) {
        loop {
            let added = self.added.notified();
            let next_at = {
                let mut entries = self.entries.lock();
                let first = entries.first_entry();
                match first {
                    Some(entry) if entry.key().0 <= Instant::now() => {
                        let ((_, key), value) = entry.remove_entry();
                        return (key, value);
                    }
                    first => first.map(|entry| entry.key().0),
                }
            };
            match next_at {
                None => added.await,
                Some(at) => drop(timeout_at(at, added).await),
            }
        }
    }
}
