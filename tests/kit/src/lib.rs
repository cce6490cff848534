//! What the tests, benches and examples of duelhub share: hubs, in this process and as the real binary; a backend that speaks
//! gRPC; one WebSocket player; HTTP in plain bytes; a real Redis, and bad networks to it.
//!
//! Nothing here sleeps to let something happen; everything waits for it, with one deadline.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::missing_panics_doc, reason = "a test that cannot go on has failed")]
#![expect(clippy::missing_errors_doc, reason = "what a function returns says what went wrong")]

mod backend;
pub mod fixtures;
mod http;
mod hub;
pub mod node;
mod player;
pub mod preload;
pub mod proxy;
pub mod redis_server;
pub mod redis_topology;
mod server;
mod site;
pub mod store;
mod tools;
mod wait;
mod wall_clock;

pub use self::backend::{Backend, Client, Token, assert_refused, error_info, numbered, push};
pub use self::http::{Reply, exchange, get};
pub use self::hub::{Exit, HowToEnd, Hub, Starting};
pub use self::player::{Away, Frame, Join, PING, Player};
pub use self::server::{BOT_TOKEN, TestServer};
pub use self::site::{SECRET, Site};
pub use self::tools::has_tool;
pub use self::wait::{is_ready, soon, until};
pub use self::wall_clock::WallClock;

use duelhub::server::Addresses;

/// A hub that can be reached, whatever it runs in.
pub trait Reachable {
    /// Where it listens.
    fn addresses(&self) -> Addresses;
}

impl Reachable for Addresses {
    fn addresses(&self) -> Addresses {
        *self
    }
}

/// Says something that is read also when the test passes: `cargo test` keeps what is printed to itself.
pub fn say(text: &str) {
    use std::io::Write as _;
    let _said = writeln!(std::io::stderr(), "{text}");
}
