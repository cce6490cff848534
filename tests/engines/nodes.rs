//! Several nodes that take turns: each call is made on another one than the last, so that nothing of a rule can rest on
//! what one node remembers.
//!
//! Calls keep their order on one node, and over several only once they are answered: so as long as an answer is outstanding,
//! even one that nobody waits for, it is the same node's turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use duelhub::clock::UnixMs;
use duelhub::engine::{
    AppendError, Appended, Declaration, DuelRecord, Engine, EngineCounts, EngineFuture, Head,
    Latest, LogEngine, NewConnection, OnlineByDuel, OpenError, Opened, Page, PresenceEngine,
    RedeemError, Revocation, Signal, Sink, StatusFilter, TicketEngine,
};
use duelhub::event::{Outcome, Position, Push, Viewer};
use duelhub::id::{ConnectionId, DuelId, UserId};
use duelhub::ticket::Ticket;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The nodes as one engine.
#[derive(Debug)]
pub(crate) struct Nodes {
    nodes: Vec<Arc<dyn Engine>>,
    /// Whose turn it is.
    now: Mutex<usize>,
    outstanding: Arc<AtomicUsize>,
}

/// An answer that is outstanding.
struct Turn(Arc<AtomicUsize>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Nodes {
    pub(crate) fn new(nodes: Vec<Arc<dyn Engine>>) -> Self {
        Self { nodes, now: Mutex::default(), outstanding: Arc::default() }
    }

    fn turn(&self) -> (&dyn Engine, Turn) {
        let mut now = self.now.lock();
        if self.outstanding.fetch_add(1, Ordering::SeqCst) == 0 {
            *now = (*now + 1) % self.nodes.len();
        }
        (&*self.nodes[*now], Turn(Arc::clone(&self.outstanding)))
    }

    fn ask<'a, T: 'a, E: 'a>(
        &'a self,
        call: impl FnOnce(&'a dyn Engine) -> EngineFuture<'a, T, E>,
    ) -> EngineFuture<'a, T, E> {
        let (node, turn) = self.turn();
        let answer = call(node);
        Box::pin(async move {
            let answer = answer.await;
            drop(turn);
            answer
        })
    }
}

impl LogEngine for Nodes {
    fn open(&self, duel: DuelId, declaration: Declaration) -> EngineFuture<'_, Opened, OpenError> {
        self.ask(|node| node.open(duel, declaration))
    }

    fn get_or_create(&self, duel: DuelId) -> EngineFuture<'_, DuelRecord> {
        self.ask(|node| node.get_or_create(duel))
    }

    fn append(
        &self,
        duel: DuelId,
        push: Push,
        idempotency_key: Option<Box<str>>,
    ) -> EngineFuture<'static, Appended, AppendError> {
        let (node, turn) = self.turn();
        let answer = node.append(duel, push, idempotency_key);
        let (answer_tx, answer_rx) = oneshot::channel();
        tokio::spawn(async move {
            let answer = answer.await;
            drop(turn);
            let _dropped = answer_tx.send(answer);
        });
        Box::pin(async move { answer_rx.await.expect("the task does not panic") })
    }

    fn close(
        &self,
        duel: DuelId,
        outcome: Outcome,
        last: Option<Push>,
    ) -> EngineFuture<'_, Appended, AppendError> {
        self.ask(|node| node.close(duel, outcome, last))
    }

    fn read(&self, duel: DuelId, after: Position, count: usize) -> EngineFuture<'_, Page> {
        self.ask(|node| node.read(duel, after, count))
    }

    fn latest(
        &self,
        duel: DuelId,
        viewer: Viewer,
        up_to: Position,
        which: Latest,
    ) -> EngineFuture<'_, Option<Vec<Arc<duelhub::event::Event>>>> {
        self.ask(|node| node.latest(duel, viewer, up_to, which))
    }

    fn get(&self, duel: DuelId) -> EngineFuture<'_, Option<DuelRecord>> {
        self.ask(|node| node.get(duel))
    }

    fn list(
        &self,
        after: Option<DuelId>,
        status: StatusFilter,
        count: usize,
    ) -> EngineFuture<'_, Vec<(DuelId, Head)>> {
        self.ask(|node| node.list(after, status, count))
    }

    fn heads(&self, duels: Vec<DuelId>) -> EngineFuture<'_, Vec<(DuelId, Head)>> {
        self.ask(|node| node.heads(duels))
    }
}

impl TicketEngine for Nodes {
    fn redeem(&self, ticket: &Ticket) -> EngineFuture<'_, (), RedeemError> {
        let (node, turn) = self.turn();
        let ticket = ticket.clone();
        Box::pin(async move {
            let answer = node.redeem(&ticket).await;
            drop(turn);
            answer
        })
    }

    fn revoke(&self, revocation: Revocation) -> EngineFuture<'_, ()> {
        self.ask(|node| node.revoke(revocation))
    }
}

impl PresenceEngine for Nodes {
    fn attach(&self, arrival: NewConnection) -> EngineFuture<'_, ()> {
        self.ask(|node| node.attach(arrival))
    }

    fn detach(&self, duel: DuelId, user: UserId, connection: ConnectionId) {
        self.turn().0.detach(duel, user, connection);
    }

    fn presence(&self, duels: Vec<DuelId>) -> EngineFuture<'_, Option<OnlineByDuel>> {
        self.ask(|node| node.presence(duels))
    }

    fn signal(&self, signal: Signal) -> EngineFuture<'_, ()> {
        self.ask(|node| node.signal(signal))
    }
}

impl Engine for Nodes {
    fn name(&self) -> &'static str {
        self.nodes[0].name()
    }

    fn connect(&self, sink: Sink) {
        let sink = Arc::new(sink);
        for node in &self.nodes {
            let sink = Arc::clone(&sink);
            node.connect(Box::new(move |notice| sink(notice)));
        }
    }

    /// Each node does, in its own time, and learns by it how much there is.
    fn prune(&self, now: UnixMs) -> EngineFuture<'_, ()> {
        Box::pin(async move {
            for node in &self.nodes {
                node.prune(now).await?;
            }
            Ok(())
        })
    }

    /// As far as the one knows that knows of most.
    fn counts(&self) -> EngineCounts {
        let most = |count: fn(EngineCounts) -> usize| {
            self.nodes.iter().map(|node| count(node.counts())).max().unwrap_or_default()
        };
        EngineCounts {
            duels: most(|counts| counts.duels),
            remembered_tickets: most(|counts| counts.remembered_tickets),
        }
    }

    fn stop(&self) -> EngineFuture<'_, ()> {
        Box::pin(async move {
            for node in &self.nodes {
                node.stop().await?;
            }
            Ok(())
        })
    }
}
