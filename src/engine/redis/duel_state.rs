//! Duels as they stand: looked at, entered, declared.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::RedisEngine;
use super::command_connection::Request;
use super::reply::{self, ReplyError};
use super::script::{self, Args as _};
use crate::clock::UnixMs;
use crate::engine::{Declaration, DuelRecord, EngineError, EngineFuture, OpenError, Opened, rules};
use crate::event::Position;
use crate::id::DuelId;

/// How often a declaration is tried that others get ahead of.
const DECLARE_TRIES: usize = 8;

/// What stands of a declaration in a duel's hash: the participants, the settings.
type Known = (String, String);

/// What became of a try.
enum Tried {
    /// The duel is declared.
    Opened(Opened),
    /// Something else stands there.
    Changed(Known),
}

impl RedisEngine {
    /// What is to be done when a duel may have come into being.
    pub(super) fn creation(&self, duel: DuelId) -> impl Fn(u64, Position) + Send + 'static {
        let (dispatcher, counts) = (Arc::clone(&self.dispatcher), Arc::clone(&self.counts));
        move |created, position| {
            if created == 1 && duel != DuelId::PROBE {
                counts.duels.fetch_add(1, Ordering::Relaxed);
                dispatcher.opened(duel, Position { seq: 0, ..position });
            }
        }
    }

    pub(super) fn record(
        &self,
        duel: DuelId,
        enters: bool,
    ) -> EngineFuture<'static, Option<DuelRecord>> {
        let command = self.change(&script::RECORD, duel).with(u8::from(enters));
        let on_created = self.creation(duel);
        self.ask(command, move |mut parts, _| {
            match &parts.text()?[..] {
                "none" => return Ok(None),
                "full" => return Err(ReplyError::Rejected(rules::DUELS_FULL)),
                _ => {}
            }
            let head = parts.head()?;
            let created_at = UnixMs(parts.number()?);
            let updated_at = parts.text()?;
            let (participants, settings) = (parts.text()?, parts.text()?);
            on_created(parts.number()?, head.position);
            let declared = !participants.is_empty();
            let participants = reply::participants(&participants)?;
            Ok(Some(DuelRecord {
                head,
                participants: declared.then(|| participants.into()),
                settings: reply::settings(&settings)?,
                created_at,
                updated_at: updated_at.parse().ok().map(UnixMs),
            }))
        })
    }

    pub(super) fn declare(
        &self,
        duel: DuelId,
        declaration: Declaration,
    ) -> EngineFuture<'_, Opened, OpenError> {
        // Most are declared once, before anything else.
        let mut trying = self.try_to_declare(duel, &declaration, &Default::default());
        Box::pin(async move {
            for _ in 0..DECLARE_TRIES {
                match trying?.await? {
                    Tried::Opened(opened) => return Ok(opened),
                    Tried::Changed(known) => {
                        trying = self.try_to_declare(duel, &declaration, &known)
                    }
                }
            }
            Err(OpenError::Engine(EngineError::UNAVAILABLE))
        })
    }

    /// Tries to declare what was read before as `known`: the answer, or what stands there instead.
    fn try_to_declare(
        &self,
        duel: DuelId,
        declaration: &Declaration,
        known: &Known,
    ) -> Result<EngineFuture<'static, Tried, OpenError>, OpenError> {
        let before = reply::participants(&known.0)
            .map_err(|_| OpenError::Engine(EngineError::UNAVAILABLE))?;
        let merged = rules::merge(&before, declaration.participants.clone())?;
        let settings = declaration.settings.map(reply::show_settings);
        let command = self
            .change(&script::OPEN, duel)
            .with(&known.0)
            .with(&known.1)
            .with(reply::show_participants(&merged))
            .with(settings.as_ref().unwrap_or(&known.1))
            .with(u8::from(declaration.reopen));
        let (on_created, dispatcher) = (self.creation(duel), Arc::clone(&self.dispatcher));
        Ok(self.ask(Request::kept(command), move |mut parts, _| {
            let outcome = parts.text()?;
            match &outcome[..] {
                "full" => return Err(ReplyError::Rejected(rules::DUELS_FULL.into())),
                "closed" => return Err(ReplyError::Rejected(OpenError::Closed)),
                "changed" => return Ok(Tried::Changed((parts.text()?, parts.text()?))),
                _ => {}
            }
            let position = parts.position()?;
            let created = parts.number()?;
            match outcome == "anew" {
                // It was counted before.
                true => dispatcher.opened(duel, position),
                false => on_created(created, position),
            }
            Ok(Tried::Opened(Opened { position, created: created == 1 }))
        }))
    }
}
