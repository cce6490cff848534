//! The ids of duels, users, tickets, connections and requests.
//!
//! An id is checked once, where it enters, and is valid from then on. This module knows nothing of JSON or gRPC.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// The largest duel or user id: 2^53-1, the largest integer that JavaScript holds exactly.
pub const ID_MAX: u64 = (1 << 53) - 1;

/// A number that is no id: 0, or above [`ID_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be from 1 to 9007199254740991")]
pub struct IdOutOfRange;

macro_rules! numeric_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// Returns the number.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }
        }

        impl TryFrom<u64> for $name {
            type Error = IdOutOfRange;

            fn try_from(number: u64) -> Result<Self, IdOutOfRange> {
                if (1..=ID_MAX).contains(&number) { Ok(Self(number)) } else { Err(IdOutOfRange) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

numeric_id! {
    /// A duel: from 1 to [`ID_MAX`], chosen by the backend.
    DuelId
}
numeric_id! {
    /// A user: from 1 to [`ID_MAX`], chosen by the backend.
    UserId
}
numeric_id! {
    /// A user at Telegram: from 1 to [`ID_MAX`].
    TelegramId
}

impl DuelId {
    /// The duel of the node's own probe. Outside the range that anybody can name.
    pub const PROBE: Self = Self(ID_MAX + 1);
}

impl UserId {
    /// The user of the node's own probe. Outside the range that anybody can name.
    pub const PROBE: Self = Self(ID_MAX + 1);
}

/// The longest ticket id that is accepted, in bytes.
pub const JTI_BYTES_MAX: usize = 64;

/// The id of a ticket (RFC 7519, section 4.1.7): 1 to [`JTI_BYTES_MAX`] bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Jti(Box<str>);

impl Jti {
    /// Checks the length. Returns `None` if it is wrong.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        (1..=JTI_BYTES_MAX).contains(&text.len()).then(|| Self(text.into()))
    }

    /// Returns a new id: 128 random bits as 32 hex digits.
    #[must_use]
    pub fn random() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()).into())
    }

    /// Returns the id as it stands in the ticket.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// 128 bits that stand for a ticket: a hash of its jti, whatever its length. Names a session, too: by the ticket that began it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TicketKey(pub [u8; 16]);

impl TicketKey {
    /// Returns the key of a ticket.
    #[must_use]
    pub fn of(jti: &Jti) -> Self {
        let digest = Sha256::digest(jti.as_str().as_bytes());
        let mut first = [0; 16];
        first.copy_from_slice(&digest[..16]);
        Self(first)
    }

    /// Reads 32 hex digits. Returns `None` if the text is anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = u128::from_str_radix(text, 16).ok().filter(|_| hex)?;
        Some(Self(number.to_be_bytes()))
    }
}

impl fmt::Display for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// A connection of this process. Never used twice within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// The longest request id that is adopted from a caller, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 64;

/// The id of a request in answers and log lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(Box<str>);

impl RequestId {
    /// Returns a new id: 16 hex digits.
    #[must_use]
    pub fn random() -> Self {
        Self(format!("{:016x}", rand::random::<u64>()).into())
    }

    /// Returns the caller's id if it has 1 to 64 characters out of `A-Z a-z 0-9 . _ -`, which are harmless in a log.
    #[must_use]
    pub fn adopt(text: &str) -> Option<Self> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let fits = (1..=REQUEST_ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain);
        fits.then(|| Self(text.into()))
    }

    /// Returns the proxy's id if it has the form of [`RequestId::random`], which the HTTP API promises to its clients.
    #[must_use]
    pub fn adopt_hex(text: &str) -> Option<Self> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        (text.len() == 16 && text.bytes().all(hex)).then(|| Self(text.into()))
    }

    /// Returns the id as it stands in answers and log lines.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_what_javascript_can_hold() {
        for good in [1, 2, ID_MAX] {
            assert_eq!(DuelId::try_from(good).map(DuelId::get), Ok(good));
        }
        for bad in [0, ID_MAX + 1, u64::MAX] {
            assert_eq!(UserId::try_from(bad), Err(IdOutOfRange));
        }
    }

    #[test]
    fn request_ids_from_outside_are_adopted_only_in_a_harmless_form() {
        assert!(RequestId::adopt("trace-1.a_B").is_some());
        for bad in ["", "a b", "a\nb", "é", &"x".repeat(65)] {
            assert_eq!(RequestId::adopt(bad), None, "{bad:?}");
        }
        assert!(RequestId::adopt_hex("0123456789abcdef").is_some());
        for bad in ["0123456789ABCDEF", "0123456789abcde", "0123456789abcdeg"] {
            assert_eq!(RequestId::adopt_hex(bad), None, "{bad:?}");
        }
    }
}
