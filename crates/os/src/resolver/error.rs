//! What can go wrong with resolver settings.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why the host's resolver settings were not read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolverError {
    /// There is no tokio runtime to wait with.
    #[error("resolver settings need a tokio runtime with I/O and time; call it from inside of one")]
    NoRuntime,
    /// The file is a link: what it leads to belongs to another program.
    #[error(
        "{} is a link to {}, which another program writes; have that program set the resolvers, \
         or put a regular file in the link's place", path.display(), target.display()
    )]
    Symlink {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// The file is a directory, a device or the like.
    #[error("{} is no regular file; put one in its place", path.display())]
    NotAFile {
        /// Which one.
        path: PathBuf,
    },
    /// There is no such file.
    #[error("there is no {}; make one that names the machine's resolvers", path.display())]
    Missing {
        /// Which one.
        path: PathBuf,
    },
    /// A file was not read or written.
    #[error(
        "can't {action} {}: {source}; run as root, and see that the file system has room and can be written",
        path.display()
    )]
    File {
        /// What was tried.
        action: &'static str,
        /// With which one.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
    /// Another client, which hasn't ended, has charge of the file.
    #[error("another client has charge of {}; it is left alone until that one has ended", path.display())]
    InUse {
        /// Which one.
        path: PathBuf,
    },
    /// Somebody writes the file again and again.
    #[error("{} changes faster than it can be backed up; find the program that writes it", path.display())]
    Restless {
        /// Which one.
        path: PathBuf,
    },
    /// The system doesn't ask systemd-resolved.
    #[error(
        "{} doesn't lead to systemd-resolved; start it and link the file to its `stub-resolv.conf`",
        path.display()
    )]
    NotResolved {
        /// The file that programs find their resolvers in.
        path: PathBuf,
    },
    /// What names are to be completed with isn't a domain. The message doesn't show it, because domains are users'.
    #[error(
        "the search domain isn't a domain name of letters, digits, hyphens and dots; correct it"
    )]
    NotADomain {
        /// What was given.
        domain: String,
    },
    /// systemd-resolved's tool was not started.
    #[error("can't start {}: {source}; install systemd-resolved", program.display())]
    NotStarted {
        /// The tool.
        program: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
    /// systemd-resolved, or its tool, refused.
    #[error("`{command}` failed: {reason}; see `resolvectl status`")]
    Refused {
        /// What was called, without addresses and domains.
        command: String,
        /// What it said.
        reason: String,
    },
    /// systemd-resolved, or its tool, did not answer.
    #[error(
        "`{command}` took longer than {} ms and was stopped; see whether systemd-resolved works",
        limit.as_millis()
    )]
    TimedOut {
        /// What was called, without addresses and domains.
        command: String,
        /// For how long it was waited for.
        limit: Duration,
    },
    /// Changes of the settings can't be noticed any more.
    #[error("can't watch the resolver settings: {source}; start anew")]
    Watch {
        /// What the kernel answered.
        source: io::Error,
    },
}

impl ResolverError {
    /// Turns an error of a call into ours.
    pub(super) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            if source.kind() == io::ErrorKind::NotFound {
                return Self::Missing { path: path.into() };
            }
            Self::File {
                action,
                path: path.into(),
                source,
            }
        }
    }
}
