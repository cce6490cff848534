//! The store's errors: why one step fails, and why a store is not opened, in the operator's words.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::rows::FORMAT;
use crate::engine::event_row::Malformed;
use crate::engine::{AppendError, EngineError, OpenError, RedeemError};

/// The store failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The library's own reasons.
    #[error(transparent)]
    Library(#[from] fjall::Error),
    /// A row does not say what it should.
    #[error("{0} in the store is malformed")]
    Malformed(&'static str),
    /// The library panicked over what it read.
    #[error("it cannot be read")]
    Panicked,
}

impl Fault {
    /// Runs what may panic in the library: on a damaged file, or on a disk that fails.
    pub(super) fn catch<T>(work: impl FnOnce() -> Result<T, Self>) -> Result<T, Self> {
        catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(Self::Panicked))
    }
}

impl From<Malformed> for Fault {
    fn from(Malformed(what): Malformed) -> Self {
        Self::Malformed(what)
    }
}

/// Why a step of a batch came to nothing.
#[derive(Debug)]
pub(super) enum StepError<E> {
    /// Its own call is refused. The others of the batch go on.
    Refused(E),
    /// The store failed, and the whole batch is undone.
    Fault(Fault),
}

impl<E> From<Fault> for StepError<E> {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl<E: From<EngineError>> From<EngineError> for StepError<E> {
    fn from(error: EngineError) -> Self {
        Self::Refused(error.into())
    }
}

impl From<AppendError> for StepError<AppendError> {
    fn from(error: AppendError) -> Self {
        Self::Refused(error)
    }
}

impl From<OpenError> for StepError<OpenError> {
    fn from(error: OpenError) -> Self {
        Self::Refused(error)
    }
}

impl From<RedeemError> for StepError<RedeemError> {
    fn from(error: RedeemError) -> Self {
        Self::Refused(error)
    }
}

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

    /// Why the store cannot be opened or read.
    pub(super) fn of(directory: &Path, fault: &Fault) -> Self {
        let damaged = || Self::damaged(directory, fault.to_string());
        let Fault::Library(error) = fault else { return damaged() };
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
            return damaged();
        };
        if DAMAGE.contains(&system.kind()) {
            return damaged();
        }
        let number = system.raw_os_error();
        let system = number.map_or(system.kind().into(), io::Error::from_raw_os_error);
        Self::directory(directory)(system)
    }
}
