//! What the backend does: push, declare, close, and await the answers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use duelhub::engine::{AppendError, Declaration, OpenError, Participant};
use duelhub::event::Ending;
use duelhub::hub::Pushed;
use duelhub::id::TelegramId;

use super::World;
use crate::check::{Objection, ensure, unexpected};
use crate::history::Expected;
use crate::players::PLAYERS;
use crate::spec::{Spec, user};

type Answer = Pin<Box<dyn Future<Output = Result<Pushed, AppendError>> + Send>>;

/// A push or close whose answer is awaited later.
pub(super) struct Call {
    duel: usize,
    /// To how many connections it is handed, if none comes or goes until it is answered.
    handed_to: Option<usize>,
    expected: Expected,
    answer: Answer,
}

impl World {
    /// Whether no answer of this duel is awaited.
    pub(super) fn is_quiet(&self, duel: usize) -> bool {
        self.histories[duel].under_way == 0
    }

    pub(super) fn push(&mut self, duel: usize, spec: &Spec, awaited: bool) {
        let history = &mut self.histories[duel];
        let expected = history.push(spec);
        let answer =
            self.node.hub.push(history.duel, spec.push(history.duel), spec.idempotency_key());
        let handed_to = awaited.then(|| self.connections(duel, spec));
        self.call(Call { duel, handed_to, expected, answer: Box::pin(answer) });
    }

    pub(super) fn close(&mut self, duel: usize, ending: Ending, last: Option<Spec>) {
        let history = &mut self.histories[duel];
        let (id, hub) = (history.duel, Arc::clone(&self.node.hub));
        let push = last.as_ref().map(|spec| spec.push(id));
        let expected = history.close(ending, last);
        let mut answer: Answer = Box::pin(async move { hub.close(id, ending, push).await });
        // It takes its place among the other calls when it is first looked at.
        if let Poll::Ready(closed) = answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            answer = Box::pin(std::future::ready(closed));
        }
        self.call(Call { duel, handed_to: None, expected, answer });
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
    pub(super) async fn settle(&mut self, backwards: bool) -> Result<(), Objection> {
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
            let handed = format!("handed to {} of {concerned}", pushed.connections);
            ensure(pushed.connections == concerned, Objection::Unexpected(handed))?;
        }
        Ok(())
    }

    /// How many connections an event is handed to.
    fn connections(&self, duel: usize, spec: &Spec) -> usize {
        let here =
            self.players.iter().filter(|player| player.duel == duel && player.line.is_some());
        here.filter(|player| spec.includes(player.viewer)).count()
    }

    /// Declares those who take part.
    pub(super) async fn declare(&mut self, duel: usize) -> Result<(), Objection> {
        let participant = |id: &u64| {
            let telegram = TelegramId::try_from(1000 + id).unwrap();
            Participant { user: user(*id), telegram }
        };
        let users: std::collections::BTreeSet<_> =
            PLAYERS.iter().filter(|(at, ..)| *at == duel).map(|(_, id, _)| *id).collect();
        let participants = users.iter().map(participant).collect();
        let declaration = Declaration { participants, settings: None };
        let opened = self.node.hub.open(self.histories[duel].duel, declaration).await;
        let history = &mut self.histories[duel];
        match (history.ending(), opened) {
            (None, Ok(opened)) => {
                history.declared = true;
                let least = history.settled();
                ensure(opened.position.seq >= least, Objection::NoPosition(opened.position))?;
                history.witness(opened.position)
            }
            (Some(_), Err(OpenError::Closed)) => Ok(()),
            (ending, opened) => unexpected(format!("{opened:?} while {ending:?}")),
        }
    }
}
