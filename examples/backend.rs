//! A backend, whole: opens a duel, issues a ticket, pushes an event, repeats the push, watches the duel, closes it.
//!
//! Start a hub with `cargo run --release`, then, in another terminal:
//!
//! ```sh
//! cargo run --release --example backend                          # the hub on this machine
//! cargo run --release --example backend -- http://127.0.0.1:50051
//! ```
//!
//! It prints a ticket. A player opens `ws://127.0.0.1:8090/ws?ticket=<ticket>` with it. A hub that wants a token or TLS is
//! called with tonic's interceptors and `ClientTlsConfig`; `proto/duelhub/v1/control.proto` documents every call.
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use duelhub::pb;
use duelhub::pb::control_service_client::ControlServiceClient;
use duelhub::pb::watch_duels_response::Change;

const PLAYERS: [u64; 2] = [1001, 1002];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let hub = std::env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:50051".to_owned());
    let mut client = ControlServiceClient::connect(hub).await?;

    // A duel's id is the backend's own, and is never used again: here the process's, which will do for trying out.
    let duel_id = u64::from(std::process::id());
    let participants = PLAYERS.map(|user_id| pb::Participant { user_id, telegram_id: user_id });
    let open = pb::OpenDuelRequest {
        duel_id,
        participants: participants.to_vec(),
        settings: None,
        reopen: false,
    };
    let created = client.open_duel(open).await?.into_inner().created;
    println!("duel {duel_id} is open, created just now: {created}");

    // The ticket admits this user to this duel, once. Role and lifetime have defaults.
    let issue = pb::IssueTicketRequest { duel_id, user_id: PLAYERS[0], ..Default::default() };
    let ticket = client.issue_ticket(issue).await?.into_inner().ticket;
    println!("ticket of user {}: {ticket}", PLAYERS[0]);

    // With an idempotency key a push may be repeated after any error, until there is an answer: it takes effect once.
    let push = pb::PushEventRequest {
        duel_id,
        r#type: "question".to_owned(),
        payload_json: r#"{"text":"Which planet is the third?"}"#.to_owned(),
        idempotency_key: "question-1".to_owned(),
        ..Default::default()
    };
    for _ in 0..2 {
        let pushed = client.push_event(push.clone()).await?.into_inner();
        let seq = pushed.position.unwrap_or_default().seq;
        println!("event {seq} is stored, a duplicate: {}", pushed.duplicate);
    }

    // A watch begins with the present state, ends that with `Synced`, and then tells what changes.
    let watch = pb::WatchDuelsRequest { duel_ids: vec![duel_id] };
    let mut changes = client.watch_duels(watch).await?.into_inner();
    while let Some(pb::WatchDuelsResponse { change: Some(change), .. }) = changes.message().await? {
        println!("watched: {change:?}");
        match change {
            Change::Synced(_) => {
                let status = pb::DuelStatus::Finished.into();
                let close = pb::CloseDuelRequest { duel_id, status, last_event: None };
                client.close_duel(close).await?;
            }
            Change::Closed(_) => break,
            Change::Opened(_)
            | Change::UserOnline(_)
            | Change::UserOffline(_)
            | Change::Acked(_)
            | Change::SessionEnded(_) => {}
        }
    }
    Ok(())
}
