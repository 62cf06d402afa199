//! A copy of the database while it is in use.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::MODE;
use crate::store::StoreError;

/// Copies the database `file` to the new file `to`.
///
/// It reads by a connection of its own, from which the copy is as of one moment, while another one writes. The copy is
/// complete and safe from a loss of power before it has its name.
pub(super) fn copy(file: &Path, to: &Path) -> Result<(), StoreError> {
    refuse_existing(to)?;
    let temporary = Temporary::create(to).map_err(|error| failed(to, error))?;

    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let target = temporary
        .path
        .to_str()
        .ok_or(io::ErrorKind::InvalidFilename);
    let target = target.map_err(|kind| failed(to, io::Error::from(kind)))?;
    Connection::open_with_flags(file, flags)
        .and_then(|connection| connection.execute("VACUUM INTO ?", [target]))
        .map_err(|error| failed(to, error))?;

    temporary
        .publish(to)
        .map_err(|error| match error.kind() == io::ErrorKind::AlreadyExists {
            true => exists(to),
            false => failed(to, error),
        })
}

pub(super) fn refuse_existing(to: &Path) -> Result<(), StoreError> {
    match fs::symlink_metadata(to) {
        Ok(_) => Err(exists(to)),
        // Anything else comes up again when it is made.
        Err(_) => Ok(()),
    }
}

/// A file beside the one that it becomes. It goes when this is dropped.
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    /// SQLite would make it readable for others.
    fn create(to: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt as _;

        let mut name = to.as_os_str().to_owned();
        name.push(format!(".{}.partial", std::process::id()));
        let path = PathBuf::from(name);
        let mut options = File::options();
        options.write(true).create_new(true).mode(MODE);
        options.open(&path)?;

        Ok(Self { path })
    }

    fn publish(self, to: &Path) -> io::Result<()> {
        File::open(&self.path)?.sync_all()?;
        match fs::hard_link(&self.path, to) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
            // Some file systems have no links. What came meanwhile would be replaced.
            Err(_) => fs::rename(&self.path, to)?,
        }
        let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty());

        File::open(directory.unwrap_or_else(|| Path::new(".")))?.sync_all()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(file = %self.path.display(), %error, "Can't remove what was left of a backup");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

fn exists(to: &Path) -> StoreError {
    StoreError::BackupExists {
        file: to.to_owned(),
    }
}

fn failed(to: &Path, error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::BackupFailed {
        file: to.to_owned(),
        source: error.into(),
    }
}
