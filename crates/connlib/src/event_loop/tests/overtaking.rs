//! Small packets among large ones that wait: who goes first, and that no flow is reordered.

use connlib_wire::super_packet::SuperPacket;

use super::*;

const SPARSE: u16 = 1;
const BULK: u16 = 2;
const SMALL: usize = 40;
const LARGE: usize = 1_000;

#[test]
fn a_sparse_flow_goes_before_bulk_and_no_flow_is_reordered() {
    let mut rig = Rig::new();
    rig.io.v4().inbox.push_back(udp_train(SPARSE, [0], SMALL));
    let _ = rig.turn();
    rig.io.tun().outbox.clear();

    // More than a turn takes; the bulk's own flow has small packets among the large ones, the sparse flow one at the end.
    let mut numbers = 0..;
    for _ in 0..40 {
        let large: Vec<u16> = numbers.by_ref().take(20).collect();
        rig.io.v4().inbox.push_back(udp_train(BULK, large, LARGE));
        let small = numbers.next().unwrap();
        rig.io.v4().inbox.push_back(udp_train(BULK, [small], SMALL));
    }
    rig.io.v4().inbox.push_back(udp_train(SPARSE, [1], SMALL));

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
