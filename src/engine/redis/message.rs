//! What is told on the channels: words with a space between, the first of which says what it is, the second which node said
//! it, the third of which duel.

use std::sync::Arc;

use super::answer;
use crate::clock::UnixMs;
use crate::engine::event_row::{self, Malformed};
use crate::engine::{OfflineReason, Signal, SignalKind, Target};
use crate::event::{Content, DuelStatus, Epoch, Event, Position, Viewer};
use crate::id::{ConnectionId, DuelId, UserId};

/// One of them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Message {
    pub(super) node: Box<str>,
    pub(super) duel: DuelId,
    pub(super) news: News,
}

/// What it says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum News {
    /// The duel came into being.
    Opened(Position),
    /// An event was stored.
    Event(Epoch, Arc<Event>),
    /// Who is online has changed, what they have acked, or who of them has to go: which change it is.
    Presence(u64, SignalKind),
    /// A connection of a node has to go.
    Replace(Box<str>, ConnectionId),
    /// Anything else that nodes tell each other.
    Signal(SignalKind),
}

/// The words of a message, one after the other.
struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    fn next(&mut self) -> Result<&'a str, Malformed> {
        let end = self.0.iter().position(|byte| *byte == b' ').unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest.get(1..).unwrap_or_default();
        std::str::from_utf8(word).map_err(|_| Malformed("a message"))
    }

    fn number(&mut self) -> Result<u64, Malformed> {
        self.next()?.parse().map_err(|_| Malformed("a number"))
    }

    fn user(&mut self) -> Result<UserId, Malformed> {
        answer::user(self.next()?).ok_or(Malformed("a user's id"))
    }

    fn position(&mut self) -> Result<Position, Malformed> {
        Ok(Position { epoch: answer::epoch(self.next()?)?, seq: self.number()? })
    }

    fn rest(self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.0).map_err(|_| Malformed("a message"))
    }
}

/// The duel that a number stands for.
fn duel_id(number: u64) -> Result<DuelId, Malformed> {
    if number == DuelId::PROBE.get() {
        return Ok(DuelId::PROBE);
    }
    DuelId::try_from(number).map_err(|_| Malformed("a duel's id"))
}

/// Reads one.
pub(super) fn read(message: &[u8]) -> Result<Message, Malformed> {
    let mut words = Words(message);
    let kind = words.next()?;
    let node = words.next()?.into();
    let duel = duel_id(words.number()?)?;
    let news = match kind {
        "o" => News::Opened(Position { epoch: answer::epoch(words.next()?)?, seq: 0 }),
        "e" => {
            let Position { epoch, seq } = words.position()?;
            let stored_at = UnixMs(words.number()?);
            News::Event(epoch, event_row::read_undated(words.0, seq, stored_at)?)
        }
        "c" => {
            let Position { epoch, seq } = words.position()?;
            let stored_at = UnixMs(words.number()?);
            let DuelStatus::Closed(outcome) = answer::status(words.next()?)? else {
                return Err(Malformed("a status"));
            };
            let content = Content::Closed(outcome);
            News::Event(epoch, Arc::new(Event { seq, stored_at, content }))
        }
        "p" => News::Presence(words.number()?, presence(words)?),
        "r" => {
            let (node, connection) = connection(words.next()?)?;
            News::Replace(node.into(), connection)
        }
        "s" => News::Signal(signal(words)?),
        _ => return Err(Malformed("a message")),
    };
    Ok(Message { node, duel, news })
}

/// `node:id`.
pub(super) fn connection(word: &str) -> Result<(String, ConnectionId), Malformed> {
    let (node, id) = word.split_once(':').ok_or(Malformed("a connection"))?;
    let id = id.parse().map_err(|_| Malformed("a connection"))?;
    Ok((node.to_owned(), ConnectionId(id)))
}

fn presence(mut words: Words<'_>) -> Result<SignalKind, Malformed> {
    match words.next()? {
        "on" => {
            let user = words.user()?;
            let role = answer::role(words.next()?).ok_or(Malformed("a role"))?;
            let since = UnixMs(words.number()?);
            Ok(SignalKind::Online { viewer: Viewer { user, role }, since })
        }
        "off" => {
            let user = words.user()?;
            let reason = reason(words.next()?).ok_or(Malformed("a reason"))?;
            Ok(SignalKind::Offline { user, reason })
        }
        "ack" => Ok(SignalKind::Acked { user: words.user()?, seq: words.number()? }),
        "disconnect" => {
            let whom = match words.next()? {
                EVERYBODY => Target::Everybody,
                user => Target::User(answer::user(user).ok_or(Malformed("a user's id"))?),
            };
            disconnect(whom, words)
        }
        _ => Err(Malformed("a message")),
    }
}

