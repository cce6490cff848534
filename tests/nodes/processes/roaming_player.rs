//! A player who finds their way: whatever happens to the connection, they come back by themselves, to another node, and insist
//! on every event, once and in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use duelhub::server::Addresses;
use duelhub_testkit::{Backend, Frame, Join, Player};
use serde_json::Value;

/// One of them.
#[derive(Debug)]
pub(super) struct RoamingPlayer {
    nodes: Arc<[Addresses]>,
    duel: u64,
    user: u64,
    /// The node that is tried next.
    node: usize,
    /// The resume ticket that was handed out last. It is good until its successor is used.
    ticket: Option<String>,
    epoch: Option<String>,
    seq: u64,
    /// Up to where the state goes that comes with the first connection.
    state_until: u64,
    /// Attempts so far.
    attempts: u64,
    /// How often they were let in.
    pub(super) entries: u64,
    /// How many players were ever let in.
    entered: Arc<AtomicU64>,
}

impl RoamingPlayer {
    pub(super) fn new(
        nodes: Arc<[Addresses]>,
        (duel, user): (u64, u64),
        node: usize,
        entered: Arc<AtomicU64>,
    ) -> Self {
        let (ticket, epoch, seq, state_until) = (None, None, 0, 0);
        let (attempts, entries) = (0, 0);
        Self {
            nodes,
            duel,
            user,
            node,
            ticket,
            epoch,
            seq,
            state_until,
            attempts,
            entries,
            entered,
        }
    }

    /// Follows the duel until they have seen as many events as there will ever have been.
    pub(super) async fn follow(mut self, last: Arc<AtomicU64>) -> Self {
        while self.seq < last.load(Ordering::Relaxed) {
            // Why it ended is not what it is about; what is wrong with an event is a panic.
            let _ended = self.connect(&last).await;
            self.node += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self
    }

    /// Follows over one connection; `None` if there was none.
    async fn connect(&mut self, last: &AtomicU64) -> Option<()> {
        let node = self.nodes[self.node % self.nodes.len()];
        let ticket = match &self.ticket {
            Some(ticket) => ticket.clone(),
            None => Backend::lazy(&node).try_issue(self.duel, self.user).await.ok()?.ticket,
        };
        let mut join = Join::ticket(ticket);
        join.resume = self.epoch.as_ref().map(|epoch| format!("{epoch}:{}", self.seq));
        let mut player = Player::try_knock(&node, join).await.ok()?;
        self.attempts += 1;
        if self.attempts.is_multiple_of(4) && self.ticket.is_some() {
            // The network dies before the welcome has arrived.
            tokio::time::sleep(Duration::from_millis(self.attempts % 7)).await;
            return None;
        }
        while self.seq < last.load(Ordering::Relaxed) {
            let text = player.next_text().await?;
            let frame = Frame::parse(&text);
            match frame.r#type {
                "connected" => self.welcome(&frame),
                "error" | "presence" | "pong" => {}
                _ => self.take(&frame),
            }
        }
        Some(())
    }

    fn welcome(&mut self, frame: &Frame<'_>) {
        self.entries += 1;
        if self.entries == 1 {
            self.entered.fetch_add(1, Ordering::Relaxed);
        }
        self.ticket.clone_from(&frame.resume_ticket);
        let (epoch, head) = (frame.epoch.unwrap(), frame.head.unwrap());
        if let Some(known) = &self.epoch {
            assert_eq!(frame.recovered, Some(true), "Redis has everything");
            assert_eq!(known.as_str(), epoch);
            assert!(self.seq <= head, "{} of {head}", self.seq);
        } else {
            (self.seq, self.state_until) = (head, head);
        }
        self.epoch = Some(epoch.to_owned());
    }

    fn take(&mut self, frame: &Frame<'_>) {
        let seq = frame.seq.unwrap();
        // The state that a first connection starts with.
        if self.entries == 1 && seq <= self.state_until {
            return;
        }
        assert_eq!(seq, self.seq + 1, "each event once and in order");
        let payload: Value = serde_json::from_str(frame.payload.unwrap().get()).unwrap();
        assert_eq!(payload["n"], seq, "the one that was pushed there");
        self.seq = seq;
    }
}
