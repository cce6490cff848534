//! The file `acknowledged` inside the store: which commit was answered last.
//!
//! It is written after each commit and not synced, so what stands in it is a lower bound of what the store must hold, also
//! after a power loss. With `DURABILITY=os` a power loss may take answered commits, so only those are noted that were
//! synced: at start and at an orderly stop.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use bytes::{Buf as _, BufMut as _};

use super::rows::MetaRow;

const NAME: &str = "acknowledged";

/// What stands in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Note {
    /// The life in which it was written.
    pub(super) life: u64,
    /// The number of the commit.
    pub(super) commit: u64,
}

impl Note {
    pub(super) fn of(meta: &MetaRow) -> Self {
        Self { life: meta.present_life(), commit: meta.commit }
    }

    /// Returns whether a store that says `meta` of itself lacks this commit.
    pub(super) fn is_missing_from(self, meta: &MetaRow) -> bool {
        !meta.knows_life(self.life) || meta.commit < self.commit
    }

    /// Returns what stands in the file; `None` if there is none, or not all of it. Zeros are a first note that a loss of power
    /// has kept from the disk: no life is 0.
    pub(super) fn read(store: &Path) -> io::Result<Option<Self>> {
        let mut bytes = [0; 16];
        let read = File::open(store.join(NAME)).and_then(|file| file.read_exact_at(&mut bytes, 0));
        match read.as_ref().map_err(io::Error::kind) {
            Err(io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => return Ok(None),
            Ok(()) | Err(_) => read?,
        }
        let mut rest = &bytes[..];
        let note = Self { life: rest.get_u64(), commit: rest.get_u64() };
        Ok((note != Self { life: 0, commit: 0 }).then_some(note))
    }
}

/// The file, open for writing.
#[derive(Debug)]
pub(super) struct Acknowledged(File);

impl Acknowledged {
    /// Opens the file, or makes it.
    pub(super) fn open(store: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(store.join(NAME))?;
        // The file may be new.
        File::open(store)?.sync_all()?;
        Ok(Self(file))
    }

    /// Notes the first commit of a life. Synced.
    pub(super) fn begin(&self, note: Note) -> io::Result<()> {
        self.write(note)?;
        self.0.sync_all()
    }

    /// Notes a commit. Not synced.
    pub(super) fn write(&self, note: Note) -> io::Result<()> {
        let mut bytes = [0; 16];
        let mut rest = &mut bytes[..];
        rest.put_u64(note.life);
        rest.put_u64(note.commit);
        self.0.write_all_at(&bytes, 0)
    }
}
