//! The logs of the duels, row by row: numbering, idempotency, retention. They decide by [`rules`].

use std::sync::Arc;

use fjall::{UserKey, UserValue};
use sha2::{Digest as _, Sha256};

use super::error::{Fault, StepError};
use super::rows::{self, DuelRow, KeyRow, Kind, RetainedRow};
use super::store::{Snapshot, WriteBatch, event};
use crate::clock::UnixMs;
use crate::engine::event_row::{EventRow, Unnumbered, stored_size};
use crate::engine::{
    AppendError, Appended, Declaration, EngineError, Notice, OpenError, Opened, Page, rules,
};
use crate::event::{Content, DuelStatus, Event, Fingerprint, Outcome, Position, Push, Viewer};
use crate::id::DuelId;
use crate::limits;

/// An idempotency key, and the content that it is used for.
#[derive(Debug)]
pub(super) struct IdempotencyKey {
    hash: [u8; 16],
    fingerprint: Fingerprint,
}

impl IdempotencyKey {
    pub(super) fn new(key: &str, push: &Push) -> Self {
        let digest = Sha256::digest(key.as_bytes());
        let mut hash = [0; 16];
        hash.copy_from_slice(&digest[..16]);
        Self { hash, fingerprint: push.fingerprint() }
    }
}

impl Snapshot<'_> {
    pub(super) fn read(&self, duel: DuelId, after: Position, count: usize) -> Result<Page, Fault> {
        let Some(row) = self.duel(duel)? else { return Ok(Page::Ended) };
        let head = row.head(&self.store.lives);
        if !head.holds_after(after) {
            return Ok(head.page_lacking(after));
        }
        let (from, before) = ([duel.get(), after.seq + 1], [duel.get(), row.seq + 1]);
        let events = self.between(Kind::Event, &from, &before).take(count).map(event);
        let events: Vec<_> = events.collect::<Result<_, _>>()?;
        // The snapshot may be of after a commit that took events off the log, of which the row does not know yet.
        let is_whole = events.iter().zip(after.seq + 1..).all(|(event, seq)| event.seq == seq);
        Ok(if is_whole { Page::Events(events) } else { Page::Gone })
    }

    pub(super) fn latest(
        &self,
        duel: DuelId,
        viewer: Viewer,
        up_to: Position,
    ) -> Result<Option<Vec<Arc<Event>>>, Fault> {
        let row = self.duel(duel)?;
        let same_epoch = |row: &DuelRow| row.position(&self.store.lives).epoch == up_to.epoch;
        let Some(row) = row.filter(same_epoch) else { return Ok(None) };
        // From the oldest in the log, and not through the tombstones of those before it.
        let before = up_to.seq.saturating_add(1).max(row.oldest_seq);
        let in_log =
            self.between(Kind::Event, &[duel.get(), row.oldest_seq], &[duel.get(), before]);
        let retained = row.retained.iter().rev().map(|retained| retained.seq);
        let retained = retained.filter(|seq| *seq <= up_to.seq);
        // One that the row still knows may have gone with the commit of which the snapshot is: then a newer one is in the log.
        let retained = retained.filter_map(|seq| self.event(duel, seq).transpose());
        rules::latest(in_log.rev().map(event).chain(retained), viewer).map(Some)
    }

    fn event(&self, duel: DuelId, seq: u64) -> Result<Option<Arc<Event>>, Fault> {
        let row = self.row::<EventRow>(&Kind::Event.key(&[duel.get(), seq]))?;
        Ok(row.map(|row| row.into_event(seq)).transpose()?)
    }
}

