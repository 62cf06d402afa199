//! Our relay, which stands alone, and places for those who use it.

use std::net::IpAddr;
use std::process::Command;

use connlib_os::clock::Clock;
use connlib_os::namespace::command_in;
use connlib_wire::secret::Secret;
use connlib_wire::stun::rest_password;
use tempfile::TempDir;

use crate::network::Network;
use crate::program::{Running, connlib};
use crate::tshark::{Seen, Witness};

/// What the relay makes credentials of.
pub(crate) const SECRET: &str = "north";

/// A relay, a place for clients and one for a peer of theirs.
pub(crate) struct Scene {
    pub(crate) network: Network,
    relay: Running,
    witness: Witness,
    _files: TempDir,
}

impl Scene {
    pub(crate) fn lay() -> Self {
        let network = Network::new(&["relay", "client", "peer"], &[]);
        let witness = Witness::start(network.namespace("relay"));
        let files = tempfile::tempdir().unwrap();
        let here = network.net("relay");
        let mut command = connlib(&["relay", "--secret", SECRET]);
        command
            .arg(format!("--public-ip4={}", here.host_v4()))
            .arg(format!("--public-ip6={}", here.host_v6()))
            .arg(format!(
                "--socket={}",
                files.path().join("relay.sock").display()
            ));
        command_in(&mut command, Some(network.namespace("relay"))).unwrap();
        let mut relay = Running::start(files.path(), &mut command);
        relay.wait_ready();

        Self {
            network,
            relay,
            witness,
            _files: files,
        }
    }

    /// IPv4 first.
    pub(crate) fn addresses(&self, place: &str) -> [IpAddr; 2] {
        let net = self.network.net(place);

        [net.host_v4().into(), net.host_v6().into()]
    }

    /// Runs a program to its end where clients are, and returns what it said.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new("timeout");
        command_in(&mut command, Some(self.network.namespace("client"))).unwrap();
        let output = command.args(["60", program]).args(arguments).output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();

        said + &String::from_utf8_lossy(&output.stderr)
    }

    /// Fails if the relay has seen something strange, or tshark has; how much that was of what, as long as there is tshark.
    pub(crate) fn finish(mut self, what: &str) -> Option<Seen> {
        let log = self.relay.log_so_far().join("\n");
        assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");

        self.witness.judge(what)
    }
}

/// A user name and its password, by the usual TURN REST scheme, for an hour.
pub(crate) fn credentials(name: &str) -> (String, Secret) {
    let name = format!("{}:{name}", Clock::new().unix().as_secs() + 3_600);
    let password = rest_password(&name, &Secret::from(SECRET));

    (name, password)
}

/// Whether a program is there. Where it isn't, that is said; in CI it is a failure.
pub(crate) fn is_there(program: &str, package: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has = std::env::split_paths(&path).any(|place| place.join(program).exists());
    if !has {
        assert!(std::env::var_os("CI").is_none(), "there is no {program}");
        println!("SKIPPED: there is no {program}; install the package `{package}`");
    }

    has
}
