//! Marks of congestion, from end to end.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use connlib_os::namespace::run_in;
use connlib_wire::ecn::Ecn;
use socket2::SockRef;

use crate::capture::{self, Capture};
use crate::traffic::{PATIENCE, connected_udp, rest};
use crate::{Stage, families};

/// What arrives there is seen on the cable, marks and all.
const PORT: u16 = 4_000;

/// A length by which the datagrams are told from all others: an inner packet of 728 or 748 bytes is filled up to whole
/// blocks of 16, and has a header of 16 bytes before it and a tag of 16 behind it.
const PAYLOAD: usize = 700;
const SEALED: [usize; 2] = [768, 784];

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn what_a_sender_says_about_congestion_arrives_and_is_seen_on_the_way() {
    let Some(stage) = Stage::set() else {
        return;
    };
    let client = stage.demo.namespace("client");
    let resource = stage.demo.namespace("resource");

    let gateway = stage.gateway().ip();
    for address in families() {
        let open = || UdpSocket::bind((address, PORT));
        let sink = run_in(&resource, open).unwrap().unwrap();
        sink.set_read_timeout(Some(PATIENCE)).unwrap();
        for mark in [Ecn::NotEct, Ecn::Ect0, Ecn::Ect1, Ecn::Ce] {
            let socket = connected_udp(&client, SocketAddr::new(address, PORT));
            let on_router = Capture::start(&stage.demo.namespace("router"));
            let at_resource = Capture::start(&resource);
            set_mark(&socket, address, mark);
            for _ in 0..COUNT {
                socket.send(&[0x5a; PAYLOAD]).unwrap();
                rest(Duration::from_millis(2));
            }
            for _ in 0..COUNT {
                assert_eq!(sink.recv(&mut [0; 2_048]).unwrap(), PAYLOAD, "{address}");
            }
            let (on_router, at_resource) = (on_router.stop(), at_resource.stop());

            let inner = marks(&at_resource, address, |udp| udp.len() / PAYLOAD);
            assert_eq!(inner, vec![mark; COUNT], "{address}");
            let outer = marks(&on_router, gateway, |udp| {
                let is_data = udp.starts_with(&[4, 0, 0, 0]);
                SEALED
                    .into_iter()
                    .filter(|sealed| is_data && udp.len() % sealed == 0)
                    .map(|sealed| udp.len() / sealed)
                    .sum()
            });
            // Each passes the router twice: in and out.
            println!("{address} {mark:?}: {} outer datagrams", outer.len());
            assert_eq!(outer, vec![mark; 2 * COUNT], "{address}");
        }
    }
    stage.close();
}

/// How many packets are sent with each mark.
const COUNT: usize = 20;

fn set_mark(socket: &UdpSocket, address: IpAddr, mark: Ecn) {
    let socket = SockRef::from(socket);
    let bits = u32::from(mark.bits());
    match address {
        IpAddr::V4(_) => socket.set_tos_v4(bits),
        IpAddr::V6(_) => socket.set_tclass_v6(bits),
    }
    .unwrap();
}

/// The marks of the datagrams to `destination`, `count` of which are in a payload: the kernel shows a train of them as one
/// packet.
fn marks(frames: &[Vec<u8>], destination: IpAddr, count: impl Fn(&[u8]) -> usize) -> Vec<Ecn> {
    const ETHERNET_HEADER: usize = 14;

    let in_frame = |frame: &Vec<u8>| {
        let packet = capture::read(frame).filter(|packet| packet.destination == destination)?;
        let header = &frame[ETHERNET_HEADER..];
        let bits = match header[0] >> 4 {
            4 => header[1],
            // The traffic class lies across two bytes.
            _ => header[1] >> 4,
        };

        Some(vec![Ecn::from_bits(bits); count(packet.udp?)])
    };

    frames.iter().filter_map(in_frame).flatten().collect()
}
