//! Packets that no honest program sends, made by scapy: into the client's TUN device, into the gateway's, and from a host behind it.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::site::{HOST_V4, HOST_V6, Site};
use crate::tools::{command, say, stdout};

/// The interface of either tunnel.
const TUNNEL: &str = "tun-firezone";

/// What others have, or nobody.
const OTHERS: [&str; 12] = [
    "10.20.0.11",
    "100.64.77.77",
    "100.96.0.1",
    "8.8.8.8",
    "127.0.0.1",
    "224.0.0.251",
    "255.255.255.255",
    "fd00:20::11",
    "fd00:2021:1111::7777",
    "2001:db8::9",
    "::1",
    "ff02::1",
];

/// The Python that Debian's packages are for.
const PYTHON: &str = "/usr/bin/python3";

/// Whether there is scapy. Where there isn't, that is said; in CI it is a failure.
fn has_scapy() -> bool {
    let mut python = Command::new(PYTHON);
    python
        .args(["-c", "import scapy.all"])
        .stderr(Stdio::null());
    let has_scapy = python.status().is_ok_and(|status| status.success());
    if !has_scapy {
        assert!(std::env::var_os("CI").is_none(), "scapy is missing");
        say(
            "SKIPPED: nothing was tried, because there is no scapy; install the package `python3-scapy`",
        );
    }

    has_scapy
}

/// Addresses of a part in the tunnel, IPv4 first.
fn addresses(site: &Site, place: &str) -> [String; 2] {
    let status = site.world.status(place);
    let addresses = status["addresses"].as_array().unwrap();

    [0, 1].map(|n: usize| addresses[n].as_str().unwrap().to_owned())
}

/// How many packets a part has dropped, by why.
fn drops(site: &Site, place: &str, from: &str) -> Value {
    site.world.status(place)[from].clone()
}

fn assert_counted(drops: &Value, reasons: &[&str]) {
    for reason in reasons {
        assert!(drops[*reason].as_u64() > Some(0), "no {reason} in {drops}");
    }
}

/// All that worked before still works.
fn assert_works(site: &Site) {
    for to in [HOST_V4[0], HOST_V6[0], "both.corp.test"] {
        let said = site.run(&["ping", "-n", "-c", "3", "-i", "0.1", "-W", "5", to]);
        assert!(said.contains("3 received"), "{said}");
        let to = if to.contains(':') {
            format!("[{to}]")
        } else {
            to.to_owned()
        };
        site.run(&["curl", "-sS", "--max-time", "10", &format!("http://{to}/")]);
    }
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn crafted_packets_are_counted_and_nothing_else_comes_of_them() {
    if !has_scapy() {
        return;
    }
    let Some(site) = Site::new(&["curl", "ping"]) else {
        return;
    };
    assert_works(&site);
    let network = &site.world.network;
    let (client, gateway) = (addresses(&site, "client"), addresses(&site, "gateway"));
    let craft = |namespace, interface: &str, frame: &str, from: [&str; 2], to: [&str; 2]| {
        let mut python = command(namespace, "env");
        python.args([
            PYTHON,
            "-W",
            "ignore",
            "-c",
            include_str!("crafted.py"),
            interface,
            frame,
        ]);
        stdout(python.args(from).args(to).args(OTHERS))
    };
    let links =
        stdout(command(network.namespace("gateway"), "ip").args(["-br", "link", "show", "lan"]));
    let link = links.split_whitespace().nth(2).unwrap();
    let client = client.each_ref().map(String::as_str);
    let gateway = gateway.each_ref().map(String::as_str);
    let host = [HOST_V4[0], HOST_V6[0]];
    for (place, said) in [
        (
            "the client's programs",
            craft(site.client(), TUNNEL, "-", client, host),
        ),
        (
            "the client's programs, to the gateway itself",
            craft(site.client(), TUNNEL, "-", client, gateway),
        ),
        (
            "the gateway's machine",
            craft(network.namespace("gateway"), TUNNEL, "-", host, client),
        ),
        (
            "a host behind it",
            craft(site.host(), "uplink", link, host, client),
        ),
    ] {
        println!("{place}: {said}");
        assert_works(&site);
    }

    let of_client = drops(&site, "client", "drops_from_tun");
    assert_counted(
        &of_client,
        &[
            "malformed",
            "foreign-source",
            "not-for-others",
            "no-resource",
            "stray-error",
        ],
    );
    let of_gateway = drops(&site, "gateway", "drops_from_tun");
    assert_counted(
        &of_gateway,
        &[
            "malformed",
            "foreign-source",
            "no-client",
            "stray-error",
            "no-resource",
        ],
    );
    println!("the client: {of_client}, the gateway: {of_gateway}");
    let shown = site.world.table("client");
    for reason in ["malformed", "foreign-source"] {
        assert!(shown.contains(reason), "{shown}");
    }
    site.assert_calm();
}
