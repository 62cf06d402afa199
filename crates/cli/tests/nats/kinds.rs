//! That each router does what its kind promises, seen by sockets alone: else the rows say nothing.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use connlib_os::namespace::{Namespace, run_in};

use crate::matrix::{HOMES, PROGRAMS, put};
use crate::network::Network;
use crate::router::{Nat, Router};
use crate::tools::begin_with;

/// The port of each socket.
const PORT: u16 = 52625;

/// A client behind a NAT, two hosts elsewhere, and a socket of each.
struct Trial {
    inside: UdpSocket,
    hosts: [UdpSocket; 2],
    addresses: [SocketAddr; 2],
    _network: Network,
}

impl Trial {
    /// Returns also what the client is seen as if its port is kept.
    fn new(lay: impl FnOnce(&Network) -> Router) -> (Self, Router, SocketAddr) {
        let network = Network::new(&["client", "one", "other"], &[]);
        let router = lay(&network);
        let hosts = ["one", "other"].map(|name| socket(network.namespace(name)));
        let addresses = ["one", "other"].map(|name| (network.net(name).host_v4(), PORT).into());
        let kept = (router.outside, PORT).into();
        let trial = Self {
            inside: socket(network.namespace("client")),
            hosts,
            addresses,
            _network: network,
        };

        (trial, router, kept)
    }

    /// What a host sees the client as.
    fn seen_by(&self, host: usize) -> SocketAddr {
        self.inside.send_to(b"out", self.addresses[host]).unwrap();
        let seen = hears(&self.hosts[host]).expect("nothing came out");
        self.hosts[host].send_to(b"in", seen).unwrap();
        assert_eq!(hears(&self.inside), Some(self.addresses[host]), "back");

        seen
    }

    /// Whether a host is let in at an address.
    fn lets_in(&self, host: usize, at: SocketAddr) -> bool {
        self.hosts[host].send_to(b"knock", at).unwrap();

        hears(&self.inside) == Some(self.addresses[host])
    }
}

fn socket(namespace: &Namespace) -> UdpSocket {
    let bind = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT));
    let socket = run_in(namespace, bind).unwrap().unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();

    socket
}

/// Whom something comes from.
fn hears(socket: &UdpSocket) -> Option<SocketAddr> {
    socket.recv_from(&mut [0; 64]).ok().map(|(_, from)| from)
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn each_kind_of_nat_is_what_it_is_called() {
    let Some(_turn) = begin_with(&PROGRAMS, false) else {
        return;
    };
    for (nat, keeps_its_port, lets_strangers_in) in [
        (Nat::EimEif, true, true),
        (Nat::EimApdf, true, false),
        (Nat::EdmApdf, false, false),
    ] {
        let (trial, router, kept) = Trial::new(|network| put(network, HOMES[0], nat).unwrap());
        assert_eq!(trial.lets_in(0, kept), lets_strangers_in, "{nat}");
        // That somebody came too early changes nothing.
        let seen = trial.seen_by(0);
        assert_eq!(seen == kept, keeps_its_port, "{nat}: {seen}");
        assert_eq!(trial.lets_in(1, seen), lets_strangers_in, "{nat}");
        let by_the_other = trial.seen_by(1);
        assert_eq!(
            by_the_other == seen,
            keeps_its_port,
            "{nat}: {by_the_other}"
        );
        router.assert_no_flow_of_its_own("192.168.");
    }
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_router_that_hears_what_comes_too_early_gives_its_host_another_port() {
    let Some(_turn) = begin_with(&PROGRAMS, false) else {
        return;
    };
    let (trial, _router, kept) = Trial::new(|network| {
        let (place, address) = HOMES[0];
        let router = Router::in_place_of(network, place);
        router.serve("inside", network.namespace(place), address);
        router.translate_carelessly(Nat::EimApdf, address);
        router
    });
    assert_eq!(trial.seen_by(1), kept);
    assert!(!trial.lets_in(0, kept));
    assert_ne!(trial.seen_by(0), kept);
}
