//! Libraries that stand between the hub and libc.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use parking_lot::Mutex;

/// The library of `tests/durability/<name>.c`, built once. Whoever builds Rust has a `cc`.
pub(super) fn library(name: &'static str) -> PathBuf {
    static LIBRARIES: Mutex<Option<HashMap<&str, PathBuf>>> = Mutex::new(None);
    let mut libraries = LIBRARIES.lock();
    let built = libraries.get_or_insert_default().entry(name).or_insert_with(|| build(name));
    built.clone()
}

fn build(name: &str) -> PathBuf {
    let source = format!("{}/tests/durability/{name}.c", env!("CARGO_MANIFEST_DIR"));
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = format!("{name}.so");
    let (path, built) = (directory.join(&file), tempfile::tempdir_in(directory).unwrap());
    let new = built.path().join(file);
    let mut cc = Command::new("cc");
    cc.args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o"]);
    assert!(cc.arg(&new).arg(source).status().unwrap().success(), "{name}.c does not compile");
    // In one step, so that no other run finds half of it.
    fs::rename(new, &path).unwrap();
    path
}
