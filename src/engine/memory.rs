//! The engine that keeps everything in memory: for tests, for trying out, and where a restart may lose the logs.
//!
//! It keeps nothing over a restart, so every duel simply has a random epoch, and none goes on from another: no client is
//! told that it recovered what is gone. Tickets used before a restart could be used again within their life, unless the
//! secret is new.
//!
//! Locks: the map of duels, then one duel, then (inside the sink) the hub's. The ledger's stands alone.

mod duel_state;
mod ticket_ledger;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};

use self::duel_state::DuelState;
use self::ticket_ledger::TicketLedger;
use super::{
    AppendError, Appended, Declaration, DuelRecord, Engine, EngineCounts, EngineError,
    EngineFuture, Head, LogEngine, Notice, Obstacle, OpenError, Opened, Page, PresenceEngine,
    RedeemError, Revocation, Signal, Sink, StatusFilter, TicketEngine, rules,
};
use crate::clock::{self, UnixMs};
use crate::config::EngineConfig;
use crate::event::{Event, Outcome, Position, Push, Viewer};
use crate::id::{DuelId, TicketKey, UserId};
use crate::ticket::{Revision, Stamp, Ticket};

/// Duels that one call of [`Engine::prune`] checks.
const PRUNE_AT_ONCE: usize = 4096;

/// A duel in the map. `None`: it was forgotten after somebody had found it, who must search again.
type Slot = Arc<Mutex<Option<DuelState>>>;

/// See the module.
pub struct MemoryEngine {
    config: EngineConfig,
    sink: OnceLock<Sink>,
    duels: RwLock<BTreeMap<DuelId, Slot>>,
    /// When to check whether a duel has expired: one entry per duel, and one more each time that it is closed or begins anew,
    /// until that one is due.
    expiry_checks: Mutex<BTreeSet<(UnixMs, DuelId)>>,
    ledger: Mutex<TicketLedger>,
}

