//! Every saved scenario, and those that are known not to hold.
//!
//! `scenarios/*.txt` hold. `scenarios/known/*.txt` don't yet, and each says why in its first line; one that holds has to move.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it measured"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use connlib_sim::{Campaign, Scenario, World};

/// Hours of virtual time are for builds that are optimised.
const LONGEST_IN_DEBUG: Duration = Duration::from_secs(20);

#[test]
fn every_saved_scenario_holds() {
    let complaints = Mutex::new((Campaign::default(), String::new()));
    in_parallel(&files("scenarios"), |path, scenario| {
        if cfg!(debug_assertions) && scenario.lasts > LONGEST_IN_DEBUG {
            return;
        }
        let result = World::new(scenario).run();
        let mut complaints = complaints.lock().unwrap();
        match result {
            Ok(report) => complaints.0.add(&report),
            Err(failure) => complaints.1 += &format!("{}: {failure}\n", path.display()),
        }
    });

    let (campaign, complaints) = complaints.into_inner().unwrap();
    assert!(complaints.is_empty(), "\n{complaints}");
    println!("{campaign}");
}

#[test]
fn those_that_are_known_to_fail_do() {
    in_parallel(&files("scenarios/known"), |path, scenario| {
        let text = fs::read_to_string(path).unwrap();
        assert!(
            text.starts_with("# "),
            "{} doesn't say why it fails",
            path.display()
        );
        let is_mended = World::new(scenario).run().is_ok();
        assert!(
            !is_mended,
            "{} holds: move it to those that do",
            path.display()
        );
    });
}

#[test]
fn a_text_that_is_printed_is_read_as_the_same_scenario() {
    let saved = [files("scenarios"), files("scenarios/known")].concat();
    let saved = saved
        .iter()
        .map(|path| Scenario::parse(&fs::read_to_string(path).unwrap()).unwrap());
    let drawn = (0..2_000).map(Scenario::from_seed);
    for scenario in saved.chain(drawn) {
        let text = scenario.to_string();
        assert_eq!(Scenario::parse(&text).unwrap(), scenario, "{text}");
    }
}

#[test]
fn a_text_that_is_none_names_its_line() {
    for (text, line, what) in [
        ("", 0, "no scenario"),
        ("seed 1", 1, "begins with"),
        ("scenario v1 \"a\"\n\nlasts soon", 3, "no duration"),
        (
            "scenario v1 \"a\"\nlasts 1s\nhost C1 client\nhost C1 relay",
            4,
            "a second `C1`",
        ),
        (
            "scenario v1 \"a\"\nlasts 1s\nhost C1 client ipv4=1.2.3.4",
            3,
            "no meaning",
        ),
        (
            "scenario v1 \"a\"\nlasts 1s\nt=1s detach C1",
            3,
            "no host `C1`",
        ),
        (
            "scenario v1 \"a\"\nexpect complete d by=1s",
            2,
            "no flow `d`",
        ),
        ("scenario v1 \"a\"\nhost C1 client", 2, "`lasts` is missing"),
        (
            "scenario v1 \"a\"\nres A cidr=10.0.0.0/8 filter=tcp/90-80 site=A",
            2,
            "no value of `filter`",
        ),
        (
            "scenario v1 \"a\"\nres A internet filter=icmp site=A",
            2,
            "no filters",
        ),
        (
            "scenario v1 \"a\"\nlasts 1s\nhost C1 client\nt=0s fetch C1 10.0.0.1 bytes=9 proto=icmp id=f",
            4,
            "by UDP",
        ),
    ] {
        let error = Scenario::parse(text).unwrap_err();
        assert_eq!(error.line, line, "{text}: {error}");
        assert!(error.what.contains(what), "{text}: {error}");
    }
}

#[test]
fn any_bytes_are_a_scenario() {
    for seed in 0..support::seeds().div_ceil(10) {
        let len = usize::try_from(seed % 120).unwrap();
        let bytes: Vec<u8> = (0..len as u64)
            .map(|at| ((seed + 1) * (at + 7) * 2_654_435_761).to_be_bytes()[5])
            .collect();
        let scenario = Scenario::from_bytes(&bytes);
        assert_eq!(Scenario::parse(&scenario.to_string()).unwrap(), scenario);
        support::report(scenario);
    }
}

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = entries
        .filter(|path| path.extension().is_some_and(|end| end == "txt"))
        .collect();
    paths.sort();

    paths
}

/// Does something with each file on all processors. A panic of one is passed on.
fn in_parallel(paths: &[PathBuf], act: impl Fn(&Path, Scenario) + Sync) {
    let next = Mutex::new(paths.iter());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let Some(path) = next.lock().unwrap().next() else {
                        return;
                    };
                    let text = fs::read_to_string(path).unwrap();
                    let scenario = Scenario::parse(&text)
                        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                    act(path, scenario);
                }
            });
        }
    });
}
