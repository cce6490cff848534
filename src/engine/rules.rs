//! What every engine decides alike: who takes part, what a viewer starts with, when a duel is forgotten.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Latest, OpenError, Participant};
use crate::clock::UnixMs;
use crate::config::EngineConfig;
use crate::event::{DUEL_UPDATE, DuelStatus, Event, Push, Viewer};
use crate::limits;

/// Those `known` and those `declared`, of whom the latter are right where both name a user.
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

/// Of `newest_first`, what [`super::LogEngine::latest`] answers.
pub(super) fn latest<E>(
    newest_first: impl Iterator<Item = Result<Arc<Event>, E>>,
    viewer: Viewer,
    which: Latest,
) -> Result<Vec<Arc<Event>>, E> {
    let mut found: Vec<Arc<Event>> = Vec::new();
    for event in newest_first {
        let event = event?;
        let Some(push) = event.push().filter(|_| event.includes(viewer)) else { continue };
        let wanted = match which {
            Latest::Update => push.event_type.as_str() == DUEL_UPDATE,
            Latest::EachType => {
                let same = |other: &Push| other.event_type == push.event_type;
                !found.iter().any(|other| other.push().is_some_and(same))
            }
        };
        if wanted {
            found.push(event);
        }
        if which == Latest::Update && !found.is_empty() {
            break;
        }
    }
    found.sort_by_key(|event| event.seq);
    Ok(found)
}

/// When a duel is to be forgotten that was used last at `used_at`, and changed last at `changed_at`.
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
