//! Tickets: signed permissions to open a connection.
//!
//! A ticket is a JWT (RFC 7519) signed with HS256 (RFC 7518, section 3.2), the only algorithm that is ever accepted.
//! The control plane and the HTTP ticket API issue a backend's tickets. Each begins a *session*. The data plane verifies tickets
//! and hands out resume tickets, which go on with the session: their generation grows. Verifying proves that the hub
//! signed a ticket. Only the engine knows whether it has expired, was used or was revoked
//! ([`crate::engine::TicketEngine::redeem`]), because only the engine's ledger has one clock for all nodes.

mod hs256;

use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::clock::UnixMs;
use crate::config::{Secret, TicketConfig};
use crate::event::{Role, Viewer};
use crate::id::{DuelId, Jti, TicketKey, UserId};
use crate::limits;

/// The audience of every ticket (RFC 7519, section 4.1.3).
const AUDIENCE: &str = "duelhub";

/// The latest instant that a claim may name, in seconds. In milliseconds it fits in 64 bits.
const SECONDS_MAX: u64 = 1_000_000_000_000;

/// Counts the revocations of a ledger. A ticket says which revision it was issued at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

/// What the ledger says for a ticket that is issued now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The ledger's clock.
    pub now: UnixMs,
    /// The ledger's revision.
    pub revision: Revision,
}

/// A session and how far it has come: what the tickets of one reconnect have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation {
    /// The session.
    pub session: TicketKey,
    /// 0: the backend's ticket, which began the session. Each resume ticket that a connection is handed has the next number.
    pub number: u32,
}

impl Generation {
    /// Returns whether a connection of this generation takes the place of one of `other`. Of two of one generation the one that
    /// entered later does: its client has given the other one up.
    #[must_use]
    pub fn supersedes(self, other: Self, entered_later: bool) -> bool {
        let is_same = self.number == other.number && entered_later;
        self.session == other.session && (self.number > other.number || is_same)
    }
}

/// What a ticket permits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The ticket's id.
    pub jti: Jti,
    /// The duel it opens.
    pub duel: DuelId,
    /// The user, and their role.
    pub viewer: Viewer,
    /// Its place in its session.
    pub generation: Generation,
    /// The ledger's revision when it was issued.
    pub revision: Revision,
    /// When it expires, by the ledger's clock. Whole seconds.
    pub expires_at: UnixMs,
}

/// A signed ticket. The text is a secret until it is used.
#[derive(Debug)]
pub struct Issued {
    /// The text that the client sends.
    pub text: Secret,
    /// The ticket in it.
    pub ticket: Ticket,
}

/// A text that is no ticket of ours: malformed, another algorithm, another key, another audience, a claim missing or doubled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the ticket is invalid")]
pub struct InvalidTicket;

#[derive(Serialize, Deserialize)]
struct Claims {
    /// The user.
    sub: String,
    /// The duel.
    duel: u64,
    role: ClaimedRole,
    /// Seconds, of which there may be fractions. For people: nothing is decided by it, so that clocks may differ.
    iat: serde_json::Number,
    exp: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<serde_json::Number>,
    jti: String,
    aud: String,
    /// The revision. Without it, the ticket is older than any revocation that is remembered.
    #[serde(default)]
    rev: u64,
    /// The session and the generation of a resume ticket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sid: Option<String>,
    #[serde(rename = "gen", default, skip_serializing_if = "Option::is_none")]
    generation: Option<u32>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ClaimedRole {
    Player,
    Spectator,
}

/// Issues and verifies tickets.
pub struct Tickets {
    kid: String,
    encoding: EncodingKey,
    keys: Vec<(String, DecodingKey)>,
    validation: Validation,
    ttl: Duration,
    resume_ttl: Duration,
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tickets").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl Tickets {
    /// Prepares the keys of a configuration.
    #[must_use]
    pub fn new(config: &TicketConfig) -> Self {
        hs256::install();
        let secrets = std::iter::once(&config.secret).chain(&config.secret_previous);
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["aud", "exp", "sub"]);
        // The library reads the system's clock. Expiry is decided by the ledger's.
        validation.validate_exp = false;
        Self {
            kid: kid(&config.secret),
            encoding: EncodingKey::from_secret(config.secret.as_bytes()),
            keys: secrets.map(|s| (kid(s), DecodingKey::from_secret(s.as_bytes()))).collect(),
            validation,
            ttl: config.ttl,
            resume_ttl: config.resume_ttl,
        }
    }

