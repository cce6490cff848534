//! Who is online over all nodes, and what keeps that true: a lease for each node, and rosters that are read again.
//!
//! A node says of each duel in which it has somebody that it does, and renews its lease. When a lease has ended, whoever
//! notices takes that node's users out of its duels. A node whose own lease had ended, as after a pause, says everything
//! again; so it does for a duel whose roster has lost what was said.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redis::Cmd;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::answer::{self, Parts};
use super::keys::Keys;
use super::link::{IN_DOUBT, Outcome};
use super::links::Links;
use super::message;
use super::script::{
    self, ACKED, Args as _, DEPART, EXPEL, HEADS, HEARTBEAT, OFFLINE, ONLINE, Script,
};
use super::teller::Teller;
use crate::clock::UnixMs;
use crate::engine::event_row::Malformed;
use crate::engine::{Arrival, EngineError, Head, OfflineReason, Online, Signal, SignalKind};
use crate::event::{Epoch, Viewer};
use crate::id::{ConnectionId, DuelId, UserId};
use crate::limits;

/// Duels of a node that is no more, looked after at a time.
const EXPEL_BATCH: usize = 256;

/// Rosters that wait to be read again.
pub(super) const STALE_MAX: usize = 4096;

/// Goings that wait to be said.
const UNSAID_MAX: usize = 65_536;

/// How long what is known of a node is kept without a sign of life.
const NODE_KEPT: Duration = Duration::from_secs(86_400);

/// Keeps rosters true.
#[derive(Debug)]
pub(super) struct Rosters {
    links: Arc<Links>,
    keys: Arc<Keys>,
    teller: Arc<Teller>,
    /// Goings that Redis was not there to hear of.
    unsaid: Arc<Mutex<Vec<Signal>>>,
}

/// Where a log stands, and which change of the roster was the last.
type Standing = (DuelId, Head, u64);

impl Rosters {
    pub(super) fn new(links: Arc<Links>, keys: Arc<Keys>, teller: Arc<Teller>) -> Arc<Self> {
        Arc::new(Self { links, keys, teller, unsaid: Arc::default() })
    }

    /// Of which lineage the data of a hash tag is that is asked for.
    pub(super) fn lineage(&self, tag: &str) -> String {
        self.links.lineage(tag)
    }

    /// A script about a roster.
    fn script(&self, script: &'static Script, duel: DuelId) -> Cmd {
        script::call(script, &[self.keys.duel(duel)])
            .with(duel.get())
            .with(&self.keys.node)
            .with(self.keys.publish)
            .with(self.keys.watch())
    }

    /// Says that a connection was let in; `read` is handed the error, or nothing, once it was told.
    pub(super) fn arrive(
        &self,
        arrival: Arrival,
        read: impl FnOnce(Result<(), EngineError>) + Send + 'static,
    ) {
        let Arrival { duel, viewer, since, connection, connections_max, .. } = arrival;
        self.teller.is_here(duel, viewer, since);
        self.keep_duel(duel, "SADD");
        let command = self.online(duel, viewer, since).with(connection.0).with(connections_max);
        let (teller, keys) = (Arc::clone(&self.teller), Arc::clone(&self.keys));
        self.links.ask(command, move |outcome| {
            let said = outcome.value.and_then(|value| understood(arrived(value)));
            read(said.map(|(version, oldest)| {
                if version > 0 {
                    let kind = SignalKind::Online { viewer, since };
                    teller.presence(version, Signal { duel, kind });
                }
                for (node, connection) in oldest {
                    // The others hear of theirs on the channel.
                    if node == keys.node {
                        teller.signal(Signal { duel, kind: SignalKind::Replace { connection } });
                    }
                }
            }));
        });
    }

    /// Says that a connection that was let in has gone.
    pub(super) fn depart(&self, duel: DuelId, user: UserId, connection: ConnectionId) {
        let command = self.script(&DEPART, duel).with(user.get()).with(connection.0);
        self.links.ask(command, |_| {});
    }

    fn online(&self, duel: DuelId, viewer: Viewer, since: UnixMs) -> Cmd {
        self.script(&ONLINE, duel)
            .with(viewer.user.get())
            .with(answer::show_role(viewer.role))
            .with(since.0)
            .with(limits::ONLINE_LISTED_MAX)
    }

