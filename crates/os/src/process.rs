//! What the operating system knows about this process.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use crate::sys;

/// The memory of this process that is in RAM, in bytes.
///
/// # Errors
///
/// `/proc` is not mounted.
pub fn resident_bytes() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;

    parse_resident(&status).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "/proc/self/status has no line `VmRSS: … kB`",
        )
    })
}

/// Gives back to the system what the allocator keeps of memory that was freed. Takes a millisecond or two; a no-op where the
/// allocator isn't glibc's, which would keep most of it for ever.
pub fn release_memory() {
    sys::process::trim_heap();
}

/// Lets this process have as many descriptors as the system allows it at most (its hard limit), and says how many those are.
///
/// # Errors
///
/// The system refuses it; the limit is as before.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    sys::process::raise_descriptor_limit()
}

/// The id of the user whose rights this process has; 0 is root.
pub fn effective_uid() -> u32 {
    sys::process::effective_uid()
}

/// Takes a variable out of the environment, so that no child inherits it and no `ps` shows it; `None` if it isn't set.
///
/// # Errors
///
/// `InvalidInput`: the name is empty or has a `=` or a NUL in it. `WouldBlock`: the process has several threads, which
/// may read the environment at the same time; call this first of all.
pub fn take_env(name: &str) -> io::Result<Option<OsString>> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::new(
            io::ErrorKind::WouldBlock,
            "the environment changes only while there is a single thread",
        ));
    }

    Ok(sys::process::take_env(name))
}

/// Takes over a descriptor that the parent process left open for this one.
///
/// # Errors
///
/// There is no such descriptor, it was taken already, or this process opened it itself.
pub fn take_inherited_fd(number: u32) -> io::Result<OwnedFd> {
    let number = i32::try_from(number).map_err(|_| io::ErrorKind::InvalidInput)?;

    sys::process::take_inherited_fd(number)
}

/// Asks a process to end (SIGTERM).
///
/// # Errors
///
/// There is no such process any more, or it is another user's.
pub fn terminate(pid: u32) -> io::Result<()> {
    match i32::try_from(pid) {
        // 0 and negative numbers stand for groups of processes.
        Ok(pid) if pid > 0 => sys::process::terminate(pid),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn parse_resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?;

    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    #[test]
    fn the_resident_line_is_read() {
        let status = "Name:\tx\nVmHWM:\t    1620 kB\nVmRSS:\t     508 kB\nThreads:\t1\n";

        assert_eq!(parse_resident(status), Some(508 * 1024));
        assert_eq!(parse_resident("VmRSS: many kB"), None);
        assert_eq!(parse_resident(""), None);
    }

    #[test]
    fn the_environment_of_a_process_with_threads_is_left_alone() {
        let refused = take_env("PATH").unwrap_err();

        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        assert!(std::env::var_os("PATH").is_some());
        for name in ["", "A=B", "A\0"] {
            let refused = take_env(name).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{name:?}");
        }
    }

    #[test]
    fn a_descriptor_of_our_own_is_not_an_inherited_one() {
        let file = fs::File::open("/proc/self/status").unwrap();
        let number = u32::try_from(file.as_raw_fd()).unwrap();

        assert!(take_inherited_fd(number).is_err());
        assert!(take_inherited_fd(u32::MAX).is_err());
        assert!(take_inherited_fd(9_999).is_err());
        file.metadata().expect("it is still open");
    }

    #[test]
    fn a_process_ends_when_it_is_asked_to() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();

        terminate(child.id()).unwrap();

        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
        assert!(terminate(0).is_err());
        assert!(terminate(u32::MAX).is_err());
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(resident_bytes().unwrap() > 100 * 1024);
    }
}
