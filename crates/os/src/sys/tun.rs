//! The TUN driver's calls.

use std::ffi::CString;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libc::{c_char, c_int, c_short, c_uint, c_ulong};

use super::check;

/// Makes an open driver stand for the device `name`, which is created if it doesn't exist.
///
/// Packets come by a single queue, with a `virtio_net_hdr` of `header` bytes in front, or with nothing.
pub(crate) fn attach(driver: BorrowedFd<'_>, name: &str, header: Option<usize>) -> io::Result<()> {
    let mut flags = libc::IFF_TUN | libc::IFF_NO_PI;
    if header.is_some() {
        flags |= libc::IFF_VNET_HDR;
    }
    let mut request = interface_request(name)?;
    request.ifr_ifru.ifru_flags = flags as c_short;
    // SAFETY: the pointer is to a request that lives through the call, of the type this ioctl takes.
    let result = unsafe { libc::ioctl(driver.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    check(result)?;

    let Some(header) = header else {
        return Ok(());
    };
    // A new device has this length; one that outlives its processes may have another.
    let header = header as c_int;
    // SAFETY: the pointer is to an int that lives through the call, which is what this ioctl takes.
    let result =
        unsafe { libc::ioctl(driver.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const header) };

    check(result).map(drop)
}

/// Says which packets an attached driver may hand over unfinished: `TUN_F_…` added up.
pub(crate) fn set_offloads(driver: BorrowedFd<'_>, offloads: c_uint) -> io::Result<()> {
    // SAFETY: this ioctl takes a number, and no pointer.
    let result = unsafe {
        libc::ioctl(
            driver.as_raw_fd(),
            libc::TUNSETOFFLOAD,
            c_ulong::from(offloads),
        )
    };

    check(result).map(drop)
}

/// Makes the driver's device node.
pub(crate) fn make_node(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let device = libc::makedev(10, 200);
    // SAFETY: the pointer is to a string with its zero that lives through the call.
    let result = unsafe { libc::mknod(path.as_ptr(), libc::S_IFCHR | 0o600, device) };

    check(result).map(drop)
}

/// Brings the interface `name` of the socket's namespace up.
pub(crate) fn set_up(socket: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let mut request = interface_request(name)?;
    // SAFETY: the pointer is to a request that lives through the call, of the type this ioctl takes.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) };
    check(result)?;

    // SAFETY: the call has just written the flags.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | (libc::IFF_UP as c_short);
    // SAFETY: as above.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) };

    check(result).map(drop)
}

fn interface_request(name: &str) -> io::Result<libc::ifreq> {
    // The kernel wants a zero behind the name.
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut ifr_name: [c_char; libc::IFNAMSIZ] = [0; libc::IFNAMSIZ];
    for (to, from) in ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as c_char;
    }

    Ok(libc::ifreq {
        ifr_name,
        // SAFETY: each of its fields consists of integers and raw pointers, for which zero is a value.
        ifr_ifru: unsafe { mem::zeroed() },
    })
}
