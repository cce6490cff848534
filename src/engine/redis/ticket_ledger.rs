//! The ticket ledger, which the scripts keep by [`crate::engine::rules`].

use std::sync::Arc;
use std::sync::atomic::Ordering;

use redis::Cmd;

use super::RedisEngine;
use super::command_connection::Request;
use super::reply::{Parts, ReplyError};
use super::script::{self, Args as _, millis};
use crate::clock::UnixMs;
use crate::engine::event_row::Malformed;
use crate::engine::rules::{TICKET_LIFE_MAX, TICKETS_FULL};
use crate::engine::{EngineFuture, RedeemError, Revocation, TicketEngine};
use crate::id::{DuelId, TicketKey, UserId};
use crate::limits;
use crate::ticket::{Revision, Stamp, Ticket};

impl RedisEngine {
    /// A script that concerns tickets.
    pub(super) fn tickets(&self, script: &'static script::Script) -> Cmd {
        self.tickets_by(script, &self.keys.tickets())
    }

    fn tickets_by(&self, script: &'static script::Script, keys: &[String]) -> Cmd {
        script::call(script, keys).with(self.config.tickets_max).with(millis(2 * TICKET_LIFE_MAX))
    }
}

impl TicketEngine for RedisEngine {
    fn stamp(&self) -> EngineFuture<'_, Stamp> {
        let command = self.tickets(&script::STAMP).with("").with("").with("");
        self.ask(command, |mut parts, _| {
            parts.text()?;
            parts.number()?;
            Ok(stamp(&mut parts)?)
        })
    }

    fn redeem(&self, ticket: &Ticket) -> EngineFuture<'_, Stamp, RedeemError> {
        let owner = owner(ticket.duel, ticket.viewer.user);
        let keys = [&self.keys.tickets()[..], &[self.keys.sessions_of(&owner)]].concat();
        let command = self
            .tickets_by(&script::REDEEM, &keys)
            .with(&ticket.generation.session.0[..])
            .with(&TicketKey::of(&ticket.jti).0[..])
            .with(owner)
            .with(ticket.revision.0)
            .with(ticket.generation.number)
            .with(ticket.expires_at.0)
            .with(millis(self.config.resume_ttl))
            .with(millis(TICKET_LIFE_MAX))
            .with(limits::SESSIONS_PER_USER_MAX);
        let counts = Arc::clone(&self.counts);
        self.ask(Request::kept(command), move |mut parts, _| {
            let outcome = parts.text()?;
            counts.remember_tickets(parts.number()?);
            Err(ReplyError::Rejected(match &outcome[..] {
                "redeemed" => {
                    let stamp = stamp(&mut parts)?;
                    counts.crowded_out.fetch_add(parts.number()?, Ordering::Relaxed);
                    return Ok(stamp);
                }
                "expired" => RedeemError::Expired,
                "revoked" => RedeemError::Revoked,
                "used" => RedeemError::AlreadyUsed,
                "spent" => RedeemError::Spent,
                "copied" => RedeemError::Copied,
                _ => RedeemError::Engine(TICKETS_FULL),
            }))
        })
    }

    fn renew(
        &self,
        session: TicketKey,
        (duel, user): (DuelId, UserId),
        revision: Revision,
    ) -> EngineFuture<'_, Option<Stamp>> {
        let command = self.tickets(&script::STAMP).with(&session.0[..]);
        let command = command.with(owner(duel, user)).with(revision.0);
        self.ask(command, |mut parts, _| {
            let is_refused = parts.text()? == "refused";
            parts.number()?;
            Ok(if is_refused { None } else { Some(stamp(&mut parts)?) })
        })
    }

    fn revoke(&self, revocation: Revocation) -> EngineFuture<'_, ()> {
        let command = self.tickets(&script::REVOKE);
        let command = match revocation {
            Revocation::Ticket(jti) => command.with(&TicketKey::of(&jti).0[..]).with(""),
            Revocation::User { duel, user } => command.with("").with(owner(duel, user)),
        };
        let command = command.with(millis(TICKET_LIFE_MAX));
        let counts = Arc::clone(&self.counts);
        self.ask(Request::kept(command), move |mut parts, _| {
            let outcome = parts.text()?;
            counts.remember_tickets(parts.number()?);
            if outcome == "full" { Err(ReplyError::Rejected(TICKETS_FULL)) } else { Ok(()) }
        })
    }
}

/// Reads the ledger's time and its revision.
fn stamp(parts: &mut Parts) -> Result<Stamp, Malformed> {
    Ok(Stamp { now: UnixMs(parts.number()?), revision: Revision(parts.number()?) })
}

fn owner(duel: DuelId, user: UserId) -> String {
    format!("{}:{}", duel.get(), user.get())
}
