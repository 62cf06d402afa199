//! gateway.md §9.3, §11 and the scenarios 11 and 12 of §20.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use connlib_link::PeerId;
use connlib_wire::buffer::{Buffer, Pool};
use connlib_wire::control::{AssignedIps, NatStatus};
use connlib_wire::dns::{Answer, Data, Name, Query, Rcode, RecordType, respond};
use connlib_wire::id::ClientId;
use connlib_wire::ip::{IcmpError, Packet, icmp_error, udp};
use connlib_wire::portal::gateway::FromPortal;
use serde_json::value::RawValue;

use crate::dns::{Carrier, Exchange, ExchangeError, Resolvers, Server};
use crate::drops::DropReason;
use crate::gateway::Gateway;
use crate::gateway::nat::{Kind, Outside};
use crate::gateway::peers::Verdict;
use crate::{PortalState, Settings};

const RESOURCE: &str = "8f3b2c1a-0d4e-4f5a-9b6c-7d8e9fa0b1c2";
const CLIENT: &str = "11111111-2222-4333-8444-555555555555";
const KEY: &str = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";

struct World {
    gateway: Gateway,
    now: Instant,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "a start of virtual time")]
    fn new() -> Self {
        let now = Instant::now();
        let unix = Duration::from_secs(1_800_000_000);
        let mut world = Self {
            gateway: Gateway::new(now, [1; 32], Settings { unix }),
            now,
        };
        world.gateway.handle_portal_state(now, PortalState::Joined);
        world.say(
            "init",
            r#"{"interface":{"ipv4":"100.64.0.9","ipv6":"fd00:2021:1111::9"},"relays":[{"type":"turn",
                "id":"6c86c6aa-c5fb-44bc-b5d9-939cb7d7d564","addr":"203.0.113.9:3478","username":"2145916800:salt","password":"p","expires_at":2145916800}]}"#,
        );
        world.allow("*.corp.example", "[]");
        world.resolvers(&["192.0.2.53", "192.0.2.54"], "");
        world
    }

    fn say(&mut self, event: &str, payload: &str) {
        let raw = RawValue::from_string(payload.to_owned()).unwrap();
        let message = FromPortal::parse(event, &raw).unwrap();
        self.gateway.handle_message(self.now, message);
    }

    fn allow(&mut self, pattern: &str, filters: &str) {
        let payload = format!(
            r#"{{"ref":"r1","resource":{{"type":"dns","id":"{RESOURCE}","name":"db","address":"{pattern}","filters":{filters}}},
                "client":{{"id":"{CLIENT}","public_key":"{KEY}","preshared_key":"{KEY}","ipv4":"100.64.0.7","ipv6":"fd00:2021:1111::7"}},
                "client_ice_credentials":{{"username":"clnt","password":"password of clnt"}},
                "gateway_ice_credentials":{{"username":"gate","password":"password of gate"}},"expires_at":null}}"#
        );
        self.say("create_authorization", &payload);
    }

    fn resolvers(&mut self, servers: &[&str], hosts: &str) {
        let server = |ip: &&str| (ip.parse::<IpAddr>().unwrap(), 53).into();
        let resolvers = Resolvers {
            servers: servers.iter().map(server).collect(),
            search: vec!["corp.example".to_owned()],
            hosts: hosts
                .split_whitespace()
                .map(|name| (name.to_owned(), vec!["10.5.5.5".parse().unwrap()]))
                .collect(),
        };
        self.gateway.set_resolvers(self.now, &resolvers);
    }

    fn assign(&mut self, domain: &str) {
        self.assign_at(
            domain,
            &["100.96.0.1", "100.96.0.2", "100.96.0.3", "100.96.0.4"],
        );
    }

    fn assign_at(&mut self, domain: &str, proxies: &[&str]) {
        let assigned = AssignedIps {
            resource: RESOURCE.parse().unwrap(),
            domain: domain.to_owned(),
            proxy_ips: proxies.iter().map(|ip| ip.parse().unwrap()).collect(),
        };
        self.gateway.handle_assigned(self.now, peer(), assigned);
        self.gateway.serve_names(self.now);
    }

    fn exchanges(&mut self) -> Vec<Exchange> {
        std::iter::from_fn(|| self.gateway.poll_exchange()).collect()
    }

    fn reply(&mut self, exchange: &Exchange, rcode: Rcode, records: &[Data]) {
        let query = Query::parse(&exchange.message).unwrap();
        let message = respond(&query, rcode, 60, records, None);
        self.gateway
            .handle_exchanged(self.now, exchange.id, Ok(message));
    }

    /// What the client was told of names since the last call.
    fn told(&mut self) -> Vec<(String, NatStatus)> {
        std::mem::take(&mut self.gateway.names.told)
    }

    /// Where a packet to the first address would go.
    fn verdict(&mut self) -> Verdict {
        self.judge(&packet("100.96.0.1:80"))
    }

    fn judge(&mut self, packet: &Packet<Buffer>) -> Verdict {
        let own = Some((
            "100.64.0.9".parse().unwrap(),
            "fd00:2021:1111::9".parse().unwrap(),
        ));
        let peers = &mut self.gateway.peers;
        peers.judge_outbound(self.now, ClientId(peer().0), packet, own)
    }
}

