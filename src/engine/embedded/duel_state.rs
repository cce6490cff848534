//! The duels as they stand after the last commit, in memory.
//!
//! Most pushes change nothing of their duel's row but what the event says ([`DuelRow::follow`]), and store the event
//! alone. The row is stored when more than that changes. So the rows on the disk lag behind, and the present is here. It is
//! made at start, when everything is read, and the writer teaches it each commit before anybody hears of it. Reads of a
//! duel need no disk.
//!
//! Invariant: rows are as of a commit that is at most one older than the newest [`Snapshot`](super::store::Snapshot): a commit
//! is visible there first. So who reads both may find that an event which the row knows has just gone. Bounds: as many as there are duels (`ENGINE_MAX_DUELS`), some 300 bytes each.

use std::collections::BTreeMap;
use std::ops::Bound;

use parking_lot::RwLock;

use super::rows::{DuelRow, Lives};
use crate::engine::{Head, StatusFilter};
use crate::id::DuelId;

/// Duels read before the writer may come in between.
const LIST_STEP: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct DuelStates(RwLock<BTreeMap<DuelId, DuelRow>>);

impl DuelStates {
    pub(super) fn new(rows: BTreeMap<DuelId, DuelRow>) -> Self {
        Self(RwLock::new(rows))
    }

    pub(super) fn get(&self, duel: DuelId) -> Option<DuelRow> {
        self.0.read().get(&duel).cloned()
    }

    /// Returns what `of` returns for those of the duels that exist.
    pub(super) fn map<T>(&self, duels: Vec<DuelId>, of: impl Fn(DuelId, &DuelRow) -> T) -> Vec<T> {
        let rows = self.0.read();
        duels.into_iter().filter_map(|duel| Some(of(duel, rows.get(&duel)?))).collect()
    }

    /// Returns at most `count` duels above `after` in the order of their ids, the node's own probe left out.
    pub(super) fn list(
        &self,
        after: Option<DuelId>,
        status: StatusFilter,
        count: usize,
        lives: &Lives,
    ) -> Vec<(DuelId, Head)> {
        let mut found = Vec::new();
        let mut from = after.map_or(Bound::Unbounded, Bound::Excluded);
        loop {
            let rows = self.0.read();
            let mut read = 0;
            for (duel, row) in rows.range((from, Bound::Excluded(DuelId::PROBE))).take(LIST_STEP) {
                if found.len() == count {
                    return found;
                }
                read += 1;
                from = Bound::Excluded(*duel);
                if status.admits(row.duel_status()) {
                    found.push((*duel, row.head(lives)));
                }
            }
            if read < LIST_STEP {
                return found;
            }
        }
    }

    /// Takes the rows that a batch has changed; `None`: the duel was forgotten.
    pub(super) fn learn(&self, changed: impl Iterator<Item = (DuelId, Option<DuelRow>)>) {
        let mut rows = self.0.write();
        for (duel, row) in changed {
            match row {
                Some(row) => rows.insert(duel, row),
                None => rows.remove(&duel),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::{self, UnixMs};
    use crate::config::{Config, Durability, EngineConfig, StoreConfig};
    use crate::engine::embedded::error::StepError;
    use crate::engine::embedded::log::IdempotencyKey;
    use crate::engine::embedded::open::{self, CheckedStore};
    use crate::engine::embedded::store::{StoreHints, WriteBatch};
    use crate::engine::event_row::Unnumbered;
    use crate::engine::{Declaration, Participant};
    use crate::event::{Content, EventType, Outcome, Payload, Push};
    use crate::id::{TelegramId, UserId};

    /// What is done to a duel.
    #[derive(Debug, Clone)]
    enum Step {
        Declare { user: u64, reopen: bool },
        Push { event_type: bool, key: Option<u16>, size: usize },
        Close,
        Touch,
        Forget,
        Restart,
    }

    fn step() -> impl Strategy<Value = (u64, Step)> {
        let push = (any::<bool>(), proptest::option::of(any::<u16>()), 0..600_usize)
            .prop_map(|(event_type, key, size)| Step::Push { event_type, key, size });
        let step = prop_oneof![
            2 => (1..4_u64, any::<bool>()).prop_map(|(user, reopen)| Step::Declare { user, reopen }),
            20 => push,
            1 => Just(Step::Close),
            1 => Just(Step::Touch),
            1 => Just(Step::Forget),
            2 => Just(Step::Restart),
        ];
        (1..4_u64, step)
    }

    /// It may be refused, as in a closed duel.
    fn done<T, E>(step: Result<T, StepError<E>>) {
        if let Err(StepError::Fault(fault)) = step {
            panic!("{fault}");
        }
    }

    fn take(batch: &mut WriteBatch<'_>, duel: DuelId, step: &Step) {
        match *step {
            Step::Declare { user, reopen } => {
                let (user, telegram) = (UserId::try_from(user), TelegramId::try_from(user));
                let participant = Participant { user: user.unwrap(), telegram: telegram.unwrap() };
                let declaration =
                    Declaration { participants: vec![participant], settings: None, reopen };
                done(batch.open(duel, declaration));
            }
            Step::Push { event_type, key, size } => {
                let json = format!(r#"{{"a":"{}"}}"#, "x".repeat(size));
                let push = Push::new(
                    EventType::parse(if event_type { "a" } else { "b" }).unwrap(),
                    Payload::parse(duel, json, 1000).unwrap(),
                );
                let key = key.map(|key| IdempotencyKey::new(&key.to_string(), &push));
                let event = Unnumbered::of(Content::Pushed(push));
                done(batch.append(duel, event, key.as_ref()));
            }
            Step::Close => done(batch.close(duel, Outcome::Finished, None)),
            Step::Touch => batch.touch(duel),
            Step::Forget => drop(batch.prune_duels(UnixMs(u64::MAX / 2)).unwrap()),
            Step::Restart => {}
        }
    }

    /// Restarts, and compares what was known before with what is found.
    fn restart(engine: &EngineConfig, config: &StoreConfig, opened: CheckedStore) -> CheckedStore {
        let left = opened.store.duels.0.read().clone();
        drop(opened);
        let opened = open::open(engine, config).unwrap().0;
        let mut found = opened.store.duels.0.read().clone();
        for (duel, row) in &mut found {
            // Of the two the one found at start may be the nearer.
            let left = left.get(duel).map_or(u64::MAX, |left| left.keys_from);
            assert!(left <= row.keys_from);
            row.keys_from = left;
        }
        assert_eq!(left, found);
        opened
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]
        #[test]
        fn duels_are_found_as_they_were_left(steps in proptest::collection::vec(step(), 1..300)) {
            let directory = tempfile::tempdir().unwrap();
            let data_dir = directory.path().to_owned();
            let config = StoreConfig { data_dir, durability: Durability::Os };
            let mut engine = Config::read(&|_| None).unwrap().engine;
            (engine.log_events_max, engine.log_bytes_max) = (20, 4000);
            let mut opened = open::open(&engine, &config).unwrap().0;
            for (duel, step) in steps {
                let mut batch = opened.store.batch(&engine, StoreHints::default(), clock::now());
                take(&mut batch, DuelId::try_from(duel).unwrap(), &step);
                if batch.is_changed() {
                    opened.meta.commit += 1;
                    drop(batch.commit(&opened.meta).unwrap());
                }
                if matches!(step, Step::Restart) {
                    opened = restart(&engine, &config, opened);
                }
            }
            restart(&engine, &config, opened);
        }
    }
}
