//! Datagrams larger than a tunnel's packets: hosts send and get them in parts.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use connlib_os::clock::Clock;
use connlib_os::namespace::{Namespace, run_in};

use crate::world::{HOST, INSIDE, Plan, World};

const PORT: u16 = 7;

/// Longer than an answer takes. The first one over IPv6 may be lost: its sender learns how narrow the way is.
const SOON: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(20);

fn bound(namespace: &Namespace, ip: IpAddr, port: u16) -> UdpSocket {
    run_in(namespace, || UdpSocket::bind(SocketAddr::new(ip, port)))
        .unwrap()
        .unwrap()
}

/// Sends every datagram back, until this process ends.
fn echo(socket: UdpSocket) {
    std::thread::spawn(move || {
        let mut bytes = vec![0; 65_535];
        while let Ok((len, from)) = socket.recv_from(&mut bytes) {
            // It may be larger than the way back takes; then it is sent again.
            let _ = socket.send_to(&bytes[..len], from);
        }
    });
}

/// Whether a datagram of `len` bytes comes back as it was.
fn comes_back(client: &Namespace, to: IpAddr, len: usize) -> bool {
    let own: IpAddr = if to.is_ipv4() {
        [0; 4].into()
    } else {
        [0; 16].into()
    };
    let socket = bound(client, own, 0);
    socket.connect((to, PORT)).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let sent: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
    let mut bytes = vec![0; 65_535];
    let clock = Clock::new();
    let start = clock.now();
    while clock.now() < start + PATIENCE {
        socket.send(&sent).unwrap();
        if let Ok(received) = socket.recv(&mut bytes) {
            return bytes[..received] == sent;
        }
    }

    false
}

#[test]
#[ignore = "needs root, /dev/net/tun, dig, knotd, unbound, dnsmasq; .ci/run runs it"]
fn datagrams_of_any_size_go_there_and_back_by_address_and_by_name() {
    let Some(world) = World::new(&[], Plan::default()) else {
        return;
    };
    let site = world.network.resource("gateway");
    for address in HOST.into_iter().chain([INSIDE.into()]) {
        echo(bound(site, address, PORT));
    }
    let client = world.network.namespace("client");
    let named = ["A", "AAAA"].map(|kind| {
        let said = world.dig(&["wiki.corp.test", kind]);
        said.data()[0].parse::<IpAddr>().unwrap()
    });
    for to in [INSIDE.into()].into_iter().chain(named) {
        for len in [1_000, 1_400, 4_000, 40_000] {
            assert!(comes_back(client, to, len), "{len} bytes to {to}");
        }
    }

    world.assert_calm();
}
