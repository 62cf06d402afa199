//! Namespaces, and the moment between fork and exec.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use libc::c_int;

use super::check;

/// Moves the calling thread into new namespaces of these kinds.
pub(crate) fn unshare(kinds: c_int) -> io::Result<()> {
    // SAFETY: takes no pointers. No kind that is used here changes what Rust relies on: memory and descriptors stay
    // shared.
    check(unsafe { libc::unshare(kinds) }).map(drop)
}

/// Moves the calling thread into a namespace of that kind.
pub(crate) fn enter(namespace: BorrowedFd<'_>, kind: c_int) -> io::Result<()> {
    // SAFETY: takes no pointers; the descriptor is open.
    check(unsafe { libc::setns(namespace.as_raw_fd(), kind) }).map(drop)
}

/// Lets `command`'s process enter `namespace` and die with the thread that spawns it.
pub(crate) fn prepare_child(command: &mut Command, namespace: Option<OwnedFd>) {
    let parent = std::process::id();
    let prepare = move || {
        if let Some(namespace) = &namespace {
            enter(namespace.as_fd(), libc::CLONE_NEWNET)?;
        }
        die_with_parent(parent)
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed: these are system calls without
    // allocation, and building an `io::Error` from a number doesn't allocate either.
    unsafe { command.pre_exec(prepare) };
}

fn die_with_parent(parent: u32) -> io::Result<()> {
    let signal = libc::SIGKILL as libc::c_ulong;
    // SAFETY: this operation takes a number.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) })?;

    // A parent that died before the request was made sends no signal for it.
    // SAFETY: takes nothing and can't fail.
    if unsafe { libc::getppid() }.cast_unsigned() != parent {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }

    Ok(())
}
