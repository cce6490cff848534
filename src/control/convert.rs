//! Conversion between the generated types and the hub's. Every field of a request is checked here.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use prost_types::Struct;

use super::payload_object::payload_json;
use super::status::Failure;
use crate::clock::UnixMs;
use crate::engine::{Declaration, DuelSettings, Head, OfflineReason, Participant, StatusFilter};
use crate::event::{
    Audience, DuelStatus, EventType, Outcome, Payload, Position, Push, Role, Viewer,
};
use crate::hub::{Change, ChangeKind, DuelView, OnlineUser, Pushed};
use crate::id::{DuelId, JTI_BYTES_MAX, Jti, TelegramId, UserId};
use crate::limits;
use crate::pb;

// === In ===

pub(super) fn duel_id(field: &str, number: u64) -> Result<DuelId, Failure> {
    DuelId::try_from(number).map_err(|error| Failure::field(field, error.to_string()))
}

pub(super) fn user_id(field: &str, number: u64) -> Result<UserId, Failure> {
    UserId::try_from(number).map_err(|error| Failure::field(field, error.to_string()))
}

pub(super) fn jti(text: &str) -> Result<Jti, Failure> {
    let problem = || Failure::field("jti", format!("must have 1 to {JTI_BYTES_MAX} bytes"));
    Jti::parse(text).ok_or_else(problem)
}

/// Returns `None` if it is unset.
pub(super) fn role(number: i32) -> Result<Option<Role>, Failure> {
    match pb::Role::try_from(number) {
        Ok(pb::Role::Unspecified) => Ok(None),
        Ok(pb::Role::Player) => Ok(Some(Role::Player)),
        Ok(pb::Role::Spectator) => Ok(Some(Role::Spectator)),
        Err(_) => Err(Failure::field("role", "must be ROLE_PLAYER or ROLE_SPECTATOR")),
    }
}

pub(super) fn outcome(number: i32) -> Result<Outcome, Failure> {
    match pb::DuelStatus::try_from(number) {
        Ok(pb::DuelStatus::Finished) => Ok(Outcome::Finished),
        Ok(pb::DuelStatus::Cancelled) => Ok(Outcome::Cancelled),
        Ok(pb::DuelStatus::Unspecified | pb::DuelStatus::Open) | Err(_) => {
            let problem = "must be DUEL_STATUS_FINISHED or DUEL_STATUS_CANCELLED";
            Err(Failure::field("status", problem))
        }
    }
}

pub(super) fn status_filter(number: i32) -> Result<StatusFilter, Failure> {
    let status = match pb::DuelStatus::try_from(number) {
        Ok(pb::DuelStatus::Unspecified) => return Ok(StatusFilter::Any),
        Ok(pb::DuelStatus::Open) => DuelStatus::Open,
        Ok(pb::DuelStatus::Finished) => DuelStatus::Closed(Outcome::Finished),
        Ok(pb::DuelStatus::Cancelled) => DuelStatus::Closed(Outcome::Cancelled),
        Err(_) => return Err(Failure::field("status", "must be a DuelStatus")),
    };
    Ok(StatusFilter::Only(status))
}

/// Returns `None` if it is unset.
pub(super) fn duration(
    field: &str,
    given: Option<prost_types::Duration>,
    min: Duration,
    max: Duration,
) -> Result<Option<Duration>, Failure> {
    let Some(given) = given else { return Ok(None) };
    // The conversion overflows at the far end of what is negative.
    let positive = (given.seconds >= 0).then(|| Duration::try_from(given).ok()).flatten();
    let within = positive.filter(|given| (min..=max).contains(given));
    let problem = || format!("must be from {}s to {}s", min.as_secs(), max.as_secs());
    within.map(Some).ok_or_else(|| Failure::field(field, problem()))
}

pub(super) fn page_size(number: u32) -> Result<usize, Failure> {
    const DEFAULT: usize = 100;
    match usize::try_from(number) {
        Ok(0) => Ok(DEFAULT),
        Ok(size) if size <= limits::LIST_PAGE_MAX => Ok(size),
        _ => {
            let problem = format!("must be from 1 to {}", limits::LIST_PAGE_MAX);
            Err(Failure::field("page_size", problem))
        }
    }
}