impl WriteBatch<'_> {
    /// Declares a duel. Creates it if it does not exist.
    pub(super) fn open(
        &mut self,
        duel: DuelId,
        declaration: Declaration,
    ) -> Result<Opened, StepError<OpenError>> {
        let mut known = self.duel(duel);
        let ended = match &known {
            Some(row) if rules::begins_anew(row.duel_status(), declaration.reopen)? => known.take(),
            Some(_) | None => None,
        };
        let before = known.as_ref().map(DuelRow::participants).transpose()?.unwrap_or_default();
        // Before the duel is created.
        let merged = rules::merge(&before, declaration.participants)?;
        if let Some(ended) = ended {
            self.forget(duel, &ended)?;
        }
        let created = known.is_none();
        let mut row = self.begin_change(duel, known)?;
        row.set_participants(&merged);
        if let Some(settings) = declaration.settings {
            row.set_settings(settings);
        }
        row.used_at = self.now.0;
        let position = row.position(self.lives);
        self.put_duel(duel, row);
        Ok(Opened { position, created })
    }

    /// Returns the duel. Creates it if it does not exist.
    pub(super) fn get_or_create(
        &mut self,
        duel: DuelId,
    ) -> Result<DuelRow, StepError<EngineError>> {
        let known = self.duel(duel);
        let mut row = self.begin_change(duel, known)?;
        row.used_at = self.now.0;
        self.put_duel(duel, row.clone());
        Ok(row)
    }

    /// Stores an event, unless its key was used before.
    pub(super) fn append(
        &mut self,
        duel: DuelId,
        event: Unnumbered,
        key: Option<&IdempotencyKey>,
    ) -> Result<Appended, StepError<AppendError>> {
        let known = self.duel(duel);
        if let (Some(row), Some(key)) = (&known, key)
            && let Some(used) =
                self.row::<KeyRow>(&Kind::Key.key_ending(&[duel.get()], &key.hash))?
        {
            rules::check_duplicate(&used.fingerprint, key.fingerprint)?;
            let position = Position { seq: used.seq, ..row.position(self.lives) };
            return Ok(row.appended(position, None));
        }
        if let Some(row) = &known {
            rules::check_open(row.duel_status())?;
        }
        let is_stored = known.as_ref().is_some_and(|row| row.is_of_present_life(self.lives));
        let mut row = self.begin_change(duel, known)?;
        let oldest_seq = row.oldest_seq.max(1);
        let event = self.store(duel, &mut row, event)?;
        if let Some(key) = key {
            self.remember(duel, &mut row, key)?;
        }
        let appended = row.appended(row.position(self.lives), Some(event));
        // The event alone says what has changed, unless others fell off the log for it.
        if is_stored && row.oldest_seq == oldest_seq {
            self.follow_duel(duel, row);
        } else {
            self.put_duel(duel, row);
        }
        Ok(appended)
    }

    /// Stores the last event, if any, and the end of the duel.
    pub(super) fn close(
        &mut self,
        duel: DuelId,
        outcome: Outcome,
        last: Option<Unnumbered>,
    ) -> Result<Appended, StepError<AppendError>> {
        let known = self.duel(duel);
        if let Some(row) = &known
            && rules::is_closed_alike(row.duel_status(), outcome)?
        {
            return Ok(row.appended(row.position(self.lives), None));
        }
        let mut row = self.begin_change(duel, known)?;
        if let Some(last) = last {
            self.store(duel, &mut row, last)?;
        }
        let end = self.store(duel, &mut row, Unnumbered::of(Content::Closed(outcome)))?;
        row.set_status(DuelStatus::Closed(outcome).into());
        // Sooner than the check that was planned when it was created.
        self.plan_expiry_check(duel, &row);
        let appended = row.appended(row.position(self.lives), Some(end));
        self.put_duel(duel, row);
        Ok(appended)
    }

    /// Notes that somebody follows the duel.
    pub(super) fn touch(&mut self, duel: DuelId) {
        if let Some(mut row) = self.duel(duel) {
            row.used_at = self.now.0;
            self.put_duel(duel, row);
        }
    }

    /// Returns the row to change, of the present life. Creates the duel if it does not exist.
    fn begin_change(
        &mut self,
        duel: DuelId,
        known: Option<DuelRow>,
    ) -> Result<DuelRow, EngineError> {
        if let Some(mut row) = known {
            row.enter_life(self.lives);
            return Ok(row);
        }
        if duel != DuelId::PROBE {
            if self.hints.counts.duels >= self.config.duels_max {
                return Err(rules::DUELS_FULL);
            }
            self.hints.counts.duels += 1;
        }
        let row = DuelRow::new(self.now, self.lives);
        self.plan_expiry_check(duel, &row);
        let position = row.position(self.lives);
        self.notices.push(Notice::Opened { duel, position });
        Ok(row)
    }

    /// Puts an event at the end of the log.
    fn store(
        &mut self,
        duel: DuelId,
        row: &mut DuelRow,
        event: Unnumbered,
    ) -> Result<Arc<Event>, Fault> {
        let (event, bytes) = event.store(row.seq + 1, self.now);
        self.put_bytes(Kind::Event.key(&[duel.get(), event.seq]), bytes);
        row.follow(&event);
        let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        while rules::log_overflows(number(row.log_events()), number(row.log_bytes), self.config) {
            self.drop_oldest(duel, row)?;
        }
        let (epoch, told) = (row.position(self.lives).epoch, Arc::clone(&event));
        self.notices.push(Notice::Appended { duel, epoch, event: told, bulk: false });
        Ok(event)
    }

    fn drop_oldest(&mut self, duel: DuelId, row: &mut DuelRow) -> Result<(), Fault> {
        let seq = row.oldest_seq;
        let oldest = self.row::<EventRow>(&Kind::Event.key(&[duel.get(), seq]))?;
        let oldest = oldest.ok_or(Fault::Malformed("a log with a gap"))?.into_event(seq)?;
        let bytes = stored_size(&oldest.content) as u64;
        row.log_bytes = row.log_bytes.saturating_sub(bytes);
        row.oldest_seq += 1;
        let Some(push) = oldest.state() else {
            self.remove(Kind::Event.key(&[duel.get(), seq]));
            return Ok(());
        };
        let kind = push.kind_fingerprint().0.to_vec();
        let new = RetainedRow { kind, seq, bytes };
        for gone in rules::retain(&mut row.retained, new, self.config) {
            self.remove(Kind::Event.key(&[duel.get(), gone.seq]));
        }
        Ok(())
    }

    fn remember(
        &mut self,
        duel: DuelId,
        row: &mut DuelRow,
        key: &IdempotencyKey,
    ) -> Result<(), Fault> {
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

    /// Returns the first `count` rows of a kind that a duel has, from a seq on. The caller knows that there are none before it,
    /// so tombstones are not searched through.
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

    fn plan_expiry_check(&mut self, duel: DuelId, row: &DuelRow) {
        let at = self.expires_at(row);
        self.hints.duels_due = self.hints.duels_due.min(at.0);
        self.put_bytes(Kind::DuelDue.key(&[at.0, duel.get()]), []);
    }

    /// Forgets duels that have expired by `now`. Returns whether there may be more.
    pub(super) fn prune_duels(&mut self, now: UnixMs) -> Result<bool, Fault> {
        let due = self.due(Kind::DuelDue, self.hints.duels_due, now, limits::PRUNE_ROWS_MAX)?;
        let all = due.len() < limits::PRUNE_ROWS_MAX;
        let mut rows = 0;
        for (key, _) in due {
            if rows >= limits::PRUNE_ROWS_MAX {
                return Ok(true);
            }
            let (at, duel) = (rows::number(&key, 0)?, rows::duel_id(rows::number(&key, 1)?)?);
            self.hints.duels_due = at.min(self.now.0);
            self.remove(key);
            rows += 1;
            let Some(row) = self.duel(duel) else { continue };
            if self.expires_at(&row) <= now {
                rows += self.forget(duel, &row)?;
            } else {
                self.plan_expiry_check(duel, &row);
            }
        }
        Ok(!all)
    }

    /// Removes everything about a duel. Returns how many rows that were.
    fn forget(&mut self, duel: DuelId, row: &DuelRow) -> Result<usize, Fault> {
        let retained = row.retained.iter().map(|retained| retained.seq);
        let seqs = retained.chain(row.oldest_seq.max(1)..=row.seq);
        let mut keys: Vec<_> = seqs.map(|seq| Kind::Event.key(&[duel.get(), seq])).collect();
        for (kind, from) in [(Kind::Key, 0), (Kind::KeyOrder, row.keys_from)] {
            let rows = self.of_duel(kind, duel, from, usize::MAX)?;
            keys.extend(rows.into_iter().map(|(key, _)| key));
        }
        let rows = keys.len();
        keys.into_iter().for_each(|key| self.remove(key));
        self.remove_duel(duel);
        let counted = usize::from(duel != DuelId::PROBE);
        self.hints.counts.duels = self.hints.counts.duels.saturating_sub(counted);
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Durability, StoreConfig};
    use crate::engine::embedded::open::{self, CheckedStore};
    use crate::engine::embedded::store::StoreHints;
    use crate::event::{EventType, Payload, Role};
    use crate::id::UserId;

    /// A commit is visible in a snapshot before the rows in memory know of it.
    #[test]
    fn a_read_that_crosses_a_commit_skips_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().to_owned();
        let config = StoreConfig { data_dir, durability: Durability::Os };
        let mut engine = Config::read(&|_| None).unwrap().engine;
        engine.log_events_max = 3;
        let (CheckedStore { store, meta, .. }, _) = open::open(&engine, &config).unwrap();
        let duel = DuelId::try_from(77).unwrap();
        let push = || Push::new(EventType::duel_update(), Payload::parse(duel, "{}", 100).unwrap());
        let mut batch = store.batch(&engine, StoreHints::default(), UnixMs(1));
        for _ in 0..4 {
            let appended = batch.append(duel, Unnumbered::of(Content::Pushed(push())), None);
            assert!(appended.is_ok());
        }
        drop(batch.commit(&meta).unwrap());
        let newest = store.duels.get(duel).unwrap().position(&store.lives);
        let seqs =
            |events: Vec<Arc<Event>>| events.iter().map(|event| event.seq).collect::<Vec<_>>();
        let read = |seq| store.snapshot().read(duel, Position { seq, ..newest }, 10).unwrap();
        assert!(matches!(read(1), Page::Events(events) if seqs(events.clone()) == [2, 3, 4]));
        // As a commit of three more leaves it: the first is retained no longer, the third fell and was not retained.
        let mut batch = store.batch(&engine, StoreHints::default(), UnixMs(1));
        [1, 3].into_iter().for_each(|seq| batch.remove(Kind::Event.key(&[duel.get(), seq])));
        drop(batch.commit(&meta).unwrap());
        assert_eq!(read(1), Page::Gone, "and not 2 and 4");
        let viewer = Viewer { user: UserId::try_from(1).unwrap(), role: Role::Player };
        let latest = store.snapshot().latest(duel, viewer, newest);
        assert_eq!(latest.unwrap().map(seqs), Some(vec![4]));
    }
}
