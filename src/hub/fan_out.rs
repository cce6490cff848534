//! How an event reaches many connections, a crowd: piece by piece, by tasks of the players' runtime.
//!
//! One after the other, whoever stores the event would keep the last of them, and the backend, waiting; and waking the task of
//! each cost a quarter of the whole delivery. Called by the live duel, under its lock. Nothing here orders anything: a
//! connection takes an event only if it is the next after its cursor, and looks for itself otherwise.
//!
//! Bounds: one event of a duel is under way at a time, in pieces of [`limits::HANDED_BY_TASK_MAX`] connections. While it is,
//! the next ones wake the connections, each of which takes all that lies after its cursor together.

use std::ops::RangeInclusive;
use std::sync::{Arc, Weak};

use tokio::runtime::Handle;

use super::connection::Connection;
use super::duel::LiveDuel;
use crate::event::{Epoch, Event};
use crate::id::ConnectionId;
use crate::limits;

/// Connections that follow one another in their duel.
pub(super) type Piece = RangeInclusive<ConnectionId>;

/// Whether an event is under way: its tasks hold this.
#[derive(Debug, Default)]
pub(super) struct FanOut(Weak<UnderWay>);

#[derive(Debug)]
struct UnderWay;

/// What the tasks of one event do.
#[derive(Debug)]
pub(super) struct Pieces {
    pieces: Vec<Piece>,
    under_way: Arc<UnderWay>,
}

impl FanOut {
    /// Divides the connections, which are in the order of their ids. `None`: the event before is still under way.
    pub(super) fn begin(&mut self, connections: &[Arc<Connection>]) -> Option<Pieces> {
        if self.0.strong_count() > 0 {
            return None;
        }
        let pieces = connections
            .chunks(limits::HANDED_BY_TASK_MAX)
            .map(|piece| piece[0].id..=piece[piece.len() - 1].id)
            .collect();
        let under_way = Arc::new(UnderWay);
        self.0 = Arc::downgrade(&under_way);
        Some(Pieces { pieces, under_way })
    }
}

/// Has the event handed over.
pub(super) fn hand(
    live: &Arc<LiveDuel>,
    epoch: Epoch,
    event: &Arc<Event>,
    Pieces { pieces, under_way }: Pieces,
    tasks: &Handle,
) {
    for piece in pieces {
        let (live, event, under_way) =
            (Arc::clone(live), Arc::clone(event), Arc::clone(&under_way));
        tasks.spawn(async move {
            live.piece(&piece).iter().for_each(|connection| connection.offer(epoch, &event));
            drop(under_way);
        });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use parking_lot::Mutex;

    use super::super::connection::{Handed, Outlet};
    use super::*;
    use crate::clock::UnixMs;
    use crate::engine::OfflineReason;
    use crate::event::{Content, Outcome, Position, Role, Viewer};
    use crate::id::{DuelId, UserId};

    /// Keeps the seqs that it was handed.
    #[derive(Debug, Default)]
    struct Recorder(Mutex<Vec<u64>>);

    impl Outlet for Recorder {
        fn hand(&self, _connection: &Connection, event: &Event) -> Handed {
            self.0.lock().push(event.seq);
            Handed::Whole
        }
    }

    fn event(seq: u64) -> Arc<Event> {
        Arc::new(Event { seq, stored_at: UnixMs(0), content: Content::Closed(Outcome::Finished) })
    }

    #[tokio::test]
    async fn one_event_at_a_time_is_handed_over_and_the_next_one_wakes() {
        let (duel, epoch) = (DuelId::try_from(77).unwrap(), Epoch::random());
        let live = Arc::new(LiveDuel::new(duel));
        let join = |user| {
            let viewer = Viewer { user: UserId::try_from(user).unwrap(), role: Role::Spectator };
            let connection = Arc::new(Connection::new(ConnectionId(user), duel, viewer));
            let recorder = Arc::new(Recorder::default());
            live.join(&connection);
            connection.set_outlet(Arc::clone(&recorder) as Arc<dyn Outlet>);
            connection.lend_cursor(Position { epoch, seq: 0 });
            (connection, recorder)
        };
        let crowd: Vec<_> = (1..=150).map(join).collect();
        let append = |seq| live.append(epoch, &event(seq), false, &Handle::current());
        assert_eq!([append(1), append(2)], [150, 150]);
        // Before a task has come to it.
        let (leaver, leavers) = &crowd[70];
        live.leave(leaver, OfflineReason::Lost);
        tokio::task::yield_now().await;
        let stayed = || crowd.iter().filter(|(connection, _)| connection.id != leaver.id);
        for (connection, recorder) in stayed() {
            assert!(connection.woken().now_or_never().is_some(), "{:?}", connection.id);
            assert_eq!(*recorder.0.lock(), [1], "{:?}", connection.id);
            connection.lend_cursor(Position { epoch, seq: 2 });
        }
        assert_eq!(append(3), 149);
        tokio::task::yield_now().await;
        stayed().for_each(|(_, recorder)| assert_eq!(*recorder.0.lock(), [1, 3]));
        assert!(leavers.0.lock().is_empty());
    }
}
