//! What a backend sends. See [`crate::fuzz`].

use prost::Message as _;

use super::convert;
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
