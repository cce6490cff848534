//! Compiles the suite's protos, which are where Go keeps the module: `tests/conformance/run` says where.

use std::path::PathBuf;

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-env-changed=CONFORMANCE_PROTOS");
    let protos = std::env::var("CONFORMANCE_PROTOS").map_err(|_| "run tests/conformance/run")?;
    let package = ["config", "server_compat", "service"];
    let files = package.map(|file| format!("connectrpc/conformance/v1/{file}.proto"));
    let descriptors = protox::compile(files, [protos])?;
    let path = PathBuf::from(std::env::var("OUT_DIR")?).join("descriptors.bin");
    std::fs::write(path, descriptors.encode_to_vec())?;
    prost_build::Config::new().enable_type_names().compile_fds(descriptors)?;
    Ok(())
}
