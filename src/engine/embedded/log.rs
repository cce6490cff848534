//! The logs of the duels, row by row: numbering, idempotency, retention. The same rules as of a duel in memory
//! ([`crate::engine::duel`]), over the same bounds; one test suite holds both to them.

use std::sync::Arc;

use fjall::{UserKey, UserValue};
use sha2::{Digest as _, Sha256};

use super::Fault;
use super::rows::{self, DuelRow, FallenRow, KeyRow, Kind};
use super::store::{Draft, View, event};
use crate::clock::UnixMs;
use crate::engine::event_row::{EventRow, Unnumbered};
use crate::engine::{
    AppendError, Appended, Declaration, EngineError, Latest, Notice, OpenError, Opened, Page, rules,
};
use crate::event::{Content, DuelStatus, Event, Fingerprint, Outcome, Position, Push, Viewer};
use crate::id::DuelId;
use crate::limits;

/// What a call comes to: its own errors, unless the store fails.
type Written<T, E> = Result<Result<T, E>, Fault>;

/// An idempotency key, and the content that it is used for.
#[derive(Debug)]
pub(super) struct Key {
    hash: [u8; 16],
    fingerprint: Fingerprint,
}

impl Key {
    pub(super) fn new(key: &str, push: &Push) -> Self {
        let digest = Sha256::digest(key.as_bytes());
        let mut hash = [0; 16];
        hash.copy_from_slice(&digest[..16]);
        Self { hash, fingerprint: push.fingerprint() }
    }
}

impl View<'_> {
    pub(super) fn read(&self, duel: DuelId, after: Position, count: usize) -> Result<Page, Fault> {
        let row = self.duel(duel);
        let Some(row) = row.filter(|row| row.head(self.lineage).holds_after(after)) else {
            return Ok(Page::Gone);
        };
        let (from, before) = ([duel.get(), after.seq + 1], [duel.get(), row.seq + 1]);
        let events = self.between(Kind::Event, &from, &before).take(count).map(event);
        Ok(Page::Events(events.collect::<Result<_, _>>()?))
    }

    pub(super) fn latest(
        &self,
        duel: DuelId,
        viewer: Viewer,
        up_to: Position,
        which: Latest,
    ) -> Result<Option<Vec<Arc<Event>>>, Fault> {
        let row = self.duel(duel);
        let Some(row) = row.filter(|row| row.position(self.lineage).epoch == up_to.epoch) else {
            return Ok(None);
        };
        // From the oldest in the log, and not over the graves of those before it.
        let before = up_to.seq.saturating_add(1).max(row.oldest_seq);
        let in_log =
            self.between(Kind::Event, &[duel.get(), row.oldest_seq], &[duel.get(), before]);
        let fallen = row.fallen.iter().rev().filter(|fallen| fallen.seq <= up_to.seq);
        let fallen = fallen.map(|fallen| self.event(duel, fallen.seq));
        rules::latest(in_log.rev().map(event).chain(fallen), viewer, which).map(Some)
    }

    fn event(&self, duel: DuelId, seq: u64) -> Result<Arc<Event>, Fault> {
        let row = self.row::<EventRow>(&Kind::Event.key(&[duel.get(), seq]))?;
        Ok(row.ok_or(Fault::Malformed("a log with a gap"))?.into_event(seq)?)
    }
}

