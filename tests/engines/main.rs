//! The contract of [`duelhub::engine`], held over every engine: one function per rule, run once per engine.
//!
//! Redis is held to it twice: by one node, and by three that take turns.
//!
//! A module's rules are ordinary functions that are handed an engine ([`Subject`](kit::Subject)), or its
//! [`Kind`](store::Kind) to make one as they need it, and one list at its end runs them; a rule that is missing from the list is dead code, and so does not pass unnoticed. A new engine is a kind
//! in `tests/kit/src/store.rs` and a line in [`on_every_engine`].
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

/// Runs the module's rules over every engine, and over several nodes that take turns: `memory::rule`, and so on.
macro_rules! on_every_engine {
    ($($rule:ident),+ $(,)?) => {
        on_every_engine!($($rule),+; each node: );
    };
    // The last are of what a node knows by itself.
    ($($rule:ident),+; each node: $($own:ident),* $(,)?) => {
        on_engine!(memory, Memory, $($rule,)+ $($own),*);
        on_engine!(embedded, Embedded, $($rule,)+ $($own),*);
        on_engine!(redis, Redis, $($rule,)+ $($own),*);
        on_engine!(nodes, RedisNodes, $($rule),+);
    };
}

/// Runs rules over one engine, each on a runtime of several threads of its own.
macro_rules! on_engine {
    ($engine:ident, $kind:ident, $($rule:ident),+ $(,)?) => {
        mod $engine {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $rule() {
                    let kind = crate::store::Kind::$kind;
                    if kind.is_here() {
                        super::$rule(kind.into()).await;
                    }
                }
            )+
        }
    };
}

mod append;
mod closing;
mod duels;
mod keys;
mod kit;
mod latest;
mod log;
mod reopening;
mod restart;
mod retention;
mod signals;
mod tickets;

use duelhub_testkit::store;
