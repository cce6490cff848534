//! Messages as JSON (proto3's mapping), for backends that have no protobuf.
//!
//! A request is bounded before anything is made of it. What is wrong with it is told with the path of the field, in words that
//! come from the field's description, never from a library.

use prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, SerializeOptions};
use serde_path_to_error::{Path, Segment};

use super::request_fault::RequestFault;
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
    let unreadable = |problem: String| Failure::from(RequestFault::NotJson(problem));
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
            return Err(RequestFault::NotJson(problem.to_owned()).into());
        }
        if values > VALUES_MAX {
            let problem = format!("the request has more than {VALUES_MAX} values");
            return Err(RequestFault::NotJson(problem).into());
        }
    }
    Ok(())
}

/// Says what is wrong at a path.
fn field_failure(of: &MessageDescriptor, path: &Path, error: &serde_json::Error) -> Failure {
    let text = error.to_string();
    let quoted = |prefix: &str| text.strip_prefix(prefix)?.split('\'').next();
    let place = Place::find(of, path);
    // The library tells these two of the object in which they are.
    if let Some(unknown) = quoted("unrecognized field name '") {
        let of = place.message().map_or_else(String::new, |of| format!(" of {}", of.name()));
        return Failure::field(place.path_of(unknown), format!("is no field{of}"));
    }
    if let Some(oneof) = quoted("multiple fields provided for oneof '") {
        let oneofs: Vec<_> = place.message().iter().flat_map(|of| of.oneofs()).collect();
        let fields = oneofs.iter().filter(|of| of.name() == oneof).flat_map(|of| of.fields());
        let fields: Vec<_> = fields.map(|field| field.name().to_owned()).collect();
        let problem = format!("must be only one of {}", fields.join(", "));
        return Failure::field(place.path_of(oneof), problem);
    }
    match &place.kind {
        PlaceKind::Field(field, element) => Failure::field(place.path, expected(field, *element)),
        PlaceKind::Message(_) | PlaceKind::Object => {
            Failure::field(place.path, "has an unusable value")
        }
    }
}

/// Where a path leads.
struct Place {
    /// As the other failures name fields: `participants[0].user_id`. Empty for the request itself.
    path: String,
    kind: PlaceKind,
}

enum PlaceKind {
    Message(MessageDescriptor),
    /// A field, or an element of it.
    Field(FieldDescriptor, bool),
    /// Something in an object of the backend's own.
    Object,
}

impl Place {
    fn find(of: &MessageDescriptor, path: &Path) -> Self {
        let mut place = Self { path: String::new(), kind: PlaceKind::Message(of.clone()) };
        for segment in path {
            match segment {
                Segment::Map { key } => place = place.field(key),
                Segment::Seq { index } => place = place.element(*index),
                Segment::Enum { .. } | Segment::Unknown => {}
            }
        }
        place
    }

    fn field(self, key: &str) -> Self {
        let field = self.message().and_then(|message| {
            message.get_field_by_json_name(key).or_else(|| message.get_field_by_name(key))
        });
        let path = self.path_of(field.as_ref().map_or(key, FieldDescriptor::name));
        let kind = field.map_or(PlaceKind::Object, |field| PlaceKind::Field(field, false));
        Self { path, kind }
    }

    fn element(self, index: usize) -> Self {
        let kind = match self.kind {
            PlaceKind::Field(field, _) => PlaceKind::Field(field, true),
            PlaceKind::Message(_) | PlaceKind::Object => PlaceKind::Object,
        };
        Self { path: cut(format!("{}[{index}]", self.path)), kind }
    }

    /// Returns the path of what has this name here.
    fn path_of(&self, name: &str) -> String {
        let separator = if self.path.is_empty() { "" } else { "." };
        cut(format!("{}{separator}{name}", self.path))
    }

    /// Returns the message that is there.
    fn message(&self) -> Option<MessageDescriptor> {
        match &self.kind {
            PlaceKind::Message(message) => Some(message.clone()),
            PlaceKind::Field(field, _) => field.kind().as_message().cloned(),
            PlaceKind::Object => None,
        }
    }
}

/// Says what a field takes.
fn expected(field: &FieldDescriptor, element: bool) -> String {
    if field.is_list() && !element {
        return "must be a list".to_owned();
    }
    match field.kind() {
        Kind::Uint32 | Kind::Uint64 | Kind::Fixed32 | Kind::Fixed64 => {
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
        Kind::Int32
        | Kind::Sint32
        | Kind::Sfixed32
        | Kind::Int64
        | Kind::Sint64
        | Kind::Sfixed64 => "must be a whole number".to_owned(),
        Kind::Double | Kind::Float => "must be a number".to_owned(),
        Kind::Bytes => "must be base64".to_owned(),
    }
}

fn cut(mut path: String) -> String {
    path.truncate(path.floor_char_boundary(PATH_BYTES_MAX));
    path
}
