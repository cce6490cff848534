//! The logs of the duels: events stored, read again, and looked through for the latest.

use std::sync::Arc;

use super::RedisEngine;
use super::command_connection::Request;
use super::reply::{self, Parts, ReplyError};
use super::script::{self, Args as _};
use crate::clock::UnixMs;
use crate::engine::event_row::{Malformed, Unnumbered};
use crate::engine::{
    AppendError, Appended, Declaration, DuelRecord, EngineError, EngineFuture, Head, LogEngine,
    OpenError, Opened, Page, StatusFilter, rules,
};
use crate::event::{Content, Epoch, Event, Outcome, Position, Push, Viewer};
use crate::id::DuelId;
use crate::limits;

/// Events read at a time in search of the latest of each type.
const LATEST_PAGE: usize = 256;

impl LogEngine for RedisEngine {
    fn subscribe(&self, duel: DuelId) -> EngineFuture<'_, ()> {
        Box::pin(self.subscribers.subscribe(duel))
    }

    fn unsubscribe(&self, duel: DuelId) {
        self.subscribers.unsubscribe(duel);
    }

    fn open(&self, duel: DuelId, declaration: Declaration) -> EngineFuture<'_, Opened, OpenError> {
        self.declare(duel, declaration)
    }

    fn get_or_create(&self, duel: DuelId) -> EngineFuture<'_, DuelRecord> {
        Box::pin(async move { self.record(duel, true).await?.ok_or(EngineError::IN_DOUBT) })
    }

    fn get(&self, duel: DuelId) -> EngineFuture<'_, Option<DuelRecord>> {
        self.record(duel, false)
    }

    fn append(
        &self,
        duel: DuelId,
        push: Push,
        idempotency_key: Option<Box<str>>,
    ) -> EngineFuture<'static, Appended, AppendError> {
        let kind = kind(&push);
        let fingerprint = idempotency_key.as_ref().map(|_| push.fingerprint().0.to_vec());
        let event = Unnumbered::of(Content::Pushed(push));
        let command = self
            .storing(&script::APPEND, duel)
            .with(event.row())
            .with(event.row().len())
            .with(kind)
            .with(idempotency_key.as_deref().unwrap_or_default())
            .with(fingerprint.unwrap_or_default())
            .with(limits::IDEMPOTENCY_KEYS_MAX);
        let (dispatcher, on_created) = (Arc::clone(&self.dispatcher), self.creation(duel));
        self.ask(Request::kept(command), move |mut parts, bulk| {
            let Stored { position, declared, since } = stored(&mut parts, on_created)?;
            let Some(stored_at) = since else {
                return Ok(Appended { position, event: None, connections: 0, declared });
            };
            let event = event.number(position.seq, stored_at);
            let mut connections = 0;
            // The probe is there to prove that events come by on the channel.
            if duel != DuelId::PROBE {
                let told = Arc::clone(&event);
                connections = dispatcher.event(duel, position.epoch, told, bulk);
            }
            Ok(Appended { position, event: Some(event), connections, declared })
        })
    }

    fn close(
        &self,
        duel: DuelId,
        outcome: Outcome,
        last: Option<Push>,
    ) -> EngineFuture<'_, Appended, AppendError> {
        let last_kind = last.as_ref().map(kind).unwrap_or_default();
        let last = last.map(|push| Unnumbered::of(Content::Pushed(push)));
        let end = Unnumbered::of(Content::Closed(outcome));
        let last_row = last.as_ref().map(Unnumbered::row).unwrap_or_default();
        let command = self
            .storing(&script::CLOSE, duel)
            .with(reply::show_outcome(outcome))
            .with(end.row())
            .with(end.row().len())
            .with(last_row)
            .with(last_row.len())
            .with(last_kind);
        let (dispatcher, on_created) = (Arc::clone(&self.dispatcher), self.creation(duel));
        self.ask(Request::kept(command), move |mut parts, bulk| {
            let Stored { position, declared, since } = stored(&mut parts, on_created)?;
            let Some(stored_at) = since else {
                return Ok(Appended { position, event: None, connections: 0, declared });
            };
            if let Some(last) = last {
                let last = last.number(position.seq - 1, stored_at);
                dispatcher.event(duel, position.epoch, last, bulk);
            }
            let end = end.number(position.seq, stored_at);
            let connections = dispatcher.event(duel, position.epoch, Arc::clone(&end), bulk);
            Ok(Appended { position, event: Some(end), connections, declared })
        })
    }

    fn read(&self, duel: DuelId, after: Position, count: usize) -> EngineFuture<'_, Page> {
        let command = script::call(&script::READ, &[self.keys.duel(duel)])
            .with(reply::show_epoch(Epoch::random()))
            .with(reply::show_epoch(after.epoch))
            .with(after.seq)
            .with(count.min(self.config.log_events_max));
        self.ask(Request::large(command), move |mut parts, _| {
            match &parts.text()?[..] {
                "gone" => return Ok(Page::Gone),
                "ended" => return Ok(Page::Ended),
                _ => {}
            }
            let events = parts.parts()?.each(reply::entry)?;
            // A log of which something was taken away cannot be served without a gap.
            let is_whole = events.iter().zip(after.seq + 1..).all(|(event, seq)| event.seq == seq);
            Ok(if is_whole { Page::Events(events) } else { Page::Gone })
        })
    }

    fn latest(
        &self,
        duel: DuelId,
        viewer: Viewer,
        up_to: Position,
    ) -> EngineFuture<'_, Option<Vec<Arc<Event>>>> {
        Box::pin(self.look_for_latest(duel, viewer, up_to))
    }

    fn list(
        &self,
        after: Option<DuelId>,
        status: StatusFilter,
        count: usize,
    ) -> EngineFuture<'_, Vec<(DuelId, Head)>> {
        Box::pin(self.list(after, status, count))
    }

    fn heads(&self, duels: Vec<DuelId>) -> EngineFuture<'_, Vec<(DuelId, Head)>> {
        Box::pin(self.standing(duels, self.config.idle_retention))
    }

    fn in_doubt(&self, duels: Vec<DuelId>) -> EngineFuture<'_, Vec<DuelId>> {
        Box::pin(async { Ok(self.not_told_everything(duels).await) })
    }
}

