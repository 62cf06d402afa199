//! Messages behind their lengths.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

#[tokio::test]
async fn answers_come_in_any_order_and_find_their_questions() {
    let mut peer = Peer::new().await;
    let mut rig = Rig::new();
    let names = ["a.test", "b.test", "c.test"];
    for (id, name) in (0..).zip(names) {
        // The same id for all, as some systems do it.
        rig.start(id, &peer.name(), Carrier::Tcp, query(1, name));
    }

    let mut stream = peer.accept().await;
    let mut asked = Vec::new();
    for _ in names {
        asked.push(stream.recv().await);
    }
    let ids: std::collections::BTreeSet<_> = asked.iter().map(|asked| &asked[..2]).collect();
    assert_eq!(ids.len(), 3, "ids differ on the wire");
    for asked in asked.iter().rev() {
        stream.send(&answer(asked)).await;
    }

    for _ in names {
        let (id, outcome) = rig.over().await;
        assert_answers(outcome, 1, names[id as usize]);
    }
}

#[tokio::test]
async fn one_connection_serves_many_exchanges() {
    let mut peer = Peer::new().await;
    let mut rig = Rig::new();
    rig.start(0, &peer.name(), Carrier::Tcp, query(1, "a.test"));
    let mut stream = peer.accept().await;
    stream.serve().await;
    assert_answers(rig.over().await.1, 1, "a.test");
    for id in 1..300 {
        rig.start(id, &peer.name(), Carrier::Tcp, query(1, "a.test"));
        stream.serve().await;
        assert_answers(rig.over().await.1, 1, "a.test");
    }

    peer.assert_untouched().await;
}

