//! One duel in memory: its log, its idempotency keys, its declaration. It decides by [`rules`].
//!
//! Plain state without locks or clocks. Bounds: events and bytes of the log ([`EngineConfig`]),
//! [`limits::IDEMPOTENCY_KEYS_MAX`], [`limits::LATEST_TYPES_MAX`], [`limits::USERS_NAMED_MAX`].

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;

use crate::clock::UnixMs;
use crate::config::EngineConfig;
use crate::engine::event_row::stored_size;
use crate::engine::rules::Retained;
use crate::engine::{
    AppendError, Appended, Declaration, DuelRecord, DuelSettings, EpochHistory, Head, OpenError,
    Page, Participant, rules,
};
use crate::event::{
    Content, DuelStatus, Epoch, Event, Fingerprint, Outcome, Position, Push, Viewer,
};
use crate::limits;

/// An event in the log, or one that fell off it.
#[derive(Debug)]
struct Entry {
    event: Arc<Event>,
    size: usize,
}

/// One duel.
#[derive(Debug)]
pub(super) struct DuelState {
    epoch: Epoch,
    status: DuelStatus,
    /// The number of the last event.
    seq: u64,
    /// The newest events, without a gap, ending at `seq`.
    log: VecDeque<Entry>,
    log_bytes: usize,
    /// What fell off the log and is the latest of its kind.
    retained: Vec<Entry>,
    /// Boxed because most duels have none.
    keys: Option<Box<Keys>>,
    participants: Option<Arc<[Participant]>>,
    settings: DuelSettings,
    created_at: UnixMs,
    updated_at: Option<UnixMs>,
    /// When something last happened, or a sweep last asked.
    used_at: UnixMs,
}

impl Retained for Entry {
    fn is_of_kind(&self, other: &Self) -> bool {
        match (self.event.push(), other.event.push()) {
            (Some(one), Some(other)) => {
                one.event_type == other.event_type && one.audience == other.audience
            }
            _ => false,
        }
    }

    fn size(&self) -> usize {
        self.size
    }
}

impl DuelState {
    pub(super) fn new(now: UnixMs) -> Self {
        Self {
            epoch: Epoch::random(),
            status: DuelStatus::Open,
            seq: 0,
            log: VecDeque::new(),
            log_bytes: 0,
            retained: Vec::new(),
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

    fn oldest_seq(&self) -> u64 {
        self.log.front().map_or(0, |oldest| oldest.event.seq)
    }

    pub(super) fn head(&self) -> Head {
        // Nothing outlives the process, so there is no epoch to go on from.
        let history = EpochHistory::default();
        let (position, oldest_seq) = (self.position(), self.oldest_seq());
        Head { position, history, oldest_seq, status: self.status }
    }

    pub(super) fn record(&self) -> DuelRecord {
        DuelRecord {
            head: self.head(),
            participants: self.participants.clone(),
            settings: self.settings,
            created_at: self.created_at,
            updated_at: self.updated_at,
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

    pub(super) const fn status(&self) -> DuelStatus {
        self.status
    }

    pub(super) fn declare(&mut self, declaration: Declaration) -> Result<(), OpenError> {
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
        if let Some((key, fingerprint)) = &key
            && let Some((known, seq)) = self.keys.as_ref().and_then(|keys| keys.by_key.get(key))
        {
            rules::check_duplicate(&known.0, *fingerprint)?;
            let position = Position { epoch: self.epoch, seq: *seq };
            return Ok(self.appended(position, None));
        }
        rules::check_open(self.status)?;
        let event = self.store(Content::Pushed(push), now, config);
        if let Some((key, fingerprint)) = key {
            self.keys.get_or_insert_default().remember(key, fingerprint, event.seq);
        }
        Ok(self.appended(self.position(), Some(event)))
    }

    /// Returns the answer to a push or a close.
    pub(super) const fn appended(&self, position: Position, event: Option<Arc<Event>>) -> Appended {
        let declared = self.participants.is_some();
        Appended { position, event, connections: 0, declared }
    }

    /// Ends the duel: the events stored for it, in order. None if it had ended in the same way before.
    pub(super) fn close(
        &mut self,
        outcome: Outcome,
        last: Option<Push>,
        now: UnixMs,
        config: &EngineConfig,
    ) -> Result<Vec<Arc<Event>>, AppendError> {
        if rules::is_closed_alike(self.status, outcome)? {
            return Ok(Vec::new());
        }
        let last = last.map(|push| self.store(Content::Pushed(push), now, config));
        let end = self.store(Content::Closed(outcome), now, config);
        self.status = DuelStatus::Closed(outcome);
        Ok(last.into_iter().chain([end]).collect())
    }

    fn store(&mut self, content: Content, now: UnixMs, config: &EngineConfig) -> Arc<Event> {
        self.seq += 1;
        let size = stored_size(&content);
        let event = Arc::new(Event { seq: self.seq, stored_at: now, content });
        self.log_bytes += size;
        self.log.push_back(Entry { event: Arc::clone(&event), size });
        self.updated_at = Some(now);
        self.used_at = now;
        while rules::log_overflows(self.log.len(), self.log_bytes, config) {
            let Some(oldest) = self.log.pop_front() else { break };
            self.log_bytes -= oldest.size;
            if oldest.event.state().is_some() {
                drop(rules::retain(&mut self.retained, oldest, config));
            }
        }
        event
    }

    pub(super) fn read(&self, after: Position, count: usize) -> Page {
        let head = self.head();
        if !head.holds_after(after) {
            return head.page_lacking(after);
        }
        // The log is dense, so a seq is its own index once the oldest is taken off.
        let skip = (after.seq + 1).saturating_sub(self.oldest_seq());
        let entries = self.log.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX));
        Page::Events(entries.take(count).map(|entry| Arc::clone(&entry.event)).collect())
    }

    pub(super) fn latest(&self, viewer: Viewer, up_to: Position) -> Option<Vec<Arc<Event>>> {
        if up_to.epoch != self.epoch {
            return None;
        }
        let newest_first = self.log.iter().rev().chain(self.retained.iter().rev());
        let newest_first = newest_first.map(|entry| &entry.event);
        let known = newest_first.filter(|event| event.seq <= up_to.seq).cloned();
        let Ok(latest) = rules::latest(known.map(Ok::<_, Infallible>), viewer);
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
