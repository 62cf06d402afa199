//! Two sites with networks that overlap, and what is said about packets to them.

use std::io::ErrorKind;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use connlib_os::namespace::run_in;
use serde_json::Value;

use crate::program::{run, verdict};
use crate::world::{Plan, World};

const TOPOLOGY: &str = r#"
site = [{ name = "hq" }, { name = "branch" }]
actor = [{ name = "alice", groups = ["staff"] }]
policy = [
    { group = "staff", resource = "everything" },
    { group = "staff", resource = "branch lan" },
    { group = "staff", resource = "printers" },
    { group = "staff", resource = "wiki" },
]

[[resource]]
name = "everything"
address = "10.0.0.0/8"
sites = ["hq"]
filters = ["tcp/80"]

[[resource]]
name = "branch lan"
address = "10.20.0.0/16"
sites = ["branch"]
filters = ["tcp/22", "udp/7"]

[[resource]]
name = "printers"
address = "10.20.5.0/24"
sites = ["hq"]
filters = ["icmp"]

[[resource]]
name = "wiki"
address = "*.corp.test"
sites = ["hq"]
filters = ["tcp/443"]

[[resource]]
name = "secret"
address = "172.16.0.0/12"
sites = ["hq"]
"#;

fn two_sites() -> World {
    let plan = Plan {
        topology: TOPOLOGY,
        site_of: |gateway| match gateway {
            "gateway-1" => "hq",
            _ => "branch",
        },
        ..Plan::default()
    };
    World::planned(plan, &["relay"], &["gateway-1", "gateway-2"], |_| {})
}

/// What `connlib why` says at a place.
pub(crate) fn why(world: &World, place: &str, packet: &str) -> Vec<Value> {
    let socket = world.file(&format!("{place}.sock"));
    let output = run(&[
        "why",
        packet,
        "--json",
        "--socket",
        socket.to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{}", verdict(&output).1);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let shown = run(&["why", packet, "--socket", socket.to_str().unwrap()]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    let packets = answer["packets"].as_array().unwrap().clone();
    for packet in &packets {
        assert!(shown.contains(packet["why"].as_str().unwrap()), "{shown}");
    }

    packets
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn ten_packets_are_explained_before_anything_is_connected() {
    let mut world = two_sites();
    for (packet, verdict, resource, why) in [
        (
            "10.20.0.10:22/tcp",
            "waits",
            Some("branch lan"),
            "asked for access",
        ),
        (
            "10.20.0.10:80/tcp",
            "waits",
            Some("everything"),
            "asked for access",
        ),
        (
            "10.20.0.10:443/tcp",
            "refused",
            Some("branch lan"),
            "filters of none",
        ),
        (
            "10.20.5.9/icmp",
            "waits",
            Some("printers"),
            "asked for access",
        ),
        (
            "10.20.5.9:22/tcp",
            "waits",
            Some("branch lan"),
            "asked for access",
        ),
        (
            "10.99.0.1:22/tcp",
            "refused",
            Some("everything"),
            "filters of the resource",
        ),
        (
            "wiki.corp.test:443/tcp",
            "waits",
            Some("wiki"),
            "gets addresses",
        ),
        (
            "wiki.corp.test:80/tcp",
            "refused",
            Some("wiki"),
            "filters of the resource",
        ),
        ("172.16.0.1:22/tcp", "outside", None, "no resource"),
        ("100.96.0.77/icmp", "refused", None, "stands for no name"),
    ] {
        let told = self::why(&world, "client", packet);
        assert_eq!(told.len(), 1);
        let told = &told[0];
        assert_eq!(told["verdict"], verdict, "{told}");
        assert_eq!(told["resource"]["name"].as_str(), resource, "{told}");
        assert!(told["why"].as_str().unwrap().contains(why), "{told}");
        assert_eq!(told["gateway"], Value::Null, "{told}");
    }

    world.assert_calm();
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn what_is_said_is_what_happens_and_each_gateway_tells_of_its_own_grants() {
    let mut world = two_sites();
    // Refused at once, or reached through the other site's gateway.
    let refused = run_in(world.network.namespace("client"), || {
        let to = "10.20.0.10:443".to_socket_addrs().unwrap().next().unwrap();
        TcpStream::connect_timeout(&to, Duration::from_secs(10)).unwrap_err()
    });
    assert_ne!(refused.unwrap().kind(), ErrorKind::TimedOut);
    world.connect();
    let status = world.status("client");
    let resources = status["resources"].as_array().unwrap();
    let lan = resources
        .iter()
        .find(|it| it["name"] == "branch lan")
        .unwrap();
    assert_eq!(lan["reach"], "online");
    let told = &why(&world, "client", "10.20.0.10:7/udp")[0];
    assert_eq!(told["verdict"], "passes", "{told}");
    assert_eq!(told["gateway"], lan["gateway"]);
    assert_eq!(told["path"], "direct");
    assert_eq!(told["filters"], serde_json::json!(["tcp/22", "udp/7"]));

    let client = &world.status("gateway-2")["peers"][0]["id"];
    for (gateway, packet, verdict, why) in [
        ("gateway-2", "10.20.0.10:7/udp", "passes", "a resource"),
        ("gateway-2", "10.20.0.10:80/tcp", "refused", "filters"),
        ("gateway-2", "10.99.0.1:80/tcp", "refused", "no resource"),
        ("gateway-1", "10.20.0.10:80/tcp", "refused", "no client"),
    ] {
        let told = &self::why(&world, gateway, packet)[0];
        assert_eq!(told["verdict"], verdict, "{told}");
        assert!(told["why"].as_str().unwrap().contains(why), "{told}");
        if gateway == "gateway-2" {
            assert_eq!(&told["client"], client);
            assert_eq!(told["path"], "direct");
        }
    }
    world.assert_calm();
}
