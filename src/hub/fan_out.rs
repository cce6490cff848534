//! Delivery of one event to many connections: in chunks, by tasks of the players' runtime.
//!
//! If the storing thread wrote to one connection after the other, the last of them and the backend would wait; waking the
//! task of each cost a quarter of the whole delivery. Called by the live duel, under its lock. Nothing here orders anything:
//! a connection takes an event only if it is the next after its cursor, and otherwise looks for itself.
//!
//! Bounds: one event of a duel is in flight at a time, in chunks of [`limits::FAN_OUT_CHUNK_MAX`] connections. Meanwhile,
//! later events wake the connections, each of which takes all that lies after its cursor together.

use std::ops::RangeInclusive;
use std::sync::{Arc, Weak};

use tokio::runtime::Handle;

use super::connection::Connection;
use crate::event::{Epoch, Event};
use crate::id::ConnectionId;
use crate::limits;

/// Neighbours in their duel's list.
pub(super) type Chunk = RangeInclusive<ConnectionId>;

/// Whether an event is in flight: its tasks hold the token.
#[derive(Debug, Default)]
pub(super) struct FanOut(Weak<InFlight>);

#[derive(Debug)]
struct InFlight;

/// The tasks' work for one event.
#[derive(Debug)]
pub(super) struct Chunks {
    chunks: Vec<Chunk>,
    in_flight: Arc<InFlight>,
}

impl FanOut {
    /// Divides the connections, which are in the order of their ids. Returns `None` while an earlier event is in flight.
    pub(super) fn begin(&mut self, connections: &[Arc<Connection>]) -> Option<Chunks> {
        if self.0.strong_count() > 0 {
            return None;
        }
        let chunks = connections
            .chunks(limits::FAN_OUT_CHUNK_MAX)
            .map(|chunk| chunk[0].id..=chunk[chunk.len() - 1].id)
            .collect();
        let in_flight = Arc::new(InFlight);
        self.0 = Arc::downgrade(&in_flight);
        Some(Chunks { chunks, in_flight })
    }
}

impl Chunks {
    /// Delivers the event, a task for each chunk. `remaining` returns those of a chunk that are still in the duel.
    pub(super) fn deliver(
        self,
        epoch: Epoch,
        event: &Arc<Event>,
        tasks: &Handle,
        remaining: impl Fn(&Chunk) -> Vec<Arc<Connection>> + Clone + Send + 'static,
    ) {
        for chunk in self.chunks {
            let (remaining, event) = (remaining.clone(), Arc::clone(event));
            let in_flight = Arc::clone(&self.in_flight);
            tasks.spawn(async move {
                remaining(&chunk).iter().for_each(|connection| connection.deliver(epoch, &event));
                drop(in_flight);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use parking_lot::Mutex;

    use super::super::connection::{DirectWriter, WriteOutcome};
    use super::super::duel::LiveDuel;
    use super::*;
    use crate::clock::UnixMs;
    use crate::engine::OfflineReason;
    use crate::event::{Content, Outcome, Position, Role, Viewer};
    use crate::id::{DuelId, UserId};

    /// Keeps the seqs that were written.
    #[derive(Debug, Default)]
    struct Recorder(Mutex<Vec<u64>>);

    impl DirectWriter for Recorder {
        fn try_write(&self, _connection: &Connection, event: &Event) -> WriteOutcome {
            self.0.lock().push(event.seq);
            WriteOutcome::Written
        }
    }

    fn event(seq: u64) -> Arc<Event> {
        Arc::new(Event { seq, stored_at: UnixMs(0), content: Content::Closed(Outcome::Finished) })
    }

    #[tokio::test]
    async fn one_event_is_in_flight_at_a_time_and_the_next_one_wakes() {
        let (duel, epoch) = (DuelId::try_from(77).unwrap(), Epoch::random());
        let live = Arc::new(LiveDuel::new(duel));
        let add = |user| {
            let viewer = Viewer { user: UserId::try_from(user).unwrap(), role: Role::Spectator };
            let connection = Arc::new(Connection::new(ConnectionId(user), duel, viewer, None));
            let recorder = Arc::new(Recorder::default());
            assert!(live.add(&connection));
            connection.set_direct_writer(Arc::clone(&recorder) as Arc<dyn DirectWriter>);
            connection.arm(Position { epoch, seq: 0 });
            (connection, recorder)
        };
        let all: Vec<_> = (1..=150).map(add).collect();
        let append = |seq| live.append(epoch, &event(seq), false, &Handle::current());
        assert_eq!([append(1), append(2)], [150, 150]);
        // Before a task has come to it.
        let (removed, removed_recorder) = &all[70];
        live.remove(removed, OfflineReason::Lost);
        tokio::task::yield_now().await;
        let stayed = || all.iter().filter(|(connection, _)| connection.id != removed.id);
        for (connection, recorder) in stayed() {
            assert!(connection.woken().now_or_never().is_some(), "{:?}", connection.id);
            assert_eq!(*recorder.0.lock(), [1], "{:?}", connection.id);
            connection.arm(Position { epoch, seq: 2 });
        }
        assert_eq!(append(3), 149);
        tokio::task::yield_now().await;
        stayed().for_each(|(_, recorder)| assert_eq!(*recorder.0.lock(), [1, 3]));
        assert!(removed_recorder.0.lock().is_empty());
    }
}
