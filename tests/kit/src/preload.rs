//! Libraries that stand between the hub and libc.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use parking_lot::Mutex;

/// The library of this C file, built once. Whoever builds Rust has a `cc`.
pub fn library(source: &'static str) -> PathBuf {
    static LIBRARIES: Mutex<Option<HashMap<&str, PathBuf>>> = Mutex::new(None);
    let mut libraries = LIBRARIES.lock();
    let built =
        libraries.get_or_insert_default().entry(source).or_insert_with(|| build(Path::new(source)));
    built.clone()
}

fn build(source: &Path) -> PathBuf {
    let binary = std::env::var("CARGO_BIN_EXE_duelhub").expect("cargo runs the tests");
    let directory = Path::new(&binary).parent().expect("a binary has a directory");
    let file = Path::new(source.file_name().expect("a file has a name")).with_extension("so");
    let (path, built) = (directory.join(&file), tempfile::tempdir_in(directory).unwrap());
    let new = built.path().join(file);
    let mut cc = Command::new("cc");
    cc.args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o"]);
    assert!(cc.arg(&new).arg(source).status().unwrap().success(), "{source:?} does not compile");
    // In one step, so that no other run finds half of it.
    fs::rename(new, &path).unwrap();
    path
}
