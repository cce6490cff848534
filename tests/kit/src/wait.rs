//! Waiting for what should happen, and failing by name if it does not.

use std::time::Duration;

use crate::{Reachable, get};

/// How long anything may take that works. Generous: a busy machine is no failure.
const DEADLINE: Duration = Duration::from_secs(60);

/// Waits for `future`, and fails the test by name if it does not come.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what}: not in time"))
}

/// Asks until the answer is yes.
pub async fn until<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    soon(what, async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Waits until the hub calls itself ready.
pub async fn is_ready(hub: &impl Reachable) {
    let admin = hub.addresses().admin;
    until("it is ready", || async { get(admin, "/readyz", &[]).await.status == 200 }).await;
}
