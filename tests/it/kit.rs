//! What the tests share: a server on free ports, a backend that speaks gRPC, a player that folds frames into state, and
//! HTTP in plain bytes. Nothing here sleeps to let something happen; everything waits for it, with one deadline.

mod backend;
mod http;
mod player;
mod server;

use std::time::Duration;

pub(crate) use self::backend::{Backend, error_info, push};
pub(crate) use self::http::{exchange, get};
pub(crate) use self::player::{Join, Player};
pub(crate) use self::server::{BOT_TOKEN, SECRET, TestServer};

/// How long anything may take that works. Generous: a busy machine is no failure.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

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
