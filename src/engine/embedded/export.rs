//! `duelhub store`: checks a store that no hub has open, and exports it. Neither begins a life, or commits anything.

use std::io::{self, Write};

use serde_json::json;

use super::error::{Fault, StoreError};
use super::open::{self, CheckedStore};
use super::rows::{self, DuelRow, Kind};
use super::store::{Snapshot, event};
use crate::config::StoreConfig;
use crate::engine::EngineCounts;
use crate::event::{Audience, Content, DuelStatus, Event, Outcome};
use crate::id::UserId;

/// What a store holds that is whole.
#[derive(Debug, Clone, Copy)]
pub struct Contents {
    /// Duels and tickets.
    pub counts: EngineCounts,
    /// Bytes on the disk.
    pub disk_bytes: u64,
}

/// Reads all of a store.
///
/// # Errors
/// [`StoreError`]: it is in use, not there, of another version, or damaged.
pub fn check(config: &StoreConfig) -> Result<Contents, StoreError> {
    let _lock = open::acquire_existing(config)?;
    let CheckedStore { counts, .. } = open::open_checked(config)?;
    Ok(Contents { counts, disk_bytes: super::disk_bytes(&config.data_dir) })
}

/// What [`export`] could write.
#[derive(Debug, Clone, Copy, Default)]
pub struct Exported {
    /// Duels that were read to their end.
    pub duels: u64,
    /// Their events, and those of the duels that were not.
    pub events: u64,
    /// Duels that could not be read to their end.
    pub unreadable: u64,
}

/// Why a store was not exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store cannot be opened at all.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The lines cannot be written.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

/// Writes whatever of a store can be read as lines of JSON: a duel, then its events in order.
///
/// # Errors
/// [`ExportError`], if the store cannot be opened at all, or `out` cannot be written.
pub fn export(config: &StoreConfig, out: &mut dyn Write) -> Result<Exported, ExportError> {
    let _lock = open::acquire_existing(config)?;
    let store = open::open_unchecked(config)?;
    let exported = export_all(&store.snapshot(), out)?;
    out.flush()?;
    Ok(exported)
}

fn export_all(snapshot: &Snapshot<'_>, out: &mut dyn Write) -> io::Result<Exported> {
    let mut exported = Exported::default();
    let mut from = 0;
    // One row at a time: behind one that cannot be read, the next may be whole.
    while let Some(guard) = snapshot.between(Kind::Duel, &[from], &[u64::MAX]).next() {
        let read = guard.into_inner().map_err(Fault::from).and_then(|(key, bytes)| {
            let number = rows::number(&key, 0)?;
            Ok((number, rows::decode::<DuelRow>(&bytes)?))
        });
        let Ok((number, row)) = read else {
            exported.unreadable += 1;
            break;
        };
        from = number + 1;
        if rows::duel_id(number).is_ok_and(|duel| duel != crate::id::DuelId::PROBE) {
            export_duel(snapshot, number, &row, out, &mut exported)?;
        }
    }
    Ok(exported)
}

fn export_duel(
    snapshot: &Snapshot<'_>,
    number: u64,
    row: &DuelRow,
    out: &mut dyn Write,
    exported: &mut Exported,
) -> io::Result<()> {
    let mut row = row.clone();
    // Those that can be read: the row may be older than the last of them.
    snapshot.all(Kind::Event, &[number]).map_while(|guard| event(guard).ok()).for_each(|event| {
        if event.seq > row.seq {
            row.follow(&event);
        }
    });
    let participants: Vec<_> = row
        .participants
        .iter()
        .map(|p| json!({ "user_id": p.user, "telegram_id": p.telegram }))
        .collect();
    let line = json!({
        "duel_id": number,
        "epoch": row.position(&snapshot.store.lives).epoch.to_string(),
        "seq": row.seq,
        "oldest_seq": row.oldest_seq,
        "status": status_word(row.duel_status()),
        "participants": row.declared.then_some(participants),
        "created_at_ms": row.created_at,
        "updated_at_ms": row.updated_at,
    });
    writeln!(out, "{line}")?;
    for guard in snapshot.all(Kind::Event, &[number]) {
        let Ok(event) = event(guard) else {
            exported.unreadable += 1;
            return Ok(());
        };
        writeln!(out, "{}", event_line(number, &event))?;
        exported.events += 1;
    }
    exported.duels += 1;
    Ok(())
}

const fn status_word(status: DuelStatus) -> &'static str {
    match status {
        DuelStatus::Open => "open",
        DuelStatus::Closed(Outcome::Finished) => "finished",
        DuelStatus::Closed(Outcome::Cancelled) => "cancelled",
    }
}

fn event_line(duel: u64, event: &Event) -> serde_json::Value {
    let mut line = json!({
        "duel_id": duel,
        "seq": event.seq,
        "stored_at_ms": event.stored_at.0,
    });
    let push = match &event.content {
        Content::Closed(outcome) => {
            line["type"] = json!("duel_closed");
            line["status"] = json!(status_word(DuelStatus::Closed(*outcome)));
            return line;
        }
        Content::Pushed(push) => push,
    };
    let ids = |users: &[UserId]| users.iter().map(|user| user.get()).collect::<Vec<_>>();
    line["type"] = json!(push.event_type.as_str());
    line["audience"] = match &push.audience {
        Audience::All => json!("all"),
        Audience::Players => json!("players"),
        Audience::Only(users) => json!({ "users": ids(users) }),
        Audience::Except(users) => json!({ "all_but": ids(users) }),
    };
    // As text, so that what was pushed byte for byte is exported byte for byte.
    line["payload_json"] = json!(push.payload.json());
    let view = |(user, payload): &(UserId, crate::event::Payload)| json!({ "user_id": user.get(), "payload_json": payload.json() });
    line["views"] = push.views.iter().map(view).collect();
    line["coalesce_key"] = json!(push.coalesce_key);
    line
}
