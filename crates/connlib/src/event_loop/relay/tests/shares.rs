//! What clients share, they share fairly: the listen socket in both directions, and the loop's time.

use connlib_os::fake::SentTrain;

use super::*;

const LEN: usize = 1_200;

/// Jain's index: 1 if all get the same.
fn jain(shares: &[usize]) -> f64 {
    let sum: f64 = shares.iter().map(|share| *share as f64).sum();
    let squares: f64 = shares.iter().map(|share| (*share as f64).powi(2)).sum();

    sum * sum / (shares.len() as f64 * squares)
}

#[test]
fn clients_that_are_sent_more_than_the_listen_socket_takes_share_it() {
    let mut rig = Rig::new();
    let ports: Vec<_> = (1..=8)
        .map(|number| rig.connect(client(number), peer(number)))
        .collect();
    rig.io.listen().sent.clear();

    // The socket takes a tenth of what comes in, and what comes in is ten times as much for some as for others.
    let mut got = [0; 8];
    for _ in 0..400 {
        for (index, port) in ports.iter().enumerate() {
            let datagrams = if index < 4 { 40 } else { 4 };
            let from = peer(index as u8 + 1);
            rig.say_to(*port, from, LEN, &vec![7; LEN * datagrams]);
        }
        rig.io.listen().limit_queue(17);
        rig.io.make_ready();
        let _ = rig.turn();
        for train in rig.io.listen().sent.drain(..) {
            got[who(&train)] += train.payload.len();
        }
    }

    assert!(jain(&got) >= 0.95, "{got:?}");
}

#[test]
fn an_answer_does_not_wait_behind_data_that_the_listen_socket_does_not_take() {
    let mut rig = Rig::new();
    let port = rig.connect(client(1), peer(1));
    rig.io.listen().sent.clear();
    rig.io.listen().limit_queue(0);
    for _ in 0..100 {
        rig.say_to(port, peer(1), LEN, &vec![7; LEN * 40]);
    }
    while !rig.io.allocation(port).inbox.is_empty() {
        let _ = rig.turn();
    }
    let request = rig.bare(Method::Binding);
    rig.say(client(2), &request);
    let _ = rig.turn();

    // Two datagrams may be a part of a train that was begun.
    rig.io.listen().limit_queue(2);
    rig.io.make_ready();
    let _ = rig.turn();
    let mut sent = rig.io.listen().sent.iter();
    assert!(
        sent.any(|train| who(train) == 1),
        "the answer is among them"
    );
}

#[test]
fn requests_do_not_wait_behind_data_not_even_their_own_clients() {
    let mut rig = Rig::new();
    rig.connect(client(1), peer(1));
    rig.io.listen().sent.clear();
    for _ in 0..12 {
        rig.say_train(client(1), LEN + 4, &channel_data(&vec![7; LEN]).repeat(40));
    }
    let request = rig.bare(Method::Binding);
    rig.say(client(1), &request);
    let _ = rig.turn();

    assert!(!rig.io.listen().sent.is_empty());
    let left = rig.relay_loop.listen.v4.left();
    assert!(left > 2, "{left} trains wait still");
}

#[test]
fn clients_share_the_loop_whatever_the_size_of_their_trains() {
    let mut rig = Rig::new();
    let ports = [1, 2].map(|number| rig.connect(client(number), peer(number)));

    let mut got = [0; 2];
    for turn in 0..300 {
        // One sends full trains, the other one datagram at a time; both more than a turn handles.
        for _ in 0..8 {
            rig.say_train(client(1), LEN + 4, &channel_data(&vec![7; LEN]).repeat(48));
        }
        for _ in 0..200 {
            rig.say(client(2), &channel_data(&vec![7; LEN]));
        }
        rig.now += Duration::from_micros(500);
        let _ = rig.turn();
        for (got, port) in got.iter_mut().zip(ports) {
            let sent = rig.io.allocation(port).sent.drain(..);
            let bytes: usize = sent.map(|train| train.payload.len()).sum();
            // At first what stands in the socket goes in the order it came.
            if turn > 50 {
                *got += bytes;
            }
        }
    }

    assert!(jain(&got) >= 0.95, "{got:?}");
}

#[test]
fn peers_share_the_loop_whatever_the_size_of_their_trains() {
    let mut rig = Rig::new();
    let ports = [1, 2].map(|number| rig.connect(client(number), peer(number)));
    rig.io.listen().sent.clear();

    let mut got = [0; 2];
    for _ in 0..300 {
        let backlog = |rig: &mut Rig, port| rig.io.allocation(port).inbox.len();
        while backlog(&mut rig, ports[0]) < 8 {
            rig.say_to(ports[0], peer(1), LEN, &vec![7; LEN * 48]);
        }
        while backlog(&mut rig, ports[1]) < 400 {
            rig.say_to(ports[1], peer(2), 0, &[7; LEN]);
        }
        let _ = rig.turn();
        for train in rig.io.listen().sent.drain(..) {
            got[who(&train)] += train.payload.len();
        }
    }

    assert!(jain(&got) >= 0.95, "{got:?}");
}

#[test]
fn a_relay_that_gets_more_than_it_can_carry_carries_what_it_can_and_answers() {
    let mut rig = Rig::new();
    for number in 1..=8 {
        rig.connect(client(number), peer(number));
    }
    rig.io.listen().sent.clear();
    // A turn has time for ten trains, and more than that arrive; to read them takes all of it.
    rig.io.per_train = Duration::from_micros(20);
    let (turns, per_turn) = (200, 32);

    let mut slowest = 0;
    for turn in 0..turns {
        for index in 0..per_turn {
            let from = client(1 + (index % 8) as u8);
            rig.say_train(from, LEN + 4, &channel_data(&vec![7; LEN]).repeat(48));
        }
        let request = rig.bare(Method::Binding);
        rig.say(client(9), &request);
        rig.now += Duration::from_micros(500);
        let _ = rig.turn();
        // Once it is known that this is more than a delay: what comes in 2 ms.
        if turn > 50 {
            slowest = slowest.max(rig.io.listen().inbox.len());
        }
    }

    let ports: Vec<_> = rig.io.sockets.keys().copied().collect();
    let mut carried = 0;
    for via in ports {
        if let Via::Allocation(port, _) = via {
            carried += rig.io.allocation(port).sent.len();
        }
    }
    assert!(carried >= 5 * turns, "{carried} trains in {turns} turns");
    assert!(
        slowest <= 6 * (per_turn + 1),
        "{slowest} stand in the socket"
    );
    let answers = rig.io.listen().sent.len();
    assert!(answers + 50 >= turns, "{answers} answers in {turns} turns");
}

#[test]
fn a_relay_that_had_no_processor_for_a_while_loses_nothing() {
    let mut rig = Rig::new();
    let port = rig.connect(client(1), peer(1));
    rig.io.per_train = Duration::from_micros(20);
    for _ in 0..100 {
        rig.say_train(client(1), LEN + 4, &channel_data(&vec![7; LEN]).repeat(48));
    }

    let mut turns = 0;
    while rig.turn().until == Some(rig.now) {
        rig.now += Duration::from_micros(300);
        turns += 1;
        assert!(turns < 100, "it comes to an end");
    }

    let sent = rig.io.allocation(port).sent.iter();
    let datagrams: usize = sent.map(|train| train.datagrams().count()).sum();
    assert_eq!(datagrams, 100 * 48);
}

/// The index of the client that a train is for.
fn who(train: &SentTrain) -> usize {
    let found = (1..=8).position(|number| train.route.dst == client(number));

    found.expect("it is for a client")
}
