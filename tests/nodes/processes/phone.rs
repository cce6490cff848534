//! A player's phone that finds its way: whatever happens to its connection, it comes back by itself, to another node, and
//! insists on every event, once and in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use duelhub::pb;
use duelhub::pb::control_service_client::ControlServiceClient;
use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

use super::chaos::Doors;

/// One of them.
#[derive(Debug)]
pub(super) struct Phone {
    doors: Doors,
    duel: u64,
    user: u64,
    /// The node that is tried next.
    node: usize,
    ticket: Option<String>,
    epoch: Option<String>,
    seq: u64,
    /// How often it came in.
    pub(super) came: u64,
    /// How many phones have ever come in.
    inside: Arc<AtomicU64>,
}

impl Phone {
    pub(super) fn new(
        doors: Doors,
        (duel, user): (u64, u64),
        node: usize,
        inside: Arc<AtomicU64>,
    ) -> Self {
        Self { doors, duel, user, node, ticket: None, epoch: None, seq: 0, came: 0, inside }
    }

    /// Follows the duel until it has seen as many events as there will ever have been.
    pub(super) async fn follow(mut self, last: Arc<AtomicU64>) -> Self {
        while self.seq < last.load(Ordering::Relaxed) {
            // Why it ended is not what it is about; what is wrong with an event is a panic.
            let _why = self.connect(&last).await;
            self.node += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self
    }

    async fn connect(&mut self, last: &AtomicU64) -> anyhow::Result<()> {
        let door = self.doors.nth(self.node);
        let ticket = match self.ticket.take() {
            Some(ticket) => ticket,
            None => self.fresh_ticket(door.control).await?,
        };
        let stream = TcpStream::connect(door.edge).await?;
        let resume = self.epoch.as_ref().map(|epoch| format!("&resume={epoch}:{}", self.seq));
        let resume = resume.unwrap_or_default();
        let url = format!("ws://{}/ws?ticket={ticket}{resume}", door.edge);
        let (mut ws, _) = client_async(url, stream).await?;
        while let Some(message) = ws.next().await {
            let Message::Text(text) = message? else { continue };
            let frame: Value = serde_json::from_str(&text)?;
            match frame["type"].as_str().context("a type")? {
                "connected" => self.welcome(&frame),
                "error" => anyhow::bail!("{}", frame["message"]),
                "presence" | "pong" => {}
                _ => self.take(&frame),
            }
            if self.seq >= last.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn fresh_ticket(&self, control: std::net::SocketAddr) -> anyhow::Result<String> {
        let mut client = ControlServiceClient::connect(format!("http://{control}")).await?;
        let role = pb::Role::Player.into();
        let (duel_id, user_id) = (self.duel, self.user);
        let request = pb::IssueTicketRequest { duel_id, user_id, role, ttl: None };
        let issued = client.issue_ticket(request).await?.into_inner();
        ensure!(!issued.ticket.is_empty());
        Ok(issued.ticket)
    }

    fn welcome(&mut self, frame: &Value) {
        self.came += 1;
        if self.came == 1 {
            self.inside.fetch_add(1, Ordering::Relaxed);
        }
        self.ticket = frame["resume_ticket"].as_str().map(str::to_owned);
        let (epoch, seq) = (frame["epoch"].as_str().unwrap(), frame["seq"].as_u64().unwrap());
        if let Some(known) = &self.epoch {
            assert_eq!(frame["recovered"], true, "Redis has everything");
            assert_eq!((known.as_str(), self.seq), (epoch, seq));
        }
        self.epoch = Some(epoch.to_owned());
        self.seq = seq;
    }

    fn take(&mut self, frame: &Value) {
        let seq = frame["seq"].as_u64().unwrap();
        // The state that a first connection starts with comes again.
        if self.came == 1 && seq <= self.seq {
            return;
        }
        assert_eq!(seq, self.seq + 1, "each event once and in order");
        assert_eq!(frame["payload"]["n"], seq, "the one that was pushed there");
        self.seq = seq;
    }
}
