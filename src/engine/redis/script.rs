//! The steps that Redis does for us, each as a whole: Lua scripts, sent once per connection and then called by their hash.

use std::sync::LazyLock;
use std::time::Duration;

use redis::{Cmd, ToRedisArgs};

/// Puts a script together from what it shares with others, and what is its own.
macro_rules! script {
    ($($part:literal),+) => {
        LazyLock::new(|| Source::new(concat!($(include_str!(concat!("scripts/", $part, ".lua")), "\n"),+)))
    };
}

/// One of them.
pub(super) type Script = LazyLock<Source>;

/// What it says, and the hash by which Redis knows it.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) code: &'static str,
    hash: String,
}

impl Source {
    fn new(code: &'static str) -> Self {
        Self { code, hash: redis::Script::new(code).get_hash().to_owned() }
    }
}

pub(super) static APPEND: Script = script!("common", "change", "store", "append");
pub(super) static CLOSE: Script = script!("common", "change", "store", "close");
pub(super) static RECORD: Script = script!("common", "change", "record");
pub(super) static OPEN: Script = script!("common", "change", "open");
pub(super) static READ: Script = script!("common", "read");
pub(super) static LATEST: Script = script!("common", "latest");
pub(super) static HEADS: Script = script!("common", "heads");
pub(super) static DUE: Script = script!("common", "due");
pub(super) static PRUNE: Script = script!("allow_oom", "common", "prune");
pub(super) static REDEEM: Script = script!("common", "tickets", "redeem");
pub(super) static STAMP: Script = script!("common", "tickets", "stamp");
pub(super) static REVOKE: Script = script!("allow_oom", "common", "tickets", "revoke");
pub(super) static FORGET_TICKETS: Script =
    script!("allow_oom", "common", "tickets", "forget_tickets");
pub(super) static ENTER: Script = script!("common", "presence", "enter");
pub(super) static PRESENCE_WRITE: Script =
    script!("allow_oom", "common", "presence", "presence_write");
pub(super) static DISCONNECT: Script = script!("allow_oom", "common", "presence", "disconnect");
pub(super) static EVICT: Script = script!("allow_oom", "common", "presence", "evict");
pub(super) static SESSION_ENDED: Script = script!("allow_oom", "common", "session_ended");
pub(super) static HEARTBEAT: Script = script!("allow_oom", "common", "heartbeat");

/// All of them, to be loaded.
pub(super) fn all() -> [&'static Script; 19] {
    [
        &APPEND,
        &CLOSE,
        &RECORD,
        &OPEN,
        &READ,
        &LATEST,
        &HEADS,
        &DUE,
        &PRUNE,
        &REDEEM,
        &STAMP,
        &REVOKE,
        &FORGET_TICKETS,
        &ENTER,
        &PRESENCE_WRITE,
        &DISCONNECT,
        &EVICT,
        &SESSION_ENDED,
        &HEARTBEAT,
    ]
}

/// The command that has a script done. Its arguments follow.
pub(super) fn call(script: &Script, keys: &[String]) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    command.arg(&script.hash).arg(keys.len()).arg(keys);
    command
}

/// Several arguments of different kinds.
pub(super) trait Args {
    /// One more.
    fn with(self, argument: impl ToRedisArgs) -> Self;
}

impl Args for Cmd {
    fn with(mut self, argument: impl ToRedisArgs) -> Self {
        self.arg(argument);
        self
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
