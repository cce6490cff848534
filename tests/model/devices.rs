//! The players of a schedule: what each holds in their hands, and how they read.

use std::sync::Arc;
use std::time::Duration;

use duelhub::event::{Position, Role, Viewer};
use duelhub::ticket::{Generation, Issued};

use crate::Tally;
use crate::check::{Follower, Violation, unexpected};
use crate::history::History;
use crate::node::{ClientConnection, Gone, Served};
use crate::spec::{Shown, user};

/// In which duel, who, as what. The first two are two devices of one user.
pub(crate) const PLAYERS: [(usize, u64, Role); 6] = [
    (0, 1, Role::Player),
    (0, 1, Role::Player),
    (0, 2, Role::Player),
    (0, 3, Role::Spectator),
    (1, 1, Role::Player),
    (1, 2, Role::Player),
];

/// How long anything may take that works. Generous: a busy machine is no failure.
const DEADLINE: Duration = Duration::from_secs(20);

/// One device of a user.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) duel: usize,
    pub(crate) viewer: Viewer,
    /// The node that they came to last.
    pub(crate) node: usize,
    /// The connection, and how far it has come.
    pub(crate) line: Option<(ClientConnection, Follower)>,
    /// The duel was closed when they came: they are not online, and nobody disconnects them.
    pub(crate) fetches_end: bool,
    /// An older connection, and its node, of the session with which the player comes in again.
    pub(crate) left_behind: Option<(ClientConnection, usize)>,
    /// What the client would resume with: from what it received.
    pub(crate) position: Option<Position>,
    /// The ticket by which it came last.
    pub(crate) used: Option<Arc<Issued>>,
    /// Tickets kept for later.
    pub(crate) pocket: Vec<Arc<Issued>>,
    /// Half of the players are handed events as they are stored; the others read all of them.
    is_handed: bool,
}

impl Device {
    pub(crate) fn new((duel, id, role): (usize, u64, Role), is_handed: bool) -> Self {
        let viewer = Viewer { user: user(id), role };
        let (line, left_behind, position, used) = (None, None, None, None);
        let pocket = Vec::new();
        let (node, fetches_end) = (0, false);
        Self {
            duel,
            viewer,
            node,
            line,
            fetches_end,
            left_behind,
            position,
            used,
            pocket,
            is_handed,
        }
    }

    /// A connection is let in.
    pub(crate) fn follow(&mut self, mut line: ClientConnection, follower: Follower) {
        if self.is_handed {
            line.take_what_is_handed();
        }
        self.line = Some((line, follower));
    }

    /// Checks what the player was served.
    fn receive(
        &mut self,
        history: &mut History,
        served: &Served,
        tally: &mut Tally,
    ) -> Result<(), Violation> {
        let Some((_, follower)) = &mut self.line else { return Ok(()) };
        if served.handed {
            *tally.entry("handed over").or_default() += 1;
        }
        let left_out_before = follower.left_out;
        follower.batch(history, &served.shown, served.seq)?;
        if follower.left_out > left_out_before {
            *tally.entry("left out for a newer one").or_default() += 1;
        }
        self.received(history, &served.shown);
        if served.shown.last().is_some_and(|last| last.event_type == "duel_closed") {
            *tally.entry("the end of a duel shown").or_default() += 1;
            self.cut();
        }
        Ok(())
    }

    /// What was handed over until now has been received.
    fn receive_handed(
        &mut self,
        history: &mut History,
        tally: &mut Tally,
    ) -> Result<(), Violation> {
        let Some((line, _)) = &mut self.line else { return Ok(()) };
        let served = line.handed();
        self.receive(history, &served, tally)
    }

    /// A pong says up to where the player was served; what was handed over came before it.
    pub(crate) fn pong(
        &mut self,
        history: &mut History,
        tally: &mut Tally,
    ) -> Result<(), Violation> {
        self.receive_handed(history, tally)?;
        if let (Some((_, follower)), Some(epoch)) = (&self.line, history.epoch) {
            self.position = Some(Position { epoch, seq: follower.cursor });
        }
        Ok(())
    }

    /// The resume ticket that the player was handed when they came by the ticket that they used last.
    pub(crate) fn successor(&self) -> Option<Arc<Issued>> {
        let used = self.used.as_ref()?.ticket.generation;
        let next = Generation { number: used.number + 1, ..used };
        self.pocket.iter().rev().find(|kept| kept.ticket.generation == next).cloned()
    }

    /// The connection, if it is there.
    pub(crate) fn open_line(&self) -> Option<&ClientConnection> {
        self.line.as_ref().map(|(line, _)| line).filter(|line| line.is_open())
    }

    /// The connection goes; what the player has received stays with them.
    pub(crate) fn cut(&mut self) {
        self.line = None;
    }

    /// Takes the position from the last event received.
    pub(crate) fn received(&mut self, history: &History, shown: &[Shown]) {
        if let (Some(last), Some(epoch)) = (shown.last(), history.epoch) {
            self.position = Some(Position { epoch, seq: last.seq });
        }
    }

    /// Reads one batch: whether there was anything in it.
    pub(crate) async fn read(
        &mut self,
        history: &mut History,
        tally: &mut Tally,
    ) -> Result<bool, Violation> {
        let Some((line, _)) = &mut self.line else { return Ok(false) };
        let served = match line.next().await {
            Ok(served) => served,
            Err(Gone::TooSlow) => {
                self.receive_handed(history, tally)?;
                if let Some((_, follower)) = &self.line {
                    follower.too_slow(history)?;
                }
                *tally.entry("too slow").or_default() += 1;
                self.cut();
                return Ok(false);
            }
            Err(Gone::Otherwise(why)) => {
                return unexpected(format!("the connection is lost: {why}"));
            }
        };
        self.receive(history, &served, tally)?;
        Ok(served.more)
    }

    /// Reads until everything has come that the engine must show by now, or the connection is dismissed; waits to be woken
    /// for it.
    pub(crate) async fn catch_up(
        &mut self,
        history: &mut History,
        tally: &mut Tally,
    ) -> Result<(), Violation> {
        let reading = self.read_up_to(history.settled(), history, tally);
        if let Ok(done) = tokio::time::timeout(DEADLINE, Box::pin(reading)).await {
            return done;
        }
        let next = self.line.as_ref().map_or(0, |(_, follower)| follower.cursor + 1);
        Err(Violation::Lost(next))
    }

    async fn read_up_to(
        &mut self,
        target: u64,
        history: &mut History,
        tally: &mut Tally,
    ) -> Result<(), Violation> {
        loop {
            let more = self.read(history, tally).await?;
            let Some((line, follower)) = &self.line else { return Ok(()) };
            if line.close_request().is_some() || follower.cursor >= target && !more {
                return Ok(());
            }
            if !more {
                line.woken().await;
            }
        }
    }
}
