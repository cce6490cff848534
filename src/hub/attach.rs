//! How a connection attaches to its duel, step by step.
//!
//! Each step consumes the one before, so the compiler keeps their order:
//!
//! | step | what holds from then on |
//! |---|---|
//! | [`Listed`] | whatever happens in the duel wakes the connection |
//! | [`Entered`] | the engine tells this node what happens in the duel; the connection has its place in the order of entries |
//! | [`Redeemed`] | the ticket is used; whoever revokes it and disconnects its user later reaches the connection |
//! | [`Located`] | the duel admits the user, and it is known where the connection starts |
//! | [`Announced`] | the user is online |
//! | [`Attachment`] | the cursor is set, and the client's first frame is known |
//!
//! Dropping any of them takes the connection out and undoes what was done, except that a used ticket stays used.
//!
//! A closed duel takes nobody in. Whoever has a ticket of it gets what they missed, and its end.

use std::sync::Arc;

use tracing::warn;

use super::Hub;
use super::attachment::{Attachment, ListedConnection};
use super::connection::Connection;
use super::duel::HeadChange;
use super::follow::Cursor;
use crate::clock;
use crate::engine::{
    DuelRecord, EngineError, Head, NewConnection, RedeemError, Signal, SignalKind,
};
use crate::event::{DuelStatus, Event, Position, Viewer};
use crate::id::{DuelId, UserId};
use crate::ticket::{Generation, Stamp, Ticket};

/// Why a connection is not attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// The ticket was used before, or a newer one of its session was.
    #[error("the ticket was used before")]
    AlreadyUsed,
    /// The ticket was revoked, or its session has ended.
    #[error("the ticket was revoked")]
    Revoked,
    /// The ticket has expired.
    #[error("the ticket has expired")]
    Expired,
    /// The duel was declared without this player.
    #[error("the user is not a participant")]
    NotAParticipant,
    /// The duel is closed, and the client has missed nothing.
    #[error("the duel is closed")]
    Closed,
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl From<RedeemError> for AttachError {
    fn from(error: RedeemError) -> Self {
        match error {
            RedeemError::AlreadyUsed | RedeemError::Spent => Self::AlreadyUsed,
            RedeemError::Revoked | RedeemError::Copied => Self::Revoked,
            RedeemError::Expired => Self::Expired,
            RedeemError::Engine(error) => Self::Engine(error),
        }
    }
}

/// Whether a connection continues an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// The client did not ask to resume.
    Fresh,
    /// The client resumes, and receives every event since its position.
    Recovered,
    /// The client asked to resume, but some events are gone. It starts from the state.
    NotRecovered,
}

/// What a connection starts with.
#[derive(Debug)]
pub struct Welcome {
    /// The newest position of the log when the connection entered.
    pub head: Position,
    /// Whether the connection continues an earlier one.
    pub recovery: Recovery,
    /// The users who are online, in the order of their ids. Includes the connection's own.
    pub online: Vec<UserId>,
    /// The present state: events in order, none after `head`. Empty if the client recovered.
    pub state: Vec<Arc<Event>>,
    /// The stamp of the client's next resume ticket. `None`: it gets none, since the duel is closed.
    pub stamp: Option<Stamp>,
}

/// Where a connection starts in its duel.
#[derive(Debug, Clone, Copy)]
struct EntryPoint {
    head: Position,
    status: DuelStatus,
    /// The position that the client asked to resume from, in the present epoch if it has one there.
    resume: Option<Position>,
    recovery: Recovery,
}

impl EntryPoint {
    /// Returns the position up to which the client needs no events once it has the state. Of a closed duel it needs the end.
    fn cursor(&self) -> Position {
        match (self.recovery, self.resume, self.status) {
            (Recovery::Recovered, Some(resume), _) => resume,
            (_, _, DuelStatus::Open) => self.head,
            (_, _, DuelStatus::Closed(_)) => {
                Position { seq: self.head.seq.saturating_sub(1), ..self.head }
            }
        }
    }
}

/// How often the entry point is looked up anew if epochs end meanwhile.
const ENTRY_ATTEMPTS_MAX: usize = 4;

/// The connection is in its duel's list.
struct Listed(ListedConnection);

/// The engine tells this node what happens in the duel, and has numbered the connection.
struct Entered(ListedConnection, u64);

