//! An admin client: declares, revokes and closes while the hub is being killed, and remembers what was acknowledged of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use duelhub::pb;
use duelhub::pb::revoke_tickets_request::Tickets;
use rand::RngExt as _;
use rand::rngs::StdRng;
use tonic::{Code, Status};

use super::Shared;
use crate::kit::{Hub, Join, Player, push};

/// Its duels are apart from those of the rounds.
const FIRST_DUEL: u64 = 1_000_000;

pub(super) struct AdminClient {
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

impl AdminClient {
    pub(super) fn new(dice: StdRng) -> Self {
        let (revoked, closed, declared) = (Vec::new(), Vec::new(), Vec::new());
        Self { dice, next_duel: FIRST_DUEL, revoked, closed, declared }
    }

    /// Goes on until the run is over. What is not answered may or may not have happened, and is forgotten.
    pub(super) async fn run(mut self, shared: Arc<Shared>) -> Self {
        while !shared.finish.load(Ordering::Relaxed) {
            self.next_duel += 1;
            let done = match self.dice.random_range(0..4) {
                0 => self.revoke_ticket(&shared).await,
                1 => self.revoke_user(&shared).await,
                2 => self.close(&shared).await,
                _ => self.declare(&shared).await,
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

    async fn issue(&self, shared: &Shared) -> Result<pb::IssueTicketResponse, Status> {
        shared.backend.try_issue(self.next_duel, 1).await
    }

    async fn revoke_ticket(&mut self, shared: &Shared) -> Result<(), Status> {
        let issued = self.issue(shared).await?;
        shared.backend.try_revoke(Tickets::Jti(issued.jti)).await?;
        self.revoked.push(issued.ticket);
        Ok(())
    }

    async fn revoke_user(&mut self, shared: &Shared) -> Result<(), Status> {
        let issued = [self.issue(shared).await?, self.issue(shared).await?];
        let user = pb::UserTickets { duel_id: self.next_duel, user_id: 1 };
        shared.backend.try_revoke(Tickets::User(user)).await?;
        self.revoked.extend(issued.map(|issued| issued.ticket));
        Ok(())
    }

    async fn close(&mut self, shared: &Shared) -> Result<(), Status> {
        let (duel, ticket) = (self.next_duel, self.issue(shared).await?.ticket);
        let seq = close(shared, duel).await?.position.unwrap().seq;
        self.closed.push(Closed { duel, seq, ticket });
        Ok(())
    }

    async fn declare(&mut self, shared: &Shared) -> Result<(), Status> {
        shared.backend.try_open(self.next_duel, &[1, 2]).await?;
        self.declared.push(self.next_duel);
        Ok(())
    }

    /// What was acknowledged is still so.
    pub(super) async fn check(&self, shared: &Shared, hub: &Hub) {
        for ticket in &self.revoked {
            let mut player = Player::knock(hub, Join::ticket(ticket)).await;
            assert_eq!(player.until_closed().await, 4501, "{:?}", player.error);
        }
        for Closed { duel, seq, ticket } in &self.closed {
            let mut player = Player::knock(hub, Join::ticket(ticket)).await;
            assert_eq!(player.until_closed().await, 4503, "{:?}", player.error);
            let end = player.events.last().unwrap();
            assert_eq!((&end["type"], &end["seq"]), (&"duel_closed".into(), &(*seq).into()));
            let again = close(shared, *duel).await.unwrap();
            assert_eq!((again.position.unwrap().seq, again.duplicate), (*seq, true));
            let status = shared.backend.try_push(push(*duel, "{}")).await.unwrap_err();
            assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
        }
        for duel in &self.declared {
            let status = shared.backend.try_issue(*duel, 3).await.unwrap_err();
            assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
        }
    }

    pub(super) fn summary(&self) -> String {
        let Self { revoked, closed, declared, .. } = self;
        format!("{} revoked, {} closed, {} declared", revoked.len(), closed.len(), declared.len())
    }
}

async fn close(shared: &Shared, duel: u64) -> Result<pb::CloseDuelResponse, Status> {
    shared.backend.try_close(duel, pb::DuelStatus::Cancelled).await
}
