//! How players come in, with which tickets, and who is kept out.

use std::sync::Arc;

use duelhub::clock;
use duelhub::engine::Revocation;
use duelhub::event::{Position, Role, Viewer};
use duelhub::hub::{AttachError, Attachment, Dismissal, Recovery};
use duelhub::ticket::Ticket;

use super::World;
use crate::check::{Follower, Objection, Welcomed, ensure, unexpected};
use crate::history::History;
use crate::players::show_all;
use crate::spec::user;

/// Somebody who takes part in nothing.
const STRANGER: u64 = 9;

impl World {
    /// A new ticket, signed and verified.
    fn ticket(&self, duel: usize, viewer: Viewer) -> Ticket {
        let issued = self.tickets.issue(self.histories[duel].duel, viewer, None);
        self.tickets.verify(issued.text.as_str()).expect("it was signed a moment ago")
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
        ticket: &Ticket,
        resume: Option<Position>,
    ) -> Result<Result<(Attachment, Welcomed), AttachError>, Objection> {
        let attached = self.node.hub.attach(ticket, resume).await;
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
        Ok(attached.map(|(attachment, welcome)| {
            let state = show_all(&welcome.state, ticket.viewer);
            let (position, recovery) = (welcome.position, welcome.recovery);
            (attachment, Welcomed { position, recovery, state })
        }))
    }

    /// A player opens a connection, instead of the one they have.
    pub(super) async fn connect(
        &mut self,
        player: usize,
        resume: bool,
        from_pocket: bool,
    ) -> Result<(), Objection> {
        let of = &mut self.players[player];
        of.cut();
        let (duel, viewer) = (of.duel, of.viewer);
        let resume = of.position.filter(|_| resume);
        let kept = if from_pocket { of.pocket.pop() } else { None };
        let ticket = kept.unwrap_or_else(|| self.ticket(duel, viewer));
        let refused = self.is_refused(&ticket);
        self.players[player].used = Some(ticket.clone());
        let shown = self.show_ticket(&ticket, resume).await?;
        if refused {
            self.count("a revoked ticket");
            return Ok(());
        }
        let quiet = self.is_quiet(duel);
        let over = is_over(&self.histories[duel], resume);
        match shown {
            Err(AttachError::Closed) => {
                let may_be = self.histories[duel].ending().is_some();
                ensure(over || !quiet && may_be, Objection::Unexpected("told closed".into()))
            }
            Ok((attachment, welcomed)) => {
                ensure(!over || !quiet, Objection::Unexpected("let into a closed duel".into()))?;
                self.let_in(player, resume, attachment, &welcomed)
            }
            Err(error) => unexpected(format!("kept out: {error}")),
        }
    }

    fn let_in(
        &mut self,
        player: usize,
        resume: Option<Position>,
        attachment: Attachment,
        welcomed: &Welcomed,
    ) -> Result<(), Objection> {
        let of = &mut self.players[player];
        let history = &mut self.histories[of.duel];
        let follower = Follower::welcome(history, of.viewer, resume, welcomed)?;
        of.received(history, &welcomed.state);
        of.follow(attachment, follower);
        let missed = resume.is_some_and(|resume| resume.seq < history.settled());
        let closed = history.ending().is_some();
        match welcomed.recovery {
            Recovery::Fresh => self.count("a fresh start"),
            Recovery::Recovered if missed => self.count("recovered, with something missed"),
            Recovery::Recovered => self.count("recovered"),
            Recovery::NotRecovered => self.count("not recovered"),
        }
        if closed {
            self.count("closed while away");
        }
        self.check_replaced(player)
    }

    /// Past the limit a user's oldest connection has to go; otherwise none has.
    fn check_replaced(&mut self, newest: usize) -> Result<(), Objection> {
        let (duel, viewer) = (self.players[newest].duel, self.players[newest].viewer);
        let mut replaced = 0;
        for (at, other) in self.players.iter_mut().enumerate() {
            let Some((attachment, _)) = &other.line else { continue };
            let one_too_many = at != newest
                && (other.duel, other.viewer) == (duel, viewer)
                && self.hub_config.connections_per_user_max == 1;
            let expected = one_too_many.then_some(&Dismissal::Replaced);
            let dismissal = attachment.dismissal();
            let what = format!("dismissed: {dismissal:?} instead of {expected:?}");
            ensure(dismissal == expected, Objection::Unexpected(what))?;
            if one_too_many {
                other.cut();
                replaced += 1;
            }
        }
        (0..replaced).for_each(|_| self.count("a replaced connection"));
        Ok(())
    }

