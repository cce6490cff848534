//! A backend: pushes to a duel of its own over the stream, as fast as it may, and repeats what was not answered.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use duelhub::pb;
use duelhub::pb::push_events_response::Outcome;
use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{DuelUnderTest, Shared};
use crate::kit::noise;

/// Unanswered pushes at a time. Fewer than the 256 keys that a duel remembers, or a repeated push might be stored twice.
const WINDOW: usize = 96;

/// How far the slower player may lag behind, in events.
const LAG_MAX: u64 = 4000;

/// One event, by the producer's own count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Item {
    id: u32,
    /// It was sent before.
    again: bool,
    /// It may have been stored before.
    maybe_stored: bool,
}

pub(super) struct Producer {
    duel: Arc<DuelUnderTest>,
    dice: StdRng,
    stop: Arc<AtomicBool>,
    /// Where each acknowledged event is.
    positions: HashMap<u32, u64>,
    /// Sent and not answered, in the order in which they were sent.
    unanswered: VecDeque<Item>,
    /// Answered with an error, in that order.
    failed: Vec<Item>,
    /// To be sent before anything new.
    again: VecDeque<Item>,
    next_id: u32,
}

/// What a producer knows in the end: where each of its events is.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) duel: Arc<DuelUnderTest>,
    /// By `seq`, from 1.
    ids: Vec<u32>,
}

/// What event `id` of `duel` says. Lengths differ, so that writes end anywhere in a page; a few are long, so that there are
/// tables and further journals.
pub(super) fn payload(duel: u64, id: u32) -> String {
    let short = usize::try_from(id.wrapping_mul(2_654_435_761) >> 23).unwrap();
    let fill = noise(id.into(), if id.is_multiple_of(23) { short * 90 } else { short });
    format!(r#"{{"duel_id":{duel},"id":{id},"fill":"{fill}"}}"#)
}

impl Producer {
    pub(super) fn new(duel: Arc<DuelUnderTest>, dice: StdRng, stop: Arc<AtomicBool>) -> Self {
        Self {
            duel,
            dice,
            stop,
            positions: HashMap::new(),
            unanswered: VecDeque::new(),
            failed: Vec::new(),
            again: VecDeque::new(),
            next_id: 1,
        }
    }

    /// Pushes until it is told to stop and everything is answered.
    pub(super) async fn run(mut self, shared: Arc<Shared>) -> Log {
        loop {
            if self.stream(&shared).await {
                return self.log();
            }
            self.begin_again();
            tokio::time::sleep(Duration::from_millis(self.dice.random_range(1..30))).await;
        }
    }

    /// Something new first, then what was not stored for certain, in the order of before.
    fn begin_again(&mut self) {
        let lost = std::mem::take(&mut self.unanswered).into_iter();
        let lost = lost.map(|item| Item { maybe_stored: true, ..item });
        self.again = std::mem::take(&mut self.failed)
            .into_iter()
            .chain(lost)
            .chain(self.again.drain(..))
            .collect();
        if self.again.front().is_some_and(|first| first.again) {
            let marker = self.new_item();
            self.again.push_front(marker);
        }
    }

    /// One stream, until it breaks or a push fails: whether all is done.
    async fn stream(&mut self, shared: &Shared) -> bool {
        let (pushes, stream) = mpsc::channel(WINDOW);
        let opening = shared.backend.client.clone();
        let opened = { opening }.push_events(ReceiverStream::new(stream)).await;
        let Ok(answers) = opened else { return false };
        let mut answers = answers.into_inner();
        loop {
            while self.failed.is_empty() && self.unanswered.len() < WINDOW {
                let Some(item) = self.next_item() else { break };
                self.unanswered.push_back(Item { again: true, ..item });
                let push = Some(self.push(item));
                if pushes.send(pb::PushEventsRequest { tag: item.id.into(), push }).await.is_err() {
                    return false;
                }
            }
            if self.unanswered.is_empty() {
                if !self.failed.is_empty() {
                    return false;
                }
                if self.stop.load(Ordering::Relaxed) {
                    return true;
                }
                // The players are too far behind.
                tokio::time::sleep(Duration::from_millis(5)).await;
            } else if !self.answer(&mut answers).await {
                return false;
            }
        }
    }

    fn new_item(&mut self) -> Item {
        self.next_id += 1;
        Item { id: self.next_id - 1, again: false, maybe_stored: false }
    }

    fn next_item(&mut self) -> Option<Item> {
        let may_go_on = || {
            let served = self.duel.served.iter().map(|seq| seq.load(Ordering::Relaxed)).min();
            let behind = u64::from(self.next_id) - served.unwrap_or(0);
            !self.stop.load(Ordering::Relaxed) && behind < LAG_MAX
        };
        match self.again.pop_front() {
            Some(item) => Some(item),
            None => may_go_on().then(|| self.new_item()),
        }
    }

    fn push(&self, item: Item) -> pb::PushEventRequest {
        pb::PushEventRequest {
            duel_id: self.duel.id,
            payload_json: payload(self.duel.id, item.id),
            idempotency_key: format!("event-{}", item.id),
            ..Default::default()
        }
    }

    /// Takes the next answer, if the stream has not broken.
    async fn answer(&mut self, answers: &mut Streaming<pb::PushEventsResponse>) -> bool {
        let Ok(Some(answer)) = answers.message().await else { return false };
        let item = self.unanswered.pop_front().expect("nothing is answered that was not asked");
        assert_eq!(answer.tag, u64::from(item.id), "answers come in the order of the pushes");
        let pushed = match answer.outcome.unwrap() {
            Outcome::Pushed(pushed) => pushed,
            Outcome::Error(error) => {
                let away = ["ENGINE_UNAVAILABLE", "LIMIT_REACHED"];
                assert!(away.contains(&error.reason.as_str()), "event {}: {error:?}", item.id);
                let maybe_stored = item.maybe_stored || error.may_have_taken_effect;
                self.failed.push(Item { maybe_stored, ..item });
                return true;
            }
        };
        let possible = item.maybe_stored || !pushed.duplicate;
        assert!(possible, "event {} was stored, though that was ruled out", item.id);
        self.positions.insert(item.id, pushed.position.unwrap().seq);
        true
    }

    fn log(self) -> Log {
        let mut ids = vec![0; self.positions.len()];
        for (id, seq) in &self.positions {
            let index = usize::try_from(*seq).unwrap() - 1;
            let room = ids.get_mut(index).unwrap_or_else(|| panic!("event {id} is beyond: {seq}"));
            assert_eq!(*room, 0, "two events were acknowledged at {seq}: {id} and {room}");
            *room = *id;
        }
        // As many positions as events, and none twice: so none is left out.
        Log { duel: self.duel, ids }
    }
}

impl Log {
    /// The last position.
    pub(super) fn last(&self) -> u64 {
        self.ids.len() as u64
    }

    /// `seen` must be what was acknowledged, at the same positions.
    pub(super) fn compare(&self, who: &str, seen: &[u32]) {
        let duel = self.duel.id;
        for (index, id) in self.ids.iter().enumerate() {
            let there = seen.get(index);
            let seq = index + 1;
            assert_eq!(there, Some(id), "duel {duel}, {who}: another event at {seq}");
        }
        assert_eq!(seen.len(), self.ids.len(), "duel {duel}, {who}: more than was acknowledged");
    }

    /// What the hub says of the duel.
    pub(super) async fn check_head(&self, shared: &Shared) {
        let duel = shared.backend.duel(self.duel.id).await;
        assert_eq!((duel.position.unwrap().seq, duel.oldest_seq), (self.last(), 1));
    }
}
