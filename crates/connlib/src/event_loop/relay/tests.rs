mod indications;
mod rig;
mod shares;
mod starvation;

use super::super::arrivals::DATAGRAM_COST;
use super::super::stats::DropReason;
use super::exchange::MAX_ALLOCATION_WAITING;
use super::*;
use connlib_wire::stun::{Message, Method};
use rig::*;

#[test]
fn data_goes_both_ways_through_a_channel() {
    let mut rig = Rig::new();
    let port = rig.connect(client(1), peer(1));

    rig.say(client(1), &channel_data(b"hello"));
    let _ = rig.turn();
    let sent = &rig.io.allocation(port).sent;
    assert_eq!(sent[0].route.dst, peer(1));
    assert_eq!(sent[0].payload, b"hello");

    rig.say_to(port, peer(1), 0, b"hi");
    let _ = rig.turn();
    let sent = &rig.io.listen().sent;
    assert_eq!(sent[0].route.dst, client(1));
    assert_eq!(sent[0].payload, channel_data(b"hi"));
}

#[test]
fn a_train_stays_a_train_and_splits_where_it_outgrows_udp() {
    let mut rig = Rig::new();
    let port = rig.connect(client(1), peer(1));

    // 49 datagrams of 1,334 bytes fill a train; with headers 48 of them do.
    let bytes: Vec<_> = (0..49u8).flat_map(|number| vec![number; 1_334]).collect();
    rig.say_to(port, peer(1), 1_334, &bytes);
    let _ = rig.turn();
    let trains: Vec<_> = rig.io.listen().sent.drain(..).collect();
    let lens: Vec<_> = trains
        .iter()
        .map(|train| train.datagrams().count())
        .collect();
    assert_eq!(lens, [48, 1]);
    let datagrams = trains.iter().flat_map(|train| train.datagrams());
    for (number, datagram) in datagrams.enumerate() {
        assert_eq!(datagram, channel_data(&[number as u8; 1_334]));
    }

    let train: Vec<_> = (0..20u8)
        .flat_map(|number| channel_data(&[number; 100]))
        .collect();
    rig.say_train(client(1), 104, &train);
    let _ = rig.turn();
    let sent = &rig.io.allocation(port).sent;
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].segment_size, 100);
    assert_eq!(sent[0].datagrams().count(), 20);
}

#[test]
fn a_mixed_train_is_taken_apart() {
    let mut rig = Rig::new();
    let port = rig.connect(client(1), peer(1));

    let mut train = channel_data(b"0123456789abcdef");
    train.extend_from_slice(&rig.bare(Method::Binding));
    train.extend_from_slice(&channel_data(b"last"));
    rig.say_train(client(1), 20, &train);
    let _ = rig.turn();

    let payloads = rig.io.allocation(port).sent.iter();
    let payloads: Vec<_> = payloads.map(|train| train.payload.clone()).collect();
    assert_eq!(payloads, [&b"0123456789abcdef"[..], b"last"]);
    let answer = &rig.io.listen().sent[0].payload;
    assert_eq!(
        Message::parse(answer).unwrap().mapped_address(),
        Some(client(1))
    );
}

