//! How players come in, with which tickets, and who is kept out.

use std::sync::Arc;

use duelhub::clock;
use duelhub::config::Secret;
use duelhub::engine::Revocation;
use duelhub::event::{Position, Role, Viewer};
use duelhub::hub::{AttachError, CloseRequest, Recovery};
use duelhub::ticket::{Issued, Ticket};
use duelhub_testkit::until;

use super::World;
use crate::check::{Follower, Violation, Welcomed, expect, unexpected};
use crate::devices::Device;
use crate::history::History;
use crate::node::ClientConnection;
use crate::spec::user;

/// Somebody who takes part in nothing.
const STRANGER: u64 = 9;

impl World {
    /// A new ticket.
    fn ticket(&self, duel: usize, viewer: Viewer) -> Arc<Issued> {
        let issued = self.tickets.issue(self.histories[duel].duel, viewer, None);
        self.signed(issued.text)
    }

    /// A ticket by its text.
    fn signed(&self, text: Secret) -> Arc<Issued> {
        let ticket = self.tickets.verify(text.as_str()).expect("it was signed a moment ago");
        Arc::new(Issued { text, ticket })
    }

    pub(super) fn pocket(&mut self, player: usize) {
        let ticket = self.ticket(self.players[player].duel, self.players[player].viewer);
        self.players[player].pocket.push(ticket);
    }

    /// Whether it is known that the ticket opens nothing.
    fn is_refused(&self, ticket: &Ticket) -> bool {
        self.spent.contains(&ticket.jti) || self.revoked.contains(&ticket.jti)
    }

    /// Shows a ticket, which must be refused if it was used or revoked, and only then.
    async fn show_ticket(
        &mut self,
        node: usize,
        issued: &Issued,
        resume: Option<Position>,
    ) -> Result<Result<(ClientConnection, Welcomed), AttachError>, Violation> {
        let attached = self.nodes[node].enter(issued, resume).await;
        let ticket = &issued.ticket;
        let (spent, revoked) =
            (self.spent.contains(&ticket.jti), self.revoked.contains(&ticket.jti));
        let as_expected = match &attached {
            Err(AttachError::AlreadyUsed) => spent,
            Err(AttachError::Revoked) => revoked,
            _ => !spent && !revoked,
        };
        if !as_expected {
            let how = attached.map(|_| ());
            return unexpected(format!("{how:?} for a ticket: spent {spent}, revoked {revoked}"));
        }
        self.spent.insert(ticket.jti.clone());
        Ok(attached)
    }

    /// A player opens a connection, instead of the one they have.
    pub(super) async fn connect(
        &mut self,
        player: usize,
        resume: bool,
        from_pocket: bool,
    ) -> Result<(), Violation> {
        self.cut(player).await;
        let node = self.turn();
        let of = &mut self.players[player];
        of.node = node;
        let (duel, viewer) = (of.duel, of.viewer);
        let resume = of.position.filter(|_| resume);
        let kept = if from_pocket { of.pocket.pop() } else { None };
        let ticket = kept.unwrap_or_else(|| self.ticket(duel, viewer));
        let refused = self.is_refused(&ticket.ticket);
        self.players[player].used = Some(Arc::clone(&ticket));
        let shown = self.show_ticket(node, &ticket, resume).await?;
        if refused {
            self.count("a revoked ticket");
            return Ok(());
        }
        let quiet = self.is_quiet(duel);
        let over = is_over(&self.histories[duel], resume);
        match shown {
            Err(AttachError::Closed) => {
                let may_be = self.histories[duel].outcome().is_some();
                expect(over || !quiet && may_be, || "told closed".to_owned())
            }
            Ok((line, welcomed)) => {
                expect(!over || !quiet, || "let into a closed duel".to_owned())?;
                self.let_in(player, resume, line, &welcomed).await
            }
            Err(error) => unexpected(format!("kept out: {error}")),
        }
    }

    async fn let_in(
        &mut self,
        player: usize,
        resume: Option<Position>,
        line: ClientConnection,
        welcomed: &Welcomed,
    ) -> Result<(), Violation> {
        let resume_ticket = welcomed.resume_ticket.clone().map(Secret::new);
        let resume_ticket = resume_ticket.map(|text| self.signed(text));
        let of = &mut self.players[player];
        of.pocket.extend(resume_ticket);
        let history = &mut self.histories[of.duel];
        let follower = Follower::welcome(history, of.viewer, resume, welcomed)?;
        if welcomed.recovery == Recovery::Recovered {
            // The epoch may be another by now.
            of.position = Some(welcomed.position);
        }
        of.received(history, &welcomed.state);
        of.follow(line, follower);
        let missed = resume.is_some_and(|resume| resume.seq < history.settled());
        let closed = history.outcome().is_some();
        match welcomed.recovery {
            Recovery::Fresh => self.count("a fresh start"),
            Recovery::Recovered if missed => self.count("recovered, with something missed"),
            Recovery::Recovered => self.count("recovered"),
            Recovery::NotRecovered => self.count("not recovered"),
        }
        if closed {
            self.count("closed while away");
        }
        self.check_replaced(player).await
    }

