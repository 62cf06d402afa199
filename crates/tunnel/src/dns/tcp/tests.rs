//! Both ends joined by a wire that loses packets as told.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_wire::buffer::Buffer;
use connlib_wire::ip::Packet;

use super::{ConnectionId, TcpClient, TcpServer};
use crate::dns::{ExchangeError, ExchangeId};

const SERVER: &str = "100.100.111.1:53";
const WITHIN: Duration = Duration::from_secs(10);

struct World {
    now: Instant,
    clients: Vec<TcpClient>,
    server: TcpServer,
    queries: Vec<(ConnectionId, Vec<u8>)>,
    outcomes: Vec<(ExchangeId, Result<Vec<u8>, ExchangeError>)>,
    /// Each so-manieth packet is lost.
    loses: Option<u32>,
    carried: u32,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "a start of virtual time")]
    fn new(clients: u8) -> Self {
        let now = Instant::now();
        Self {
            now,
            clients: (0..clients).map(|n| TcpClient::new(now, [n; 32])).collect(),
            server: TcpServer::new(now, 7),
            queries: Vec::new(),
            outcomes: Vec::new(),
            loses: None,
            carried: 0,
        }
    }

    fn ask(&mut self, client: u8, exchange: u64, message: &[u8]) {
        let from = [100, 64, 0, 1 + client].into();
        let id = ExchangeId(exchange);
        self.clients[usize::from(client)].ask(self.now, id, (from, server()), message, WITHIN);
    }

    fn is_lost(&mut self) -> bool {
        self.carried += 1;
        self.loses
            .is_some_and(|loses| self.carried.is_multiple_of(loses))
    }

    /// Carries packets until there are none.
    fn run(&mut self) {
        loop {
            let mut has_moved = false;
            for at in 0..self.clients.len() {
                while let Some(packet) = self.clients[at].poll_packet() {
                    has_moved = true;
                    if !self.is_lost() {
                        self.server.handle_packet(self.now, &parsed(packet));
                    }
                }
                self.outcomes
                    .extend(std::iter::from_fn(|| self.clients[at].poll_outcome()));
            }
            while let Some(packet) = self.server.poll_packet() {
                has_moved = true;
                let packet = parsed(packet);
                let last = match packet.destination() {
                    std::net::IpAddr::V4(ip) => ip.octets()[3],
                    std::net::IpAddr::V6(_) => unreachable!(),
                };
                if !self.is_lost() {
                    self.clients[usize::from(last) - 1].handle_packet(self.now, &packet);
                }
            }
            self.queries
                .extend(std::iter::from_fn(|| self.server.poll_query()));
            if !has_moved {
                return;
            }
        }
    }

    /// Lets time pass as the deadlines say.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.run();
        loop {
            let now = self.now;
            let clients = self
                .clients
                .iter_mut()
                .filter_map(|client| client.poll_timeout(now));
            let next = clients.chain(self.server.poll_timeout(now)).min();
            let Some(next) = next.filter(|at| *at <= end) else {
                break;
            };
            self.now = next.max(now + Duration::from_millis(1));
            for client in &mut self.clients {
                client.handle_timeout(self.now);
            }
            self.server.handle_timeout(self.now);
            self.run();
        }
        self.now = end;
    }

    /// Answers each question with itself, and `more` bytes behind it.
    fn answer_all(&mut self, more: usize) {
        for (id, mut query) in std::mem::take(&mut self.queries) {
            query.resize(query.len() + more, 0xAA);
            self.server.answer(self.now, id, &query);
        }
        self.run();
    }
}

fn server() -> SocketAddr {
    SERVER.parse().unwrap()
}

fn parsed(packet: Buffer) -> Packet<Buffer> {
    let packet = Packet::parse(packet).unwrap();
    assert!(packet.checksums_match());
    packet
}

#[test]
fn questions_with_one_id_find_their_own_answers() {
    let mut world = World::new(2);
    world.ask(0, 1, b"\0\x01first");
    world.ask(0, 2, b"\0\x01second");
    world.ask(1, 3, b"\0\x01third");
    world.run();
    assert_eq!(world.queries.len(), 3);
    world.queries.reverse();
    world.answer_all(0);

    world.outcomes.sort_by_key(|(id, _)| *id);
    let expected: [(u64, &[u8]); 3] = [
        (1, b"\0\x01first"),
        (2, b"\0\x01second"),
        (3, b"\0\x01third"),
    ];
    let expected = expected.map(|(id, message)| (ExchangeId(id), Ok(message.to_vec())));
    assert_eq!(world.outcomes, expected);
}