    /// A player uses the ticket again by which they came.
    pub(super) async fn use_again(&mut self, player: usize) -> Result<(), Objection> {
        let Some(ticket) = self.players[player].used.clone() else { return Ok(()) };
        // An engine that keeps nothing has forgotten those from before its restart, and says so.
        if self.is_refused(&ticket) {
            self.count("a ticket used again");
            let _refusal = self.show_ticket(&ticket, None).await?;
        }
        Ok(())
    }

    /// Somebody who does not take part tries to enter as a player.
    pub(super) async fn stranger(&mut self, duel: usize) -> Result<(), Objection> {
        let viewer = Viewer { user: user(STRANGER), role: Role::Player };
        let ticket = self.ticket(duel, viewer);
        let shown = self.show_ticket(&ticket, None).await?;
        let history = &mut self.histories[duel];
        let over = history.ending().is_some();
        match shown {
            Err(AttachError::NotAParticipant) if history.declared => {
                self.count("a stranger kept out");
                Ok(())
            }
            Err(AttachError::Closed) if !history.declared && over => Ok(()),
            Ok((attachment, welcomed)) if !history.declared => {
                let follower = Follower::welcome(history, viewer, None, &welcomed)?;
                drop((attachment, follower));
                Ok(())
            }
            other => unexpected(format!("{:?} for a stranger", other.map(|_| ()))),
        }
    }

    /// All of a user's tickets are revoked, or the one that a player kept last.
    pub(super) async fn revoke(&mut self, player: usize, all: bool) -> Result<(), Objection> {
        let (at, viewer) = (self.players[player].duel, self.players[player].viewer);
        let mine = self.players.iter().filter(|p| (p.duel, p.viewer) == (at, viewer));
        let concerned: Vec<_> = if all {
            mine.flat_map(|p| p.pocket.iter().chain(&p.used)).map(|t| t.jti.clone()).collect()
        } else {
            self.players[player]
                .pocket
                .last()
                .map(|ticket| ticket.jti.clone())
                .into_iter()
                .collect()
        };
        let (duel, user) = (self.histories[at].duel, viewer.user);
        let revocation = match concerned.last() {
            _ if all => Revocation::User { duel, user, issued_until: clock::now() },
            Some(jti) => Revocation::Ticket(jti.clone()),
            None => return Ok(()),
        };
        let revoked = self.node.hub.revoke(revocation).await;
        ensure(revoked.is_ok(), Objection::Unexpected(format!("{revoked:?}")))?;
        self.revoked.extend(concerned);
        for player in &self.players {
            let concerned = all && (player.duel, player.viewer) == (at, viewer);
            if let Some((attachment, _)) = player.line.as_ref().filter(|_| concerned) {
                ensure(attachment.is_revoked(), Objection::Unexpected("not revoked".into()))?;
            }
        }
        Ok(())
    }

    /// The backend closes a user's connections.
    pub(super) async fn disconnect(&mut self, player: usize) -> Result<(), Objection> {
        let (at, viewer) = (self.players[player].duel, self.players[player].viewer);
        let (duel, reason) = (self.histories[at].duel, Some(Arc::from("moved")));
        let told =
            self.node.hub.disconnect(duel, Some(viewer.user), true, reason.clone()).await.unwrap();
        let expected = Dismissal::Disconnected { reconnect: true, reason };
        let mut here = 0;
        for other in &mut self.players {
            let Some((attachment, _)) = &other.line else { continue };
            let concerned = (other.duel, other.viewer) == (at, viewer);
            let dismissal = attachment.dismissal();
            let what = format!("dismissed: {dismissal:?}, concerned: {concerned}");
            let as_expected = dismissal == concerned.then_some(&expected);
            ensure(as_expected, Objection::Unexpected(what))?;
            if concerned {
                other.cut();
                here += 1;
            }
        }
        if here > 0 {
            self.count("a disconnected connection");
        }
        ensure(told == here, Objection::Unexpected(format!("{told} disconnected, of {here}")))
    }
}

/// Whether a connection finds nothing but a closed duel, once everything under way has taken effect.
fn is_over(history: &History, resume: Option<Position>) -> bool {
    let head = history.len();
    let missed = |resume: Position| resume.seq < head && history.holds_after(resume, head);
    history.ending().is_some() && !resume.is_some_and(missed)
}
