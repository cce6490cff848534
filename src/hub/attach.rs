//! How a connection enters a duel, and how it leaves.

use std::sync::Arc;

use tracing::warn;

use super::Hub;
use super::connection::{Connection, Dismissal, Outlet};
use super::duel::{Joined, LiveDuel, Noted};
use super::follow::{Batch, Cursor, Lost};
use crate::clock;
use crate::engine::{
    DuelRecord, EngineError, Latest, NewConnection, OfflineReason, RedeemError, Signal, SignalKind,
};
use crate::event::{DuelStatus, Event, Position, Viewer};
use crate::id::{DuelId, UserId};
use crate::ticket::Ticket;

/// Why a connection does not come about.
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
    /// The duel is closed, and there is nothing that the client has missed.
    #[error("the duel is closed")]
    Closed,
    /// The engine's own reasons.
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

/// How a connection goes on from the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// It did not ask to.
    Fresh,
    /// It did, and everything since then follows.
    Recovered,
    /// It did, and something since then is gone: it starts from the state.
    NotRecovered,
}

/// What a connection starts with.
#[derive(Debug)]
pub struct Welcome {
    /// The position that it is served up to, once it has `state`.
    pub position: Position,
    /// How it goes on.
    pub recovery: Recovery,
    /// Who is online, the user included, by id.
    pub online: Vec<UserId>,
    /// The latest events, in order, none after `position`. Empty when recovered.
    pub state: Vec<Arc<Event>>,
}

/// Where a connection enters its duel.
#[derive(Debug, Clone, Copy)]
struct Place {
    head: Position,
    /// From where it wants to go on, as a position of the present epoch if it is one.
    resume: Option<Position>,
    recovery: Recovery,
    /// See [`DuelRecord::attach_number`].
    number: u64,
}

/// How often a connection that is entering looks where, while epochs end one after the other.
const PLACES_MAX: usize = 4;

/// A connection in its duel. Dropping it takes the connection out.
#[derive(Debug)]
pub struct Attachment {
    hub: Arc<Hub>,
    live: Arc<LiveDuel>,
    connection: Arc<Connection>,
    cursor: Cursor,
    acked_seq: u64,
    /// Why the connection goes; until somebody knows better, it was lost.
    ending: OfflineReason,
}

impl Hub {
    /// Spends the ticket and enters the duel, going on after `resume` if that is possible. Not cancel safe: dropped, the
    /// ticket may be spent.
    ///
    /// # Errors
    /// [`AttachError`]; unless the ticket was refused, it is spent.
    pub async fn attach(
        self: &Arc<Self>,
        ticket: &Ticket,
        resume: Option<Position>,
    ) -> Result<(Attachment, Welcome), AttachError> {
        self.enter(ticket.duel, ticket.viewer, Some(ticket), resume).await
    }

    /// Enters the duel; the node's own probe does so without a ticket.
    pub(super) async fn enter(
        self: &Arc<Self>,
        duel: DuelId,
        viewer: Viewer,
        ticket: Option<&Ticket>,
        resume: Option<Position>,
    ) -> Result<(Attachment, Welcome), AttachError> {
        let connection = Arc::new(Connection::new(self.next_connection_id(), duel, viewer));
        let live = self.join(&connection);
        let mut attachment = Attachment {
            hub: Arc::clone(self),
            live,
            connection,
            // The place follows once the head is known; until then nobody looks.
            cursor: Cursor { position: None, presence: 0, lacking_since: None },
            acked_seq: 0,
            ending: OfflineReason::Lost,
        };
        self.engine.subscribe(duel).await?;
        // After joining and following: a revocation either refuses the ticket here, or finds the connection in the list.
        if let Some(ticket) = ticket {
            self.engine.redeem(ticket).await?;
        }
        let mut place = self.place(&attachment.live, viewer, resume).await?;
        let per_user_max = self.config.connections_per_user_max;
        let arrival = NewConnection {
            duel,
            viewer,
            since: clock::now(),
            first: attachment.live.let_in(&attachment.connection, per_user_max),
            number: place.number,
            connection: attachment.connection.id,
            connections_max: per_user_max,
        };
        self.engine.attach(arrival).await?;
        for _ in 0..PLACES_MAX {
            if let Some(welcome) = attachment.welcome(&place).await? {
                return Ok((attachment, welcome));
            }
            place = self.place(&attachment.live, viewer, resume).await?;
        }
        Err(EngineError::Unavailable { may_have_taken_effect: false }.into())
    }

    /// Where a viewer enters the duel as it stands now.
    async fn place(
        &self,
        live: &LiveDuel,
        viewer: Viewer,
        resume: Option<Position>,
    ) -> Result<Place, AttachError> {
        let record = self.engine.get_or_create(live.id).await?;
        if !record.allows(viewer) {
            return Err(AttachError::NotAParticipant);
        }
        if let Noted::Renewed(connections) = live.note(&record.head) {
            self.renew(connections);
        }
        live.set_presence_grace(record.settings.presence_grace);
        let resume = resume.map(|position| record.head.carried(position));
        let recovery = recovery(&record, resume)?;
        let number = record.attach_number;
        Ok(Place { head: record.head.position, resume, recovery, number })
    }

    fn join(&self, connection: &Arc<Connection>) -> Arc<LiveDuel> {
        loop {
            let live = self.live(connection.duel).unwrap_or_else(|| {
                let mut duels = self.duels.write();
                let live = duels.entry(connection.duel);
                Arc::clone(live.or_insert_with(|| Arc::new(LiveDuel::new(connection.duel))))
            });
            match live.join(connection) {
                Joined::In => return live,
                // Whoever retired it is about to take it out of the map.
                Joined::Retired => std::thread::yield_now(),
            }
        }
    }

