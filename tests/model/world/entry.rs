//! How players come in, with which tickets, and who is kept out.

use std::sync::Arc;

use duelhub::config::Secret;
use duelhub::engine::Revocation;
use duelhub::event::{Position, Role, Viewer};
use duelhub::hub::{AttachError, CloseRequest, Recovery};
use duelhub::ticket::Issued;
use duelhub_testkit::until;

use super::World;
use crate::check::{Follower, Violation, Welcomed, expect, unexpected};
use crate::devices::Device;
use crate::history::History;
use crate::ledger::Verdict;
use crate::node::ClientConnection;
use crate::spec::user;

/// A connection that was let in, or why none was.
type Attached = Result<(ClientConnection, Welcomed), AttachError>;

/// Somebody who takes part in nothing.
const STRANGER: u64 = 9;

impl World {
    /// A new ticket.
    async fn ticket(&mut self, duel: usize, viewer: Viewer) -> Arc<Issued> {
        let stamp = self.engine().stamp().await.expect("the engine is here");
        let issued = self.tickets.issue(self.histories[duel].duel, viewer, None, stamp);
        self.signed(issued.text)
    }

    /// A ticket by its text.
    fn signed(&self, text: Secret) -> Arc<Issued> {
        let ticket = self.tickets.verify(text.as_str()).expect("it was signed a moment ago");
        Arc::new(Issued { text, ticket })
    }

    pub(super) async fn pocket(&mut self, player: usize) {
        let (duel, viewer) = (self.players[player].duel, self.players[player].viewer);
        let ticket = self.ticket(duel, viewer).await;
        self.players[player].pocket.push(ticket);
    }

    /// Shows a ticket, which must be answered by what it is worth. Returns `None` if it was refused for it.
    async fn show_ticket(
        &mut self,
        node: usize,
        issued: &Issued,
        resume: Option<Position>,
    ) -> Result<Option<Attached>, Violation> {
        let ticket = &issued.ticket;
        let verdict = self.ledger.verdict(ticket);
        let history = self.histories.iter().find(|history| history.duel == ticket.duel);
        let (closed, quiet) = history
            .map_or((false, true), |history| (history.outcome().is_some(), history.under_way == 0));
        let attached = self.nodes[node].enter(issued, resume).await;
        let as_expected = match (&attached, verdict) {
            (Err(AttachError::AlreadyUsed), Verdict::Spent) => !closed || !quiet,
            (Err(AttachError::AlreadyUsed), _) => verdict == Verdict::Used,
            (Err(AttachError::Revoked), _) => {
                matches!(verdict, Verdict::Revoked | Verdict::Copied)
            }
            (_, Verdict::Spent) => closed,
            (_, _) => verdict == Verdict::Accepted,
        };
        if !as_expected {
            let how = attached.map(|_| ());
            return unexpected(format!("{how:?} for a ticket that is {verdict:?}"));
        }
        self.ledger.show(ticket, verdict);
        match verdict {
            Verdict::Accepted => {}
            Verdict::Spent | Verdict::Used => self.count("a ticket used again"),
            Verdict::Revoked => self.count("a revoked ticket"),
            Verdict::Copied => self.count("a copied ticket"),
        }
        let refused = matches!(attached, Err(AttachError::AlreadyUsed | AttachError::Revoked));
        if !refused && verdict == Verdict::Spent {
            self.count("the end by a used ticket");
        }
        Ok((!refused).then_some(attached))
    }

    /// A player opens a connection, instead of the one they have.
    pub(super) async fn connect(
        &mut self,
        player: usize,
        resume: bool,
        from_pocket: Option<usize>,
    ) -> Result<(), Violation> {
        self.cut(player).await;
        let of = &mut self.players[player];
        let (duel, viewer) = (of.duel, of.viewer);
        let resume = of.position.filter(|_| resume);
        let which = from_pocket.and_then(|which| which.checked_rem(of.pocket.len()));
        let kept = which.map(|which| of.pocket.remove(which));
        let ticket = match kept {
            Some(ticket) => ticket,
            None => self.ticket(duel, viewer).await,
        };
        self.enter(player, &ticket, resume).await
    }

    /// A player uses the ticket again by which they came, as if its welcome had been lost. A resume ticket lets them in, and
    /// the connection that it had opened before has to go.
    pub(super) async fn use_again(&mut self, player: usize) -> Result<(), Violation> {
        let of = &self.players[player];
        let Some(ticket) = of.used.clone() else { return Ok(()) };
        let resume = of.position;
        let is_let_in = self.ledger.verdict(&ticket.ticket) == Verdict::Accepted;
        if self.histories[of.duel].outcome().is_some() {
            self.cut(player).await;
        } else if is_let_in {
            let of = &mut self.players[player];
            of.left_behind = of.line.take().map(|(line, _)| (line, of.node));
        }
        self.enter(player, &ticket, resume).await
    }

    /// Somebody else has the ticket by which a player came, and uses it. The player goes on with its successor. As soon as the
    /// other uses theirs, the session ends on both sides.
    pub(super) async fn copy(&mut self, player: usize) -> Result<(), Violation> {
        let of = &self.players[player];
        let (duel, resume) = (of.duel, of.position);
        let (Some(copied), Some(own)) = (of.used.clone(), of.successor()) else { return Ok(()) };
        let accepted = |ticket: &Issued| self.ledger.verdict(&ticket.ticket) == Verdict::Accepted;
        let is_open = of.open_line().is_some() && self.histories[duel].outcome().is_none();
        if !is_open || !accepted(&copied) || !accepted(&own) {
            return Ok(());
        }
        self.cut(player).await;
        let node = self.turn();
        let Some(Ok((line, welcomed))) = self.show_ticket(node, &copied, None).await? else {
            return unexpected("a copied ticket is refused".to_owned());
        };
        Follower::welcome(&mut self.histories[duel], copied.ticket.viewer, None, &welcomed)?;
        self.players[player].left_behind = Some((line, node));
        self.enter(player, &own, resume).await?;
        let text = welcomed.resume_ticket.clone().expect("the duel is open");
        let theirs = self.signed(Secret::new(text));
        let refused = self.show_ticket(node, &theirs, None).await?.is_none();
        expect(refused, || "let in by a copied ticket".to_owned())?;
        if let Some((line, _)) = &self.players[player].line {
            let dismissal = dismissed(line).await?;
            expect(dismissal.is_none_or(|request| request == CloseRequest::SessionEnded), || {
                "the session has ended".to_owned()
            })?;
        }
        self.cut(player).await;
        Ok(())
    }

