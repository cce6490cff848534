//! The codec of the messages: prost's, behind a count of the elements that a message has.
//!
//! An element of a repeated field takes two bytes on the wire and up to a hundred in memory. So a message with more than
//! [`limits::GRPC_ELEMENTS_MAX`] is refused before anything is allocated for it. The status then is INVALID_ARGUMENT without
//! details, and its text is the field's path, a space, and what is wrong: [`crate::control`] makes the caller's status of it.
//! A payload that is given as an object is also checked for its depth.

use std::marker::PhantomData;

use prost::Message;
use prost::bytes::Buf as _;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

use crate::limits;

/// Where a message has repeated fields: by number, with their names.
#[derive(Debug)]
pub struct Shape {
    /// Whether it is an object or a list of a payload, of which only so many may stand within each other.
    deepens: bool,
    repeated: &'static [(u64, &'static str)],
    /// Messages within it that have some. A name that is empty is left out of the field's path.
    nested: &'static [(u64, &'static str, &'static Shape)],
}

/// A message of which it is known where it has repeated fields.
pub trait Shaped {
    /// Where. What only clients decode says nothing.
    const SHAPE: Shape = Shape { deepens: false, repeated: &[], nested: &[] };
}

const USER_LIST: Shape = Shape { deepens: false, repeated: &[(1, "user_ids")], nested: &[] };
const AUDIENCE: Shape = Shape {
    deepens: false,
    repeated: &[],
    nested: &[(2, "only", &USER_LIST), (3, "except", &USER_LIST)],
};
const VIEW: Shape = Shape { deepens: false, repeated: &[], nested: &[(3, "payload", &OBJECT)] };
const PUSH: Shape = Shape {
    deepens: false,
    repeated: &[(5, "views")],
    nested: &[(4, "audience", &AUDIENCE), (5, "views", &VIEW), (9, "payload", &OBJECT)],
};
const LAST_EVENT: Shape = Shape {
    deepens: false,
    repeated: &[(4, "views")],
    nested: &[(3, "audience", &AUDIENCE), (4, "views", &VIEW), (5, "payload", &OBJECT)],
};

/// `google.protobuf.Struct`, and what may stand within it.
static OBJECT: Shape =
    Shape { deepens: true, repeated: &[(1, "")], nested: &[(1, "", &OBJECT_ENTRY)] };
static OBJECT_ENTRY: Shape = Shape { deepens: false, repeated: &[], nested: &[(2, "", &VALUE)] };
static VALUE: Shape =
    Shape { deepens: false, repeated: &[], nested: &[(5, "", &OBJECT), (6, "", &LIST)] };
static LIST: Shape = Shape { deepens: true, repeated: &[(1, "")], nested: &[(1, "", &VALUE)] };

macro_rules! shaped {
    ($($message:ident $(: $shape:expr)?),* $(,)?) => {
        $(impl Shaped for super::$message {
            $(const SHAPE: Shape = $shape;)?
        })*
    };
}

shaped! {
    OpenDuelRequest: Shape { deepens: false, repeated: &[(2, "participants")], nested: &[] },
    IssueTicketRequest, RevokeTicketsRequest,
    PushEventRequest: PUSH,
    PushEventsRequest: Shape { deepens: false, repeated: &[], nested: &[(2, "", &PUSH)] },
    CloseDuelRequest: Shape { deepens: false, repeated: &[], nested: &[(3, "last_event", &LAST_EVENT)] },
    GetDuelRequest, ListDuelsRequest, DisconnectRequest,
    WatchDuelsRequest: Shape { deepens: false, repeated: &[(1, "duel_ids")], nested: &[] },
    GetNodeRequest,
    OpenDuelResponse, IssueTicketResponse, RevokeTicketsResponse, PushEventResponse, PushEventsResponse,
    CloseDuelResponse, GetDuelResponse, ListDuelsResponse, DisconnectResponse, WatchDuelsResponse,
    GetNodeResponse,
}

/// prost's codec, which decodes nothing that has too many elements.
#[derive(Debug)]
pub struct BoundedCodec<E, D>(PhantomData<(E, D)>);

impl<E, D> Default for BoundedCodec<E, D> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<E, D> Codec for BoundedCodec<E, D>
where
    E: Message + Send + 'static,
    D: Message + Default + Shaped + Send + 'static,
{
    type Encode = E;
    type Decode = D;
    type Encoder = ProstEncoder<E>;
    type Decoder = BoundedDecoder<D>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<E, D>::raw_encoder(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(ProstCodec::<E, D>::raw_decoder(BufferSettings::default()))
    }
}

