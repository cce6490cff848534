//! What a hub has acknowledged, and so must never deny: events at their positions, tickets used, duels closed.

use std::collections::BTreeMap;

use duelhub::pb;
use serde_json::{Value, json};
use tokio_stream::wrappers::ReceiverStream;

use super::{Backend, Hub, Join, Player, noise, push, soon};

/// The user who looks at what is there; takes part in no duel that was declared.
const READER: u64 = 9000;

/// What was acknowledged.
#[derive(Debug, Default, Clone)]
pub(crate) struct Facts {
    duels: BTreeMap<u64, Log>,
    used_tickets: Vec<String>,
    closed: Vec<u64>,
}

/// What was acknowledged of one duel.
#[derive(Debug, Clone)]
struct Log {
    /// The latest known. Every start of a hub begins another, which goes on from it.
    epoch: String,
    /// By `seq`.
    payloads: BTreeMap<u64, Value>,
}

impl Facts {
    /// Pushes `count` events of about `bytes` each, numbered on from the last, and notes where they are.
    pub(crate) async fn push(&mut self, backend: &Backend, duel: u64, count: u64, bytes: usize) {
        let known = self.duels.get(&duel).map_or(0, |log| log.payloads.len() as u64);
        let payloads: Vec<_> = (known + 1..=known + count)
            .map(|n| json!({"duel_id": duel, "n": n, "fill": noise(n, bytes)}))
            .collect();
        let pushes = payloads.iter().map(|payload| push(duel, &payload.to_string())).collect();
        for (payload, answer) in payloads.iter().zip(push_many(backend, pushes).await) {
            let position = answer.unwrap().position.unwrap();
            self.note(duel, &position, payload.clone());
        }
    }

    /// This event was acknowledged at this position.
    fn note(&mut self, duel: u64, position: &pb::Position, payload: Value) {
        let log = self
            .duels
            .entry(duel)
            .or_insert_with(|| Log { epoch: position.epoch.clone(), payloads: BTreeMap::new() });
        log.epoch.clone_from(&position.epoch);
        let before = log.payloads.insert(position.seq, payload);
        assert!(before.is_none(), "duel {duel}: {} was given out before", position.seq);
    }

    /// Opens a connection, which uses its ticket up.
    pub(crate) async fn use_ticket(&mut self, hub: &Hub, backend: &Backend, duel: u64) {
        let ticket = backend.ticket(duel, READER).await;
        Player::join(hub, Join::ticket(&ticket)).await;
        self.used_tickets.push(ticket);
    }

    /// Closes a duel of its own.
    pub(crate) async fn close(&mut self, backend: &Backend, duel: u64) {
        backend.close(duel).await;
        self.closed.push(duel);
    }

    /// The epoch of a duel that was pushed to.
    pub(crate) fn epoch(&self, duel: u64) -> &str {
        &self.duels[&duel].epoch
    }

    /// Whether the hub has all of it, and goes on from the epoch in which it was acknowledged.
    pub(crate) async fn hold(&self, hub: &Hub) -> Result<(), String> {
        let backend = Backend::connect(hub).await;
        for (duel, log) in &self.duels {
            log.holds(hub, &backend, *duel).await?;
        }
        self.hold_besides(hub, &backend).await
    }

    async fn hold_besides(&self, hub: &Hub, backend: &Backend) -> Result<(), String> {
        for ticket in &self.used_tickets {
            let mut player = Player::knock(hub, Join::ticket(ticket)).await;
            player.next().await;
            if player.error["message"] != "ticket_already_used" {
                return Err(format!("a ticket used before: {}", player.connected));
            }
        }
        for duel in &self.closed {
            let status = backend.client.clone().push_event(push(*duel, "{}")).await.err();
            if status.as_ref().is_none_or(|status| status.code() != tonic::Code::FailedPrecondition)
            {
                return Err(format!("closed duel {duel}: {status:?}"));
            }
        }
        Ok(())
    }
}

impl Log {
    async fn holds(&self, hub: &Hub, backend: &Backend, duel: u64) -> Result<(), String> {
        let epoch = backend.duel(duel).await.position.unwrap().epoch;
        let last = self.payloads.keys().last().copied().unwrap_or(0);
        let join = Join::ticket(backend.ticket(duel, READER).await);
        let mut player = Player::knock(hub, join.resume(format!("{}:0", self.epoch))).await;
        let newest = |player: &Player| player.events.last().and_then(|event| event["seq"].as_u64());
        while newest(&player).unwrap_or(0) < last {
            if !player.next().await {
                return Err(format!(
                    "duel {duel}, after {:?} of {last}: {:?} {:?}",
                    newest(&player),
                    player.error,
                    player.closed
                ));
            }
            if player.connected["recovered"] != true || player.connected["epoch"] != epoch {
                return Err(format!("duel {duel}, not {}:0: {}", self.epoch, player.connected));
            }
        }
        for (index, event) in player.events.iter().enumerate() {
            let seq = index as u64 + 1;
            let expected = self.payloads.get(&seq);
            let as_noted = expected.is_none_or(|payload| event["payload"] == *payload);
            if event["seq"] != seq || !as_noted {
                return Err(format!("duel {duel}: {seq} holds {:.200}", event.to_string()));
            }
        }
        Ok(())
    }
}

/// Pushes over one stream; the answers in the order of the pushes.
async fn push_many(
    backend: &Backend,
    pushes: Vec<pb::PushEventRequest>,
) -> Vec<Result<pb::PushEventResponse, pb::PushError>> {
    use pb::push_events_response::Outcome;
    let count = pushes.len();
    let (sender, receiver) = tokio::sync::mpsc::channel(count.max(1));
    let requests = pushes.into_iter().enumerate();
    for (tag, push) in requests {
        let request = pb::PushEventsRequest { tag: tag as u64, push: Some(push) };
        sender.try_send(request).unwrap();
    }
    let stream = ReceiverStream::new(receiver);
    let opening = backend.client.clone();
    let mut answers = { opening }.push_events(stream).await.unwrap().into_inner();
    let mut outcomes = Vec::new();
    while outcomes.len() < count {
        let answer = soon("an answer", answers.message()).await.unwrap().unwrap();
        assert_eq!(answer.tag, outcomes.len() as u64, "answers come in the order of the pushes");
        outcomes.push(match answer.outcome.unwrap() {
            Outcome::Pushed(pushed) => Ok(pushed),
            Outcome::Error(error) => Err(error),
        });
    }
    outcomes
}
