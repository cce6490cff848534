//! The players of a schedule: what each holds in their hands, and how they read.

use std::sync::Arc;
use std::time::Duration;

use duelhub::event::{Content, Event, Position, Role, Viewer};
use duelhub::hub::{Attachment, Connection, Handed, Lost, Outlet};
use duelhub::ticket::Ticket;
use parking_lot::Mutex;
use tokio::sync::Notify;

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

/// A socket as the hub knows it: it takes some events as a whole, of some the task has to do the rest, and some not at all.
#[derive(Debug, Default)]
pub(crate) struct Socket {
    /// What it took, in order; `None`: what is not for the player to see.
    handed: Mutex<Vec<(u64, Option<Shown>)>>,
    news: Notify,
}

impl Outlet for Socket {
    fn hand(&self, connection: &Connection, event: &Event) -> Handed {
        let handed = match (&event.content, event.seq % 5) {
            (Content::Closed(_), _) | (_, 0) => Handed::Not,
            (_, 1) => Handed::Partly,
            _ => Handed::Whole,
        };
        if handed != Handed::Not {
            let viewer = connection.viewer;
            let shown = event.includes(viewer).then(|| show(event, viewer));
            self.handed.lock().push((event.seq, shown));
            self.news.notify_one();
        }
        handed
    }
}

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
    /// Half of the players are handed events as they are stored; the others read all of them.
    socket: Option<Arc<Socket>>,
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
    pub(crate) fn new((duel, id, role): (usize, u64, Role), is_handed: bool) -> Self {
        let viewer = Viewer { user: user(id), role };
        let socket = is_handed.then(Arc::default);
        Self { duel, viewer, line: None, position: None, used: None, pocket: Vec::new(), socket }
    }

    /// A connection is let in.
    pub(crate) fn follow(&mut self, attachment: Attachment, follower: Follower) {
        if let Some(socket) = &mut self.socket {
            *socket = Arc::default();
            attachment.set_outlet(Arc::clone(socket) as Arc<dyn Outlet>);
        }
        self.line = Some((attachment, follower));
    }

    /// What was handed over until now has been received, and `batch` after it.
    fn receive(
        &mut self,
        history: &mut History,
        batch: &[Arc<Event>],
        tally: &mut Tally,
    ) -> Result<Vec<Shown>, Objection> {
        let Some((attachment, follower)) = &mut self.line else { return Ok(Vec::new()) };
        // Before what was handed is looked at: of what comes between the two there is word below, and not here.
        let served = attachment.served_seq();
        let handed = self.socket.as_ref().map(|socket| std::mem::take(&mut *socket.handed.lock()));
        let handed = handed.unwrap_or_default();
        let served = handed.last().map_or(served, |(seq, _)| served.max(*seq));
        if handed.iter().any(|(_, shown)| shown.is_some()) {
            *tally.entry("handed over").or_default() += 1;
        }
        let handed = handed.into_iter().filter_map(|(_, shown)| shown);
        let shown: Vec<_> = handed.chain(show_all(batch, self.viewer)).collect();
        let left_out_before = follower.left_out;
        follower.batch(history, &shown, served)?;
        if follower.left_out > left_out_before {
            *tally.entry("left out for a newer one").or_default() += 1;
        }
        self.received(history, &shown);
        Ok(shown)
    }

    /// A pong says up to where the player was served; what was handed over came before it.
    pub(crate) fn pong(
        &mut self,
        history: &mut History,
        tally: &mut Tally,
    ) -> Result<(), Objection> {
        self.receive(history, &[], tally)?;
        if let (Some((_, follower)), Some(epoch)) = (&self.line, history.epoch) {
            self.position = Some(Position { epoch, seq: follower.cursor });
        }
        Ok(())
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
        let Some((attachment, _)) = &mut self.line else { return Ok(false) };
        let batch = match attachment.next().await {
            Ok(batch) => batch,
            Err(Lost::TooSlow) => {
                self.receive(history, &[], tally)?;
                if let Some((_, follower)) = &self.line {
                    follower.too_slow(history)?;
                }
                *tally.entry("too slow").or_default() += 1;
                self.cut();
                return Ok(false);
            }
            Err(lost) => return unexpected(format!("the connection is lost: {lost}")),
        };
        let shown = self.receive(history, &batch.events, tally)?;
        let empty = batch.is_empty() && shown.is_empty();
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
                let news = async {
                    match &self.socket {
                        Some(socket) => socket.news.notified().await,
                        None => std::future::pending().await,
                    }
                };
                let woken = async {
                    tokio::select! {
                        () = attachment.woken() => {}
                        () = news => {}
                    }
                };
                let woken = tokio::time::timeout(DEADLINE, woken).await;
                ensure(woken.is_ok(), Objection::Lost(follower.cursor + 1))?;
            }
        }
    }
}