impl RedisEngine {
    async fn look_for_latest(
        &self,
        duel: DuelId,
        viewer: Viewer,
        mut up_to: Position,
    ) -> Result<Option<Vec<Arc<Event>>>, EngineError> {
        let mut newest_first = Vec::new();
        loop {
            let command = script::call(&script::LATEST, &[self.keys.duel(duel)])
                .with(reply::show_epoch(Epoch::random()))
                .with(reply::show_epoch(up_to.epoch))
                .with(up_to.seq)
                .with(LATEST_PAGE);
            let page = self.ask(Request::large(command), |parts, _| Ok(latest_page(parts)?));
            let Some((events, last)) = page.await? else { return Ok(None) };
            up_to.seq = events.last().map_or(0, |event| event.seq.saturating_sub(1));
            newest_first.extend(events.into_iter().map(Ok::<_, EngineError>));
            if last {
                return rules::latest(newest_first.into_iter(), viewer).map(Some);
            }
        }
    }
}

/// What became of an event.
struct Stored {
    position: Position,
    /// Whether the duel was declared.
    declared: bool,
    /// `None`: it had been there before.
    since: Option<UnixMs>,
}

/// What `append.lua` and `close.lua` answer.
fn stored(
    parts: &mut Parts,
    on_created: impl Fn(u64, Position),
) -> Result<Stored, ReplyError<AppendError>> {
    let outcome = parts.text()?;
    let rejected = match &outcome[..] {
        "closed" => Some(AppendError::Closed),
        "reused" => Some(AppendError::KeyReused),
        "full" => Some(AppendError::Engine(rules::DUELS_FULL)),
        _ => None,
    };
    if let Some(error) = rejected {
        return Err(ReplyError::Rejected(error));
    }
    let (position, declared) = (parts.position()?, parts.number()? == 1);
    if outcome == "duplicate" {
        return Ok(Stored { position, declared, since: None });
    }
    let since = Some(UnixMs(parts.number()?));
    on_created(parts.number()?, position);
    Ok(Stored { position, declared, since })
}

/// Events, the newest first, and whether there are none before them. `None`: the epoch is another.
type LatestPage = Option<(Vec<Arc<Event>>, bool)>;

fn latest_page(mut parts: Parts) -> Result<LatestPage, Malformed> {
    if parts.text()? == "gone" {
        return Ok(None);
    }
    let mut events = parts.parts()?.each(reply::entry)?;
    let Ok(retained) = parts.parts() else { return Ok(Some((events, false))) };
    let mut retained = retained.each(reply::retained)?;
    retained.sort_by_key(|event| std::cmp::Reverse(event.seq));
    events.extend(retained);
    Ok(Some((events, true)))
}

/// As `store.lua` tells events of one kind from those of others. Empty for one that is not retained.
fn kind(push: &Push) -> Vec<u8> {
    if push.transient { Vec::new() } else { push.kind_fingerprint().0.to_vec() }
}
