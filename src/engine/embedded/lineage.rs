//! Whether the files are those that the last process left.
//!
//! A store cannot tell from inside that it is an older copy, or that its end was lost. Two small files beside it can:
//!
//! - `lineage` is written once and never touched, as is a file of the store itself. Whoever restores one from a copy gives
//!   it another inode or another `ctime`, which no tool can set.
//! - `acknowledged` holds the number of the last commit that was answered, written after each one and not synced: so it
//!   is a lower bound of what the store must hold, also after a power loss. It holds the [`Marks`] of those two files, and
//!   its own inode, which changes where a tool replaces only what looks different. Its `ctime` means nothing: after a
//!   power loss that may be older or newer than what stands in it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use crate::clock::{self, UnixMs};

const LINEAGE: &str = "lineage";

const ACKNOWLEDGED: &str = "acknowledged";

/// Written once, when the store is made, by the library.
const STORE_MARKER: &str = "store/version";

const LINEAGE_TEXT: &str = "duelhub knows by this file that the store beside it is no copy from elsewhere.\n\
    Do not touch it. Removed or restored, every duel goes on under a new epoch.\n";

/// What tells these files from any copy of them: inode and `ctime` of the two that are never touched, inode of the third.
pub(super) type Marks = [u8; 56];

/// `None` if one of the files is not there.
pub(super) fn marks(directory: &Path) -> io::Result<Option<Marks>> {
    let mut found = Vec::new();
    for name in [LINEAGE, STORE_MARKER, ACKNOWLEDGED] {
        let file = match fs::metadata(directory.join(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        found.extend(file.ino().to_be_bytes());
        if name != ACKNOWLEDGED {
            found.extend(file.ctime().to_be_bytes());
            found.extend(file.ctime_nsec().to_be_bytes());
        }
    }
    Ok(found.try_into().ok())
}

/// Makes `lineage` anew.
pub(super) fn renew(directory: &Path) -> io::Result<()> {
    let path = directory.join(LINEAGE);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::write(&path, LINEAGE_TEXT)?;
    File::open(&path)?.sync_all()?;
    File::open(directory)?.sync_all()
}

/// The file `acknowledged`, held by this process alone while it is open.
#[derive(Debug, Clone)]
pub(super) struct Acknowledged(Arc<File>);

/// Why it cannot be had.
#[derive(Debug)]
pub(super) enum Unavailable {
    /// Another process has it.
    InUse,
    /// The file system's own reasons.
    Io(io::Error),
}

/// What stands in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Note {
    /// The last commit that was answered.
    pub(super) commit: u64,
    /// When that was.
    pub(super) written_at: UnixMs,
    /// Of the files beside it.
    pub(super) marks: Marks,
}

impl Acknowledged {
    pub(super) fn open(directory: &Path) -> Result<Self, Unavailable> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(directory.join(ACKNOWLEDGED)).map_err(Unavailable::Io)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(Arc::new(file))),
            Err(TryLockError::WouldBlock) => Err(Unavailable::InUse),
            Err(TryLockError::Error(error)) => Err(Unavailable::Io(error)),
        }
    }

    /// `None` if nothing was ever acknowledged, or nothing is known of it.
    pub(super) fn read(&self) -> io::Result<Option<Note>> {
        let mut bytes = [0; 72];
        match self.0.read_exact_at(&mut bytes, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let number = |from: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[from..from + 8]);
            u64::from_be_bytes(number)
        };
        let mut marks = [0; 56];
        marks.copy_from_slice(&bytes[16..]);
        Ok(Some(Note { commit: number(0), written_at: UnixMs(number(8)), marks }))
    }

    /// Forgets everything. Synced.
    pub(super) fn clear(&self) -> io::Result<()> {
        self.0.set_len(0)?;
        self.0.sync_all()
    }

    /// Notes a commit. Not synced.
    pub(super) fn write(&self, commit: u64) -> io::Result<()> {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&commit.to_be_bytes());
        bytes[8..].copy_from_slice(&clock::now().0.to_be_bytes());
        self.0.write_all_at(&bytes, 0)
    }

    /// Begins anew, with the marks of the files as they are now. Synced.
    pub(super) fn begin(&self, commit: u64, marks: &Marks) -> io::Result<()> {
        self.0.write_all_at(marks, 16)?;
        self.write(commit)?;
        self.0.sync_all()
    }
}
