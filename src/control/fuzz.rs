//! What a backend sends. See [`crate::fuzz`].

use std::sync::LazyLock;

use prost::Message as _;

use super::schema::Schema;
use super::{convert, json};
use crate::limits;
use crate::pb;

/// The first byte says which call it is.
pub(crate) fn calls(bytes: &[u8]) {
    let Some((call, message)) = bytes.split_first() else { return };
    match call % 4 {
        0 => {
            let Ok(push) = pb::PushEventRequest::decode(message) else { return };
            let Ok(duel) = convert::duel_id("duel_id", push.duel_id) else { return };
            let _key = convert::idempotency_key(&push.idempotency_key);
            drop(convert::push(duel, push, limits::PUSH_BYTES_MAX));
        }
        1 => {
            let Ok(declared) = pb::OpenDuelRequest::decode(message) else { return };
            drop(convert::declaration(&declared));
        }
        2 => {
            let Ok(issue) = pb::IssueTicketRequest::decode(message) else { return };
            let _role = convert::role(issue.role);
        }
        _ => {
            let Ok(list) = pb::ListDuelsRequest::decode(message) else { return };
            let _filter = convert::status_filter(list.status);
            let _token = convert::page_token(&list.page_token);
        }
    }
}

/// Calls that are offered in JSON, of which the first byte says one.
const JSON_CALLS: [&str; 4] = ["PushEvent", "OpenDuel", "RevokeTickets", "IssueTicket"];

static SCHEMA: LazyLock<Schema> =
    LazyLock::new(|| Schema::new(tonic_health::pb::FILE_DESCRIPTOR_SET));

/// The first byte says which call it is. What is read as one is decoded as one, and has another text then at most.
pub(crate) fn json_calls(bytes: &[u8]) {
    let Some((call, text)) = bytes.split_first() else { return };
    let call = JSON_CALLS[usize::from(*call) % JSON_CALLS.len()];
    let path = format!("/duelhub.v1.ControlService/{call}");
    let Some(input) = SCHEMA.method(&path).map(|method| method.input()) else { return };
    let Ok(message) = json::decode(&input, text) else { return };
    if call == "PushEvent"
        && let Ok(push) = pb::PushEventRequest::decode(&*message)
        && let Ok(duel) = convert::duel_id("duel_id", push.duel_id)
    {
        drop(convert::push(duel, push, limits::PUSH_BYTES_MAX));
    }
    json::encode(&input, &message).expect("what was read can be written");
}

pub(crate) fn json_messages() -> Vec<Vec<u8>> {
    let texts = [
        r#"{"duelId":"77","type":"x","payload":{"a":[1,{"b":null}],"c":2.5e3},"audience":{"only":{"userIds":[1,"2"]}},
           "views":[{"userId":1,"payloadJson":"{\"own\":true}"}],"idempotencyKey":"k","transient":true}"#,
        r#"{"duel_id":77,"participants":[{"userId":1,"telegramId":"1001"}],"settings":{"presenceGrace":"1.5s"}}"#,
        r#"{"user":{"duelId":77,"userId":5}}"#,
        r#"{"duelId":77,"userId":5,"role":"ROLE_SPECTATOR","ttl":"60s"}"#,
    ];
    (0..).zip(texts).map(|(call, text)| [&[call], text.as_bytes()].concat()).collect()
}

pub(crate) fn messages() -> Vec<Vec<u8>> {
    let push = pb::PushEventRequest {
        duel_id: 77,
        r#type: "round_started".to_owned(),
        payload_json: r#"{"question":"Wer?","n":[1,2.5e3,"\u00e9"]}"#.to_owned(),
        idempotency_key: "key".to_owned(),
        coalesce_key: "timer".to_owned(),
        ..Default::default()
    };
    let participants = vec![pb::Participant { user_id: 5, telegram_id: 1005 }];
    let open = pb::OpenDuelRequest { duel_id: 77, participants, ..Default::default() };
    let issue = pb::IssueTicketRequest { duel_id: 77, user_id: 5, ..Default::default() };
    let list = pb::ListDuelsRequest { page_token: "77".to_owned(), ..Default::default() };
    let bodies =
        [push.encode_to_vec(), open.encode_to_vec(), issue.encode_to_vec(), list.encode_to_vec()];
    (0..).zip(bodies).map(|(call, body)| [vec![call], body].concat()).collect()
}
