//! Whoever declares, revokes and closes while the hub is being killed, and remembers what was acknowledged of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use duelhub::pb;
use duelhub::pb::revoke_tickets_request::Tickets;
use rand::RngExt as _;
use rand::rngs::StdRng;
use tonic::{Code, Status};

use super::Field;
use crate::kit::{Hub, Join, Player, push};

/// The warden's duels are apart from those of the rounds.
const FIRST_DUEL: u64 = 1_000_000;

pub(super) struct Warden {
    dice: StdRng,
    next_duel: u64,
    revoked: Vec<String>,
    closed: Vec<Closed>,
    declared: Vec<u64>,
}

/// A duel that was closed.
struct Closed {
    duel: u64,
    /// Of the end.
    seq: u64,
    /// Issued before, and never used.
    ticket: String,
}

impl Warden {
    pub(super) fn new(dice: StdRng) -> Self {
        let (revoked, closed, declared) = (Vec::new(), Vec::new(), Vec::new());
        Self { dice, next_duel: FIRST_DUEL, revoked, closed, declared }
    }

    /// Goes on until the run is over. What is not answered may or may not have happened, and is forgotten.
    pub(super) async fn run(mut self, field: Arc<Field>) -> Self {
        while !field.finish.load(Ordering::Relaxed) {
            self.next_duel += 1;
            let done = match self.dice.random_range(0..4) {
                0 => self.revoke_ticket(&field).await,
                1 => self.revoke_user(&field).await,
                2 => self.close(&field).await,
                _ => self.declare(&field).await,
            };
            if let Err(status) = done {
                let away = [Code::Unavailable, Code::Unknown, Code::Cancelled, Code::Internal];
                let full = status.code() == Code::ResourceExhausted;
                assert!(full || away.contains(&status.code()), "{status:?}");
            }
            tokio::time::sleep(Duration::from_millis(self.dice.random_range(1..40))).await;
        }
        self
    }

    async fn issue(&self, field: &Field) -> Result<pb::IssueTicketResponse, Status> {
        let request =
            pb::IssueTicketRequest { duel_id: self.next_duel, user_id: 1, ..Default::default() };
        Ok(field.client.clone().issue_ticket(request).await?.into_inner())
    }

    async fn revoke(&self, field: &Field, tickets: Tickets) -> Result<(), Status> {
        let request = pb::RevokeTicketsRequest { tickets: Some(tickets) };
        field.client.clone().revoke_tickets(request).await?;
        Ok(())
    }

    async fn revoke_ticket(&mut self, field: &Field) -> Result<(), Status> {
        let issued = self.issue(field).await?;
        self.revoke(field, Tickets::Jti(issued.jti)).await?;
        self.revoked.push(issued.ticket);
        Ok(())
    }

    async fn revoke_user(&mut self, field: &Field) -> Result<(), Status> {
        let issued = [self.issue(field).await?, self.issue(field).await?];
        let user = pb::UserTickets { duel_id: self.next_duel, user_id: 1 };
        self.revoke(field, Tickets::User(user)).await?;
        self.revoked.extend(issued.map(|issued| issued.ticket));
        Ok(())
    }

    async fn close(&mut self, field: &Field) -> Result<(), Status> {
        let (duel, ticket) = (self.next_duel, self.issue(field).await?.ticket);
        let seq = close(field, duel).await?.position.unwrap().seq;
        self.closed.push(Closed { duel, seq, ticket });
        Ok(())
    }

    async fn declare(&mut self, field: &Field) -> Result<(), Status> {
        let participants =
            [1, 2].map(|user_id| pb::Participant { user_id, telegram_id: 0 }).to_vec();
        let request = pb::OpenDuelRequest { duel_id: self.next_duel, participants, settings: None };
        field.client.clone().open_duel(request).await?;
        self.declared.push(self.next_duel);
        Ok(())
    }

    /// What was acknowledged is still so.
    pub(super) async fn check(&self, field: &Field, hub: &Hub) {
        for ticket in &self.revoked {
            let mut player = Player::knock(hub, Join::ticket(ticket)).await;
            assert_eq!(player.until_closed().await, 4501, "{:?}", player.error);
        }
        for Closed { duel, seq, ticket } in &self.closed {
            let mut player = Player::knock(hub, Join::ticket(ticket)).await;
            assert_eq!(player.until_closed().await, 4503, "{:?}", player.error);
            assert_eq!(player.error["message"], "duel_closed");
            let again = close(field, *duel).await.unwrap();
            assert_eq!((again.position.unwrap().seq, again.duplicate), (*seq, true));
            let status = field.client.clone().push_event(push(*duel, "{}")).await.unwrap_err();
            assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
        }
        for duel_id in &self.declared {
            let (duel_id, user_id) = (*duel_id, 3);
            let stranger = pb::IssueTicketRequest { duel_id, user_id, ..Default::default() };
            let status = field.client.clone().issue_ticket(stranger).await.unwrap_err();
            assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
        }
    }

    pub(super) fn summary(&self) -> String {
        let Self { revoked, closed, declared, .. } = self;
        format!("{} revoked, {} closed, {} declared", revoked.len(), closed.len(), declared.len())
    }
}

async fn close(field: &Field, duel_id: u64) -> Result<pb::CloseDuelResponse, Status> {
    let status = pb::DuelStatus::Cancelled.into();
    let request = pb::CloseDuelRequest { duel_id, status, last_event: None };
    Ok(field.client.clone().close_duel(request).await?.into_inner())
}
