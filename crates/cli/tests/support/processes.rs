//! What `/proc` knows about the processes of a demo.

use std::fs;

/// The children of a process.
pub(crate) fn processes_of(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());

    pids.filter(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // After the name, which may hold anything: state and parent (proc_pid_stat(5)).
        let after_name = stat.rsplit(") ").next().unwrap_or_default();
        after_name.split(' ').nth(1) == Some(&parent.to_string())
    })
    .collect()
}

/// The process of the demo that plays a role, and what it was told.
pub(crate) fn program_of(demo: u32, role: &str) -> (u32, Vec<String>) {
    let arguments_of = |pid: u32| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = line.split('\0').skip(1).filter(|word| !word.is_empty());
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    let pids = processes_of(demo).into_iter();
    let mut programs = pids.map(|pid| (pid, arguments_of(pid)));

    programs
        .find(|(_, arguments)| arguments.first().is_some_and(|first| first == role))
        .unwrap()
}
