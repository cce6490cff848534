//! Why a store is not opened: what the operator reads, and what of the system's errors is damage and what is the machine's.

use std::io;
use std::path::{Path, PathBuf};

use super::rows::FORMAT;

/// The system's errors that are about what stands in a file. The others are about the machine, and pass.
const DAMAGE: [io::ErrorKind; 5] = [
    io::ErrorKind::AlreadyExists,
    io::ErrorKind::InvalidData,
    io::ErrorKind::InvalidInput,
    io::ErrorKind::NotFound,
    io::ErrorKind::UnexpectedEof,
];

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("DATA_DIR: {0} is in use by another duelhub")]
    InUse(PathBuf),
    /// The directory cannot be made or read.
    #[error("DATA_DIR: {directory}: {error}")]
    Directory {
        /// Which.
        directory: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It was written by another version.
    #[error(
        "DATA_DIR: the store in {directory} has format {found}, and this version reads {FORMAT}: \
         use the version that wrote it"
    )]
    Format {
        /// Which.
        directory: PathBuf,
        /// What it says of itself.
        found: String,
    },
    /// It does not hold what it must.
    #[error(
        "DATA_DIR: the store in {directory} is damaged: {what}. duelhub store export saves what can be \
         read of it, duelhub store check tells whether it is whole; restore a copy, or move the \
         directory away to start empty"
    )]
    Damaged {
        /// Which.
        directory: PathBuf,
        /// What is wrong.
        what: String,
    },
}

impl StoreError {
    /// The directory or a file in it, and what the system says of it.
    pub(super) fn directory(directory: &Path) -> impl Fn(io::Error) -> Self + Copy + use<'_> {
        move |error| Self::Directory { directory: directory.to_owned(), error }
    }

    /// What was found to be wrong.
    pub(super) fn damaged(directory: &Path, what: impl Into<String>) -> Self {
        Self::Damaged { directory: directory.to_owned(), what: what.into() }
    }

    /// Why the library does not open the store.
    pub(super) fn of(directory: &Path, error: &fjall::Error) -> Self {
        if matches!(error, fjall::Error::Locked) {
            return Self::InUse(directory.to_owned());
        }
        if let fjall::Error::InvalidVersion(found) = error {
            let found =
                found.map_or_else(|| "unknown".to_owned(), |found| format!("fjall {found}"));
            return Self::Format { directory: directory.to_owned(), found };
        }
        let (fjall::Error::Io(system) | fjall::Error::Storage(fjall::LsmError::Io(system))) = error
        else {
            return Self::damaged(directory, error.to_string());
        };
        if DAMAGE.contains(&system.kind()) {
            return Self::damaged(directory, error.to_string());
        }
        let number = system.raw_os_error();
        let system = number.map_or(system.kind().into(), io::Error::from_raw_os_error);
        Self::directory(directory)(system)
    }
}
