//! A store that forgets everything when it is dropped.

use super::{Store, StoreError};
use crate::model::{Account, Directory, Edit};

/// A store for tests, demos and simulations.
#[derive(Debug)]
pub struct Memory {
    directory: Directory,
}

impl Memory {
    /// An empty store.
    pub fn new(account: Account) -> Self {
        Self {
            directory: Directory::new(account),
        }
    }
}

impl Store for Memory {
    fn load(&mut self) -> Result<Directory, StoreError> {
        Ok(self.directory.clone())
    }

    fn write(&mut self, edits: &[Edit]) -> Result<(), StoreError> {
        for edit in edits {
            self.directory.apply(edit);
        }

        Ok(())
    }
}