#[tokio::test]
async fn what_is_no_answer_to_anything_is_ignored() {
    let mut peer = Peer::new().await;
    let mut rig = Rig::new();
    rig.start(0, &peer.name(), Carrier::Tcp, query(1, "a.test"));
    let mut stream = peer.accept().await;
    let asked = stream.recv().await;

    let mut other_id = answer(&asked);
    other_id[0] ^= 0xff;
    let [high, low, ..] = asked[..] else {
        panic!("it is empty");
    };
    let other_question = answer(&query(u16::from_be_bytes([high, low]), "b.test"));
    for lie in [
        &[][..],
        &[0],
        &asked[..2],
        &asked,
        &other_id,
        &other_question,
    ] {
        stream.send(lie).await;
    }
    stream.send(&answer(&asked)).await;

    assert_answers(rig.over().await.1, 1, "a.test");
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_made_anew() {
    let mut peer = Peer::new().await;
    let mut rig = Rig::new();
    for _ in 0..3 {
        rig.start(0, &peer.name(), Carrier::Tcp, query(1, "a.test"));
        peer.accept().await.serve().await;
        assert_answers(rig.over().await.1, 1, "a.test");
    }
}

#[tokio::test]
async fn what_waits_when_a_connection_ends_is_asked_once_more() {
    let mut peer = Peer::new().await;
    let mut rig = Rig::new();
    for id in 0..3 {
        rig.start(id, &peer.name(), Carrier::Tcp, query(1, "a.test"));
    }
    let mut stream = peer.accept().await;
    stream.serve().await;
    stream.recv().await;
    stream.recv().await;
    stream.break_off();
    assert_answers(rig.over().await.1, 1, "a.test");

    let mut stream = peer.accept().await;
    stream.serve().await;
    stream.serve().await;
    for _ in 0..2 {
        assert_answers(rig.over().await.1, 1, "a.test");
    }
}

#[tokio::test]
async fn what_two_connections_ended_under_is_given_up() {
    for is_rude in [true, false] {
        let mut peer = Peer::new().await;
        let mut rig = Rig::new();
        rig.start(0, &peer.name(), Carrier::Tcp, query(1, "a.test"));
        for _ in 0..2 {
            let mut stream = peer.accept().await;
            stream.recv().await;
            if is_rude {
                stream.break_off();
            }
        }

        let (_, outcome) = rig.over().await;
        assert_unreachable(&outcome, &peer.addr().to_string());
        assert_unreachable(&outcome, if is_rude { "reset" } else { "closed" });
        peer.assert_untouched().await;
    }
}

#[tokio::test]
async fn after_half_an_answer_and_silence_there_is_another_connection() {
    let mut peer = Peer::new().await;
    let mut rig = Rig::new();
    rig.start_within(0, &peer.name(), Carrier::Tcp, query(1, "a.test"), SHORT);
    let mut stream = peer.accept().await;
    let half = answer(&stream.recv().await);
    let len = u16::try_from(half.len()).unwrap();
    stream.stream.write_u16(len).await.unwrap();
    stream.stream.write_all(&half[..20]).await.unwrap();
    assert_eq!(rig.over().await.1, Err(ExchangeError::TimedOut));

    rig.start(0, &peer.name(), Carrier::Tcp, query(1, "b.test"));
    peer.accept().await.serve().await;
    assert_answers(rig.over().await.1, 1, "b.test");
}

#[tokio::test]
async fn one_slow_answer_does_not_cost_the_others_their_connection() {
    let mut peer = Peer::new().await;
    let mut rig = Rig::new();
    rig.start_within(0, &peer.name(), Carrier::Tcp, query(1, "slow.test"), SHORT);
    let mut stream = peer.accept().await;
    let slow = stream.recv().await;
    rig.start(1, &peer.name(), Carrier::Tcp, query(1, "a.test"));
    stream.serve().await;
    assert_answers(rig.over().await.1, 1, "a.test");
    assert_eq!(rig.over().await, (0, Err(ExchangeError::TimedOut)));

    stream.send(&answer(&slow)).await;
    rig.start(2, &peer.name(), Carrier::Tcp, query(1, "b.test"));
    stream.serve().await;
    assert_answers(rig.over().await.1, 1, "b.test");
}

#[tokio::test]
async fn a_hundred_wait_at_most_and_the_others_follow() {
    let mut peer = Peer::new().await;
    let mut rig = Rig::new();
    for id in 0..150 {
        rig.start(id, &peer.name(), Carrier::Tcp, query(1, "a.test"));
    }
    let mut stream = peer.accept().await;
    let mut asked = Vec::new();
    for _ in 0..100 {
        asked.push(stream.recv().await);
    }
    assert!(timeout(SHORT, stream.recv()).await.is_err());
    for asked in asked {
        stream.send(&answer(&asked)).await;
    }
    for _ in 100..150 {
        stream.serve().await;
    }

    for _ in 0..150 {
        assert_answers(rig.over().await.1, 1, "a.test");
    }
}

#[tokio::test]
async fn a_connection_is_closed_when_nobody_used_it_for_ten_seconds() {
    let mut peer = Peer::new().await;
    let mut rig = Rig::new();
    rig.start(0, &peer.name(), Carrier::Tcp, query(1, "a.test"));
    let mut stream = peer.accept().await;
    stream.serve().await;
    assert_answers(rig.over().await.1, 1, "a.test");

    pass(Duration::from_secs(9)).await;
    assert!(timeout(SHORT, stream.stream.read_u8()).await.is_err());
    pass(Duration::from_secs(1)).await;
    assert_eq!(stream.stream.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_closed_port_is_told_at_once() {
    let addr = Peer::new().await.addr();
    let mut rig = Rig::new();
    let outcome = rig.ask(&Server::Plain(addr), Carrier::Tcp, "a.test").await;

    assert_unreachable(&outcome, &addr.to_string());
    assert_unreachable(&outcome, "refused");
}

/// A name server that does what its test says.
struct Peer {
    listener: TcpListener,
}

/// A connection to it.
struct Accepted {
    stream: TcpStream,
}

impl Peer {
    async fn new() -> Self {
        Self {
            listener: TcpListener::bind(ANY).await.unwrap(),
        }
    }

    fn addr(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    fn name(&self) -> Server {
        Server::Plain(self.addr())
    }

    async fn accept(&mut self) -> Accepted {
        let (stream, _) = self.listener.accept().await.unwrap();

        Accepted { stream }
    }

    /// Nobody connects.
    async fn assert_untouched(&mut self) {
        assert!(timeout(SHORT, self.listener.accept()).await.is_err());
    }
}

impl Accepted {
    async fn recv(&mut self) -> Vec<u8> {
        let len = self.stream.read_u16().await.unwrap();
        let mut message = vec![0; len.into()];
        self.stream.read_exact(&mut message).await.unwrap();

        message
    }

    async fn send(&mut self, message: &[u8]) {
        let mut frame = u16::try_from(message.len()).unwrap().to_be_bytes().to_vec();
        frame.extend(message);
        self.stream.write_all(&frame).await.unwrap();
    }

    async fn serve(&mut self) {
        let asked = self.recv().await;
        self.send(&answer(&asked)).await;
    }

    /// Ends the connection without a goodbye.
    fn break_off(self) {
        socket2::SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }
}
