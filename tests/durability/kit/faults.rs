//! A disk that fails when it is told to, and what is left of its files after a loss of power.
//!
//! `faults.c` stands between the hub and libc. It does not see what goes past libc: maps of files, and calls that a
//! library makes by itself.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use duelhub_testkit::preload::library;
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

impl Disk {
    /// Puts a disk under `site` that can fail. Every start from now on has it.
    pub(crate) fn under(site: &mut Site) -> Self {
        let (control, trace) = (site.path().join("fault"), site.path().join("trace"));
        fs::write(&control, "0").unwrap();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/durability/faults.c");
        for (name, path) in [
            ("LD_PRELOAD", &library(source)),
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
        if self.data_dir.exists() {
            walk(&self.data_dir, &mut files);
        }
        for path in files {
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            let Some(writes) = unsynced.get(&file.metadata().unwrap().ino()) else { continue };
            // All of it, some of it, nothing of it.
            let survives = [0.0, 0.5, 1.0][dice.random_range(0..3)];
            // The last first, so that what the first has replaced is there in the end.
            for write in writes.iter().rev() {
                write.take_away(&file, survives, dice);
            }
        }
        // What is there now is on the disk.
        File::create(&self.trace).unwrap();
    }

    /// What was written and not synced since, by inode, in order. A loss of power in the middle of a sync may lose what
    /// it was to save.
    fn unsynced(&self) -> HashMap<u64, Vec<Write>> {
        let mut unsynced: HashMap<u64, Vec<Write>> = HashMap::new();
        // How much of a file's writes a sync under way covers, by thread.
        let mut covers: BTreeMap<u64, usize> = BTreeMap::new();
        let trace = fs::read_to_string(&self.trace).unwrap_or_default();
        for line in trace.lines() {
            let words: Vec<_> = line.split(' ').collect();
            let number = |index: usize| words[index].parse::<u64>().unwrap();
            match words[0] {
                "W" => {
                    let (start, replaced) = (number(2), bytes(words[4]));
                    let write = Write { start, end: start + number(3), replaced };
                    unsynced.entry(number(1)).or_default().push(write);
                }
                "T" => {
                    for write in unsynced.entry(number(1)).or_default() {
                        write.end = write.end.min(number(2));
                    }
                }
                "B" => _ = covers.insert(number(1), unsynced.get(&number(2)).map_or(0, Vec::len)),
                "S" => {
                    let covered = covers.remove(&number(1)).unwrap_or(0);
                    let writes = unsynced.entry(number(2)).or_default();
                    // Another thread's sync may have been done in between.
                    writes.drain(..covered.min(writes.len()));
                }
                _ => panic!("faults.c does not write {line:?}"),
            }
        }
        unsynced
    }
}

/// A write that was not synced.
#[derive(Debug)]
struct Write {
    start: u64,
    end: u64,
    /// What stood there, as far as it is known; the rest had never been written.
    replaced: Vec<u8>,
}

impl Write {
    /// Takes those sectors away that do not survive.
    fn take_away(&self, file: &File, survives: f64, dice: &mut StdRng) {
        let end = self.end.min(file.metadata().unwrap().len());
        let mut at = self.start;
        while at < end {
            let next = ((at / SECTOR + 1) * SECTOR).min(end);
            if !dice.random_bool(survives) {
                let index = |at: u64| usize::try_from(at - self.start).unwrap();
                let mut before = self.replaced.clone();
                before.resize(before.len().max(index(next)), 0);
                file.write_all_at(&before[index(at)..index(next)], at).unwrap();
            }
            at = next;
        }
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks_exact(2);
    digits.map(|two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { walk(&path, found) } else { found.push(path) }
    }
}
