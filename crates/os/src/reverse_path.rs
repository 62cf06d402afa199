//! Where packets may come from while everything leads into a tunnel (RFC 3704, ip-sysctl `rp_filter`).
//!
//! A kernel that is strict drops what comes by an interface that it wouldn't answer by. Where everything leads into the tunnel,
//! that is all that the tunnel itself is made of: its datagrams leave by a rule of their own, which the kernel doesn't ask for what
//! arrives. Loose filtering still drops what nobody can be answered at.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::parameters::{self, Parameters};

/// Strict filters that were loosened.
#[derive(Debug, Default)]
pub struct ReversePath {
    parameters: Parameters,
}

/// A filter is strict and can't be loosened.
#[derive(Debug, thiserror::Error)]
#[error("can't write {path}: {source}; set it to 2 (sysctl)", path = .path.display())]
pub struct ReversePathError {
    /// The parameter.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

const STRICT: &str = "1";
const LOOSE: &str = "2";

impl ReversePath {
    /// Loosens each filter of IPv4 that is strict, also for interfaces that come later; IPv6 has none. Returns whether any was.
    ///
    /// # Errors
    ///
    /// [`ReversePathError`] for the first that can't be; the others are loosened all the same.
    pub fn loosen(&mut self) -> Result<bool, ReversePathError> {
        let root = parameters::path("ipv4/conf");
        let before = self.parameters.changed();
        let strict_everywhere = parameters::is(&filter(&root.join("all")), STRICT);
        let mut failed = None;
        for entry in fs::read_dir(&root).into_iter().flatten().flatten() {
            let path = filter(&entry.path());
            // The greater of an interface's own and that of all counts.
            let is_strict = strict_everywhere && !parameters::is(&path, LOOSE);
            if entry.file_name() == "all" || !(is_strict || parameters::is(&path, STRICT)) {
                continue;
            }
            if let Err((path, source)) = self.parameters.set(path, LOOSE) {
                failed.get_or_insert(ReversePathError { path, source });
            }
        }

        match failed {
            Some(error) => Err(error),
            None => Ok(self.parameters.changed() > before),
        }
    }

    /// Takes everything back. What fails is only told.
    pub fn restore(&mut self) {
        self.parameters.restore_to(0);
    }
}

fn filter(interface: &Path) -> PathBuf {
    interface.join("rp_filter")
}