    /// Announces what changes a roster; `read` is handed the error, or nothing, once it was told.
    pub(super) fn announce(
        &self,
        signal: Signal,
        read: impl FnOnce(Result<(), EngineError>) + Send + 'static,
    ) {
        let duel = signal.duel;
        let command = match &signal.kind {
            SignalKind::Online { viewer, since } => {
                self.teller.is_here(duel, *viewer, *since);
                self.keep_duel(duel, "SADD");
                self.online(duel, *viewer, *since).with("").with(0)
            }
            SignalKind::Offline { user, reason } => {
                self.teller.is_gone(duel, *user);
                let reason = message::show_reason(*reason);
                self.script(&OFFLINE, duel).with(user.get()).with(reason)
            }
            SignalKind::Acked { user, seq } => {
                self.script(&ACKED, duel).with(user.get()).with(*seq)
            }
            SignalKind::Disconnect { .. }
            | SignalKind::Replace { .. }
            | SignalKind::Revoked { .. } => return read(Ok(())),
        };
        let (teller, unsaid) = (Arc::clone(&self.teller), Arc::clone(&self.unsaid));
        self.links.ask(command, move |outcome| {
            let version = outcome.value.and_then(|value| understood(change(value)));
            read(match version {
                Ok(0) => Ok(()),
                Ok(version) => {
                    teller.presence(version, signal);
                    Ok(())
                }
                Err(error) => {
                    keep_unsaid(&mut unsaid.lock(), signal);
                    Err(error)
                }
            });
        });
    }

    /// Says again what Redis was not there to hear of, unless it is not so any more.
    fn say_unsaid(&self) {
        let unsaid = std::mem::take(&mut *self.unsaid.lock());
        for signal in unsaid {
            let SignalKind::Offline { user, .. } = &signal.kind else { continue };
            if !self.teller.has_here(signal.duel, *user) {
                self.announce(signal, |_| {});
            }
        }
    }

    /// Nobody of the duel is on this node any more.
    pub(super) fn leave(&self, duel: DuelId) {
        if duel != DuelId::PROBE {
            self.keep_duel(duel, "SREM");
        }
    }

    /// Has this node's duels in mind, for whoever takes its users out should it be no more.
    fn keep_duel(&self, duel: DuelId, command: &str) {
        let key = self.keys.duels_of_node(&self.keys.node);
        self.links.ask(redis::cmd(command).with(key).with(duel.get()), |_| {});
    }

    /// Where duels stand; being asked about keeps them for `idle`.
    pub(super) fn heads(
        &self,
        duels: Vec<DuelId>,
        idle: Duration,
        read: impl FnOnce(Result<Vec<Standing>, EngineError>) + Send + 'static,
    ) {
        if duels.is_empty() {
            return read(Ok(Vec::new()));
        }
        let keys: Vec<_> = duels.iter().map(|duel| self.keys.duel(*duel)).collect();
        let mut command = script::call(&HEADS, &keys).with(millis(idle));
        for _ in &duels {
            command.arg(answer::show_epoch(Epoch::random()));
        }
        self.links.ask(command, move |Outcome { value, .. }| {
            read(value.and_then(|value| understood(standings(&duels, value))));
        });
    }

    /// Tells where duels stand, and reads the rosters that have changed.
    pub(super) fn compare(&self, duels: Vec<DuelId>) {
        let teller = Arc::clone(&self.teller);
        self.heads(duels, Duration::ZERO, move |standings| {
            // What cannot be asked now, the next sweep finds.
            for (duel, head, version) in standings.unwrap_or_default() {
                teller.head(duel, head.position, version);
            }
        });
    }

    /// Reads the rosters that have to be read again. Ends only by being dropped.
    pub(super) async fn run_refreshes(self: Arc<Self>, mut stale_rx: mpsc::Receiver<DuelId>) {
        while let Some(duel) = stale_rx.recv().await {
            self.refresh(duel);
        }
    }

    /// Says again who is here, and reads who is online.
    fn refresh(&self, duel: DuelId) {
        let here = self.teller.here(duel);
        if !here.is_empty() {
            self.keep_duel(duel, "SADD");
        }
        for kind in here {
            self.announce(Signal { duel, kind }, |_| {});
        }
        let teller = Arc::clone(&self.teller);
        let key = format!("{}:p", self.keys.duel(duel));
        self.links.ask(redis::cmd("HGETALL").with(key), move |outcome| {
            let read = outcome.value.and_then(|value| understood(answer::roster(value)));
            if let Ok((version, online)) = read {
                teller.roster(duel, version, online);
            }
        });
    }

    /// Renews the lease, and takes out the users of nodes whose leases have ended. Ends only by being dropped.
    pub(super) async fn run_leases(self: Arc<Self>) {
        let mut ticks = interval(limits::NODE_LEASE / 5);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut first = true;
        loop {
            ticks.tick().await;
            let Ok((lapsed, ended)) = self.renew(limits::NODE_LEASE).await else { continue };
            self.say_unsaid();
            if lapsed && !std::mem::take(&mut first) {
                warn!("this node's lease had ended; it says again who is online on it");
                self.say_everything_again();
            }
            for node in ended.into_iter().filter(|node| *node != self.keys.node) {
                if let Err(error) = self.expel(&node).await {
                    warn!(%error, node, "the users of a node that is no more were not taken out");
                }
            }
        }
    }

    fn say_everything_again(&self) {
        for duel in self.teller.all_followed() {
            if !self.teller.here(duel).is_empty() {
                self.refresh(duel);
            }
        }
    }

