//! The rules of tickets: used once, revoked for good, remembered until they would have expired.
//!
//! Bound: `ENGINE_MAX_REMEMBERED_TICKETS` entries. At the bound new tickets are refused, because forgetting one would let
//! it be used twice. What concerns a remembered entry needs no new one, and goes on.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::clock::UnixMs;
use crate::engine::{EngineError, RedeemError};
use crate::id::Jti;
use crate::ticket::Ticket;

/// The longest life of a ticket, and so the longest time for which a revocation is remembered.
pub(in crate::engine) const TICKET_LIFE_MAX: Duration = Duration::from_secs(86_400);

/// How far the clock may step back without a ticket being forgotten before it has expired.
pub(in crate::engine) const CLOCK_STEP_MAX: Duration = Duration::from_secs(60);

/// The engine remembers as many tickets as it may.
pub(in crate::engine) const TICKETS_FULL: EngineError =
    EngineError::Full { limit: "ENGINE_MAX_REMEMBERED_TICKETS" };

/// 128 bits that stand for a jti, whatever its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::engine) struct JtiKey(pub(in crate::engine) [u8; 16]);

impl JtiKey {
    /// Returns the key of a jti.
    pub(in crate::engine) fn of(jti: &Jti) -> Self {
        let digest = Sha256::digest(jti.as_str().as_bytes());
        let mut first = [0; 16];
        first.copy_from_slice(&digest[..16]);
        Self(first)
    }
}

/// What an engine remembers of a ticket and of its user.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::engine) struct KnownTicket {
    /// The ticket was used.
    pub(in crate::engine) used: bool,
    /// The ticket itself was revoked.
    pub(in crate::engine) revoked: bool,
    /// All tickets of its user in its duel were revoked that were issued until then, that instant included.
    pub(in crate::engine) user_revoked_until: Option<UnixMs>,
}

/// Decides whether a ticket may be used. Returns until when its use must be remembered.
pub(in crate::engine) fn redeem(
    ticket: &Ticket,
    known: KnownTicket,
    is_full: bool,
    now: UnixMs,
) -> Result<UnixMs, RedeemError> {
    // Its signature was checked a moment ago. What counts from here on is this instant.
    if ticket.expires_at <= now {
        return Err(RedeemError::Expired);
    }
    if known.revoked || known.user_revoked_until.is_some_and(|until| ticket.issued_at <= until) {
        return Err(RedeemError::Revoked);
    }
    if known.used {
        return Err(RedeemError::AlreadyUsed);
    }
    if is_full {
        return Err(TICKETS_FULL.into());
    }
    Ok(ticket.expires_at.plus(CLOCK_STEP_MAX))
}

/// Decides whether a ticket or a user may be revoked: always, if there is an entry of it. Returns until when the revocation
/// must be remembered.
pub(in crate::engine) fn revoke(
    is_known: bool,
    is_full: bool,
    now: UnixMs,
) -> Result<UnixMs, EngineError> {
    if is_full && !is_known {
        return Err(TICKETS_FULL);
    }
    Ok(now.plus(TICKET_LIFE_MAX + CLOCK_STEP_MAX))
}
