//! The players of a schedule: what each holds in their hands, and how they read.

use std::sync::Arc;
use std::time::Duration;

use duelhub::event::{Content, Event, Position, Role, Viewer};
use duelhub::hub::{Attachment, Lost};
use duelhub::ticket::Ticket;

use crate::Tally;
use crate::check::{Follower, Objection, ensure, unexpected};
use crate::history::{History, shown_end};
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
pub(crate) struct Player {
    pub(crate) duel: usize,
    pub(crate) viewer: Viewer,
    /// The connection, and how far it has come.
    pub(crate) line: Option<(Attachment, Follower)>,
    /// What the client would resume with: from what it received.
    pub(crate) position: Option<Position>,
    /// The ticket by which it came last.
    pub(crate) used: Option<Ticket>,
    /// Tickets kept for later.
    pub(crate) pocket: Vec<Ticket>,
}

/// The event as `viewer` sees it; nothing if it is not for them to see.
pub(crate) fn show(event: &Event, viewer: Viewer) -> Shown {
    match &event.content {
        Content::Closed(ending) => shown_end(event.seq, *ending),
        Content::Pushed(push) => {
            let body = push.payload_for(viewer).map_or("", |payload| payload.json());
            let event_type = push.event_type.as_str().to_owned();
            Shown { seq: event.seq, event_type, body: body.to_owned() }
        }
    }
}

/// The same for several.
pub(crate) fn show_all(events: &[Arc<Event>], viewer: Viewer) -> Vec<Shown> {
    events.iter().map(|event| show(event, viewer)).collect()
}

impl Player {
    pub(crate) fn new((duel, id, role): (usize, u64, Role)) -> Self {
        let viewer = Viewer { user: user(id), role };
        Self { duel, viewer, line: None, position: None, used: None, pocket: Vec::new() }
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
    ) -> Result<bool, Objection> {
        let Some((attachment, follower)) = &mut self.line else { return Ok(false) };
        let batch = match attachment.next().await {
            Ok(batch) => batch,
            Err(Lost::TooSlow) => {
                follower.too_slow(history)?;
                *tally.entry("too slow").or_default() += 1;
                self.cut();
                return Ok(false);
            }
            Err(lost) => return unexpected(format!("the connection is lost: {lost}")),
        };
        let shown = show_all(&batch.events, self.viewer);
        let left_out_before = follower.left_out;
        follower.batch(history, &shown, attachment.served_seq())?;
        if follower.left_out > left_out_before {
            *tally.entry("left out for a newer one").or_default() += 1;
        }
        let empty = batch.is_empty();
        self.received(history, &shown);
        if shown.last().is_some_and(|last| last.event_type == "duel_closed") {
            *tally.entry("the end of a duel shown").or_default() += 1;
            self.cut();
        }
        Ok(!empty)
    }

    /// Reads until everything has come that the engine must show by now; waits to be woken for it.
    pub(crate) async fn catch_up(
        &mut self,
        history: &mut History,
        tally: &mut Tally,
    ) -> Result<(), Objection> {
        let target = history.settled();
        loop {
            let more = self.read(history, tally).await?;
            let Some((attachment, follower)) = &self.line else { return Ok(()) };
            ensure(attachment.dismissal().is_none(), Objection::Unexpected("dismissed".into()))?;
            if follower.cursor >= target && !more {
                return Ok(());
            }
            if !more {
                let woken = tokio::time::timeout(DEADLINE, attachment.woken()).await;
                ensure(woken.is_ok(), Objection::Lost(follower.cursor + 1))?;
            }
        }
    }
}