    /// Issues a ticket that begins a session. It lives for `ttl`, or for the configured time.
    #[must_use]
    pub fn issue(
        &self,
        duel: DuelId,
        viewer: Viewer,
        ttl: Option<Duration>,
        stamp: Stamp,
    ) -> Issued {
        let jti = Jti::random();
        let generation = Generation { session: TicketKey::of(&jti), number: 0 };
        self.sign(jti, (duel, viewer), generation, ttl.unwrap_or(self.ttl), stamp)
    }

    /// Issues a ticket with which a client reconnects without asking the backend.
    #[must_use]
    pub fn issue_resume(
        &self,
        duel: DuelId,
        viewer: Viewer,
        generation: Generation,
        stamp: Stamp,
    ) -> Issued {
        self.sign(Jti::random(), (duel, viewer), generation, self.resume_ttl, stamp)
    }

    /// Returns the lifetime of a resume ticket.
    #[must_use]
    pub const fn resume_ttl(&self) -> Duration {
        self.resume_ttl
    }

    fn sign(
        &self,
        jti: Jti,
        (duel, viewer): (DuelId, Viewer),
        generation: Generation,
        ttl: Duration,
        stamp: Stamp,
    ) -> Issued {
        // Rounded up to the whole seconds that a JWT's `exp` has: a ticket never lives for less than it was given.
        let expires_at = UnixMs(stamp.now.plus(ttl).0.div_ceil(1000) * 1000);
        let revision = stamp.revision;
        let ticket = Ticket { jti, duel, viewer, generation, revision, expires_at };
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(self.kid.clone());
        let resumes = generation.number > 0;
        let claims = Claims {
            sub: viewer.user.to_string(),
            duel: duel.get(),
            role: match viewer.role {
                Role::Player => ClaimedRole::Player,
                Role::Spectator => ClaimedRole::Spectator,
            },
            iat: stamp.now.seconds().into(),
            nbf: None,
            exp: expires_at.seconds(),
            jti: ticket.jti.as_str().to_owned(),
            aud: AUDIENCE.to_owned(),
            rev: revision.0,
            sid: resumes.then(|| generation.session.to_string()),
            generation: resumes.then_some(generation.number),
        };
        let text = jsonwebtoken::encode(&header, &claims, &self.encoding)
            .expect("claims are plain JSON and the key is an HMAC key");
        Issued { text: Secret::new(text), ticket }
    }

    /// Verifies that `text` is a ticket of ours. Returns the ticket. Whether it has expired, the engine's ledger decides.
    ///
    /// # Errors
    /// [`InvalidTicket`].
    pub fn verify(&self, text: &str) -> Result<Ticket, InvalidTicket> {
        if text.len() > limits::TICKET_BYTES_MAX {
            return Err(InvalidTicket);
        }
        self.decode(text).ok_or(InvalidTicket)
    }

    /// Returns the claims of a text in the form of a ticket, whoever signed it. For people to read, never to act on.
    #[must_use]
    pub fn claims(text: &str) -> Option<serde_json::Value> {
        jsonwebtoken::dangerous::insecure_decode_claims(text).ok()
    }

    fn decode(&self, text: &str) -> Option<Ticket> {
        let header = jsonwebtoken::decode_header(text).ok()?;
        // Extensions that must be understood (RFC 7515, section 4.1.11): none is.
        if header.crit.is_some() {
            return None;
        }
        let (_, key) = self.keys.iter().find(|(kid, _)| Some(kid) == header.kid.as_ref())?;
        let claims = jsonwebtoken::decode::<Claims>(text, key, &self.validation).ok()?.claims;
        let number: u64 = claims.sub.parse().ok()?;
        let is_instant = |seconds: f64| (0.0..1e12).contains(&seconds);
        // A hub's ticket may be used as soon as it is issued.
        let is_delayed = claims.nbf.is_some_and(|nbf| claims.iat.as_f64() < nbf.as_f64());
        if !claims.iat.as_f64().is_some_and(is_instant) || claims.exp > SECONDS_MAX || is_delayed {
            return None;
        }
        let role = match claims.role {
            ClaimedRole::Player => Role::Player,
            ClaimedRole::Spectator => Role::Spectator,
        };
        let jti = Jti::parse(&claims.jti)?;
        let generation = match (&claims.sid, claims.generation) {
            (None, None) => Generation { session: TicketKey::of(&jti), number: 0 },
            (Some(sid), Some(number @ 1..)) => {
                Generation { session: TicketKey::parse(sid)?, number }
            }
            _ => return None,
        };
        Some(Ticket {
            jti,
            duel: DuelId::try_from(claims.duel).ok()?,
            viewer: Viewer { user: UserId::try_from(number).ok()?, role },
            generation,
            revision: Revision(claims.rev),
            expires_at: UnixMs(claims.exp * 1000),
        })
    }
}

