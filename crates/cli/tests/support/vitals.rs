//! What `/proc` knows about a process that carries packets: memory, processor time, wake-ups, its interface.

use std::fs;
use std::time::Duration;

/// The memory of a process, in KiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// What is in RAM now.
    pub(crate) resident: u64,
    /// The most that ever was.
    pub(crate) peak: u64,
}

impl Memory {
    pub(crate) fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();

        Self {
            resident: field(&status, "VmRSS:"),
            peak: field(&status, "VmHWM:"),
        }
    }
}

/// What a thread has done since it began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thread {
    /// How often it has waited for something, and so was woken.
    pub(crate) wake_ups: u64,
    /// Its time on a processor.
    pub(crate) busy: Duration,
}

impl Thread {
    /// The thread of that name in a process.
    pub(crate) fn of(pid: u32, name: &str) -> Self {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let mut tasks = tasks.map(|task| task.unwrap().path());
        let is_it = |path: &std::path::PathBuf| {
            fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
        };
        let task = tasks.find(is_it);
        let task = task.unwrap_or_else(|| panic!("{pid} has no thread `{name}`"));
        let read = |file: &str| fs::read_to_string(task.join(file)).unwrap();

        Self {
            wake_ups: field(&read("status"), "voluntary_ctxt_switches:"),
            busy: on_processor(&read("schedstat")),
        }
    }

    /// What it has done since an earlier moment.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            wake_ups: self.wake_ups - earlier.wake_ups,
            busy: self.busy - earlier.busy,
        }
    }
}

/// The processor time of all threads of a process.
pub(crate) fn busy(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    // A thread may end in the meantime.
    let times = tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok());

    times.map(|times| on_processor(&times)).sum()
}

/// What an interface was handed to send, in packets as it counts them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handed {
    pub(crate) taken: u64,
    /// There was no room for them.
    pub(crate) dropped: u64,
}

impl Handed {
    /// Reads the counters of an interface in the namespace of a process (`/proc/net/dev`, the same numbers as in
    /// `/sys/class/net/*/statistics`).
    pub(crate) fn to(pid: u32, interface: &str) -> Self {
        let table = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap();
        let head = format!("{interface}:");
        let line = table
            .lines()
            .find_map(|line| line.trim_start().strip_prefix(&head));
        // Eight columns for what was received, then bytes, packets, errors, drops.
        let sent = line.unwrap().split_ascii_whitespace().skip(8);
        let sent: Vec<u64> = sent.map(|column| column.parse().unwrap()).collect();

        Self {
            taken: sent[1],
            dropped: sent[3],
        }
    }

    /// What it was handed since an earlier moment.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            taken: self.taken - earlier.taken,
            dropped: self.dropped - earlier.dropped,
        }
    }
}

fn field(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name));

    value
        .and_then(|value| value.split_ascii_whitespace().next()?.parse().ok())
        .unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// The first number is nanoseconds on a processor (Documentation/scheduler/sched-stats.rst).
fn on_processor(schedstat: &str) -> Duration {
    let nanos = schedstat.split_ascii_whitespace().next().unwrap();

    Duration::from_nanos(nanos.parse().unwrap())
}
