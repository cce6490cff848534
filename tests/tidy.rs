//! House rules, read off the sources: what imports what, what is documented, what has grown too large.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
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
    ("places", &[]),
    ("version", &[]),
    ("pb", &["limits"]),
    ("event", &["clock", "id"]),
    ("config", &["id", "limits"]),
    ("telemetry", &["config", "limits"]),
    ("telegram", &["clock", "config", "id", "limits"]),
    ("ticket", &["clock", "config", "event", "id", "limits"]),
    ("engine", &["clock", "config", "event", "id", "limits", "ticket"]),
    ("hub", &["clock", "config", "engine", "event", "id", "limits", "metrics", "ticket"]),
    (
        "control",
        &[
            "clock", "config", "engine", "event", "hub", "id", "limits", "metrics", "places", "pb",
            "ticket", "version",
        ],
    ),
    (
        "edge",
        &[
            "clock", "config", "engine", "event", "hub", "id", "limits", "metrics", "places",
            "telegram", "ticket",
        ],
    ),
    (
        "admin",
        &[
            "clock", "config", "engine", "event", "hub", "id", "limits", "metrics", "places",
            "version",
        ],
    ),
    ("demo", &["config", "edge", "id", "pb"]),
    ("bench", &["config", "demo", "pb"]),
    (
        "fuzz",
        &["clock", "config", "control", "edge", "engine", "event", "id", "telegram", "ticket"],
    ),
    ("check", &["clock", "config", "demo", "id", "pb", "telegram"]),
    (
        "server",
        &[
            "admin", "config", "control", "demo", "edge", "engine", "hub", "limits", "metrics",
            "pb", "ticket", "version",
        ],
    ),
];

/// Lines of a file, tests left out: beyond this it is more than one thing.
const FILE_LINES_MAX: usize = 500;

