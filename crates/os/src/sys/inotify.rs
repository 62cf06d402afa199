//! inotify: what happens to files.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libc::c_int;
use tokio::io::{Interest, unix::AsyncFd};

use super::{check, own};

/// Creates a queue of events that doesn't block.
pub(crate) fn create() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers, and a new descriptor belongs to us.
    unsafe { own(libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK)) }
}

/// Lets a runtime wait until there are events to read.
pub(crate) fn watch(inotify: OwnedFd) -> io::Result<AsyncFd<File>> {
    // SAFETY: the descriptor is open, nobody else closes it, and nobody replaces it inside of what is returned.
    let watched = unsafe { AsyncFd::register_with_interest(inotify.into(), Interest::READABLE) };

    Ok(watched?)
}

/// Adds events of the kinds in `mask` that happen to `path`, and returns the number that they come with.
pub(crate) fn add(inotify: BorrowedFd<'_>, path: &Path, mask: u32) -> io::Result<c_int> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the pointer is to a string with its zero that lives through the call.
    check(unsafe { libc::inotify_add_watch(inotify.as_raw_fd(), path.as_ptr(), mask) })
}
