//! The resolvers of this machine, and control over which ones it asks.

#[cfg(feature = "netlink")]
mod control;
#[cfg(feature = "netlink")]
mod error;
#[cfg(feature = "netlink")]
mod file;
mod hosts;
#[cfg(feature = "netlink")]
mod listing;
mod resolv_conf;
#[cfg(feature = "netlink")]
mod resolved;
#[cfg(feature = "netlink")]
mod text;
#[cfg(feature = "netlink")]
mod watch;

#[cfg(feature = "netlink")]
pub use control::{HostResolver, Method, Paths, Wanted};
#[cfg(feature = "netlink")]
pub use error::ResolverError;
pub use hosts::Hosts;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use resolv_conf::ResolvConf;

/// The resolvers that a machine asks, and how it completes names.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Resolvers {
    /// In the order in which they are asked. The port is 53 unless the system says otherwise; an address that is good on
    /// one link only has the number of that link as its scope, where the system tells it.
    pub servers: Vec<SocketAddr>,
    /// The domains that names without a dot are looked for in, in this order.
    pub search: Vec<String>,
}

impl Resolvers {
    /// Reads a file like `/etc/resolv.conf`. It names none if it doesn't exist; what isn't understood in it is skipped.
    ///
    /// # Errors
    ///
    /// The file exists and can't be read.
    pub fn read(path: &Path) -> io::Result<Self> {
        match fs::read(path) {
            Ok(contents) => Ok(Self::parse(&contents)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Parses the contents of such a file.
    pub fn parse(contents: &[u8]) -> Self {
        let ResolvConf {
            servers, search, ..
        } = ResolvConf::parse(contents);

        Self { servers, search }
    }
}

/// The directory that a file is in; a bare name is in the current one.
#[cfg(feature = "netlink")]
fn directory_of(file: &Path) -> &Path {
    match file.parent() {
        Some(directory) if directory != Path::new("") => directory,
        // The root has no name that could be watched or written.
        Some(_) | None => Path::new("."),
    }
}

#[cfg(all(test, feature = "netlink"))]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_in_the_current_directory() {
        for (file, directory) in [
            ("resolv.conf", "."),
            ("etc/resolv.conf", "etc"),
            ("/etc/resolv.conf", "/etc"),
            ("/resolv.conf", "/"),
        ] {
            assert_eq!(directory_of(Path::new(file)), Path::new(directory));
        }
    }
}
