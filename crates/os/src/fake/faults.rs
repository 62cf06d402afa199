//! Errors on command.

use std::collections::BTreeMap;
use std::io;

/// Which of the coming calls fail.
#[derive(Debug, Default)]
pub(super) struct Faults {
    calls: u64,
    planned: BTreeMap<u64, io::Error>,
}

impl Faults {
    /// Lets the call after the next `calls` ones fail.
    pub(super) fn plan(&mut self, calls: u64, error: io::Error) {
        self.planned.insert(self.calls.saturating_add(calls), error);
    }

    /// Counts a call.
    pub(super) fn check(&mut self) -> io::Result<()> {
        let error = self.planned.remove(&self.calls);
        self.calls += 1;

        error.map_or(Ok(()), Err)
    }
}
