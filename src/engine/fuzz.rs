//! What Redis answers, other nodes tell, and the store has on the disk. See [`crate::fuzz`].

use super::{embedded, event_row, redis};
use crate::clock::UnixMs;
use crate::event::{Content, EventType, Outcome, Payload, Push};
use crate::id::DuelId;
use crate::limits;

/// A message of another node, or a reply.
pub(crate) fn redis(bytes: &[u8]) {
    redis::fuzz(bytes);
}

pub(crate) fn redis_replies() -> Vec<Vec<u8>> {
    let messages = [
        "o ab 7 0123456789abcdef",
        "c ab 7 0123456789abcdef 9 1795000000000 1",
        "p ab 7 off 5 client_closed",
        "s ab 7 session_ended 5 00112233445566778899aabbccddeeff",
        "5:1005:n,6:1006:n",
        "below 5 1 moved",
    ];
    messages.map(|text| text.as_bytes().to_vec()).into()
}

/// The first byte says which row it is.
pub(crate) fn rows(bytes: &[u8]) {
    let Some((kind, row)) = bytes.split_first() else { return };
    match kind % 4 {
        0 => drop(event_row::read(row, 7)),
        1 => drop(event_row::read_undated(row, 7, UnixMs(1))),
        kind => embedded::fuzz(kind, row),
    }
}

pub(crate) fn stored_rows() -> Vec<Vec<u8>> {
    let mut rows = embedded::fuzz_rows();
    let contents = DuelId::try_from(7).ok().and_then(|duel| {
        let payload = Payload::parse(duel, r#"{"a":1}"#, limits::PUSH_BYTES_MAX).ok()?;
        Some([
            Content::Pushed(Push::new(EventType::duel_update(), payload)),
            Content::Closed(Outcome::Finished),
        ])
    });
    for content in contents.into_iter().flatten() {
        let (_, row) = event_row::Unnumbered::of(content).store(7, UnixMs(1));
        rows.push([vec![0], row].concat());
    }
    rows
}