#[test]
fn the_longest_answer_comes_whole_even_where_packets_are_lost() {
    for loses in [None, Some(11), Some(6)] {
        let mut world = World::new(1);
        world.loses = loses;
        world.ask(0, 1, b"\0\x01long");
        world.pass(Duration::from_secs(5));
        world.answer_all(65_535 - 6);
        world.pass(Duration::from_secs(5));

        let [(_, Ok(answer))] = world.outcomes.as_slice() else {
            panic!("{loses:?}: {:?}", world.outcomes.len());
        };
        assert_eq!(answer.len(), 65_535);
        assert!(answer.starts_with(b"\0\x01long") && answer.ends_with(&[0xAA; 100]));
    }
}

#[test]
fn the_eleventh_connection_of_a_program_is_refused_until_one_closes() {
    let mut world = World::new(1);
    // One client opens one connection per server; so these are clients with one address.
    world.clients = (0..11)
        .map(|n| TcpClient::new(world.now, [n; 32]))
        .collect();
    let from = [100, 64, 0, 1].into();
    for at in 0..11 {
        let now = world.now;
        world.clients[at].ask(
            now,
            ExchangeId(at as u64),
            (from, server()),
            b"\0\x01x",
            WITHIN,
        );
        while let Some(packet) = world.clients[at].poll_packet() {
            world.server.handle_packet(now, &parsed(packet));
            while let Some(packet) = world.server.poll_packet() {
                world.clients[at].handle_packet(now, &parsed(packet));
            }
        }
    }
    world
        .queries
        .extend(std::iter::from_fn(|| world.server.poll_query()));
    assert_eq!(world.queries.len(), 10);
    let refused = world.clients[10].poll_outcome();
    assert!(matches!(
        refused,
        Some((ExchangeId(10), Err(ExchangeError::Unreachable(_))))
    ));

    // A connection that makes no sense is ended, and leaves its place.
    let (id, _) = world.queries[0];
    let now = world.now;
    world.server.abort(now, id);
    while let Some(packet) = world.server.poll_packet() {
        world.clients[0].handle_packet(now, &parsed(packet));
    }
    assert!(matches!(world.clients[0].poll_outcome(), Some((_, Err(_)))));
    world.clients[10].ask(now, ExchangeId(11), (from, server()), b"\0\x01y", WITHIN);
    for _ in 0..4 {
        while let Some(packet) = world.clients[10].poll_packet() {
            world.server.handle_packet(now, &parsed(packet));
        }
        while let Some(packet) = world.server.poll_packet() {
            world.clients[10].handle_packet(now, &parsed(packet));
        }
    }
    assert!(world.server.poll_query().is_some());
}

#[test]
fn idle_connections_end_and_new_ones_work() {
    let mut world = World::new(1);
    for round in 0..3 {
        world.ask(0, round, b"\0\x01x");
        world.run();
        world.answer_all(0);
        assert!(matches!(world.outcomes.pop(), Some((_, Ok(_)))), "{round}");
        world.pass(Duration::from_secs(30));
        assert_eq!(world.server.poll_timeout(world.now), None);
        assert_eq!(world.clients[0].poll_timeout(world.now), None);
    }
}

#[test]
fn a_question_that_meets_a_closing_connection_is_asked_by_a_new_one() {
    let mut world = World::new(1);
    world.ask(0, 1, b"\0\x01x");
    world.run();
    let (id, _) = world.queries[0];
    world.answer_all(0);
    world.outcomes.clear();
    world.ask(0, 2, b"\0\x01y");
    let now = world.now;
    world.server.abort(now, id);
    world.run();
    world.answer_all(0);
    let answer = Ok(b"\0\x01y".to_vec());
    assert_eq!(world.outcomes, [(ExchangeId(2), answer)]);

    // One that never answers is not tried again and again.
    let mut world = World::new(1);
    world.ask(0, 1, b"\0\x01x");
    world.run();
    let (id, _) = world.queries[0];
    world.server.abort(world.now, id);
    world.run();
    assert!(matches!(
        world.outcomes.as_slice(),
        [(ExchangeId(1), Err(_))]
    ));
}

#[test]
fn what_nobody_wants_any_longer_is_not_sent_again_and_the_rest_is_asked_anew() {
    let mut world = World::new(1);
    world.ask(0, 1, b"\0\x01x");
    world.run();
    world.queries.clear();

    // Both are on their way when one is taken back.
    world.ask(0, 2, b"\0\x01secret");
    world.ask(0, 3, b"\0\x01y");
    while let Some(packet) = world.clients[0].poll_packet() {
        drop(packet);
    }
    let now = world.now;
    assert!(world.clients[0].retain(now, |id| id != ExchangeId(2)));
    assert!(!world.clients[0].retain(now, |id| id != ExchangeId(2)));
    world.pass(Duration::from_secs(9));
    let asked = |(_, query): &(_, Vec<u8>)| query[2..].to_vec();
    let asked: Vec<_> = world.queries.iter().map(asked).collect();
    assert_eq!(asked, [b"x".to_vec(), b"y".to_vec()]);
    world.answer_all(0);
    let mut answered: Vec<_> = world.outcomes.iter().map(|(id, _)| id.0).collect();
    answered.sort_unstable();
    assert_eq!(answered, [1, 3]);
}

