//! The JSON object of an event: checked once, passed on byte for byte.

use std::borrow::Cow;
use std::fmt;
use std::sync::OnceLock;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::Encoded;
use crate::id::DuelId;

/// One JSON object as text, with the `duel_id` of its duel in it.
#[derive(Debug, Clone)]
pub struct Payload {
    json: Box<str>,
    encoded: OnceLock<Encoded>,
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.json == other.json
    }
}

/// A text that is no payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// More bytes than the node accepts.
    #[error("must be at most {max} bytes")]
    TooLarge {
        /// How many it accepts.
        max: usize,
    },
    /// Not JSON, or not an object.
    #[error("must be one JSON object")]
    NotAnObject,
    /// An empty list, which is what PHP makes of an empty array.
    #[error("must be one JSON object, and is an empty list; PHP writes an object for (object) []")]
    EmptyList,
    /// `duel_id` is there, but is not this duel's, or is there twice.
    #[error("its duel_id must be the duel's, as a number, once; without one the hub adds it")]
    OtherDuel,
}

impl Payload {
    /// Checks `json`, and puts `duel_id` at its front if it has none. Empty text stands for an empty object.
    ///
    /// # Errors
    /// [`PayloadError`], with what is wrong.
    pub fn parse(
        duel: DuelId,
        json: impl AsRef<str> + Into<Box<str>>,
        bytes_max: usize,
    ) -> Result<Self, PayloadError> {
        let text = json.as_ref();
        if text.len() > bytes_max {
            return Err(PayloadError::TooLarge { max: bytes_max });
        }
        let text = if text.trim_ascii().is_empty() { "{}" } else { text };
        if text.trim_ascii() == "[]" {
            return Err(PayloadError::EmptyList);
        }
        let json = match find_duel_id(text)? {
            Found::None { empty } => with_duel_id(duel, text, empty).into(),
            Found::Number(number) if number == duel.get() => json.into(),
            Found::Number(_) | Found::Other => return Err(PayloadError::OtherDuel),
        };
        Ok(Self { json, encoded: OnceLock::new() })
    }

    /// One that was checked before an engine stored it.
    #[must_use]
    pub const fn from_stored(json: Box<str>) -> Self {
        Self { json, encoded: OnceLock::new() }
    }

    /// The text.
    #[must_use]
    pub fn json(&self) -> &str {
        &self.json
    }

    /// What the data plane sends for it: `encode` is called at most by the first to ask.
    pub fn encoded(&self, encode: impl FnOnce(&str) -> Encoded) -> &Encoded {
        self.encoded.get_or_init(|| encode(&self.json))
    }
}

fn with_duel_id(duel: DuelId, json: &str, empty: bool) -> String {
    let (before, after) = json.split_once('{').unwrap_or(("", json));
    let comma = if empty { "" } else { "," };
    format!("{before}{{\"duel_id\":{duel}{comma}{after}")
}

enum Found {
    None { empty: bool },
    Number(u64),
    Other,
}

fn find_duel_id(json: &str) -> Result<Found, PayloadError> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let found = deserializer.deserialize_map(DuelIdFinder);
    let found = found.map_err(|_| PayloadError::NotAnObject)?;
    deserializer.end().map_err(|_| PayloadError::NotAnObject)?;
    Ok(found)
}

/// Walks the top level of an object without building any of it.
struct DuelIdFinder;

impl<'de> Visitor<'de> for DuelIdFinder {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        let mut found = Found::None { empty: true };
        while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
            let first = matches!(found, Found::None { .. });
            if key == "duel_id" {
                let value = map.next_value::<&serde_json::value::RawValue>()?;
                found = match value.get().parse() {
                    Ok(number) if first => Found::Number(number),
                    _ => Found::Other,
                };
            } else {
                map.next_value::<IgnoredAny>()?;
                if first {
                    found = Found::None { empty: false };
                }
            }
        }
        Ok(found)
    }
}

#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<String, PayloadError> {
        let duel = DuelId::try_from(77).unwrap();
        Payload::parse(duel, json, 64).map(|payload| payload.json().to_owned())
    }

    #[test]
    fn objects_pass_byte_for_byte_and_gain_a_missing_duel_id() {
        let table = [
            ("", r#"{"duel_id":77}"#),
            ("{}", r#"{"duel_id":77}"#),
            ("{ }", r#"{"duel_id":77 }"#),
            (r#" {"a" : 1.50}"#, r#" {"duel_id":77,"a" : 1.50}"#),
            (r#"{"duel_id": 77, "a":[{"duel_id":1}]}"#, r#"{"duel_id": 77, "a":[{"duel_id":1}]}"#),
            (r#"{"a":{"duel_id":1}}"#, r#"{"duel_id":77,"a":{"duel_id":1}}"#),
            ("{\"\\u0064uel_id\":77}", "{\"\\u0064uel_id\":77}"),
        ];
        for (json, expected) in table {
            assert_eq!(parse(json).as_deref(), Ok(expected), "{json}");
        }
    }

    #[test]
    fn what_is_no_object_of_this_duel_is_refused() {
        assert_eq!(parse(" [] "), Err(PayloadError::EmptyList));
        for json in ["[1]", "1", "null", "{", "{}{}", "{}x", r#"{"a":}"#, "{'a':1}", "\u{feff}{}"] {
            assert_eq!(parse(json), Err(PayloadError::NotAnObject), "{json}");
        }
        for json in [
            r#"{"duel_id":78}"#,
            r#"{"duel_id":"77"}"#,
            r#"{"duel_id":null}"#,
            r#"{"duel_id":77,"duel_id":77}"#,
            r#"{"duel_id":78,"a":1,"duel_id":77}"#,
        ] {
            assert_eq!(parse(json), Err(PayloadError::OtherDuel), "{json}");
        }
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(64));
        assert_eq!(parse(&long), Err(PayloadError::TooLarge { max: 64 }));
    }

    #[test]
    fn deep_nesting_does_not_exhaust_the_stack() {
        let duel = DuelId::try_from(1).unwrap();
        let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(30_000), "]".repeat(30_000));
        assert!(Payload::parse(duel, deep, 65_536).is_ok());
    }
}