/// A packet of the client.
fn packet(destination: &str) -> Packet<Buffer> {
    let ends = (
        "100.64.0.7:4000".parse().unwrap(),
        destination.parse().unwrap(),
    );
    udp(&Pool::new(2_048, 1), ends.0, ends.1, b"x").unwrap()
}

fn peer() -> PeerId {
    CLIENT.parse::<ClientId>().unwrap().into()
}

fn active(domain: &str) -> (String, NatStatus) {
    (domain.to_owned(), NatStatus::Active)
}

fn inactive(domain: &str) -> (String, NatStatus) {
    (domain.to_owned(), NatStatus::Inactive)
}

fn types(exchanges: &[Exchange]) -> Vec<RecordType> {
    let record_type = |exchange: &Exchange| Query::parse(&exchange.message).unwrap().record_type;
    exchanges.iter().map(record_type).collect()
}

#[test]
fn a_name_is_looked_up_in_both_families_and_set_up_when_both_are_known() {
    let mut world = World::new();
    assert!(matches!(
        world.verdict(),
        Verdict::Refuse(IcmpError::Prohibited, _)
    ));
    world.assign("db.corp.example");
    let exchanges = world.exchanges();
    assert_eq!(types(&exchanges), [RecordType::A, RecordType::AAAA]);
    world.assign("db.corp.example");
    assert!(world.exchanges().is_empty(), "it is on its way");
    assert_eq!(world.told(), []);

    world.reply(
        &exchanges[0],
        Rcode::NOERROR,
        &[Data::A([10, 0, 0, 1].into())],
    );
    assert!(matches!(world.verdict(), Verdict::Refuse(..)));
    world.reply(&exchanges[1], Rcode::NOERROR, &[]);
    assert!(
        matches!(world.verdict(), Verdict::Translate(outside) if outside.real == IpAddr::from([10, 0, 0, 1]))
    );
    assert_eq!(world.gateway.names.set_ups.counts(), (0, 0));
    assert_eq!(world.told(), [active("db.corp.example")]);

    // Its time to live is remembered, too.
    world.assign("DB.corp.example");
    let exchanges = world.exchanges();
    assert_eq!(
        types(&exchanges),
        [RecordType::AAAA],
        "no SOA: its absence isn't kept"
    );
}

/// Scenarios 3, 4 and 17.
#[test]
fn filters_of_a_name_and_of_a_network_do_not_mix() {
    let mut world = World::new();
    let port = |port: u16| {
        format!(r#"[{{"protocol":"udp","port_range_start":{port},"port_range_end":{port}}}]"#)
    };
    world.allow("*.corp.example", &port(80));
    let lan = format!(
        r#"{{"ref":"r2","resource":{{"type":"cidr","id":"9f3b2c1a-0d4e-4f5a-9b6c-7d8e9fa0b1c2","name":"lan","address":"10.0.0.0/8","filters":{}}},
            "client":{{"id":"{CLIENT}","public_key":"{KEY}","preshared_key":"{KEY}","ipv4":"100.64.0.7","ipv6":"fd00:2021:1111::7"}},
            "client_ice_credentials":{{"username":"clnt","password":"password of clnt"}},
            "gateway_ice_credentials":{{"username":"gate","password":"password of gate"}},"expires_at":null}}"#,
        port(90)
    );
    world.say("create_authorization", &lan);
    world.assign("db.corp.example");
    for exchange in world.exchanges() {
        world.reply(&exchange, Rcode::NOERROR, &[Data::A([10, 0, 0, 1].into())]);
    }

    let prohibited = |reason| Verdict::Refuse(IcmpError::Prohibited, reason);
    // The name has that address, too, so that the flow is known; the port is its own.
    let unchanged = Verdict::Translate(Outside {
        kind: Kind::Udp,
        port: 4_000,
        real: [10, 0, 0, 1].into(),
    });
    for (destination, expected) in [
        ("100.96.0.1:90", prohibited(DropReason::Filtered)),
        ("10.0.0.1:80", prohibited(DropReason::Filtered)),
        ("10.0.0.1:90", unchanged),
        ("100.96.0.9:80", prohibited(DropReason::NoResource)),
    ] {
        assert_eq!(world.judge(&packet(destination)), expected, "{destination}");
    }
    let allowed = packet("100.96.0.1:80");
    assert!(matches!(world.judge(&allowed), Verdict::Translate(_)));
    let pool = Pool::new(2_048, 1);
    let error = icmp_error(&pool, &allowed, IcmpError::Unreachable).unwrap();
    assert!(matches!(world.judge(&error), Verdict::Drop(_)));
}

