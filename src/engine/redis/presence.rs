//! Who is online over all nodes: state that each node owns a part of, and everybody reads as a whole.
//!
//! 1. A duel's presence is one hash. Each node has its own part in it: its users and their connections.
//! 2. A node writes its whole part whenever that changes. The script answers the whole hash, and publishes a hint if others can
//!    see a change. What fails is written again until it is done.
//! 3. Who hears a hint reads the whole hash. Duels that wait to be read are a set, and one whose reading fails stays in it.
//! 4. Answers come in the order of the calls, so each is newer than those before: a node keeps the last whole and no versions.
//! 5. What was told is kept as a cached. The sink is told in what the next whole differs from it, in one ordered stream.
//! 6. A hint that is lost is made up for by the sweep (the hash counts its changes), or by the subscriber when it is back.
//! 7. Connections are numbered when they enter the duel, in one order over all nodes.
//! 8. A Disconnect stays in the hash with a number of that order. Each node closes those of its connections that are below.
//! 9. Of a user with too many connections all nodes keep the same ones: those with the highest numbers, on nodes that have written
//!    their part since the newest entered. Whoever lets that one in asks the others to; who is dead does not.
//!    Of a session they keep the connection that opened it last.
//! 10. Nodes that do not live ([`super::membership`]) count for nothing, and their parts are evicted.
//! 11. A node that finds its own part missing or wrong, as after a flush, writes it again.
//! 12. While somebody watches, every duel is cached in which somebody is online.
//!
//! Bounds: a cached entry per duel that is subscribed to, and otherwise `ENGINE_MAX_DUELS`; [`limits::ONLINE_LISTED_MAX`] users of each
//! node in each; a place in the set per duel; [`DISCONNECTS_MAX`] orders to disconnect per duel, of which the
//! oldest go first: a node that has not read the duel since then does not hear of them.
//!
//! Lock order: the map, then a cached duel. That is locked while the sink is called; the map and the set are not.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::{Cmd, Value};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Duration, MissedTickBehavior, interval, sleep};
use tracing::warn;

use super::command_pool::CommandPool;
use super::dispatcher::Dispatcher;
use super::keys::Keys;
use super::membership::Membership;
use super::message;
use super::presence_cache::{self, CachedPresence, Whole};
use super::reply::{self, understood};
use super::script::{self, Args as _, DISCONNECT, ENTER, EVICT, PRESENCE_WRITE, Script};
use crate::engine::{
    EngineError, EngineFuture, NewConnection, OfflineReason, Online, Signal, SignalKind, Target,
};
use crate::id::{ConnectionId, DuelId, UserId};
use crate::limits;

/// Orders to disconnect that a duel keeps.
const DISCONNECTS_MAX: usize = 128;

/// Duels that are read in one round trip.
const REFRESHED_AT_ONCE: usize = 64;

/// Until what could not be read is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Parts of nodes that are gone that are evicted after one heartbeat. They count for nothing in any case.
const EVICTED_AT_ONCE: usize = 1024;

/// The presence of all duels that this node subscribes to or watches.
#[derive(Debug)]
pub(super) struct ClusterPresence {
    commands: Arc<CommandPool>,
    keys: Arc<Keys>,
    dispatcher: Arc<Dispatcher>,
    membership: Arc<Membership>,
    cache: Mutex<HashMap<DuelId, Arc<Mutex<CachedPresence>>>>,
    cached_max: usize,
    /// Duels to be read.
    stale: Mutex<BTreeSet<DuelId>>,
    stale_added: Notify,
    watching: Mutex<Watching>,
}

/// Whether this node watches all duels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watching {
    Off,
    /// The presence of all duels is being read.
    Begins,
    On,
}

