//! Which tickets are spent or worthless.

use std::sync::Arc;

use redis::Cmd;

use super::RedisEngine;
use super::command_connection::Request;
use super::reply::ReplyError;
use super::script::{self, Args as _, millis};
use crate::engine::rules::{CLOCK_STEP_MAX, JtiKey, TICKET_LIFE_MAX, TICKETS_FULL};
use crate::engine::{EngineFuture, RedeemError, Revocation, TicketEngine};
use crate::ticket::Ticket;

impl RedisEngine {
    /// A script that concerns tickets.
    pub(super) fn tickets(&self, script: &'static script::Script) -> Cmd {
        script::call(script, &self.keys.tickets())
            .with(self.config.tickets_max)
            .with(millis(2 * TICKET_LIFE_MAX))
    }
}

impl TicketEngine for RedisEngine {
    fn redeem(&self, ticket: &Ticket) -> EngineFuture<'_, (), RedeemError> {
        let command = self
            .tickets(&script::REDEEM)
            .with(&JtiKey::of(&ticket.jti).0[..])
            .with(format!("{}:{}", ticket.duel.get(), ticket.viewer.user.get()))
            .with(ticket.issued_at.0)
            .with(ticket.expires_at.0)
            .with(millis(CLOCK_STEP_MAX));
        let counts = Arc::clone(&self.counts);
        self.ask(Request::kept(command), move |mut parts, _| {
            let outcome = parts.text()?;
            counts.remember_tickets(parts.number()?);
            Err(ReplyError::Rejected(match &outcome[..] {
                "redeemed" => return Ok(()),
                "expired" => RedeemError::Expired,
                "revoked" => RedeemError::Revoked,
                "used" => RedeemError::AlreadyUsed,
                _ => RedeemError::Engine(TICKETS_FULL),
            }))
        })
    }

    fn revoke(&self, revocation: Revocation) -> EngineFuture<'_, ()> {
        let command = self.tickets(&script::REVOKE);
        let command = match revocation {
            Revocation::Ticket(jti) => command.with(&JtiKey::of(&jti).0[..]).with("").with(0),
            Revocation::User { duel, user, issued_until } => {
                command.with("").with(format!("{}:{}", duel.get(), user.get())).with(issued_until.0)
            }
        };
        let command = command.with(millis(TICKET_LIFE_MAX + CLOCK_STEP_MAX));
        let counts = Arc::clone(&self.counts);
        self.ask(Request::kept(command), move |mut parts, _| {
            let outcome = parts.text()?;
            counts.remember_tickets(parts.number()?);
            if outcome == "full" { Err(ReplyError::Rejected(TICKETS_FULL)) } else { Ok(()) }
        })
    }
}
