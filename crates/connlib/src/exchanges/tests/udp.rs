//! One datagram each way.

use std::collections::BTreeSet;
use std::io::Write as _;

use socket2::SockRef;
use tokio::net::UdpSocket;

use super::*;

#[tokio::test]
async fn an_answer_comes_back_as_it_is() {
    let server = Peer::new().await;
    let mut rig = Rig::new();
    rig.start(1, &server.name(), Carrier::Udp, query(9, "a.test"));

    let (asked, from) = server.recv().await;
    assert_eq!(asked, query(9, "a.test"));
    server.send(&answer(&asked), from).await;

    let (id, outcome) = rig.over().await;
    assert_eq!(id, 1);
    assert_eq!(outcome.unwrap(), answer(&asked));
}

#[tokio::test]
async fn what_is_no_answer_is_listened_past() {
    let server = Peer::new().await;
    let mut rig = Rig::new();
    rig.start(1, &server.name(), Carrier::Udp, query(9, "a.test"));

    let (asked, from) = server.recv().await;
    let other_id = answer(&query(10, "a.test"));
    let other_question = answer(&query(9, "b.test"));
    for lie in [&[][..], &[0; 3], &other_id, &other_question, &asked] {
        server.send(lie, from).await;
    }
    server.send(&answer(&asked), from).await;

    let (_, outcome) = rig.over().await;
    assert_eq!(outcome.unwrap(), answer(&asked));
}

#[tokio::test]
async fn an_answer_that_comes_twice_is_nobody_elses() {
    let server = Peer::new().await;
    let mut rig = Rig::new();
    let mut ports = BTreeSet::new();
    for name in ["a.test", "b.test", "c.test"] {
        rig.start(1, &server.name(), Carrier::Udp, query(9, name));
        let (asked, from) = server.recv().await;
        server.send(&answer(&asked), from).await;
        server.send(&answer(&asked), from).await;
        ports.insert(from.port());

        assert_answers(rig.over().await.1, 9, name);
    }

    assert_eq!(ports.len(), 1, "the socket was used again");
}

#[tokio::test]
async fn an_answer_from_elsewhere_is_not_taken() {
    let server = Peer::new().await;
    let stranger = Peer::new().await;
    let mut rig = Rig::new();
    let name = server.name();
    rig.start_within(1, &name, Carrier::Udp, query(9, "a.test"), SHORT);

    let (asked, from) = server.recv().await;
    // The stranger may even be told that nobody listens to it.
    let _ = stranger.socket.send_to(&answer(&asked), from).await;

    let (_, outcome) = rig.over().await;
    assert_eq!(outcome, Err(ExchangeError::TimedOut));
}

#[tokio::test]
async fn silence_ends_in_time_and_the_socket_is_not_used_again() {
    let server = Peer::new().await;
    let mut rig = Rig::new();
    let name = server.name();
    let outcome = rig.ask_within(&name, Carrier::Udp, "a.test", SHORT).await;
    assert_eq!(outcome, Err(ExchangeError::TimedOut));
    let (_, first) = server.recv().await;

    rig.start(1, &name, Carrier::Udp, query(9, "a.test"));
    let (asked, second) = server.recv().await;
    assert_ne!(first, second, "a late answer goes to nobody");
    server.send(&answer(&asked), second).await;
    assert_answers(rig.over().await.1, 9, "a.test");
}

#[tokio::test]
async fn the_longest_datagram_comes_whole() {
    let server = Peer::new().await;
    let mut rig = Rig::new();
    rig.start(1, &server.name(), Carrier::Udp, query(9, "a.test"));

    let (asked, from) = server.recv().await;
    let mut long = answer(&asked);
    long.resize(65_507, 0);
    server.send(&long, from).await;

    assert_eq!(rig.over().await.1.unwrap().len(), 65_507);
}

#[tokio::test]
async fn a_closed_port_is_told_at_once() {
    let server = Peer::new().await.name();
    let mut rig = Rig::new();
    let outcome = rig.ask(&server, Carrier::Udp, "a.test").await;

    let Server::Plain(addr) = server else {
        unreachable!();
    };
    assert_unreachable(&outcome, &addr.to_string());
    assert_unreachable(&outcome, "refused");
}

#[tokio::test]
async fn a_socket_serves_sixteen_exchanges() {
    let server = Peer::new().await;
    let mut rig = Rig::new();
    let mut ports = Vec::new();
    for _ in 0..40 {
        ports.push(server.serve(&mut rig).await);
    }

    ports.dedup();
    assert_eq!(ports.len(), 3, "{ports:?}");
}

#[tokio::test]
async fn a_socket_serves_ten_seconds() {
    let server = Peer::new().await;
    let mut rig = Rig::new();
    let first = server.serve(&mut rig).await;
    pass(Duration::from_secs(9)).await;
    assert_eq!(server.serve(&mut rig).await, first);
    pass(Duration::from_secs(1)).await;

    assert_ne!(server.serve(&mut rig).await, first);
}

