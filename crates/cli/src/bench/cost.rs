//! What carrying costs: processor time and memory, as `/proc` counts them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::standing::Process;
use crate::exit::Failure;

/// The processor time that some processes, and the whole machine, have used so far.
#[derive(Clone, Debug)]
pub(super) struct Cost {
    processes: BTreeMap<&'static str, Duration>,
    machine: Duration,
}

/// What was used between two moments.
#[derive(Clone, Debug, Default)]
pub(super) struct Spent {
    /// By the processes, by their role.
    pub(super) processes: BTreeMap<&'static str, Duration>,
    /// By everything that ran on the machine.
    pub(super) machine: Duration,
}

/// The memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Memory {
    /// What is in RAM now.
    pub(super) resident: u64,
    /// The most that ever was.
    pub(super) peak: u64,
}

/// What `/proc/stat` counts in (`USER_HZ`), which is the same on every machine that Rust's Linux targets know.
const TICKS_PER_SECOND: u64 = 100;

impl Cost {
    /// Reads the counters. Processes of the same role are added.
    ///
    /// # Errors
    ///
    /// Exit 5: a process is gone, or `/proc` is not mounted.
    pub(super) fn read(processes: &[Process]) -> Result<Self, Failure> {
        let mut used = BTreeMap::new();
        for process in processes {
            let time = of_process(process.pid).map_err(|error| {
                Failure::os(
                    format_args!("read the processor time of the {}", process.role),
                    &error,
                )
            })?;
            *used.entry(process.role).or_default() += time;
        }
        let machine = fs::read_to_string("/proc/stat")
            .and_then(|text| parse_busy(&text).ok_or_else(|| odd("/proc/stat")))
            .map_err(|error| Failure::os("read the machine's processor time", &error))?;

        Ok(Self {
            processes: used,
            machine,
        })
    }

    /// What was used since an earlier moment.
    pub(super) fn since(&self, earlier: &Self) -> Spent {
        let used = self.processes.iter().map(|(&role, time)| {
            let before = earlier.processes.get(role).copied().unwrap_or_default();
            (role, time.saturating_sub(before))
        });

        Spent {
            processes: used.collect(),
            machine: self.machine.saturating_sub(earlier.machine),
        }
    }
}

impl Memory {
    /// Reads the memory of a process.
    ///
    /// # Errors
    ///
    /// Exit 5: it is gone.
    pub(super) fn of(process: &Process) -> Result<Self, Failure> {
        let path = format!("/proc/{}/status", process.pid);

        fs::read_to_string(&path)
            .and_then(|text| parse_memory(&text).ok_or_else(|| odd(&path)))
            .map_err(|error| {
                Failure::os(
                    format_args!("read the memory of the {}", process.role),
                    &error,
                )
            })
    }
}

/// The time of all threads, in nanoseconds' resolution.
fn of_process(pid: u32) -> io::Result<Duration> {
    let mut sum = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = thread?.path().join("schedstat");
        match read_schedstat(&path) {
            // A thread that has just ended.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => sum += result?,
        }
    }

    Ok(sum)
}

fn read_schedstat(path: &Path) -> io::Result<Duration> {
    let text = fs::read_to_string(path)?;

    parse_schedstat(&text).ok_or_else(|| odd(&path.display().to_string()))
}

/// The first number: nanoseconds on a processor (Documentation/scheduler/sched-stats.rst).
fn parse_schedstat(text: &str) -> Option<Duration> {
    let nanos = text.split_ascii_whitespace().next()?;

    nanos.parse().ok().map(Duration::from_nanos)
}

/// The time that was spent with anything but waiting (proc(5), `/proc/stat`).
fn parse_busy(text: &str) -> Option<Duration> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> = line
        .split_ascii_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = *fields else {
        return None;
    };
    let ticks = user + nice + system + irq + softirq;

    Some(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

fn parse_memory(text: &str) -> Option<Memory> {
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kibibytes.checked_mul(1024)
    };

    Some(Memory {
        resident: bytes("VmRSS:")?,
        peak: bytes("VmHWM:")?,
    })
}

fn odd(path: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{path} is not as the kernel's documentation says"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_number_of_schedstat_is_nanoseconds() {
        assert_eq!(
            parse_schedstat("1234567890 42 7\n"),
            Some(Duration::from_nanos(1_234_567_890))
        );
        for text in ["", "\n", "x 1 2", "-1 2 3"] {
            assert_eq!(parse_schedstat(text), None, "{text:?}");
        }
    }

    #[test]
    fn waiting_is_not_busy() {
        let text = "cpu  100 1 20 9999 500 3 6 70 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";

        assert_eq!(parse_busy(text), Some(Duration::from_millis(1_300)));
        for text in ["", "cpu 1 2 3\n", "cpu0 1 2 3 4 5 6 7\n"] {
            assert_eq!(parse_busy(text), None, "{text:?}");
        }
    }

    #[test]
    fn both_kinds_of_memory_are_read() {
        let text = "Name:\tx\nVmHWM:\t    1620 kB\nVmRSS:\t     508 kB\n";

        let memory = parse_memory(text).unwrap();
        assert_eq!((memory.resident, memory.peak), (508 << 10, 1620 << 10));
        assert_eq!(parse_memory("VmRSS: 1 kB"), None);
    }

    #[test]
    fn this_process_has_used_time() {
        let process = Process {
            role: "client",
            pid: std::process::id(),
        };
        let before = Cost::read(&[process]).unwrap();
        let mut sum = 0_u64;
        for number in 0..5_000_000_u64 {
            sum = std::hint::black_box(sum.wrapping_add(number * number));
        }

        let spent = Cost::read(&[process]).unwrap().since(&before);
        assert!(spent.processes["client"] > Duration::ZERO, "{sum}");
    }
}
