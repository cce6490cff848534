//! The one path by which events reach a connection: whatever lies after its cursor, from the tail or from the engine.

use std::collections::HashSet;
use std::sync::Arc;

use super::duel::LiveDuel;
use super::presence::PresenceChange;
use crate::engine::{Engine, EngineError, Page};
use crate::event::{Event, Position, Viewer};
use crate::limits;

/// Sweeps that an engine may answer while it fails to read what a connection lacks.
const FAILED_SWEEPS_MAX: u64 = 3;

/// Up to where a connection was served.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor {
    pub(super) position: Position,
    pub(super) presence: u64,
    /// The duel's count of answered sweeps when the engine first failed to read. `None`: it has not failed.
    pub(super) failing_since: Option<u64>,
}

/// What a connection sends next: the events first, then the changes of presence.
#[derive(Debug, Default)]
pub struct Batch {
    /// Events addressed to the connection, in order.
    pub events: Vec<Arc<Event>>,
    /// Users who came online or went offline, in order.
    pub presence: Vec<PresenceChange>,
}

impl Batch {
    /// Returns whether there is nothing to send now.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.events.is_empty() && self.presence.is_empty()
    }
}

/// Why a client would miss something on this connection, and must connect again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResyncRequired {
    /// The client is so slow that what it lacks is no longer kept.
    #[error("the client lags behind the log")]
    TooSlow,
    /// This node was told too late of what the client lacks: it is no longer kept. The client is not slow.
    #[error("the node was told too late")]
    Missed,
    /// The duel's epoch has ended, and the client lacks something.
    #[error("the duel has a new epoch")]
    EpochChanged,
    /// The engine answers, but repeatedly fails to read what the client lacks.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Cursor {
    pub(super) async fn next(
        &mut self,
        engine: &dyn Engine,
        live: &LiveDuel,
        viewer: Viewer,
    ) -> Result<Batch, ResyncRequired> {
        loop {
            let position = self.position;
            let view = live.view(position, self.presence, limits::BATCH_EVENTS_MAX);
            let presence = view.presence.ok_or(ResyncRequired::TooSlow)?;
            let newest = view.newest.unwrap_or(position);
            if newest.epoch != position.epoch && !view.up_to_date {
                return Err(ResyncRequired::EpochChanged);
            }
            let mut events = Vec::new();
            if position.seq < newest.seq {
                events = match view.events {
                    Some(events) => events,
                    None => self.read(engine, live, position).await?,
                };
            }
            self.presence += presence.len() as u64;
            let Some(last) = events.last() else { return Ok(Batch { events, presence }) };
            assert_eq!(events[0].seq, position.seq + 1, "events follow the cursor without a gap");
            self.position.seq = last.seq;
            let batch = Batch { events: addressed(events, viewer), presence };
            if !batch.is_empty() {
                return Ok(batch);
            }
        }
    }

    /// Reads from the engine. While the engine is away, returns no events: the connection stays, and reads again after each
    /// sweep. If the engine answers sweeps and still cannot read, waiting does not help.
    async fn read(
        &mut self,
        engine: &dyn Engine,
        live: &LiveDuel,
        after: Position,
    ) -> Result<Vec<Arc<Event>>, ResyncRequired> {
        match engine.read(live.id, after, limits::BATCH_EVENTS_MAX).await {
            Ok(Page::Events(events)) => {
                self.failing_since = None;
                Ok(events)
            }
            Ok(Page::Gone) if live.missed_after(after.seq) || self.failing_since.is_some() => {
                Err(ResyncRequired::Missed)
            }
            Ok(Page::Gone) => Err(ResyncRequired::TooSlow),
            // The node has not heard of the next epoch yet.
            Ok(Page::Ended) => Err(ResyncRequired::EpochChanged),
            Err(error) => {
                let sweeps = live.defer_read();
                let failing_since = *self.failing_since.get_or_insert(sweeps);
                let hopeless = sweeps - failing_since >= FAILED_SWEEPS_MAX;
                if hopeless { Err(error.into()) } else { Ok(Vec::new()) }
            }
        }
    }
}

/// Returns the events addressed to `viewer`, without those that a newer one with the same coalesce key replaces.
fn addressed(mut events: Vec<Arc<Event>>, viewer: Viewer) -> Vec<Arc<Event>> {
    events.retain(|event| event.includes(viewer));
    let key = |event: &Arc<Event>| event.push().and_then(|push| push.coalesce_key.clone());
    if events.len() < 2 || !events.iter().any(|event| key(event).is_some()) {
        return events;
    }
    let mut newer = HashSet::new();
    events.reverse();
    events.retain(|event| key(event).is_none_or(|key| newer.insert(key)));
    events.reverse();
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMs;
    use crate::event::{Audience, Content, EventType, Payload, Push, Role};
    use crate::id::{DuelId, UserId};

    #[test]
    fn of_one_coalesce_key_only_the_newest_addressed_to_the_viewer_is_served() {
        let [one, two] = [1, 2].map(|user| UserId::try_from(user).unwrap());
        let event = |seq, key: Option<&str>, audience| {
            let payload = Payload::parse(DuelId::try_from(1).unwrap(), "{}", 100).unwrap();
            let push = Push::new(EventType::duel_update(), payload);
            let push = Push { audience, coalesce_key: key.map(Into::into), ..push };
            Arc::new(Event { seq, stored_at: UnixMs(0), content: Content::Pushed(push) })
        };
        let events = vec![
            event(1, Some("timer"), Audience::All),
            event(2, None, Audience::All),
            event(3, Some("timer"), Audience::All),
            event(4, Some("score"), Audience::All),
            event(5, Some("timer"), Audience::Only([two].into())),
        ];
        let served = |user| {
            let viewer = Viewer { user, role: Role::Player };
            let served = addressed(events.clone(), viewer);
            served.iter().map(|event| event.seq).collect::<Vec<_>>()
        };
        assert_eq!(served(one), [2, 3, 4]);
        assert_eq!(served(two), [2, 4, 5]);
    }
}
