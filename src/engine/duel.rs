//! One duel's log in memory: numbering, retention, idempotency, the latest of each type.
//!
//! Plain state without locks or clocks, owned by an engine. Bounds: events and bytes of the log
//! ([`EngineConfig`]), [`limits::IDEMPOTENCY_KEYS_MAX`], [`limits::LATEST_TYPES_MAX`], [`limits::USERS_NAMED_MAX`].

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;

use super::{
    AppendError, Appended, Declaration, DuelRecord, DuelSettings, EpochHistory, Head, Latest,
    OpenError, Page, Participant, rules,
};
use crate::clock::UnixMs;
use crate::config::EngineConfig;
use crate::event::{
    Content, DuelStatus, Epoch, Event, Fingerprint, Outcome, Position, Push, Viewer,
};
use crate::limits;

/// One duel.
#[derive(Debug)]
pub(super) struct Duel {
    epoch: Epoch,
    status: DuelStatus,
    /// The number of the last event.
    seq: u64,
    /// The newest events, without a gap, ending at `seq`.
    log: VecDeque<Arc<Event>>,
    log_bytes: usize,
    /// Events that fell off the log and were then the latest of their type and audience, oldest first.
    fallen: Vec<Arc<Event>>,
    /// Boxed because most duels have none.
    keys: Option<Box<Keys>>,
    participants: Option<Arc<[Participant]>>,
    settings: DuelSettings,
    created_at: UnixMs,
    updated_at: Option<UnixMs>,
    /// When something last happened, or a sweep last asked.
    used_at: UnixMs,
}

impl Duel {
    pub(super) fn new(now: UnixMs) -> Self {
        Self {
            epoch: Epoch::random(),
            status: DuelStatus::Open,
            seq: 0,
            log: VecDeque::new(),
            log_bytes: 0,
            fallen: Vec::new(),
            keys: None,
            participants: None,
            settings: DuelSettings::default(),
            created_at: now,
            updated_at: None,
            used_at: now,
        }
    }

    pub(super) const fn position(&self) -> Position {
        Position { epoch: self.epoch, seq: self.seq }
    }

    pub(super) fn head(&self) -> Head {
        let oldest_seq = self.log.front().map_or(0, |event| event.seq);
        Head {
            position: self.position(),
            history: EpochHistory::NONE,
            oldest_seq,
            status: self.status,
        }
    }

    pub(super) fn record(&self) -> DuelRecord {
        DuelRecord {
            head: self.head(),
            participants: self.participants.clone(),
            settings: self.settings,
            created_at: self.created_at,
            updated_at: self.updated_at,
            attach_number: 0,
        }
    }

    pub(super) fn use_at(&mut self, now: UnixMs) {
        self.used_at = now;
    }

    /// When the duel is to be forgotten, if nothing happens until then.
    pub(super) fn expires_at(&self, config: &EngineConfig) -> UnixMs {
        let changed_at = self.updated_at.unwrap_or(self.created_at);
        rules::expires_at(self.status, self.used_at, changed_at, config)
    }

    pub(super) fn declare(&mut self, declaration: Declaration) -> Result<(), OpenError> {
        if self.status != DuelStatus::Open {
            return Err(OpenError::Closed);
        }
        let known = self.participants.as_deref().unwrap_or_default();
        self.participants = Some(rules::merge(known, declaration.participants)?);
        self.settings = declaration.settings.unwrap_or(self.settings);
        Ok(())
    }

    pub(super) fn append(
        &mut self,
        push: Push,
        key: Option<Box<str>>,
        now: UnixMs,
        config: &EngineConfig,
    ) -> Result<Appended, AppendError> {
        let key = key.map(|key| (key, push.fingerprint()));
        if let Some((key, fingerprint)) = &key {
            match self.keys.as_ref().and_then(|keys| keys.by_key.get(key)) {
                Some((known, seq)) if known == fingerprint => {
                    let position = Position { epoch: self.epoch, seq: *seq };
                    return Ok(Appended { position, event: None, connections: 0 });
                }
                Some(_) => return Err(AppendError::KeyReused),
                None => {}
            }
        }
        if self.status != DuelStatus::Open {
            return Err(AppendError::Closed);
        }
        let event = self.store(Content::Pushed(push), now, config);
        if let Some((key, fingerprint)) = key {
            self.keys.get_or_insert_default().remember(key, fingerprint, event.seq);
        }
        Ok(Appended { position: self.position(), event: Some(event), connections: 0 })
    }