/// What a connection is let in for.
#[derive(Debug, Clone, Copy)]
enum Admission {
    /// To take part. The stamp is that of its session's next ticket.
    Session(Stamp),
    /// To fetch the end of a closed duel.
    End,
    /// To prove that the node works.
    Probe,
}

/// The ticket is used.
struct Redeemed {
    listed: ListedConnection,
    number: u64,
    admission: Admission,
}

/// The duel admits the connection.
struct Located {
    redeemed: Redeemed,
    entry: EntryPoint,
}

/// The connection's user is online, unless the duel is closed.
struct Announced(Located);

impl Hub {
    /// Uses the ticket and attaches a connection, which resumes from `resume` if that is possible. Not cancel safe: if it is
    /// dropped, the ticket may be used.
    ///
    /// # Errors
    /// [`AttachError`]. The ticket is used if what failed came after it was redeemed.
    pub async fn attach(
        self: &Arc<Self>,
        ticket: &Ticket,
        resume: Option<Position>,
    ) -> Result<(Attachment, Welcome), AttachError> {
        let generation = Some(ticket.generation);
        let entered = self.list(ticket.duel, ticket.viewer, generation).await.enter().await?;
        let located = entered.redeem(ticket).await?.locate(resume).await?;
        located.announce().await?.start(resume).await
    }

    /// Attaches the node's own probe, which needs no ticket.
    pub(super) async fn attach_probe(
        self: &Arc<Self>,
        viewer: Viewer,
    ) -> Result<Attachment, AttachError> {
        let Entered(listed, number) = self.list(DuelId::PROBE, viewer, None).await.enter().await?;
        let redeemed = Redeemed { listed, number, admission: Admission::Probe };
        Ok(redeemed.locate(None).await?.announce().await?.start(None).await?.0)
    }

    async fn list(
        self: &Arc<Self>,
        duel: DuelId,
        viewer: Viewer,
        generation: Option<Generation>,
    ) -> Listed {
        let id = self.next_connection_id();
        let connection = Arc::new(Connection::new(id, duel, viewer, generation));
        loop {
            let live = self.live_or_new(duel);
            if live.add(&connection) {
                // The drain does not find who comes into the list after it has read it.
                if self.readiness.is_stopping() {
                    self.turn_away(&connection);
                }
                return Listed(ListedConnection::new(Arc::clone(self), live, connection));
            }
            // It is retired, and leaves the map once its subscription has ended.
            tokio::task::yield_now().await;
        }
    }

    /// Uses a ticket. If it shows that one of its session was copied, the session ends.
    async fn redeem(self: Arc<Self>, ticket: Ticket) -> Result<Stamp, RedeemError> {
        let redeemed = self.engine.redeem(&ticket).await;
        if redeemed == Err(RedeemError::Copied) {
            let (duel, user) = (ticket.duel, ticket.viewer.user);
            let session = ticket.generation.session;
            self.metrics.sessions_ended.inc();
            warn!(duel_id = duel.get(), user_id = user.get(), %session, jti = ticket.jti.as_str(),
                "a resume ticket was copied: its session is ended");
            let kind = SignalKind::SessionEnded { user, session };
            if let Err(error) = self.engine.signal(Signal { duel, kind }).await {
                warn!(duel_id = duel.get(), %error, "the end of a session could not be passed on");
            }
        }
        redeemed
    }
}

impl Listed {
    async fn enter(self) -> Result<Entered, EngineError> {
        let (engine, duel) = (&self.0.hub.engine, self.0.live.id);
        let ((), number) = tokio::try_join!(engine.subscribe(duel), engine.enter(duel))?;
        Ok(Entered(self.0, number))
    }
}

impl Entered {
    async fn redeem(self, ticket: &Ticket) -> Result<Redeemed, AttachError> {
        let Self(listed, number) = self;
        // On its own, so that a session that ends is told of although nobody waits for the answer any more.
        let redeeming = tokio::spawn(Arc::clone(&listed.hub).redeem(ticket.clone()));
        let redeemed = redeeming.await.unwrap_or_else(|_| Err(EngineError::IN_DOUBT.into()));
        let admission = match redeemed {
            Ok(stamp) => Admission::Session(stamp),
            // No other ticket can be had of a closed duel, and the answer to this one may have been lost.
            Err(RedeemError::Spent) if listed.is_closed().await? => Admission::End,
            Err(error) => return Err(error.into()),
        };
        Ok(Redeemed { listed, number, admission })
    }
}

