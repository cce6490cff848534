//! Ids, viewers, pushes and tickets in short words, for tests that call engines and hubs themselves.

use std::collections::HashMap;
use std::time::Duration;

use duelhub::clock;
use duelhub::event::{EventType, Payload, Push, Role, Viewer};
use duelhub::id::{DuelId, Jti, TicketKey, UserId};
use duelhub::limits;
use duelhub::ticket::{Generation, Revision, Ticket};

/// A duel's id.
pub fn id_of(duel: u64) -> DuelId {
    DuelId::try_from(duel).unwrap()
}

/// A user's id.
pub fn user(user: u64) -> UserId {
    UserId::try_from(user).unwrap()
}

/// Users' ids.
pub fn users(ids: &[u64]) -> Box<[UserId]> {
    ids.iter().map(|id| user(*id)).collect()
}

/// A user who takes part.
pub fn player(id: u64) -> Viewer {
    Viewer { user: user(id), role: Role::Player }
}

/// A user who looks on.
pub fn spectator(id: u64) -> Viewer {
    Viewer { user: user(id), role: Role::Spectator }
}

/// A payload that says `json`.
pub fn payload(duel: u64, json: &str) -> Payload {
    Payload::parse(id_of(duel), json, limits::PUSH_BYTES_MAX).unwrap()
}

/// A `duel_update` that says `json`, for everybody.
fn duel_update(duel: u64, json: &str) -> Push {
    Push::new(EventType::duel_update(), payload(duel, json))
}

/// The `nth` update, for everybody, of one size whatever `nth` up to 9999.
pub fn update(duel: u64, nth: u64) -> Push {
    duel_update(duel, &format!(r#"{{"nth":"{nth:04}"}}"#))
}

/// Which [`update`] a payload is of.
pub fn nth_of(push: &Push) -> u64 {
    let fields: HashMap<String, serde_json::Value> =
        serde_json::from_str(push.payload.json()).unwrap();
    fields["nth"].as_str().unwrap().parse().unwrap()
}

/// What the benches push: an update with 256 bytes of payload.
pub fn push_of_256_bytes(duel: u64) -> Push {
    duel_update(duel, &format!(r#"{{"question":"{}"}}"#, "x".repeat(225)))
}

/// A ticket of a player that lives for `life` from now.
pub fn ticket_for(duel: u64, id: u64, life: Duration) -> Ticket {
    let (jti, expires_at) = (Jti::random(), clock::now().plus(life));
    let generation = Generation { session: TicketKey::of(&jti), number: 0 };
    let revision = Revision::default();
    Ticket { jti, duel: id_of(duel), viewer: player(id), generation, revision, expires_at }
}

/// A ticket of a player that lives for an hour.
pub fn ticket(duel: u64, id: u64) -> Ticket {
    ticket_for(duel, id, Duration::from_secs(3600))
}

/// Another ticket of the same session.
pub fn resume_ticket(first: &Ticket, number: u32) -> Ticket {
    let generation = Generation { number, ..first.generation };
    Ticket { jti: Jti::random(), generation, ..first.clone() }
}
