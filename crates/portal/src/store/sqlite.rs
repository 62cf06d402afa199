//! A store in an SQLite file.

mod audit;
mod backup;
mod rows;

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction};

use super::{BackupJob, Store, StoreError};
use crate::audit::{Entry, Filter, Row};
use crate::model::{Account, Directory, Edit};

/// Each step from one version of the layout to the next; the first begins with an empty file.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/0001.sql"),
    include_str!("../../migrations/0002.sql"),
    include_str!("../../migrations/0003.sql"),
    include_str!("../../migrations/0004.sql"),
];

/// What tells our files from those of others (SQLite's `application_id`): "conn".
const APPLICATION_ID: i64 = 0x636f_6e6e;

/// The file's mode: it holds what pre-shared keys are made from.
const MODE: u32 = 0o600;

/// Each commit is synced, and whatever was written before it: a revocation must survive a loss of power.
const SYNCED: &str = "FULL";

/// A commit is synced with a later one; the file is whole whatever happens.
const UNSYNCED: &str = "NORMAL";

/// A store in an SQLite file, or in SQLite's memory.
///
/// While it is open, a second one of the same file is refused: a portal answers from memory and wouldn't see what
/// another process wrote.
#[derive(Debug)]
pub struct Sqlite {
    connection: Connection,
    file: PathBuf,
    /// `None` for SQLite's memory. Dropped after the connection.
    lock: Option<File>,
}

/// What to do if there is no file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IfMissing {
    /// Make one.
    Create,
    /// Fail.
    Fail,
}

impl Sqlite {
    /// Opens `file`, bringing its layout up to date. `fresh` becomes the account of a file that has none yet.
    ///
    /// A lock file stays beside it.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but [`StoreError::Unwritable`].
    pub fn open(file: &Path, if_missing: IfMissing, fresh: &Account) -> Result<Self, StoreError> {
        let unopenable = |source: io::Error| StoreError::Unopenable {
            file: file.to_owned(),
            source: source.into(),
        };
        if if_missing == IfMissing::Fail && !file.try_exists().map_err(unopenable)? {
            return Err(StoreError::Missing {
                file: file.to_owned(),
            });
        }
        let lock = lock(file)?;
        // SQLite would make the file readable for others.
        create(file).map_err(unopenable)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(file, flags);

        Self::prepare(connection, file, Some(lock), fresh)
    }

    /// A store that is gone when it is dropped.
    ///
    /// # Errors
    ///
    /// [`StoreError`], if SQLite itself fails.
    pub fn in_memory(fresh: &Account) -> Result<Self, StoreError> {
        Self::prepare(
            Connection::open_in_memory(),
            Path::new(":memory:"),
            None,
            fresh,
        )
    }

    fn prepare(
        connection: rusqlite::Result<Connection>,
        file: &Path,
        lock: Option<File>,
        fresh: &Account,
    ) -> Result<Self, StoreError> {
        let mut store = Self {
            connection: connection.map_err(|error| opening(file, error))?,
            file: file.to_owned(),
            lock,
        };
        // A file that is refused stays as it is, with the log of whoever was killed while it wrote.
        let merges_on_close = |store: &Self, merges: bool| {
            (store.connection)
                .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, !merges)
                .map_err(|error| opening(file, error))
        };
        merges_on_close(&store, false)?;
        let version = store.version()?;
        merges_on_close(&store, true)?;
        store
            .migrate(version, fresh)
            .map_err(|error| opening(file, error))?;