impl ClusterPresence {
    pub(super) fn new(
        commands: Arc<CommandPool>,
        keys: Arc<Keys>,
        dispatcher: Arc<Dispatcher>,
        membership: Arc<Membership>,
        cached_max: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            commands,
            keys,
            dispatcher,
            membership,
            cache: Mutex::default(),
            cached_max,
            stale: Mutex::default(),
            stale_added: Notify::new(),
            watching: Mutex::new(Watching::Off),
        })
    }

    /// Numbers a connection.
    pub(super) async fn enter(&self, duel: DuelId) -> Result<u64, EngineError> {
        let numbered = self.commands.reply_to(self.script(&ENTER, duel));
        understood(reply::number(numbered.await?))
    }

    /// Adds a connection. The answer comes once it was told who is online.
    pub(super) fn attach(self: &Arc<Self>, new: NewConnection) -> EngineFuture<'static, ()> {
        let (duel, user) = (new.duel, new.viewer.user);
        let entry = self.cached_or_new(duel);
        let mut cached = entry.lock();
        let elsewhere = cached.is_elsewhere(user);
        cached.local.attach(&new, elsewhere);
        cached.connections_max = new.connections_max;
        let written = self.write(duel, &mut cached, None, false);
        let presence = Arc::clone(self);
        drop(cached);
        Box::pin(async move {
            written.await?;
            let mut cached = entry.lock();
            if cached.replaces_elsewhere(user) {
                // The others have no reason of their own to write theirs: they see no other users.
                drop(presence.write(duel, &mut cached, None, true));
            }
            Ok(())
        })
    }

    /// Removes a connection. Its user stays online.
    pub(super) fn detach(self: &Arc<Self>, duel: DuelId, user: UserId, connection: ConnectionId) {
        drop(self.change(duel, None, move |cached| cached.local.detach(user, connection)));
    }

    /// Removes a user, unless they are back.
    pub(super) fn remove(
        self: &Arc<Self>,
        duel: DuelId,
        user: UserId,
        reason: OfflineReason,
    ) -> EngineFuture<'static, ()> {
        self.change(duel, Some((user, reason)), move |cached| cached.remove(user, reason))
    }

    /// A user of this node has everything up to `seq`.
    pub(super) fn ack(
        self: &Arc<Self>,
        duel: DuelId,
        user: UserId,
        seq: u64,
    ) -> EngineFuture<'static, ()> {
        self.change(duel, None, move |cached| cached.local.ack(user, seq))
    }

    fn change(
        self: &Arc<Self>,
        duel: DuelId,
        gone: Option<(UserId, OfflineReason)>,
        change: impl FnOnce(&mut CachedPresence),
    ) -> EngineFuture<'static, ()> {
        let entry = self.cached_or_new(duel);
        let mut cached = entry.lock();
        change(&mut cached);
        self.write(duel, &mut cached, gone, false)
    }

    /// Has connections closed that are attached by now, on all nodes.
    pub(super) fn disconnect(
        self: &Arc<Self>,
        duel: DuelId,
        whom: Target,
        reconnect: bool,
        reason: Option<&str>,
    ) -> EngineFuture<'static, ()> {
        let shown = message::show_disconnect(whom, reconnect, reason);
        let asked = shown.map(|(whose, how)| {
            let command = self.script(&DISCONNECT, duel).with(whose).with(DISCONNECTS_MAX);
            self.ask(duel, command.with(how), false)
        });
        Box::pin(async move {
            match asked {
                Some(asked) => answered(asked).await.map(|_| ()),
                None => Ok(()),
            }
        })
    }

    /// Returns who is online in those of the duels in which somebody is.
    pub(super) async fn read(
        self: &Arc<Self>,
        duels: &[DuelId],
    ) -> Result<Vec<(DuelId, Vec<Online>)>, EngineError> {
        let asked: Vec<_> = duels.iter().map(|duel| (*duel, self.read_one(*duel))).collect();
        let mut read = Vec::with_capacity(duels.len());
        for (duel, online) in asked {
            let online = online.await?;
            if !online.is_empty() {
                read.push((duel, online));
            }
        }
        Ok(read)
    }

    /// Another node has hinted at a change, and maybe at why a user goes.
    pub(super) fn hint(&self, duel: DuelId, gone: Option<(UserId, OfflineReason)>) {
        let entry = self.cached(duel);
        if let (Some(entry), Some((user, reason))) = (&entry, gone) {
            entry.lock().note_reason(user, reason);
        }
        if entry.is_some() || self.is_needed(duel) {
            self.refresh([duel]);
        }
    }

    /// The duels in which somebody is online, as far as it is cached.
    pub(super) fn cached_duels(&self) -> Vec<DuelId> {
        let cached = self.all().into_iter().filter(|(_, entry)| !entry.lock().told().is_empty());
        cached.map(|(duel, _)| duel).collect()
    }

    /// The hash of a duel counts so many changes.
    pub(super) fn compare(&self, duel: DuelId, version: u64) {
        let known = self.cached(duel).map_or(0, |entry| entry.lock().version());
        if known != version && self.dispatcher.is_subscribed(duel) {
            self.refresh([duel]);
        }
    }

    /// Has duels read again, soon.
    pub(super) fn refresh(&self, duels: impl IntoIterator<Item = DuelId>) {
        self.stale.lock().extend(duels.into_iter().filter(|duel| *duel != DuelId::PROBE));
        self.stale_added.notify_one();
    }

    /// The same of all duels that this node has to do with.
    pub(super) fn refresh_all(&self) {
        self.refresh(self.all().into_iter().map(|(duel, _)| duel));
    }

    /// All duels will be watched: from now on whatever is read is cached.
    pub(super) fn begin_watching(&self) -> bool {
        let mut watching = self.watching.lock();
        let begins = *watching != Watching::On;
        if begins {
            *watching = Watching::Begins;
        }
        begins
    }

    /// Every duel is cached by now. Returns whether no hint was missed since the beginning.
    pub(super) fn finish_beginning(&self) -> bool {
        let mut watching = self.watching.lock();
        if *watching == Watching::Begins {
            *watching = Watching::On;
        }
        *watching == Watching::On
    }

    /// All duels are watched no more, or hints may have been missed.
    pub(super) fn end_watching(&self) {
        *self.watching.lock() = Watching::Off;
    }

    /// Reads what has to be read again. Ends only by being dropped.
    pub(super) async fn run_refreshes(self: Arc<Self>) {
        loop {
            self.stale_added.notified().await;
            let stale: Vec<_> = std::mem::take(&mut *self.stale.lock()).into_iter().collect();
            let mut failed = Vec::new();
            for some in stale.chunks(REFRESHED_AT_ONCE) {
                let some = some.iter().filter(|duel| self.is_needed(**duel));
                let read = some.map(async |duel| (*duel, self.sync(*duel).await.is_ok()));
                failed.extend(join_all(read).await.into_iter().filter(|(_, ok)| !ok));
            }
            if !failed.is_empty() {
                sleep(RETRY_AFTER).await;
                self.refresh(failed.into_iter().map(|(duel, _)| duel));
            }
        }
    }

    /// Renews this node's lease, and judges the others. Ends only by being dropped.
    pub(super) async fn run_heartbeats(self: Arc<Self>) {
        let mut ticks = interval(limits::NODE_LEASE / 5);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_first = true;
        loop {
            ticks.tick().await;
            self.forget_unneeded();
            let Ok(beat) = self.membership.beat(limits::NODE_LEASE).await else { continue };
            let was_first = std::mem::take(&mut is_first);
            if beat.had_lapsed && !was_first {
                warn!("this node's lease had ended; it writes its presence again");
                // Redis may have lost everything.
                self.dispatcher.doubt_all();
                self.refresh_all();
            }
            if beat.news {
                self.all().into_iter().for_each(|(duel, entry)| self.tell(duel, &mut entry.lock()));
            }
            self.evict();
        }
    }
}

