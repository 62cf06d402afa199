//! This process and its children.

use std::env;
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use super::{check, check_len, own};

pub(crate) fn effective_uid() -> u32 {
    // SAFETY: takes nothing and can't fail.
    unsafe { libc::geteuid() }
}

pub(crate) fn effective_gid() -> u32 {
    // SAFETY: takes nothing and can't fail.
    unsafe { libc::getegid() }
}

/// Lets this process have as many descriptors as the system allows it at most, and says how many those are.
pub(crate) fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is that of a struct that lives through the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as before; nothing is written to it.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;

    Ok(limit.rlim_max)
}

pub(crate) fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number, and touches only memory that is free.
    unsafe {
        libc::malloc_trim(0);
    }
}

pub(crate) fn random() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    loop {
        // SAFETY: the pointer and the length are those of an array that lives through the call.
        let result = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        match check_len(result) {
            // Up to 256 bytes come whole.
            Ok(_) => return Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Removes a variable from the environment and wipes the memory that `/proc/PID/environ` shows.
///
/// The process must have a single thread, and the name must be one that a variable can have.
pub(crate) fn take_env(name: &str) -> Option<OsString> {
    let value = env::var_os(name)?;
    let c_name = CString::new(name).ok()?;

    // SAFETY: no other thread reads the environment, as the caller has checked. The pointer is that of a string in
    // memory that the process may write (execve(2) puts it on the stack, setenv(3) on the heap), and its end stays.
    unsafe {
        let text = libc::getenv(c_name.as_ptr());
        if !text.is_null() {
            text.write_bytes(b'*', libc::strlen(text));
        }
        env::remove_var(name);
    }

    Some(value)
}

/// Makes a descriptor ours that was open when the program began.
pub(crate) fn take_inherited_fd(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: takes a number; one that isn't open is answered with EBADF.
    let flags = check(unsafe { libc::fcntl(number, libc::F_GETFD) })?;
    if flags & libc::FD_CLOEXEC != 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "this process opened the descriptor itself",
        ));
    }
    if number <= libc::STDERR_FILENO {
        // SAFETY: it is open, and stays so for the time of this call.
        return unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned();
    }
    // SAFETY: takes numbers.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;

    // SAFETY: it was inherited, because all descriptors that this program opens close on exec; and nobody has taken it
    // before, because that flag is set when someone does.
    unsafe { own(number) }
}

pub(crate) fn terminate(pid: i32) -> io::Result<()> {
    // SAFETY: takes numbers.
    check(unsafe { libc::kill(pid, libc::SIGTERM) }).map(drop)
}
