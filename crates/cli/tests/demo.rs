//! The whole system as processes in namespaces, brought up by the program's own demo.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "support/capture.rs"]
mod capture;
#[path = "support/demo.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod demo;
#[path = "support/processes.rs"]
mod processes;
#[path = "support/program.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod program;

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use connlib_os::clock::Clock;
use connlib_os::namespace::command_in;
use serde_json::Value;
use tempfile::TempDir;

use capture::{Capture, Kind, kinds_of, read};
use demo::Demo;
use processes::{processes_of, program_of};
use program::{Running, connlib, run, verdict};

/// What each KiB that the resource serves begins with.
const MARKER: &[u8] = b"connlib demo: inner bytes, clear";

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn the_direct_demo_shows_what_it_promises() {
    let _alone = alone();
    let report = report(&["--size", "16"]);

    assert_sound(&report, "direct", 16);
    assert!(report["direct_after_ms"].is_number(), "{report}");
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn the_relayed_demo_shows_what_it_promises() {
    let _alone = alone();
    let report = report(&["--size", "16", "--relayed"]);

    assert_sound(&report, "relayed", 16);
    assert!(report["direct_after_ms"].is_null(), "{report}");
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn twenty_runs_with_alternating_paths_all_succeed() {
    let _alone = alone();
    let before = host();

    for number in 0..20 {
        let (arguments, path): (&[&str], _) = match number % 2 {
            0 => (&["--size", "4"], "direct"),
            _ => (&["--size", "4", "--relayed"], "relayed"),
        };
        let report = report(arguments);
        println!(
            "{number}: {path}, the first reply after {} ms",
            report["first_reply_ms"]
        );
        assert_sound(&report, path, 4);
    }

    assert_eq!(host(), before);
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn the_demo_tells_people_what_it_does_and_draws_the_path() {
    let _alone = alone();
    let output = run(&["demo", "--size", "1", "--relayed"]);

    assert!(output.status.success(), "{}", verdict(&output).1);
    let text = String::from_utf8(output.stdout).unwrap();
    for expected in [
        "The client at 192.0.2.10 has joined",
        "═ relay ═",
        "SHA-256 right",
    ] {
        assert!(text.contains(expected), "{text}");
    }
    assert!(
        !text.contains('\u{1b}'),
        "no colour where there is no terminal"
    );
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_file_may_say_who_reaches_what() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("topology.toml");
    let topology = "[[site]]\nname = \"hq\"\n[[actor]]\nname = \"bob\"\ngroups = [\"ops\"]\n\
                    [[resource]]\nname = \"one host\"\naddress = \"10.20.0.10\"\nsites = [\"hq\"]\n\
                    filters = [\"tcp/80\", \"icmp\"]\n\
                    [[policy]]\ngroup = \"ops\"\nresource = \"one host\"\n";
    fs::write(&file, topology).unwrap();

    let report = report(&["--size", "1", "--topology", file.to_str().unwrap()]);
    assert_sound(&report, "direct", 1);
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn nothing_is_left_behind_however_it_ends() {
    let _alone = alone();
    let before = host();

    let demo = Demo::start(&[]);
    let pids = processes_of(demo.pid());
    assert!(
        pids.len() >= 10,
        "six holders, four programs, one sweeper: {pids:?}"
    );
    assert!(demo.fetch(1).is_some(), "it stays up");
    let (status, files) = demo.stop();
    assert!(status.success());
    assert_gone(&pids);
    assert_empty(&files);

    let demo = Demo::start(&["--relayed"]);
    let pids = processes_of(demo.pid());
    let files = demo.kill();
    assert_gone(&pids);
    assert_empty(&files);

    assert_eq!(host(), before);
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn nobody_on_the_way_sees_what_is_inside() {
    let _alone = alone();
    for arguments in [&[][..], &["--relayed"]] {
        let demo = Demo::start(arguments);
        let inner = inner_addresses(&demo);

        let on_router = Capture::start(&demo.namespace("router"));
        let at_resource = Capture::start(&demo.namespace("resource"));
        let body = demo.fetch(4).unwrap();
        let on_router = on_router.stop();
        let at_resource = at_resource.stop();

        assert!(contains(&body, MARKER));
        let clear = at_resource.iter().filter(|frame| contains(frame, MARKER));
        assert!(clear.count() > 10, "the search finds what is there");
        let bytes: usize = on_router.iter().map(Vec::len).sum();
        assert!(bytes > body.len(), "{bytes} bytes are not the whole");

        let mut kinds = BTreeMap::new();
        for frame in &on_router {
            assert!(!contains(frame, MARKER), "the marker is on the way");
            for address in &inner {
                assert!(!contains(frame, address), "an inner address is on the way");
            }
            let Some(packet) = read(frame) else {
                continue;
            };
            for ip in [packet.source, packet.destination] {
                assert!(!is_inner(ip), "{ip} is on the way");
            }
            for kind in kinds_of(packet.udp.unwrap_or_default()) {
                *kinds.entry(kind).or_insert(0_u32) += 1;
            }
        }
        let carried_by = match arguments {
            [] => Kind::WireGuard,
            _ => Kind::ChannelData,
        };
        println!("{} frames on the router: {kinds:?}", on_router.len());
        assert!(kinds[&carried_by] > 3_000, "{kinds:?}");
        assert!(demo.stop().0.success());
    }
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn memory_stays_small_and_does_not_grow_with_what_is_carried() {
    let _alone = alone();
    let demo = Demo::start(&[]);
    // What a program took, without its own code, which is large in builds for tests.
    let taken_mib = |role: &str| {
        let (pid, _) = program_of(demo.pid(), role);
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon"));
        let kib = line.unwrap().split_whitespace().nth(1).unwrap();
        kib.parse::<u64>().unwrap() / 1_024
    };
    let taken = || ["client", "gateway", "relay"].map(taken_mib);
    assert!(demo.fetch(64).is_some());

    let before = taken();
    for _ in 0..8 {
        assert!(demo.fetch(128).is_some());
    }
    let after = taken();

    println!("MiB of client, gateway, relay: {before:?}, after 1 GiB more {after:?}");
    assert!(before.iter().all(|mib| *mib < 16), "{before:?}");
    for (before, after) in before.into_iter().zip(after) {
        assert!(after <= before + 4, "grown from {before} to {after} MiB");
    }
    assert!(demo.stop().0.success());
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn each_role_can_be_killed_and_started_again() {
    let _alone = alone();
    let demo = Demo::start(&[]);
    assert!(demo.fetch(1).is_some());
    let directory = tempfile::tempdir().unwrap();
    let mut again = Vec::new();

    for role in ["client", "gateway", "relay", "portal"] {
        let (pid, arguments) = program_of(demo.pid(), role);
        let killed = Command::new("sh")
            .args(["-c", &format!("kill -9 {pid}")])
            .status();
        assert!(killed.unwrap().success());
        assert_gone(&[pid]);

        let mut command = connlib(&[]);
        command_in(&mut command, Some(&demo.namespace(role))).unwrap();
        let mut running = Running::start(directory.path(), command.args(&arguments));
        running.wait_ready();
        again.push(running);

        let clock = Clock::new();
        let end_at = clock.now() + Duration::from_secs(90);
        while demo.fetch(1).is_none() {
            assert!(clock.now() < end_at, "no way after the {role} was killed");
        }
    }

    drop(again);
    assert!(demo.stop().0.success());
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_user_without_rights_is_told_what_grants_them() {
    // Another user may not run a program in our build directory.
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("connlib");
    fs::copy(env!("CARGO_BIN_EXE_connlib"), &program).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let token = directory.path().join("token");
    program::private_file(&token, b"abc");
    std::os::unix::fs::chown(&token, Some(NOBODY), Some(NOBODY)).unwrap();
    let as_nobody = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command
            .args(arguments)
            .env_clear()
            .current_dir("/")
            .gid(NOBODY)
            .uid(NOBODY);
        verdict(&command.output().unwrap())
    };

    // Where users may have namespaces and the device it works.
    let (code, message) = as_nobody(&["demo", "--json", "--size", "1"]);
    let is_told = ["sudo", "sysctl", "run as root"]
        .iter()
        .any(|word| message.contains(word));
    assert!(code == 0 || code == 5 && is_told, "{code}: {message}");

    let token = token.to_str().unwrap();
    let arguments = [
        "client",
        "--api-url",
        "ws://127.0.0.1:1",
        "--id",
        "x",
        "--token-file",
        token,
    ];
    let (code, message) = as_nobody(&arguments);
    assert_eq!(code, 5, "{message}");
    assert!(message.contains("setcap"), "{message}");
}

/// A user that owns nothing.
const NOBODY: u32 = 65_534;

/// Runs one demo and returns its report.
fn report(arguments: &[&str]) -> Value {
    let output = run(&[&["demo", "--json"], arguments].concat());
    let (code, message) = verdict(&output);

    assert_eq!(code, 0, "{message}");
    serde_json::from_slice(&output.stdout).expect("stdout is one JSON value")
}

fn assert_sound(report: &Value, path: &str, mib: u64) {
    assert_eq!(report["ok"], true, "{report}");
    assert_eq!(report["path"], path, "{report}");
    assert_eq!(report["log"]["warn"], 0, "{report}");
    assert_eq!(report["log"]["error"], 0, "{report}");
    let fetches = report["fetches"].as_array().unwrap();
    assert!(!fetches.is_empty());
    for fetch in fetches {
        assert_eq!(fetch["bytes"], mib << 20, "{report}");
        assert_eq!(fetch["sha256_ok"], true, "{report}");
    }
}

/// The demos of this file one at a time: two cores carry one of them.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());

    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What of the host a demo must not change.
fn host() -> [String; 4] {
    let mut interfaces: Vec<_> = fs::read_dir("/sys/class/net")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    interfaces.sort_unstable();
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();

    [
        interfaces.join(" "),
        read("/proc/net/route"),
        read("/proc/sys/net/ipv4/ip_forward"),
        read("/etc/resolv.conf"),
    ]
}

fn assert_gone(pids: &[u32]) {
    let clock = Clock::new();
    let end_at = clock.now() + Duration::from_secs(10);
    // A process whose first thread has ended holds its sockets until the last one has.
    let threads = |pid: &u32| {
        let tasks = fs::read_dir(format!("/proc/{pid}/task"));
        tasks.map_or(0, Iterator::count)
    };
    let is_there = |pid: &&u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && (!stat.contains(") Z ") || threads(pid) > 1)
    };
    while let Some(pid) = pids.iter().find(is_there) {
        assert!(clock.now() < end_at, "the process {pid} is still there");
        thread::yield_now();
    }
}

fn assert_empty(directory: &TempDir) {
    let left: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();

    assert!(left.is_empty(), "{left:?}");
}

/// The bytes that stand for the tunnel's ends in packets: pairs of source and destination, which are long enough not to
/// turn up by chance, and the resource's address as text.
fn inner_addresses(demo: &Demo) -> Vec<Vec<u8>> {
    let socket = format!("--socket={}", demo.file("client.sock").display());
    let status = run(&["status", "--json", &socket]);
    assert!(status.status.success(), "{}", verdict(&status).1);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    let addresses = status["addresses"].as_array().unwrap().iter();
    let client = addresses
        .filter_map(|address| match address.as_str().unwrap().parse().unwrap() {
            IpAddr::V4(ip) => Some(ip.octets()),
            IpAddr::V6(_) => None,
        })
        .next()
        .unwrap();
    assert!(is_inner(IpAddr::from(client)));
    let resource = [10, 20, 0, 10];

    vec![
        [client, resource].concat(),
        [resource, client].concat(),
        b"10.20.0.10".to_vec(),
    ]
}

/// Whether an address belongs behind the gateway or to the tunnel.
fn is_inner(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => matches!(ip.octets(), [10, 20, _, _] | [100, 64..=127, _, _]),
        IpAddr::V6(ip) => ip.segments()[0] == 0xfd00,
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|bytes| bytes == needle)
}
