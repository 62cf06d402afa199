//! Randomness from the kernel, to seed generators with.

use std::io;

use crate::sys;

/// Returns 32 bytes that nobody can guess.
///
/// Waits for the kernel's generator to be ready, which it is a few seconds after the machine's start for good.
///
/// # Errors
///
/// A sandbox forbids the system call `getrandom`.
pub fn seed() -> io::Result<[u8; 32]> {
    sys::process::random()
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds_differ() {
        assert_ne!(super::seed().unwrap(), super::seed().unwrap());
    }
}
