//! A player who always comes back: with the resume ticket or a fresh one, from the last position seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use duelhub_testkit::{Frame, PING};
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde::Deserialize;
use tokio::sync::watch;

use super::producer::payload;
use super::{DuelUnderTest, Shared};
use crate::kit::{Hub, Join, Player, soon, until};

#[derive(Debug, Deserialize)]
struct Payload {
    id: u32,
}

/// A player in one duel.
pub(super) struct ReturningPlayer {
    duel: Arc<DuelUnderTest>,
    index: usize,
    dice: StdRng,
    /// Of the last `connected`.
    epoch: String,
    /// What was received: by `seq`, from 1.
    ids: Vec<u32>,
    resume_ticket: Option<String>,
    /// The ticket by which it came last.
    came_by: Option<Credential>,
    /// Leaves by itself at this position, to come back.
    leaves_at: usize,
}

/// What opens a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Credential {
    /// Works once.
    Ticket(String),
    /// Works until its successor was used.
    Resume(String),
}

impl Credential {
    fn text(&self) -> &str {
        match self {
            Self::Ticket(text) | Self::Resume(text) => text,
        }
    }
}

/// What a player has seen in the end.
#[derive(Debug)]
pub(super) struct Followed {
    pub(super) duel: u64,
    pub(super) ids: Vec<u32>,
}

impl DuelUnderTest {
    /// Opens a duel between the two players.
    pub(super) async fn open(shared: &Shared, id: u64) -> Self {
        let epoch = shared.backend.open(id, &[1, 2]).await.position.unwrap().epoch;
        let served = [AtomicU64::new(0), AtomicU64::new(0)];
        Self { id, epoch, served, last: watch::Sender::new(None) }
    }
}

impl ReturningPlayer {
    pub(super) fn new(duel: Arc<DuelUnderTest>, index: usize, dice: StdRng) -> Self {
        let epoch = duel.epoch.clone();
        Self {
            duel,
            index,
            dice,
            epoch,
            ids: Vec::new(),
            resume_ticket: None,
            came_by: None,
            leaves_at: usize::MAX,
        }
    }

    /// Follows until it has everything there will be.
    pub(super) async fn run(mut self, shared: Arc<Shared>) -> Followed {
        loop {
            if let Some(ticket) = self.ticket(&shared).await
                && let Some(mut player) = self.connect(&shared, ticket.text()).await
                && !self.loses_welcome().await
                && self.follow(&shared, &ticket, &mut player).await
            {
                return Followed { duel: self.duel.id, ids: self.ids };
            }
            tokio::time::sleep(Duration::from_millis(self.dice.random_range(1..30))).await;
        }
    }

    /// The resume ticket, as often as it takes until its successor is there; or a ticket that was never shown before.
    async fn ticket(&mut self, shared: &Shared) -> Option<Credential> {
        let resume = self.resume_ticket.clone();
        if self.dice.random_bool(0.7) && resume.is_some() {
            return resume.map(Credential::Resume);
        }
        let issued = shared.backend.try_issue(self.duel.id, self.index as u64 + 1).await;
        Some(Credential::Ticket(issued.ok()?.ticket))
    }

    /// Sometimes the network dies at some moment between the ticket's use and the end of `connected`.
    async fn loses_welcome(&mut self) -> bool {
        let loses = self.dice.random_bool(0.2);
        if loses {
            tokio::time::sleep(Duration::from_millis(self.dice.random_range(0..5))).await;
        }
        loses
    }

    async fn connect(&self, shared: &Shared, ticket: &str) -> Option<Player> {
        let resume = format!("{}:{}", self.epoch, self.ids.len());
        let join = Join::ticket(ticket).resume(resume);
        let mut player = Player::try_knock(&shared.addresses, join).await.ok()?;
        player.try_send(PING).await.ok()?;
        Some(player)
    }

