//! Who is online over all nodes: said, and read again when something of it was missed.
//!
//! What this node says it remembers in [`Here`], under whose lock it is said. A roster that lacks somebody who is here, as after
//! a flush, is told again.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redis::{Cmd, Value};
use tokio::sync::{Notify, mpsc, oneshot};
use tracing::warn;

use super::answer::{self, Parts};
use super::here::{Here, Local};
use super::keys::Keys;
use super::link::{IN_DOUBT, Order, Reply};
use super::links::Links;
use super::message;
use super::script::{self, ACKED, Args as _, DEPART, DISCONNECT, HEADS, OFFLINE, ONLINE, Script};
use super::teller::Teller;
use crate::clock::UnixMs;
use crate::engine::event_row::Malformed;
use crate::engine::{EngineError, Head, NewConnection, Online, Signal, SignalKind};
use crate::event::{Epoch, Role, Viewer};
use crate::id::{ConnectionId, DuelId, UserId};
use crate::limits;

/// Duels that are compared in one step: Redis does nothing else meanwhile.
pub(super) const HEADS_AT_ONCE: usize = 32;

/// Rosters that wait to be read again.
pub(super) const STALE_MAX: usize = 4096;

/// Goings that wait to be said.
const UNSAID_MAX: usize = 65_536;

/// How long what is known of a node is kept without a sign of life.
pub(super) const NODE_KEPT: Duration = Duration::from_secs(86_400);

/// Keeps rosters true.
#[derive(Debug)]
pub(super) struct Rosters {
    pub(super) links: Arc<Links>,
    pub(super) keys: Arc<Keys>,
    teller: Arc<Teller>,
    here: Arc<Here>,
    /// Goings that Redis was not there to hear of.
    unsaid: Arc<Mutex<Vec<Signal>>>,
    /// Everything has to be said again.
    pub(super) again: Notify,
}

/// Where a log stands, and which change of the roster was the last.
type Standing = (DuelId, Head, u64);

impl Rosters {
    pub(super) fn new(
        links: Arc<Links>,
        keys: Arc<Keys>,
        teller: Arc<Teller>,
        here: Arc<Here>,
    ) -> Arc<Self> {
        let again = Notify::new();
        Arc::new(Self { links, keys, teller, here, unsaid: Arc::default(), again })
    }

    /// Which server is asked about a hash tag.
    pub(super) fn server(&self, tag: &str) -> String {
        self.links.server(tag)
    }

    /// A script about a roster, in the name of a node.
    pub(super) fn script_as(&self, node: &str, script: &'static Script, duel: DuelId) -> Cmd {
        script::call(script, &[self.keys.duel(duel)])
            .with(duel.get())
            .with(node)
            .with(self.keys.publish)
            .with(self.keys.watch())
    }

    fn script(&self, script: &'static Script, duel: DuelId) -> Cmd {
        self.script_as(&self.keys.node, script, duel)
    }

    /// Says that a connection was let in; `read` is handed the error, or nothing, once it was told.
    pub(super) fn arrive(
        &self,
        arrival: NewConnection,
        read: impl FnOnce(Result<(), EngineError>) + Send + 'static,
    ) {
        let NewConnection { duel, viewer, since, connection, connections_max, .. } = arrival;
        let command = self.online(duel, viewer, since).with(connection.0).with(connections_max);
        self.here.arrive(duel, (viewer, since), Some(connection), || {
            self.say_online(duel, viewer, since, command, read);
        });
    }