    /// Past the limit a user's oldest connection has to go; otherwise none has.
    async fn check_replaced(&mut self, newest: usize) -> Result<(), Violation> {
        let (duel, viewer) = (self.players[newest].duel, self.players[newest].viewer);
        for at in 0..self.players.len() {
            let other = &self.players[at];
            let Some((line, _)) = &other.line else { continue };
            let one_too_many = at != newest
                && (other.duel, other.viewer) == (duel, viewer)
                && self.connections_per_user_max == 1;
            if one_too_many {
                // A process has closed it by itself if there was nothing more to come.
                let Some(close_request) = dismissed(line).await else {
                    expect(line.is_over(), || "closed for nothing".to_owned())?;
                    continue;
                };
                expect(close_request == CloseRequest::Replaced, || {
                    format!("dismissed: {close_request:?}")
                })?;
                self.cut(at).await;
                self.count("a replaced connection");
            } else if line.close_request().is_some() {
                self.let_go(at)?;
            }
        }
        Ok(())
    }

    /// A player uses the ticket again by which they came.
    pub(super) async fn use_again(&mut self, player: usize) -> Result<(), Violation> {
        let Some(ticket) = self.players[player].used.clone() else { return Ok(()) };
        // An engine that keeps nothing has forgotten those from before its restart, and says so.
        if self.is_refused(&ticket.ticket) {
            self.count("a ticket used again");
            let node = self.turn();
            let _refusal = self.show_ticket(node, &ticket, None).await?;
        }
        Ok(())
    }

    /// Somebody who does not take part tries to enter as a player.
    pub(super) async fn stranger(&mut self, duel: usize) -> Result<(), Violation> {
        let viewer = Viewer { user: user(STRANGER), role: Role::Player };
        let ticket = self.ticket(duel, viewer);
        let node = self.turn();
        let shown = self.show_ticket(node, &ticket, None).await?;
        let history = &mut self.histories[duel];
        let over = history.outcome().is_some();
        match shown {
            Err(AttachError::NotAParticipant) if history.declared => {
                self.count("a stranger kept out");
                Ok(())
            }
            Err(AttachError::Closed) if !history.declared && over => Ok(()),
            Ok((line, welcomed)) if !history.declared => {
                let follower = Follower::welcome(history, viewer, None, &welcomed)?;
                drop((line, follower));
                self.left(duel, node).await;
                Ok(())
            }
            other => unexpected(format!("{:?} for a stranger", other.map(|_| ()))),
        }
    }

    /// All of a user's tickets are revoked, or the one that a player kept last.
    pub(super) async fn revoke(&mut self, player: usize, all: bool) -> Result<(), Violation> {
        let (at, viewer) = (self.players[player].duel, self.players[player].viewer);
        let mine = self.players.iter().filter(|p| (p.duel, p.viewer) == (at, viewer));
        let concerned: Vec<_> = if all {
            mine.flat_map(|p| p.pocket.iter().chain(&p.used))
                .map(|issued| issued.ticket.jti.clone())
                .collect()
        } else {
            self.players[player]
                .pocket
                .last()
                .map(|issued| issued.ticket.jti.clone())
                .into_iter()
                .collect()
        };
        let (duel, user) = (self.histories[at].duel, viewer.user);
        let revocation = match concerned.last() {
            _ if all => Revocation::User { duel, user, issued_until: clock::now() },
            Some(jti) => Revocation::Ticket(jti.clone()),
            None => return Ok(()),
        };
        let node = self.turn();
        self.nodes[node].revoke(revocation).await?;
        self.revoked.extend(concerned);
        for player in &self.players {
            let concerned = all && (player.duel, player.viewer) == (at, viewer);
            if let Some((line, _)) = player.line.as_ref().filter(|_| concerned) {
                until("revoked", || async { line.is_revoked() != Some(false) }).await;
            }
        }
        Ok(())
    }

    /// The backend closes a user's connections.
    pub(super) async fn disconnect(&mut self, player: usize) -> Result<(), Violation> {
        let (at, viewer) = (self.players[player].duel, self.players[player].viewer);
        let (duel, reason): (_, Arc<str>) = (self.histories[at].duel, Arc::from("moved"));
        let node = self.turn();
        self.left(at, node).await;
        self.disconnected.insert((at, viewer.user));
        let concerned = |player: &Device| {
            player.open_line().is_some() && (player.duel, player.viewer) == (at, viewer)
        };
        let all = 0..self.players.len();
        let concerned: Vec<_> = all.filter(|other| concerned(&self.players[*other])).collect();
        let there = concerned.iter().filter(|other| self.players[**other].node == node).count();
        let told = self.nodes[node].disconnect(duel, viewer.user, Arc::clone(&reason)).await;
        expect(told == there, || format!("{told} disconnected, of {there}"))?;
        let expected = CloseRequest::Disconnected { reconnect: true, reason: Some(reason) };
        for other in 0..self.players.len() {
            let Some((line, _)) = &self.players[other].line else { continue };
            if concerned.contains(&other) {
                let close_request = dismissed(line).await;
                expect(close_request.as_ref() == Some(&expected), || {
                    format!("dismissed: {close_request:?}")
                })?;
                self.cut(other).await;
                self.count("a disconnected connection");
            } else if line.close_request().is_some() {
                self.let_go(other)?;
            }
        }
        Ok(())
    }
}

/// Waits until a connection is dismissed that must be, which another node hears in its time: why. `None`: it has ended.
async fn dismissed(line: &ClientConnection) -> Option<CloseRequest> {
    until("dismissed", || async { line.close_request().is_some() || !line.is_open() }).await;
    line.close_request()
}

/// Whether a connection finds nothing but a closed duel, once everything under way has taken effect.
fn is_over(history: &History, resume: Option<Position>) -> bool {
    let head = history.len();
    let missed = |resume: Position| resume.seq < head && history.holds_after(resume, head);
    history.outcome().is_some() && !resume.is_some_and(missed)
}
