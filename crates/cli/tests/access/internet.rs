//! The Internet as a resource: a client whose everything goes through a gateway that masquerades.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

use connlib_os::namespace::{Namespace, run_in, set_sysctl_net};
use connlib_os::netlink::{Netlink, RouteSpec};

use crate::network::{Network, RESOURCE};
use crate::why::why;
use crate::world::{Plan, World};

const TOPOLOGY: &str = r#"
site = [{ name = "office" }]
actor = [{ name = "alice", groups = ["staff"] }]
resource = [{ name = "the rest", address = "internet", sites = ["office"] }]
policy = [{ group = "staff", resource = "the rest" }]
"#;

/// A host that only the gateway knows a way to, and that knows none to clients.
const FAR: &str = "203.0.113.77";

const PORT: u16 = 8;

fn world() -> World {
    let plan = Plan {
        topology: TOPOLOGY,
        client: &["--internet=on"],
        gateway: &[],
        ..Plan::default()
    };
    World::planned(plan, &["relay"], &["gateway"], |network| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(lay_far(network));
        run_in(network.namespace("gateway"), || {
            set_sysctl_net("ipv4/ip_forward", "0").unwrap();
        })
        .unwrap();
        // As some systems have it: only what would be answered the same way is let in.
        run_in(network.namespace("client"), || {
            set_sysctl_net("ipv4/conf/all/rp_filter", "1").unwrap();
        })
        .unwrap();
    })
}

async fn lay_far(network: &Network) {
    let far = format!("{FAR}/32").parse().unwrap();
    let mut host = Netlink::new_in(network.resource("gateway")).unwrap();
    host.add_address("uplink", far).await.unwrap();
    let everywhere = "0.0.0.0/0".parse().unwrap();
    let usual = RouteSpec::by_router(everywhere, "10.20.0.1".parse().unwrap());
    host.delete_route(&usual).await.unwrap();
    let mut gateway = Netlink::new_in(network.namespace("gateway")).unwrap();
    let way = RouteSpec::by_router(far, RESOURCE.into());
    gateway.add_route(&way).await.unwrap();
}

fn bound(namespace: &Namespace, ip: &str, port: u16) -> UdpSocket {
    let addr = SocketAddr::new(ip.parse().unwrap(), port);
    let socket = run_in(namespace, || UdpSocket::bind(addr))
        .unwrap()
        .unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    socket
}

/// Answers one datagram, and says whom it came from.
fn answer_once(socket: UdpSocket) -> JoinHandle<IpAddr> {
    std::thread::spawn(move || {
        let (len, from) = socket.recv_from(&mut [0; 64]).unwrap();
        socket.send_to(&[0; 64][..len], from).unwrap();
        from.ip()
    })
}

fn rules(namespace: &Namespace) -> String {
    let list = || Command::new("nft").args(["list", "ruleset"]).output();
    let output = run_in(namespace, list).unwrap().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn parameter(namespace: &Namespace, name: &str) -> String {
    let read = || std::fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap();
    run_in(namespace, read).unwrap().trim().to_owned()
}

fn forwarding(namespace: &Namespace) -> String {
    parameter(namespace, "ipv4/ip_forward")
}

/// How strictly the client's machine filters what comes in.
fn reverse_path(world: &World) -> String {
    let client = world.network.namespace("client");
    parameter(client, "ipv4/conf/default/rp_filter")
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn the_internet_is_reached_through_the_gateway_and_the_neighbours_are_not() {
    if Command::new("nft").arg("-v").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "nft is missing");
        println!("SKIPPED: there is no nft; install the package `nftables`");
        return;
    }
    let mut world = world();
    assert_eq!(reverse_path(&world), "2", "loose");
    let gateway = world.network.namespace("gateway");
    assert_eq!(forwarding(gateway), "1");
    assert!(rules(gateway).contains("masquerade"));

    let answering = answer_once(bound(world.network.resource("gateway"), FAR, PORT));
    let client = bound(world.network.namespace("client"), "0.0.0.0", 0);
    client.connect((FAR, PORT)).unwrap();
    client.send(b"knock").unwrap();
    assert_eq!(client.recv(&mut [0; 64]).unwrap(), 5);
    let heard_from = answering.join().unwrap();
    assert_eq!(heard_from.to_string(), "10.20.0.1", "as the gateway");

    // The router is a neighbour, and says itself that nobody listens.
    let near = bound(world.network.namespace("client"), "0.0.0.0", 0);
    let own = world.network.net("client").host_v4().octets();
    let router = format!("{}.{}.{}.1", own[0], own[1], own[2]);
    near.connect((router.as_str(), 9)).unwrap();
    near.send(b"x").unwrap();
    let refused = near.recv(&mut [0; 8]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);

    for (packet, verdict) in [
        ("203.0.113.77:8/udp", "passes"),
        ("192.168.77.1:9/udp", "refused"),
    ] {
        let told = &why(&world, "client", packet)[0];
        assert_eq!(told["verdict"], verdict, "{told}");
    }

    world.stop("client");
    assert_ne!(reverse_path(&world), "2", "as before");
    world.stop("gateway");
    let gateway = world.network.namespace("gateway");
    assert_eq!(forwarding(gateway), "0");
    assert!(!rules(gateway).contains("masquerade"));
    world.assert_calm();
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_killed_gateways_rules_are_replaced_by_the_next_ones() {
    if Command::new("nft").arg("-v").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "nft is missing");
        println!("SKIPPED: there is no nft; install the package `nftables`");
        return;
    }
    let mut world = world();
    world.kill("gateway");
    let count = |world: &World| {
        let rules = rules(world.network.namespace("gateway"));
        rules.matches("masquerade").count()
    };
    assert_eq!(count(&world), 2, "nobody has taken them back");
    world.start("gateway");
    assert_eq!(count(&world), 2);
    world.stop("gateway");
    assert_eq!(count(&world), 0);
}
