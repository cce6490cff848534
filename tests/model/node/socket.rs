//! A connection over a real WebSocket: what has come in is looked at when the player looks.

use duelhub::engine::EngineError;
use duelhub::event::{Outcome, Position};
use duelhub::hub::{AttachError, CloseRequest, Recovery};
use duelhub::ticket::Issued;
use duelhub_testkit::{Frame, Hub, Join, PING, Player, soon};
use parking_lot::{Mutex, MutexGuard};

use super::{Gone, Served};
use crate::check::Welcomed;
use crate::history::shown_end;
use crate::spec::Shown;

#[derive(Debug)]
pub(crate) struct SocketConnection(Mutex<Inbox>);

/// The socket, and what has arrived and was not looked at.
#[derive(Debug)]
struct Inbox {
    player: Player,
    shown: Vec<Shown>,
    /// Up to where the player was served, as a pong said, behind everything that belongs together.
    seq: u64,
    /// Pings that are not answered yet.
    pings: u64,
}

impl SocketConnection {
    /// Opens a connection and waits until it is known what it starts with.
    pub(super) async fn open(
        hub: &Hub,
        ticket: &Issued,
        resume: Option<Position>,
    ) -> Result<(Self, Welcomed), AttachError> {
        let mut join = Join::ticket(ticket.text.as_str());
        join.resume = resume.map(|position| position.to_string());
        let mut player = Player::knock(hub, join).await;
        let text = soon("a first frame", player.next_text()).await.expect("a frame");
        let first = Frame::parse(&text);
        if first.r#type == "error" {
            return Err(refusal(player).await);
        }
        let head = format!("{}:{}", first.epoch.unwrap(), first.head.unwrap());
        let head: Position = head.parse().unwrap();
        let recovery = match first.recovered {
            None => Recovery::Fresh,
            Some(true) => Recovery::Recovered,
            Some(false) => Recovery::NotRecovered,
        };
        let recovered = resume.filter(|_| recovery == Recovery::Recovered);
        let position = recovered.map_or(head, |resume| Position { epoch: head.epoch, ..resume });
        let mut inbox = Inbox { player, shown: Vec::new(), seq: position.seq, pings: 0 };
        // The state comes before the answer to whatever the player says.
        inbox.ping().await;
        let of_state = |shown: &mut Shown| {
            let may_be = recovery != Recovery::Recovered && shown.event_type != "duel_closed";
            may_be && shown.seq <= position.seq
        };
        let state = inbox.shown.extract_if(.., of_state).collect();
        let resume_ticket = first.resume_ticket;
        Ok((Self(Mutex::new(inbox)), Welcomed { position, recovery, state, resume_ticket }))
    }

    /// What has arrived by now.
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        let mut inbox = self.0.lock();
        while let Some(text) = inbox.player.text_now() {
            inbox.take(&Frame::parse(&text));
        }
        inbox
    }

    pub(super) fn handed(&mut self) -> Served {
        let mut inbox = self.inbox();
        if inbox.player.closed.is_some() {
            let last = inbox.shown.last().map_or(0, |shown| shown.seq);
            inbox.seq = inbox.seq.max(last);
        }
        let seq = inbox.seq;
        let shown: Vec<_> = inbox.shown.extract_if(.., |shown| shown.seq <= seq).collect();
        Served { seq, handed: !shown.is_empty(), more: !shown.is_empty(), shown }
    }

    pub(super) async fn next(&mut self) -> Result<Served, Gone> {
        self.0.get_mut().ping().await;
        let closed = self.closed();
        if self.is_too_slow() {
            return Err(Gone::TooSlow);
        }
        let served = self.handed();
        match closed {
            // Of a duel that is closed the last event comes before the close frame.
            Some((4503, _)) if served.more => Ok(served),
            Some((code, reason)) if self.close_request().is_none() => {
                Err(Gone::Otherwise(format!("{code} {reason}")))
            }
            _ => Ok(served),
        }
    }

    /// A pong may say more next time, or something has come: both are found by asking again.
    pub(super) async fn woken(&self) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }

    /// Whether it was closed because the duel is.
    pub(super) fn is_over(&self) -> bool {
        self.closed().is_some_and(|(code, _)| code == 4503)
    }

    /// Whether it was closed because the log went on without it.
    pub(super) fn is_too_slow(&self) -> bool {
        self.closed().is_some_and(|(code, _)| code == 4004)
    }

    fn closed(&self) -> Option<(u16, String)> {
        self.inbox().player.closed.clone()
    }

    pub(super) fn is_open(&self) -> bool {
        self.closed().is_none()
    }

    pub(super) fn close_request(&self) -> Option<CloseRequest> {
        match self.closed()? {
            (4501, _) => Some(CloseRequest::SessionEnded),
            (4504, _) => Some(CloseRequest::Replaced),
            (1012, reason) if reason != "server_restart" => {
                Some(CloseRequest::Disconnected { reconnect: true, reason: Some(reason.into()) })
            }
            _ => None,
        }
    }

    pub(super) async fn ack(&mut self, seq: u64) {
        let inbox = self.0.get_mut();
        // A connection that closes at this moment says so itself.
        let _closing = inbox.player.try_send(format!(r#"{{"type":"ack","seq":{seq}}}"#)).await;
        inbox.ping().await;
    }
}

impl Inbox {
    /// Waits until everything sent before has been answered, or the node has closed the connection.
    async fn ping(&mut self) {
        let _closing = self.player.try_send(PING).await;
        self.pings += 1;
        while self.pings > 0
            && let Some(text) = soon("a pong", self.player.next_text()).await
        {
            self.take(&Frame::parse(&text));
        }
    }

    fn take(&mut self, frame: &Frame<'_>) {
        match frame.r#type {
            "presence" | "error" => {}
            "pong" => {
                self.pings -= 1;
                self.seq = self.seq.max(frame.seq.unwrap_or_default());
            }
            _ => self.shown.push(shown(frame)),
        }
    }
}

fn shown(frame: &Frame<'_>) -> Shown {
    let seq = frame.seq.unwrap();
    match frame.status {
        Some("finished") => shown_end(seq, Outcome::Finished),
        Some("cancelled") => shown_end(seq, Outcome::Cancelled),
        _ => {
            let body = frame.payload.expect("an event has a payload").get().to_owned();
            Shown { seq, event_type: frame.r#type.to_owned(), body }
        }
    }
}

/// Why a connection was refused, by the close frame that follows.
async fn refusal(player: Player) -> AttachError {
    match player.refused().await {
        (4001, _) => AttachError::Expired,
        (4002, _) => AttachError::AlreadyUsed,
        (4501, _) => AttachError::Revoked,
        (4502, _) => AttachError::NotAParticipant,
        (4503, _) => AttachError::Closed,
        (1011, _) => AttachError::Engine(EngineError::Unavailable { may_have_taken_effect: true }),
        (code, _) => panic!("{code}"),
    }
}
