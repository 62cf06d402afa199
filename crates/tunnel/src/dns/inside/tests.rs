//! client.md §4.6 and the tunnelled rows of §15.6.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use connlib_wire::buffer::{Buffer, Pool};
use connlib_wire::dns::{Name, Query, Rcode, RecordType, respond};
use connlib_wire::ip::{self, IcmpError, Packet};

use super::{Inside, MAX_PORTS};
use crate::dns::{Carrier, Exchange, ExchangeError, ExchangeId, Server};

const SERVER: &str = "10.20.0.53:53";

struct World {
    inside: Inside,
    now: Instant,
    pool: Pool,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "a start of virtual time")]
    fn new() -> Self {
        let now = Instant::now();
        Self {
            inside: Inside::new(now, [1; 32]),
            now,
            pool: Pool::new(2_048, 4),
        }
    }

    /// Asks with a given id; returns the packet.
    fn ask(&mut self, exchange: u64, id: u16, server: &str) -> Option<Packet<Buffer>> {
        let server: SocketAddr = server.parse().unwrap();
        let query = Query::new(&Name::parse("example.org").unwrap(), RecordType::A);
        let exchange = Exchange {
            id: ExchangeId(exchange),
            server: Server::Plain(server),
            carrier: Carrier::Udp,
            message: query.to_upstream(id, true),
            within: Duration::from_secs(10),
        };
        let own = (
            "100.64.0.1".parse().unwrap(),
            "fd00:2021:1111::1".parse().unwrap(),
        );
        self.inside.start(self.now, exchange, server, own);
        let packet = self.inside.poll_packet()?;
        Some(Packet::parse(packet).unwrap())
    }

    /// The server's answer to a packet, from another address if need be.
    fn answer(&self, asked: &Packet<Buffer>, from: Option<&str>) -> Packet<Buffer> {
        let query = Query::parse(asked.payload()).unwrap();
        let message = respond(&query, Rcode::NOERROR, 60, &[], None);
        let (own, server) = ends(asked);
        let from = from.map_or(server, |from| from.parse().unwrap());
        ip::udp(&self.pool, from, own, &message).unwrap()
    }

    fn takes(&mut self, packet: &Packet<Buffer>) -> bool {
        self.inside.handle_packet(self.now, packet)
    }

    fn outcomes(&mut self) -> Vec<(u64, bool)> {
        let outcomes = std::iter::from_fn(|| self.inside.poll_outcome());
        outcomes
            .map(|(id, outcome)| (id.0, outcome.is_ok()))
            .collect()
    }

    fn after(&mut self, time: Duration) {
        self.now += time;
        self.inside.handle_timeout(self.now);
    }
}

fn ends(packet: &Packet<Buffer>) -> (SocketAddr, SocketAddr) {
    (
        (packet.source(), packet.source_port().unwrap()).into(),
        (packet.destination(), packet.destination_port().unwrap()).into(),
    )
}

#[test]
fn questions_leave_from_our_own_address_and_a_port_of_their_own() {
    let mut world = World::new();
    let first = world.ask(1, 33_333, SERVER).unwrap();
    let second = world.ask(2, 33_333, "10.20.0.54:53").unwrap();
    let third = world.ask(3, 33_333, "[fd00:20::53]:53").unwrap();
    assert_eq!(first.source(), "100.64.0.1".parse::<IpAddr>().unwrap());
    assert_eq!(
        third.source(),
        "fd00:2021:1111::1".parse::<IpAddr>().unwrap()
    );
    assert!(first.checksums_match() && third.checksums_match());
    assert!(first.source_port() >= Some(49_152));
    assert_ne!(first.source_port(), second.source_port());

    // One id, three servers: each gets its own answer.
    for packet in [&third, &first, &second] {
        let answer = world.answer(packet, None);
        assert!(world.takes(&answer));
    }
    assert_eq!(world.outcomes(), [(3, true), (1, true), (2, true)]);
}

