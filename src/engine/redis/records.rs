//! Duels as they stand: looked at, entered, declared.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::link::{Order, REFUSED};
use super::script::{self, Args as _};
use super::{RedisEngine, answer};
use crate::clock::UnixMs;
use crate::engine::{Declaration, DuelRecord, EngineFuture, OpenError, Opened, rules};
use crate::event::Position;
use crate::id::DuelId;

/// How often a declaration is tried that others get ahead of.
const DECLARE_TRIES: usize = 8;

/// What stands of a declaration in a duel's hash: the participants, the settings.
type Known = (String, String);

/// What became of a try: the duel is declared, or something else stands there.
type Tried = Result<Opened, Known>;

impl RedisEngine {
    /// What is to be done when a duel may have come into being.
    pub(super) fn births(&self, duel: DuelId) -> impl Fn(u64, Position) + Send + 'static {
        let (teller, counts) = (Arc::clone(&self.teller), Arc::clone(&self.counts));
        move |created, position| {
            if created == 1 && duel != DuelId::PROBE {
                counts.duels.fetch_add(1, Ordering::Relaxed);
                teller.opened(duel, Position { seq: 0, ..position });
            }
        }
    }

    pub(super) fn record(
        &self,
        duel: DuelId,
        enters: bool,
    ) -> EngineFuture<'static, Option<DuelRecord>> {
        let known = self.teller.roster_version(duel);
        let shown = known.map(|version| version.to_string()).unwrap_or_default();
        let command = self.change(&script::RECORD, duel).with(u8::from(enters)).with(shown);
        let (teller, born) = (Arc::clone(&self.teller), self.births(duel));
        let rosters = Arc::clone(&self.rosters);
        self.ask(command, move |mut parts, _| {
            match &parts.text()?[..] {
                "none" => return Ok(Ok(None)),
                "full" => return Ok(Err(rules::DUELS_FULL)),
                _ => {}
            }
            let head = parts.head()?;
            let created_at = UnixMs(parts.number()?);
            let updated_at = parts.text()?;
            let (participants, settings) = (parts.text()?, parts.text()?);
            let (version, roster) = (parts.number()?, parts.value()?);
            born(parts.number()?, head.position);
            // Unchanged, it was not answered.
            if enters && known != Some(version) {
                teller.roster(duel, version, answer::roster(roster)?.1);
                rosters.check_sent_away(duel);
            }
            let declared = !participants.is_empty();
            let participants = answer::participants(&participants)?;
            Ok(Ok(Some(DuelRecord {
                head,
                participants: declared.then(|| participants.into()),
                settings: answer::settings(&settings)?,
                created_at,
                updated_at: updated_at.parse().ok().map(UnixMs),
            })))
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
                    Ok(opened) => return Ok(opened),
                    Err(known) => trying = self.try_to_declare(duel, &declaration, &known),
                }
            }
            Err(OpenError::Engine(REFUSED))
        })
    }

    /// Tries to declare what was read before as `known`: the answer, or what stands there instead.
    fn try_to_declare(
        &self,
        duel: DuelId,
        declaration: &Declaration,
        known: &Known,
    ) -> Result<EngineFuture<'static, Tried, OpenError>, OpenError> {
        let before = answer::participants(&known.0).map_err(|_| OpenError::Engine(REFUSED))?;
        let merged = rules::merge(&before, declaration.participants.clone())?;
        let settings = declaration.settings.map(answer::show_settings);
        let command = self
            .change(&script::OPEN, duel)
            .with(&known.0)
            .with(&known.1)
            .with(answer::show_participants(&merged))
            .with(settings.as_ref().unwrap_or(&known.1));
        let born = self.births(duel);
        Ok(self.ask(Order::kept(command), move |mut parts, _| {
            match &parts.text()?[..] {
                "full" => return Ok(Err(OpenError::Engine(rules::DUELS_FULL))),
                "closed" => return Ok(Err(OpenError::Closed)),
                "changed" => return Ok(Ok(Err((parts.text()?, parts.text()?)))),
                _ => {}
            }
            let position = parts.position()?;
            let created = parts.number()?;
            born(created, position);
            Ok(Ok(Ok(Opened { position, created: created == 1 })))
        }))
    }
}