    fn say_online(
        &self,
        duel: DuelId,
        viewer: Viewer,
        since: UnixMs,
        command: Cmd,
        read: impl FnOnce(Result<(), EngineError>) + Send + 'static,
    ) {
        self.keep_duel(duel);
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
        self.here.depart(duel, user, connection, || self.links.ask(command, |_| {}));
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
        match signal.kind {
            SignalKind::Online { viewer, since } => {
                let command = self.online(duel, viewer, since).with("").with(0);
                self.here.arrive(duel, (viewer, since), None, || {
                    self.say_online(duel, viewer, since, command, read);
                });
            }
            SignalKind::Offline { user, reason } => {
                let command = self.script(&OFFLINE, duel).with(user.get());
                let command = command.with(message::show_reason(reason));
                let mut read = Some(read);
                let gone = self.here.go(duel, user, || {
                    if let Some(read) = read.take() {
                        self.say(command, signal, read);
                    }
                });
                if let (false, Some(read)) = (gone, read) {
                    // They are back, so they have not gone.
                    read(Ok(()));
                }
            }
            SignalKind::Acked { user, seq } => {
                let command = self.script(&ACKED, duel).with(user.get()).with(seq);
                self.say(command, signal, read);
            }
            SignalKind::Disconnect { whom, reconnect, ref reason } => {
                let Some(whom) = message::show_whom(whom) else { return read(Ok(())) };
                let shown = message::show_disconnect(reconnect, reason.as_deref());
                let command = self.script(&DISCONNECT, duel).with(whom).with(shown);
                self.say(command, signal, read);
            }
            SignalKind::Replace { .. } | SignalKind::Revoked { .. } => read(Ok(())),
        }
    }

