//! A disk that fails when it is told to, and what is left of its files after a loss of power.
//!
//! `faults.c` stands between the hub and libc. It does not see what goes past libc: maps of files, and calls that a
//! library makes by itself.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::Site;

/// What disks write at once.
const SECTOR: u64 = 512;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Writes: the disk is full.
    Full,
    /// Writes, of which the first half goes through: the disk becomes full.
    HalfWritten,
    /// Syncs: the disk is failing.
    Sync,
    /// Reads: the disk is failing.
    Read,
}

/// The disk of one hub.
#[derive(Debug)]
pub(crate) struct Disk {
    control: File,
    trace: PathBuf,
    data_dir: PathBuf,
}

/// The library, built once. Whoever builds Rust has a `cc`.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/durability/faults.c");
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (path, built) = (directory.join("faults.so"), tempfile::tempdir_in(directory).unwrap());
        let new = built.path().join("faults.so");
        let mut cc = Command::new("cc");
        cc.args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o"]);
        assert!(cc.arg(&new).arg(source).status().unwrap().success(), "faults.c does not compile");
        // In one step, so that no other run finds half of it.
        fs::rename(new, &path).unwrap();
        path
    })
}

impl Disk {
    /// Puts a disk under `site` that can fail. Every start from now on has it.
    pub(crate) fn under(site: &mut Site) -> Self {
        let (control, trace) = (site.path().join("fault"), site.path().join("trace"));
        fs::write(&control, "0").unwrap();
        for (name, path) in [
            ("LD_PRELOAD", library()),
            ("FAULTS_DIR", &site.data_dir()),
            ("FAULTS_FILE", &control),
            ("FAULTS_TRACE", &trace),
        ] {
            site.set(name, path.to_str().unwrap());
        }
        let control = OpenOptions::new().write(true).open(control).unwrap();
        Self { control, trace, data_dir: site.data_dir() }
    }

    /// From now on.
    pub(crate) fn set(&self, fault: Fault) {
        let byte = match fault {
            Fault::None => b'0',
            Fault::Full => b'w',
            Fault::HalfWritten => b'h',
            Fault::Sync => b's',
            Fault::Read => b'r',
        };
        self.control.write_all_at(&[byte], 0).unwrap();
    }

    /// Takes away what a disk without power may not have: any of what was written and not synced. Only while no process
    /// has the files open.
    pub(crate) fn lose_power(&self, dice: &mut StdRng) {
        let unsynced = self.unsynced();
        let mut files = Vec::new();
        walk(&self.data_dir, &mut files);
        for path in files {
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            let metadata = file.metadata().unwrap();
            let Some(ranges) = unsynced.get(&metadata.ino()) else { continue };
            // All of it, some of it, nothing of it.
            let survives = [0.0, 0.5, 1.0][dice.random_range(0..3)];
            for (start, end) in ranges {
                take_away(&file, (*start, (*end).min(metadata.len())), survives, dice);
            }
        }
        // What is there now is on the disk.
        File::create(&self.trace).unwrap();
    }

    /// What was written and not synced since, by inode. A loss of power in the middle of a sync may lose what it was to save.
    fn unsynced(&self) -> HashMap<u64, Vec<(u64, u64)>> {
        let mut unsynced: HashMap<u64, Vec<(u64, u64)>> = HashMap::new();
        // How much of a file's writes a sync under way covers, by thread.
        let mut covers: BTreeMap<u64, usize> = BTreeMap::new();
        let trace = fs::read_to_string(&self.trace).unwrap_or_default();
        for line in trace.lines() {
            let (what, numbers) = line.split_at(1);
            let numbers: Vec<u64> =
                numbers.split_whitespace().map(|n| n.parse().unwrap()).collect();
            match (what, numbers.as_slice()) {
                ("W", [inode, offset, length]) => {
                    unsynced.entry(*inode).or_default().push((*offset, offset + length));
                }
                ("T", [inode, length]) => {
                    for range in unsynced.entry(*inode).or_default() {
                        range.1 = range.1.min(*length);
                    }
                }
                ("B", [thread, inode]) => {
                    covers.insert(*thread, unsynced.get(inode).map_or(0, Vec::len));
                }
                ("S", [thread, inode]) => {
                    let covered = covers.remove(thread).unwrap_or(0);
                    let ranges = unsynced.entry(*inode).or_default();
                    // Another thread's sync may have been done in between.
                    ranges.drain(..covered.min(ranges.len()));
                }
                _ => panic!("faults.c does not write {line:?}"),
            }
        }
        unsynced
    }
}

/// Zeroes those sectors of the range that do not survive: a part of a file that was never written reads so.
fn take_away(file: &File, (start, end): (u64, u64), survives: f64, dice: &mut StdRng) {
    let mut at = start;
    while at < end {
        let next = ((at / SECTOR + 1) * SECTOR).min(end);
        if !dice.random_bool(survives) {
            let zeros = vec![0; usize::try_from(next - at).unwrap()];
            file.write_all_at(&zeros, at).unwrap();
        }
        at = next;
    }
}

fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { walk(&path, found) } else { found.push(path) }
    }
}
