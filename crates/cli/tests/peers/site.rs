//! A site with hosts of both IP versions and with names, a gateway that masquerades, and a client's machine to run programs on.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Output};

use connlib_os::namespace::Namespace;

use crate::network::Network;
use crate::tools::{
    PATIENCE, Service, Turn, begin_with, command, command_with, find, output, stdout, wait_for,
};
use crate::world::{Plan, World};

/// The addresses of the host behind the gateway.
pub(crate) const HOST_V4: [&str; 2] = ["10.20.0.10", "10.20.0.11"];
pub(crate) const HOST_V6: [&str; 2] = ["fd00:20::10", "fd00:20::11"];

/// Where the client answers questions.
const SENTINEL: &str = "100.100.111.1";

pub(crate) const TOPOLOGY: &str = r#"
[network]
upstream_dns = ["192.0.2.53"]

[[site]]
name = "office"

[[site]]
name = "closed"

[[actor]]
name = "alice"
groups = ["staff"]

[[resource]]
name = "lan"
address = "10.20.0.0/24"
sites = ["office"]

[[resource]]
name = "lan of the newer kind"
address = "fd00:20::/64"
sites = ["office"]

[[resource]]
name = "names"
address = "*.corp.test"
sites = ["office"]

[[resource]]
name = "web alone"
address = "10.20.0.0/16"
sites = ["office"]
filters = ["tcp/80"]

[[resource]]
name = "where nobody serves"
address = "10.20.2.0/24"
sites = ["closed"]

[[policy]]
group = "staff"
resource = "lan"

[[policy]]
group = "staff"
resource = "lan of the newer kind"

[[policy]]
group = "staff"
resource = "names"

[[policy]]
group = "staff"
resource = "web alone"

[[policy]]
group = "staff"
resource = "where nobody serves"
"#;

/// What the site calls its hosts.
const HOSTS: &str = "\
127.0.0.1 localhost
10.20.0.10 both.corp.test four.corp.test two.corp.test
10.20.0.11 two.corp.test
fd00:20::10 both.corp.test six.corp.test
";

/// The plan of such a world.
pub(crate) fn plan() -> Plan {
    Plan {
        topology: TOPOLOGY,
        gateway: &[],
        hosts: HOSTS,
        ..Plan::default()
    }
}

/// A world that runs. Fields end in this order.
pub(crate) struct Site {
    pub(crate) world: World,
    hosts: Vec<Service>,
    _turn: Turn,
}

impl Site {
    /// Brings everything up, unless one of these programs is missing.
    pub(crate) fn new(programs: &[&str]) -> Option<Self> {
        Self::planned(plan(), programs, &["gateway"], false)
    }

    /// The same by another plan, with several gateways, or with nothing beside it.
    pub(crate) fn planned(
        plan: Plan,
        programs: &[&str],
        gateways: &[&'static str],
        is_measured: bool,
    ) -> Option<Self> {
        let usual = ["getent", "ip", "mount", "nft", "python3", "unshare"];
        let turn = begin_with(&[&usual, programs].concat(), is_measured)?;
        let world = World::planned(plan, &["relay"], gateways, |network| {
            for gateway in gateways {
                lay(network, gateway);
            }
        });
        fs::write(
            world.file("asks-client"),
            format!("nameserver {SENTINEL}\n"),
        )
        .unwrap();
        let hosts = gateways.iter().map(|gateway| {
            let mut command = command(world.network.resource(gateway), "python3");
            command
                .args(["-c", include_str!("host.py")])
                .args([HOST_V4, HOST_V6].concat());
            listening(
                &mut command,
                world.file(&format!("{gateway}.host.log")),
                "listening",
            )
        });
        let hosts = hosts.collect();

        Some(Self {
            world,
            hosts,
            _turn: turn,
        })
    }

    pub(crate) fn client(&self) -> &Namespace {
        self.world.network.namespace("client")
    }

    /// A host behind the only gateway.
    pub(crate) fn host(&self) -> &Namespace {
        self.world.network.resource("gateway")
    }

    /// A program on the client's machine, which asks the client for names.
    pub(crate) fn on_client(&self, words: &[&str]) -> Command {
        let program = find(words[0]).unwrap_or_else(|| panic!("{} is missing", words[0]));
        let resolv_conf = self.world.file("asks-client");
        let mut command = command_with(
            self.client(),
            &[(&resolv_conf, "/etc/resolv.conf")],
            &program,
        );
        command.args(&words[1..]);

        command
    }

    /// What it prints; it has to succeed.
    pub(crate) fn run(&self, words: &[&str]) -> String {
        stdout(&mut self.on_client(words))
    }

    /// What it prints on either way, and whether it succeeded.
    pub(crate) fn attempt(&self, words: &[&str]) -> (bool, String) {
        said(&output(&mut self.on_client(words)))
    }

    /// The addresses that a name has on the client's machine, of the versions that this table of getent(1) has.
    pub(crate) fn addresses(&self, name: &str, table: &str) -> Vec<IpAddr> {
        let said = self.run(&["getent", table, name]);
        let addresses = said.lines().filter(|line| line.contains("STREAM"));

        addresses
            .map(|line| line.split(' ').next().unwrap().parse().unwrap())
            .collect()
    }

    /// A server at the host behind the gateway.
    pub(crate) fn serve(&self, words: &[&str], says: &str) -> Service {
        let mut command = command(self.host(), words[0]);
        command.args(&words[1..]);

        listening(
            &mut command,
            self.world.file(&format!("{}.log", words[0])),
            says,
        )
    }

    /// Nobody of ours has said anything that a person should look at, and the host has not failed.
    pub(crate) fn assert_calm(mut self) {
        for host in &self.hosts {
            assert!(!host.log().contains("Traceback"), "{}", host.log());
        }
        self.world.assert_calm();
    }
}

/// A server that was waited for until it said something.
fn listening(command: &mut Command, log: PathBuf, says: &str) -> Service {
    let service = Service::start(command, log);
    let is_there = wait_for(PATIENCE, || service.log().contains(says).then_some(()));
    assert!(is_there.is_some(), "{command:?}: {}", service.log());

    service
}

/// Everything that a program has printed, and whether it succeeded.
fn said(output: &Output) -> (bool, String) {
    let [out, errors] =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));

    (output.status.success(), format!("{out}{errors}"))
}

/// The rules of a machine's firewall.
pub(crate) fn rules(namespace: &Namespace) -> String {
    stdout(command(namespace, "nft").args(["list", "ruleset"]))
}

/// Gives the network behind a gateway IPv6 and a second host, which knows no way to clients.
fn lay(network: &Network, gateway: &str) {
    let host = network.resource(gateway);
    let gateway = network.namespace(gateway);
    ip(gateway, "address add fd00:20::1/64 dev lan nodad");
    ip(host, "address add 10.20.0.11/24 dev uplink");
    for address in HOST_V6 {
        ip(host, &format!("address add {address}/64 dev uplink nodad"));
    }
    // Only a gateway that masquerades is answered.
    ip(host, "route delete default");
}

pub(crate) fn ip(namespace: &Namespace, words: &str) {
    stdout(command(namespace, "ip").args(words.split(' ')));
}