fn files(directory: &str, extension: &str) -> Vec<PathBuf> {
    fn walk(directory: &Path, extension: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            // What tests leave behind (tests/.out) may be a whole Debian.
            if path.is_symlink() || path.file_name().is_some_and(|name| name == ".out") {
                continue;
            }
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
    for path in [files("src", "rs"), files("tests", "rs"), files("benches", "rs")].concat() {
        let source = read(&path);
        assert!(source.starts_with("//! "), "{} has no module documentation", path.display());
        let lines = code(&source).lines().count();
        assert!(lines <= FILE_LINES_MAX, "{} has {lines} lines", path.display());
    }
}

/// A path of the map without its braces: `a/{b,c}.rs` are two.
fn expand(path: &str) -> Vec<String> {
    let Some((before, rest)) = path.split_once('{') else { return vec![path.to_owned()] };
    let (names, after) = rest.split_once('}').expect("a brace that is closed");
    names.split(',').map(|name| format!("{before}{name}{after}")).collect()
}

/// The files of `src` that the map's first column names, each as often as it does. A path that does not begin with `src/`
/// stands beside the row's first one: `memory/duel_state.rs` after `src/engine/memory.rs` is in `src/engine`.
fn mapped(map: &str) -> Vec<String> {
    let (_, map) = map.split_once("## Map").expect("a map");
    let rows = map.split("\n## ").next().unwrap().lines();
    let columns = rows.filter_map(|row| row.strip_prefix("| `src/")?.split(" |").next());
    let paths = columns.flat_map(|column| {
        let directory = column.split('`').next().unwrap().rsplit_once('/').map_or("", |(at, _)| at);
        column.trim_end_matches('`').split("`, `").enumerate().map(move |(nth, path)| {
            match path.strip_prefix("src/") {
                Some(path) => path.to_owned(),
                None if nth == 0 || directory.is_empty() => path.to_owned(),
                None => format!("{directory}/{path}"),
            }
        })
    });
    paths.filter(|path| path.ends_with(".rs")).flat_map(|path| expand(&path)).collect()
}

#[test]
fn the_map_of_the_architecture_names_every_file_and_no_other() {
    let src = Path::new(ROOT).join("src");
    let mut mapped = mapped(&read(&Path::new(ROOT).join("ARCHITECTURE.md")));
    // It stands in the text of the row of `main.rs`; `build.rs` stands beside the code that it generates.
    mapped.push("lib.rs".to_owned());
    mapped.retain(|path| path != "build.rs");
    mapped.sort_unstable();
    let relative = |path: PathBuf| path.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
    let mut there: Vec<_> = files("src", "rs").into_iter().map(relative).collect();
    there.sort_unstable();
    let missing: Vec<_> = there.iter().filter(|path| !mapped.contains(path)).collect();
    let gone: Vec<_> = mapped.iter().filter(|path| !there.contains(path)).collect();
    assert!(missing.is_empty() && gone.is_empty(), "no row for {missing:?}; gone are {gone:?}");
    assert_eq!(mapped, there, "a file has one row");
}

#[test]
fn a_map_that_lacks_a_file_or_names_it_in_another_place_is_noticed() {
    let row = |path: &str| format!("## Map\n\n| `{path}` | what for |\n\n## Next\n| `src/no.rs` |");
    assert_eq!(mapped(&row("src/a.rs`, `a/{b,c}.rs")), ["a.rs", "a/b.rs", "a/c.rs"]);
    assert_eq!(mapped(&row("src/a/{b,c}.rs`, `scripts/*.lua")), ["a/b.rs", "a/c.rs"]);
    assert_eq!(mapped(&row("src/a/b.rs`, `b/c.rs`, `src/d.rs")), ["a/b.rs", "a/b/c.rs", "d.rs"]);
    assert_eq!(mapped(&row("tests/a.rs")), [""; 0]);
}

/// The name of the type that a line defines for others.
fn defined_type(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub")?;
    let rest = if rest.starts_with('(') { rest.split_once(')')?.1 } else { rest };
    let (kind, rest) = rest.trim_start().split_once(' ')?;
    let is_type = ["struct", "enum", "trait", "type", "union"].contains(&kind);
    is_type.then(|| rest.split(|c: char| !c.is_alphanumeric()).next().unwrap())
}

#[test]
fn a_type_name_stands_for_one_type_within_a_module() {
    let src = Path::new(ROOT).join("src");
    let mut known = BTreeMap::new();
    let mut problems = Vec::new();
    for path in files("src", "rs") {
        let file = path.strip_prefix(&src).unwrap().to_str().unwrap();
        let module = file.split(['/', '.']).next().unwrap().to_owned();
        for name in code(&read(&path)).lines().filter_map(defined_type) {
            let before = known.insert((module.clone(), name.to_owned()), file.to_owned());
            problems.extend(before.map(|at| format!("{name}: {at} and {file}")));
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

/// Lines of a function, its signature included.
const FUNCTION_LINES_MAX: usize = 80;

#[test]
fn every_function_fits_on_a_screen() {
    for path in files("src", "rs") {
        let source = read(&path);
        let lines: Vec<_> = source.lines().collect();
        for (start, line) in lines.iter().enumerate() {
            let Some((before, _)) = line.split_once("fn ") else { continue };
            let modifier =
                |word: &str| word.starts_with("pub") || ["async", "const"].contains(&word);
            if line.ends_with(['}', ';']) || !before.split_whitespace().all(modifier) {
                continue;
            }
            // rustfmt ends a function with a brace that stands where it began, or with its signature.
            let indent = &line[..line.len() - line.trim_start().len()];
            let ends = |rest: &str| rest == "}" || rest.starts_with(')') && rest.ends_with(';');
            let mut rests = lines[start..].iter().map(|line| line.strip_prefix(indent));
            let end = rests.position(|rest| rest.is_some_and(ends));
            let length = end.expect("an end") + 1;
            let place = format!("{}:{}", path.display(), start + 1);
            assert!(length <= FUNCTION_LINES_MAX, "{place}: {length} lines");
        }
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
