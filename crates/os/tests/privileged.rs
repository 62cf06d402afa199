//! What needs root and /dev/net/tun: it works inside namespaces that it makes, and leaves nothing behind.

#![cfg(all(target_os = "linux", feature = "netlink"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "privileged/processes.rs"]
mod processes;
#[path = "privileged/resolver.rs"]
mod resolver;
#[path = "privileged/router.rs"]
mod router;
#[path = "privileged/tun.rs"]
mod tun;
#[path = "privileged/watch.rs"]
mod watch;

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket as StdUdpSocket};
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::time::Duration;

use connlib_os::namespace::{Namespace, NamespaceError, run_in, set_sysctl_net};
use connlib_os::netlink::{
    Families, MAIN_TABLE, Netlink, NetlinkError, RouteSpec, RuleSpec, SourceRuleSpec,
};
use connlib_os::poll::{Interest, Poller, Token};
use connlib_os::udp::{MAX_TRAIN_BYTES, Outgoing, RecvBatch, Udp, UdpConfig, UdpSocket};
use connlib_wire::buffer::Pool;
use connlib_wire::ecn::Ecn;
use connlib_wire::train::{Route, Transmit};

const BOTH: Families = Families { v4: true, v6: true };

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_train_crosses_a_cable_between_two_namespaces() {
    let (left, right) = connected_pair();

    for (from, to) in [("10.9.0.1", "10.9.0.2"), ("fd09::1", "fd09::2")] {
        let mut a = socket_in(&left, from);
        let mut b = socket_in(&right, to);
        let payload: Vec<u8> = (0..3 * 1200 + 100).map(|i| (i % 251) as u8).collect();

        let train = train(b.local_addr(), Ecn::Ect1, 1200, &payload);
        assert_eq!(a.send(&[Outgoing::new(&train, 0)]).unwrap(), 4);

        let mut datagrams = Vec::new();
        let mut batch = RecvBatch::new(Pool::new(MAX_TRAIN_BYTES, 8), 8);
        while datagrams.len() < 4 {
            receive(&mut b, &mut batch);
            for arrival in batch.arrivals() {
                assert_eq!(arrival.from, a.local_addr());
                assert_eq!(arrival.to, b.local_addr());
                assert_eq!(arrival.ecn, Ecn::Ect1);
                datagrams.extend(arrival.datagrams().map(<[u8]>::to_vec));
            }
        }
        let expected: Vec<_> = payload.chunks(1200).map(<[u8]>::to_vec).collect();
        assert_eq!(datagrams, expected);
    }
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_train_is_larger_than_the_path_and_is_refused_not_fragmented() {
    let (left, _right) = connected_pair();
    let mut a = socket_in(&left, "10.9.0.1");

    let train = train(
        "10.9.0.2:9".parse().unwrap(),
        Ecn::NotEct,
        1473,
        &[0; 2 * 1473],
    );

    let refused = a.send(&[Outgoing::new(&train, 0)]).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EMSGSIZE));
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn addresses_are_replaced_and_a_missing_ipv6_is_reported() {
    let namespace = Namespace::create().unwrap();
    configure(&namespace, async |netlink| {
        netlink.add_veth("a", "b").await.unwrap();
        let (one, two) = ("10.1.1.1".parse().unwrap(), "10.1.1.2".parse().unwrap());
        let v6 = "fd01::1".parse().unwrap();

        netlink.set_addresses("a", Some(one), None).await.unwrap();
        let set = netlink.set_addresses("a", Some(two), Some(v6)).await;
        assert_eq!(set.unwrap(), BOTH);
        netlink.set_up("a").await.unwrap();
        // The second time nothing changes.
        let set = netlink.set_addresses("a", Some(two), Some(v6)).await;
        assert_eq!(set.unwrap(), BOTH);

        let addresses = netlink.addresses("a").await.unwrap();
        assert_eq!(addresses, nets(&["10.1.1.2/32", "fd01::1/128"]));

        run_in(&namespace, || {
            set_sysctl_net("ipv6/conf/b/disable_ipv6", "1")
        })
        .unwrap()
        .unwrap();
        let set = netlink
            .set_addresses("b", Some(one), Some(v6))
            .await
            .unwrap();
        assert_eq!(
            set,
            Families {
                v4: true,
                v6: false
            }
        );
        let refused = netlink.set_addresses("b", None, Some(v6)).await;
        assert!(matches!(refused, Err(NetlinkError::NoIpv6 { .. })));
        let route = RouteSpec::by_dev("fd02::/64".parse().unwrap(), "b");
        netlink.set_up("b").await.unwrap();
        netlink.add_route(&route).await.unwrap();
    });
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn interfaces_are_made_found_and_removed() {
    let namespace = Namespace::create().unwrap();
    configure(&namespace, async |netlink| {
        assert_eq!(netlink.link_index("lo").await.unwrap(), 1);
        for missing in ["a", "a-name-that-no-interface-can-have"] {
            let refused = netlink.set_up(missing).await;
            assert!(matches!(refused, Err(NetlinkError::NoSuchInterface { .. })));
        }

        netlink.add_veth("a", "b").await.unwrap();
        let refused = netlink.add_veth("a", "c").await;
        assert!(matches!(refused, Err(NetlinkError::NameTaken { .. })));

        netlink.delete_link("b").await.unwrap();
        netlink.delete_link("b").await.unwrap();
        let refused = netlink.link_index("a").await;
        assert!(
            matches!(refused, Err(NetlinkError::NoSuchInterface { .. })),
            "the pair goes whole"
        );
    });
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn routes_are_set_changed_and_flushed() {
    const TABLE: u32 = 0x1234_5678;
    let namespace = Namespace::create().unwrap();
    configure(&namespace, async |netlink| {
        netlink.add_veth("a", "b").await.unwrap();
        netlink.set_up("a").await.unwrap();
        netlink.set_up("b").await.unwrap();

        let first = nets(&["10.2.0.0/16", "10.3.0.1/32", "fd02::/64"]);
        netlink.set_routes(TABLE, "a", &first).await.unwrap();
        assert_eq!(sorted(netlink.routes(TABLE).await.unwrap()), first);

        // Host bits don't matter, routes by another interface stay, and the defaults are routes, too.
        let other = RouteSpec::by_dev("10.9.0.0/16".parse().unwrap(), "b").in_table(TABLE);
        netlink.add_route(&other).await.unwrap();
        let second = nets(&["0.0.0.0/0", "10.2.3.4/16", "::/0", "fd02::/64"]);
        for _ in 0..2 {
            netlink.set_routes(TABLE, "a", &second).await.unwrap();
            let expected = nets(&[
                "0.0.0.0/0",
                "10.2.0.0/16",
                "10.9.0.0/16",
                "::/0",
                "fd02::/64",
            ]);
            assert_eq!(sorted(netlink.routes(TABLE).await.unwrap()), expected);
        }

        netlink.delete_route(&other).await.unwrap();
        netlink.delete_route(&other).await.unwrap();
        netlink.flush_table(TABLE).await.unwrap();
        netlink.flush_table(TABLE).await.unwrap();
        assert_eq!(netlink.routes(TABLE).await.unwrap(), []);

        let nowhere = RouteSpec::by_router(
            "10.4.0.0/16".parse().unwrap(),
            "10.250.0.1".parse().unwrap(),
        );
        assert!(netlink.add_route(&nowhere).await.is_err());
        let mixed =
            RouteSpec::by_router("fd04::/64".parse().unwrap(), "10.250.0.1".parse().unwrap());
        let refused = netlink.add_route(&mixed).await;
        assert!(matches!(refused, Err(NetlinkError::MixedFamilies { .. })));
        let gone = RouteSpec::by_dev("10.4.0.0/16".parse().unwrap(), "gone");
        netlink.delete_route(&gone).await.unwrap();
    });
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_rule_sends_all_but_marked_packets_to_its_table() {
    const MARK: u32 = 0xfd00_0001;
    const TABLE: u32 = 0x2000_0001;
    let (left, right) = connected_pair();
    let rule = RuleSpec {
        unless_marked: MARK,
        table: TABLE,
        skips_defaults: false,
        priority: 100,
    };
    configure(&left, async |netlink| {
        for _ in 0..2 {
            assert_eq!(netlink.add_rule(&rule).await.unwrap(), BOTH);
        }
        for dst in ["10.9.0.2/32", "fd09::2/128"] {
            let route = RouteSpec::prohibit(dst.parse().unwrap()).in_table(TABLE);
            netlink.add_route(&route).await.unwrap();
        }
    });
    let marked = |addr: &str| {
        let config = UdpConfig::new(SocketAddr::new(addr.parse().unwrap(), 0)).with_mark(MARK);
        run_in(&left, || UdpSocket::bind(&config)).unwrap().unwrap()
    };

    for (from, to) in [("10.9.0.1", "10.9.0.2"), ("fd09::1", "fd09::2")] {
        let to = socket_in(&right, to).local_addr();
        let train = train(to, Ecn::NotEct, 1, b"x");

        let refused = socket_in(&left, from)
            .send(&[Outgoing::new(&train, 0)])
            .unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(marked(from).send(&[Outgoing::new(&train, 0)]).unwrap(), 1);
    }

    configure(&left, async |netlink| {
        for _ in 0..2 {
            netlink.delete_rule(&rule).await.unwrap();
        }
    });
    let to = socket_in(&right, "10.9.0.2").local_addr();
    let train = train(to, Ecn::NotEct, 1, b"x");
    assert_eq!(
        socket_in(&left, "10.9.0.1")
            .send(&[Outgoing::new(&train, 0)])
            .unwrap(),
        1
    );
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_rule_that_skips_defaults_lets_the_machines_own_networks_come_first() {
    const MARK: u32 = 0xfd00_0001;
    const TABLE: u32 = 0x2000_0003;
    let (left, right) = connected_pair();
    let rules = [(MAIN_TABLE, true, 200), (TABLE, false, 300)];
    let rules = rules.map(|(table, skips_defaults, priority)| RuleSpec {
        unless_marked: MARK,
        table,
        skips_defaults,
        priority,
    });
    configure(&left, async |netlink| {
        for (everything, router) in [("0.0.0.0/0", "10.9.0.2"), ("::/0", "fd09::2")] {
            let everything = everything.parse().unwrap();
            let usual = RouteSpec::by_router(everything, router.parse().unwrap());
            netlink.add_route(&usual).await.unwrap();
            let ours = RouteSpec::prohibit(everything).in_table(TABLE);
            netlink.add_route(&ours).await.unwrap();
        }
        for rule in rules.iter().chain(&rules) {
            assert_eq!(netlink.add_rule(rule).await.unwrap(), BOTH);
        }
    });
    let marked = |addr: &str| {
        let config = UdpConfig::new(SocketAddr::new(addr.parse().unwrap(), 0)).with_mark(MARK);
        run_in(&left, || UdpSocket::bind(&config)).unwrap().unwrap()
    };

    for (from, near, far) in [
        ("10.9.0.1", "10.9.0.2", "192.0.2.1:9"),
        ("fd09::1", "fd09::2", "[2001:db8::1]:9"),
    ] {
        let near = socket_in(&right, near).local_addr();
        let [near, far] = [near, far.parse().unwrap()].map(|to| train(to, Ecn::NotEct, 1, b"x"));
        let mut socket = socket_in(&left, from);
        assert_eq!(socket.send(&[Outgoing::new(&near, 0)]).unwrap(), 1);
        let refused = socket.send(&[Outgoing::new(&far, 0)]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(marked(from).send(&[Outgoing::new(&far, 0)]).unwrap(), 1);
    }

    configure(&left, async |netlink| {
        for rule in rules.iter().chain(&rules) {
            netlink.delete_rule(rule).await.unwrap();
        }
    });
    let far = train("192.0.2.1:9".parse().unwrap(), Ecn::NotEct, 1, b"x");
    let sent = socket_in(&left, "10.9.0.1").send(&[Outgoing::new(&far, 0)]);
    assert_eq!(sent.unwrap(), 1);
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_prohibit_route_refuses_what_a_router_would_forward() {
    let (left, right) = connected_pair();
    configure(&left, async |netlink| {
        let default =
            RouteSpec::by_router("0.0.0.0/0".parse().unwrap(), "10.9.0.2".parse().unwrap());
        netlink.add_route(&default).await.unwrap();
    });
    run_in(&right, || set_sysctl_net("ipv4/ip_forward", "1"))
        .unwrap()
        .unwrap();
    let forbidden = RouteSpec::prohibit("192.0.2.0/24".parse().unwrap());
    configure(&right, async |netlink| {
        netlink.add_route(&forbidden).await.unwrap()
    });

    // Only connected sockets hear what ICMP says.
    let socket = run_in(&left, || StdUdpSocket::bind("10.9.0.1:0"))
        .unwrap()
        .unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    socket.connect("192.0.2.1:9").unwrap();
    socket.send(b"x").unwrap();

    let refused = socket.recv(&mut [0; 8]).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::HostUnreachable);
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_source_rule_is_about_what_comes_from_there_only() {
    const TABLE: u32 = 0x2000_0002;
    let (left, right) = connected_pair();
    let here = "10.9.0.1";
    let elsewhere = "10.9.0.3";
    configure(&left, async |netlink| {
        let address = format!("{elsewhere}/24").parse().unwrap();
        netlink.add_address("cable", address).await.unwrap();
        let rules = ["10.9.0.3/32", "fd09::1/64"].map(|from| SourceRuleSpec {
            from: from.parse().unwrap(),
            table: TABLE,
            priority: 100,
        });
        for rule in rules.iter().chain(&rules) {
            netlink.add_source_rule(rule).await.unwrap();
        }
        for dst in ["10.9.0.2/32", "fd09::2/128"] {
            let route = RouteSpec::prohibit(dst.parse().unwrap()).in_table(TABLE);
            netlink.add_route(&route).await.unwrap();
        }
    });

    let send = |from: &str, to: &str| {
        let to = socket_in(&right, to).local_addr();
        socket_in(&left, from).send(&[Outgoing::new(&train(to, Ecn::NotEct, 1, b"x"), 0)])
    };
    assert_eq!(send(here, "10.9.0.2").unwrap(), 1);
    for (from, to) in [(elsewhere, "10.9.0.2"), ("fd09::1", "fd09::2")] {
        let refused = send(from, to).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied, "{from}");
    }
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_namespace_is_a_network_of_its_own() {
    let ours = Namespace::of_this_thread().unwrap().id().unwrap();
    let namespace = Namespace::create().unwrap();

    let inside = run_in(&namespace, || {
        Namespace::of_this_thread().unwrap().id().unwrap()
    });
    assert_eq!(inside.unwrap(), namespace.id().unwrap());
    assert_ne!(namespace.id().unwrap(), ours);
    assert_eq!(
        Namespace::of_this_thread().unwrap().id().unwrap(),
        ours,
        "the caller stays"
    );

    let loopback = run_in(&namespace, || {
        let socket = StdUdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"x", socket.local_addr().unwrap())
    });
    assert_eq!(loopback.unwrap().unwrap(), 1, "the loopback is up");

    let missing = run_in(&namespace, || set_sysctl_net("ipv4/no_such_thing", "1")).unwrap();
    assert!(matches!(missing, Err(NamespaceError::Sysctl { .. })));
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_panic_inside_of_a_namespace_goes_on_outside() {
    let namespace = Namespace::create().unwrap();

    let panic = std::panic::catch_unwind(|| run_in(&namespace, || panic!("inside")));

    assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"inside"));
}

/// Held by tests that start processes, and by those that want a device to be gone when they drop it: a new process holds
/// copies of all descriptors until it runs its program.
static PROCESSES: Mutex<()> = Mutex::new(());

/// Two namespaces with a cable between them: 10.9.0.1/24 and fd09::1/64 on the left, .2 and ::2 on the right.
fn connected_pair() -> (Namespace, Namespace) {
    let (left, right) = (Namespace::create().unwrap(), Namespace::create().unwrap());
    configure(&left, async |netlink| {
        netlink.add_veth("cable", "other-end").await.unwrap();
        netlink
            .move_to_namespace("other-end", &right)
            .await
            .unwrap();
        connect(netlink, "cable", 1).await;
    });
    configure(&right, async |netlink| {
        connect(netlink, "other-end", 2).await;
        netlink.settle("other-end").await.unwrap();
    });
    configure(&left, async |netlink| {
        netlink.settle("cable").await.unwrap()
    });

    (left, right)
}

async fn connect(netlink: &mut Netlink, name: &str, host: u8) {
    for address in [format!("10.9.0.{host}/24"), format!("fd09::{host}/64")] {
        for _ in 0..2 {
            netlink
                .add_address(name, address.parse().unwrap())
                .await
                .unwrap();
        }
    }
    netlink.set_up(name).await.unwrap();
}

fn configure<T>(namespace: &Namespace, f: impl AsyncFnOnce(&mut Netlink) -> T) -> T {
    let work = async { f(&mut Netlink::new_in(namespace).unwrap()).await };

    runtime().block_on(work)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn nets(nets: &[&str]) -> Vec<ipnet::IpNet> {
    nets.iter().map(|net| net.parse().unwrap()).collect()
}

fn sorted(mut nets: Vec<ipnet::IpNet>) -> Vec<ipnet::IpNet> {
    nets.sort();
    nets
}

fn socket_in(namespace: &Namespace, ip: &str) -> UdpSocket {
    let addr = SocketAddr::new(ip.parse::<IpAddr>().unwrap(), 0);

    run_in(namespace, || UdpSocket::bind(&UdpConfig::new(addr)))
        .unwrap()
        .unwrap()
}

fn train(dst: SocketAddr, ecn: Ecn, segment_size: usize, payload: &[u8]) -> Transmit {
    Transmit {
        route: Route {
            src: None,
            dst,
            ecn,
        },
        segment_size,
        payload: Pool::new(payload.len(), 1).copy(payload).unwrap(),
    }
}

/// Receives what arrives within ten seconds.
fn receive(socket: &mut UdpSocket, batch: &mut RecvBatch) {
    match socket.recv(batch) {
        Ok(_) => return,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) => panic!("{error}"),
    }
    let mut poller = Poller::new().unwrap();
    poller
        .register(&socket.as_fd(), Token(0), Interest::Read)
        .unwrap();
    let mut events = Vec::new();
    poller
        .wait(Some(Duration::from_secs(10)), &mut events)
        .unwrap();

    socket.recv(batch).unwrap();
}
