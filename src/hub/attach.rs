//! How a connection attaches to its duel, step by step.
//!
//! Each step consumes the one before, so the compiler keeps their order:
//!
//! | step | what holds from then on |
//! |---|---|
//! | [`Listed`] | whatever happens in the duel wakes the connection |
//! | [`Subscribed`] | the engine tells this node what happens in the duel |
//! | [`Redeemed`] | the ticket is used; a later revocation finds the connection in the list |
//! | [`Located`] | the duel admits the user, and it is known where the connection starts |
//! | [`Announced`] | the user is online |
//! | [`Attachment`] | the cursor is set, and the client's first frame is known |
//!
//! Dropping any of them takes the connection out and undoes what was done, except that a used ticket stays used.

use std::sync::Arc;

use super::Hub;
use super::attachment::{Attachment, ListedConnection};
use super::connection::Connection;
use super::duel::HeadChange;
use super::follow::Cursor;
use crate::clock;
use crate::engine::{DuelRecord, EngineError, Latest, NewConnection, RedeemError};
use crate::event::{DuelStatus, Event, Position, Viewer};
use crate::id::{DuelId, UserId};
use crate::ticket::Ticket;

/// Why a connection is not attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// The ticket was used before.
    #[error("the ticket was used before")]
    AlreadyUsed,
    /// The ticket was revoked.
    #[error("the ticket was revoked")]
    Revoked,
    /// The ticket expired on the way.
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
            RedeemError::AlreadyUsed => Self::AlreadyUsed,
            RedeemError::Revoked => Self::Revoked,
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
    /// The position that the client has reached once it has `state`.
    pub position: Position,
    /// Whether the connection continues an earlier one.
    pub recovery: Recovery,
    /// The users who are online, in the order of their ids. Includes the connection's own.
    pub online: Vec<UserId>,
    /// The latest events, in order, none after `position`. Empty if the client recovered.
    pub state: Vec<Arc<Event>>,
}

/// Where a connection starts in its duel.
#[derive(Debug, Clone, Copy)]
struct EntryPoint {
    head: Position,
    /// The position that the client asked to resume from, in the present epoch if it has one there.
    resume: Option<Position>,
    recovery: Recovery,
    /// See [`DuelRecord::attach_number`].
    number: u64,
}

/// How often the entry point is looked up anew if epochs end meanwhile.
const ENTRY_ATTEMPTS_MAX: usize = 4;

/// The connection is in its duel's list.
struct Listed(ListedConnection);

/// The engine tells this node what happens in the duel.
struct Subscribed(ListedConnection);

/// The ticket is used.
struct Redeemed(ListedConnection);

/// The duel admits the connection.
struct Located(ListedConnection, EntryPoint);

/// The connection's user is online.
struct Announced(ListedConnection, EntryPoint);

impl Hub {
    /// Uses the ticket and attaches a connection, which resumes from `resume` if that is possible. Not cancel safe: if it is
    /// dropped, the ticket may be used.
    ///
    /// # Errors
    /// [`AttachError`]. Unless the ticket was refused, it is used.
    pub async fn attach(
        self: &Arc<Self>,
        ticket: &Ticket,
        resume: Option<Position>,
    ) -> Result<(Attachment, Welcome), AttachError> {
        let subscribed = self.list(ticket.duel, ticket.viewer).await.subscribe().await?;
        let located = subscribed.redeem(ticket).await?.locate(resume).await?;
        located.announce().await?.start(resume).await
    }

    /// Attaches the node's own probe, which needs no ticket.
    pub(super) async fn attach_probe(
        self: &Arc<Self>,
        viewer: Viewer,
    ) -> Result<Attachment, AttachError> {
        let subscribed = self.list(DuelId::PROBE, viewer).await.subscribe().await?;
        let located = Redeemed(subscribed.0).locate(None).await?;
        Ok(located.announce().await?.start(None).await?.0)
    }

    async fn list(self: &Arc<Self>, duel: DuelId, viewer: Viewer) -> Listed {
        let connection = Arc::new(Connection::new(self.next_connection_id(), duel, viewer));
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
}

impl Listed {
    async fn subscribe(self) -> Result<Subscribed, EngineError> {
        self.0.hub.engine.subscribe(self.0.live.id).await?;
        Ok(Subscribed(self.0))
    }
}

impl Subscribed {
    async fn redeem(self, ticket: &Ticket) -> Result<Redeemed, RedeemError> {
        self.0.hub.engine.redeem(ticket).await?;
        Ok(Redeemed(self.0))
    }
}

impl Redeemed {
    async fn locate(self, resume: Option<Position>) -> Result<Located, AttachError> {
        let entry = self.0.locate(resume).await?;
        Ok(Located(self.0, entry))
    }
}

impl Located {
    async fn announce(self) -> Result<Announced, EngineError> {
        let Self(listed, entry) = self;
        let ListedConnection { hub, live, connection, .. } = &listed;
        let per_user_max = hub.config.connections_per_user_max;
        let new = NewConnection {
            duel: live.id,
            viewer: connection.viewer,
            since: clock::now(),
            first: live.attach(connection, per_user_max),
            number: entry.number,
            connection: connection.id,
            connections_max: per_user_max,
        };
        hub.engine.attach(new).await?;
        Ok(Announced(listed, entry))
    }
}

impl Announced {
    /// Reads the state that the client starts with. If the epoch ends meanwhile, looks up the entry point anew.
    async fn start(self, resume: Option<Position>) -> Result<(Attachment, Welcome), AttachError> {
        let Self(listed, mut entry) = self;
        for _ in 0..ENTRY_ATTEMPTS_MAX {
            if let Some(state) = listed.state(&entry).await? {
                let EntryPoint { head, resume, recovery, .. } = entry;
                let recovered = resume.filter(|_| recovery == Recovery::Recovered);
                let position = recovered.unwrap_or(head);
                let (online, presence) = listed.live.online_with(listed.connection.viewer);
                let cursor = Cursor { position, presence, failing_since: None };
                let welcome = Welcome { position, recovery, online, state };
                return Ok((Attachment::new(listed, cursor), welcome));
            }
            entry = listed.locate(resume).await?;
        }
        Err(EngineError::UNAVAILABLE.into())
    }
}

impl ListedConnection {
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
        let number = record.attach_number;
        Ok(EntryPoint { head: record.head.position, resume, recovery, number })
    }

    /// Returns the events that the client starts with, or `None` if the epoch has ended since.
    async fn state(&self, entry: &EntryPoint) -> Result<Option<Vec<Arc<Event>>>, EngineError> {
        let which = match entry.recovery {
            Recovery::Recovered => return Ok(Some(Vec::new())),
            Recovery::NotRecovered => Latest::EachType,
            Recovery::Fresh => Latest::Update,
        };
        let viewer = self.connection.viewer;
        self.hub.engine.latest(self.live.id, viewer, entry.head, which).await
    }
}

/// Returns whether a client can resume from `resume` in a duel that stands as `record` says.
fn recovery(record: &DuelRecord, resume: Option<Position>) -> Result<Recovery, AttachError> {
    let recovery = match resume {
        None => Recovery::Fresh,
        Some(position) if record.head.holds_after(position) => Recovery::Recovered,
        Some(_) => Recovery::NotRecovered,
    };
    let missed = recovery == Recovery::Recovered && resume != Some(record.head.position);
    if record.head.status != DuelStatus::Open && !missed {
        return Err(AttachError::Closed);
    }
    Ok(recovery)
}
