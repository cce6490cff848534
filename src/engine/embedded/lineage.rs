//! Whether the files are those that the last process left.
//!
//! Two small files stand beside the store, so that neither an older copy nor a lost tail passes for the newest state:
//!
//! - `lineage` is written once and never touched. Whoever restores it from a copy, in whatever way, gives it another
//!   inode or another `ctime`, which no tool can set; the store remembers both as its [`mark`].
//! - `acknowledged` holds the number of the last commit that was answered, written after each one and not synced: so it
//!   is a lower bound of what the store must hold, also after a power loss.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

const LINEAGE: &str = "lineage";

const ACKNOWLEDGED: &str = "acknowledged";

const LINEAGE_TEXT: &str = "duelhub knows by this file that the store beside it is no copy from elsewhere.\n\
    Do not touch it. Removed or restored, every duel goes on under a new epoch.\n";

/// What tells this `lineage` from any copy of it; `None` if there is none.
pub(super) fn mark(directory: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match fs::metadata(directory.join(LINEAGE)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let numbers =
        [file.ino().to_be_bytes(), file.ctime().to_be_bytes(), file.ctime_nsec().to_be_bytes()];
    Ok(Some(numbers.concat()))
}

/// Makes `lineage` anew: its mark.
pub(super) fn make_mark(directory: &Path) -> io::Result<Vec<u8>> {
    let path = directory.join(LINEAGE);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::write(&path, LINEAGE_TEXT)?;
    File::open(&path)?.sync_all()?;
    File::open(directory)?.sync_all()?;
    mark(directory)?.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The number of the last commit that was answered.
#[derive(Debug)]
pub(super) struct Acknowledged(File);

impl Acknowledged {
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        Ok(Self(options.open(directory.join(ACKNOWLEDGED))?))
    }

    /// 0 if nothing was ever acknowledged, or nothing is known of it.
    pub(super) fn read(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        match self.0.read_exact_at(&mut bytes, 0) {
            Ok(()) => Ok(u64::from_be_bytes(bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            Err(error) => Err(error),
        }
    }

    pub(super) fn write(&self, commit: u64) -> io::Result<()> {
        self.0.write_all_at(&commit.to_be_bytes(), 0)
    }
}
