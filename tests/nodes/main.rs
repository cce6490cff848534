//! Several nodes on one Redis: what every player sees, whichever node they are on, and whatever happens between.
//!
//! Nodes are hubs with their background work, in this process; Redis is a real one, killed, stopped, emptied and cut off.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cluster;
mod delivery;
mod epochs;
mod faults;
mod histories;
mod obstacles;
mod presence;
mod presence_faults;
mod processes;

use duelhub_testkit::{proxy, redis_server};

/// What most tests here use.
mod kit {
    pub(crate) use duelhub_testkit::fixtures::{id_of, nth_of, resume_ticket, ticket, user};
    pub(crate) use duelhub_testkit::node::{
        DEADLINE, DRAIN, LocalPlayer, Node, SYNC_INTERVAL, roomy,
    };
    pub(crate) use duelhub_testkit::until;
}