        Ok(store)
    }

    /// The file's version; zero for a new one.
    fn version(&self) -> Result<i64, StoreError> {
        let file = &self.file;
        let number = |sql: &str| -> Result<i64, StoreError> {
            let number = self.connection.query_row(sql, [], |row| row.get(0));
            number.map_err(|error| opening(file, error))
        };
        let version = number("PRAGMA user_version")?;
        let application_id = number("PRAGMA application_id")?;
        let tables = number("SELECT count(*) FROM sqlite_schema")?;
        let is_new = (version, application_id, tables) == (0, 0, 0);
        if application_id != APPLICATION_ID && !is_new {
            return Err(StoreError::NotOurs { file: file.clone() });
        }
        let known = MIGRATIONS.len() as i64;
        if version > known {
            return Err(StoreError::Newer {
                file: file.clone(),
                found: version,
                known,
            });
        }

        let check = self
            .connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))
            .map_err(|error| opening(file, error))?;
        if check != "ok" {
            return Err(StoreError::Damaged {
                file: file.clone(),
                source: check.into(),
            });
        }

        Ok(version)
    }

    fn damaged(&self, error: rusqlite::Error) -> StoreError {
        StoreError::Damaged {
            file: self.file.clone(),
            source: error.into(),
        }
    }

    fn migrate(&mut self, version: i64, fresh: &Account) -> rusqlite::Result<()> {
        let connection = &mut self.connection;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", SYNCED)?;
        // A table that is made anew would take along what refers to it. This can't be changed inside a transaction.
        connection.pragma_update(None, "foreign_keys", false)?;

        let transaction = connection.transaction()?;
        let done = usize::try_from(version).unwrap_or_default();
        for migration in MIGRATIONS.iter().skip(done) {
            transaction.execute_batch(migration)?;
        }
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
        rows::put_account_if_none(&transaction, fresh)?;
        transaction.commit()?;

        connection.pragma_update(None, "foreign_keys", true)
    }
}

impl Store for Sqlite {
    fn load(&mut self) -> Result<Directory, StoreError> {
        rows::load(&self.connection).map_err(|error| self.damaged(error))
    }

    fn write(&mut self, edits: &[Edit], entries: &[Entry]) -> Result<(), StoreError> {
        let write = |transaction: &Transaction<'_>| {
            (edits.iter()).try_for_each(|edit| rows::write(transaction, edit))?;
            (entries.iter()).try_for_each(|entry| audit::append(transaction, entry))
        };
        let synced = match may_be_lost(edits, entries) {
            true => UNSYNCED,
            false => SYNCED,
        };

        self.connection
            .pragma_update(None, "synchronous", synced)
            .and_then(|()| self.connection.transaction())
            .and_then(|transaction| {
                write(&transaction)?;
                transaction.commit()
            })
            .map_err(|error| StoreError::Unwritable {
                file: self.file.clone(),
                source: error.into(),
            })
    }

    fn audit(&mut self, filter: Filter) -> Result<Vec<Row>, StoreError> {
        audit::read(&self.connection, filter).map_err(|error| self.damaged(error))
    }

    fn backup_job(&mut self, to: &Path) -> Result<BackupJob, StoreError> {
        if self.lock.is_none() {
            return Err(StoreError::NotInAFile);
        }
        backup::refuse_existing(to)?;
        let (file, to) = (self.file.clone(), to.to_owned());

        Ok(BackupJob::new(move || backup::copy(&file, &to)))
    }
}

/// Whether a loss of power may take it back. A grant that is gone is asked for again, and until then its gateway, which is told what
/// may pass when it comes back, lets nothing pass. A disk may take ten times as long to sync as all else that an access needs.
fn may_be_lost(edits: &[Edit], entries: &[Entry]) -> bool {
    entries.is_empty() && edits.iter().all(|edit| matches!(edit, Edit::PutGrant(_)))
}

/// Takes the lock beside `file`.
///
/// It isn't on `file` itself: closing any handle to that would drop SQLite's own locks of this process.
fn lock(file: &Path) -> Result<File, StoreError> {
    let mut name = file.as_os_str().to_owned();
    name.push(".lock");
    let unopenable = |source: io::Error| StoreError::Unopenable {
        file: PathBuf::from(&name),
        source: source.into(),
    };

    let lock = create(Path::new(&name)).map_err(unopenable)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse {
            file: file.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(unopenable(error)),
    }
}

fn create(file: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(MODE)
        .open(file)
}

fn opening(file: &Path, error: rusqlite::Error) -> StoreError {
    let file = file.to_owned();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::InUse { file },
        Some(ErrorCode::NotADatabase) => StoreError::NotOurs { file },
        Some(ErrorCode::DatabaseCorrupt) | None => StoreError::Damaged {
            file,
            source: error.into(),
        },
        Some(_) => StoreError::Unopenable {
            file,
            source: error.into(),
        },
    }
}

#[cfg(test)]
mod tests;