/// Whether to come back, and why: as [`show_disconnect`] writes it.
fn disconnect(whom: Target, mut words: Words<'_>) -> Result<SignalKind, Malformed> {
    let reconnect = words.next()? == "1";
    let reason = words.rest()?;
    let reason = (!reason.is_empty()).then(|| reason.into());
    Ok(SignalKind::Disconnect { whom, reconnect, reason })
}

/// That a connection must close, as it is kept for a node that may not have heard of it.
pub(super) fn kept_disconnect(id: ConnectionId, text: &str) -> Result<SignalKind, Malformed> {
    disconnect(Target::Connection(id), Words(text.as_bytes()))
}

pub(super) fn show_disconnect(reconnect: bool, reason: Option<&str>) -> String {
    format!("{} {}", u8::from(reconnect), reason.unwrap_or_default())
}

/// `None`: one of this node, of which the others need not hear.
pub(super) fn show_whom(whom: Target) -> Option<String> {
    match whom {
        Target::Everybody => Some(EVERYBODY.to_owned()),
        Target::User(user) => Some(user.get().to_string()),
        Target::Connection(_) => None,
    }
}

/// Who stands for all users.
const EVERYBODY: &str = "all";

fn signal(mut words: Words<'_>) -> Result<SignalKind, Malformed> {
    match words.next()? {
        "revoked" => Ok(SignalKind::Revoked { user: words.user()? }),
        _ => Err(Malformed("a message")),
    }
}

/// A signal that changes no roster, as it is published. `None`: it does, and a script publishes it.
pub(super) fn show(node: &str, Signal { duel, kind }: &Signal) -> Option<String> {
    let duel = duel.get();
    match kind {
        SignalKind::Online { .. }
        | SignalKind::Offline { .. }
        | SignalKind::Acked { .. }
        | SignalKind::Disconnect { .. }
        | SignalKind::Replace { .. } => None,
        SignalKind::Revoked { user } => Some(format!("s {node} {duel} revoked {}", user.get())),
    }
}

const REASONS: [(&str, OfflineReason); 6] = [
    ("client_closed", OfflineReason::ClientClosed),
    ("lost", OfflineReason::Lost),
    ("client_fault", OfflineReason::ClientFault),
    ("disconnected", OfflineReason::Disconnected),
    ("duel_closed", OfflineReason::DuelClosed),
    ("server_restart", OfflineReason::ServerRestart),
];

fn reason(word: &str) -> Option<OfflineReason> {
    REASONS.iter().find(|(known, _)| *known == word).map(|(_, reason)| *reason)
}

pub(super) fn show_reason(reason: OfflineReason) -> &'static str {
    REASONS.iter().find(|(_, known)| *known == reason).map_or("lost", |(word, _)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_as_they_were_written() {
        let duel = DuelId::try_from(7).unwrap();
        let user = UserId::try_from(9).unwrap();
        let kind = SignalKind::Revoked { user };
        let text = show("ab", &Signal { duel, kind: kind.clone() }).unwrap();
        let expected = Message { node: "ab".into(), duel, news: News::Signal(kind) };
        assert_eq!(read(text.as_bytes()), Ok(expected));
        for whom in [Target::User(user), Target::Everybody] {
            for (reconnect, reason) in [(true, None), (false, Some("moved to é"))] {
                let shown = show_disconnect(reconnect, reason);
                let reason: Option<Arc<str>> = reason.map(Into::into);
                let kind = SignalKind::Disconnect { whom, reconnect, reason: reason.clone() };
                let news = News::Presence(3, kind);
                let expected = Message { node: "ab".into(), duel, news };
                let text = format!("p ab 7 3 disconnect {} {shown}", show_whom(whom).unwrap());
                assert_eq!(read(text.as_bytes()), Ok(expected));
                let whom = Target::Connection(ConnectionId(5));
                let kept = SignalKind::Disconnect { whom, reconnect, reason };
                assert_eq!(kept_disconnect(ConnectionId(5), &shown), Ok(kept));
            }
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for text in
            ["", "x a 1", "p a 1", "p a 1 2 on", "e a 0 1", "p a 1 2 disconnect", "c a 1 ff 1 1 0"]
        {
            assert!(read(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(read(b"\xff \xff \xff").is_err());
    }
}
