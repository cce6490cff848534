//! What the page asks for, as JSON. Each answer is made from what the hub has at hand, and is bounded: so many duels, so many of
//! their users, so many events, so many bytes of payloads.

use std::borrow::Cow;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::super::Admin;
use super::super::health::Health;
use super::payload_text::PayloadBudget;
use crate::clock;
use crate::engine::{EngineError, Head, Page, StatusFilter, stored_size};
use crate::event::{Audience, Content, DuelStatus, Event, Outcome, Position, Push, Role};
use crate::hub::OnlineUser;
use crate::id::{DuelId, UserId};
use crate::limits;
use crate::version;

type Answer = Result<Json<Value>, Refusal>;

/// Returns the routes under `/console/api`.
pub(super) fn router() -> Router<Arc<Admin>> {
    Router::new().route("/node", get(node)).route("/duels", get(duels)).route("/duel", get(duel))
}

/// Why there is no other answer.
pub(super) struct Refusal(StatusCode, Cow<'static, str>);

impl Refusal {
    pub(super) const fn new(status: StatusCode, why: &'static str) -> Self {
        Self(status, Cow::Borrowed(why))
    }

    fn malformed(name: &str) -> Self {
        Self(StatusCode::BAD_REQUEST, format!("{name} is malformed").into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"error": self.1}))).into_response()
    }
}

impl From<EngineError> for Refusal {
    fn from(_: EngineError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "The engine does not answer")
    }
}

/// Returns a parameter of the query, if it is given.
fn parameter<T: FromStr>(query: &str, name: &str) -> Result<Option<T>, Refusal> {
    let given = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name);
    let parsed = given.map(|(_, text)| text.parse()).transpose();
    parsed.map_err(|_| Refusal::malformed(name))
}

fn duel_parameter(query: &str, name: &str) -> Result<Option<DuelId>, Refusal> {
    let number: Option<u64> = parameter(query, name)?;
    let duel = number.map(DuelId::try_from).transpose();
    duel.map_err(|_| Refusal::malformed(name))
}

/// How the node does: its samples, and what they do not say.
async fn node(State(admin): State<Arc<Admin>>) -> Answer {
    let health = match Health::of(&admin) {
        Health::Ready(took) => json!({"state": "ready", "probe_ms": milliseconds(took)}),
        Health::Stopping => json!({"state": "stopping"}),
        Health::NotReady(why) => json!({"state": "not_ready", "why": why}),
    };
    let samples = admin.samples().map_err(|_| {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "The metrics cannot be written")
    })?;
    Ok(Json(json!({
        "at_ms": clock::now().0,
        "uptime_ms": milliseconds(admin.started_at.elapsed()),
        "version": version::VERSION,
        "revision": version::REVISION,
        "engine": admin.hub.engine_name(),
        "production": !admin.config.shows_payloads,
        "health": health,
        "samples": samples,
    })))
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// A page of duels after the id `after`: all of a `status`, or with `live` those that somebody on this node is in.
async fn duels(State(admin): State<Arc<Admin>>, RawQuery(query): RawQuery) -> Answer {
    let query = query.unwrap_or_default();
    let after = duel_parameter(&query, "after")?;
    let status: Option<String> = parameter(&query, "status")?;
    let status = match status.as_deref() {
        None => StatusFilter::Any,
        Some("open") => StatusFilter::Only(DuelStatus::Open),
        Some("finished") => StatusFilter::Only(DuelStatus::Closed(Outcome::Finished)),
        Some("cancelled") => StatusFilter::Only(DuelStatus::Closed(Outcome::Cancelled)),
        Some(_) => return Err(Refusal::malformed("status")),
    };
    let is_live = parameter(&query, "live")?.unwrap_or(false);
    let count = limits::CONSOLE_DUELS_MAX;
    let found = match is_live {
        true => admin.hub.live_duels(after, count + 1).await,
        false => admin.hub.duels(after, status, count + 1).await,
    };
    let mut found = found?;
    let more = found.len() > count;
    found.truncate(count);
    let ids = found.iter().map(|(duel, ..)| *duel).collect();
    let mut online = admin.hub.online(ids).await?;
    let next = found.last().filter(|_| more).map(|(duel, ..)| duel.get());
    let rows = found.into_iter().map(|(duel, head, connections)| {
        let online = online.remove(&duel).unwrap_or_default();
        let users = online.iter().take(limits::CONSOLE_USERS_MAX).map(user_and_role);
        json!({
            "duel": duel.get(),
            "status": status_word(head.status),
            "position": position_json(head.position),
            "connections": connections,
            "online": online.len(),
            "users": users.collect::<Vec<_>>(),
        })
    });
    Ok(Json(json!({"duels": rows.collect::<Vec<_>>(), "next": next})))
}

