//! The rules that every engine shares. Where Redis decides by itself, its scripts say the same in Lua and name the rule.
//!
//! Plain functions of what an engine knows: they hold no state and read no clock.

mod tickets;

use std::collections::HashSet;
use std::sync::Arc;

pub(super) use self::tickets::{
    Known, LedgerClock, TICKET_LIFE_MAX, TICKETS_FULL, TicketRecord, UserSessions, ledger_obstacle,
    next_revision, redeem, revoke, sessions_max,
};
use super::{AppendError, EngineError, OpenError, Participant};
use crate::clock::UnixMs;
use crate::config::EngineConfig;
use crate::event::{DuelStatus, Event, Fingerprint, Outcome, Push, Viewer};
use crate::limits;

/// The engine holds as many duels as it may.
pub(super) const DUELS_FULL: EngineError = EngineError::Full { limit: "ENGINE_MAX_DUELS" };

/// Returns whether a duel that stands so begins anew when it is declared.
pub(super) fn begins_anew(status: DuelStatus, reopen: bool) -> Result<bool, OpenError> {
    match status {
        DuelStatus::Open => Ok(false),
        DuelStatus::Closed(_) if reopen => Ok(true),
        DuelStatus::Closed(_) => Err(OpenError::Closed),
    }
}

/// Merges the participants declared now into those known. A declared one replaces a known one of the same user.
pub(super) fn merge(
    known: &[Participant],
    declared: Vec<Participant>,
) -> Result<Arc<[Participant]>, OpenError> {
    let mut merged = known.to_vec();
    for new in declared {
        match merged.iter_mut().find(|known| known.user == new.user) {
            Some(known) => *known = new,
            None => merged.push(new),
        }
    }
    let telegram_ids: HashSet<_> = merged.iter().map(|p| p.telegram).collect();
    if merged.len() > limits::USERS_NAMED_MAX || telegram_ids.len() < merged.len() {
        return Err(OpenError::Participants);
    }
    Ok(merged.into())
}

/// Checks a push whose idempotency key was used before, for the content `known`. It is a duplicate if the content is the
/// same. This is decided before anything else, so a duplicate is answered as such in a closed duel, too.
pub(super) fn check_duplicate(known: &[u8], now: Fingerprint) -> Result<(), AppendError> {
    if known == now.0 { Ok(()) } else { Err(AppendError::KeyReused) }
}

/// Refuses a push to a closed duel.
pub(super) fn check_open(status: DuelStatus) -> Result<(), AppendError> {
    match status {
        DuelStatus::Open => Ok(()),
        DuelStatus::Closed(_) => Err(AppendError::Closed),
    }
}

/// Returns whether the duel was closed with the same outcome before: closing again does nothing then.
pub(super) fn is_closed_alike(status: DuelStatus, outcome: Outcome) -> Result<bool, AppendError> {
    match status {
        DuelStatus::Open => Ok(false),
        DuelStatus::Closed(before) if before == outcome => Ok(true),
        DuelStatus::Closed(_) => Err(AppendError::Closed),
    }
}

/// Returns whether the oldest event must fall off a log. The newest stays, whatever its size.
pub(super) fn log_overflows(events: usize, bytes: usize, config: &EngineConfig) -> bool {
    events > config.log_events_max || (events > 1 && bytes > config.log_bytes_max)
}

/// What an engine keeps of a retained event.
pub(super) trait Retained {
    /// Returns whether both are of one type and one audience, which make an event's kind.
    fn is_of_kind(&self, other: &Self) -> bool;

    /// Returns the event's size in a log.
    fn size(&self) -> usize;
}

/// Retains `new`, which fell off the log just now, as the latest of its kind that did. Returns what is not retained any longer:
/// the older one of its kind, and the oldest ones past the bounds.
///
/// `retained` is in the order in which its events fell.
pub(super) fn retain<R: Retained>(retained: &mut Vec<R>, new: R, config: &EngineConfig) -> Vec<R> {
    let mut gone: Vec<_> = retained.extract_if(.., |old| old.is_of_kind(&new)).collect();
    retained.push(new);
    let mut bytes: usize = retained.iter().map(Retained::size).sum();
    while retained.len() > limits::LATEST_TYPES_MAX || bytes > config.log_bytes_max {
        let oldest = retained.remove(0);
        bytes -= oldest.size();
        gone.push(oldest);
    }
    gone
}

/// Returns what [`super::LogEngine::latest`] answers, of the events known.
pub(super) fn latest<E>(
    newest_first: impl Iterator<Item = Result<Arc<Event>, E>>,
    viewer: Viewer,
) -> Result<Vec<Arc<Event>>, E> {
    let mut found: Vec<Arc<Event>> = Vec::new();
    for event in newest_first {
        let event = event?;
        let Some(push) = event.state().filter(|_| event.includes(viewer)) else { continue };
        let same = |other: &Push| other.event_type == push.event_type;
        if !found.iter().any(|other| other.push().is_some_and(same)) {
            found.push(event);
        }
    }
    found.sort_by_key(|event| event.seq);
    Ok(found)
}

/// Returns when a duel is forgotten. An open one counts from its last use, a closed one from its last change.
pub(super) fn expires_at(
    status: DuelStatus,
    used_at: UnixMs,
    changed_at: UnixMs,
    config: &EngineConfig,
) -> UnixMs {
    match status {
        DuelStatus::Open => used_at.plus(config.idle_retention),
        DuelStatus::Closed(_) => changed_at.plus(config.closed_retention),
    }
}
