//! A payload that a backend gives as an object (`google.protobuf.Struct`), as the JSON text that the hub passes on.

use prost_types::value::Kind;
use prost_types::{Struct, Value};
use serde_json::{Map, Number};

use super::status::Failure;

/// Up to here every whole number is a double (2^53).
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// Returns the text of a payload that is given as text or as an object, not as both. `field` completes the name of a field.
pub(super) fn payload_json(
    text: String,
    object: Option<Struct>,
    field: impl Fn(&str) -> String,
) -> Result<String, Failure> {
    let Some(object) = object else { return Ok(text) };
    if !text.is_empty() {
        let problem = "is given besides payload_json; give one of them";
        return Err(Failure::field(field("payload"), problem));
    }
    let problem = "has a number that is infinite or none, or a value without a kind";
    let json = json_object(object).ok_or_else(|| Failure::field(field("payload"), problem))?;
    Ok(serde_json::Value::Object(json).to_string())
}

/// Returns `None` if a value is none that JSON has. The decoder bounds the depth.
fn json_object(object: Struct) -> Option<Map<String, serde_json::Value>> {
    object.fields.into_iter().map(|(key, value)| Some((key, json_value(value)?))).collect()
}

fn json_value(value: Value) -> Option<serde_json::Value> {
    Some(match value.kind? {
        Kind::NullValue(_) => serde_json::Value::Null,
        Kind::BoolValue(bool) => bool.into(),
        Kind::StringValue(text) => text.into(),
        Kind::NumberValue(number) => json_number(number)?.into(),
        Kind::StructValue(object) => json_object(object)?.into(),
        Kind::ListValue(list) => {
            let values: Option<Vec<_>> = list.values.into_iter().map(json_value).collect();
            values?.into()
        }
    })
}

/// Writes whole numbers without a decimal point, so that an id stays one.
fn json_number(number: f64) -> Option<Number> {
    if number.fract() == 0.0 && number.abs() <= WHOLE_MAX {
        #[expect(clippy::cast_possible_truncation, reason = "it is whole, and within 2^53")]
        return Some(Number::from(number as i64));
    }
    Number::from_f64(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(kind: Kind) -> Value {
        Value { kind: Some(kind) }
    }

    fn object(fields: impl IntoIterator<Item = (&'static str, Kind)>) -> Struct {
        let fields = fields.into_iter().map(|(key, kind)| (key.to_owned(), value(kind)));
        Struct { fields: fields.collect() }
    }

    #[test]
    fn whole_numbers_stay_whole_and_everything_keeps_its_kind() {
        let values = vec![value(Kind::NullValue(0)), value(Kind::BoolValue(true))];
        let given = object([
            ("duel_id", Kind::NumberValue(9_007_199_254_740_991.0)),
            ("share", Kind::NumberValue(0.25)),
            ("far", Kind::NumberValue(1e300)),
            ("question", Kind::StringValue("Wer?\n\"é\"".to_owned())),
            ("options", Kind::ListValue(prost_types::ListValue { values })),
            ("nothing", Kind::StructValue(Struct::default())),
        ]);
        let json = payload_json(String::new(), Some(given), str::to_owned).unwrap();
        let expected =
            r#"{"duel_id":9007199254740991,"far":1e+300,"nothing":{},"options":[null,true],"#;
        assert_eq!(json, format!("{expected}\"question\":\"Wer?\\n\\\"é\\\"\",\"share\":0.25}}"));
    }

    #[test]
    fn what_json_has_not_and_what_is_given_twice_is_refused_with_the_field() {
        let failed = |text: &str, kind: Option<Kind>| {
            let object = Struct { fields: [("a".to_owned(), Value { kind })].into() };
            let failure = payload_json(text.to_owned(), Some(object), |name| format!("x.{name}"));
            failure.unwrap_err().field_at_fault().map(str::to_owned)
        };
        for (text, kind) in [
            ("", None),
            ("", Some(Kind::NumberValue(f64::NAN))),
            ("", Some(Kind::NumberValue(f64::NEG_INFINITY))),
            ("{}", Some(Kind::BoolValue(true))),
        ] {
            assert_eq!(failed(text, kind.clone()).as_deref(), Some("x.payload"), "{kind:?}");
        }
        assert_eq!(payload_json("{}".to_owned(), None, str::to_owned), Ok("{}".to_owned()));
    }
}
