//! Compiles the protos to Rust, and to the descriptor set that reflection serves.

use std::path::PathBuf;

use prost::Message as _;

const PROTO: &str = "proto/duelhub/v1/control.proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    let descriptors = protox::compile([PROTO], ["proto"])?;
    let path = PathBuf::from(std::env::var("OUT_DIR")?).join("descriptors.bin");
    std::fs::write(path, descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .codec_path("crate::pb::bounded::BoundedCodec")
        .compile_fds(descriptors)?;
    Ok(())
}
