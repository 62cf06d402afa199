//! The bench as a process: the shape of its report, its advice, and what it leaves behind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says loudly that it is skipped"
)]

#[path = "support/program.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod program;

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use connlib_os::clock::Clock;
use connlib_os::process;
use serde_json::Value;
use tempfile::TempDir;

use program::{connlib, run, verdict};

const QUICK: [&str; 9] = [
    "bench",
    "--json",
    "--only=tcp1-up",
    "--runs",
    "1",
    "--seconds",
    "1",
    "--against",
    "raw",
];

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn the_report_has_the_promised_shape_and_nothing_is_left() {
    if !has_iperf3() {
        return;
    }
    let before = interfaces();
    let files = tempfile::tempdir().unwrap();

    let output = in_directory(&QUICK, &files).output().unwrap();
    let report = report(&output);

    assert!(report["machine"]["cpus"].as_u64() > Some(0), "{report}");
    assert!(report["machine"]["kernel"].is_string(), "{report}");
    assert_eq!(report["machine"]["aead"], "ring");
    assert!(report["machine"]["busy_before"].is_number(), "{report}");
    assert_eq!(report["fairness"], serde_json::json!([]));
    let [row] = report["throughput"].as_array().unwrap().as_slice() else {
        panic!("one row was asked for: {report}");
    };
    assert_eq!(row["name"], "tcp1-up");
    assert_eq!(row["runs"], 1);
    assert!(row["ours_bps"].as_f64() > Some(1e6), "{row}");
    assert!(row["peers"]["raw"].as_f64() > row["ours_bps"].as_f64());
    assert!(row["ratio_to_best_peer"].is_null(), "raw is no peer: {row}");
    assert!(row["spread"].is_number(), "{row}");
    for process in ["ours-client", "ours-gateway"] {
        assert!(
            row["cpu_ns_per_byte"][process].as_f64() > Some(0.0),
            "{row}"
        );
    }
    assert!(row["machine_ns_per_byte"]["ours"].as_f64() > Some(0.0));
    for who in ["ours", "raw"] {
        assert!(row["rtt_ms"][who]["p99"].as_f64() > Some(0.0), "{row}");
    }
    let memory = report["memory"].as_array().unwrap();
    let gateway = memory.iter().find(|row| row["who"] == "gateway").unwrap();
    assert!(gateway["idle_rss"].as_u64() > Some(1 << 20), "{gateway}");
    assert!(gateway["peak_rss"].as_u64() >= gateway["idle_rss"].as_u64());
    assert!(gateway["minute_after_rss"].is_null(), "{gateway}");
    assert_eq!(report["failed"], serde_json::json!([]));

    assert_eq!(interfaces(), before);
    assert_empty(files.path());
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn an_interrupted_bench_leaves_nothing() {
    if !has_iperf3() {
        return;
    }
    let before = interfaces();
    let files = tempfile::tempdir().unwrap();
    let arguments = [
        "bench",
        "--only=tcp1-up",
        "--seconds",
        "60",
        "--against=raw",
    ];

    let bench = in_directory(&arguments, &files).spawn().unwrap();
    let clock = Clock::new();
    let end_at = clock.now() + Duration::from_secs(30);
    while !processes_of(bench.id())
        .iter()
        .any(|(_, name)| name == "iperf3")
    {
        assert!(clock.now() < end_at, "no load begins");
        thread::yield_now();
    }
    let children = processes_of(bench.id());
    assert!(
        children.len() >= 6,
        "four roles, a sweeper, iperf3: {children:?}"
    );
    process::terminate(bench.id()).unwrap();
    let (code, message) = verdict(&bench.wait_with_output().unwrap());

    assert_eq!(code, 1, "{message}");
    assert!(message.contains("interrupted"), "{message}");
    let is_there = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    while let Some((pid, name)) = children.iter().find(|(pid, _)| is_there(*pid)) {
        assert!(clock.now() < end_at, "{name} ({pid}) is still there");
        thread::yield_now();
    }
    assert_eq!(interfaces(), before);
    assert_empty(files.path());
}

#[test]
fn missing_programs_are_told_with_what_brings_them() {
    let nowhere = |arguments: &[&str]| {
        let output = connlib(arguments).env("PATH", "/nowhere").output();
        verdict(&output.unwrap())
    };

    let (code, message) = nowhere(&["bench"]);
    assert_eq!(code, 1, "{message}");
    assert!(message.contains("apt-get install iperf3"), "{message}");

    // A directory with nothing but the load's program.
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/bin/true", directory.path().join("iperf3")).unwrap();
    for (name, advice) in [
        ("wireguard-go", "apt-get install wireguard-go"),
        ("gotatun", "cargo install gotatun-cli"),
        ("boringtun", "cargo install boringtun-cli"),
    ] {
        let mut command = connlib(&["bench", "--against", name]);
        let (code, message) = verdict(&command.env("PATH", directory.path()).output().unwrap());
        assert_eq!(code, 1, "{message}");
        assert!(message.contains(advice), "{message}");
    }
}

#[test]
fn wrong_names_are_exit_2_and_list_the_right_ones() {
    let (code, message) = verdict(&run(&["bench", "--against", "foo"]));
    assert_eq!(code, 2, "{message}");
    assert!(message.contains("wireguard-go"), "{message}");

    let (code, message) = verdict(&run(&["bench", "--only", "nothing"]));
    assert_eq!(code, 2, "{message}");
    assert!(message.contains("tcp1-up"), "{message}");
}

fn in_directory(arguments: &[&str], files: &TempDir) -> Command {
    let mut command = connlib(arguments);
    command
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .env("TMPDIR", files.path());

    command
}

fn report(output: &Output) -> Value {
    let (code, message) = verdict(output);

    assert_eq!(code, 0, "{message}");
    serde_json::from_slice(&output.stdout).expect("stdout is one JSON value")
}

/// Says loudly that a test is skipped where there is no iperf3.
fn has_iperf3() -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let has = env::split_paths(&path).any(|directory| directory.join("iperf3").exists());
    if !has {
        println!("SKIPPED: iperf3 is not in PATH; bring it with `apt-get install iperf3`");
    }

    has
}

fn interfaces() -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir("/sys/class/net")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();

    names
}

/// The children of a process, with their names.
fn processes_of(parent: u32) -> Vec<(u32, String)> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());

    pids.filter_map(|pid| {
        // The name in parentheses, the state, the parent (proc_pid_stat(5)).
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (start, rest) = stat.rsplit_once(") ")?;
        let is_child = rest.split(' ').nth(1)? == parent.to_string();
        let name = start.split_once(" (")?.1.to_owned();

        is_child.then_some((pid, name))
    })
    .collect()
}

/// The process that removes the files may be a moment behind.
fn assert_empty(directory: &Path) {
    let clock = Clock::new();
    let end_at = clock.now() + Duration::from_secs(10);
    let left = || {
        fs::read_dir(directory)
            .unwrap()
            .flatten()
            .collect::<Vec<_>>()
    };
    while !left().is_empty() {
        assert!(clock.now() < end_at, "{:?}", left());
        thread::yield_now();
    }
}
