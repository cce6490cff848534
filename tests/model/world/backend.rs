//! What the backend does: push, declare, close, and await the answers.

use duelhub::engine::{Declaration, OpenError, Participant};
use duelhub::event::Outcome;
use duelhub::id::TelegramId;
use duelhub_testkit::until;

use super::{World, there};
use crate::check::{Violation, ensure, expect, unexpected};
use crate::devices::PLAYERS;
use crate::history::Expected;
use crate::node::{ClientConnection, PendingAnswer};
use crate::spec::{Spec, user};

/// A push or close whose answer is awaited later.
pub(super) struct Call {
    pub(super) duel: usize,
    /// To how many connections it is handed, if none comes or goes until it is answered.
    handed_to: Option<usize>,
    expected: Expected,
    answer: PendingAnswer,
}

impl World {
    /// Whether no answer of this duel is awaited.
    pub(super) fn is_quiet(&self, duel: usize) -> bool {
        self.histories[duel].under_way == 0
    }

    pub(super) async fn push(&mut self, duel: usize, spec: &Spec, awaited: bool) {
        let node = self.node_to_call(duel);
        if awaited {
            self.left(duel, node).await;
        }
        let history = &mut self.histories[duel];
        let expected = history.push(spec);
        let answer = self.nodes[node].push(history.duel, spec);
        let handed_to = awaited.then(|| self.connections(duel, node, spec));
        self.call(Call { duel, handed_to, expected, answer });
    }

    pub(super) async fn close(
        &mut self,
        duel: usize,
        outcome: Outcome,
        last: Option<&Spec>,
    ) -> Result<(), Violation> {
        let node = self.node_to_call(duel);
        let in_order = self.nodes[node].keeps_order_of_calls();
        if !in_order {
            self.settle(false).await?;
        }
        let history = &mut self.histories[duel];
        let answer = self.nodes[node].close(history.duel, outcome, last);
        let expected = history.close(outcome, last.cloned());
        self.call(Call { duel, handed_to: None, expected, answer });
        if in_order {
            return Ok(());
        }
        self.settle(false).await?;
        // A process closes the connections by itself.
        let mut too_slow = 0;
        for player in self.players.iter().filter(|player| player.duel == duel) {
            until("closed", || async { player.open_line().is_none() }).await;
            let line = player.line.as_ref().map(|(line, _)| line);
            // A log of a few events may have gone on without somebody, who finds out when they read.
            too_slow += usize::from(line.is_some_and(ClientConnection::is_too_slow));
            let as_expected = line.is_none_or(|line| {
                line.is_over() || line.is_too_slow() || line.close_request().is_some()
            });
            expect(as_expected, || format!("closed for another reason: {line:?}"))?;
        }
        (0..too_slow).for_each(|_| self.count("too slow"));
        Ok(())
    }

    fn call(&mut self, call: Call) {
        self.histories[call.duel].under_way += 1;
        self.count(match call.expected {
            Expected::Stored(_) => "stored",
            Expected::Duplicate(_) => "a duplicate",
            Expected::KeyReused => "a key reused for another content",
            Expected::Closed => "a push to a closed duel",
        });
        self.calls.push(call);
    }

    /// Awaits all answers, the first one first or last.
    pub(super) async fn settle(&mut self, backwards: bool) -> Result<(), Violation> {
        let mut calls = std::mem::take(&mut self.calls);
        if backwards {
            calls.reverse();
        }
        for Call { duel, handed_to, expected, answer } in calls {
            let answer = answer.await;
            let history = &mut self.histories[duel];
            history.answered(expected, answer)?;
            history.under_way -= 1;
            let (Expected::Stored(_), Ok(pushed), Some(concerned)) = (expected, answer, handed_to)
            else {
                continue;
            };
            expect(pushed.connections == concerned, || {
                format!("handed to {} of {concerned}", pushed.connections)
            })?;
        }
        Ok(())
    }

    /// How many connections of the node an event is handed to.
    fn connections(&self, duel: usize, node: usize, spec: &Spec) -> usize {
        there(&self.players, duel, node).filter(|player| spec.includes(player.viewer)).count()
    }

    /// Declares those who take part.
    pub(super) async fn declare(&mut self, duel: usize) -> Result<(), Violation> {
        let participant = |id: &u64| {
            let telegram = TelegramId::try_from(1000 + id).unwrap();
            Participant { user: user(*id), telegram }
        };
        let users: std::collections::BTreeSet<_> =
            PLAYERS.iter().filter(|(at, ..)| *at == duel).map(|(_, id, _)| *id).collect();
        let participants = users.iter().map(participant).collect();
        let declaration = Declaration { participants, settings: None, reopen: false };
        let node = self.node_to_call(duel);
        let opened = self.nodes[node].open(self.histories[duel].duel, declaration).await;
        let history = &mut self.histories[duel];
        match (history.outcome(), opened) {
            (None, Ok(opened)) => {
                history.declared = true;
                let least = history.settled();
                ensure(opened.seq >= least, Violation::NoPosition(opened))?;
                history.witness(opened)
            }
            (Some(_), Err(OpenError::Closed)) => Ok(()),
            (outcome, opened) => unexpected(format!("{opened:?} while {outcome:?}")),
        }
    }
}
