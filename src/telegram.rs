//! Telegram's initData: proof of who a WebApp's user is.
//!
//! The rule (core.telegram.org/bots/webapps, "Validating data received via the Mini App"): HMAC-SHA256 over the sorted
//! `key=value` lines of all fields but `hash`, with the key HMAC-SHA256("WebAppData", bot token). Called by the HTTP
//! ticket API, and by `duelhub check`, which signs for itself.

use std::fmt::Write as _;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Deserialize;
use sha2::Sha256;

use crate::clock::UnixMs;
use crate::config::Secret;
use crate::id::TelegramId;
use crate::limits;

/// How far ahead of our clock Telegram's may be.
const AUTH_AHEAD_MAX: Duration = Duration::from_secs(30);

/// Why initData is refused. For the log: the caller learns only that they are not authorized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InitDataError {
    /// Larger, or of more fields, than Telegram sends.
    #[error("too large")]
    TooLarge,
    /// A key is given twice, so that two readers could see two values.
    #[error("a key is given twice")]
    DuplicateKey,
    /// `hash`, `auth_date` or `user` is missing or malformed.
    #[error("a field is missing or malformed")]
    Malformed,
    /// Not signed with this bot's token.
    #[error("the hash does not match")]
    WrongHash,
    /// Signed longer ago than is accepted.
    #[error("auth_date is too old")]
    TooOld,
    /// Signed in the future.
    #[error("auth_date is in the future")]
    InTheFuture,
}

#[derive(Deserialize)]
struct TelegramUser {
    id: u64,
}

/// Verifies `init_data` at the time `now`. Returns its user.
///
/// # Errors
/// [`InitDataError`]. An error about the contents means that the hash was right.
pub fn verify(
    init_data: &str,
    bot_token: &Secret,
    ttl: Duration,
    now: UnixMs,
) -> Result<TelegramId, InitDataError> {
    if init_data.len() > limits::INIT_DATA_BYTES_MAX {
        return Err(InitDataError::TooLarge);
    }
    let fields: Vec<(String, String)> = form_urlencoded::parse(init_data.as_bytes())
        .take(limits::INIT_DATA_FIELDS_MAX + 1)
        .map(|(key, value)| (key.into_owned(), value.into_owned()))
        .collect();
    if fields.len() > limits::INIT_DATA_FIELDS_MAX {
        return Err(InitDataError::TooLarge);
    }
    let lines = Lines::new(fields)?;
    let claimed = lines.value("hash").and_then(decode_hex).ok_or(InitDataError::Malformed)?;
    // `verify_slice` compares in constant time.
    lines.mac(bot_token).verify_slice(&claimed).map_err(|_| InitDataError::WrongHash)?;

    let auth_date = lines.value("auth_date").and_then(|text| text.parse::<u64>().ok());
    let auth_date = UnixMs(auth_date.ok_or(InitDataError::Malformed)?.saturating_mul(1000));
    if auth_date > now.plus(AUTH_AHEAD_MAX) {
        return Err(InitDataError::InTheFuture);
    }
    if now.since(auth_date) > ttl {
        return Err(InitDataError::TooOld);
    }
    let user = lines.value("user").and_then(|json| serde_json::from_str::<TelegramUser>(json).ok());
    let user = user.ok_or(InitDataError::Malformed)?;
    TelegramId::try_from(user.id).map_err(|_| InitDataError::Malformed)
}

/// Returns initData for `user`, as Telegram would sign it at `now`.
#[must_use]
pub fn sign(user: TelegramId, bot_token: &Secret, now: UnixMs) -> String {
    let fields = vec![
        ("auth_date".to_owned(), now.seconds().to_string()),
        ("user".to_owned(), format!(r#"{{"id":{user}}}"#)),
    ];
    let lines = Lines(fields);
    let hash = lines.mac(bot_token).finalize().into_bytes();
    let mut hex = String::new();
    for byte in hash {
        let _ = write!(hex, "{byte:02x}");
    }
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(&lines.0)
        .append_pair("hash", &hex)
        .finish()
}

/// The fields in the order of their keys, no key twice.
struct Lines(Vec<(String, String)>);

impl Lines {
    fn new(mut fields: Vec<(String, String)>) -> Result<Self, InitDataError> {
        fields.sort();
        if fields.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(InitDataError::DuplicateKey);
        }
        Ok(Self(fields))
    }

    fn value(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    fn mac(&self, bot_token: &Secret) -> Hmac<Sha256> {
        let key = keyed(b"WebAppData").chain_update(bot_token.as_bytes()).finalize().into_bytes();
        let lines = self.0.iter().filter(|(key, _)| key != "hash");
        let lines: Vec<_> = lines.map(|(key, value)| format!("{key}={value}")).collect();
        keyed(&key).chain_update(lines.join("\n"))
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

fn decode_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(300);
    const NOW: UnixMs = UnixMs(1_760_000_000_000);

    fn token() -> Secret {
        Secret::new("123456:bot-token".into())
    }

    fn good() -> String {
        sign(TelegramId::try_from(42).unwrap(), &token(), NOW)
    }

    #[test]
    fn what_is_signed_is_believed_wherever_the_hash_stands() {
        let user = TelegramId::try_from(42).unwrap();
        assert_eq!(verify(&good(), &token(), TTL, NOW), Ok(user));
        let (rest, hash) =
            good().split_once("&hash=").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        assert_eq!(verify(&format!("hash={hash}&{rest}"), &token(), TTL, NOW), Ok(user));
    }

    #[test]
    fn time_is_bounded_on_both_sides() {
        let at = |ms: u64| verify(&good(), &token(), TTL, UnixMs(ms));
        assert!(at(NOW.0 + 300_000).is_ok());
        assert_eq!(at(NOW.0 + 301_000), Err(InitDataError::TooOld));
        assert!(at(NOW.0 - 30_000).is_ok());
        assert_eq!(at(NOW.0 - 31_000), Err(InitDataError::InTheFuture));
    }

    #[test]
    fn what_was_touched_is_refused() {
        let good = good();
        let upper =
            good.split_once("hash=").map(|(a, b)| format!("{a}hash={}", b.to_uppercase())).unwrap();
        assert!(verify(&upper, &token(), TTL, NOW).is_ok(), "hex has no case");
        let table = [
            (good.replace("42", "43"), InitDataError::WrongHash),
            (format!("{good}&extra=1"), InitDataError::WrongHash),
            (format!("{good}&signature=abc"), InitDataError::WrongHash),
            (format!("{good}&user=x"), InitDataError::DuplicateKey),
            (format!("{good}&hash={}", "0".repeat(64)), InitDataError::DuplicateKey),
            (good.replace("hash=", "hush="), InitDataError::Malformed),
            (good.split_once("&hash=").unwrap().0.to_owned(), InitDataError::Malformed),
            (format!("{}&hash=zz", good.split_once("&hash=").unwrap().0), InitDataError::Malformed),
            (String::new(), InitDataError::Malformed),
            ("x".repeat(limits::INIT_DATA_BYTES_MAX + 1), InitDataError::TooLarge),
            ("a&".repeat(limits::INIT_DATA_FIELDS_MAX + 1), InitDataError::TooLarge),
        ];
        for (text, expected) in table {
            assert_eq!(verify(&text, &token(), TTL, NOW), Err(expected), "{text}");
        }
        let other = Secret::new("other".into());
        assert_eq!(verify(&good, &other, TTL, NOW), Err(InitDataError::WrongHash));
    }
}
