//! The kernel's parameters of networks: changed for as long as something runs (ip-sysctl).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Parameters that were changed, with what they were before; the latest last.
#[derive(Debug, Default)]
pub(crate) struct Parameters {
    changed: Vec<(PathBuf, String)>,
}

/// Where a parameter is.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new("/proc/sys/net").join(name)
}

/// Whether a parameter has this value.
pub(crate) fn is(path: &Path, value: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.trim() == value)
}

impl Parameters {
    /// Changes a parameter, unless it has this value.
    ///
    /// # Errors
    ///
    /// Which one can't be changed, and why.
    pub(crate) fn set(&mut self, path: PathBuf, value: &str) -> Result<(), (PathBuf, io::Error)> {
        let before = match fs::read_to_string(&path) {
            Ok(before) => before,
            Err(source) => return Err((path, source)),
        };
        if before.trim() == value {
            return Ok(());
        }
        if let Err(source) = fs::write(&path, value) {
            return Err((path, source));
        }
        self.changed.push((path, before));

        Ok(())
    }

    /// How many were changed.
    pub(crate) fn changed(&self) -> usize {
        self.changed.len()
    }

    /// Takes back all but the first `kept` changes, the latest first. What fails is only told.
    pub(crate) fn restore_to(&mut self, kept: usize) {
        for (path, before) in self.changed.drain(kept..).rev() {
            if let Err(error) = fs::write(&path, before.trim()) {
                tracing::debug!(path = %path.display(), %error, "The parameter stays as it is");
            }
        }
    }
}
