//! Where duels stand, compared with what was told: at a sweep, of those in doubt, and when nothing was heard for a while.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::Value;
use tokio::sync::oneshot;

use super::command_pool::CommandPool;
use super::dispatcher::Dispatcher;
use super::keys::Keys;
use super::presence::ClusterPresence;
use super::reply::{self, Parts, understood};
use super::script::{self, Args as _, HEADS, millis};
use crate::engine::event_row::Malformed;
use crate::engine::{EngineError, Head};
use crate::event::Epoch;
use crate::id::DuelId;

/// Duels that are compared in one step: Redis does nothing else meanwhile.
pub(super) const HEADS_AT_ONCE: usize = 32;

/// Compares duels.
#[derive(Debug)]
pub(super) struct Heads {
    pub(super) commands: Arc<CommandPool>,
    pub(super) keys: Arc<Keys>,
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) presence: Arc<ClusterPresence>,
}

impl Heads {
    /// Answers where those of the duels stand that exist, after that was told. Being asked about keeps open ones for `idle`.
    pub(super) fn read(
        &self,
        duels: Vec<DuelId>,
        idle: Duration,
    ) -> impl Future<Output = Result<Vec<(DuelId, Head)>, EngineError>> + use<> {
        let keys: Vec<_> = duels.iter().map(|duel| self.keys.duel(*duel)).collect();
        let mut command = script::call(&HEADS, &keys).with(millis(idle));
        for _ in &duels {
            command.arg(reply::show_epoch(Epoch::random()));
        }
        let asked_at = Instant::now();
        let (heads_tx, heads_rx) = oneshot::channel();
        let (dispatcher, presence) = (Arc::clone(&self.dispatcher), Arc::clone(&self.presence));
        let asked = self.commands.ask(command, move |reply| {
            let standings = reply.value.and_then(|value| understood(standings(value)));
            let told = standings.map(|standings| {
                let mut heads = Vec::with_capacity(duels.len());
                for (duel, (version, head)) in duels.into_iter().zip(standings) {
                    if let Some(head) = head {
                        dispatcher.head(duel, head.clone(), asked_at);
                        heads.push((duel, head));
                    }
                    presence.compare(duel, version);
                }
                heads
            });
            let _gone = heads_tx.send(told);
        });
        async move {
            asked?;
            heads_rx.await.unwrap_or(Err(EngineError::IN_DOUBT))
        }
    }

    /// Tells what may have been missed of duels of which nothing was heard for a while.
    pub(super) fn catch_up(&self, duels: &[DuelId]) {
        self.presence.refresh(duels.iter().copied());
        for some in duels.chunks(HEADS_AT_ONCE) {
            // What cannot be asked now, the next sweep finds.
            drop(self.read(some.to_vec(), Duration::ZERO));
        }
    }
}

/// How often presence has changed, and where the log stands, if there is one.
type Standing = (u64, Option<Head>);

fn standings(value: Value) -> Result<Vec<Standing>, Malformed> {
    Parts::of(value)?.each(|standing| {
        let mut parts = Parts::of(standing)?;
        let version = parts.number()?;
        Ok((version, if parts.is_empty() { None } else { Some(parts.head()?) }))
    })
}
