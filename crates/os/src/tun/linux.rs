//! The TUN device of Linux.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::{Tun, TunError};
use crate::sys;

/// A TUN device of Linux. It goes away when it is dropped, and when its process dies.
#[derive(Debug)]
pub struct TunDevice {
    file: File,
    name: String,
}

impl TunDevice {
    /// Creates the device in the network namespace of the calling thread. It has no address yet and is down.
    ///
    /// One queue only: packets stay in order, and a second process can't attach to the device and take half of them.
    ///
    /// # Errors
    ///
    /// See [`TunError`].
    pub fn create(name: &str) -> Result<Self, TunError> {
        if !is_interface_name(name) {
            return Err(TunError::InvalidName { name: name.into() });
        }
        let file = open_driver().map_err(|source| match source.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => TunError::PermissionDenied { name: name.into() },
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TunError::Missing { source },
            _ => TunError::Os {
                name: name.into(),
                source,
            },
        })?;

        sys::tun::attach(file.as_fd(), name).map_err(|source| match source.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => TunError::PermissionDenied { name: name.into() },
            Some(libc::EBUSY) => TunError::Busy { name: name.into() },
            Some(libc::EINVAL | libc::EEXIST) => TunError::NameTaken { name: name.into() },
            _ => TunError::Os {
                name: name.into(),
                source,
            },
        })?;
        tracing::debug!(name, "created a TUN device");

        Ok(Self {
            file,
            name: name.into(),
        })
    }
}

impl Tun for TunDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read(buf)
    }

    fn write(&mut self, packet: &[u8]) -> io::Result<()> {
        // The device takes a packet whole or not at all.
        self.file.write(packet).map(drop)
    }
}

impl AsFd for TunDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The driver's device node (client.md §12.1).
const DRIVER: &str = "/dev/net/tun";

fn open_driver() -> io::Result<File> {
    let open = || {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(DRIVER)
    };

    match open() {
        // Some containers and small systems have the driver and no node for it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create_node(Path::new(DRIVER))?;
            open()
        }
        result => result,
    }
}

fn create_node(path: &Path) -> io::Result<()> {
    let directory = path.parent().unwrap_or(path);
    if !fs::exists(directory)? {
        DirBuilder::new().mode(0o751).create(directory)?;
    }

    match sys::tun::make_node(path) {
        // Another process was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

/// Whether the kernel takes this as an interface's name and as nothing else (`%` would make it a pattern).
fn is_interface_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%');

    (1..libc::IFNAMSIZ).contains(&name.len())
        && name.bytes().all(is_allowed)
        && !matches!(name, "." | "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_interface_can_have_are_refused() {
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "tun%d",
            "a:1",
            "sixteen-letters-",
        ] {
            let refused = TunDevice::create(name).unwrap_err();
            assert!(matches!(refused, TunError::InvalidName { .. }), "{name:?}");
        }

        assert!(is_interface_name("fifteen-letters"));
    }
}
