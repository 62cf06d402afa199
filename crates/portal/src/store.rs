//! Where the directory outlives the process.

pub mod memory;
#[cfg(feature = "server")]
pub mod sqlite;

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::audit::{Entry, Filter, Row};
use crate::model::{Directory, Edit};

/// Keeps a directory.
///
/// What [`Store::load`] gives after any edits equals a directory that had the same edits applied.
pub trait Store: Send {
    /// Everything that is kept.
    ///
    /// # Errors
    ///
    /// [`StoreError`], if what is kept can't be read or makes no sense.
    fn load(&mut self) -> Result<Directory, StoreError>;

    /// Makes all edits and appends all entries, in order, or nothing. They are safe from a loss of power when this returns, but for
    /// grants alone, which may take until the next other edit: who has lost one asks again.
    ///
    /// # Errors
    ///
    /// [`StoreError`], if they can't be written.
    fn write(&mut self, edits: &[Edit], entries: &[Entry]) -> Result<(), StoreError>;

    /// The rows of the audit that `filter` wants, the newest last.
    ///
    /// # Errors
    ///
    /// [`StoreError`], if what is kept can't be read or makes no sense.
    fn audit(&mut self, filter: Filter) -> Result<Vec<Row>, StoreError>;

    /// Prepares a copy of everything in the new file `to`, which is for its owner alone. Nothing has happened before the
    /// job is run; that may take a while, on any thread, and edits may go on meanwhile: what is copied is as of one moment.
    ///
    /// # Errors
    ///
    /// [`StoreError::BackupExists`], and [`StoreError::NotInAFile`].
    fn backup_job(&mut self, to: &Path) -> Result<BackupJob, StoreError>;

    /// Makes a copy of everything in the new file `to`, and waits for it.
    ///
    /// # Errors
    ///
    /// [`StoreError::BackupExists`], [`StoreError::BackupFailed`] and [`StoreError::NotInAFile`]; there is no copy then.
    fn backup(&mut self, to: &Path) -> Result<(), StoreError> {
        self.backup_job(to)?.run()
    }
}

/// A copy that is to be made.
pub struct BackupJob(Box<dyn FnOnce() -> Result<(), StoreError> + Send>);

impl BackupJob {
    /// A job that does what `work` does.
    pub fn new(work: impl FnOnce() -> Result<(), StoreError> + Send + 'static) -> Self {
        Self(Box::new(work))
    }

    /// Does it. Waits for the disk.
    ///
    /// # Errors
    ///
    /// [`StoreError::BackupExists`] and [`StoreError::BackupFailed`]; there is no copy then.
    pub fn run(self) -> Result<(), StoreError> {
        (self.0)()
    }
}

impl fmt::Debug for BackupJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BackupJob(…)")
    }
}

/// What is wrong with a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The operating system doesn't let us.
    #[error("can't open the database {}: {source}; check that the directory exists and that this user may write there", file.display())]
    Unopenable {
        /// The file.
        file: PathBuf,
        /// What the system says.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// There is no such file, and this call doesn't make one.
    #[error("there is no database {}; `portal serve` or `portal apply` makes one", file.display())]
    Missing {
        /// The file.
        file: PathBuf,
    },
    /// Another process works with the file.
    #[error("the database {} is in use by another process; if that is `portal serve`, talk to its admin socket", file.display())]
    InUse {
        /// The file.
        file: PathBuf,
    },
    /// The file belongs to another program.
    #[error("{} is not a connlib database; name another file", file.display())]
    NotOurs {
        /// The file.
        file: PathBuf,
    },
    /// A newer version of this program wrote the file.
    #[error("the database {} has version {found}, this program knows versions up to {known}; update this program", file.display())]
    Newer {
        /// The file.
        file: PathBuf,
        /// The file's version.
        found: i64,
        /// The newest version that this program knows.
        known: i64,
    },
    /// The file is damaged.
    #[error("the database {} is damaged: {source}; restore it from a backup", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Edits can't be written; none of them was.
    #[error("can't write to the database {}: {source}; check that its disk isn't full", file.display())]
    Unwritable {
        /// The file.
        file: PathBuf,
        /// What the system says.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// There is something already where a backup was to be.
    #[error("{} exists already, and backups replace nothing; name another file, or move that one away", file.display())]
    BackupExists {
        /// The file.
        file: PathBuf,
    },
    /// The backup can't be written.
    #[error("can't make the backup {}: {source}; check that its directory exists, that the portal's user may write there, and that its disk isn't full", file.display())]
    BackupFailed {
        /// The file.
        file: PathBuf,
        /// What the system says.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Everything is gone with the process, by design.
    #[error(
        "this portal keeps everything in memory, so there is no database to copy; start it with a file"
    )]
    NotInAFile,
}