#[tokio::test]
async fn a_socket_serves_one_server_and_one_exchange_at_a_time() {
    let server = Peer::new().await;
    let other = Peer::new().await;
    let mut rig = Rig::new();
    for id in 0..4 {
        rig.start(id, &server.name(), Carrier::Udp, query(9, "a.test"));
    }
    let mut ports = BTreeSet::new();
    for _ in 0..4 {
        let (asked, from) = server.recv().await;
        ports.insert(from.port());
        server.send(&answer(&asked), from).await;
    }
    for _ in 0..4 {
        assert_answers(rig.over().await.1, 9, "a.test");
    }
    assert_eq!(ports.len(), 4);

    assert!(!ports.contains(&other.serve(&mut rig).await));
    assert!(ports.contains(&server.serve(&mut rig).await));
}

#[tokio::test]
async fn at_most_512_sockets_are_open() {
    let server = Peer::new().await;
    SockRef::from(&server.socket)
        .set_recv_buffer_size(4 << 20)
        .unwrap();
    let other = Peer::new().await;
    let mut rig = Rig::new();
    other.serve(&mut rig).await;
    for id in 0..600 {
        rig.start(id, &server.name(), Carrier::Udp, query(9, "a.test"));
    }

    let mut asked = Vec::new();
    for _ in 0..512 {
        asked.push(timeout(LONG, server.recv()).await.unwrap());
    }
    assert!(timeout(SHORT, server.recv()).await.is_err());
    let ports: BTreeSet<_> = asked.iter().map(|(_, from)| from.port()).collect();
    assert_eq!(ports.len(), 512);

    for (asked, from) in asked {
        server.send(&answer(&asked), from).await;
    }
    for _ in 0..88 {
        let (asked, from) = server.recv().await;
        assert!(ports.contains(&from.port()), "an idle one is used");
        server.send(&answer(&asked), from).await;
    }
    for _ in 0..600 {
        assert_answers(rig.over().await.1, 9, "a.test");
    }
    // All are idle, and one of them has to go.
    assert!(!ports.contains(&other.serve(&mut rig).await));
}

#[tokio::test]
async fn a_flood_keeps_nobody_from_a_turn() {
    let flooder = Peer::new().await;
    let server = Peer::new().await;
    let mut rig = Rig::new();
    let name = flooder.name();
    rig.start_within(1, &name, Carrier::Udp, query(9, "a.test"), SHORT * 4);
    let (_, from) = flooder.recv().await;
    let flood = tokio::spawn(async move {
        loop {
            // It may be told that nobody listens any more.
            let _ = flooder.socket.send_to(&[0; 12], from).await;
        }
    });

    server.serve(&mut rig).await;
    assert_eq!(rig.over().await, (1, Err(ExchangeError::TimedOut)));
    flood.abort();
    assert!(flood.await.unwrap_err().is_cancelled(), "it went on so far");
}

#[tokio::test]
async fn a_server_on_a_link_is_asked_by_that_link() {
    let Some(addr) = link_local() else {
        // Past the capture of what tests print.
        let skipped = b"NOT TESTED: no interface here has a link-local address\n";
        let _ = std::io::stderr().write_all(skipped);
        return;
    };
    let server = Peer::at(addr).await;
    let mut rig = Rig::new();

    server.serve(&mut rig).await;
}

#[tokio::test]
async fn what_is_no_message_is_not_sent() {
    let server = Peer::new().await;
    let mut rig = Rig::new();
    for message in [vec![], vec![0; 11], vec![0; 65_536]] {
        rig.start(1, &server.name(), Carrier::Udp, message);

        assert_failed(&rig.over().await.1, "no DNS message");
    }
}

/// A name server that does what its test says.
struct Peer {
    socket: UdpSocket,
}

impl Peer {
    async fn new() -> Self {
        Self::at(ANY.parse().unwrap()).await
    }

    async fn at(addr: SocketAddr) -> Self {
        Self {
            socket: UdpSocket::bind(addr).await.unwrap(),
        }
    }

    fn name(&self) -> Server {
        Server::Plain(self.socket.local_addr().unwrap())
    }

    async fn recv(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 2_048];
        let (len, from) = self.socket.recv_from(&mut buffer).await.unwrap();

        (buffer[..len].to_vec(), from)
    }

    async fn send(&self, message: &[u8], to: SocketAddr) {
        self.socket.send_to(message, to).await.unwrap();
    }

    /// One whole exchange; returns the port that it was asked from.
    async fn serve(&self, rig: &mut Rig) -> u16 {
        rig.start(0, &self.name(), Carrier::Udp, query(1, "served.test"));
        let (asked, from) = self.recv().await;
        self.send(&answer(&asked), from).await;
        let (id, outcome) = rig.over().await;
        assert_eq!(id, 0);
        assert_answers(outcome, 1, "served.test");

        from.port()
    }
}

/// A link-local address of this machine.
fn link_local() -> Option<SocketAddr> {
    let table = std::fs::read_to_string("/proc/net/if_inet6").ok()?;
    table.lines().find_map(|line| {
        let [address, index, _, _, flags] = line.split_whitespace().take(5).collect::<Vec<_>>()[..]
        else {
            return None;
        };
        let ip = u128::from_str_radix(address, 16).ok()?;
        let scope = u32::from_str_radix(index, 16).ok()?;
        // One that is tentative can't be bound to.
        let is_usable = address.starts_with("fe80") && flags == "80";

        is_usable.then(|| std::net::SocketAddrV6::new(ip.into(), 0, 0, scope).into())
    })
}