impl fmt::Debug for MemoryEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryEngine").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl MemoryEngine {
    /// An empty one.
    #[must_use]
    pub fn new(config: EngineConfig) -> Self {
        Self {
            ledger: Mutex::new(TicketLedger::new(config.clone())),
            config,
            sink: OnceLock::new(),
            duels: RwLock::default(),
            expiry_checks: Mutex::default(),
        }
    }

    fn notify(&self, notice: Notice) -> usize {
        self.sink.get().map_or(0, |sink| sink(notice))
    }

    fn slot(&self, duel: DuelId) -> Option<Slot> {
        self.duels.read().get(&duel).cloned()
    }

    /// Works on a duel, if it exists.
    fn with_duel<T>(&self, duel: DuelId, work: impl FnOnce(&mut DuelState) -> T) -> Option<T> {
        self.slot(duel)?.lock().as_mut().map(work)
    }

    /// Changes a duel. Creates it if it does not exist; `change` is told whether it did.
    fn change<T>(
        &self,
        duel: DuelId,
        now: UnixMs,
        change: impl FnOnce(&mut DuelState, bool) -> T,
    ) -> Result<T, EngineError> {
        loop {
            if let Some(slot) = self.slot(duel) {
                if let Some(duel) = slot.lock().as_mut() {
                    return Ok(change(duel, false));
                }
                continue;
            }
            let mut duels = self.duels.write();
            if duels.contains_key(&duel) {
                continue;
            }
            if count(&duels) >= self.config.duels_max && duel != DuelId::PROBE {
                return Err(rules::DUELS_FULL);
            }
            let mut new = DuelState::new(now);
            let position = new.position();
            self.expiry_checks.lock().insert((new.expires_at(&self.config), duel));
            let slot = Slot::default();
            let mut guard = slot.lock();
            duels.insert(duel, Arc::clone(&slot));
            drop(duels);
            self.notify(Notice::Opened { duel, position });
            let changed = change(&mut new, true);
            *guard = Some(new);
            return Ok(changed);
        }
    }

    fn open_now(&self, duel: DuelId, declaration: Declaration) -> Result<Opened, OpenError> {
        let now = clock::now();
        if self.slot(duel).is_none() {
            // Before anything comes into being.
            rules::merge(&[], declaration.participants.clone())?;
        }
        self.change(duel, now, |state, created| {
            if !rules::begins_anew(state.status(), declaration.reopen)? {
                state.declare(declaration)?;
                state.use_at(now);
                return Ok(Opened { position: state.position(), created });
            }
            let mut new = DuelState::new(now);
            new.declare(declaration)?;
            let position = new.position();
            *state = new;
            self.plan_expiry_check(duel, state);
            self.notify(Notice::Opened { duel, position });
            Ok(Opened { position, created: true })
        })?
    }

    fn append_now(
        &self,
        duel: DuelId,
        push: Push,
        key: Option<Box<str>>,
    ) -> Result<Appended, AppendError> {
        let now = clock::now();
        self.change(duel, now, |state, _| {
            let mut appended = state.append(push, key, now, &self.config)?;
            if let Some(event) = &appended.event {
                let (epoch, event) = (appended.position.epoch, Arc::clone(event));
                appended.connections =
                    self.notify(Notice::Appended { duel, epoch, event, bulk: false });
            }
            Ok(appended)
        })?
    }

    fn close_now(
        &self,
        duel: DuelId,
        outcome: Outcome,
        last: Option<Push>,
    ) -> Result<Appended, AppendError> {
        let now = clock::now();
        self.change(duel, now, |state, _| {
            let events = state.close(outcome, last, now, &self.config)?;
            let position = state.position();
            self.plan_expiry_check(duel, state);
            let mut connections = 0;
            for event in &events {
                let (epoch, event) = (position.epoch, Arc::clone(event));
                connections = self.notify(Notice::Appended { duel, epoch, event, bulk: false });
            }
            Ok(Appended { connections, ..state.appended(position, events.last().cloned()) })
        })?
    }

    /// A duel that was closed, or began anew, is to be forgotten at another time than its entry in `expiry_checks` says.
    fn plan_expiry_check(&self, duel: DuelId, state: &DuelState) {
        self.expiry_checks.lock().insert((state.expires_at(&self.config), duel));
    }

    fn prune_now(&self, now: UnixMs) {
        self.ledger.lock().prune(now);
        for _ in 0..PRUNE_AT_ONCE {
            let due = self.expiry_checks.lock().first().copied().filter(|(at, _)| *at <= now);
            let Some((at, duel)) = due else { return };
            let mut duels = self.duels.write();
            self.expiry_checks.lock().remove(&(at, duel));
            let Some(slot) = duels.get(&duel).cloned() else { continue };
            let mut state = slot.lock();
            let expires_at = state.as_ref().map_or(now, |state| state.expires_at(&self.config));
            if expires_at <= now {
                *state = None;
                duels.remove(&duel);
            } else {
                self.expiry_checks.lock().insert((expires_at, duel));
            }
        }
    }

    fn list_now(
        &self,
        after: Option<DuelId>,
        status: StatusFilter,
        count: usize,
    ) -> Vec<(DuelId, Head)> {
        let duels = self.duels.read();
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let named = duels.range((start, Bound::Excluded(DuelId::PROBE)));
        let heads = named.filter_map(|(duel, slot)| Some((*duel, slot.lock().as_ref()?.head())));
        heads.filter(|(_, head)| status.admits(head.status)).take(count).collect()
    }
}

/// The duels that backends have: the node's own probe is none.
fn count(duels: &BTreeMap<DuelId, Slot>) -> usize {
    duels.len() - usize::from(duels.contains_key(&DuelId::PROBE))
}

/// An answer that is there already.
fn ready<'a, T: Send + 'a, E: Send + 'a>(answer: Result<T, E>) -> EngineFuture<'a, T, E> {
    Box::pin(std::future::ready(answer))
}