    /// Renews the lease: whether it had ended, and which others have.
    async fn renew(&self, lease: Duration) -> Result<(bool, Vec<String>), EngineError> {
        let command = script::call(&HEARTBEAT, &[self.keys.nodes()])
            .with(&self.keys.node)
            .with(millis(lease));
        let own = self.keys.duels_of_node(&self.keys.node);
        self.links.ask(redis::cmd("PEXPIRE").with(own).with(millis(NODE_KEPT)), |_| {});
        let value = answered(&self.links, command).await?;
        let read = || {
            let mut parts = Parts::of(value)?;
            Ok((parts.number()? == 1, parts.parts()?.each(answer::text)?))
        };
        understood(read())
    }

    /// Shortens the lease, so that who does not come back elsewhere is soon offline.
    pub(super) async fn end_lease(&self) {
        let _unreachable = self.renew(limits::NODE_LEASE / 3).await;
    }

    /// Takes the users of a node out of its duels, some at a time. Several nodes may do so at once.
    async fn expel(&self, node: &str) -> Result<(), EngineError> {
        let key = self.keys.duels_of_node(node);
        let mut count = 0;
        loop {
            let some = redis::cmd("SRANDMEMBER").with(&key).with(EXPEL_BATCH);
            let some = answered(&self.links, some).await?;
            let duels = understood(Parts::of(some).and_then(|parts| parts.each(answer::number)))?;
            let mut forget = redis::cmd("SREM").with(&key);
            for id in &duels {
                let Ok(duel) = DuelId::try_from(*id) else { continue };
                let reason = message::show_reason(OfflineReason::Lost);
                let command = self.script(&EXPEL, duel).with(node).with(reason);
                self.links.ask(command, |_| {});
                forget.arg(*id);
            }
            if duels.is_empty() {
                break;
            }
            count += duels.len();
            answered(&self.links, forget).await?;
        }
        answered(&self.links, redis::cmd("ZREM").with(self.keys.nodes()).with(node)).await?;
        info!(node, duels = count, "a node is no more; its users were taken out");
        Ok(())
    }

    /// Who is online in duels.
    pub(super) async fn read(
        &self,
        duels: &[DuelId],
    ) -> Result<Vec<(DuelId, Vec<Online>)>, EngineError> {
        let mut asked = Vec::with_capacity(duels.len());
        for duel in duels {
            let key = format!("{}:p", self.keys.duel(*duel));
            asked.push((*duel, answered(&self.links, redis::cmd("HGETALL").with(key))));
        }
        let mut rosters = Vec::with_capacity(duels.len());
        for (duel, answer) in asked {
            rosters.push((duel, understood(answer::roster(answer.await?))?.1));
        }
        Ok(rosters)
    }
}

/// Keeps a going, to be said later. Past the bound the user stays online for as long as this node lives, or until they come
/// back and go again.
fn keep_unsaid(unsaid: &mut Vec<Signal>, signal: Signal) {
    if matches!(signal.kind, SignalKind::Offline { .. }) && unsaid.len() < UNSAID_MAX {
        unsaid.push(signal);
    }
}

/// Asks, and waits for the answer.
pub(super) fn answered(
    links: &Links,
    command: Cmd,
) -> impl Future<Output = Result<redis::Value, EngineError>> + use<> {
    let (answer_tx, answer_rx) = tokio::sync::oneshot::channel();
    links.ask(command, move |outcome| {
        let _gone = answer_tx.send(outcome.value);
    });
    async move { answer_rx.await.unwrap_or(Err(IN_DOUBT)) }
}

/// An answer that is not what it should be says that something else writes there.
pub(super) fn understood<T>(read: Result<T, Malformed>) -> Result<T, EngineError> {
    read.map_err(|error| {
        warn!(%error, "what is in Redis was not understood");
        IN_DOUBT
    })
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Which change of the roster it was.
fn change(value: redis::Value) -> Result<u64, Malformed> {
    Parts::of(value)?.number()
}

/// Which change of the roster it was, and which connections of which nodes have to go.
fn arrived(value: redis::Value) -> Result<(u64, Vec<(String, ConnectionId)>), Malformed> {
    let mut parts = Parts::of(value)?;
    let version = parts.number()?;
    let connections = parts.each(|value| message::connection(&answer::text(value)?))?;
    Ok((version, connections))
}

fn standings(duels: &[DuelId], value: redis::Value) -> Result<Vec<Standing>, Malformed> {
    Parts::of(value)?.each(|standing| {
        let mut parts = Parts::of(standing)?;
        let at = usize::try_from(parts.number()?).ok().and_then(|at| at.checked_sub(1));
        let duel = at.and_then(|at| duels.get(at)).ok_or(Malformed("an answer"))?;
        Ok((*duel, parts.head()?, parts.number()?))
    })
}
