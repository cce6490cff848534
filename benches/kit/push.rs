//! What the benchmarks push.

use duelhub::event::{Audience, EventType, Payload, Push};
use duelhub::id::DuelId;

/// 256 bytes of payload.
pub(crate) fn push(duel: u64) -> Push {
    let json = format!(r#"{{"question":"{}"}}"#, "x".repeat(225));
    Push {
        event_type: EventType::duel_update(),
        payload: Payload::parse(DuelId::try_from(duel).unwrap(), json, 1000).unwrap(),
        audience: Audience::All,
        views: Box::default(),
        coalesce_key: None,
    }
}
