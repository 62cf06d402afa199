//! What goes through the loop: the smallest packets there are, and trains of UDP packets.

use std::net::SocketAddr;

use connlib_os::fake::{FakeTrain, FakeTun, FakeUdp};
use connlib_wire::ecn::Ecn;
use connlib_wire::stun::Family;
use connlib_wire::train::Route;

/// The length of a packet, and so of each datagram.
pub(super) const LEN: usize = 20;

/// A packet of the TUN device that goes out by IPv`family`; `number` is what it carries.
pub(super) fn packet(family: u8, number: u16) -> Vec<u8> {
    flow_packet(family, 0, 0, number)
}

/// A packet of one of the flows with one of the peers.
pub(super) fn flow_packet(family: u8, peer: u8, flow: u8, number: u16) -> Vec<u8> {
    let [high, low] = number.to_be_bytes();

    vec![
        0x45,
        0,
        0,
        20,
        high,
        low,
        0,
        0,
        64,
        200 + family,
        0,
        0,
        10,
        0,
        0,
        flow,
        10,
        0,
        peer,
        1,
    ]
}

/// The packet made `len` bytes long.
pub(super) fn sized(mut packet: Vec<u8>, len: u16) -> Vec<u8> {
    packet.resize(len.into(), 0);
    packet[2..4].copy_from_slice(&len.to_be_bytes());

    packet
}

pub(super) fn family_of(packet: &[u8]) -> u8 {
    packet[9] - 200
}

pub(super) fn flow_of(packet: &[u8]) -> u8 {
    packet[15]
}

pub(super) fn number_of(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[4], packet[5]])
}

pub(super) fn arrival(family: Family, number: u16) -> FakeTrain {
    train_of(family, [number])
}

pub(super) fn train_of(family: Family, numbers: impl IntoIterator<Item = u16>) -> FakeTrain {
    let version = version(family);

    FakeTrain {
        from: route(version).dst,
        to: local(family),
        ecn: Ecn::NotEct,
        stride: LEN,
        bytes: numbers
            .into_iter()
            .flat_map(|number| packet(version, number))
            .collect(),
    }
}

pub(super) fn numbers<'a>(packets: impl IntoIterator<Item = &'a [u8]>) -> Vec<u16> {
    packets.into_iter().map(number_of).collect()
}

/// The numbers of the packets that a socket has sent.
pub(super) fn sent(socket: &FakeUdp) -> Vec<u16> {
    numbers(socket.sent.iter().flat_map(|train| train.datagrams()))
}

/// The numbers of the packets that a TUN device was given.
pub(super) fn written(tun: &FakeTun) -> Vec<u16> {
    numbers(tun.outbox.iter().map(|(_, packet)| packet.as_slice()))
}

pub(super) fn version(family: Family) -> u8 {
    match family {
        Family::V4 => 4,
        Family::V6 => 6,
    }
}

pub(super) fn route(family: u8) -> Route {
    let dst = if family == 6 {
        "[2001:db8::2]:9".parse().unwrap()
    } else {
        "192.0.2.2:9".parse().unwrap()
    };

    Route {
        src: None,
        dst,
        ecn: Ecn::NotEct,
    }
}

pub(super) fn local(family: Family) -> SocketAddr {
    match family {
        Family::V4 => "192.0.2.1:9".parse().unwrap(),
        Family::V6 => "[2001:db8::1]:9".parse().unwrap(),
    }
}

/// A train of UDP packets of the flow from that port; the payload begins with the number.
pub(super) fn udp_train(
    port: u16,
    numbers: impl IntoIterator<Item = u16>,
    len: usize,
) -> FakeTrain {
    let pool = connlib_wire::buffer::Pool::new(2_048, 1);
    let (from, to) = (format!("10.0.0.1:{port}"), "10.0.0.2:9");
    let bytes = numbers.into_iter().flat_map(|number| {
        let mut payload = vec![7; len];
        payload[..2].copy_from_slice(&number.to_be_bytes());
        let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
        let packet = connlib_wire::ip::udp(&pool, from, to, &payload).unwrap();

        packet.bytes().to_vec()
    });

    FakeTrain {
        from: route(4).dst,
        to: local(Family::V4),
        ecn: Ecn::NotEct,
        stride: 28 + len,
        bytes: bytes.collect(),
    }
}
