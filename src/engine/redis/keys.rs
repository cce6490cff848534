//! What things are called in Redis.
//!
//! Duels are spread over [`BUCKETS`]; everything of a bucket has one hash tag, so that a Cluster keeps it in one slot and a
//! script can change a duel together with its bucket's index. How many buckets there are is part of the format.

use crate::id::DuelId;

/// Buckets, in all of which a list of duels is looked for.
pub(super) const BUCKETS: u64 = 64;

/// The names, which all begin with the prefix.
#[derive(Debug)]
pub(super) struct Keys {
    prefix: String,
    /// This process.
    pub(super) node: String,
    /// The command that publishes to the nodes that subscribe to a duel: within its slot, if there are several.
    pub(super) publish: &'static str,
}

impl Keys {
    pub(super) fn new(prefix: String, is_cluster: bool) -> Self {
        let publish = if is_cluster { "SPUBLISH" } else { "PUBLISH" };
        Self { prefix, node: format!("{:016x}", rand::random::<u64>()), publish }
    }

    /// All hash tags: those of the buckets first.
    pub(super) fn tags(&self) -> Vec<String> {
        let buckets = (0..BUCKETS).map(|bucket| format!("{}:{bucket:02}", self.prefix));
        buckets.chain(["tickets", "nodes"].map(|name| format!("{}:{name}", self.prefix))).collect()
    }

    /// The hash of a duel, and the channel on which it is told. The probe is this node's own.
    pub(super) fn duel(&self, duel: DuelId) -> String {
        let bucket = duel.get() % BUCKETS;
        if duel == DuelId::PROBE {
            return format!("{{{}:{bucket:02}}}:probe:{}", self.prefix, self.node);
        }
        format!("{{{}:{bucket:02}}}:{}", self.prefix, duel.get())
    }

    /// The hash of who is online in a duel.
    pub(super) fn presence(&self, duel: DuelId) -> String {
        format!("{}:p", self.duel(duel))
    }

    /// What a script needs that changes a duel.
    pub(super) fn changing(&self, duel: DuelId) -> Vec<String> {
        let mut keys = vec![self.duel(duel)];
        if duel != DuelId::PROBE {
            keys.extend(self.index(duel.get() % BUCKETS));
        }
        keys
    }

    /// A bucket's duels by when to look whether they are to be forgotten, and by id.
    pub(super) fn index(&self, bucket: u64) -> [String; 2] {
        ["due", "duels"].map(|name| format!("{{{}:{bucket:02}}}:{name}", self.prefix))
    }

    /// The ticket ledger.
    pub(super) fn tickets(&self) -> [String; 4] {
        ["due", "sessions", "users", "ledger"]
            .map(|name| format!("{{{}:tickets}}:{name}", self.prefix))
    }

    /// The sessions of a user in a duel.
    pub(super) fn sessions_of(&self, owner: &str) -> String {
        format!("{{{}:tickets}}:of:{owner}", self.prefix)
    }

    /// The nodes by when their leases end.
    pub(super) fn nodes(&self) -> String {
        format!("{{{}:nodes}}:leases", self.prefix)
    }

    /// The channel on which this node tells itself something, in the slot of a hash tag.
    pub(super) fn check(&self, tag: &str) -> String {
        format!("{{{tag}}}:check:{}", self.node)
    }

    /// The channel on which it is told of all duels.
    pub(super) fn watch(&self) -> String {
        format!("{}:watch", self.prefix)
    }
}