/// The token is the id of the last duel on the page before.
pub(super) fn page_token(text: &str) -> Result<Option<DuelId>, Failure> {
    if text.is_empty() {
        return Ok(None);
    }
    let duel = text.parse().ok().and_then(|number: u64| DuelId::try_from(number).ok());
    let problem = || Failure::field("page_token", "must be the next_page_token of a page before");
    duel.map(Some).ok_or_else(problem)
}

pub(super) fn reason(text: &str) -> Result<Option<Arc<str>>, Failure> {
    if text.len() > limits::DISCONNECT_REASON_BYTES_MAX {
        let problem = format!("must have at most {} bytes", limits::DISCONNECT_REASON_BYTES_MAX);
        return Err(Failure::field("reason", problem));
    }
    Ok((!text.is_empty()).then(|| text.into()))
}

pub(super) fn idempotency_key(text: &str) -> Result<Option<Box<str>>, Failure> {
    key("idempotency_key", text, limits::IDEMPOTENCY_KEY_BYTES_MAX)
}

fn key(field: &str, text: &str, bytes_max: usize) -> Result<Option<Box<str>>, Failure> {
    if text.len() > bytes_max {
        return Err(Failure::field(field, format!("must have at most {bytes_max} bytes")));
    }
    Ok((!text.is_empty()).then(|| text.into()))
}

pub(super) fn declaration(request: &pb::OpenDuelRequest) -> Result<Declaration, Failure> {
    if request.participants.len() > limits::USERS_NAMED_MAX {
        let problem = format!("must be at most {}", limits::USERS_NAMED_MAX);
        return Err(Failure::field("participants", problem));
    }
    let mut participants = Vec::with_capacity(request.participants.len());
    let (mut users, mut telegram_ids) = (HashSet::new(), HashSet::new());
    for (at, given) in request.participants.iter().enumerate() {
        let field = |name: &str| format!("participants[{at}].{name}");
        let user = user_id(&field("user_id"), given.user_id)?;
        let number = if given.telegram_id == 0 { given.user_id } else { given.telegram_id };
        let telegram = TelegramId::try_from(number)
            .map_err(|error| Failure::field(field("telegram_id"), error.to_string()))?;
        if !users.insert(user) {
            return Err(Failure::field(field("user_id"), "is given twice"));
        }
        if !telegram_ids.insert(telegram) {
            return Err(Failure::field(field("telegram_id"), "is given to two users"));
        }
        participants.push(Participant { user, telegram });
    }
    let settings = match request.settings {
        None => None,
        Some(settings) => Some(DuelSettings {
            presence_grace: duration(
                "settings.presence_grace",
                settings.presence_grace,
                Duration::ZERO,
                limits::PRESENCE_GRACE_MAX,
            )?,
        }),
    };
    Ok(Declaration { participants, settings, reopen: request.reopen })
}

pub(super) fn push(
    duel: DuelId,
    request: pb::PushEventRequest,
    payload_bytes_max: usize,
) -> Result<Push, Failure> {
    let coalesce_key = key("coalesce_key", &request.coalesce_key, limits::COALESCE_KEY_BYTES_MAX)?;
    let transient = request.transient;
    let event = pb::LastEvent {
        r#type: request.r#type,
        payload_json: request.payload_json,
        payload: request.payload,
        audience: request.audience,
        views: request.views,
    };
    let push = event_content("", duel, event, payload_bytes_max)?;
    Ok(Push { coalesce_key, transient, ..push })
}

pub(super) fn last_event(
    duel: DuelId,
    event: Option<pb::LastEvent>,
    payload_bytes_max: usize,
) -> Result<Option<Push>, Failure> {
    event.map(|event| event_content("last_event.", duel, event, payload_bytes_max)).transpose()
}