/// The cache.
impl ClusterPresence {
    fn cached(&self, duel: DuelId) -> Option<Arc<Mutex<CachedPresence>>> {
        self.cache.lock().get(&duel).cloned()
    }

    fn cached_or_new(&self, duel: DuelId) -> Arc<Mutex<CachedPresence>> {
        Arc::clone(self.cache.lock().entry(duel).or_default())
    }

    /// Returns where a whole that was read is cached.
    fn cached_for(&self, duel: DuelId) -> Option<Arc<Mutex<CachedPresence>>> {
        let is_watching = self.is_watching();
        let is_subscribed = self.dispatcher.is_subscribed(duel);
        let mut cache = self.cache.lock();
        if let Some(cached) = cache.get(&duel) {
            return Some(Arc::clone(cached));
        }
        let has_room = is_subscribed || (is_watching && cache.len() < self.cached_max);
        has_room.then(|| Arc::clone(cache.entry(duel).or_default()))
    }

    fn all(&self) -> Vec<(DuelId, Arc<Mutex<CachedPresence>>)> {
        let cache = self.cache.lock();
        cache.iter().map(|(duel, entry)| (*duel, Arc::clone(entry))).collect()
    }

    /// Whether a duel has to be read when it changes.
    fn is_needed(&self, duel: DuelId) -> bool {
        self.is_watching()
            || self.dispatcher.is_subscribed(duel)
            || self.cached(duel).is_some_and(|entry| entry.lock().is_own())
    }

    pub(super) fn is_watching(&self) -> bool {
        *self.watching.lock() != Watching::Off
    }

    /// Forgets what nobody needs.
    fn forget_unneeded(&self) {
        let is_watching = self.is_watching();
        let mut to_be_confirmed = Vec::new();
        self.cache.lock().retain(|duel, entry| {
            // Whoever has it besides is about to change it.
            if Arc::strong_count(entry) > 1 {
                return true;
            }
            let cached = entry.lock();
            if cached.is_to_be_confirmed() {
                to_be_confirmed.push(*duel);
            }
            let is_watched = is_watching && !cached.told().is_empty();
            is_watched || self.dispatcher.is_subscribed(*duel) || cached.is_own()
        });
        self.refresh(to_be_confirmed);
    }

