//! A player who always comes back: with the resume ticket or a fresh one, from the last position seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use duelhub::pb;
use futures_util::{SinkExt as _, StreamExt as _};
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::producer::payload;
use super::{Arena, Field};
use crate::kit::{Hub, Join, Player, soon, until};

type Socket = WebSocketStream<TcpStream>;

/// What of a frame is looked at.
#[derive(Debug, Deserialize)]
struct Frame<'a> {
    r#type: &'a str,
    seq: Option<u64>,
    epoch: Option<&'a str>,
    recovered: Option<bool>,
    resume_ticket: Option<String>,
    #[serde(borrow)]
    payload: Option<&'a serde_json::value::RawValue>,
    message: Option<&'a str>,
}

#[derive(Debug, Deserialize)]
struct Payload {
    id: u32,
}

/// A player in one duel.
pub(super) struct Follower {
    arena: Arc<Arena>,
    index: usize,
    dice: StdRng,
    /// Of the last `connected`.
    epoch: String,
    /// What was received: by `seq`, from 1.
    ids: Vec<u32>,
    resume_ticket: Option<String>,
    /// Leaves by itself at this position, to come back.
    leaves_at: usize,
}

/// What a player has seen in the end.
#[derive(Debug)]
pub(super) struct Followed {
    pub(super) duel: u64,
    pub(super) ids: Vec<u32>,
}

impl Arena {
    /// Opens a duel between the two players.
    pub(super) async fn open(field: &Field, duel: u64) -> Self {
        let participants =
            [1, 2].map(|user_id| pb::Participant { user_id, telegram_id: 0 }).to_vec();
        let request = pb::OpenDuelRequest { duel_id: duel, participants, settings: None };
        let opened = field.client.clone().open_duel(request).await.unwrap().into_inner();
        let epoch = opened.position.unwrap().epoch;
        let served = [AtomicU64::new(0), AtomicU64::new(0)];
        Self { duel, epoch, served, last: watch::Sender::new(None) }
    }
}

impl Follower {
    pub(super) fn new(arena: Arc<Arena>, index: usize, dice: StdRng) -> Self {
        let epoch = arena.epoch.clone();
        Self {
            arena,
            index,
            dice,
            epoch,
            ids: Vec::new(),
            resume_ticket: None,
            leaves_at: usize::MAX,
        }
    }

    /// Follows until it has everything there will be.
    pub(super) async fn run(mut self, field: Arc<Field>) -> Followed {
        loop {
            if let Some(ticket) = self.ticket(&field).await
                && let Some(mut socket) = self.connect(&field, &ticket).await
                && self.follow(&field, &ticket, &mut socket).await
            {
                return Followed { duel: self.arena.duel, ids: self.ids };
            }
            tokio::time::sleep(Duration::from_millis(self.dice.random_range(1..30))).await;
        }
    }

    /// A ticket that was never shown before: one that was may have been used, even if nothing was heard of it.
    async fn ticket(&mut self, field: &Field) -> Option<String> {
        let resume = self.resume_ticket.take();
        if self.dice.random_bool(0.5) && resume.is_some() {
            return resume;
        }
        let user_id = self.index as u64 + 1;
        let request =
            pb::IssueTicketRequest { duel_id: self.arena.duel, user_id, ..Default::default() };
        let issued = field.client.clone().issue_ticket(request).await;
        Some(issued.ok()?.into_inner().ticket)
    }

    async fn connect(&self, field: &Field, ticket: &str) -> Option<Socket> {
        let resume = format!("{}:{}", self.epoch, self.ids.len());
        let url = format!("ws://{}/ws?ticket={ticket}&resume={resume}", field.edge);
        let stream = TcpStream::connect(field.edge).await.ok()?;
        let config = WebSocketConfig::default().read_buffer_size(16 * 1024);
        let (mut socket, _) = client_async_with_config(url, stream, Some(config)).await.ok()?;
        socket.send(Message::text(r#"{"type":"ping"}"#)).await.ok()?;
        Some(socket)
    }

    /// Takes frames until the socket breaks: whether everything has come.
    async fn follow(&mut self, field: &Field, ticket: &str, socket: &mut Socket) -> bool {
        let mut last = self.arena.last.subscribe();
        self.leaves_at = self.ids.len() + self.dice.random_range(1..20_000);
        loop {
            let seen = self.ids.len() as u64;
            if *last.borrow_and_update() == Some(seen) {
                return self.nothing_follows(socket).await;
            }
            if self.ids.len() >= self.leaves_at {
                return false;
            }
            let received = tokio::select! {
                received = socket.next() => received,
                _changed = last.changed() => continue,
            };
            match received {
                Some(Ok(Message::Text(text))) => self.take(field, ticket, &text),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return false,
            }
        }
    }

    fn take(&mut self, field: &Field, ticket: &str, text: &str) {
        let frame: Frame<'_> = serde_json::from_str(text).unwrap_or_else(|_| panic!("{text}"));
        let duel = self.arena.duel;
        let seen = self.ids.len() as u64;
        match frame.r#type {
            "connected" => {
                field.used.lock().push(ticket.to_owned());
                let continued = (frame.recovered, frame.seq);
                let expected = (Some(true), Some(seen));
                assert_eq!(continued, expected, "duel {duel}: what was seen is not there any more");
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
                self.arena.served[self.index].store(seen + 1, Ordering::Relaxed);
            }
            "presence" | "pong" => {}
            // The engine is away: come back.
            "error" if frame.message == Some("internal") => {}
            // It is never stopped in good order, and a ticket is shown once.
            _ => panic!("duel {duel}: {} {:?}: {text:.200}", frame.r#type, frame.message),
        }
    }

    /// Whether a pong comes, and no event before it.
    async fn nothing_follows(&self, socket: &mut Socket) -> bool {
        if socket.send(Message::text(r#"{"type":"ping"}"#)).await.is_err() {
            return false;
        }
        while let Some(Ok(message)) = soon("a pong", socket.next()).await {
            let Message::Text(text) = message else { continue };
            let frame: Frame<'_> = serde_json::from_str(&text).unwrap();
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
pub(super) async fn read_from_the_start(field: &Field, hub: &Hub, arena: &Arena) -> Vec<u32> {
    let request = pb::IssueTicketRequest {
        duel_id: arena.duel,
        user_id: 3,
        role: pb::Role::Spectator.into(),
        ttl: None,
    };
    let issued = field.client.clone().issue_ticket(request).await.unwrap().into_inner();
    let request = pb::GetDuelRequest { duel_id: arena.duel };
    let duel = field.client.clone().get_duel(request).await.unwrap().into_inner().duel.unwrap();
    let epoch = duel.position.unwrap().epoch;
    let join = Join::ticket(issued.ticket).resume(format!("{epoch}:0"));
    let mut player = Player::join(hub, join).await;
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