/// Scenario 21, and what comes back of a flow that was revoked.
#[test]
fn errors_about_a_flow_come_back_whatever_its_filters_say_until_it_is_revoked() {
    let mut world = World::new();
    let filters = r#"[{"protocol":"udp","port_range_start":80,"port_range_end":80}]"#;
    world.allow("*.corp.example", filters);
    world.assign("db.corp.example");
    for exchange in world.exchanges() {
        world.reply(&exchange, Rcode::NOERROR, &[Data::A([10, 0, 0, 1].into())]);
    }
    world.judge(&packet("100.96.0.1:80"));
    let pool = Pool::new(2_048, 1);
    let sent = packet("10.0.0.1:80");
    let error = icmp_error(&pool, &sent, IcmpError::Unreachable).unwrap();
    let answer = udp(
        &pool,
        "10.0.0.1:80".parse().unwrap(),
        "100.64.0.7:4000".parse().unwrap(),
        b"x",
    )
    .unwrap();
    let other_port = udp(
        &pool,
        "10.0.0.1:81".parse().unwrap(),
        "100.64.0.7:4000".parse().unwrap(),
        b"x",
    )
    .unwrap();
    let comes_back = |world: &mut World, packet: &Packet<Buffer>| {
        let view = Packet::parse(packet.bytes()).unwrap();
        world
            .gateway
            .peers
            .judge_inbound(world.now, &view, None)
            .is_ok()
    };
    assert!(comes_back(&mut world, &error) && comes_back(&mut world, &answer));
    assert!(
        !comes_back(&mut world, &other_port),
        "filters count on the way back"
    );

    world.say(
        "reject_access",
        &format!(r#"{{"client_id":"{CLIENT}","resource_id":"{RESOURCE}"}}"#),
    );
    assert!(!comes_back(&mut world, &answer));
}

/// Scenario 23.
#[test]
fn without_a_name_server_questions_fail_and_others_names_are_refused() {
    let mut world = World::new();
    world.resolvers(&[], "");
    let mut ask = |name: &str| {
        let query = Query::new(&Name::parse(name).unwrap(), RecordType::TXT).to_upstream(7, true);
        let pool = Pool::new(2_048, 1);
        let ends = (
            "100.64.0.7:4000".parse().unwrap(),
            "100.64.0.9:53535".parse().unwrap(),
        );
        let question = udp(&pool, ends.0, ends.1, &query).unwrap();
        assert_eq!(world.judge(&question), Verdict::NameServer);
        let names = &mut world.gateway.names;
        names.handle_packet(world.now, &question);
        let (asker, query) = names.listener.poll_query().unwrap();
        world.gateway.answer_question(world.now, asker, query);
        let names = &mut world.gateway.names;
        if let Some(done) = names.lookups.poll_done() {
            names.answer(world.now, asker, &done.query, &done.outcome);
        }
        let answer = Packet::parse(names.listener.poll_packet().unwrap()).unwrap();
        Answer::parse(answer.payload().to_vec()).unwrap().rcode()
    };
    assert_eq!(ask("db.corp.example"), Rcode::SERVFAIL);
    assert_eq!(ask("evil.example"), Rcode::REFUSED);
}

#[test]
fn names_that_a_client_may_not_use_are_not_looked_up() {
    let mut world = World::new();
    world.assign("evil.example");
    world.assign("a.b.corp.example");
    world.assign("..");
    world.say(
        "reject_access",
        &format!(r#"{{"client_id":"{CLIENT}","resource_id":"{RESOURCE}"}}"#),
    );
    let refused = ["evil.example", "a.b.corp.example", ".."].map(inactive);
    assert_eq!(world.told(), refused, "at once");
    world.assign("db.corp.example");
    assert!(world.exchanges().is_empty());
}

#[test]
fn an_answer_that_is_cut_off_is_asked_for_by_a_stream() {
    let mut world = World::new();
    world.assign("db.corp.example");
    let exchanges = world.exchanges();
    for exchange in &exchanges {
        let query = Query::parse(&exchange.message).unwrap();
        let mut message = respond(&query, Rcode::NOERROR, 60, &[], None);
        message[2] |= 0x02;
        world
            .gateway
            .handle_exchanged(world.now, exchange.id, Ok(message));
    }
    let again = world.exchanges();
    assert_eq!(types(&again), types(&exchanges));
    assert!(
        again
            .iter()
            .all(|exchange| exchange.carrier == Carrier::Tcp)
    );
    world.reply(&again[0], Rcode::NOERROR, &[Data::A([10, 0, 0, 1].into())]);
    world.reply(&again[1], Rcode::NOERROR, &[]);
    assert!(matches!(world.verdict(), Verdict::Translate(_)));
}

#[test]
fn a_name_that_does_not_exist_is_set_up_without_addresses() {
    let mut world = World::new();
    world.assign("db.corp.example");
    for exchange in world.exchanges() {
        world.reply(&exchange, Rcode::NXDOMAIN, &[]);
    }
    assert!(matches!(
        world.verdict(),
        Verdict::Refuse(IcmpError::Unreachable, _)
    ));
    assert_eq!(world.told(), [active("db.corp.example")]);
}

#[test]
fn after_ten_seconds_without_an_answer_the_client_is_told() {
    let mut world = World::new();
    world.assign("db.corp.example");
    let mut servers = Vec::new();
    for _ in 0..100 {
        assert_eq!(world.told(), []);
        servers.extend(
            world
                .exchanges()
                .into_iter()
                .map(|exchange| exchange.server),
        );
        world.now += Duration::from_millis(100);
        world.gateway.handle_timeout(world.now);
    }
    assert_eq!(world.gateway.names.set_ups.counts(), (0, 0));
    assert!(matches!(
        world.verdict(),
        Verdict::Refuse(IcmpError::Prohibited, _)
    ));
    assert_eq!(world.told(), [inactive("db.corp.example")]);
    let second = Server::Plain("192.0.2.54:53".parse().unwrap());
    assert!(servers.contains(&second), "the other one was asked, too");
}

#[test]
fn addresses_outside_of_their_range_stand_for_nothing() {
    let mut world = World::new();
    for proxies in [&["10.0.0.1"][..], &["100.96.0.1", "100.64.0.7"], &[]] {
        world.assign_at("db.corp.example", proxies);
        for exchange in world.exchanges() {
            world.reply(&exchange, Rcode::NOERROR, &[Data::A([10, 0, 0, 1].into())]);
        }
        assert!(matches!(world.verdict(), Verdict::Refuse(..)));
    }
}

#[test]
fn hosts_files_come_first_and_single_labels_are_completed() {
    let mut world = World::new();
    world.resolvers(&["192.0.2.53"], "db.corp.example");
    world.assign("db.corp.example");
    assert!(world.exchanges().is_empty());
    assert!(
        matches!(world.verdict(), Verdict::Translate(outside) if outside.real == IpAddr::from([10, 5, 5, 5]))
    );

    world.allow("printer", "[]");
    world.assign("printer");
    let asked = world.exchanges();
    let name = Query::parse(&asked[0].message).unwrap().name;
    assert_eq!(name.as_str(), "printer.corp.example");
}

#[test]
fn a_search_domain_that_is_listed_twice_is_one() {
    let mut world = World::new();
    let resolvers = Resolvers {
        servers: vec!["192.0.2.53:53".parse().unwrap()],
        search: vec!["corp.example".to_owned(); 2],
        hosts: Vec::new(),
    };
    world.gateway.set_resolvers(world.now, &resolvers);
    world.allow("printer", "[]");
    world.assign("printer");
    for exchange in world.exchanges() {
        world.reply(&exchange, Rcode::NOERROR, &[Data::A([10, 0, 0, 1].into())]);
    }
    assert_eq!(world.told(), [active("printer")]);
    assert_eq!(world.gateway.names.set_ups.counts(), (0, 0));
}

#[test]
fn a_name_that_could_not_be_looked_up_again_goes_on_as_it_was() {
    let mut world = World::new();
    world.assign("db.corp.example");
    for exchange in world.exchanges() {
        world.reply(&exchange, Rcode::NOERROR, &[Data::A([10, 0, 0, 1].into())]);
    }
    // One family is asked about in vain.
    world.now += Duration::from_secs(61);
    world.assign("db.corp.example");
    let silent = |exchange: &Exchange| types(std::slice::from_ref(exchange)) == [RecordType::A];
    for _ in 0..100 {
        for exchange in world.exchanges() {
            if !silent(&exchange) {
                world.reply(&exchange, Rcode::NOERROR, &[Data::Aaaa([1; 16].into())]);
            }
        }
        world.now += Duration::from_millis(100);
        world.gateway.handle_timeout(world.now);
    }
    assert_eq!(world.told(), vec![active("db.corp.example"); 2]);
    assert!(matches!(world.verdict(), Verdict::Translate(_)));
}

#[test]
fn one_client_can_not_use_up_what_is_asked_for_others() {
    let mut world = World::new();
    let own = "100.64.0.9:53535".parse().unwrap();
    for number in 0..600_u16 {
        let name = Name::parse(&format!("n{number}.corp.example")).unwrap();
        let query = Query::new(&name, RecordType::TXT).to_upstream(number, true);
        let from = "100.64.0.7:4000".parse().unwrap();
        let question = udp(&Pool::new(2_048, 1), from, own, &query).unwrap();
        world.gateway.names.handle_packet(world.now, &question);
        world.gateway.serve_names(world.now);
    }
    let exchanges = world.exchanges();
    assert_eq!(exchanges.len(), 500);

    // The name of a set-up is looked up, and each answer makes room for a question.
    world.assign("db.corp.example");
    assert_eq!(world.exchanges().len(), 2);
    for exchange in &exchanges {
        world.reply(exchange, Rcode::NOERROR, &[]);
    }
    assert!(world.gateway.names.asked.0.is_empty());
}

#[test]
fn without_a_server_or_with_dead_ones_the_answer_is_quick() {
    let mut world = World::new();
    world.assign("db.corp.example");
    for _ in 0..2 {
        for exchange in world.exchanges() {
            let error = ExchangeError::Unreachable("refused".to_owned());
            world
                .gateway
                .handle_exchanged(world.now, exchange.id, Err(error));
        }
    }
    assert_eq!(world.gateway.names.set_ups.counts(), (0, 0));
    world.resolvers(&[], "");
    world.assign("db.corp.example");
    assert_eq!(world.gateway.names.set_ups.counts(), (0, 0));
}

#[test]
fn the_fast_server_is_asked() {
    let mut world = World::new();
    let fast = Server::Plain("192.0.2.54:53".parse().unwrap());
    for number in 0..3 {
        world.assign_at(
            &format!("n{number}.corp.example"),
            &[&format!("100.96.1.{number}")],
        );
        for exchange in world.exchanges() {
            let millis = if exchange.server == fast { 5 } else { 50 };
            world.now += Duration::from_millis(millis);
            world.reply(&exchange, Rcode::NOERROR, &[Data::A([10, 0, 0, 1].into())]);
        }
    }
    world.assign("last.corp.example");
    let exchanges = world.exchanges();
    assert!(
        exchanges.iter().all(|exchange| exchange.server == fast),
        "{exchanges:?}"
    );
}

#[test]
fn a_client_can_not_make_us_look_up_without_end() {
    let mut world = World::new();
    for number in 0..2_000 {
        let proxy = format!("100.96.{}.{}", number / 200, number % 200 + 1);
        world.assign_at(&format!("n{number}.corp.example"), &[&proxy]);
    }
    assert_eq!(world.gateway.names.set_ups.counts(), (100, 2_000));
    let mut asked = 0;
    loop {
        let exchanges = world.exchanges();
        if exchanges.is_empty() {
            break;
        }
        asked += exchanges.len();
        for exchange in exchanges {
            world.reply(&exchange, Rcode::NOERROR, &[]);
        }
    }
    assert_eq!(asked, 4_000, "each has its turn");
    assert_eq!(world.gateway.names.set_ups.counts(), (0, 0));
}