    /// Updates what is cached, and tells the differences.
    fn tell(&self, duel: DuelId, cached: &mut CachedPresence) {
        let is_subscribed = self.dispatcher.is_subscribed(duel);
        if is_subscribed {
            self.dispatcher.introduce(duel, cached.told());
        }
        let is_gone = |node: &str| self.membership.is_gone(node);
        let changes = cached.changes(is_gone);
        self.signal(duel, changes);
        self.signal(duel, cached.replaced(is_gone));
        cached.settle();
        if cached.is_unwritten && cached.writes == 0 {
            self.refresh([duel]);
        }
    }

    fn signal(&self, duel: DuelId, kinds: Vec<SignalKind>) {
        kinds.into_iter().for_each(|kind| self.dispatcher.signal(Signal { duel, kind }));
    }

    /// Evicts some of what nodes that are gone have left.
    fn evict(self: &Arc<Self>) {
        let mut evicted = 0;
        for (duel, entry) in self.all() {
            let cached = entry.lock();
            for gone in cached.gone(|node| self.membership.is_gone(node)) {
                let command = self.script(&EVICT, duel).with(&*gone.node).with(&gone.fields[0][..]);
                drop(self.ask(duel, command, false));
                evicted += 1;
            }
            if evicted >= EVICTED_AT_ONCE {
                break;
            }
        }
    }
}

/// What Redis is asked.
impl ClusterPresence {
    pub(super) fn script(&self, script: &'static Script, duel: DuelId) -> Cmd {
        script::call(script, &[self.keys.duel(duel)])
            .with(duel.get())
            .with(&self.keys.node)
            .with(self.keys.publish)
            .with(self.keys.watch())
    }

    /// Writes this node's part as it is now. The entry is locked, so parts are written in the order in which they were so.
    /// The answer is taken whether or not it is awaited.
    fn write(
        self: &Arc<Self>,
        duel: DuelId,
        cached: &mut CachedPresence,
        gone: Option<(UserId, OfflineReason)>,
        asks: bool,
    ) -> EngineFuture<'static, ()> {
        let [users, connections] = cached.local.fields();
        let command = self.script(&PRESENCE_WRITE, duel).with(users).with(connections);
        let command = command.with(message::show_gone(gone)).with(u8::from(asks));
        let command = command.with(cached.local.highest_number());
        let asked = self.ask(duel, command, true);
        cached.is_unwritten = true;
        match asked {
            Ok(_) => cached.writes += 1,
            Err(_) => self.refresh([duel]),
        }
        Box::pin(async move { answered(asked).await.map(|_| ()) })
    }

    fn read_one(
        self: &Arc<Self>,
        duel: DuelId,
    ) -> impl Future<Output = Result<Vec<Online>, EngineError>> + use<> {
        answered(self.ask(duel, redis::cmd("HGETALL").with(self.keys.presence(duel)), false))
    }

    /// Reads a duel, and writes this node's part again if it has one.
    async fn sync(self: &Arc<Self>, duel: DuelId) -> Result<(), EngineError> {
        let written = self.cached(duel).and_then(|entry| {
            let mut cached = entry.lock();
            cached.is_own().then(|| self.write(duel, &mut cached, None, false))
        });
        match written {
            Some(written) => written.await,
            None => self.read_one(duel).await.map(|_| ()),
        }
    }

    /// Asks for the whole, which is taken when it is answered. Answers who is online by it.
    fn ask(self: &Arc<Self>, duel: DuelId, command: Cmd, is_write: bool) -> Asked {
        let (online_tx, online_rx) = oneshot::channel();
        let presence = Arc::clone(self);
        self.commands.ask(command, move |reply| {
            let _gone = online_tx.send(presence.take(duel, reply.value, is_write));
        })?;
        Ok(online_rx)
    }

    fn take(
        &self,
        duel: DuelId,
        value: Result<Value, EngineError>,
        is_write: bool,
    ) -> Result<Vec<Online>, EngineError> {
        let whole = value.and_then(|value| understood(Whole::read(value)));
        let Some(entry) = self.cached_for(duel) else {
            return Ok(presence_cache::online(whole?, |node| self.membership.is_gone(node)));
        };
        let mut cached = entry.lock();
        cached.writes -= usize::from(is_write && cached.writes > 0);
        let taken = whole.map(|whole| {
            let leaving = cached.take(whole, &self.keys.node);
            self.signal(duel, leaving);
        });
        // This node's part is true, whatever became of the write.
        self.tell(duel, &mut cached);
        taken.map(|()| cached.told().to_vec())
    }
}

/// An answer to come, unless it was refused.
type Asked = Result<oneshot::Receiver<Result<Vec<Online>, EngineError>>, EngineError>;

async fn answered(asked: Asked) -> Result<Vec<Online>, EngineError> {
    asked?.await.unwrap_or(Err(EngineError::IN_DOUBT))
}