#[test]
fn a_full_allocation_holds_up_nobody_else_and_keeps_its_order() {
    let mut rig = Rig::new();
    let stuck = rig.connect(client(1), peer(1));
    let other = rig.connect(client(2), peer(2));
    rig.io.allocation(stuck).limit_queue(0);

    for number in 0..10 {
        rig.say(client(1), &channel_data(&[number]));
        rig.say(client(2), &channel_data(&[number]));
    }
    let wait = rig.turn();
    assert_eq!(rig.io.allocation(other).queued(), 10);
    assert_ne!(wait.until, Some(rig.now), "nothing can be done now");

    rig.io.allocation(stuck).limit_queue(usize::MAX);
    rig.io.make_ready();
    let _ = rig.turn();
    let sent = rig
        .io
        .allocation(stuck)
        .sent
        .iter()
        .flat_map(|train| train.payload.clone());
    assert_eq!(sent.collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
}

#[test]
fn what_waits_for_a_socket_is_bounded() {
    let mut rig = Rig::new();
    let port = rig.connect(client(1), peer(1));
    rig.io.allocation(port).limit_queue(0);

    let all = 4 * MAX_ALLOCATION_WAITING / 1_000;
    for _ in 0..all {
        rig.say(client(1), &channel_data(&[7; 1_000]));
    }
    while !rig.io.listen().inbox.is_empty() {
        let _ = rig.turn();
    }
    let dropped = rig.relay_loop.stats().dropped(DropReason::SocketFull);
    assert!(dropped > 0);

    rig.io.allocation(port).limit_queue(usize::MAX);
    rig.io.make_ready();
    let _ = rig.turn();
    assert_eq!(
        rig.io.allocation(port).queued() as u64 + dropped,
        all as u64
    );
}

#[test]
fn a_saturated_listen_port_starves_no_allocation_and_the_other_way_round() {
    let mut rig = Rig::new();
    let port = rig.connect(client(1), peer(1));
    let quiet = rig.connect(client(2), peer(2));
    for _ in 0..5_000 {
        rig.say(client(1), &channel_data(b"x"));
        rig.say_to(port, peer(1), 0, b"y");
    }
    rig.say_to(quiet, peer(2), 0, b"z");

    let wait = rig.turn();

    assert!(rig.io.allocation(port).queued() > 0);
    let to = |to| move |train: &&connlib_os::fake::SentTrain| train.route.dst == to;
    assert!(rig.io.listen().sent.iter().filter(to(client(1))).count() > 0);
    assert_eq!(rig.io.listen().sent.iter().filter(to(client(2))).count(), 1);
    assert_eq!(wait.until, Some(rig.now), "more waits");
}

#[test]
fn a_failed_receive_costs_nothing_and_a_lost_allocation_ends() {
    let mut rig = Rig::new();
    let port = rig.connect(client(1), peer(1));
    let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
    rig.io.allocation(port).fail_recv(0, refused());
    rig.io.listen().fail_recv(0, refused());
    rig.say(client(1), &channel_data(b"x"));
    rig.say_to(port, peer(1), 0, b"y");

    let mut wait = rig.turn_with_errors();
    assert_eq!(wait.errors.drain().count(), 2);
    assert_eq!(rig.io.allocation(port).queued(), 1);
    assert_eq!(rig.io.listen().queued(), 1);

    let lost = io::Error::from_raw_os_error(libc::EBADF);
    rig.io.allocation(port).fail_recv(0, lost);
    rig.say_to(port, peer(1), 0, b"z");
    let mut wait = rig.turn_with_errors();
    assert_eq!(wait.errors.drain().count(), 1);
    assert_eq!(rig.relay_loop.server().stats().allocations, 0);
    assert!(
        !rig.io
            .sockets
            .contains_key(&Via::Allocation(port, Family::V4))
    );
}

#[test]
fn an_allocation_that_only_fails_does_not_keep_the_loop_busy_and_is_asked_again() {
    let mut rig = Rig::new();
    let port = rig.connect(client(1), peer(1));
    for calls in 0..20 {
        let error = io::Error::from(io::ErrorKind::Other);
        rig.io.allocation(port).fail_recv(calls, error);
    }
    for number in 0..3 {
        rig.say_to(port, peer(1), 0, &[number]);
        let mut turns = 0;
        loop {
            let mut wait = rig.turn_with_errors();
            wait.errors.drain().count();
            turns += 1;
            assert!(turns < 5, "it spins");
            if wait.until != Some(rig.now) {
                break;
            }
        }
    }

    let datagrams = rig.io.listen().queued();
    assert_eq!(datagrams, 3, "nothing is lost to it");
}

#[test]
fn a_port_that_can_not_be_opened_is_answered() {
    let mut rig = Rig::new();
    rig.io.can_open = false;
    let nonce = rig.nonce(client(1));
    let request = rig.allocate(client(1), &nonce);
    rig.say(client(1), &request);
    let _ = rig.turn();

    let answer = rig.io.listen().sent.pop_back().unwrap();
    assert_eq!(
        Message::parse(&answer.payload).unwrap().error_code(),
        Some(508)
    );
}

#[test]
fn ports_are_closed_when_their_time_is_over_and_that_deadline_is_told() {
    let mut rig = Rig::new();
    let port = rig.connect(client(1), peer(1));

    let mut turns = 0;
    while rig
        .io
        .sockets
        .contains_key(&Via::Allocation(port, Family::V4))
    {
        rig.now = rig.turn().until.unwrap_or(rig.now);
        turns += 1;
        assert!(turns < 10, "it is driven by its deadlines alone");
    }
    assert_eq!(rig.turn().until, None);
}

#[test]
fn the_end_of_a_load_is_told_once_and_wakes_nobody_after() {
    let mut rig = Rig::new();
    rig.connect(client(1), peer(1));
    for _ in 0..2_000 {
        rig.say(client(1), &channel_data(b"load"));
        assert!(!rig.turn().load_is_over);
    }

    let told = (0..6).map(|_| {
        rig.now += Duration::from_secs(10);
        rig.turn().load_is_over
    });
    assert_eq!(told.filter(|is_over| *is_over).count(), 1);
    let until = rig.turn().until.unwrap();
    assert!(until > rig.now + Duration::from_secs(60), "an allocation's");
}
