//! How an event reaches many connections: piece by piece, by tasks of the players' runtime.
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
pub(super) struct Crowd(Weak<UnderWay>);

#[derive(Debug)]
struct UnderWay;

/// What the tasks of one event do.
#[derive(Debug)]
pub(super) struct Pieces {
    pieces: Vec<Piece>,
    under_way: Arc<UnderWay>,
}

impl Crowd {
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