#[test]
fn only_the_server_that_was_asked_is_believed() {
    let mut world = World::new();
    let asked = world.ask(1, 1, SERVER).unwrap();
    let from_another = world.answer(&asked, Some("10.20.0.54:53"));
    let from_another_port = world.answer(&asked, Some("10.20.0.53:54"));
    assert!(!world.takes(&from_another) && !world.takes(&from_another_port));

    // A lie is swallowed, and listening goes on.
    let (own, server) = ends(&asked);
    let other = Query::new(&Name::parse("example.com").unwrap(), RecordType::A);
    let other = Query::parse(&other.to_upstream(1, true)).unwrap();
    let lie = respond(&other, Rcode::NOERROR, 60, &[], None);
    let lie = ip::udp(&world.pool, server, own, &lie).unwrap();
    assert!(world.takes(&lie));
    assert_eq!(world.outcomes(), []);
    let answer = world.answer(&asked, None);
    assert!(world.takes(&answer));
    assert_eq!(world.outcomes(), [(1, true)]);
}

#[test]
fn a_late_answer_is_swallowed_instead_of_shown_to_programs() {
    let mut world = World::new();
    let asked = world.ask(1, 1, SERVER).unwrap();
    world.after(Duration::from_millis(9_999));
    assert_eq!(world.outcomes(), []);
    world.after(Duration::from_millis(1));
    assert_eq!(world.outcomes(), [(1, false)]);
    let answer = world.answer(&asked, None);
    assert!(world.takes(&answer) && world.takes(&answer));
    assert_eq!(world.outcomes(), []);

    world.after(Duration::from_secs(30));
    assert!(!world.takes(&answer), "it is forgotten");
    assert_eq!(world.inside.poll_timeout(world.now), None);
}

#[test]
fn an_unreachable_server_is_told_at_once_and_the_error_not_shown() {
    let mut world = World::new();
    let asked = world.ask(1, 1, SERVER).unwrap();
    let error = ip::icmp_error(&world.pool, &asked, IcmpError::Unreachable).unwrap();
    assert!(world.takes(&error));
    assert_eq!(world.outcomes(), [(1, false)]);
    assert!(world.takes(&error), "nor is another one");
    let others = ip::udp(
        &world.pool,
        "100.64.0.1:5000".parse().unwrap(),
        SERVER.parse().unwrap(),
        b"x",
    );
    let error = ip::icmp_error(&world.pool, &others.unwrap(), IcmpError::Unreachable).unwrap();
    assert!(!world.takes(&error), "a program asked that itself");
}

#[test]
fn what_was_taken_back_is_known_wherever_it_waits() {
    let mut world = World::new();
    let asked = world.ask(1, 1, SERVER).unwrap();
    let other = world.ask(2, 1, SERVER).unwrap();
    assert!(!world.inside.has_given_up(&asked));

    assert!(world.inside.retain(world.now, |id| id == ExchangeId(2)));
    assert!(world.inside.has_given_up(&asked));
    assert!(!world.inside.has_given_up(&other));
    assert!(!world.inside.retain(world.now, |id| id == ExchangeId(2)));
    let late = world.answer(&asked, None);
    assert!(world.takes(&late), "it had left after all");
    assert_eq!(world.outcomes(), []);
}

#[test]
fn what_is_over_makes_room_and_what_waits_does_not() {
    let mut world = World::new();
    for number in 0..MAX_PORTS as u64 {
        assert!(world.ask(number, 1, SERVER).is_some());
    }
    assert!(world.ask(5_000, 1, SERVER).is_none());
    let busy = world.inside.poll_outcome();
    assert_eq!(busy, Some((ExchangeId(5_000), Err(ExchangeError::Busy))));

    world.after(Duration::from_secs(10));
    assert_eq!(world.outcomes().len(), MAX_PORTS);
    assert!(world.ask(5_001, 1, SERVER).is_some());
    world.inside.reset(world.now);
    assert_eq!(world.outcomes(), [(5_001, false)]);
}