    fn say(
        &self,
        command: Cmd,
        signal: Signal,
        read: impl FnOnce(Result<(), EngineError>) + Send + 'static,
    ) {
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

    /// Says again what Redis was not there to hear of.
    pub(super) fn say_unsaid(&self) {
        let unsaid = std::mem::take(&mut *self.unsaid.lock());
        unsaid.into_iter().for_each(|signal| self.announce(signal, |_| {}));
    }

    /// Nobody of the duel is on this node any more.
    pub(super) fn leave(&self, duel: DuelId) {
        if duel != DuelId::PROBE {
            let key = self.keys.duels_of_node(&self.keys.node);
            self.links.ask(redis::cmd("SREM").with(key).with(duel.get()), |_| {});
        }
    }

    /// Has this node's duels in mind, for whoever takes its users out should it be no more.
    fn keep_duel(&self, duel: DuelId) {
        let key = self.keys.duels_of_node(&self.keys.node);
        self.links.ask(redis::cmd("SADD").with(&key).with(duel.get()), |_| {});
        self.links.ask(redis::cmd("PEXPIRE").with(key).with(millis(NODE_KEPT)), |_| {});
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
        self.links.ask(command, move |Reply { value, .. }| {
            read(value.and_then(|value| understood(standings(&duels, value))));
        });
    }

    /// After a time in which nothing was heard: tells where duels stand, has the rosters read that have changed, and says of
    /// whom of this node the tickets were revoked since they came.
    pub(super) fn compare(&self, duels: Vec<DuelId>) {
        for duel in &duels {
            for local in self.here.of(*duel) {
                self.check_revoked(*duel, &local);
            }
        }
        let teller = Arc::clone(&self.teller);
        self.heads(duels, Duration::ZERO, move |standings| {
            // What cannot be asked now, the next sweep finds.
            for (duel, head, version) in standings.unwrap_or_default() {
                teller.head(duel, head, version);
            }
        });
    }

    fn check_revoked(&self, duel: DuelId, local: &Local) {
        let [_, users] = self.keys.tickets();
        let (user, since) = (local.viewer.user, local.since);
        let command = redis::cmd("HGET").with(users);
        let command = command.with(format!("{}:{}", duel.get(), user.get()));
        let teller = Arc::clone(&self.teller);
        self.links.ask(command, move |outcome| {
            let issued_until = outcome.value.ok().and_then(|value| answer::number(value).ok());
            if issued_until.is_some_and(|until| until >= since.0) {
                teller.signal(Signal { duel, kind: SignalKind::Revoked { user } });
            }
        });
    }

    /// Reads the rosters that have to be read again, one after the other. Ends only by being dropped.
    pub(super) async fn run_refreshes(self: Arc<Self>, mut stale_rx: mpsc::Receiver<DuelId>) {
        loop {
            tokio::select! {
                biased;
                duel = stale_rx.recv() => match duel {
                    Some(duel) => self.refresh(duel).await,
                    None => return,
                },
                () = self.again.notified() => {
                    for duel in self.here.duels() {
                        self.refresh(duel).await;
                    }
                }
            }
        }
    }

    /// Reads who is online, and says again who is here and is not in it; and tells who was to go and may not have heard of it.
    async fn refresh(self: &Arc<Self>, duel: DuelId) {
        let (done_tx, done_rx) = oneshot::channel();
        let rosters = Arc::clone(self);
        let key = format!("{}:p", self.keys.duel(duel));
        self.links.ask(Order::large(redis::cmd("HGETALL").with(key)), move |outcome| {
            let read = outcome
                .value
                .and_then(|value| understood(answer::roster_of(value, &rosters.keys.node)));
            // What cannot be read now, the next sweep finds again.
            if let Ok((version, online, on_node)) = read {
                let full = online.len() >= limits::ONLINE_LISTED_MAX;
                rosters.here.again(duel, |local| rosters.say_again(duel, local, &on_node, full));
                rosters.teller.roster(duel, version, online);
            }
            let _gone = done_tx.send(());
        });
        // Behind it, so that what a later change was about is found then.
        self.check_sent_away(duel);
        let _read = done_rx.await;
    }

    /// Tells which connections of this node were to go.
    pub(super) fn check_sent_away(&self, duel: DuelId) {
        if !self.here.has_any(duel) {
            return;
        }
        let (teller, keys) = (Arc::clone(&self.teller), Arc::clone(&self.keys));
        let key = format!("{}:x", self.keys.duel(duel));
        self.links.ask(Order::large(redis::cmd("HGETALL").with(key)), move |outcome| {
            let sent_away =
                outcome.value.and_then(|value| understood(sent_away(value, &keys.node)));
            match sent_away {
                Ok(kinds) => {
                    kinds.into_iter().for_each(|kind| teller.signal(Signal { duel, kind }));
                }
                // The next sweep finds it again.
                Err(_) => teller.forget_roster(duel),
            }
        });
    }

    fn say_again(&self, duel: DuelId, local: &Local, on_node: &[UserId], full: bool) {
        let (viewer, since) = (local.viewer, local.since);
        let left_out = full && viewer.role == Role::Spectator;
        if !left_out && !on_node.contains(&viewer.user) {
            let online = || self.online(duel, viewer, since);
            if local.connections.is_empty() {
                self.say_online(duel, viewer, since, online().with("").with(0), |_| {});
            }
            for connection in &local.connections {
                let command = online().with(connection.0).with(u32::MAX);
                self.say_online(duel, viewer, since, command, |_| {});
            }
        }
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
pub(super) fn answered<O: Into<Order>>(
    links: &Links,
    order: O,
) -> impl Future<Output = Result<Value, EngineError>> + use<O> {
    let (answer_tx, answer_rx) = oneshot::channel();
    links.ask(order.into(), move |outcome| {
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
fn change(value: Value) -> Result<u64, Malformed> {
    Parts::of(value)?.number()
}

/// Which change of the roster it was, and which connections of which nodes have to go.
fn arrived(value: Value) -> Result<(u64, Vec<(String, ConnectionId)>), Malformed> {
    let mut parts = Parts::of(value)?;
    let version = parts.number()?;
    let connections = parts.each(|value| message::connection(&answer::text(value)?))?;
    Ok((version, connections))
}

/// Of the connections that had to go, by `node:id`, those of a node.
fn sent_away(value: Value, node: &str) -> Result<Vec<SignalKind>, Malformed> {
    let mut fields = Parts::of(value)?;
    let mut kinds = Vec::new();
    while let Ok(field) = fields.text() {
        let how = fields.text()?;
        let (of, connection) = message::connection(&field)?;
        if of == node {
            kinds.push(message::kept_disconnect(connection, &how)?);
        }
    }
    Ok(kinds)
}

fn standings(duels: &[DuelId], value: Value) -> Result<Vec<Standing>, Malformed> {
    Parts::of(value)?.each(|standing| {
        let mut parts = Parts::of(standing)?;
        let at = usize::try_from(parts.number()?).ok().and_then(|at| at.checked_sub(1));
        let duel = at.and_then(|at| duels.get(at)).ok_or(Malformed("an answer"))?;
        Ok((*duel, parts.head()?, parts.number()?))
    })
}
