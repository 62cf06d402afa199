//! A machine that passes packets on: a host inside, a host outside, and the router in between.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use connlib_os::namespace::{Namespace, run_in, set_sysctl_net};
use connlib_os::netlink::RouteSpec;
use connlib_os::router::{Masquerade, Router};

use crate::resolver::{call, is_inside, run_inside};
use crate::{configure, nets, runtime};

/// The interface that stands for the tunnel.
const INSIDE: &str = "tun7";

/// Longer than neighbours take to find each other.
const LONG: Duration = Duration::from_secs(10);

struct World {
    client: Namespace,
    router: Namespace,
    outside: Namespace,
}

/// A client at 100.64.0.7 and fd00:2021:1111::7, and a host at 10.8.0.2 and fd08::2 that knows no way to the client.
fn world() -> World {
    let [client, router, outside] = [(); 3].map(|()| Namespace::create().unwrap());
    configure(&router, async |netlink| {
        for (near, far, namespace) in [
            (INSIDE, "cable", &client),
            ("uplink", "other-end", &outside),
        ] {
            netlink.add_veth(near, far).await.unwrap();
            netlink.move_to_namespace(far, namespace).await.unwrap();
        }
    });
    for (namespace, interface, addresses) in [
        (&router, INSIDE, ["100.64.0.1/24", "fd00:2021:1111::1/112"]),
        (&router, "uplink", ["10.8.0.1/24", "fd08::1/64"]),
        (&client, "cable", ["100.64.0.7/24", "fd00:2021:1111::7/112"]),
        (&outside, "other-end", ["10.8.0.2/24", "fd08::2/64"]),
    ] {
        configure(namespace, async |netlink| {
            for address in nets(&addresses) {
                netlink.add_address(interface, address).await.unwrap();
            }
            netlink.set_up(interface).await.unwrap();
        });
    }
    for (namespace, interfaces) in [
        (&router, [INSIDE, "uplink"]),
        (&client, ["cable", "cable"]),
        (&outside, ["other-end", "other-end"]),
    ] {
        configure(namespace, async |netlink| {
            for interface in interfaces {
                netlink.settle(interface).await.unwrap();
            }
        });
    }
    configure(&client, async |netlink| {
        for (to, via) in [("0.0.0.0/0", "100.64.0.1"), ("::/0", "fd00:2021:1111::1")] {
            let route = RouteSpec::by_router(to.parse().unwrap(), via.parse().unwrap());
            netlink.add_route(&route).await.unwrap();
        }
    });

    World {
        client,
        router,
        outside,
    }
}

impl World {
    /// As whom the host outside hears the client, if it does within `patience`.
    fn heard_as(&self, [from, to]: [&str; 2], patience: Duration) -> Option<String> {
        let bind = |namespace: &Namespace, ip: &str| {
            let addr = SocketAddr::new(ip.parse().unwrap(), 0);
            run_in(namespace, || UdpSocket::bind(addr))
                .unwrap()
                .unwrap()
        };
        let (client, host) = (bind(&self.client, from), bind(&self.outside, to));
        host.set_read_timeout(Some(patience)).unwrap();
        client.set_read_timeout(Some(LONG)).unwrap();
        client.send_to(b"x", host.local_addr().unwrap()).unwrap();
        let (_, heard) = match host.recv_from(&mut [0; 8]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            result => result.unwrap(),
        };
        let ip = heard.ip().to_string();
        if ip != from {
            // An answer finds back.
            host.send_to(b"y", heard).unwrap();
            assert_eq!(client.recv(&mut [0; 8]).unwrap(), 1);
        }

        Some(ip)
    }

    fn parameter(&self, path: &str) -> String {
        let path = Path::new("/proc/sys/net").join(path);
        let read = || std::fs::read_to_string(path).unwrap().trim().to_owned();
        run_in(&self.router, read).unwrap()
    }

    fn in_router<T: Send>(&self, act: impl AsyncFnOnce() -> T + Send) -> T {
        run_in(&self.router, || runtime().block_on(act())).unwrap()
    }

    fn rules(&self) -> String {
        let list = || {
            std::process::Command::new("nft")
                .args(["list", "ruleset"])
                .output()
        };
        let output = run_in(&self.router, list).unwrap().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    }
}

