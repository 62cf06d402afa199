//! Connections in networks that change: what goes on, what is lost, and how long it takes.
//!
//! Each scene makes a world of its own out of namespaces and the program's own processes, and measures. All figures are
//! printed as one table at the end, so this is a program, not a collection of tests: run it by
//! `cargo test --test connections -- --ignored`, with the beginning of a scene's name to run that alone. Times are judged
//! generously, because the machine may be busy; that nothing is lost where nothing may be lost is judged exactly.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a scene fails by panicking"
)]
#![allow(clippy::print_stdout, reason = "figures are printed")]

#[path = "support/program.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod program;

#[path = "support/vitals.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod vitals;

#[path = "connections/crowd.rs"]
mod crowd;
#[path = "connections/download.rs"]
mod download;
#[path = "connections/figures.rs"]
mod figures;
#[path = "connections/network.rs"]
mod network;
#[path = "connections/probe.rs"]
mod probe;
#[path = "connections/scenes.rs"]
mod scenes;
#[path = "connections/world.rs"]
mod world;

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;

use connlib_os::process;

use figures::Table;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let wanted = scenes::ALL
        .iter()
        .filter(|scene| filter.is_none_or(|filter| scene.name.starts_with(filter.as_str())));
    if has("--list") {
        for scene in wanted {
            println!("{}: test", scene.name);
        }
        return ExitCode::SUCCESS;
    }
    if !has("--ignored") && !has("--include-ignored") {
        println!("{} scenes ignored; .ci/run runs them", scenes::ALL.len());
        return ExitCode::SUCCESS;
    }
    if process::effective_uid() != 0 || !Path::new("/dev/net/tun").exists() {
        println!("SKIPPED: this needs root and /dev/net/tun; run it with sudo");
        return ExitCode::SUCCESS;
    }

    let mut table = Table::default();
    let mut failed = Vec::new();
    for scene in wanted {
        println!("scene {} ...", scene.name);
        if catch_unwind(AssertUnwindSafe(|| (scene.play)(&mut table))).is_err() {
            failed.push(scene.name);
        }
    }
    println!("\n{table}");
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed: {}", failed.join(", "));

    ExitCode::FAILURE
}
