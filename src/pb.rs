//! The types generated from `proto/duelhub/v1`. Always written `pb::X`. Only [`crate::control`] and the clients of the
//! control plane ([`crate::demo`], [`crate::check`]) see them.
#![expect(
    missing_docs,
    clippy::doc_markdown,
    clippy::too_many_lines,
    clippy::missing_errors_doc,
    clippy::allow_attributes_without_reason,
    clippy::allow_attributes,
    reason = "generated: the documentation is the proto's"
)]

pub mod bounded;

tonic::include_proto!("duelhub.v1");

/// The compiled protos, for reflection.
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("descriptors");
