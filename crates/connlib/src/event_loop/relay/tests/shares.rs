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
    for _ in 0..500 {
        rig.say_train(client(1), LEN + 4, &channel_data(&vec![7; LEN]).repeat(40));
    }
    let request = rig.bare(Method::Binding);
    rig.say(client(1), &request);

    // What stands in the socket is taken out before anything is handled, a megabyte at a time.
    let mut turns = 0;
    while rig.io.listen().sent.is_empty() {
        let _ = rig.turn();
        turns += 1;
    }
    let left = rig.relay_loop.listen.v4.left();
    assert!(left > 100, "{left} trains wait still, after {turns} turns");
}

#[test]
fn clients_share_the_loop_whatever_the_size_of_their_trains() {
    let mut rig = Rig::new();
    let ports = [1, 2].map(|number| rig.connect(client(number), peer(number)));

    let mut got = [0; 2];
    for _ in 0..300 {
        // One sends full trains, the other one datagram at a time; both more than a turn handles.
        for _ in 0..8 {
            rig.say_train(client(1), LEN + 4, &channel_data(&vec![7; LEN]).repeat(48));
        }
        for _ in 0..200 {
            rig.say(client(2), &channel_data(&vec![7; LEN]));
        }
        let _ = rig.turn();
        for (got, port) in got.iter_mut().zip(ports) {
            let sent = rig.io.allocation(port).sent.drain(..);
            *got += sent.map(|train| train.payload.len()).sum::<usize>();
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

/// The index of the client that a train is for.
fn who(train: &SentTrain) -> usize {
    let found = (1..=8).position(|number| train.route.dst == client(number));

    found.expect("it is for a client")
}
