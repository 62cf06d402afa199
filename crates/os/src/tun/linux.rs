//! The TUN device of Linux.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use connlib_wire::offload::VirtioHeader;

use super::{Joins, MAX_PARTS, Tun, TunError};
use crate::sys;

/// A TUN device of Linux. It goes away when it is dropped, and when its process dies.
#[derive(Debug)]
pub struct TunDevice {
    file: File,
    name: String,
    framing: Framing,
    joins: Joins,
}

impl TunDevice {
    /// Creates the device in the network namespace of the calling thread, with all offloads that the kernel has. It has
    /// no address yet and is down.
    ///
    /// One queue only: packets stay in order, and a second process can't attach to the device and take half of them.
    ///
    /// # Errors
    ///
    /// See [`TunError`].
    pub fn create(name: &str) -> Result<Self, TunError> {
        let file = open(name)?;

        // A name that isn't a TUN device's is answered with EINVAL, too; the second attempt tells.
        let framing = match attach(&file, name, Framing::Virtio) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                attach(&file, name, Framing::Plain).map_err(|source| refused(name, source))?
            }
            result => result.map_err(|source| refused(name, source))?,
        };
        let joins = match framing {
            Framing::Virtio => offload(&file),
            Framing::Plain => Joins::default(),
        };
        tracing::debug!(name, ?framing, ?joins, "created a TUN device");

        Ok(Self {
            file,
            name: name.into(),
            framing,
            joins,
        })
    }

    /// Creates the device without any offload: every packet comes and goes alone, with its checksums complete.
    ///
    /// # Errors
    ///
    /// See [`TunError`].
    pub fn create_plain(name: &str) -> Result<Self, TunError> {
        let file = open(name)?;
        let framing =
            attach(&file, name, Framing::Plain).map_err(|source| refused(name, source))?;
        tracing::debug!(name, "created a TUN device without offloads");

        Ok(Self {
            file,
            name: name.into(),
            framing,
            joins: Joins::default(),
        })
    }

    /// Writes with room for `N` parts, the header included.
    fn write_parts<const N: usize>(
        &mut self,
        header: Option<&[u8]>,
        parts: &[IoSlice<'_>],
    ) -> io::Result<()> {
        let mut all = [IoSlice::new(&[]); N];
        let mut used = 0;
        for (to, from) in all.iter_mut().zip(
            header
                .map(IoSlice::new)
                .into_iter()
                .chain(parts.iter().copied()),
        ) {
            *to = from;
            used += 1;
        }
        let all = all.get(..used).unwrap_or_default();

        // The device takes a packet whole or not at all.
        self.file.write_vectored(all).map(drop)
    }
}

impl Tun for TunDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn joins(&self) -> Joins {
        self.joins
    }

    fn read(&mut self, buf: &mut [u8]) -> io::Result<(VirtioHeader, usize)> {
        if matches!(self.framing, Framing::Plain) {
            return Ok((VirtioHeader::default(), self.file.read(buf)?));
        }

        let mut header = [0; VirtioHeader::LEN];
        let read = self
            .file
            .read_vectored(&mut [IoSliceMut::new(&mut header), IoSliceMut::new(buf)])?;
        let len = read.checked_sub(VirtioHeader::LEN).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "the TUN device returned less than a header",
            )
        })?;

        Ok((VirtioHeader::decode(header), len))
    }

    fn write(&mut self, header: VirtioHeader, parts: &[IoSlice<'_>]) -> io::Result<()> {
        if !self.joins.takes(&header) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "this TUN device takes no such joined run",
            ));
        }
        if parts.len() > MAX_PARTS {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "more parts than a write to a TUN device may have",
            ));
        }

        let encoded = header.encode();
        let header = match self.framing {
            Framing::Virtio => Some(&encoded[..]),
            Framing::Plain if header.flags & VirtioHeader::NEEDS_CSUM != 0 => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "this TUN device completes no checksums",
                ));
            }
            Framing::Plain => None,
        };
        if parts.len() < FEW_PARTS {
            self.write_parts::<FEW_PARTS>(header, parts)
        } else {
            self.write_parts::<{ MAX_PARTS + 1 }>(header, parts)
        }
    }
}

impl AsFd for TunDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// What stands in front of each packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Framing {
    /// A [`VirtioHeader`].
    Virtio,
    /// Nothing.
    Plain,
}

/// A packet of fewer parts needs no large array: most packets come alone.
const FEW_PARTS: usize = 4;

fn open(name: &str) -> Result<File, TunError> {
    if !is_interface_name(name) {
        return Err(TunError::InvalidName { name: name.into() });
    }

    open_driver().map_err(|source| match source.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => TunError::PermissionDenied { name: name.into() },
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TunError::Missing { source },
        _ => TunError::Os {
            name: name.into(),
            source,
        },
    })
}

fn attach(file: &File, name: &str, framing: Framing) -> io::Result<Framing> {
    let header = match framing {
        Framing::Virtio => Some(VirtioHeader::LEN),
        Framing::Plain => None,
    };
    sys::tun::attach(file.as_fd(), name, header)?;
    if framing == Framing::Plain {
        // A device that outlives its processes keeps what the one before us has asked for.
        let _ = sys::tun::set_offloads(file.as_fd(), 0);
    }

    Ok(framing)
}

fn refused(name: &str, source: io::Error) -> TunError {
    match source.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => TunError::PermissionDenied { name: name.into() },
        Some(libc::EBUSY) => TunError::Busy { name: name.into() },
        Some(libc::EINVAL | libc::EEXIST) => TunError::NameTaken { name: name.into() },
        _ => TunError::Os {
            name: name.into(),
            source,
        },
    }
}

/// Asks for all offloads, then for fewer; the answer is the test for what the kernel has (io.md §3.3).
fn offload(file: &File) -> Joins {
    const CSUM: u32 = libc::TUN_F_CSUM;
    const TSO: u32 = libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    // Since Linux 6.2, and one only with the other.
    const USO: u32 = libc::TUN_F_USO4 | libc::TUN_F_USO6;

    for (offloads, tcp, udp) in [
        (CSUM | TSO | USO, true, true),
        (CSUM | TSO, true, false),
        (CSUM, false, false),
        (0, false, false),
    ] {
        match sys::tun::set_offloads(file.as_fd(), offloads) {
            Ok(()) => return Joins { tcp, udp },
            Err(error) => tracing::debug!(offloads, %error, "the kernel lacks TUN offloads"),
        }
    }

    Joins::default()
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
