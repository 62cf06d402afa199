//! What all carriers have in common: how many, until when, and that each has one outcome.

use std::collections::BTreeSet;

use tokio::net::{TcpListener, UdpSocket};

use super::*;

#[tokio::test]
async fn two_thousand_at_once_are_a_thousand_answers_and_a_thousand_refusals() {
    let (server, _) = echo().await;
    let mut rig = Rig::new();
    for id in 0..2_000 {
        rig.start(id, &server, Carrier::Udp, query(id as u16, "a.test"));
    }

    let mut seen = BTreeSet::new();
    let mut refused = 0;
    for _ in 0..2_000 {
        let (id, outcome) = rig.over().await;
        assert!(seen.insert(id));
        match outcome {
            Err(error) => {
                assert_eq!(error, ExchangeError::Busy);
                assert!(id >= 1_000);
                refused += 1;
            }
            Ok(_) => assert_answers(outcome, id as u16, "a.test"),
        }
    }
    assert_eq!(refused, 1_000);

    assert_answers(
        rig.ask(&server, Carrier::Udp, "b.test").await,
        0x4711,
        "b.test",
    );
}

#[tokio::test]
async fn with_nothing_under_way_next_never_ends() {
    let mut rig = Rig::new();
    assert!(timeout(SHORT, rig.exchanges.next()).await.is_err());

    let (server, _) = echo().await;
    assert_answers(
        rig.ask(&server, Carrier::Udp, "a.test").await,
        0x4711,
        "a.test",
    );
    assert!(timeout(SHORT, rig.exchanges.next()).await.is_err());
}

#[tokio::test]
async fn nothing_is_lost_when_waiting_is_cancelled() {
    let (server, _) = echo().await;
    let mut rig = Rig::new();
    for id in 0..100 {
        rig.start(id, &server, Carrier::Udp, query(1, "a.test"));
    }

    let mut seen = BTreeSet::new();
    while seen.len() < 100 {
        tokio::select! {
            biased;
            () = task::yield_now() => {}
            (ExchangeId(id), outcome) = rig.exchanges.next() => {
                assert_answers(outcome, 1, "a.test");
                assert!(seen.insert(id));
            }
        }
    }
}

#[tokio::test]
async fn a_reset_fails_what_is_under_way_and_keeps_what_was_answered() {
    let (server, _) = echo().await;
    let silent = UdpSocket::bind(ANY).await.unwrap();
    let deaf = TcpListener::bind(ANY).await.unwrap();
    let mut rig = Rig::new();
    rig.start(1, &server, Carrier::Udp, query(1, "a.test"));
    // Whatever is under way shares the carriers.
    let is_answered = async {
        while Arc::strong_count(&rig.exchanges.carriers) > 1 {
            task::yield_now().await;
        }
    };
    timeout(LONG, is_answered).await.unwrap();
    let plain = Server::Plain(silent.local_addr().unwrap());
    rig.start(3, &plain, Carrier::Udp, query(1, "a.test"));
    let stream = Server::Plain(deaf.local_addr().unwrap());
    rig.start(2, &stream, Carrier::Tcp, query(1, "a.test"));
    let (mut accepted, _) = deaf.accept().await.unwrap();

    rig.exchanges.reset();

    let (id, outcome) = rig.over().await;
    assert_eq!(id, 1);
    assert_answers(outcome, 1, "a.test");
    for id in [2, 3] {
        let (over, outcome) = rig.over().await;
        assert_eq!(over, id);
        assert_unreachable(&outcome, "network changed");
    }
    let mut rest = Vec::new();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut accepted, &mut rest).await;

    assert_answers(
        rig.ask(&server, Carrier::Udp, "a.test").await,
        0x4711,
        "a.test",
    );
}

#[tokio::test]
async fn after_a_reset_no_old_socket_is_used() {
    let (server, mut ports) = echo().await;
    let mut rig = Rig::new();
    for _ in 0..2 {
        rig.ask(&server, Carrier::Udp, "a.test").await.unwrap();
    }
    rig.exchanges.reset();
    rig.ask(&server, Carrier::Udp, "a.test").await.unwrap();

    let [first, second, third] = [ports.recv().await, ports.recv().await, ports.recv().await];
    assert_eq!(first, second);
    assert_ne!(second, third);
}

/// A server that answers everything and tells from which ports it was asked.
async fn echo() -> (Server, tokio::sync::mpsc::UnboundedReceiver<u16>) {
    let socket = UdpSocket::bind(ANY).await.unwrap();
    let server = Server::Plain(socket.local_addr().unwrap());
    let (sender, ports) = tokio::sync::mpsc::unbounded_channel();
    socket2::SockRef::from(&socket)
        .set_recv_buffer_size(4 << 20)
        .unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2_048];
        loop {
            let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
            let _ = socket.send_to(&answer(&buffer[..len]), from).await;
            let _ = sender.send(from.port());
        }
    });

    (server, ports)
}