    /// A player shows a ticket, and is let in or kept out as must be.
    async fn enter(
        &mut self,
        player: usize,
        ticket: &Arc<Issued>,
        resume: Option<Position>,
    ) -> Result<(), Violation> {
        let node = self.turn();
        let duel = self.players[player].duel;
        self.players[player].used = Some(Arc::clone(ticket));
        let Some(attached) = self.show_ticket(node, ticket, resume).await? else { return Ok(()) };
        let quiet = self.is_quiet(duel);
        let over = is_over(&self.histories[duel], resume);
        match attached {
            Err(AttachError::Closed) => {
                let may_be = self.histories[duel].outcome().is_some();
                expect(over || !quiet && may_be, || "told closed".to_owned())
            }
            Ok((line, welcomed)) => {
                expect(!over || !quiet, || "let into a closed duel".to_owned())?;
                self.players[player].node = node;
                self.let_in(player, resume, line, &welcomed).await
            }
            Err(error) => unexpected(format!("kept out: {error}")),
        }
    }

    /// The connection whose session a player has taken over has to go.
    async fn check_taken_over(&mut self, player: usize) -> Result<(), Violation> {
        let Some((line, node)) = self.players[player].left_behind.take() else { return Ok(()) };
        let dismissal = dismissed(&line).await?;
        expect(dismissal.is_none_or(|request| request == CloseRequest::Replaced), || {
            "its session was taken over".to_owned()
        })?;
        drop(line);
        self.left(self.players[player].duel, node).await;
        self.count("a lost welcome");
        Ok(())
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
        of.fetches_end = history.outcome().is_some();
        let missed = resume.is_some_and(|resume| resume.seq < history.settled());
        let closed = of.fetches_end;
        match welcomed.recovery {
            Recovery::Fresh => self.count("a fresh start"),
            Recovery::Recovered if missed => self.count("recovered, with something missed"),
            Recovery::Recovered => self.count("recovered"),
            Recovery::NotRecovered => self.count("not recovered"),
        }
        if closed {
            // Nobody makes room for who only fetches the end.
            self.count("closed while away");
            return Ok(());
        }
        self.check_taken_over(player).await?;
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
                let Some(close_request) = dismissed(line).await? else {
                    if line.is_too_slow() {
                        self.count("too slow");
                    }
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

    /// Somebody who does not take part tries to enter as a player.
    pub(super) async fn stranger(&mut self, duel: usize) -> Result<(), Violation> {
        let viewer = Viewer { user: user(STRANGER), role: Role::Player };
        let ticket = self.ticket(duel, viewer).await;
        let node = self.turn();
        let Some(attached) = self.show_ticket(node, &ticket, None).await? else {
            return unexpected("a new ticket is refused".to_owned());
        };
        let history = &mut self.histories[duel];
        match attached {
            Err(AttachError::NotAParticipant) if history.declared => {
                self.count("a stranger kept out");
                Ok(())
            }
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
        let (duel, user) = (self.histories[at].duel, viewer.user);
        let revocation = match self.players[player].pocket.last() {
            _ if all => Revocation::User { duel, user },
            Some(kept) => Revocation::Ticket(kept.ticket.jti.clone()),
            None => return Ok(()),
        };
        let node = self.turn();
        self.nodes[node].revoke(revocation.clone()).await?;
        let revision = self.engine().stamp().await.expect("the engine is here").revision;
        self.ledger.revoke(&revocation, revision);
        Ok(())
    }

    /// The backend closes a user's connections.
    pub(super) async fn disconnect(&mut self, player: usize) -> Result<(), Violation> {
        let (at, viewer) = (self.players[player].duel, self.players[player].viewer);
        let (duel, reason): (_, Arc<str>) = (self.histories[at].duel, Arc::from("moved"));
        for other in 0..self.players.len() {
            if self.players[other].duel == at && self.players[other].fetches_end {
                self.cut(other).await;
            }
        }
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
                let dismissal = dismissed(line).await?;
                expect(dismissal.is_none_or(|request| request == expected), || {
                    "disconnected for another reason".to_owned()
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

/// Waits until a connection is dismissed that must be, which another node hears in its time: why. `None`: a process had closed it by
/// itself, because there was nothing more to come, or a small log had gone on without it.
async fn dismissed(line: &ClientConnection) -> Result<Option<CloseRequest>, Violation> {
    until("dismissed", || async { line.close_request().is_some() || !line.is_open() }).await;
    let request = line.close_request();
    let by_itself = line.is_over() || line.is_too_slow();
    expect(request.is_some() || by_itself, || format!("closed for nothing: {line:?}"))?;
    Ok(request)
}

/// Whether a connection has all of a closed duel already, once everything under way has taken effect.
fn is_over(history: &History, resume: Option<Position>) -> bool {
    let head = history.len();
    let has_all = |resume: Position| resume.seq == head && history.holds_after(resume, head);
    history.outcome().is_some() && resume.is_some_and(has_all)
}
