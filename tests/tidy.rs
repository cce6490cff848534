//! House rules, read off the sources: what imports what, what is documented, what has grown too large.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use duelhub::config::VARIABLES;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What each module of the crate may import from the crate; the map of ARCHITECTURE.md. Leaves may import any leaf above
/// them, which the compiler would not mind either way.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("id", &[]),
    ("limits", &[]),
    ("metrics", &[]),
    ("pb", &[]),
    ("event", &["clock", "id"]),
    ("config", &["id", "limits"]),
    ("telemetry", &["config"]),
    ("telegram", &["clock", "config", "id", "limits"]),
    ("ticket", &["clock", "config", "event", "id", "limits"]),
    ("engine", &["clock", "config", "event", "id", "limits", "ticket"]),
    ("hub", &["clock", "config", "engine", "event", "id", "limits", "metrics", "ticket"]),
    (
        "control",
        &["clock", "config", "engine", "event", "hub", "id", "limits", "metrics", "pb", "ticket"],
    ),
    (
        "edge",
        &[
            "clock", "config", "engine", "event", "hub", "id", "limits", "metrics", "telegram",
            "ticket",
        ],
    ),
    ("admin", &["hub", "metrics"]),
    ("demo", &["config", "edge", "id", "pb"]),
    ("bench", &["config", "demo", "pb"]),
    ("check", &["clock", "config", "demo", "id", "pb", "telegram"]),
    (
        "server",
        &[
            "admin", "config", "control", "demo", "edge", "engine", "hub", "limits", "metrics",
            "pb", "ticket",
        ],
    ),
];

/// Lines of a file, tests left out: beyond this it is more than one thing.
const FILE_LINES_MAX: usize = 500;

fn files(directory: &str, extension: &str) -> Vec<PathBuf> {
    fn walk(directory: &Path, extension: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, extension, found);
            } else if path.extension().is_some_and(|known| known == extension) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(ROOT).join(directory), extension, &mut found);
    assert!(!found.is_empty());
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

/// The code before the tests.
fn code(source: &str) -> &str {
    source.split("#[cfg(test)]").next().unwrap()
}

#[test]
fn imports_run_one_way() {
    for path in files("src", "rs") {
        let relative = path.strip_prefix(Path::new(ROOT).join("src")).unwrap();
        let module = relative.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if ["main", "lib", "command"].contains(&module) {
            continue;
        }
        let row = MAY_IMPORT.iter().find(|(name, _)| *name == module);
        let (_, allowed) = row.unwrap_or_else(|| panic!("{module} is not on the map"));
        let source = read(&path);
        let code = code(&source).lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            for import in line.split("crate::").skip(1) {
                let end =
                    import.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(import.len());
                let name = &import[..end];
                assert!(
                    name == module || allowed.contains(&name),
                    "{}: {module} must not import {name}: {line}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn every_file_says_what_it_is_and_is_one_thing() {
    let tests = ["tests/it", "tests/engines", "tests/model", "tests/nodes", "tests/durability"];
    let tests = tests.into_iter().flat_map(|directory| files(directory, "rs"));
    for path in files("src", "rs").into_iter().chain(tests) {
        let source = read(&path);
        assert!(source.starts_with("//! "), "{} has no module documentation", path.display());
        let lines = code(&source).lines().count();
        assert!(lines <= FILE_LINES_MAX, "{} has {lines} lines", path.display());
    }
}

#[test]
fn every_module_is_on_the_map_of_the_architecture() {
    let map = read(&Path::new(ROOT).join("ARCHITECTURE.md"));
    for path in files("src", "rs") {
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(map.contains(name), "{} is not in ARCHITECTURE.md", path.display());
    }
}

#[test]
fn every_variable_is_documented_with_its_default() {
    let readme = read(&Path::new(ROOT).join("README.md"));
    let example = read(&Path::new(ROOT).join("deploy/app.env.example"));
    let names: BTreeSet<_> = VARIABLES.iter().map(|variable| variable.name).collect();
    assert_eq!(names.len(), VARIABLES.len(), "no name twice");
    for variable in VARIABLES {
        let default = variable.default.unwrap_or("none");
        let row = format!("| `{}` | {default} |", variable.name);
        assert!(readme.contains(&row), "README.md has no row {row}");
        assert!(example.contains(variable.name), "app.env.example lacks {}", variable.name);
    }
}

#[test]
fn nothing_waits_forever_or_grows_without_bound() {
    for path in files("src", "rs") {
        let source = read(&path);
        for banned in ["unbounded_channel", "todo!(", "unimplemented!(", "std::thread::sleep"] {
            assert!(!source.contains(banned), "{} uses {banned}", path.display());
        }
    }
}