impl Draft<'_> {
    /// Declares a duel, bringing it into being if need be.
    pub(super) fn open(
        &mut self,
        duel: DuelId,
        declaration: Declaration,
    ) -> Written<Opened, OpenError> {
        let known = self.duel(duel);
        if known.as_ref().is_some_and(|row| row.duel_status() != DuelStatus::Open) {
            return Ok(Err(OpenError::Closed));
        }
        let before = known.as_ref().map(DuelRow::participants).transpose()?.unwrap_or_default();
        let merged = match rules::merge(&before, declaration.participants) {
            Ok(merged) => merged,
            Err(error) => return Ok(Err(error)),
        };
        let created = known.is_none();
        let mut row = match self.bring_into_being(duel, known) {
            Ok(row) => row,
            Err(full) => return Ok(Err(full.into())),
        };
        row.set_participants(&merged);
        if let Some(settings) = declaration.settings {
            row.set_settings(settings);
        }
        row.used_at = self.now.0;
        let position = row.position(self.lineage);
        self.put_duel(duel, row);
        Ok(Ok(Opened { position, created }))
    }

    /// The duel, brought into being if need be.
    pub(super) fn enter(&mut self, duel: DuelId) -> Written<DuelRow, EngineError> {
        let known = self.duel(duel);
        let mut row = match self.bring_into_being(duel, known) {
            Ok(row) => row,
            Err(full) => return Ok(Err(full)),
        };
        row.used_at = self.now.0;
        self.put_duel(duel, row.clone());
        Ok(Ok(row))
    }

    /// Stores an event, unless its key was used before.
    pub(super) fn append(
        &mut self,
        duel: DuelId,
        event: Unnumbered,
        key: Option<&Key>,
    ) -> Written<Appended, AppendError> {
        let known = self.duel(duel);
        if let (Some(row), Some(key)) = (&known, key)
            && let Some(used) =
                self.row::<KeyRow>(&Kind::Key.key_ending(&[duel.get()], &key.hash))?
        {
            if used.fingerprint != key.fingerprint.0 {
                return Ok(Err(AppendError::KeyReused));
            }
            let position = Position { seq: used.seq, ..row.position(self.lineage) };
            return Ok(Ok(Appended { position, event: None, connections: 0 }));
        }
        if known.as_ref().is_some_and(|row| row.duel_status() != DuelStatus::Open) {
            return Ok(Err(AppendError::Closed));
        }
        let is_new = known.is_none();
        let mut row = match self.bring_into_being(duel, known) {
            Ok(row) => row,
            Err(full) => return Ok(Err(full.into())),
        };
        let (event, follows) = self.store(duel, &mut row, event)?;
        if let Some(key) = key {
            self.remember(duel, &mut row, key)?;
        }
        let position = row.position(self.lineage);
        if follows && !is_new {
            self.follow_duel(duel, row);
        } else {
            self.put_duel(duel, row);
        }
        Ok(Ok(Appended { position, event: Some(event), connections: 0 }))
    }

    /// Stores the last event, if any, and the end of the duel.
    pub(super) fn close(
        &mut self,
        duel: DuelId,
        outcome: Outcome,
        last: Option<Push>,
    ) -> Written<Appended, AppendError> {
        let known = self.duel(duel);
        if let Some(row) = &known
            && let DuelStatus::Closed(before) = row.duel_status()
        {
            let position = row.position(self.lineage);
            let again = Appended { position, event: None, connections: 0 };
            return Ok(if before == outcome { Ok(again) } else { Err(AppendError::Closed) });
        }
        let mut row = match self.bring_into_being(duel, known) {
            Ok(row) => row,
            Err(full) => return Ok(Err(full.into())),
        };
        if let Some(push) = last {
            self.store(duel, &mut row, Unnumbered::of(Content::Pushed(push)))?;
        }
        let (end, _) = self.store(duel, &mut row, Unnumbered::of(Content::Closed(outcome)))?;
        row.set_status(DuelStatus::Closed(outcome).into());
        // Sooner than the look that was planned when it came into being.
        self.plan_look(duel, &row);
        let position = row.position(self.lineage);
        self.put_duel(duel, row);
        Ok(Ok(Appended { position, event: Some(end), connections: 0 }))
    }

    /// Notes that somebody follows the duel.
    pub(super) fn touch(&mut self, duel: DuelId) {
        if let Some(mut row) = self.duel(duel) {
            row.used_at = self.now.0;
            self.put_duel(duel, row);
        }
    }

    fn bring_into_being(
        &mut self,
        duel: DuelId,
        known: Option<DuelRow>,
    ) -> Result<DuelRow, EngineError> {
        if let Some(row) = known {
            return Ok(row);
        }
        if duel != DuelId::PROBE {
            if self.held.counts.duels >= self.config.duels_max {
                return Err(EngineError::Full { limit: "ENGINE_MAX_DUELS" });
            }
            self.held.counts.duels += 1;
        }
        let row = DuelRow::new(self.now);
        self.plan_look(duel, &row);
        let position = row.position(self.lineage);
        self.notices.push(Notice::Opened { duel, position });
        Ok(row)
    }

    /// The event at the end of the log, and whether nothing fell off the log for it.
    fn store(
        &mut self,
        duel: DuelId,
        row: &mut DuelRow,
        event: Unnumbered,
    ) -> Result<(Arc<Event>, bool), Fault> {
        let (event, bytes) = event.store(row.seq + 1, self.now);
        self.put_bytes(Kind::Event.key(&[duel.get(), event.seq]), bytes);
        row.follow(&event);
        let oldest_seq = row.oldest_seq;
        let (events_max, bytes_max) = (self.config.log_events_max, self.config.log_bytes_max);
        let too_long = |row: &DuelRow| {
            row.log_events() > events_max as u64
                || (row.log_events() > 1 && row.log_bytes > bytes_max as u64)
        };
        while too_long(row) {
            self.drop_oldest(duel, row)?;
        }
        let epoch = row.position(self.lineage).epoch;
        let told = Arc::clone(&event);
        self.notices.push(Notice::Appended { duel, epoch, event: told, bulk: false });
        Ok((event, row.oldest_seq == oldest_seq))
    }

    fn drop_oldest(&mut self, duel: DuelId, row: &mut DuelRow) -> Result<(), Fault> {
        let seq = row.oldest_seq;
        let oldest = self.row::<EventRow>(&Kind::Event.key(&[duel.get(), seq]))?;
        let oldest = oldest.ok_or(Fault::Malformed("a log with a gap"))?.into_event(seq)?;
        let bytes = oldest.size() as u64;
        row.log_bytes = row.log_bytes.saturating_sub(bytes);
        row.oldest_seq += 1;
        let Some(push) = oldest.push() else {
            self.remove(Kind::Event.key(&[duel.get(), seq]));
            return Ok(());
        };
        let kind = push.kind_fingerprint().0.to_vec();
        self.keep_fallen(duel, row, FallenRow { kind, seq, bytes });
        Ok(())
    }

    /// Keeps an event that fell off the log, while it is the latest of its kind that did.
    fn keep_fallen(&mut self, duel: DuelId, row: &mut DuelRow, new: FallenRow) {
        let mut gone: Vec<_> = row.fallen.extract_if(.., |old| old.kind == new.kind).collect();
        row.fallen.push(new);
        let mut bytes: u64 = row.fallen.iter().map(|fallen| fallen.bytes).sum();
        while row.fallen.len() > limits::LATEST_TYPES_MAX
            || bytes > self.config.log_bytes_max as u64
        {
            let oldest = row.fallen.remove(0);
            bytes -= oldest.bytes;
            gone.push(oldest);
        }
        for fallen in gone {
            self.remove(Kind::Event.key(&[duel.get(), fallen.seq]));
        }
    }

    fn remember(&mut self, duel: DuelId, row: &mut DuelRow, key: &Key) -> Result<(), Fault> {
        let used = KeyRow { fingerprint: key.fingerprint.0.to_vec(), seq: row.seq };
        self.put(Kind::Key.key_ending(&[duel.get()], &key.hash), &used);
        self.put_bytes(Kind::KeyOrder.key(&[duel.get(), row.seq]), key.hash);
        row.count_key(row.seq);
        if row.keys > limits::IDEMPOTENCY_KEYS_MAX as u64
            && let Some((order, hash)) = self.of_duel(Kind::KeyOrder, duel, row.keys_from, 1)?.pop()
        {
            row.keys_from = rows::number(&order, 1)? + 1;
            self.remove(order);
            self.remove(Kind::Key.key_ending(&[duel.get()], &hash));
            row.keys -= 1;
        }
        Ok(())
    }

    /// The first `count` rows of a kind that a duel has, from a seq on: where there are none before it, it is not
    /// looked for, since that would be over the graves of those that were taken out.
    fn of_duel(
        &self,
        kind: Kind,
        duel: DuelId,
        from: u64,
        count: usize,
    ) -> Result<Vec<(UserKey, UserValue)>, Fault> {
        self.first(kind, &[duel.get(), from], &[duel.get() + 1], count)
    }

    fn expires_at(&self, row: &DuelRow) -> UnixMs {
        let (used_at, changed_at) =
            (UnixMs(row.used_at), UnixMs(row.updated_at.unwrap_or(row.created_at)));
        let at = rules::expires_at(row.duel_status(), used_at, changed_at, self.config);
        match row.duel_status() {
            // `used_at` lags behind by as much.
            DuelStatus::Open => at.plus(super::touch_interval(self.config)),
            DuelStatus::Closed(_) => at,
        }
    }

    fn plan_look(&mut self, duel: DuelId, row: &DuelRow) {
        let at = self.expires_at(row);
        self.held.duels_due = self.held.duels_due.min(at.0);
        self.put_bytes(Kind::DuelDue.key(&[at.0, duel.get()]), []);
    }

    /// Forgets duels that are due by `now`: whether there may be more.
    pub(super) fn prune_duels(&mut self, now: UnixMs) -> Result<bool, Fault> {
        let due = self.due(Kind::DuelDue, self.held.duels_due, now, limits::PRUNE_ROWS_MAX)?;
        let all = due.len() < limits::PRUNE_ROWS_MAX;
        let mut rows = 0;
        for (key, _) in due {
            if rows >= limits::PRUNE_ROWS_MAX {
                return Ok(true);
            }
            let (at, duel) = (rows::number(&key, 0)?, rows::duel_id(rows::number(&key, 1)?)?);
            self.held.duels_due = at.min(self.now.0);
            self.remove(key);
            rows += 1;
            let Some(row) = self.duel(duel) else { continue };
            if self.expires_at(&row) <= now {
                rows += self.forget(duel, &row)?;
            } else {
                self.plan_look(duel, &row);
            }
        }
        Ok(!all)
    }

    /// Takes out everything about a duel: how many rows.
    fn forget(&mut self, duel: DuelId, row: &DuelRow) -> Result<usize, Fault> {
        let fallen = row.fallen.iter().map(|fallen| fallen.seq);
        let seqs = fallen.chain(row.oldest_seq.max(1)..=row.seq);
        let mut keys: Vec<_> = seqs.map(|seq| Kind::Event.key(&[duel.get(), seq])).collect();
        for (kind, from) in [(Kind::Key, 0), (Kind::KeyOrder, row.keys_from)] {
            let rows = self.of_duel(kind, duel, from, usize::MAX)?;
            keys.extend(rows.into_iter().map(|(key, _)| key));
        }
        let rows = keys.len();
        keys.into_iter().for_each(|key| self.remove(key));
        self.remove_duel(duel);
        let counted = usize::from(duel != DuelId::PROBE);
        self.held.counts.duels = self.held.counts.duels.saturating_sub(counted);
        Ok(rows)
    }
}