impl LogEngine for MemoryEngine {
    fn open(&self, duel: DuelId, declaration: Declaration) -> EngineFuture<'_, Opened, OpenError> {
        ready(self.open_now(duel, declaration))
    }

    fn get_or_create(&self, duel: DuelId) -> EngineFuture<'_, DuelRecord> {
        let now = clock::now();
        ready(self.change(duel, now, |duel, _| {
            duel.use_at(now);
            duel.record()
        }))
    }

    fn append(
        &self,
        duel: DuelId,
        push: Push,
        idempotency_key: Option<Box<str>>,
    ) -> EngineFuture<'static, Appended, AppendError> {
        ready(self.append_now(duel, push, idempotency_key))
    }

    fn close(
        &self,
        duel: DuelId,
        outcome: Outcome,
        last: Option<Push>,
    ) -> EngineFuture<'_, Appended, AppendError> {
        ready(self.close_now(duel, outcome, last))
    }

    fn read(&self, duel: DuelId, after: Position, count: usize) -> EngineFuture<'_, Page> {
        ready(Ok(self.with_duel(duel, |duel| duel.read(after, count)).unwrap_or(Page::Ended)))
    }

    fn latest(
        &self,
        duel: DuelId,
        viewer: Viewer,
        up_to: Position,
    ) -> EngineFuture<'_, Option<Vec<Arc<Event>>>> {
        ready(Ok(self.with_duel(duel, |duel| duel.latest(viewer, up_to)).flatten()))
    }

    fn get(&self, duel: DuelId) -> EngineFuture<'_, Option<DuelRecord>> {
        ready(Ok(self.with_duel(duel, |duel| duel.record())))
    }

    fn list(
        &self,
        after: Option<DuelId>,
        status: StatusFilter,
        count: usize,
    ) -> EngineFuture<'_, Vec<(DuelId, Head)>> {
        ready(Ok(self.list_now(after, status, count)))
    }

    fn heads(&self, duels: Vec<DuelId>) -> EngineFuture<'_, Vec<(DuelId, Head)>> {
        let now = clock::now();
        let head = |duel: DuelId| {
            self.with_duel(duel, |state| {
                state.use_at(now);
                (duel, state.head())
            })
        };
        ready(Ok(duels.into_iter().filter_map(head).collect()))
    }
}

impl TicketEngine for MemoryEngine {
    fn stamp(&self) -> EngineFuture<'_, Stamp> {
        ready(Ok(self.ledger.lock().stamp(clock::now())))
    }

    fn redeem(&self, ticket: &Ticket) -> EngineFuture<'_, Stamp, RedeemError> {
        ready(self.ledger.lock().redeem(ticket, clock::now()))
    }

    fn renew(
        &self,
        session: TicketKey,
        owner: (DuelId, UserId),
        revision: Revision,
    ) -> EngineFuture<'_, Option<Stamp>> {
        ready(Ok(self.ledger.lock().renew(session, owner, revision, clock::now())))
    }

    fn revoke(&self, revocation: Revocation) -> EngineFuture<'_, ()> {
        ready(self.ledger.lock().revoke(&revocation, clock::now()))
    }
}

impl PresenceEngine for MemoryEngine {
    fn signal(&self, signal: Signal) -> EngineFuture<'_, ()> {
        self.notify(Notice::Signal(signal));
        ready(Ok(()))
    }
}

impl Engine for MemoryEngine {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn connect(&self, sink: Sink) {
        let connected = self.sink.set(sink);
        assert!(connected.is_ok(), "an engine is connected once");
    }

    fn prune(&self, now: UnixMs) -> EngineFuture<'_, ()> {
        self.prune_now(now);
        ready(Ok(()))
    }

    fn counts(&self) -> EngineCounts {
        let duels = count(&self.duels.read());
        let ledger = self.ledger.lock();
        EngineCounts {
            duels,
            remembered_tickets: ledger.len(),
            sessions_crowded_out: ledger.crowded_out(),
        }
    }

    fn obstacle(&self) -> Option<Obstacle> {
        let ledger = self.ledger.lock();
        rules::ledger_obstacle(ledger.len(), ledger.tickets_max())
    }

    fn stop(&self) -> EngineFuture<'_, ()> {
        ready(Ok(()))
    }
}
