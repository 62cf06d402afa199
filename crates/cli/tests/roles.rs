//! Roles that need no rights of root, and the portal's verbs: what they print, and what scripts can wait for.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "roles/contents.rs"]
mod contents;
#[path = "roles/draining.rs"]
mod draining;
#[path = "roles/lone_relay.rs"]
mod lone_relay;
#[path = "support/program.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod program;
#[path = "roles/questions.rs"]
mod questions;
#[path = "roles/threads.rs"]
mod threads;

use std::fs::{self, File};
use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;

use program::{Portal, Running, by_shell, connlib, run, verdict};
use serde_json::Value;

#[test]
fn a_token_is_alone_on_stdout_and_opens_what_it_is_for() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let portal = Portal::start(directory);

    let created = run(&["portal", "token", "create", "--relay", &portal.admin]);
    let printed = String::from_utf8(created.stdout).unwrap();
    assert_eq!(printed.lines().count(), 1, "{printed}");
    assert!(!printed.trim().contains(char::is_whitespace), "{printed}");

    let token = portal.token(directory, &["--relay", "--expires", "1h"]);
    let mut relay = Running::start(directory, &mut relay(directory, &portal.url, &token));
    relay.wait_ready();
    let shown = show(&[&portal.admin]);
    assert_eq!(shown["relays"].as_array().unwrap().len(), 1);
    assert!(relay.terminate().success());
    assert!(portal.process.terminate().success());
}

/// Most systems let a process have a thousand descriptors, unless it asks for more.
#[test]
fn a_portal_takes_as_many_descriptors_as_it_may_have() {
    let directory = tempfile::tempdir().unwrap();
    let place = format!(
        "--admin-socket={} --db=:memory:",
        directory.path().join("admin.sock").display()
    );
    let limited = r#"sh -c 'ulimit -Sn 256; exec "$0" "$@"'"#;
    let script = format!("{limited} {{}} portal serve --listen=127.0.0.1:0 {place}");
    let mut portal = Running::start(directory.path(), &mut by_shell(&script));
    portal.wait_for_line("listen=");

    let limits = fs::read_to_string(format!("/proc/{}/limits", portal.pid())).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let mut words = line.unwrap().split_whitespace().skip(3);
    let (soft, hard) = (words.next().unwrap(), words.next().unwrap());
    assert_eq!(soft, hard, "{limits}");
    assert_ne!(soft, "256");
}

#[test]
fn readiness_is_told_by_the_descriptor_that_the_parent_has_left_open() {
    let directory = tempfile::tempdir().unwrap();
    let told = directory.path().join("told");
    let line = format!(
        "{{}} relay --secret=x --public-ip4=127.0.0.1 --listen-port={} --socket={} --ready-fd=3 3>{}",
        free_udp_port(),
        directory.path().join("relay.sock").display(),
        told.display(),
    );

    let mut running = Running::start(directory.path(), &mut by_shell(&line));
    // Both ways to tell are used, the descriptor first.
    running.wait_ready();
    assert_eq!(fs::read_to_string(&told).unwrap(), "READY=1\n");
    assert!(running.terminate().success());
}

#[test]
fn a_descriptor_that_is_ready_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let line = format!(
        "{{}} portal serve --db=:memory: --listen=127.0.0.1:0 --admin-socket={} --ready-fd=5 5>{}",
        directory.path().join("admin.sock").display(),
        fifo.display(),
    );
    let running = Running::start(directory.path(), &mut by_shell(&line));

    // It ends when the last writer has closed it, while the portal runs.
    let told = std::io::read_to_string(File::open(&fifo).unwrap()).unwrap();
    assert_eq!(told, "READY=1\n");
    assert!(running.terminate().success());
}

#[test]
fn applying_tells_what_it_does_and_does_nothing_twice() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let portal = Portal::start(directory);
    let file = directory.join("next.toml");
    fs::write(
        &file,
        "[[site]]\nname = \"office\"\n[[site]]\nname = \"attic\"\n\
         [[actor]]\nname = \"alice\"\ngroups = [\"ops\"]\n",
    )
    .unwrap();
    let apply = |more: &[&str]| {
        let file = file.to_str().unwrap();
        let output = run(&[&["portal", "apply", file, &portal.admin], more].concat());
        assert!(output.status.success(), "{}", verdict(&output).1);
        String::from_utf8(output.stdout).unwrap()
    };

    let would = apply(&["--dry-run"]);
    assert!(would.contains("would add site `attic`"), "{would}");
    assert!(would.contains("would change actor `alice`"), "{would}");
    assert_eq!(apply(&["--dry-run"]), would, "nothing was done");
    let done = apply(&[]);
    assert!(done.contains("added site `attic`"), "{done}");
    assert_eq!(apply(&[]), "nothing to change\n");
}

#[test]
fn verbs_answer_the_same_with_and_without_a_running_portal() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let portal = Portal::start(directory);
    let db = format!("--db={}", directory.join("portal.sqlite").display());

    let running = show(&[&portal.admin]);
    let admin = portal.admin.clone();
    assert!(portal.process.terminate().success());
    assert_eq!(show(&[&db]), running, "the file alone");
    assert_eq!(show(&[&db, &admin]), running, "nobody at the socket");

    let (code, message) = verdict(&run(&["portal", "show", &admin]));
    assert_eq!(code, 4, "{message}");
    let table = run(&["portal", "show", &db]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("ACTOR  GROUPS\nalice  staff\n"), "{table}");
}

