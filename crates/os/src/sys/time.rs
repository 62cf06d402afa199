//! The boot-time clock.

use std::time::Duration;

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

/// The same in our own type; zero for what is before the beginning.
pub(crate) fn duration(time: libc::timespec) -> Duration {
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}