/// One duel, and the newest of its events after the position `after`.
async fn duel(State(admin): State<Arc<Admin>>, RawQuery(query): RawQuery) -> Answer {
    let query = query.unwrap_or_default();
    let Some(duel) = duel_parameter(&query, "id")? else {
        return Err(Refusal::malformed("id"));
    };
    let after: Option<Position> = parameter(&query, "after")?;
    let Some(view) = admin.hub.duel(duel).await? else {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "There is no such duel, or no longer"));
    };
    let head = &view.record.head;
    let events = newest(&admin, duel, head, after).await?;
    let mut payloads = admin.config.shows_payloads.then(PayloadBudget::default);
    let events = events.iter().map(|event| event_json(event, payloads.as_mut()));
    let events: Vec<_> = events.collect();
    let participants = view.record.participants.as_deref().map(|participants| {
        participants.iter().map(|participant| participant.user.get()).collect::<Vec<_>>()
    });
    // Over several nodes there may be as many on each.
    let online = view.online.iter().take(limits::ONLINE_LISTED_MAX);
    Ok(Json(json!({
        "duel": duel.get(),
        "status": status_word(head.status),
        "position": position_json(head.position),
        "oldest_seq": head.oldest_seq,
        "production": !admin.config.shows_payloads,
        "participants": participants,
        "created_at_ms": view.record.created_at.0,
        "updated_at_ms": view.record.updated_at.map(|at| at.0),
        "connections": view.connections,
        "online": online.map(online_json).collect::<Vec<_>>(),
        "online_count": view.online.len(),
        "events": events,
    })))
}

/// Returns the newest events of a log after `after`, so many as an answer may have. Those of an earlier epoch are read as far as the
/// log has gone on from it.
async fn newest(
    admin: &Admin,
    duel: DuelId,
    head: &Head,
    after: Option<Position>,
) -> Result<Vec<Arc<Event>>, EngineError> {
    let Position { epoch, seq: last } = head.position;
    let known = after.map(|after| head.carried(after)).filter(|after| after.epoch == epoch);
    let reachable = last.saturating_sub(limits::CONSOLE_EVENTS_MAX as u64);
    let from = known.map_or(0, |known| known.seq).max(reachable);
    let from = from.max(head.oldest_seq.saturating_sub(1));
    if from >= last || head.oldest_seq == 0 {
        return Ok(Vec::new());
    }
    let after = Position { epoch, seq: from };
    match admin.hub.log(duel, after, limits::CONSOLE_EVENTS_MAX).await? {
        Page::Events(events) => Ok(events),
        // The log has changed since its head was read. The page asks again.
        Page::Gone | Page::Ended => Ok(Vec::new()),
    }
}

const fn status_word(status: DuelStatus) -> &'static str {
    match status {
        DuelStatus::Open => "open",
        DuelStatus::Closed(Outcome::Finished) => "finished",
        DuelStatus::Closed(Outcome::Cancelled) => "cancelled",
    }
}

const fn role_word(role: Role) -> &'static str {
    match role {
        Role::Player => "player",
        Role::Spectator => "spectator",
    }
}

fn position_json(position: Position) -> Value {
    json!({"epoch": position.epoch.to_string(), "seq": position.seq})
}

fn user_and_role(online: &OnlineUser) -> Value {
    json!({"user": online.user.get(), "role": role_word(online.role)})
}

fn online_json(online: &OnlineUser) -> Value {
    json!({
        "user": online.user.get(),
        "role": role_word(online.role),
        "since_ms": online.since.0,
        "connections": online.connections,
        "acked_seq": online.acked_seq,
    })
}

/// Without `payloads`, nothing of what players see: production.
fn event_json(event: &Event, payloads: Option<&mut PayloadBudget>) -> Value {
    let mut shown = json!({
        "seq": event.seq,
        "at_ms": event.stored_at.0,
        "bytes": stored_size(&event.content),
    });
    match &event.content {
        Content::Closed(outcome) => shown["end"] = status_word(DuelStatus::Closed(*outcome)).into(),
        Content::Pushed(push) => {
            shown["type"] = push.event_type.as_str().into();
            shown["audience"] = audience_json(&push.audience);
            shown["transient"] = push.transient.into();
            shown["coalesces"] = push.coalesce_key.is_some().into();
            if let Some(budget) = payloads {
                show_payloads(&mut shown, push, budget);
            }
        }
    }
    shown
}

fn show_payloads(shown: &mut Value, push: &Push, budget: &mut PayloadBudget) {
    shown["payload"] = budget.beginning(&push.payload);
    let views = push
        .views
        .iter()
        .map(|(user, payload)| json!({"user": user.get(), "payload": budget.beginning(payload)}));
    shown["views"] = views.collect();
}

fn audience_json(audience: &Audience) -> Value {
    let ids = |users: &[UserId]| users.iter().map(|user| user.get()).collect::<Vec<_>>();
    match audience {
        Audience::All => json!({"kind": "all"}),
        Audience::Players => json!({"kind": "players"}),
        Audience::Only(users) => json!({"kind": "only", "users": ids(users)}),
        Audience::Except(users) => json!({"kind": "except", "users": ids(users)}),
    }
}