/// What decides, who did what, and a copy: asked of a running portal, and of its file.
#[test]
fn a_portal_explains_itself_and_is_copied() {
    const TOPOLOGY: &str = r#"
        [[site]]
        name = "office"
        [[actor]]
        name = "alice"
        groups = ["staff"]
        [[resource]]
        name = "lan"
        address = "10.20.0.0/16"
        sites = ["office"]
        [[policy]]
        group = "staff"
        resource = "lan"
        conditions = [ { remote_ip = ["203.0.113.0/24"] } ]
    "#;
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let portal = Portal::start(directory);
    let file = directory.join("lan.toml");
    fs::write(&file, TOPOLOGY).unwrap();
    let applied = run(&["portal", "apply", file.to_str().unwrap(), &portal.admin]);
    assert!(applied.status.success(), "{}", verdict(&applied).1);
    let db = format!("--db={}", directory.join("portal.sqlite").display());
    let copy = directory.join("copy.sqlite");
    let copy_db = format!("--db={}", copy.display());
    let told = |words: &[&str], place: &str| {
        let output = run(&[&["portal"], words, &[place]].concat());
        assert!(output.status.success(), "{}", verdict(&output).1);
        String::from_utf8(output.stdout).unwrap()
    };
    let questions: [&[&str]; 4] = [
        &["explain", "alice", "lan", "--from", "203.0.113.7"],
        &["explain", "alice", "lan", "--from", "192.0.2.7", "--json"],
        &["audit"],
        &["audit", "--json", "--limit", "1"],
    ];

    told(&["backup", copy.to_str().unwrap()], &portal.admin);
    let answers = questions.map(|words| told(words, &portal.admin));
    let [may, may_not, audit, newest] = &answers;
    assert!(may.starts_with("alice may reach lan now\n"), "{may}");
    assert!(may.contains("remote_ip 203.0.113.0/24"), "{may}");
    let may_not: Value = serde_json::from_str(may_not).unwrap();
    assert_eq!(may_not["allowed"], false);
    let failed = &may_not["verdicts"][0]["others"][0]["failed"][0];
    assert!(failed.as_str().unwrap().contains("192.0.2.7"), "{failed}");
    assert!(audit.contains("added resource lan"), "{audit}");
    let newest: Value = serde_json::from_str(newest).unwrap();
    assert_eq!(newest["rows"].as_array().unwrap().len(), 1);

    let again = run(&["portal", "backup", copy.to_str().unwrap(), &portal.admin]);
    let (code, message) = verdict(&again);
    assert_eq!(code, 1, "{message}");
    assert!(message.contains("exists already"), "{message}");
    let nobody = "11111111-2222-4333-8444-555555555555";
    for words in [
        ["explain", "bob", "lan"],
        ["explain", "alice", "wiki"],
        ["verify", nobody, "--undo"],
    ] {
        let (code, message) = verdict(&run(&[&["portal"], &words[..], &[&portal.admin]].concat()));
        assert_eq!(code, 2, "{message}");
        assert!(message.contains("portal show"), "{message}");
    }

    assert!(portal.process.terminate().success());
    for place in [&db, &copy_db] {
        let of_file = questions.map(|words| told(words, place));
        assert_eq!(of_file, answers, "{place}");
    }
}

#[test]
fn a_revoked_token_ends_the_session_that_it_opened() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let portal = Portal::start(directory);
    let token = portal.token(directory, &["--relay"]);
    let mut relay = Running::start(directory, &mut relay(directory, &portal.url, &token));
    relay.wait_ready();

    let id = show(&[&portal.admin])["tokens"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let revoked = run(&["portal", "token", "revoke", &id, &portal.admin]);
    assert!(revoked.status.success(), "{}", verdict(&revoked).1);

    let (code, message) = relay.wait();
    assert_eq!(code, 3, "{message}");
}

#[test]
fn a_role_that_runs_shows_what_it_does_and_its_socket_goes_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let socket = format!("--socket={}", directory.path().join("relay.sock").display());
    let mut command = connlib(&["relay", "--secret=x", "--public-ip4=127.0.0.1", &socket]);
    command.args(["--listen-port", &free_udp_port()]);
    let mut relay = Running::start(directory.path(), &mut command);
    relay.wait_ready();

    let table = String::from_utf8(run(&["status", &socket]).stdout).unwrap();
    assert!(table.starts_with("relay, portal "), "{table}");
    let json = run(&["status", "--json", &socket]).stdout;
    assert_eq!(
        serde_json::from_slice::<Value>(&json).unwrap()["role"],
        "relay"
    );

    assert!(relay.terminate().success());
    let (code, message) = verdict(&run(&["status", &socket]));
    assert_eq!(code, 1, "{message}");
}

/// A relay that joins the portal at `url`, where nobody disturbs it.
fn relay(directory: &Path, url: &str, token: &Path) -> Command {
    let mut command = connlib(&["relay", "--public-ip4=127.0.0.1", "--api-url", url]);
    command.args(["--listen-port", &free_udp_port()]);
    command.arg("--token-file").arg(token);
    command.arg("--socket").arg(directory.join("relay.sock"));

    command
}

fn show(place: &[&str]) -> Value {
    let output = run(&[&["portal", "show", "--json"], place].concat());
    assert!(output.status.success(), "{}", verdict(&output).1);

    serde_json::from_slice(&output.stdout).unwrap()
}

fn free_udp_port() -> String {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();

    socket.local_addr().unwrap().port().to_string()
}