impl Redeemed {
    async fn locate(self, resume: Option<Position>) -> Result<Located, AttachError> {
        let entry = self.listed.locate(resume).await?;
        match (self.admission, entry.status) {
            // It was begun anew meanwhile.
            (Admission::End, DuelStatus::Open) => Err(AttachError::AlreadyUsed),
            _ => Ok(Located { redeemed: self, entry }),
        }
    }
}

impl Located {
    async fn announce(self) -> Result<Announced, EngineError> {
        let Redeemed { listed: ListedConnection { hub, live, connection, .. }, number, .. } =
            &self.redeemed;
        if self.entry.status == DuelStatus::Open {
            let per_user_max = hub.config.connections_per_user_max;
            let new = NewConnection {
                duel: live.id,
                viewer: connection.viewer,
                since: clock::now(),
                first: live.attach(connection, per_user_max),
                number: *number,
                connection: connection.id,
                generation: connection.generation,
                connections_max: per_user_max,
            };
            hub.engine.attach(new).await?;
        }
        Ok(Announced(self))
    }
}

impl Announced {
    /// Reads the state that the client starts with. If the epoch ends meanwhile, looks up the entry point anew.
    async fn start(self, resume: Option<Position>) -> Result<(Attachment, Welcome), AttachError> {
        let Self(Located { redeemed: Redeemed { listed, admission, .. }, mut entry }) = self;
        let is_open = entry.status == DuelStatus::Open;
        for _ in 0..ENTRY_ATTEMPTS_MAX {
            if let Some(state) = listed.state(&entry).await? {
                let EntryPoint { head, recovery, .. } = entry;
                let (online, presence) = listed.live.online_with(listed.connection.viewer);
                let cursor = Cursor { position: entry.cursor(), presence, failing_since: None };
                let stamp = match admission {
                    Admission::Session(stamp) => is_open.then_some(stamp),
                    Admission::End | Admission::Probe => None,
                };
                let welcome = Welcome { head, recovery, online, state, stamp };
                return Ok((Attachment::new(listed, cursor), welcome));
            }
            entry = listed.locate(resume).await?;
            if !is_open && entry.status == DuelStatus::Open {
                // It was begun anew, and nobody was told that the user is online.
                break;
            }
        }
        Err(EngineError::UNAVAILABLE.into())
    }
}

impl ListedConnection {
    /// Returns whether the duel is closed.
    async fn is_closed(&self) -> Result<bool, EngineError> {
        let record = self.hub.engine.get(self.live.id).await?;
        Ok(record.is_some_and(|record| record.head.status != DuelStatus::Open))
    }

    /// Returns where the connection starts in the duel as it stands now.
    async fn locate(&self, resume: Option<Position>) -> Result<EntryPoint, AttachError> {
        let record = self.hub.engine.get_or_create(self.live.id).await?;
        if !record.allows(self.connection.viewer) {
            return Err(AttachError::NotAParticipant);
        }
        if let HeadChange::EpochEnded(connections) = self.live.observe_head(&record.head) {
            self.hub.drain_ended_epoch(connections);
        }
        self.live.set_presence_grace(record.settings.presence_grace);
        let resume = resume.map(|position| record.head.carried(position));
        let recovery = recovery(&record, resume)?;
        let Head { position: head, status, .. } = record.head;
        Ok(EntryPoint { head, status, resume, recovery })
    }

    /// Returns the events that the client starts with, or `None` if the epoch has ended since.
    async fn state(&self, entry: &EntryPoint) -> Result<Option<Vec<Arc<Event>>>, EngineError> {
        if entry.recovery == Recovery::Recovered {
            return Ok(Some(Vec::new()));
        }
        let viewer = self.connection.viewer;
        self.hub.engine.latest(self.live.id, viewer, entry.head).await
    }
}

/// Returns whether a client can resume from `resume` in a duel that stands as `record` says.
fn recovery(record: &DuelRecord, resume: Option<Position>) -> Result<Recovery, AttachError> {
    let recovery = match resume {
        None => Recovery::Fresh,
        Some(position) if record.head.holds_after(position) => Recovery::Recovered,
        Some(_) => Recovery::NotRecovered,
    };
    let has_all = recovery == Recovery::Recovered && resume == Some(record.head.position);
    if record.head.status != DuelStatus::Open && has_all {
        return Err(AttachError::Closed);
    }
    Ok(recovery)
}
