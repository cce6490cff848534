//! How a node's life ends, and what must be there when the next one begins.

use duelhub::engine::Page;
use duelhub::event::Position;

use super::World;
use crate::check::{Violation, ensure, expect, unexpected};
use crate::ledger::Ledger;
use crate::schedule::DUELS;

impl World {
    /// A node ends, by a kill or in good order, and another begins in its place.
    pub(super) async fn restart(mut self, kill: bool) -> Result<Self, Violation> {
        let at = self.turn();
        let concerned: Vec<_> = (0..DUELS).filter(|duel| self.called[*duel] == at).collect();
        let under_way = self.calls.iter().any(|call| concerned.contains(&call.duel));
        self.count(if !kill {
            "restarted"
        } else if under_way {
            "killed with pushes unanswered"
        } else {
            "killed"
        });
        for player in self.players.iter_mut().filter(|player| player.node == at) {
            if player.line.is_some() && self.nodes.len() > 1 && kill {
                self.maybe_ghosts.insert((player.duel, player.viewer.user));
            }
            player.cut();
        }
        // Answers that are dropped undo nothing: those calls have taken their places.
        self.calls.retain(|call| !concerned.contains(&call.duel));
        self.nodes.remove(at).end(&self.environment.store, kill).await;
        let node = self.environment.start(at).await;
        // Of a process that stops, what it has not read by then is not there; a hub has had every call at once.
        let complete = !kill && node.keeps_order_of_calls();
        self.nodes.insert(at, node);
        if self.nodes.len() == 1 {
            self.acked.clear();
        }
        if !self.deployment.kind().is_durable() {
            self.ledger = Ledger::default();
        }
        for duel in concerned {
            if self.deployment.kind().is_durable() {
                self.come_back(duel, complete).await?;
            } else {
                self.histories[duel].begin_anew();
            }
            self.check_log(duel).await?;
        }
        Ok(self)
    }

    /// Learns what of the calls under way a durable engine has kept.
    async fn come_back(&mut self, duel: usize, complete: bool) -> Result<(), Violation> {
        let found = self.engine().get(self.histories[duel].duel).await;
        let history = &mut self.histories[duel];
        let head = match found {
            Ok(Some(record)) => record.head.position,
            Ok(None) => {
                history.come_back(0, complete)?;
                // Somebody may have entered the duel before it had an event; that is nothing to come back to.
                history.begin_anew();
                return Ok(());
            }
            Err(error) => return unexpected(format!("after a restart: {error}")),
        };
        let before = history.len();
        history.come_back(head.seq, complete)?;
        history.go_on(head.epoch, self.deployment.kind().begins_an_epoch())?;
        if head.seq < before {
            self.count("lost at a kill, unanswered");
        }
        Ok(())
    }

    /// Holds everything that the log holds against the model.
    pub(super) async fn check_log(&mut self, duel: usize) -> Result<(), Violation> {
        let history = &self.histories[duel];
        let engine = self.engine();
        let Some(record) = engine.get(history.duel).await.unwrap() else {
            return ensure(history.len() == 0, Violation::Lost(1));
        };
        let declared = record.participants.is_some();
        expect(declared == history.declared, || "its participants".to_owned())?;
        let head = record.head;
        let before = Position { seq: head.oldest_seq.saturating_sub(1), ..head.position };
        match engine.read(history.duel, before, usize::MAX).await.unwrap() {
            Page::Events(events) => history.check_log(&head, &events),
            Page::Gone | Page::Ended => unexpected(format!("gone, with a head of {head:?}")),
        }
    }
}
