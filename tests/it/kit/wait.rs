//! Waiting for what should happen, and failing by name if it does not. Shared with `tests/durability`.

use std::time::Duration;

/// How long anything may take that works. Generous: a busy machine is no failure.
const DEADLINE: Duration = Duration::from_secs(60);

/// Waits for `future`, and fails the test by name if it does not come.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what}: not in time"))
}

/// Asks until the answer is yes.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    soon(what, async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