/// `prefix` is put before the names of fields.
fn event_content(
    prefix: &str,
    duel: DuelId,
    event: pb::LastEvent,
    payload_bytes_max: usize,
) -> Result<Push, Failure> {
    let event_type = match event.r#type.as_str() {
        "" => EventType::duel_update(),
        text => EventType::parse(text)
            .map_err(|error| Failure::field(format!("{prefix}type"), error.to_string()))?,
    };
    let (given_views, mut bytes) = (event.views.len(), 0);
    // Every push passes here, so field names are formatted only for errors.
    let mut payload = |json: String, object: Option<Struct>, field: &dyn Fn(&str) -> String| {
        let given = if object.is_some() { "payload" } else { "payload_json" };
        let json = payload_json(json, object, field)?;
        bytes += json.len();
        if bytes > limits::PUSH_BYTES_MAX && given_views > 0 {
            let max = limits::PUSH_BYTES_MAX;
            let problem = format!("must have at most {max} bytes, the event's payload included");
            return Err(Failure::field(format!("{prefix}views"), problem));
        }
        Payload::parse(duel, json, payload_bytes_max)
            .map_err(|error| Failure::field(field(given), error.to_string()))
    };
    let audience = audience(prefix, event.audience)?;
    if event.views.len() > limits::USERS_NAMED_MAX {
        let problem = format!("must be at most {}", limits::USERS_NAMED_MAX);
        return Err(Failure::field(format!("{prefix}views"), problem));
    }
    let of_all = payload(event.payload_json, event.payload, &|name| format!("{prefix}{name}"))?;
    let mut views: Vec<(UserId, Payload)> = Vec::with_capacity(event.views.len());
    for (at, view) in event.views.into_iter().enumerate() {
        let field = |name: &str| format!("{prefix}views[{at}].{name}");
        let user = user_id(&field("user_id"), view.user_id)?;
        if views.iter().any(|(other, _)| *other == user) {
            return Err(Failure::field(field("user_id"), "is given twice"));
        }
        // Nobody's role is known here, so `Players` includes everybody.
        if !audience.includes(Viewer { user, role: Role::Player }) {
            return Err(Failure::field(field("user_id"), "is not in the audience"));
        }
        let payload = payload(view.payload_json, view.payload, &field)?;
        views.push((user, payload));
    }
    Ok(Push {
        event_type,
        payload: of_all,
        audience,
        views: views.into(),
        coalesce_key: None,
        transient: false,
    })
}

fn audience(prefix: &str, given: Option<pb::Audience>) -> Result<Audience, Failure> {
    use pb::audience::To;
    let field = |name: &str| format!("{prefix}audience.{name}");
    Ok(match given.and_then(|audience| audience.to) {
        None => Audience::All,
        Some(To::Players(true)) => Audience::Players,
        Some(To::Players(false)) => {
            return Err(Failure::field(field("players"), "must be true, or unset"));
        }
        Some(To::Only(list)) => Audience::Only(users(&field("only"), &list)?),
        Some(To::Except(list)) => Audience::Except(users(&field("except"), &list)?),
    })
}

fn users(field: &str, list: &pb::UserList) -> Result<Box<[UserId]>, Failure> {
    if !(1..=limits::USERS_NAMED_MAX).contains(&list.user_ids.len()) {
        let problem = format!("must name 1 to {} users", limits::USERS_NAMED_MAX);
        return Err(Failure::field(format!("{field}.user_ids"), problem));
    }
    let mut seen = HashSet::new();
    let check = |(at, number): (usize, &u64)| {
        let field = format!("{field}.user_ids[{at}]");
        let user = user_id(&field, *number)?;
        if seen.insert(user) { Ok(user) } else { Err(Failure::field(field, "is given twice")) }
    };
    list.user_ids.iter().enumerate().map(check).collect()
}

// === Out ===

pub(super) fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

pub(super) fn timestamp(UnixMs(ms): UnixMs) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: i64::try_from(ms / 1000).unwrap_or(i64::MAX),
        nanos: i32::try_from(ms % 1000).unwrap_or(0) * 1_000_000,
    }
}

pub(super) fn position(position: Position) -> pb::Position {
    pb::Position { epoch: position.epoch.to_string(), seq: position.seq }
}

pub(super) fn push_event_response(pushed: &Pushed) -> pb::PushEventResponse {
    pb::PushEventResponse {
        position: Some(position(pushed.position)),
        duplicate: pushed.duplicate,
        connections: count(pushed.connections),
        declared: pushed.declared,
    }
}