    /// Ends the duel: the events stored for it, in order. None if it had ended in the same way before.
    pub(super) fn close(
        &mut self,
        outcome: Outcome,
        last: Option<Push>,
        now: UnixMs,
        config: &EngineConfig,
    ) -> Result<Vec<Arc<Event>>, AppendError> {
        match self.status {
            DuelStatus::Closed(known) if known == outcome => return Ok(Vec::new()),
            DuelStatus::Closed(_) => return Err(AppendError::Closed),
            DuelStatus::Open => {}
        }
        let last = last.map(|push| self.store(Content::Pushed(push), now, config));
        let end = self.store(Content::Closed(outcome), now, config);
        self.status = DuelStatus::Closed(outcome);
        Ok(last.into_iter().chain([end]).collect())
    }

    fn store(&mut self, content: Content, now: UnixMs, config: &EngineConfig) -> Arc<Event> {
        self.seq += 1;
        let event = Arc::new(Event { seq: self.seq, stored_at: now, content });
        self.log_bytes += event.size();
        self.log.push_back(Arc::clone(&event));
        self.updated_at = Some(now);
        self.used_at = now;
        while self.log.len() > config.log_events_max
            || (self.log.len() > 1 && self.log_bytes > config.log_bytes_max)
        {
            let Some(oldest) = self.log.pop_front() else { break };
            self.log_bytes -= oldest.size();
            self.keep_fallen(&oldest, config.log_bytes_max);
        }
        debug_assert!(self.log.back().is_some_and(|newest| newest.seq == self.seq));
        event
    }

    fn keep_fallen(&mut self, event: &Arc<Event>, bytes_max: usize) {
        let Some(new) = event.push() else { return };
        let same_kind =
            |old: &Push| old.event_type == new.event_type && old.audience == new.audience;
        self.fallen.retain(|old| !old.push().is_some_and(same_kind));
        self.fallen.push(Arc::clone(event));
        let mut bytes: usize = self.fallen.iter().map(|event| event.size()).sum();
        while self.fallen.len() > limits::LATEST_TYPES_MAX || bytes > bytes_max {
            bytes -= self.fallen.remove(0).size();
        }
    }

    pub(super) fn read(&self, after: Position, count: usize) -> Page {
        if !self.head().holds_after(after) {
            return Page::Gone;
        }
        // The log is dense, so a seq is its own index once the oldest is taken off.
        let oldest = self.log.front().map_or(0, |event| event.seq);
        let skip = usize::try_from((after.seq + 1).saturating_sub(oldest)).unwrap_or(usize::MAX);
        Page::Events(self.log.iter().skip(skip).take(count).cloned().collect())
    }

    pub(super) fn latest(
        &self,
        viewer: Viewer,
        up_to: Position,
        which: Latest,
    ) -> Option<Vec<Arc<Event>>> {
        if up_to.epoch != self.epoch {
            return None;
        }
        let newest_first = self.log.iter().rev().chain(self.fallen.iter().rev());
        let known = newest_first.filter(|event| event.seq <= up_to.seq).cloned();
        let Ok(latest) = rules::latest(known.map(Ok::<_, Infallible>), viewer, which);
        Some(latest)
    }
}

/// The idempotency keys used last.
#[derive(Debug, Default)]
struct Keys {
    by_key: HashMap<Box<str>, (Fingerprint, u64)>,
    oldest_first: VecDeque<Box<str>>,
}

impl Keys {
    fn remember(&mut self, key: Box<str>, fingerprint: Fingerprint, seq: u64) {
        self.by_key.insert(key.clone(), (fingerprint, seq));
        self.oldest_first.push_back(key);
        if self.oldest_first.len() > limits::IDEMPOTENCY_KEYS_MAX
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.by_key.remove(&oldest);
        }
    }
}