/// prost's decoder, behind the count.
#[derive(Debug)]
pub struct BoundedDecoder<D>(ProstDecoder<D>);

impl<D: Message + Default + Shaped> Decoder for BoundedDecoder<D> {
    type Item = D;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<D>, Status> {
        // The library hands over a message in one piece.
        let mut room = limits::GRPC_ELEMENTS_MAX;
        count(bytes.chunk(), &D::SHAPE, &mut room, limits::OBJECT_DEPTH_MAX)?;
        self.0.decode(bytes)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

/// Why a message is not decoded.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    /// The path of the field at fault.
    field: String,
    problem: &'static str,
}

impl Refusal {
    fn new(field: &str, problem: &'static str) -> Self {
        Self { field: field.to_owned(), problem }
    }

    /// Returns it with the name of the field around the one at fault.
    fn within(self, name: &str) -> Self {
        let field = match (name, self.field.as_str()) {
            ("", _) => self.field,
            (name, "") => name.to_owned(),
            (name, field) => format!("{name}.{field}"),
        };
        Self { field, ..self }
    }
}

impl From<Refusal> for Status {
    fn from(Refusal { field, problem }: Refusal) -> Self {
        Self::invalid_argument(format!("{field} {problem}"))
    }
}

/// Takes the elements that a message has out of `room`. Stops at what is no protobuf, which prost refuses. `depth` is how many
/// objects and lists may stand within each other.
fn count(mut bytes: &[u8], shape: &Shape, room: &mut usize, depth: usize) -> Result<(), Refusal> {
    while let Some(key) = varint(&mut bytes) {
        let (field, wire_type) = (key >> 3, key & 7);
        let value = match wire_type {
            0 => varint(&mut bytes).map(|_| &[][..]),
            1 => bytes.split_off(..8),
            2 => varint(&mut bytes)
                .and_then(|length| bytes.split_off(..usize::try_from(length).ok()?)),
            5 => bytes.split_off(..4),
            // The bounds of a group, which nothing of ours is: its fields are counted as if they stood here.
            3 | 4 => Some(&[][..]),
            _ => None,
        };
        let Some(value) = value else { return Ok(()) };
        if let Some((_, name)) = shape.repeated.iter().find(|(number, _)| *number == field) {
            // Packed numbers, of which each ends with a byte below 128; or one element, of which nothing is known here.
            let numbers = value.iter().filter(|byte| **byte < 128).count();
            let elements = if name.ends_with("_ids") && wire_type == 2 { numbers } else { 1 };
            let too_many = || Refusal::new(name, "has too many elements to be decoded");
            *room = room.checked_sub(elements).ok_or_else(too_many)?;
        }
        if let Some((_, name, nested)) = shape.nested.iter().find(|(number, ..)| *number == field) {
            let too_deep = || Refusal::new("", "has too many objects and lists within each other");
            let inner = depth.checked_sub(usize::from(nested.deepens)).ok_or_else(too_deep);
            let counted = inner.and_then(|depth| count(value, nested, room, depth));
            counted.map_err(|refusal| refusal.within(name))?;
        }
    }
    Ok(())
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        value |= u64::from(byte & 127) << shift;
        if byte < 128 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super as pb;
    use super::*;

    fn refused<M: Message + Shaped>(message: &M) -> Option<String> {
        let mut room = limits::GRPC_ELEMENTS_MAX;
        let refused =
            count(&message.encode_to_vec(), &M::SHAPE, &mut room, limits::OBJECT_DEPTH_MAX)
                .err()?;
        Some(refused.field)
    }

    fn push(views: usize, only: usize) -> pb::PushEventRequest {
        let users = pb::UserList { user_ids: vec![1 << 40; only] };
        let audience = pb::Audience { to: Some(pb::audience::To::Only(users)) };
        pb::PushEventRequest {
            duel_id: 77,
            payload_json: "{}".to_owned(),
            views: vec![pb::View::default(); views],
            audience: Some(audience),
            ..Default::default()
        }
    }

    #[test]
    fn the_field_with_too_many_elements_is_named() {
        let max = limits::GRPC_ELEMENTS_MAX;
        assert_eq!(refused(&push(max, 0)), None);
        assert_eq!(refused(&push(max + 1, 0)).as_deref(), Some("views"));
        assert_eq!(refused(&push(0, max)), None);
        assert_eq!(refused(&push(0, max + 1)).as_deref(), Some("audience.only.user_ids"));
        let of_stream = pb::PushEventsRequest { tag: 9, push: Some(push(max + 1, 0)) };
        assert_eq!(refused(&of_stream).as_deref(), Some("views"));
        let participants = vec![pb::Participant::default(); max + 1];
        let open = pb::OpenDuelRequest { duel_id: 77, participants, ..Default::default() };
        assert_eq!(refused(&open).as_deref(), Some("participants"));
        let watch = pb::WatchDuelsRequest { duel_ids: vec![1; max + 1] };
        assert_eq!(refused(&watch).as_deref(), Some("duel_ids"));
    }

    #[test]
    fn elements_count_also_where_a_field_comes_again_or_within_a_group() {
        let max = limits::GRPC_ELEMENTS_MAX;
        let half = push(max / 2 + 1, 0).encode_to_vec();
        let whole = [half.clone(), half].concat();
        assert!(count(&whole, &PUSH, &mut { max }, limits::OBJECT_DEPTH_MAX).is_err());
        let in_parts = pb::PushEventsRequest { tag: 9, push: Some(push(max / 2 + 1, 0)) };
        let in_parts = in_parts.encode_to_vec();
        let shape = <pb::PushEventsRequest as Shaped>::SHAPE;
        assert!(
            count(
                &[in_parts.clone(), in_parts].concat(),
                &shape,
                &mut { max },
                limits::OBJECT_DEPTH_MAX
            )
            .is_err()
        );
        // A group of field 100 begins and ends; prost skips it.
        let group = [&[0xa3, 6, 0xa4, 6][..], &push(max + 1, 0).encode_to_vec()].concat();
        assert!(pb::PushEventRequest::decode(&*group).is_ok());
        assert!(count(&group, &PUSH, &mut { max }, limits::OBJECT_DEPTH_MAX).is_err());
    }

    /// A push whose payload has so many lists within each other, in an object.
    fn deep(depth: usize, per_list: usize) -> pb::PushEventRequest {
        use prost_types::value::Kind;
        let value = |kind| prost_types::Value { kind: Some(kind) };
        let mut innermost = value(Kind::NullValue(0));
        for _ in 1..depth {
            let values = vec![innermost; per_list];
            innermost = value(Kind::ListValue(prost_types::ListValue { values }));
        }
        let payload = prost_types::Struct { fields: [("a".to_owned(), innermost)].into() };
        pb::PushEventRequest { duel_id: 77, payload: Some(payload), ..Default::default() }
    }

    #[test]
    fn an_object_is_bounded_in_depth_and_in_elements() {
        let max = limits::OBJECT_DEPTH_MAX;
        let deepest = deep(max, 1);
        assert_eq!(refused(&deepest), None);
        assert_eq!(refused(&deep(max + 1, 1)).as_deref(), Some("payload"));
        assert!(pb::PushEventRequest::decode(&*deepest.encode_to_vec()).is_ok());
        let view =
            pb::View { user_id: 5, payload: deep(40 * max, 1).payload, ..Default::default() };
        let last_event = Some(pb::LastEvent { views: vec![view], ..Default::default() });
        let close = pb::CloseDuelRequest { duel_id: 77, last_event, ..Default::default() };
        assert_eq!(refused(&close).as_deref(), Some("last_event.views.payload"));
        assert_eq!(refused(&deep(2, limits::GRPC_ELEMENTS_MAX)).as_deref(), Some("payload"));
        let of_objects = (1..max).fold(prost_types::Struct::default(), |object, _| {
            let kind = Some(prost_types::value::Kind::StructValue(object));
            prost_types::Struct { fields: [("a".to_owned(), prost_types::Value { kind })].into() }
        });
        let view = pb::View { user_id: 5, payload: Some(of_objects), ..Default::default() };
        let push = pb::PushEventRequest { views: vec![view], ..Default::default() };
        let of_stream = pb::PushEventsRequest { tag: 0, push: Some(push) };
        assert_eq!(refused(&of_stream), None);
        assert!(pb::PushEventsRequest::decode(&*of_stream.encode_to_vec()).is_ok());
    }

    #[test]
    fn what_is_no_protobuf_is_left_to_the_decoder() {
        for bytes in [&[][..], &[0x2a], &[0x2a, 0xff], &[0xff; 12], &[0x2a, 5, 1], &[7]] {
            assert_eq!(
                count(bytes, &PUSH, &mut { 1 }, limits::OBJECT_DEPTH_MAX),
                Ok(()),
                "{bytes:?}"
            );
        }
    }
}
