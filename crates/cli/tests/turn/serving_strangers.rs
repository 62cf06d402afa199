//! Programs of others use our relay, which stands alone.

use std::net::IpAddr;
use std::process::{Child, Command, Stdio};

use connlib_os::namespace::command_in;
use tempfile::TempDir;

use crate::coturn::have;
use crate::network::Network;
use crate::program::{Running, connlib};

const SECRET: &str = "north";

/// Messages of each client.
const MESSAGES: &str = "-n50";

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_stun_client_learns_its_address() {
    let Some(mut scene) = Scene::lay() else {
        return;
    };
    for address in scene.addresses("relay") {
        let said = scene.run("turnutils_stunclient", &[&address.to_string()]);

        let own = scene.addresses("client");
        let own = own.iter().find(|own| own.is_ipv4() == address.is_ipv4());
        let line = format!("UDP reflexive addr: {}:", own.unwrap());
        assert!(said.contains(&line), "{said}");
    }
    scene.assert_calm();
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn turn_clients_of_others_reach_a_peer_and_each_other() {
    let Some(mut scene) = Scene::lay() else {
        return;
    };
    let [relay_v4, relay_v6] = scene.addresses("relay").map(|address| address.to_string());
    let [peer_v4, peer_v6] = scene.addresses("peer").map(|address| address.to_string());
    let cases: [(&str, &[&str], &str); 12] = [
        ("channels", &["-c", "-e", &peer_v4], &relay_v4),
        ("channels, IPv6", &["-c", "-x", "-e", &peer_v6], &relay_v6),
        (
            "channels, IPv4 to IPv6",
            &["-c", "-x", "-e", &peer_v6],
            &relay_v4,
        ),
        (
            "channels, IPv6 to IPv4",
            &["-c", "-X", "-e", &peer_v4],
            &relay_v6,
        ),
        ("Send", &["-c", "-s", "-e", &peer_v4], &relay_v4),
        ("Send, IPv6", &["-c", "-s", "-x", "-e", &peer_v6], &relay_v6),
        (
            "Send, IPv4 to IPv6",
            &["-c", "-s", "-x", "-e", &peer_v6],
            &relay_v4,
        ),
        ("pairs of ports", &["-e", &peer_v4], &relay_v4),
        ("channels, both sides relayed", &["-c", "-y"], &relay_v4),
        ("Send, both sides relayed", &["-c", "-s", "-y"], &relay_v4),
        (
            "twenty clients",
            &["-c", "-m", "20", "-e", &peer_v4],
            &relay_v4,
        ),
        (
            "requests of all kinds",
            &["-c", "-G", "-e", &peer_v4],
            &relay_v4,
        ),
    ];
    for (name, arguments, relay) in cases {
        let all = [
            &["-W", SECRET, "-u", "alice", MESSAGES],
            arguments,
            &[relay],
        ]
        .concat();
        let said = scene.run("turnutils_uclient", &all);

        let summary = said
            .lines()
            .find(|line| line.contains("Total lost packets"));
        let summary = summary.unwrap_or_else(|| panic!("{name}: {said}"));
        println!("{name}: {summary}");
        assert!(summary.contains("Total lost packets 0 "), "{name}: {said}");
    }
    scene.assert_calm();
}

/// Our relay, somebody who echoes, and a place for clients.
struct Scene {
    network: Network,
    relay: Running,
    echoes: Vec<Child>,
    _files: TempDir,
}

impl Scene {
    fn lay() -> Option<Self> {
        if ![
            "turnutils_uclient",
            "turnutils_peer",
            "turnutils_stunclient",
        ]
        .into_iter()
        .all(have)
        {
            return None;
        }
        let network = Network::new(&["relay", "client", "peer"], &[]);
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

        let peer = network.net("peer");
        let echo = |address: String| {
            let mut command = Command::new("turnutils_peer");
            command_in(&mut command, Some(network.namespace("peer"))).unwrap();
            let command = command.args(["-L", &address, "-p", "3480"]);
            quiet(command).spawn().unwrap()
        };
        let echoes = vec![
            echo(peer.host_v4().to_string()),
            echo(peer.host_v6().to_string()),
        ];

        Some(Self {
            network,
            relay,
            echoes,
            _files: files,
        })
    }

    fn addresses(&self, place: &str) -> [IpAddr; 2] {
        let net = self.network.net(place);

        [net.host_v4().into(), net.host_v6().into()]
    }

    /// Runs a program to its end where clients are, and returns what it said.
    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new("timeout");
        command_in(&mut command, Some(self.network.namespace("client"))).unwrap();
        let output = command.args(["60", program]).args(arguments).output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();

        said + &String::from_utf8_lossy(&output.stderr)
    }

    fn assert_calm(&mut self) {
        let log = self.relay.log_so_far().join("\n");
        assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for echo in &mut self.echoes {
            // It fails if the process has ended.
            let _ = echo.kill();
            let _ = echo.wait();
        }
    }
}

fn quiet(command: &mut Command) -> &mut Command {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
}
