//! The descriptions of the services: which calls there are, and what their messages are made of.

use prost_reflect::{DescriptorPool, MessageDescriptor, MethodDescriptor};
use tonic_reflection::server::{Builder, v1, v1alpha};

use super::call::service_and_method;
use crate::pb;

/// The calls that there are.
#[derive(Debug, Clone)]
pub(super) struct Schema(DescriptorPool);

impl Schema {
    /// Reads the hub's own descriptions, and those of other services.
    pub(super) fn new(others: &'static [u8]) -> Self {
        let mut pool = DescriptorPool::new();
        for set in descriptors(others) {
            pool.decode_file_descriptor_set(set).expect("the descriptors come from our own build");
        }
        Self(pool)
    }

    pub(super) fn method(&self, path: &str) -> Option<MethodDescriptor> {
        let (service, method) = service_and_method(path);
        let service = self.0.get_service_by_name(service)?;
        service.methods().find(|known| known.name() == method)
    }

    /// Returns the message of this full name.
    pub(super) fn message(&self, name: &str) -> Option<MessageDescriptor> {
        self.0.get_message_by_name(name)
    }
}

/// Includes the details of an error, so that a client can show them.
fn descriptors(others: &'static [u8]) -> [&'static [u8]; 5] {
    [
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        pb::DESCRIPTORS,
        others,
        tonic_types::pb::FILE_DESCRIPTOR_SET,
    ]
}

/// Serves the descriptions, in the newer version of the protocol.
pub(super) fn reflection_v1(
    others: &'static [u8],
) -> v1::ServerReflectionServer<impl v1::ServerReflection> {
    reflection(others).build_v1().expect("the descriptors come from our own build")
}

/// Serves the descriptions, in the older version of the protocol.
pub(super) fn reflection_v1alpha(
    others: &'static [u8],
) -> v1alpha::ServerReflectionServer<impl v1alpha::ServerReflection> {
    reflection(others).build_v1alpha().expect("the descriptors come from our own build")
}

fn reflection(others: &'static [u8]) -> Builder<'static> {
    // Each version lists both.
    let builder = Builder::configure().include_reflection_service(false);
    let sets = descriptors(others).into_iter();
    sets.fold(builder, |builder, set| builder.register_encoded_file_descriptor_set(set))
}