/// Returns an id of a key that does not reveal it, so that a rotation needs no numbering by hand.
fn kid(secret: &Secret) -> String {
    let mut hash = Sha256::new();
    hash.update(b"duelhub kid");
    hash.update(secret.as_bytes());
    hash.finalize().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use hmac::{Hmac, KeyInit, Mac};
    use serde_json::{Value, json};
    use sha2::{Sha384, Sha512};

    use super::*;
    use crate::clock;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    fn tickets(secret: &str, previous: Option<&str>) -> Tickets {
        Tickets::new(&TicketConfig {
            secret: Secret::new(secret.into()),
            configured: true,
            secret_previous: previous.map(|secret| Secret::new(secret.into())),
            ttl: Duration::from_secs(300),
            resume_ttl: Duration::from_secs(3600),
        })
    }

    fn issue(tickets: &Tickets) -> Issued {
        let viewer = Viewer { user: UserId::try_from(5).unwrap(), role: Role::Player };
        tickets.issue(DuelId::try_from(77).unwrap(), viewer, None, stamp())
    }

    fn stamp() -> Stamp {
        Stamp { now: clock::now(), revision: Revision(7) }
    }

    fn signed(kid: Option<String>, claims: &Value, key: &str) -> String {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = kid;
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(key.as_bytes())).unwrap()
    }

    fn signed_with_header(tickets: &Tickets, change: impl Fn(&mut Header)) -> String {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(tickets.kid.clone());
        change(&mut header);
        jsonwebtoken::encode(&header, &claims(), &tickets.encoding).unwrap()
    }

    /// Signs with another algorithm than the hub's, as it would be right for that one.
    fn signed_otherwise<M: Mac + KeyInit>(alg: &str, kid: &str) -> String {
        let header = json!({"typ": "JWT", "alg": alg, "kid": kid}).to_string();
        let [header, claims] = [header, claims().to_string()].map(|json| base64(json.as_bytes()));
        let message = format!("{header}.{claims}");
        let mac = <M as KeyInit>::new_from_slice(KEY.as_bytes()).unwrap();
        let signature = base64(&mac.chain_update(&message).finalize().into_bytes());
        format!("{message}.{signature}")
    }

    /// RFC 4648, section 5, without padding.
    fn base64(bytes: &[u8]) -> String {
        let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let bits: Vec<_> =
            bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)).collect();
        let value =
            |bits: &[u8]| (0..6).fold(0, |value, at| value * 2 + bits.get(at).unwrap_or(&0));
        bits.chunks(6).map(|bits| char::from(digits[usize::from(value(bits))])).collect()
    }

    fn claims() -> Value {
        let now = clock::now().seconds();
        json!({"sub": "5", "duel": 77, "role": "player", "iat": now, "exp": now + 60,
            "jti": "j", "aud": "duelhub"})
    }

    #[test]
    fn what_is_issued_verifies() {
        let tickets = tickets(KEY, None);
        let issued = issue(&tickets);
        assert_eq!(tickets.verify(issued.text.as_str()), Ok(issued.ticket));
        // As other versions write it.
        for iat in [json!(clock::now().seconds()), json!(1_795_767_128.25)] {
            let mut claims = claims();
            claims["iat"] = iat;
            let text = signed(Some(tickets.kid.clone()), &claims, KEY);
            assert!(tickets.verify(&text).is_ok());
        }
    }

    #[test]
    fn a_rotated_secret_holds_until_it_is_dropped() {
        let old = issue(&tickets(KEY, None));
        assert!(tickets("another secret", Some(KEY)).verify(old.text.as_str()).is_ok());
        let dropped = tickets("another secret", None);
        assert_eq!(dropped.verify(old.text.as_str()), Err(InvalidTicket));
    }

    #[test]
    fn every_claim_is_required_and_bounded() {
        let tickets = tickets(KEY, None);
        let kid = || Some(tickets.kid.clone());
        for name in ["sub", "duel", "role", "iat", "exp", "jti", "aud"] {
            let mut missing = claims();
            missing.as_object_mut().unwrap().remove(name);
            let text = signed(kid(), &missing, KEY);
            assert_eq!(tickets.verify(&text), Err(InvalidTicket), "without {name}");
        }
        let wrong = [
            ("sub", json!("0")),
            ("sub", json!(5)),
            ("sub", json!("5x")),
            ("duel", json!(0)),
            ("duel", json!("77")),
            ("role", json!("admin")),
            ("iat", json!("now")),
            ("iat", json!(-1)),
            ("nbf", json!(1_u64 << 40)),
            ("iat", json!(1e300)),
            ("exp", json!(-1)),
            ("exp", json!(u64::MAX)),
            ("rev", json!(-1)),
            ("sid", json!("0".repeat(32))),
            ("gen", json!(1)),
            ("jti", json!("")),
            ("jti", json!("x".repeat(65))),
            ("aud", json!("other")),
            ("aud", json!(["duelhub"])),
        ];
        for (name, value) in wrong {
            let mut claims = claims();
            claims[name] = value.clone();
            let text = signed(kid(), &claims, KEY);
            assert_eq!(tickets.verify(&text), Err(InvalidTicket), "{name}: {value}");
        }
    }

    #[test]
    fn a_resume_ticket_names_its_session_and_its_generation() {
        let tickets = tickets(KEY, None);
        let first = issue(&tickets).ticket;
        assert_eq!(first.generation, Generation { session: TicketKey::of(&first.jti), number: 0 });
        let next = Generation { number: 3, ..first.generation };
        let resume = tickets.issue_resume(first.duel, first.viewer, next, stamp());
        assert_eq!(resume.ticket.generation, next);
        assert_eq!(tickets.verify(resume.text.as_str()), Ok(resume.ticket));
    }

    #[test]
    fn a_ticket_of_another_clock_is_a_ticket() {
        let tickets = tickets(KEY, None);
        for now in [0, clock::now().0 + 86_400_000] {
            let stamp = Stamp { now: UnixMs(now), ..stamp() };
            let viewer = Viewer { user: UserId::try_from(5).unwrap(), role: Role::Player };
            let issued = tickets.issue(DuelId::try_from(77).unwrap(), viewer, None, stamp);
            assert_eq!(tickets.verify(issued.text.as_str()), Ok(issued.ticket));
        }
    }

    #[test]
    fn other_algorithms_keys_and_texts_are_refused() {
        let tickets = tickets(KEY, None);
        let kid = || Some(tickets.kid.clone());
        let good = issue(&tickets);
        let good = good.text.as_str();
        let (head, rest) = good.split_once('.').unwrap();
        let (body, signature) = rest.split_once('.').unwrap();
        let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
        let doubled = r#"{"sub":"5","sub":"6","duel":77,"role":"player","iat":1,"exp":9999999999,"jti":"j","aud":"duelhub"}"#;
        let refused = [
            signed_otherwise::<Hmac<Sha384>>("HS384", &tickets.kid),
            signed_otherwise::<Hmac<Sha512>>("HS512", &tickets.kid),
            signed(kid(), &claims(), "another key"),
            signed(None, &claims(), KEY),
            signed(Some("nobody".into()), &claims(), KEY),
            signed_with_header(&tickets, |header| header.crit = Some(vec!["exp".to_owned()])),
            format!("{none}.{body}."),
            format!("{none}.{body}.{signature}"),
            format!("{head}.{body}."),
            format!("{head}.{body}"),
            format!("{head}.{body}.{signature}."),
            format!("{head}..{signature}"),
            String::new(),
            "..".to_owned(),
            "x".repeat(limits::TICKET_BYTES_MAX + 1),
            sign_raw(&tickets, doubled),
        ];
        for text in refused {
            assert_eq!(tickets.verify(&text), Err(InvalidTicket), "{text}");
        }
    }

    /// Signs claims that no serializer would write.
    fn sign_raw(tickets: &Tickets, claims: &str) -> String {
        let good = issue(tickets);
        let head = good.text.as_str().split('.').next().unwrap().to_owned();
        // The library encodes a raw value as it stands.
        let raw = serde_json::value::RawValue::from_string(claims.to_owned()).unwrap();
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(tickets.kid.clone());
        let text = jsonwebtoken::encode(&header, &raw, &tickets.encoding).unwrap();
        assert_eq!(text.split('.').next().unwrap(), head);
        text
    }

    #[test]
    fn a_bit_flipped_anywhere_is_noticed() {
        let tickets = tickets(KEY, None);
        let good = issue(&tickets);
        let good = good.text.as_str();
        for at in 0..good.len() {
            let mut bytes = good.as_bytes().to_vec();
            bytes[at] ^= 1;
            let Ok(text) = String::from_utf8(bytes) else { continue };
            assert_eq!(tickets.verify(&text), Err(InvalidTicket), "byte {at}");
        }
    }
}