const fn role_number(role: Role) -> i32 {
    match role {
        Role::Player => pb::Role::Player as i32,
        Role::Spectator => pb::Role::Spectator as i32,
    }
}

const fn status_number(status: DuelStatus) -> i32 {
    match status {
        DuelStatus::Open => pb::DuelStatus::Open as i32,
        DuelStatus::Closed(Outcome::Finished) => pb::DuelStatus::Finished as i32,
        DuelStatus::Closed(Outcome::Cancelled) => pb::DuelStatus::Cancelled as i32,
    }
}

const fn offline_reason(reason: OfflineReason) -> i32 {
    let reason = match reason {
        OfflineReason::ClientClosed => pb::OfflineReason::ClientClosed,
        OfflineReason::Lost => pb::OfflineReason::Lost,
        OfflineReason::ClientFault => pb::OfflineReason::ClientFault,
        OfflineReason::Disconnected => pb::OfflineReason::Disconnected,
        OfflineReason::DuelClosed => pb::OfflineReason::DuelClosed,
        OfflineReason::ServerRestart => pb::OfflineReason::ServerRestart,
    };
    reason as i32
}

pub(super) fn duel(id: DuelId, view: DuelView) -> pb::Duel {
    let DuelView { record, online, connections } = view;
    let participants = record.participants.as_deref().unwrap_or_default().iter();
    let participants = participants
        .map(|p| pb::Participant { user_id: p.user.get(), telegram_id: p.telegram.get() });
    pb::Duel {
        duel_id: id.get(),
        status: status_number(record.head.status),
        position: Some(position(record.head.position)),
        oldest_seq: record.head.oldest_seq,
        declared: record.participants.is_some(),
        participants: participants.collect(),
        online: online.into_iter().map(online_user).collect(),
        connections: count(connections),
        created_at: Some(timestamp(record.created_at)),
        updated_at: record.updated_at.map(timestamp),
    }
}

fn online_user(online: OnlineUser) -> pb::OnlineUser {
    pb::OnlineUser {
        user_id: online.user.get(),
        role: role_number(online.role),
        since: Some(timestamp(online.since)),
        connections: count(online.connections),
        acked_seq: online.acked_seq,
    }
}

pub(super) fn duel_summary((duel, head, connections): (DuelId, Head, usize)) -> pb::DuelSummary {
    pb::DuelSummary {
        duel_id: duel.get(),
        status: status_number(head.status),
        position: Some(position(head.position)),
        connections: count(connections),
    }
}

pub(super) fn change(change: Change) -> pb::WatchDuelsResponse {
    use pb::watch_duels_response::Change as Pb;
    let kind = match change.kind {
        ChangeKind::Opened(at) => Pb::Opened(pb::DuelOpened { position: Some(position(at)) }),
        ChangeKind::Closed(outcome, at) => Pb::Closed(pb::DuelClosed {
            status: status_number(DuelStatus::Closed(outcome)),
            position: Some(position(at)),
        }),
        ChangeKind::Online(viewer, since) => Pb::UserOnline(pb::UserOnline {
            user_id: viewer.user.get(),
            role: role_number(viewer.role),
            since: Some(timestamp(since)),
        }),
        ChangeKind::Offline(user, reason) => {
            Pb::UserOffline(pb::UserOffline { user_id: user.get(), reason: offline_reason(reason) })
        }
        ChangeKind::SessionEnded(user) => {
            Pb::SessionEnded(pb::SessionEnded { user_id: user.get() })
        }
        ChangeKind::Acked(user, seq) => Pb::Acked(pb::UserAcked { user_id: user.get(), seq }),
    };
    let (duel_id, initial) = (change.duel.get(), change.initial);
    pb::WatchDuelsResponse { duel_id, initial, change: Some(kind) }
}

pub(super) fn synced(duels: u64) -> pb::WatchDuelsResponse {
    let change = Some(pb::watch_duels_response::Change::Synced(pb::Synced { duels }));
    pb::WatchDuelsResponse { duel_id: 0, initial: true, change }
}
