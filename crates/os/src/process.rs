//! What the operating system knows about this process.

use std::fs;
use std::io;

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

/// The id of the user whose rights this process has; 0 is root.
pub fn effective_uid() -> u32 {
    sys::process::effective_uid()
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

    #[test]
    fn the_resident_line_is_read() {
        let status = "Name:\tx\nVmHWM:\t    1620 kB\nVmRSS:\t     508 kB\nThreads:\t1\n";

        assert_eq!(parse_resident(status), Some(508 * 1024));
        assert_eq!(parse_resident("VmRSS: many kB"), None);
        assert_eq!(parse_resident(""), None);
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(resident_bytes().unwrap() > 100 * 1024);
    }
}
