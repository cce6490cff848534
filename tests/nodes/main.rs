//! Several nodes on one Redis: what every player sees, whichever node they are on, and whatever happens between.
//!
//! Nodes are hubs with their background work, in this process; Redis is a real one, killed, stopped, emptied and cut off.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cluster;
mod delivery;
mod epochs;
mod faults;
mod histories;
mod ill_redis;
mod kit;
mod pictures;
mod presence;
mod processes;
#[path = "../kit/proxy.rs"]
mod proxy;
#[path = "../kit/redis_server.rs"]
mod redis_server;