    /// Takes the duel out of the map if nobody is left in it.
    pub(super) fn retire(&self, live: &LiveDuel) {
        let mut duels = self.duels.write();
        if live.retire() {
            duels.remove(&live.id);
            // Under the lock, so that whoever comes now follows the duel anew after this.
            self.engine.unsubscribe(live.id);
        }
    }
}

/// How a connection goes on in a duel that stands as `record` says.
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

impl Attachment {
    /// `None`: the epoch has ended since.
    async fn welcome(&mut self, place: &Place) -> Result<Option<Welcome>, EngineError> {
        let Place { head, resume, recovery, .. } = *place;
        let (position, which) = match (recovery, resume) {
            (Recovery::Recovered, Some(resume)) => (resume, None),
            (Recovery::NotRecovered, _) => (head, Some(Latest::EachType)),
            (Recovery::Fresh | Recovery::Recovered, _) => (head, Some(Latest::Update)),
        };
        let (duel, viewer) = (self.connection.duel, self.connection.viewer);
        let state = match which {
            Some(which) => self.hub.engine.latest(duel, viewer, head, which).await?,
            None => Some(Vec::new()),
        };
        let Some(state) = state else { return Ok(None) };
        let (online, presence) = self.live.online_with(viewer);
        self.cursor = Cursor { position: Some(position), presence, lacking_since: None };
        Ok(Some(Welcome { position, recovery, online, state }))
    }

    /// The connection's public face.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Waits until [`Attachment::next`] or [`Attachment::dismissal`] may have something new. Cancel safe.
    pub async fn woken(&self) {
        self.connection.woken().await;
    }

    /// Why the hub wants the connection to close, if it does.
    #[must_use]
    pub fn dismissal(&self) -> Option<&Dismissal> {
        self.connection.dismissal()
    }

    /// Whether the user's tickets were revoked since: then no resume ticket is handed out.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.connection.is_revoked()
    }

    /// The seq up to which [`Attachment::next`] has answered, or events were handed over.
    #[must_use]
    pub fn served_seq(&self) -> u64 {
        self.connection.lent_cursor().or(self.cursor.position).map_or(0, |position| position.seq)
    }

    /// What lies after the cursor, which moves past it; an empty batch means that nothing does, or that the engine is away
    /// and the connection is woken when it is back. Not cancel safe: dropped
    /// while it waits for the engine, it has not moved the cursor.
    ///
    /// # Errors
    /// [`Lost`]: the connection cannot be served without a gap, and has to come back.
    pub async fn next(&mut self) -> Result<Batch, Lost> {
        if let Some(cursor) = self.connection.take_cursor() {
            self.cursor.position = Some(cursor);
        }
        let viewer = self.connection.viewer;
        let batch = self.cursor.next(&*self.hub.engine, &self.live, viewer).await?;
        if let Some(cursor) = self.cursor.position
            && batch.is_empty()
        {
            self.connection.lend_cursor(cursor);
        }
        Ok(batch)
    }

    /// Through which events reach the client at once, whenever [`Attachment::next`] was last empty. Without one the task is
    /// woken for each.
    pub fn set_outlet(&self, outlet: Arc<dyn Outlet>) {
        self.connection.set_outlet(outlet);
    }

    /// The client says that it has everything up to `seq`. What it was not served, and what it said before, is ignored.
    pub async fn ack(&mut self, seq: u64) {
        if seq <= self.acked_seq || seq > self.served_seq() {
            return;
        }
        self.acked_seq = seq;
        let kind = SignalKind::Acked { user: self.connection.viewer.user, seq };
        let told = self.hub.engine.signal(Signal { duel: self.connection.duel, kind }).await;
        if let Err(error) = told {
            warn!(duel_id = self.connection.duel.get(), %error, "an ack was not passed on");
        }
    }

    /// Says why the connection goes, for those who watch.
    pub const fn set_ending(&mut self, ending: OfflineReason) {
        self.ending = ending;
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        // Whatever is being handed over comes before the good-bye, and nothing behind it.
        self.connection.take_cursor();
        let Connection { id, duel, viewer, .. } = &*self.connection;
        if self.connection.is_let_in() {
            self.hub.engine.detach(*duel, viewer.user, *id);
        }
        if self.live.leave(&self.connection, self.ending) {
            self.hub.begin_grace(&self.live, &self.connection);
        } else {
            self.hub.retire(&self.live);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::engine::MemoryEngine;
    use crate::event::Role;
    use crate::hub::Handed;
    use crate::metrics::Metrics;

    #[derive(Debug)]
    struct Nowhere;

    impl Outlet for Nowhere {
        fn hand(&self, _connection: &Connection, _event: &Event) -> Handed {
            Handed::Whole
        }
    }

    #[tokio::test]
    async fn who_leaves_is_handed_nothing_more() {
        let config = Config::read(&|_| None).unwrap();
        let engine = Arc::new(MemoryEngine::new(config.engine));
        let hub = Hub::new(engine, config.hub, Arc::new(Metrics::new()));
        let viewer = Viewer { user: UserId::try_from(1).unwrap(), role: Role::Player };
        let duel = DuelId::try_from(77).unwrap();
        let (mut attachment, _) = hub.enter(duel, viewer, None, None).await.unwrap();
        attachment.set_outlet(Arc::new(Nowhere));
        while !attachment.next().await.unwrap().is_empty() {}
        let connection = Arc::clone(&attachment.connection);
        assert!(connection.lent_cursor().is_some());
        drop(attachment);
        assert_eq!(connection.lent_cursor(), None);
    }
}
