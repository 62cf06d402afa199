//! A store that forgets everything when it is dropped.

use std::path::Path;

use super::{BackupJob, Store, StoreError};
use crate::audit::{Entry, Filter, Row};
use crate::model::{Account, Directory, Edit};

/// A store for tests, demos and simulations.
#[derive(Debug)]
pub struct Memory {
    directory: Directory,
    audit: Vec<Row>,
}

impl Memory {
    /// An empty store.
    pub fn new(account: Account) -> Self {
        Self {
            directory: Directory::new(account),
            audit: vec![],
        }
    }
}

impl Store for Memory {
    fn load(&mut self) -> Result<Directory, StoreError> {
        Ok(self.directory.clone())
    }

    fn write(&mut self, edits: &[Edit], entries: &[Entry]) -> Result<(), StoreError> {
        for edit in edits {
            self.directory.apply(edit);
        }
        let first = self.audit.last().map_or(1, |row| row.sequence + 1);
        let rows = (first..).zip(entries).map(|(sequence, entry)| Row {
            sequence,
            entry: entry.clone(),
        });
        self.audit.extend(rows);

        Ok(())
    }

    fn audit(&mut self, filter: Filter) -> Result<Vec<Row>, StoreError> {
        let since = filter.since.unwrap_or_default();
        let wanted = (self.audit.iter()).filter(|row| row.entry.at >= since);
        let limit = filter.limit.map_or(usize::MAX, |limit| limit as usize);
        let mut rows: Vec<Row> = wanted.rev().take(limit).cloned().collect();
        rows.reverse();

        Ok(rows)
    }

    fn backup_job(&mut self, _to: &Path) -> Result<BackupJob, StoreError> {
        Err(StoreError::NotInAFile)
    }
}
