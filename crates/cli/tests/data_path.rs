//! The data path of the whole system under what it doesn't meet every day: full devices, floods, marks, packets that
//! don't fit, and nothing at all. Each test brings up a demo of its own and prints what it has measured.
//!
//! Rates and delays are compared within one run, never with a clock's absolute numbers: the machine may be busy.
//! `CONNLIB_SOAK=1` makes the rest after a load last a minute.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::print_stdout,
    reason = "a test says what it has measured, or why it is skipped"
)]

#[path = "support/capture.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod capture;
#[path = "support/demo.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod demo;
#[path = "support/processes.rs"]
mod processes;
#[path = "support/program.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod program;
#[path = "support/traffic.rs"]
mod traffic;
#[path = "support/vitals.rs"]
mod vitals;

#[path = "data_path/ecn.rs"]
mod ecn;
#[path = "data_path/fairness.rs"]
mod fairness;
#[path = "data_path/floods.rs"]
mod floods;
#[path = "data_path/rest.rs"]
mod rest;
#[path = "data_path/too_big.rs"]
mod too_big;

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use connlib_os::namespace::run_in;
use connlib_os::process;
use tempfile::TempDir;

use demo::Demo;
use processes::program_of;
use traffic::PATIENCE;

/// The host behind the gateway (cli.md "Demo").
const RESOURCE: [&str; 2] = ["10.20.0.10", "2001:db8:20::a"];

/// Our interface.
const TUN: &str = "tun-firezone";

/// A demo whose network behind the gateway has both IP versions, and nobody else's demo beside it.
struct Stage {
    demo: Demo,
    _topology: TempDir,
    _first: First,
    _alone: MutexGuard<'static, ()>,
}

impl Stage {
    /// `None`, said loudly, if this user can't have one.
    fn set() -> Option<Self> {
        let alone = alone();
        if process::effective_uid() != 0 || !Path::new("/dev/net/tun").exists() {
            println!("SKIPPED: this needs root and /dev/net/tun; run the test with sudo");
            return None;
        }

        let first = First::of_all();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("topology.toml");
        fs::write(&file, TOPOLOGY).unwrap();
        let demo = Demo::start_logged(&["--topology", file.to_str().unwrap()]);
        assert_eq!(demo.report["path"], "direct", "{}", demo.report);
        let client = demo.namespace("client");
        for address in families() {
            // Nobody listens there; what matters is that the way to it has come up.
            let nobody = SocketAddr::new(address, 1);
            let refused =
                run_in(&client, || TcpStream::connect_timeout(&nobody, PATIENCE)).unwrap();
            assert_eq!(
                refused.unwrap_err().kind(),
                ErrorKind::ConnectionRefused,
                "{address}"
            );
        }

        Some(Self {
            demo,
            _topology: directory,
            _first: first,
            _alone: alone,
        })
    }

    /// The process that plays a role.
    fn pid(&self, role: &str) -> u32 {
        program_of(self.demo.pid(), role).0
    }

    /// Where the gateway listens, as the client sees it.
    fn gateway(&self) -> SocketAddr {
        let status = self.demo.status("client");

        status["peers"][0]["remote"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap()
    }

    /// Nobody has anything to look at, traffic still flows, and all of it ends in order.
    fn close(self) {
        assert!(self.demo.fetch(1).is_some(), "nothing flows any more");
        let alarms = self.demo.alarms();
        assert!(alarms.is_empty(), "{alarms:#?}");
        assert!(self.demo.stop().0.success());
    }
}

const TOPOLOGY: &str = r#"[[site]]
name = "office"

[[actor]]
name = "alice"
groups = ["staff"]

[[resource]]
name = "office lan"
address = "10.20.0.0/16"
sites = ["office"]

[[policy]]
group = "staff"
resource = "office lan"

[[resource]]
name = "office lan, IPv6"
address = "2001:db8:20::/64"
sites = ["office"]

[[policy]]
group = "staff"
resource = "office lan, IPv6"
"#;

/// A port of the resource's.
fn at_resource(port: u16) -> SocketAddr {
    SocketAddr::new(RESOURCE[0].parse().unwrap(), port)
}

/// The IP versions that the machine has, as addresses of the resource's.
fn families() -> Vec<IpAddr> {
    let has_v6 = Path::new("/proc/sys/net/ipv6").exists();
    if !has_v6 {
        println!("SKIPPED: this machine has no IPv6; only IPv4 is tested");
    }
    let addresses = RESOURCE.iter().map(|address| address.parse().unwrap());

    addresses.take(if has_v6 { 2 } else { 1 }).collect()
}

/// The one in the middle: half of the values are no larger.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);

    values[values.len() / 2]
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The processors go to this session before others while it lives: what they do would be measured, too.
struct First {
    former: Option<String>,
}

/// The weight of a session (sched(7), "The autogroup feature").
const AUTOGROUP: &str = "/proc/self/autogroup";
const FIRST: &str = "-15";

impl First {
    fn of_all() -> Self {
        // `/autogroup-123 nice 0`
        let group = fs::read_to_string(AUTOGROUP).unwrap_or_default();
        let former = group.rsplit(' ').next().map(str::trim);
        // A test that was killed has left its own weight behind.
        let former = former.map(|nice| if nice == FIRST { "0" } else { nice }.to_owned());
        if fs::write(AUTOGROUP, FIRST).is_err() {
            println!(
                "this kernel doesn't weigh sessions: a busy machine may spoil what is measured"
            );
            return Self { former: None };
        }

        Self { former }
    }
}

impl Drop for First {
    fn drop(&mut self) {
        if let Some(former) = &self.former {
            // It could be set, so it can be set back; if not, nobody suffers.
            let _ = fs::write(AUTOGROUP, former);
        }
    }
}

/// Two cores carry one demo at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());

    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
