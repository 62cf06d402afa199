//! The boot-time clock, and notice of when it and others part.

use std::time::Duration;
#[cfg(feature = "netlink")]
use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    ptr,
};

#[cfg(feature = "netlink")]
use super::{check, own};

/// The time since the machine was started, suspension included.
pub(crate) fn since_boot() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a variable that lives through the call. The call can't fail: Linux has had this clock
    // since 2.6.39.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };

    duration(time)
}

/// The time since the machine was started, suspension left out.
#[cfg(feature = "netlink")]
pub(crate) fn awake() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a variable that lives through the call. The call can't fail: this clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };

    duration(time)
}

/// Creates a timer of the time of day that is told of when that is set, or jumps because the machine was suspended.
#[cfg(feature = "netlink")]
pub(crate) fn create_day_timer() -> io::Result<OwnedFd> {
    let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;

    // SAFETY: takes no pointers, and a new descriptor belongs to us.
    unsafe { own(libc::timerfd_create(libc::CLOCK_REALTIME, flags)) }
}

/// Lets a [day timer](create_day_timer) become readable, with ECANCELED, at the next jump of the clock.
#[cfg(feature = "netlink")]
pub(crate) fn await_jump(timer: BorrowedFd<'_>) -> io::Result<()> {
    // It has to be set to some time to be told of jumps; this one it never reaches.
    let never = libc::itimerspec {
        it_interval: libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        },
        it_value: libc::timespec {
            tv_sec: libc::time_t::from(i32::MAX) * 2,
            tv_nsec: 0,
        },
    };
    // SAFETY: the pointer is to a value that lives through the call; the other one may be null.
    let result = unsafe {
        libc::timerfd_settime(
            timer.as_raw_fd(),
            libc::TFD_TIMER_ABSTIME | libc::TFD_TIMER_CANCEL_ON_SET,
            &raw const never,
            ptr::null_mut(),
        )
    };

    match check(result) {
        // The clock has jumped since it was last set; from now on the next jump counts.
        Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => Ok(()),
        result => result.map(drop),
    }
}

/// Lets a runtime wait until a timer is readable.
#[cfg(feature = "netlink")]
pub(crate) fn watch(timer: OwnedFd) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    use tokio::io::{Interest, unix::AsyncFd};

    // SAFETY: the descriptor is open, nobody else closes it, and nobody can replace it inside of what is returned.
    let watched = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) };

    Ok(watched?)
}

/// The same in our own type; zero for what is before the beginning.
pub(crate) fn duration(time: libc::timespec) -> Duration {
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}
