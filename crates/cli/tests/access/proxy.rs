//! A client and a gateway in places from where only a proxy leads to the portal.

use std::fs;
use std::process::{Child, Command, Stdio};

use connlib_os::namespace::command_in;
use tempfile::NamedTempFile;

use crate::network::Network;
use crate::world::{Plan, World};

/// Where the proxy runs: beside the relay, whose network is the third.
const PROXY: &str = "--proxy=http://user:secret@198.18.3.10:3128";

/// Only those that name themselves are let through, and only to where portals listen.
const SETTINGS: &str = "Port 3128
Listen 198.18.3.10
BasicAuth user secret
ConnectPort 80
";

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_proxy_leads_to_a_portal_that_is_not_reached_otherwise() {
    let Some(mut proxy) = Tinyproxy::new() else {
        return;
    };
    let plan = Plan {
        client: &[PROXY],
        gateway: &["--masquerade=off", PROXY],
        ..Plan::default()
    };

    let mut world = World::planned(plan, &["relay"], &["gateway"], |network| {
        assert_eq!(network.net("relay").host_v4().to_string(), "198.18.3.10");
        network.block("client", "portal");
        network.block("gateway", "portal");
        proxy.start(network);
    });
    world.connect();
    for place in ["client", "gateway"] {
        assert_eq!(world.status(place)["portal"], "joined");
    }
    let log = proxy.log();
    assert_eq!(log.matches("CONNECT 198.18.1.10:80").count(), 2, "{log}");
    world.stop("client");
    world.stop("gateway");
    world.assert_calm();
}

/// A proxy that nobody here wrote. It ends with this.
struct Tinyproxy {
    settings: NamedTempFile,
    log: NamedTempFile,
    process: Option<Child>,
}

impl Tinyproxy {
    /// `None`, and said so, where there is none.
    fn new() -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let has = std::env::split_paths(&path).any(|place| place.join("tinyproxy").exists());
        if !has {
            assert!(std::env::var_os("CI").is_none(), "there is no tinyproxy");
            println!("SKIPPED: there is no tinyproxy; install the package `tinyproxy-bin`");
            return None;
        }

        Some(Self {
            settings: NamedTempFile::new().unwrap(),
            log: NamedTempFile::new().unwrap(),
            process: None,
        })
    }

    fn start(&mut self, network: &Network) {
        fs::write(&self.settings, SETTINGS).unwrap();
        let mut command = Command::new("tinyproxy");
        command_in(&mut command, Some(network.namespace("relay"))).unwrap();
        let process = command
            .arg("-d")
            .arg("-c")
            .arg(self.settings.path())
            .stdin(Stdio::null())
            .stdout(self.log.reopen().unwrap())
            .stderr(Stdio::null())
            .spawn();
        self.process = Some(process.unwrap());
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Tinyproxy {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
