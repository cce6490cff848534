//! Messages as JSON (proto3's mapping), for backends that have no protobuf.
//!
//! A request is bounded before anything is made of it. What is wrong with it is told with the path of the field, in words that
//! come from the field's description, never from a library.

use std::fmt::Write as _;

use prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, SerializeOptions};
use serde_path_to_error::{Path, Segment};

use super::status::Failure;
use crate::limits;

/// Objects and lists within each other: those of a payload, and the fields around it.
const DEPTH_MAX: usize = limits::OBJECT_DEPTH_MAX + 8;

/// Values and objects in one request. Each takes up to a hundred times its bytes once it is read.
const VALUES_MAX: usize = 2 * limits::GRPC_ELEMENTS_MAX;

/// How much of a field's path is told: its beginning.
const PATH_BYTES_MAX: usize = 128;

/// Returns the message of the type that the JSON object stands for, encoded as protobuf.
pub(super) fn decode(of: &MessageDescriptor, json: &[u8]) -> Result<Vec<u8>, Failure> {
    let unreadable = |problem: String| Failure::Unreadable(problem);
    let text = std::str::from_utf8(json)
        .map_err(|_| unreadable("the request is not JSON: it is not UTF-8".to_owned()))?;
    check_bounds(json)?;
    if !text.trim_ascii_start().starts_with('{') {
        let problem =
            "the request must be one JSON object, {} at least; PHP writes one for (object) []";
        return Err(unreadable(problem.to_owned()));
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut deserializer, &mut track);
    let decoded = DynamicMessage::deserialize(of.clone(), tracked);
    let ended = decoded.and_then(|message| deserializer.end().map(|()| message));
    match ended {
        Ok(message) => Ok(message.encode_to_vec()),
        Err(error) if error.is_data() => Err(field_failure(of, &track.path(), &error)),
        Err(error) => {
            let (line, column) = (error.line(), error.column());
            let problem = format!("the request is not JSON, at line {line}, column {column}");
            Err(unreadable(problem))
        }
    }
}

/// Returns a message of the type, encoded as protobuf, as JSON. Fields that are not set are written, too, so that a program
/// that reads it finds each.
pub(super) fn encode(of: &MessageDescriptor, message: &[u8]) -> Result<Vec<u8>, Failure> {
    let message = DynamicMessage::decode(of.clone(), message).map_err(|_| Failure::Internal)?;
    let mut json = serde_json::Serializer::new(Vec::new());
    let options = SerializeOptions::new().skip_default_fields(false);
    message.serialize_with_options(&mut json, &options).map_err(|_| Failure::Internal)?;
    Ok(json.into_inner())
}

/// Counts what JSON would be made into, without making anything.
fn check_bounds(json: &[u8]) -> Result<(), Failure> {
    let (mut depth, mut values) = (0_usize, 0_usize);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => (depth, values) = (depth + 1, values + 1),
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' => values += 1,
            _ => {}
        }
        if depth > DEPTH_MAX {
            let problem = "the request has too many objects and lists within each other";
            return Err(Failure::Unreadable(problem.to_owned()));
        }
        if values > VALUES_MAX {
            let problem = format!("the request has more than {VALUES_MAX} values");
            return Err(Failure::Unreadable(problem));
        }
    }
    Ok(())
}

/// Says what is wrong at a path.
fn field_failure(of: &MessageDescriptor, path: &Path, error: &serde_json::Error) -> Failure {
    let text = error.to_string();
    let quoted = |prefix: &str| text.strip_prefix(prefix)?.split('\'').next();
    let mut path_text = path_text(path);
    let place = Place::find(of, path);
    // The library tells these two of the object in which they are.
    if let Some(unknown) = quoted("unrecognized field name '") {
        let separator = if path_text.is_empty() { "" } else { "." };
        path_text = cut(format!("{path_text}{separator}{unknown}"));
        let of = place.message().map_or_else(String::new, |of| format!(" of {}", of.name()));
        return Failure::field(path_text, format!("is no field{of}"));
    }
    if let Some(oneof) = quoted("multiple fields provided for oneof '") {
        let oneofs: Vec<_> = place.message().iter().flat_map(|of| of.oneofs()).collect();
        let fields = oneofs.iter().filter(|of| of.name() == oneof).flat_map(|of| of.fields());
        let fields: Vec<_> = fields.map(|field| field.json_name().to_owned()).collect();
        let problem = format!("must have only one of {}", fields.join(", "));
        return match path_text.is_empty() {
            true => Failure::Unreadable(format!("the request {problem}")),
            false => Failure::field(path_text, problem),
        };
    }
    match place {
        Place::Field(field, element) => Failure::field(path_text, expected(&field, element)),
        Place::Message(_) | Place::Object => Failure::field(path_text, "has an unusable value"),
    }
}

/// Where a path leads.
enum Place {
    /// To a message.
    Message(MessageDescriptor),
    /// To a field, or to an element of it.
    Field(FieldDescriptor, bool),
    /// Into an object of the backend's own.
    Object,
}

impl Place {
    fn find(of: &MessageDescriptor, path: &Path) -> Self {
        let mut place = Self::Message(of.clone());
        for segment in path {
            place = match segment {
                Segment::Map { key } => place.field(key),
                Segment::Seq { .. } => place.element(),
                Segment::Enum { .. } | Segment::Unknown => place,
            };
        }
        place
    }

    fn field(self, name: &str) -> Self {
        let field = self.message().and_then(|message| {
            message.get_field_by_json_name(name).or_else(|| message.get_field_by_name(name))
        });
        field.map_or(Self::Object, |field| Self::Field(field, false))
    }

    fn element(self) -> Self {
        match self {
            Self::Field(field, _) => Self::Field(field, true),
            other => other,
        }
    }

    /// Returns the message that is there.
    fn message(&self) -> Option<MessageDescriptor> {
        match self {
            Self::Message(message) => Some(message.clone()),
            Self::Field(field, _) => field.kind().as_message().cloned(),
            Self::Object => None,
        }
    }
}

/// Says what a field takes.
fn expected(field: &FieldDescriptor, element: bool) -> String {
    if field.is_list() && !element {
        return "must be a list".to_owned();
    }
    match field.kind() {
        Kind::Uint32 | Kind::Uint64 => {
            "must be a whole number from 0 on, as a number or as a string of digits".to_owned()
        }
        Kind::Bool => "must be true or false".to_owned(),
        Kind::String => "must be a string".to_owned(),
        Kind::Enum(of) => {
            let names: Vec<_> = of.values().map(|value| value.name().to_owned()).collect();
            format!("must be one of {}", names.join(", "))
        }
        Kind::Message(of) if of.full_name() == "google.protobuf.Duration" => {
            "must be seconds as a string, such as \"300s\"".to_owned()
        }
        Kind::Message(_) => "must be an object; PHP writes one for (object) []".to_owned(),
        _ => "has another type".to_owned(),
    }
}

/// Writes a path as the other failures do: `participants[0].userId`. Empty for the request itself.
fn path_text(path: &Path) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Map { key } => {
                text.push_str(if text.is_empty() { "" } else { "." });
                text.push_str(key);
            }
            Segment::Seq { index } => {
                let _written = write!(text, "[{index}]");
            }
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    cut(text)
}

fn cut(mut path: String) -> String {
    path.truncate(path.floor_char_boundary(PATH_BYTES_MAX));
    path
}
