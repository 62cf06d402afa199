//! Data in indications, which a relay that stands alone copies.

use super::*;

#[test]
fn indications_are_passed_on_in_both_directions() {
    let mut rig = Rig::with(Scheme::Rest);
    let port = rig.connect(client(1), peer(1));
    rig.permit(client(1), peer(2));

    let indication = rig.send_indication(peer(2), b"hello");
    rig.say(client(1), &indication);
    let _ = rig.turn();
    let sent = &rig.io.allocation(port).sent;
    assert_eq!(sent[0].route.dst, peer(2));
    assert_eq!(sent[0].payload, b"hello");

    // A train of a peer without a channel: one indication for each datagram.
    rig.say_to(port, peer(2), 2, b"hihoho");
    let _ = rig.turn();
    let sent: Vec<_> = rig.io.listen().sent.drain(..).collect();
    let datagrams: Vec<_> = sent.iter().flat_map(|train| train.datagrams()).collect();
    let payloads = datagrams.iter().map(|datagram| {
        let message = Message::parse(datagram).unwrap();
        assert_eq!(message.method(), Method::Data);
        assert_eq!(message.peer_address(), Some(peer(2)));
        message.data().unwrap()
    });
    assert_eq!(payloads.collect::<Vec<_>>(), [b"hi", b"ho", b"ho"]);
}

/// "Zero-length payloads are relayed" (relay.md §12).
#[test]
fn a_datagram_without_contents_is_carried_by_every_way() {
    let mut rig = Rig::with(Scheme::Rest);
    let port = rig.connect(client(1), peer(1));
    rig.permit(client(1), peer(2));

    let indication = rig.send_indication(peer(2), b"");
    for said in [channel_data(b""), indication] {
        rig.say(client(1), &said);
    }
    let _ = rig.turn();
    let sent = rig.io.allocation(port).sent.drain(..);
    let sent: Vec<_> = sent.map(|train| (train.route.dst, train.payload)).collect();
    assert_eq!(sent, [(peer(1), vec![]), (peer(2), vec![])]);

    for from in [peer(1), peer(2)] {
        rig.say_to(port, from, 0, b"");
    }
    let _ = rig.turn();
    let sent: Vec<_> = rig.io.listen().sent.drain(..).collect();
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0].payload, channel_data(b""));
    let message = Message::parse(&sent[1].payload).unwrap();
    let told = (message.method(), message.peer_address(), message.data());
    assert_eq!(told, (Method::Data, Some(peer(2)), Some(&b""[..])));
}

#[test]
fn data_in_all_shapes_stays_in_order() {
    let mut rig = Rig::with(Scheme::Rest);
    let port = rig.connect(client(1), peer(1));

    // One train: channel data, an indication as long as it, and channel data again.
    let indication = rig.send_indication(peer(1), b"2222");
    let mut train = channel_data(&vec![b'1'; indication.len() - 4]);
    let stride = train.len();
    train.extend_from_slice(&indication);
    train.extend_from_slice(&channel_data(b"3"));
    rig.say_train(client(1), stride, &train);
    let _ = rig.turn();

    let first_bytes = |rig: &mut Rig| -> Vec<u8> {
        let sent = rig.io.allocation(port).sent.drain(..);
        sent.map(|train| train.payload[0]).collect()
    };
    assert_eq!(first_bytes(&mut rig), b"123");

    // And while the socket takes nothing.
    rig.io.allocation(port).limit_queue(0);
    rig.say_train(client(1), stride, &train);
    let _ = rig.turn();
    assert_eq!(first_bytes(&mut rig), b"");
    rig.io.allocation(port).limit_queue(usize::MAX);
    rig.io.make_ready();
    let _ = rig.turn();
    assert_eq!(first_bytes(&mut rig), b"123");
}

#[test]
fn indications_wait_like_data_and_no_longer() {
    wait_for_a_socket_that_takes_nothing(1_000);
}

#[test]
fn of_datagrams_without_contents_no_more_wait_than_of_small_ones() {
    wait_for_a_socket_that_takes_nothing(0);
}

fn wait_for_a_socket_that_takes_nothing(len: usize) {
    let mut rig = Rig::with(Scheme::Rest);
    let port = rig.connect(client(1), peer(1));
    rig.io.allocation(port).limit_queue(0);

    let indication = rig.send_indication(peer(1), &vec![7; len]);
    let all = 4 * MAX_ALLOCATION_WAITING / (len + DATAGRAM_COST);
    for _ in 0..all {
        rig.say(client(1), &indication);
    }
    while !rig.io.listen().inbox.is_empty() {
        let _ = rig.turn();
    }
    let dropped = rig.relay_loop.stats().dropped(DropReason::SocketFull);
    assert!(dropped > 0, "what waits is bounded");

    rig.io.allocation(port).limit_queue(usize::MAX);
    rig.io.make_ready();
    let _ = rig.turn();
    let sent = rig.io.allocation(port).queued() as u64;
    assert_eq!(sent + dropped, all as u64);
}
