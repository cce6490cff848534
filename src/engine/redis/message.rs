//! What is told on the channels: words with a space between, the first of which says what it is, the second which node said
//! it, the third of which duel.

use std::sync::Arc;

use super::local_presence::DisconnectOrder;
use super::reply;
use crate::clock::UnixMs;
use crate::engine::event_row::{self, Malformed};
use crate::engine::{OfflineReason, SignalKind, Target};
use crate::event::{Content, DuelStatus, Epoch, Event, Position};
use crate::id::{DuelId, TicketKey, UserId};

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
    /// Something of who is online has changed, which is to be read; and maybe who went offline, and why.
    Presence(Option<(UserId, OfflineReason)>),
    /// Anything else that nodes tell each other.
    Signal(SignalKind),
    /// The same, for who watches and does not follow the duel.
    Watched(SignalKind),
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
        reply::user(self.next()?).ok_or(Malformed("a user's id"))
    }

    fn position(&mut self) -> Result<Position, Malformed> {
        Ok(Position { epoch: reply::epoch(self.next()?)?, seq: self.number()? })
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
        "o" => News::Opened(Position { epoch: reply::epoch(words.next()?)?, seq: 0 }),
        "e" => {
            let Position { epoch, seq } = words.position()?;
            let stored_at = UnixMs(words.number()?);
            News::Event(epoch, event_row::read_undated(words.0, seq, stored_at)?)
        }
        "c" => {
            let Position { epoch, seq } = words.position()?;
            let stored_at = UnixMs(words.number()?);
            let DuelStatus::Closed(outcome) = reply::status(words.next()?)? else {
                return Err(Malformed("a status"));
            };
            let content = Content::Closed(outcome);
            News::Event(epoch, Arc::new(Event { seq, stored_at, content }))
        }
        "p" => News::Presence(gone(words)?),
        "s" => News::Signal(signal(words)?),
        "w" => News::Watched(signal(words)?),
        _ => return Err(Malformed("a message")),
    };
    Ok(Message { node, duel, news })
}

/// As [`show_gone`] writes it.
fn gone(mut words: Words<'_>) -> Result<Option<(UserId, OfflineReason)>, Malformed> {
    match words.next()? {
        "" => Ok(None),
        "off" => Ok(Some((words.user()?, reason(words.next()?).ok_or(Malformed("a reason"))?))),
        _ => Err(Malformed("a message")),
    }
}

/// What a hint says of who went offline, and why.
pub(super) fn show_gone(gone: Option<(UserId, OfflineReason)>) -> String {
    let show = |(user, reason): (UserId, _)| format!(" off {} {}", user.get(), show_reason(reason));
    gone.map(show).unwrap_or_default()
}

/// Reads whose connections have to go, and the number below which they have to, as `disconnect.lua` writes them, with what
/// [`show_disconnect`] says.
pub(super) fn disconnect_order(whose: &str, text: &str) -> Result<DisconnectOrder, Malformed> {
    let whose = match whose {
        EVERYBODY => Target::Everybody,
        user => Target::User(reply::user(user).ok_or(Malformed("a user's id"))?),
    };
    let mut words = Words(text.as_bytes());
    let (below, reconnect) = (words.number()?, words.next()? == "1");
    let reason = words.rest()?;
    let reason = (!reason.is_empty()).then(|| reason.into());
    Ok(DisconnectOrder { whose, below, reconnect, reason })
}

/// Returns what [`disconnect_order`] reads: whose they are, and what they are told. `None` for one connection, of which other
/// nodes need not hear.
pub(super) fn show_disconnect(
    whose: Target,
    reconnect: bool,
    reason: Option<&str>,
) -> Option<(String, String)> {
    let whose = match whose {
        Target::Everybody => EVERYBODY.to_owned(),
        Target::User(user) => user.get().to_string(),
        Target::Connection(_) => return None,
    };
    Some((whose, format!("{} {}", u8::from(reconnect), reason.unwrap_or_default())))
}

/// Stands for all users.
const EVERYBODY: &str = "all";

fn signal(mut words: Words<'_>) -> Result<SignalKind, Malformed> {
    match words.next()? {
        "session_ended" => {
            let user = words.user()?;
            let session = TicketKey::parse(words.next()?).ok_or(Malformed("a session"))?;
            Ok(SignalKind::SessionEnded { user, session })
        }
        _ => Err(Malformed("a message")),
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

fn show_reason(reason: OfflineReason) -> &'static str {
    REASONS.iter().find(|(_, known)| *known == reason).map_or("lost", |(word, _)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let (duel, user) = (DuelId::try_from(7).unwrap(), UserId::try_from(9).unwrap());
        let message = |news| Ok(Message { node: "ab".into(), duel, news });
        let session = TicketKey([7; 16]);
        let ended = SignalKind::SessionEnded { user, session };
        let to_nodes = |kind| format!("{kind} ab 7 session_ended {user} {session}");
        assert_eq!(read(to_nodes("s").as_bytes()), message(News::Signal(ended.clone())));
        assert_eq!(read(to_nodes("w").as_bytes()), message(News::Watched(ended)));
        for gone in [None, Some((user, OfflineReason::ClientClosed))] {
            let text = format!("p ab 7{}", show_gone(gone));
            assert_eq!(read(text.as_bytes()), message(News::Presence(gone)));
        }
        for whose in [Target::User(user), Target::Everybody] {
            for (reconnect, reason) in [(true, None), (false, Some("moved to é"))] {
                let (whom, how) = show_disconnect(whose, reconnect, reason).unwrap();
                let reason = reason.map(Into::into);
                let order = DisconnectOrder { whose, below: 5, reconnect, reason };
                assert_eq!(disconnect_order(&whom, &format!("5 {how}")), Ok(order));
            }
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for text in ["", "x a 1", "p a", "p a 1 on", "p a 1 off 9 why", "e a 0 1", "c a 1 ff 1 1 0"]
        {
            assert!(read(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(read(b"\xff \xff \xff").is_err());
        assert!(disconnect_order("x", "1 1 ").is_err() && disconnect_order("all", "x").is_err());
    }
}
