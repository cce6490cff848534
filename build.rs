//! Compiles the protos to Rust, and to the descriptor set that reflection serves. Says which build it is.

use std::path::PathBuf;
use std::process::Command;

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
    say_which_build();
    Ok(())
}

/// Sets what `src/version.rs` shows.
fn say_which_build() {
    println!("cargo::rerun-if-env-changed=DUELHUB_REVISION");
    // Written at each commit and each checkout.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    let given = std::env::var("DUELHUB_REVISION").ok().filter(|given| !given.is_empty());
    let described = || git(&["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]);
    let revision = given.or_else(described).unwrap_or_else(|| "unknown".to_owned());
    let date = git(&["show", "--no-patch", "--format=%cs", "HEAD"]);
    let profile = std::env::var("PROFILE").unwrap_or_default();
    let build = date.map_or_else(|| profile.clone(), |date| format!("{date}, {profile}"));
    println!("cargo::rustc-env=DUELHUB_REVISION={revision}");
    println!("cargo::rustc-env=DUELHUB_BUILD={build}");
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
