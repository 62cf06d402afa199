//! The system calls: every `unsafe` of the project, behind functions that are safe to call.
//!
//! A function here makes one call and translates its arguments and its result. It decides nothing.
#![allow(
    unsafe_code,
    reason = "the only module that talks to the kernel in its own types"
)]

pub(crate) mod epoll;
#[cfg(feature = "netlink")]
pub(crate) mod inotify;
pub(crate) mod namespace;
pub(crate) mod process;
pub(crate) mod socket;
pub(crate) mod time;
pub(crate) mod tun;
pub(crate) mod udp;

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use libc::c_int;

/// Turns a result of libc's kind into ours.
fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }

    Ok(result)
}

/// Turns a byte count of libc's kind into ours.
fn check_len(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Turns a descriptor that a call has just created into one that closes itself.
///
/// # Safety
///
/// The result must be an error or a descriptor that nothing else owns.
unsafe fn own(result: c_int) -> io::Result<OwnedFd> {
    let fd = check(result)?;

    // SAFETY: the caller says that nobody else owns it, and it is not negative.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
