//! Errors on command.

use std::collections::BTreeMap;
use std::io;

/// Which of the coming calls fail.
#[derive(Debug, Default)]
pub(super) struct Faults {
    calls: u64,
    planned: BTreeMap<u64, io::Error>,
    /// The calls that would block from now on, whatever waits.
    storm: u64,
}

impl Faults {
    /// Lets the call after the next `calls` ones fail.
    pub(super) fn plan(&mut self, calls: u64, error: io::Error) {
        self.planned.insert(self.calls.saturating_add(calls), error);
    }

    /// Lets the next `calls` ones be answered with `WouldBlock`, unless another error is planned for them.
    pub(super) fn storm(&mut self, calls: u64) {
        self.storm = calls;
    }

    /// Counts a call.
    pub(super) fn check(&mut self) -> io::Result<()> {
        let planned = self.planned.remove(&self.calls);
        self.calls += 1;
        let blocked = self.storm > 0;
        self.storm = self.storm.saturating_sub(1);

        match planned {
            Some(error) => Err(error),
            None if blocked => Err(io::ErrorKind::WouldBlock.into()),
            None => Ok(()),
        }
    }
}