fn masquerade() -> Masquerade {
    Masquerade {
        interface: INSIDE.to_owned(),
        sources: nets(&["100.64.0.0/11", "fd00:2021:1111::/107"]),
        nft: "nft".into(),
    }
}

const WAYS: [[&str; 3]; 2] = [
    ["100.64.0.7", "10.8.0.2", "10.8.0.1"],
    ["fd00:2021:1111::7", "fd08::2", "fd08::1"],
];

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn packets_are_passed_on_under_the_routers_addresses_and_all_is_taken_back() {
    if std::process::Command::new("nft")
        .arg("-v")
        .output()
        .is_err()
    {
        assert!(std::env::var_os("CI").is_none(), "nft is missing");
        eprintln!("SKIPPED: there is no nft; install the package `nftables`");
        return;
    }
    let world = world();
    let before = world.rules();
    for [client, host, _] in WAYS {
        let heard = world.heard_as([client, host], Duration::from_millis(300));
        assert_eq!(heard, None, "nobody passes it on");
    }
    // Whoever follows routers' advertisements goes on to.
    run_in(&world.router, || {
        set_sysctl_net("ipv6/conf/uplink/accept_ra", "1")
    })
    .unwrap()
    .unwrap();

    let mut router = world.in_router(async || {
        let mut router = Router::default();
        router.forward_v4().unwrap();
        router.forward_v6().unwrap();
        router
    });
    assert_eq!(world.parameter("ipv6/conf/uplink/accept_ra"), "2");
    for [client, host, _] in WAYS {
        let heard = world.heard_as([client, host], LONG);
        assert_eq!(heard.as_deref(), Some(client), "under its own address");
    }

    // What a killed run has left behind is no obstacle.
    for _ in 0..2 {
        world.in_router(async || router.masquerade(&masquerade()).await.unwrap());
    }
    assert_eq!(world.rules().matches("masquerade").count(), 2);
    for [client, host, own] in WAYS {
        let heard = world.heard_as([client, host], LONG);
        assert_eq!(heard.as_deref(), Some(own));
    }

    world.in_router(async || router.tear_down().await);
    assert_eq!(world.rules(), before);
    for (path, value) in [
        ("ipv4/ip_forward", "0"),
        ("ipv6/conf/all/forwarding", "0"),
        ("ipv6/conf/uplink/accept_ra", "1"),
    ] {
        assert_eq!(world.parameter(path), value, "{path}");
    }
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn what_is_switched_on_already_stays_on() {
    let world = world();
    run_in(&world.router, || set_sysctl_net("ipv4/ip_forward", "1"))
        .unwrap()
        .unwrap();
    world.in_router(async || {
        let mut router = Router::default();
        router.forward_v4().unwrap();
        router.forward_v6().unwrap();
        router.tear_down().await;
    });
    assert_eq!(world.parameter("ipv4/ip_forward"), "1");
    assert_eq!(world.parameter("ipv6/conf/all/forwarding"), "0");
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn where_ipv6_is_not_ours_to_switch_on_nothing_of_it_changes_and_ipv4_goes_on() {
    run_inside(&["--mount", "--net"], "router::with_ipv6_read_only");
}

/// What the test above runs in namespaces; it is no test of its own.
#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn with_ipv6_read_only() {
    if !is_inside() {
        return;
    }
    let parameter = |path: &str| std::fs::read_to_string(Path::new("/proc/sys/net").join(path));
    let set = |path: &str| std::fs::write(Path::new("/proc/sys/net").join(path), "1").unwrap();
    set("ipv6/conf/default/accept_ra");
    let all = "/proc/sys/net/ipv6/conf/all";
    call("mount", &["-n", "--bind", all, all]);
    call("mount", &["-n", "-o", "remount,bind,ro", all]);

    let mut router = Router::default();
    router.forward_v4().unwrap();
    let error = router.forward_v6().unwrap_err().to_string();
    let named = "can't switch on forwarding by /proc/sys/net/ipv6/conf/all/forwarding: Read-only file system";
    assert!(error.starts_with(named), "{error}");
    assert_eq!(parameter("ipv4/ip_forward").unwrap(), "1\n");
    assert_eq!(parameter("ipv6/conf/default/accept_ra").unwrap(), "1\n");

    runtime().block_on(router.tear_down());
    assert_eq!(parameter("ipv4/ip_forward").unwrap(), "0\n");
}
