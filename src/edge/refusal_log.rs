//! The log of refused requests. Strangers decide how many there are, so past a rate they are counted and not told one by one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::rate::{Rate, SharedRate};
use crate::limits;

/// Decides which refusals the log tells.
#[derive(Debug)]
pub(super) struct RefusalLog {
    rate: SharedRate,
    suppressed: AtomicU64,
}

impl Default for RefusalLog {
    fn default() -> Self {
        let rate = Rate::per(Duration::from_secs(1), limits::REFUSALS_LOGGED_PER_SECOND);
        Self { rate: SharedRate::new(rate), suppressed: AtomicU64::new(0) }
    }
}

impl RefusalLog {
    /// Returns whether a refusal is told, and then how many were not told since the last one that was.
    pub(super) fn admit(&self) -> Option<u64> {
        if self.rate.allows() {
            return Some(self.suppressed.swap(0, Ordering::Relaxed));
        }
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        None
    }
}
