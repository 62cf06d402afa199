//! Packets that are larger than the tunnel carries.

use std::io::Read;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use connlib_os::namespace::{Namespace, run_in};
use connlib_os::netlink::Netlink;
use socket2::{Domain, Protocol, Socket, Type};

use crate::traffic::{PATIENCE, Streams, connected_udp};
use crate::{Stage, TUN, families, runtime};

/// What the tunnel carries (issue 3), and what an administrator may think that it does.
const FITS: u32 = 1_280;
const WRONG_MTU: u32 = 1_500;

/// A payload whose packet fits the wrong MTU alone.
const TOO_BIG: usize = 1_400;

const PORT: u16 = 4_001;

/// EMSGSIZE of errno(3).
const MESSAGE_TOO_LONG: i32 = 90;

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn the_sender_of_what_does_not_fit_is_told_and_goes_on_with_less() {
    let Some(stage) = Stage::set() else {
        return;
    };
    let client = stage.demo.namespace("client");
    let resource = stage.demo.namespace("resource");
    raise_mtu(&client);

    for address in families() {
        let to = SocketAddr::new(address, PORT);
        let sink = run_in(&resource, || UdpSocket::bind(to)).unwrap().unwrap();
        sink.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut errors = icmp(&client, address);
        // The kernel forbids fragments where it looks for the path's MTU, which is its default.
        let socket = connected_udp(&client, to);
        socket.set_read_timeout(Some(PATIENCE)).unwrap();

        socket.send(&[0x5a; TOO_BIG]).unwrap();
        let error = socket.recv(&mut [0; 16]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(MESSAGE_TOO_LONG), "{address}");
        let mtu = mtu_told(&mut errors, address);
        println!("{address}: {error}; by ICMP: {mtu}");
        assert_eq!(mtu, FITS, "{address}");

        socket.send(&[0x5b; 1_000]).unwrap();
        let mut packet = [0; 2_048];
        assert_eq!(sink.recv(&mut packet).unwrap(), 1_000, "{address}");
        assert_eq!(packet[0], 0x5b);
    }
    stage.close();
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_stream_begins_with_segments_that_fit_and_nobody_has_to_be_told() {
    let Some(stage) = Stage::set() else {
        return;
    };
    let client = stage.demo.namespace("client");
    let resource = stage.demo.namespace("resource");
    raise_mtu(&client);

    for address in families() {
        let mut errors = icmp(&client, address);
        let address = SocketAddr::new(address, 5_201);
        let streams = Streams::upload(&client, &resource, address, 1);
        let rate = streams.rate(Duration::from_secs(2));
        println!("{address}: {:.0} Mbit/s", rate * 8e-6);
        // More than what fits the buffers on the way, and more than the first attempt.
        assert!(streams.received() > 1 << 20, "{} bytes", streams.received());
        errors.set_nonblocking(true).unwrap();
        let mut packet = [0; 2_048];
        while let Ok(len) = errors.read(&mut packet) {
            let told = too_big(&packet[..len], address.ip());
            assert_eq!(told, None, "{address}");
        }
    }
    stage.close();
}

/// Lets the client's kernel believe that the tunnel carries more than it does.
fn raise_mtu(client: &Namespace) {
    runtime().block_on(async {
        let mut netlink = Netlink::new_in(client).unwrap();
        netlink.set_mtu(TUN, WRONG_MTU).await.unwrap();
    });
}

/// A socket that sees the ICMP messages that come to `namespace`.
fn icmp(namespace: &Namespace, address: IpAddr) -> Socket {
    let (domain, protocol) = match address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let open = || Socket::new(domain, Type::RAW, Some(protocol));
    let socket = run_in(namespace, open).unwrap().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();

    socket
}

/// The MTU that the next "too big" names.
fn mtu_told(socket: &mut Socket, address: IpAddr) -> u32 {
    let mut packet = [0; 2_048];
    loop {
        let len = socket
            .read(&mut packet)
            .expect("somebody says that it is too big");
        if let Some(mtu) = too_big(&packet[..len], address) {
            return mtu;
        }
    }
}

/// The MTU that a "too big" names (RFC 1191 §4, RFC 4443 §3.2); `None` if it is something else.
fn too_big(packet: &[u8], address: IpAddr) -> Option<u32> {
    // A raw socket shows the header of IPv4 and not that of IPv6.
    let message = match address {
        IpAddr::V4(_) => &packet[usize::from(packet[0] & 0xf) * 4..],
        IpAddr::V6(_) => packet,
    };

    match (address, [message[0], message[1]]) {
        (IpAddr::V4(_), [3, 4]) => Some(u16::from_be_bytes([message[6], message[7]]).into()),
        (IpAddr::V6(_), [2, 0]) => Some(u32::from_be_bytes(message[4..8].try_into().unwrap())),
        _ => None,
    }
}
