//! epoll and eventfd.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use libc::{c_int, epoll_event};

use super::{check, check_len, own};

/// How exactly the kernel lets us wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Timeouts {
    /// With `epoll_pwait2` (Linux 5.11).
    Nanoseconds,
    /// With `epoll_wait`.
    Milliseconds,
}

pub(crate) fn create() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers, and a new descriptor belongs to us.
    unsafe { own(libc::epoll_create1(libc::EPOLL_CLOEXEC)) }
}

pub(crate) fn add(
    epoll: BorrowedFd<'_>,
    fd: BorrowedFd<'_>,
    events: u32,
    token: u64,
) -> io::Result<()> {
    let mut event = epoll_event { events, u64: token };
    // SAFETY: the pointer is to an event that lives through the call.
    let result = unsafe {
        libc::epoll_ctl(
            epoll.as_raw_fd(),
            libc::EPOLL_CTL_ADD,
            fd.as_raw_fd(),
            &raw mut event,
        )
    };

    check(result).map(drop)
}

pub(crate) fn remove(epoll: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: this operation reads no event.
    let result = unsafe {
        libc::epoll_ctl(
            epoll.as_raw_fd(),
            libc::EPOLL_CTL_DEL,
            fd.as_raw_fd(),
            ptr::null_mut(),
        )
    };

    check(result).map(drop)
}

/// Waits and returns how many events it has written to the front of `events`.
///
/// Changes `timeouts` once it finds that the kernel lacks the better call.
pub(crate) fn wait(
    epoll: BorrowedFd<'_>,
    events: &mut [epoll_event],
    timeout: Option<Duration>,
    timeouts: &mut Timeouts,
) -> io::Result<usize> {
    if *timeouts == Timeouts::Nanoseconds {
        let result = wait_nanoseconds(epoll, events, timeout);
        match result.as_ref().map_err(io::Error::raw_os_error) {
            // Old kernels don't know the call; some sandboxes forbid what they don't know.
            Err(Some(libc::ENOSYS | libc::EPERM)) => *timeouts = Timeouts::Milliseconds,
            _ => return result,
        }
    }

    wait_milliseconds(epoll, events, timeout)
}

/// Creates a counter that can be waited for.
pub(crate) fn event() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers, and a new descriptor belongs to us.
    unsafe { own(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)) }
}

/// Counts up, which makes the counter readable anew.
pub(crate) fn signal(event: BorrowedFd<'_>) -> io::Result<()> {
    match add_to(event, 1) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            reset(event)?;
            add_to(event, 1)
        }
        result => result,
    }
}

/// Counts up to the limit, where [`signal`] needs its second way.
#[cfg(test)]
pub(crate) fn fill(event: BorrowedFd<'_>) -> io::Result<()> {
    add_to(event, u64::MAX - 1)
}

fn wait_nanoseconds(
    epoll: BorrowedFd<'_>,
    events: &mut [epoll_event],
    timeout: Option<Duration>,
) -> io::Result<usize> {
    // The kernel's own layout, which differs from libc's `timespec` on 32-bit systems.
    #[repr(C)]
    struct Timespec {
        seconds: i64,
        nanoseconds: i64,
    }
    let timeout = timeout.map(|timeout| Timespec {
        seconds: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        nanoseconds: i64::from(timeout.subsec_nanos()),
    });
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);

    // SAFETY: the kernel writes at most as many events as there is room for, the timeout is null or lives through the
    // call, and there is no signal mask to point to.
    let result = unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait2,
            epoll.as_raw_fd(),
            events.as_mut_ptr(),
            room(events),
            timeout,
            ptr::null::<libc::sigset_t>(),
            0_usize,
        )
    };

    check_len(result as isize)
}

fn wait_milliseconds(
    epoll: BorrowedFd<'_>,
    events: &mut [epoll_event],
    timeout: Option<Duration>,
) -> io::Result<usize> {
    // Rounded up, so that whoever waits for a deadline doesn't spin before it.
    let timeout = timeout.map_or(-1, |timeout| {
        c_int::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(c_int::MAX)
    });
    // SAFETY: the kernel writes at most as many events as there is room for.
    let result = unsafe {
        libc::epoll_wait(
            epoll.as_raw_fd(),
            events.as_mut_ptr(),
            room(events),
            timeout,
        )
    };

    check_len(result as isize)
}

fn room(events: &[epoll_event]) -> c_int {
    c_int::try_from(events.len()).unwrap_or(c_int::MAX)
}

fn add_to(event: BorrowedFd<'_>, count: u64) -> io::Result<()> {
    // SAFETY: the pointer is to eight bytes that live through the call.
    let result = unsafe { libc::write(event.as_raw_fd(), (&raw const count).cast(), 8) };

    check_len(result).map(drop)
}

fn reset(event: BorrowedFd<'_>) -> io::Result<()> {
    let mut count = 0_u64;
    // SAFETY: the pointer is to eight bytes that live through the call.
    let result = unsafe { libc::read(event.as_raw_fd(), (&raw mut count).cast(), 8) };

    match check_len(result) {
        // Another thread was faster.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        result => result.map(drop),
    }
}