#[test]
fn a_server_that_is_gone_is_told_in_time() {
    let mut world = World::new(1);
    world.loses = Some(1);
    world.ask(0, 1, b"\0\x01x");
    world.pass(Duration::from_secs(11));
    assert!(matches!(
        world.outcomes.as_slice(),
        [(ExchangeId(1), Err(_))]
    ));

    // It was there, and answers no more.
    let mut world = World::new(1);
    world.ask(0, 1, b"\0\x01x");
    world.pass(Duration::from_secs(9));
    assert!(world.outcomes.is_empty());
    world.pass(Duration::from_secs(2));
    assert_eq!(
        world.outcomes,
        [(ExchangeId(1), Err(ExchangeError::TimedOut))]
    );
}

#[test]
fn a_reset_and_a_new_set_of_addresses_end_connections() {
    let mut world = World::new(2);
    world.ask(0, 1, b"\0\x01x");
    world.ask(1, 2, b"\0\x01x");
    world.run();
    let now = world.now;
    world.clients[0].reset(now);
    world.run();
    world.server.retain(now, |_| false);
    world.run();
    let failed = |outcome: &(ExchangeId, Result<_, _>)| outcome.1.is_err();
    assert_eq!(
        world
            .outcomes
            .iter()
            .filter(|outcome| failed(outcome))
            .count(),
        2
    );
    assert_eq!(world.server.poll_timeout(now), None);
}

#[test]
fn a_first_packet_that_comes_to_nothing_leaves_nobody_listening_for_others() {
    let mut world = World::new(2);
    let now = world.now;
    let mut other = TcpClient::new(now, [9; 32]);
    let from = [100, 64, 0, 2].into();
    other.ask(now, ExchangeId(0), (from, server()), b"\0\x01x", WITHIN);
    let first = other.poll_packet().unwrap().to_vec();
    // The stack takes none of these.
    let mut from_port_0 = first.clone();
    Packet::parse(&mut from_port_0[..])
        .unwrap()
        .set_source_port(0);
    let mut damaged = first.clone();
    damaged[24] ^= 1;
    for untaken in [from_port_0, damaged] {
        let untaken = Packet::parse(untaken).unwrap();
        world.server.handle_packet(now, &untaken);
        assert_eq!(world.server.poll_timeout(now), None);
    }
    // This one is taken, and taken back: the next number, and RST for SYN.
    let mut reset = first.clone();
    let at = |at: usize| {
        first[at..at + 2]
            .try_into()
            .map(u16::from_be_bytes)
            .unwrap()
    };
    reset[26..28].copy_from_slice(&(at(26) + 1).to_be_bytes());
    reset[33] = 0x04;
    reset[36..38].copy_from_slice(&(at(36) - 3).to_be_bytes());
    for packet in [first.clone(), reset] {
        let packet = Packet::parse(packet).unwrap();
        assert!(packet.checksums_match());
        world.server.handle_packet(now, &packet);
    }
    assert!(world.server.poll_packet().is_some());
    assert!(world.server.poll_packet().is_none());
    assert_eq!(world.server.poll_timeout(now), None);

    world.ask(0, 1, b"\0\x01x");
    world.ask(1, 2, b"\0\x01y");
    world.run();
    let asked: Vec<_> = world
        .queries
        .iter()
        .map(|(id, query)| (id.remote.ip().to_string(), &query[2..]))
        .collect();
    let expected = [
        ("100.64.0.1".to_owned(), &b"x"[..]),
        ("100.64.0.2".to_owned(), b"y"),
    ];
    assert_eq!(asked, expected);
}

#[test]
fn an_asker_may_wait_for_its_answer_for_longer_than_silence_is_suffered() {
    let mut world = World::new(1);
    let from = [100, 64, 0, 1].into();
    let now = world.now;
    let long = Duration::from_secs(60);
    world.clients[0].ask(now, ExchangeId(1), (from, server()), b"\0\x01x", long);
    world.pass(Duration::from_secs(25));
    world.answer_all(0);
    assert!(matches!(
        world.outcomes.as_slice(),
        [(ExchangeId(1), Ok(_))]
    ));
}

#[test]
fn many_questions_on_one_connection_are_all_answered() {
    let mut world = World::new(1);
    for id in 0..500_u64 {
        world.ask(0, id, &[0, 1, id as u8, (id >> 8) as u8]);
    }
    for _ in 0..100 {
        world.run();
        world.answer_all(2_000);
    }
    assert_eq!(world.outcomes.len(), 500);
    for (id, outcome) in &world.outcomes {
        let answer = outcome.as_ref().unwrap();
        assert_eq!(answer[..4], [0, 1, id.0 as u8, (id.0 >> 8) as u8]);
    }
}