    /// Takes frames until the socket breaks: whether everything has come.
    async fn follow(&mut self, shared: &Shared, ticket: &Credential, player: &mut Player) -> bool {
        let mut last = self.duel.last.subscribe();
        self.leaves_at = self.ids.len() + self.dice.random_range(1..20_000);
        loop {
            let seen = self.ids.len() as u64;
            if *last.borrow_and_update() == Some(seen) {
                return self.nothing_follows(player).await;
            }
            if self.ids.len() >= self.leaves_at {
                return false;
            }
            let text = tokio::select! {
                text = player.next_text() => text,
                _changed = last.changed() => continue,
            };
            let Some(text) = text else { return false };
            self.take(shared, ticket, &text);
        }
    }

    fn take(&mut self, shared: &Shared, ticket: &Credential, text: &str) {
        let frame = Frame::parse(text);
        let duel = self.duel.id;
        let seen = self.ids.len() as u64;
        match frame.r#type {
            "connected" => {
                let kept = frame.recovered == Some(true) && frame.head >= Some(seen);
                assert!(kept, "duel {duel}: what was seen is not there any more: {text:.200}");
                self.note_used(shared, ticket);
                frame.epoch.unwrap().clone_into(&mut self.epoch);
                self.resume_ticket = frame.resume_ticket;
            }
            "duel_update" => {
                assert_eq!(
                    frame.seq,
                    Some(seen + 1),
                    "duel {duel}: in order, each once: {text:.200}"
                );
                let raw = frame.payload.unwrap().get();
                let Payload { id } = serde_json::from_str(raw).unwrap();
                assert_eq!(raw, payload(duel, id), "duel {duel}: at {}", seen + 1);
                self.ids.push(id);
                self.duel.served[self.index].store(seen + 1, Ordering::Relaxed);
            }
            "presence" | "pong" => {}
            // The engine is away: come back.
            "error" if frame.message == Some("internal") => {}
            // It is never stopped in good order, and a ticket is shown once.
            _ => panic!("duel {duel}: {} {:?}: {text:.200}", frame.r#type, frame.message),
        }
    }

    /// Notes what cannot be used any more: a ticket, and a resume ticket whose successor was used.
    fn note_used(&mut self, shared: &Shared, ticket: &Credential) {
        let before = self.came_by.replace(ticket.clone());
        match (before, ticket) {
            (_, Credential::Ticket(text)) => shared.used.lock().push(text.clone()),
            (Some(Credential::Resume(before)), Credential::Resume(now)) if before != *now => {
                shared.used.lock().push(before);
            }
            _ => {}
        }
    }

    /// Whether a pong comes, and no event before it.
    async fn nothing_follows(&self, player: &mut Player) -> bool {
        if player.try_send(PING).await.is_err() {
            return false;
        }
        while let Some(text) = soon("a pong", player.next_text()).await {
            let frame = Frame::parse(&text);
            assert_ne!(frame.r#type, "duel_update", "beyond the last: {text:.200}");
            // The ping of before may be answered later than the events.
            if frame.r#type == "pong" && frame.seq == Some(self.ids.len() as u64) {
                return true;
            }
        }
        false
    }
}

/// What somebody receives who was never there, and asks for everything.
pub(super) async fn read_from_the_start(shared: &Shared, duel: &DuelUnderTest) -> Vec<u32> {
    let epoch = shared.backend.duel(duel.id).await.position.unwrap().epoch;
    let join = Join::ticket(shared.backend.spectator_ticket(duel.id, 3).await);
    let join = join.resume(format!("{epoch}:0"));
    let mut player = Player::join(&shared.addresses, join).await;
    assert_eq!(player.connected["recovered"], true);
    player.ping().await;
    let id = |event: &serde_json::Value| u32::try_from(event["payload"]["id"].as_u64().unwrap());
    player.events.iter().map(|event| id(event).unwrap()).collect()
}

/// Every one of `tickets` was used, and the hub knows, at the latest once its engine is back.
pub(super) async fn refuse_all(hub: &Hub, tickets: &[String]) {
    for ticket in tickets {
        until("the ticket is refused", || async {
            let mut player = Player::knock(hub, Join::ticket(ticket)).await;
            player.next().await;
            let word = player.error["message"].as_str().unwrap_or_default();
            assert!(["ticket_already_used", "internal"].contains(&word), "{:?}", player.connected);
            word == "ticket_already_used"
        })
        .await;
    }
}
