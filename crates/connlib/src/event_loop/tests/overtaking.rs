//! Small packets among large ones that wait: who goes first, and that no flow is reordered.

use connlib_os::fake::FakeTrain;
use connlib_wire::ecn::Ecn;
use connlib_wire::super_packet::SuperPacket;

use super::*;

const SPARSE: u16 = 1;
const BULK: u16 = 2;
const SMALL: usize = 40;
const LARGE: usize = 1_000;

#[test]
fn a_sparse_flow_goes_before_bulk_and_no_flow_is_reordered() {
    let mut rig = Rig::new();
    rig.io.v4().inbox.push_back(train(SPARSE, [0], SMALL));
    let _ = rig.turn();
    rig.io.tun().outbox.clear();

    // More than a turn takes; the bulk's own flow has small packets among the large ones, the sparse flow one at the end.
    let mut numbers = 0..;
    for _ in 0..40 {
        let large: Vec<u16> = numbers.by_ref().take(20).collect();
        rig.io.v4().inbox.push_back(train(BULK, large, LARGE));
        let small = numbers.next().unwrap();
        rig.io.v4().inbox.push_back(train(BULK, [small], SMALL));
    }
    rig.io.v4().inbox.push_back(train(SPARSE, [1], SMALL));

    let _ = rig.turn();
    assert_eq!(written_of(&rig, SPARSE), [1], "it waits for no bulk");
    assert!(written_of(&rig, BULK).len() < 40 * 21, "some is left");
    rig.settle();
    assert_eq!(
        written_of(&rig, BULK),
        (0..40 * 21).collect::<Vec<_>>(),
        "in the order it came"
    );
}

/// UDP packets of the flow from that port; the payload begins with the number.
fn train(port: u16, numbers: impl IntoIterator<Item = u16>, len: usize) -> FakeTrain {
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

/// The numbers of one flow's packets that the device was given, as its host will see them.
fn written_of(rig: &Rig, port: u16) -> Vec<u16> {
    let mut numbers = Vec::new();
    for (header, bytes) in &rig.io.tun.device.outbox {
        let mut packet = SuperPacket::parse(*header, bytes.clone()).unwrap();
        let mut segments = packet.split();
        while let Some(segment) = segments.next_segment() {
            if segment[20..22] == port.to_be_bytes() {
                numbers.push(u16::from_be_bytes([segment[28], segment[29]]));
            }
        }
    }

    numbers
}
