//! The client as a name server (client.md §15.2, §15.3, §15.6).

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use connlib_tunnel::PortalState;
use connlib_tunnel::client::{Client, Event, Interface, NameRecord};
use connlib_tunnel::dns::{Carrier, Exchange, ExchangeError, Resolvers, Server};
use connlib_wire::buffer::Pool;
use connlib_wire::dns::{Answer, Data, ExtendedError, Name, Query, Rcode, RecordType, respond};
use connlib_wire::ip::{self, Packet};
use connlib_wire::portal::client::{FromPortal, ToPortal};

use crate::client::grant_resource;
use crate::{GATEWAY, RELAYS, SETTINGS, raw, start};

pub const WIKI: &str = "3f2a1b0c-5d6e-4f70-8192-a3b4c5d6e7f8";
pub const OTHER: &str = "4f2a1b0c-5d6e-4f70-8192-a3b4c5d6e7f8";
pub const OWN: &str = "100.64.0.1";
const SITE: &str = r#"[{"id":"2b7c9e44-1a5d-4f60-8c3e-7d2f1b0a9c88","name":"hq"}]"#;
pub const SENTINEL: &str = "100.100.111.1";

/// A client whose system asks 1.1.1.1 and 1.0.0.1.
pub struct World {
    pub client: Client,
    pub now: Instant,
    next_id: u16,
    pub events: Vec<Event>,
}

impl World {
    pub fn new(resources: &str) -> Self {
        let now = start();
        let mut world = Self {
            client: Client::new(now, [1; 32], SETTINGS),
            now,
            next_id: 100,
            events: Vec::new(),
        };
        world.client.handle_portal_state(now, PortalState::Joined);
        world.resolvers(&["1.1.1.1", "1.0.0.1"]);
        world.init(resources, "");
        world.drain();
        world
    }

    pub fn say(&mut self, event: &str, payload: &str) {
        let message = FromPortal::parse(event, &raw(payload)).unwrap();
        self.client.handle_message(self.now, message);
        self.drain();
    }

    /// `extra` is more of the interface, with a comma in front.
    pub fn init(&mut self, resources: &str, extra: &str) {
        let interface = format!(r#"{{"ipv4":"{OWN}","ipv6":"fd00:2021:1111::1"{extra}}}"#);
        let payload =
            format!(r#"{{"interface":{interface},"resources":[{resources}],"relays":{RELAYS}}}"#);
        self.say("init", &payload);
    }

    pub fn resolvers(&mut self, servers: &[&str]) {
        let resolvers = Resolvers {
            servers: servers.iter().map(|ip| server(ip)).collect(),
            ..Resolvers::default()
        };
        self.client.set_resolvers(self.now, &resolvers);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(event) = self.client.poll_event() {
            self.events.push(event);
        }
    }

    pub fn after(&mut self, pause: Duration) {
        self.now += pause;
        self.client.handle_timeout(self.now);
        self.drain();
    }

    pub fn send(&mut self, query: &[u8], from: &str, to: &str) {
        let pool = Pool::new(2_048, 1);
        let packet = ip::udp(&pool, from.parse().unwrap(), server(to), query).unwrap();
        self.client.handle_packet(self.now, packet.bytes());
        self.drain();
    }

    /// Asks by UDP; returns the question's id.
    pub fn ask_at(&mut self, name: &str, record_type: RecordType, sentinel: &str) -> u16 {
        self.next_id += 1;
        let query = Query::new(&Name::parse(name).unwrap(), record_type);
        let own = if sentinel.contains(':') {
            "[fd00:2021:1111::1]:4000"
        } else {
            "100.64.0.1:4000"
        };
        self.send(&query.to_upstream(self.next_id, true), own, sentinel);
        self.next_id
    }

    pub fn ask(&mut self, name: &str, record_type: RecordType) -> u16 {
        self.ask_at(name, record_type, SENTINEL)
    }

    /// The next answer, whose way back is checked.
    pub fn answer(&mut self) -> Option<Answer> {
        let packet = Packet::parse(self.client.poll_packet()?).unwrap();
        assert!(packet.checksums_match());
        assert_eq!(packet.source_port(), Some(53));
        Some(Answer::parse(packet.payload().to_vec()).unwrap())
    }

    /// Asks, and gets an answer at once.
    pub fn resolve(&mut self, name: &str, record_type: RecordType) -> Answer {
        let id = self.ask(name, record_type);
        let answer = self
            .answer()
            .unwrap_or_else(|| panic!("no answer for {name}"));
        assert_eq!(answer.id(), id);
        answer
    }

    pub fn addresses(&mut self, name: &str, record_type: RecordType) -> Vec<String> {
        addresses(&self.resolve(name, record_type))
    }

    pub fn exchanges(&mut self) -> Vec<Exchange> {
        std::iter::from_fn(|| self.client.poll_exchange()).collect()
    }

    pub fn exchange(&mut self) -> Exchange {
        let mut exchanges = self.exchanges();
        assert_eq!(exchanges.len(), 1);
        exchanges.remove(0)
    }

    fn outcome(&mut self, exchange: &Exchange, outcome: Result<Vec<u8>, ExchangeError>) {
        self.client.handle_exchanged(self.now, exchange.id, outcome);
        self.drain();
    }

    /// Lets the server of an exchange answer with addresses, for `ttl` seconds.
    pub fn reply(&mut self, exchange: &Exchange, ttl: u32, records: &[Data]) {
        let query = Query::parse(&exchange.message).unwrap();
        let message = respond(&query, Rcode::NOERROR, ttl, records, None);
        self.outcome(exchange, Ok(message));
    }

    pub fn interface(&self) -> Interface {
        let mut latest = None;
        for event in &self.events {
            if let Event::InterfaceChanged(interface) = event {
                latest = Some(interface.clone());
            }
        }
        latest.unwrap()
    }

    pub fn sentinels(&self) -> Vec<String> {
        let servers = self.interface().name_servers;
        servers.iter().map(IpAddr::to_string).collect()
    }

    fn records(&self) -> Vec<NameRecord> {
        let mut all = Vec::new();
        for event in &self.events {
            if let Event::NamesAssigned(records) = event {
                all.extend(records.iter().cloned());
            }
        }
        all
    }

    pub fn requests(&mut self) -> usize {
        let messages = std::iter::from_fn(|| self.client.poll_message());
        messages
            .filter(|message| matches!(message, ToPortal::RequestAuthorization(_)))
            .count()
    }
}

pub fn server(ip: &str) -> SocketAddr {
    (ip.parse::<IpAddr>().unwrap(), 53).into()
}

fn addresses(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.rcode(), Rcode::NOERROR);
    answer.addresses().map(|(ip, _)| ip.to_string()).collect()
}

pub fn dns(id: &str, pattern: &str, stack: &str) -> String {
    format!(
        r#"{{"type":"dns","id":"{id}","name":"wiki","address":"{pattern}","ip_stack":"{stack}","gateway_groups":{SITE}}}"#
    )
}

pub fn cidr(id: &str, network: &str) -> String {
    format!(
        r#"{{"type":"cidr","id":"{id}","name":"lan","address":"{network}","gateway_groups":{SITE}}}"#
    )
}

pub const V4: [&str; 4] = ["100.96.0.1", "100.96.0.2", "100.96.0.3", "100.96.0.4"];
const V6: [&str; 4] = [
    "fd00:2021:1111:8000::",
    "fd00:2021:1111:8000::1",
    "fd00:2021:1111:8000::2",
    "fd00:2021:1111:8000::3",
];

#[test]
fn a_name_gets_addresses_that_are_told_once_and_stay() {
    let mut world = World::new(&dns(WIKI, "*.corp.test", "dual"));

    let answer = world.resolve("wiki.corp.test", RecordType::A);
    assert_eq!(addresses(&answer), V4);
    assert!(answer.addresses().all(|(_, ttl)| ttl == 1));
    assert_eq!(world.records().len(), 1);
    assert_eq!(world.records()[0].ips.len(), 8);
    assert_eq!(world.addresses("wiki.corp.test", RecordType::AAAA), V6);
    assert_eq!(world.addresses("WIKI.corp.test", RecordType::A), V4);
    assert_eq!(
        world.addresses("git.corp.test", RecordType::A),
        ["100.96.0.5", "100.96.0.6", "100.96.0.7", "100.96.0.8"]
    );
    assert_eq!(
        world.addresses("wiki.corp.test", RecordType::ANY),
        [V4, V6].concat()
    );
    assert_eq!(world.records().len(), 2);
}

#[test]
fn the_connection_begins_with_the_question() {
    let mut world = World::new(&dns(WIKI, "*.corp.test", "dual"));
    assert_eq!(world.requests(), 0);

    world.resolve("wiki.corp.test", RecordType::A);
    assert_eq!(world.requests(), 1);
    world.resolve("wiki.corp.test", RecordType::AAAA);
    world.resolve("git.corp.test", RecordType::A);
    assert_eq!(world.requests(), 0, "one is on its way");
    world.after(Duration::from_secs(2));
    assert_eq!(world.requests(), 1);
}

#[test]
fn families_that_a_resource_does_without_are_empty() {
    let mut world = World::new(&dns(WIKI, "wiki.corp.test", "ipv6_only"));
    assert!(world.addresses("wiki.corp.test", RecordType::A).is_empty());
    assert_eq!(world.addresses("wiki.corp.test", RecordType::AAAA), V6);

    world.say(
        "resource_created_or_updated",
        &dns(WIKI, "wiki.corp.test", "ipv4_only"),
    );
    assert_eq!(world.addresses("wiki.corp.test", RecordType::A), V4);
    assert!(
        world
            .addresses("wiki.corp.test", RecordType::AAAA)
            .is_empty()
    );

    let both = format!(
        "{},{}",
        dns(WIKI, "**.corp.test", "ipv4_only"),
        dns(OTHER, "wiki.corp.test", "ipv6_only")
    );
    world.init(&both, "");
    assert_eq!(world.addresses("wiki.corp.test", RecordType::A), V4);
    assert_eq!(world.addresses("wiki.corp.test", RecordType::AAAA), V6);
}

#[test]
fn what_would_lead_around_the_tunnel_is_answered_with_nothing() {
    let mut world = World::new(&dns(WIKI, "wiki.corp.test", "dual"));
    for record_type in [RecordType::HTTPS, RecordType::SVCB] {
        assert!(world.addresses("wiki.corp.test", record_type).is_empty());
    }
    let mut chaos =
        Query::new(&Name::parse("wiki.corp.test").unwrap(), RecordType::A).to_upstream(7, false);
    let class_at = chaos.len() - 1;
    chaos[class_at] = 3;
    world.send(&chaos, "100.64.0.1:4000", SENTINEL);
    let answer = world.answer().unwrap();
    assert_eq!((answer.rcode(), answer.bytes()[7]), (Rcode::NOERROR, 0));
    assert!(world.exchanges().is_empty());
}

#[test]
fn no_type_of_question_about_a_resource_goes_to_anybody_outside() {
    let mut world = World::new(&dns(WIKI, "**.corp.test", "dual"));
    for number in (0..=300).chain([32_768, 32_769, 65_280, 65_535]) {
        if number != RecordType::OPT.0 {
            world.ask("wiki.corp.test", RecordType(number));
        }
    }
    assert!(world.exchanges().is_empty());
    // They wait for the site, as far as there is room; nobody else's business.
    assert_eq!(world.requests(), 1);
    world.after(Duration::from_secs(60));
    assert!(world.exchanges().is_empty());
}

#[test]
fn a_question_for_the_site_waits_for_access_and_says_why_it_is_refused() {
    for (reason, code) in [("forbidden", 18), ("offline", 22)] {
        let mut world = World::new(&dns(WIKI, "**.corp.test", "dual"));
        world.ask("wiki.corp.test", RecordType::TXT);
        assert_eq!((world.answer().is_none(), world.requests()), (true, 1));
        let refusal = format!(r#"{{"resource_id":"{WIKI}","reason":"{reason}"}}"#);
        world.say("authorization_creation_failed", &refusal);
        let answer = world.answer().unwrap();
        assert_eq!(
            (answer.rcode(), error_code(&answer)),
            (Rcode::SERVFAIL, Some(code))
        );

        // For a moment others are told at once, and addresses come with a warning.
        let answer = world.resolve("www.corp.test", RecordType::SRV);
        assert_eq!(
            (answer.rcode(), error_code(&answer)),
            (Rcode::SERVFAIL, Some(code))
        );
        let answer = world.resolve("www.corp.test", RecordType::A);
        assert_eq!(
            (addresses(&answer).len(), error_code(&answer)),
            (4, Some(code))
        );
        world.after(Duration::from_secs(2));
        let answer = world.resolve("www.corp.test", RecordType::A);
        assert_eq!(error_code(&answer), None);
    }
}

#[test]
fn a_question_for_the_site_follows_the_gateway_that_serves_it() {
    let mut world = World::new(&dns(WIKI, "**.corp.test", "dual"));
    world.ask("wiki.corp.test", RecordType::TXT);
    assert_eq!(world.requests(), 1);
    grant_resource(&mut world.client, world.now, WIKI, GATEWAY);
    // Nobody is there. The question waits for access again, and hears what becomes of that.
    for _ in 0..80 {
        world.after(Duration::from_millis(100));
    }
    assert!(world.requests() > 0 && world.answer().is_none());
    let refusal = format!(r#"{{"resource_id":"{WIKI}","reason":"forbidden"}}"#);
    world.say("authorization_creation_failed", &refusal);
    let answer = world.answer().unwrap();
    assert_eq!(
        (answer.rcode(), error_code(&answer)),
        (Rcode::SERVFAIL, Some(18))
    );
}

#[test]
fn other_servers_of_the_system_are_no_matter_for_what_is_asked_at_a_site() {
    let mut world = World::new(&dns(WIKI, "**.corp.test", "dual"));
    world.ask("wiki.corp.test", RecordType::TXT);
    grant_resource(&mut world.client, world.now, WIKI, GATEWAY);
    world.resolvers(&["9.9.9.9"]);
    assert!(world.answer().is_none());
}

#[test]
fn a_refusal_that_nobody_waits_for_is_none() {
    let mut world = World::new(&dns(WIKI, "**.corp.test", "dual"));
    let refusal = format!(r#"{{"resource_id":"{WIKI}","reason":"forbidden"}}"#);
    world.say("authorization_creation_failed", &refusal);
    let answer = world.resolve("wiki.corp.test", RecordType::A);
    assert_eq!((error_code(&answer), world.requests()), (None, 1));
}

#[test]
fn a_question_for_the_site_is_given_up_after_ten_seconds() {
    let mut world = World::new(&dns(WIKI, "**.corp.test", "dual"));
    world.ask("wiki.corp.test", RecordType::TXT);
    world.after(Duration::from_millis(9_999));
    assert!(world.answer().is_none());
    world.after(Duration::from_millis(1));
    let answer = world.answer().unwrap();
    assert_eq!(
        (answer.rcode(), error_code(&answer)),
        (Rcode::SERVFAIL, Some(14))
    );
}

/// The code of the extended error in an answer (RFC 8914 §2).
fn error_code(answer: &Answer) -> Option<u16> {
    let bytes = answer.bytes();
    let at = bytes
        .windows(4)
        .position(|window| window[..3] == [0, 15, 0] && window[3] > 2)?;
    Some(u16::from_be_bytes([bytes[at + 4], bytes[at + 5]]))
}

#[test]
fn addresses_lead_back_to_their_names_even_when_the_resource_is_gone() {
    let mut world = World::new(&dns(WIKI, "wiki.corp.test", "dual"));
    world.addresses("wiki.corp.test", RecordType::A);
    let expected = Name::parse("wiki.corp.test").unwrap().to_wire();
    let v6 = "3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.1.1.1.1.1.2.0.2.0.0.d.f.ip6.arpa";

    for _ in 0..2 {
        for name in ["1.0.96.100.in-addr.arpa", v6] {
            let answer = world.resolve(name, RecordType::PTR);
            let holds = answer
                .bytes()
                .windows(expected.len())
                .any(|window| window == expected);
            assert!(holds, "{name}");
        }
        world.say("resource_deleted", &format!("\"{WIKI}\""));
    }
    // The name is the public's now.
    world.ask("wiki.corp.test", RecordType::A);
    assert_eq!(world.exchanges().len(), 1);
    for name in [
        "4.3.2.1.in-addr.arpa",
        "0.1.2.3.4.in-addr.arpa",
        "1.0.96.100.ip6.arpa",
        "1.0.96.100.in-addr.carpa",
    ] {
        world.ask(name, RecordType::PTR);
        assert_eq!(world.exchanges().len(), 1, "{name}");
    }
}

#[test]
fn firefox_is_told_not_to_ask_others() {
    let mut world = World::new("");
    for record_type in [
        RecordType::A,
        RecordType::AAAA,
        RecordType::TXT,
        RecordType(65_280),
    ] {
        let answer = world.resolve("use-application-dns.net", record_type);
        assert_eq!(answer.rcode(), Rcode::NXDOMAIN);
        assert_eq!(answer.bytes()[6..10], [0; 4]);
    }
}

#[test]
fn records_of_an_earlier_client_are_taken_back() {
    let mut world = World::new(&dns(WIKI, "**.corp.test", "dual"));
    world.addresses("a.corp.test", RecordType::A);
    let second = world.addresses("b.corp.test", RecordType::A);
    let records = world.records();

    let mut later = World::new(&dns(WIKI, "**.corp.test", "dual"));
    for record in records.iter().rev() {
        later.client.restore_name(record).unwrap();
    }
    assert_eq!(later.addresses("b.corp.test", RecordType::A), second);
    assert!(later.records().is_empty());
    assert_eq!(
        later.addresses("c.corp.test", RecordType::A)[0],
        "100.96.0.9"
    );
}

#[test]
fn the_interface_tells_where_to_ask() {
    let mut world = World::new("");
    assert_eq!(world.sentinels(), ["100.100.111.1", "100.100.111.2"]);
    let before = world.events.len();
    world.init("", "");
    world.resolvers(&["1.0.0.1", "1.1.1.1"]);
    let changes = world.events[before..].iter();
    assert_eq!(
        changes
            .filter(|event| matches!(event, Event::InterfaceChanged(_)))
            .count(),
        0
    );

    world.resolvers(&["9.9.9.9"]);
    assert_eq!(world.sentinels(), ["100.100.111.3"]);
    let extra = r#","upstream_do53":[{"ip":"9.9.9.9"},{"ip":"2620:fe::fe"}],"upstream_doh":[{"url":"https://dns.example/dns-query"}],"search_domain":"corp.test""#;
    world.init("", extra);
    assert_eq!(
        world.sentinels(),
        ["100.100.111.1", "fd00:2021:1111:8000:100:100:111:0"]
    );
    assert_eq!(
        world.interface().search_domain.as_deref(),
        Some("corp.test")
    );

    // The system's count again once those of the portal are gone, or are none.
    world.init("", r#","upstream_do53":[{"ip":"100.100.111.9"}]"#);
    assert_eq!(world.sentinels(), ["100.100.111.2"]);
    world.resolvers(&["100.100.111.2"]);
    assert!(world.sentinels().is_empty());
}

#[test]
fn the_older_list_and_encrypted_servers_are_understood() {
    let mut world = World::new("");
    let asked = |world: &mut World, extra: &str| {
        world.init("", extra);
        let sentinel = world.sentinels().remove(0);
        world.ask_at("example.org", RecordType::A, &sentinel);
        let exchange = world.exchange();
        world.reply(&exchange, 0, &[]);
        exchange.server
    };
    let older = asked(
        &mut world,
        r#","upstream_dns":[{"protocol":"ip_port","address":"9.9.9.9:5353"}]"#,
    );
    assert_eq!(older, Server::Plain(server("9.9.9.9")));
    let doh = asked(
        &mut world,
        r#","upstream_doh":[{"url":"http://dns.example/"},{"url":"https:///x"},{"url":"https://dns.example/?x=1"},{"url":"https://dns.example/dns-query"}]"#,
    );
    assert_eq!(
        doh,
        Server::Https("https://dns.example/dns-query".to_owned())
    );
    let get_ready = Event::HttpsServersChanged(vec![doh]);
    assert!(world.events.contains(&get_ready));
    let dot = asked(
        &mut world,
        r#","upstream_dot":[{"url":"tls://[2620:fe::fe]:8853"}]"#,
    );
    assert_eq!(
        dot,
        Server::Tls {
            host: "2620:fe::fe".to_owned(),
            port: 8_853
        }
    );
    let dot = asked(
        &mut world,
        r#","upstream_dot":[{"url":"tls://dns.example"}]"#,
    );
    assert_eq!(
        dot,
        Server::Tls {
            host: "dns.example".to_owned(),
            port: 853
        }
    );
    let none_left = Event::HttpsServersChanged(Vec::new());
    assert!(world.events.contains(&none_left));
}

#[test]
fn what_is_no_question_gets_no_answer() {
    let mut world = World::new(&dns(WIKI, "wiki.corp.test", "dual"));
    let good =
        Query::new(&Name::parse("wiki.corp.test").unwrap(), RecordType::A).to_upstream(7, false);
    let with = |change: fn(&mut Vec<u8>)| {
        let mut query = good.clone();
        change(&mut query);
        query
    };
    for bad in [
        with(|query| query[2] |= 0x80),
        with(|query| query[5] = 0),
        with(|query| query[5] = 2),
        with(|query| query.truncate(20)),
        with(|query| query.push(0)),
        Vec::new(),
    ] {
        world.send(&bad, "100.64.0.1:4000", SENTINEL);
        assert!(world.client.poll_packet().is_none());
    }
    // Other ports, other protocols, and addresses that stand for nothing.
    let pool = Pool::new(2_048, 1);
    let to = |port| (SENTINEL.parse::<IpAddr>().unwrap(), port).into();
    let own = "100.64.0.1:4000".parse().unwrap();
    let other_port = ip::udp(&pool, own, to(5_353), &good).unwrap();
    world.client.handle_packet(world.now, other_port.bytes());
    let ends = (OWN.parse().unwrap(), SENTINEL.parse().unwrap());
    let ping = ip::echo(&pool, ends, ip::Echo::Request, (1, 1), b"x").unwrap();
    world.client.handle_packet(world.now, ping.bytes());
    world.send(&good, "100.64.0.1:4000", "100.100.111.77");
    assert!(world.client.poll_packet().is_none());

    // One that we don't serve does get one.
    world.send(&with(|query| query[2] |= 0x20), "100.64.0.1:4000", SENTINEL);
    assert_eq!(world.answer().unwrap().rcode(), Rcode::NOTIMP);
}

#[test]
fn a_foreign_name_is_asked_of_the_server_that_the_address_stands_for() {
    let mut world = World::new("");
    let id = world.ask_at("example.org", RecordType::A, "100.100.111.2");
    let exchange = world.exchange();
    assert_eq!(
        (&exchange.server, exchange.carrier),
        (&Server::Plain(server("1.0.0.1")), Carrier::Udp)
    );
    assert_eq!(exchange.within, Duration::from_secs(5));

    world.reply(&exchange, 300, &[Data::A([192, 0, 2, 7].into())]);
    let packet = Packet::parse(world.client.poll_packet().unwrap()).unwrap();
    assert_eq!(packet.source(), "100.100.111.2".parse::<IpAddr>().unwrap());
    let answer = Answer::parse(packet.payload().to_vec()).unwrap();
    assert_eq!(
        (answer.id(), addresses(&answer)),
        (id, vec!["192.0.2.7".to_owned()])
    );
}

#[test]
fn answers_are_remembered_for_as_long_as_they_hold_and_age_meanwhile() {
    let mut world = World::new("");
    world.ask("example.org", RecordType::A);
    let exchange = world.exchange();
    world.reply(&exchange, 3_600, &[Data::A([192, 0, 2, 7].into())]);
    world.answer().unwrap();

    world.after(Duration::from_secs(10));
    let answer = world.resolve("example.org", RecordType::A);
    assert_eq!(answer.addresses().next().unwrap().1, 3_590);
    assert!(world.exchanges().is_empty());

    world.say(
        "resource_created_or_updated",
        &dns(WIKI, "wiki.corp.test", "dual"),
    );
    world.ask("example.org", RecordType::A);
    assert_eq!(world.exchanges().len(), 1, "a name may be a resource's now");
}

#[test]
fn equal_questions_are_asked_once_and_each_asker_is_answered_once() {
    let mut world = World::new("");
    let query = Query::new(&Name::parse("example.org").unwrap(), RecordType::A);
    for (id, from) in [
        (7, "100.64.0.1:4000"),
        (7, "100.64.0.1:4001"),
        (8, "100.64.0.1:4000"),
        (7, "100.64.0.1:4000"),
    ] {
        world.send(&query.to_upstream(id, true), from, SENTINEL);
    }
    world.send(
        &query.to_upstream(7, true),
        "100.64.0.1:4000",
        "100.100.111.2",
    );
    let exchange = world.exchange();
    world.reply(&exchange, 0, &[Data::A([192, 0, 2, 7].into())]);

    let mut answered = Vec::new();
    while let Some(packet) = world.client.poll_packet() {
        let packet = Packet::parse(packet).unwrap();
        let answer = Answer::parse(packet.payload().to_vec()).unwrap();
        answered.push((
            answer.id(),
            packet.destination_port().unwrap(),
            packet.source().to_string(),
        ));
    }
    answered.sort();
    let at = |id, port, sentinel: &str| (id, port, sentinel.to_owned());
    assert_eq!(
        answered,
        [
            at(7, 4_000, SENTINEL),
            at(7, 4_000, "100.100.111.2"),
            at(7, 4_001, SENTINEL),
            at(8, 4_000, SENTINEL)
        ]
    );
}

#[test]
fn whoever_asks_what_is_about_to_be_given_up_waits_as_long_as_anybody() {
    let mut world = World::new("");
    let early = world.ask("example.org", RecordType::A);
    world.after(Duration::from_millis(4_900));
    let late = world.ask("example.org", RecordType::A);
    world.after(Duration::from_millis(100));
    let given_up = world.answer().unwrap();
    assert_eq!((given_up.id(), given_up.rcode()), (early, Rcode::SERVFAIL));
    assert!(world.answer().is_none());

    // Servers are asked in turn as before, and any answer will do.
    world.after(Duration::from_secs(1));
    let newest = world.exchanges().pop().unwrap();
    world.reply(&newest, 60, &[Data::A([192, 0, 2, 7].into())]);
    let answer = world.answer().unwrap();
    assert_eq!((answer.id(), answer.rcode()), (late, Rcode::NOERROR));

    // And if there is none, that is said five seconds after it was asked.
    world.ask("example.net", RecordType::A);
    world.after(Duration::from_millis(4_900));
    let late = world.ask("example.net", RecordType::A);
    world.after(Duration::from_millis(100));
    assert!(world.answer().is_some());
    world.after(Duration::from_millis(4_899));
    assert!(world.answer().is_none());
    world.after(Duration::from_millis(1));
    assert_eq!(world.answer().unwrap().id(), late);
}

#[test]
fn a_silent_server_is_followed_by_the_next_and_the_first_answer_counts() {
    let mut world = World::new("");
    world.ask("example.org", RecordType::A);
    let first = world.exchange();
    world.after(Duration::from_millis(999));
    assert!(world.exchanges().is_empty());
    world.after(Duration::from_millis(1));
    let second = world.exchange();
    assert_eq!(second.server, Server::Plain(server("1.0.0.1")));

    world.reply(&first, 60, &[Data::A([192, 0, 2, 7].into())]);
    assert_eq!(addresses(&world.answer().unwrap()), ["192.0.2.7"]);
    world.reply(&second, 60, &[Data::A([192, 0, 2, 8].into())]);
    assert!(world.answer().is_none());
}

#[test]
fn a_refusing_server_is_followed_by_the_next_at_once_and_told_if_all_refuse() {
    let mut world = World::new("");
    world.ask("example.org", RecordType::A);
    let why = ExtendedError::new(ExtendedError::PROHIBITED, "not from there");
    for expected in ["1.1.1.1", "1.0.0.1"] {
        let exchange = world.exchange();
        assert_eq!(exchange.server, Server::Plain(server(expected)));
        let query = Query::parse(&exchange.message).unwrap();
        let refused = respond(&query, Rcode::REFUSED, 0, &[], Some(&why));
        world.outcome(&exchange, Ok(refused));
    }
    let answer = world.answer().unwrap();
    assert_eq!(answer.rcode(), Rcode::REFUSED);
    assert_eq!(answer.reason(), Some(why), "and why they do");
}

#[test]
fn when_nobody_answers_the_asker_is_told_why() {
    let mut world = World::new("");
    world.ask("example.org", RecordType::A);
    let mut asked = 0;
    for _ in 0..500 {
        world.after(Duration::from_millis(10));
        asked += world.exchanges().len();
    }
    let answer = world.answer().unwrap();
    assert_eq!(
        (answer.rcode(), error_code(&answer)),
        (Rcode::SERVFAIL, Some(22))
    );
    assert!((2..6).contains(&asked), "{asked}");

    world.ask("example.org", RecordType::AAAA);
    let unreachable = ExchangeError::Unreachable("no route".to_owned());
    for _ in 0..2 {
        let exchange = world.exchange();
        world.outcome(&exchange, Err(unreachable.clone()));
    }
    let answer = world.answer().unwrap();
    assert_eq!(
        (answer.rcode(), error_code(&answer)),
        (Rcode::SERVFAIL, Some(23))
    );
}

#[test]
fn an_old_answer_is_better_than_none() {
    let mut world = World::new("");
    world.ask("example.org", RecordType::A);
    let exchange = world.exchange();
    world.reply(&exchange, 5, &[Data::A([192, 0, 2, 7].into())]);
    world.answer().unwrap();
    world.after(Duration::from_secs(60));

    world.ask("example.org", RecordType::A);
    assert_eq!(world.exchanges().len(), 1);
    world.after(Duration::from_millis(1_799));
    assert!(world.answer().is_none());
    world.after(Duration::from_millis(1));
    let answer = world.answer().unwrap();
    assert_eq!(
        (addresses(&answer).len(), error_code(&answer)),
        (1, Some(3))
    );
    world.exchanges();
    let answer = world.resolve("example.org", RecordType::A);
    assert_eq!(error_code(&answer), Some(3));
    assert!(
        world.exchanges().is_empty(),
        "servers are left alone for a while"
    );
}

#[test]
fn what_is_no_answer_to_the_question_is_none() {
    let mut world = World::new("");
    world.ask("example.org", RecordType::A);
    let first = world.exchange();
    let other = Query::new(&Name::parse("example.com").unwrap(), RecordType::A);
    let id = u16::from_be_bytes([first.message[0], first.message[1]]);
    let asked = Query::parse(&other.to_upstream(id, true)).unwrap();
    let wrong = respond(
        &asked,
        Rcode::NOERROR,
        60,
        &[Data::A([192, 0, 2, 66].into())],
        None,
    );
    world.outcome(&first, Ok(wrong));
    let second = world.exchange();
    world.outcome(&second, Ok(vec![0; 65_535]));
    let answer = world.answer().unwrap();
    assert_eq!(
        (answer.rcode(), error_code(&answer)),
        (Rcode::SERVFAIL, Some(22))
    );
}

#[test]
fn a_server_from_before_edns_is_asked_without() {
    let mut world = World::new("");
    world.ask("example.org", RecordType::A);
    let first = world.exchange();
    let query = Query::parse(&first.message).unwrap();
    world.outcome(&first, Ok(respond(&query, Rcode::FORMERR, 0, &[], None)));
    let second = world.exchange();
    assert_eq!(second.server, first.server);
    assert!(Query::parse(&second.message).unwrap().edns.is_none());
    world.reply(&second, 60, &[Data::A([192, 0, 2, 7].into())]);
    assert_eq!(addresses(&world.answer().unwrap()), ["192.0.2.7"]);
    world.ask("example.net", RecordType::A);
    let next = world.exchange();
    assert!(Query::parse(&next.message).unwrap().edns.is_none());
}

#[test]
fn a_server_that_dislikes_a_question_is_not_one_from_before_edns() {
    let mut world = World::new("");
    world.ask("example.org", RecordType::ANY);
    for has_edns in [true, false] {
        let exchange = world.exchange();
        assert_eq!(exchange.server, Server::Plain(server("1.1.1.1")));
        let query = Query::parse(&exchange.message).unwrap();
        assert_eq!(query.edns.is_some(), has_edns);
        world.outcome(&exchange, Ok(respond(&query, Rcode::NOTIMP, 0, &[], None)));
    }
    let second = world.exchange();
    assert_eq!(second.server, Server::Plain(server("1.0.0.1")));
    world.ask("example.net", RecordType::A);
    let next = world.exchange();
    assert_eq!(next.server, Server::Plain(server("1.1.1.1")));
    assert!(Query::parse(&next.message).unwrap().edns.is_some());
}

#[test]
fn what_no_carrier_took_is_not_counted_as_carried() {
    let mut world = World::new("");
    for round in 0..3 {
        for number in 0..1_000 {
            world.ask(&format!("n{round}-{number}.example.org"), RecordType::A);
        }
        // Nobody has taken the exchanges when they become pointless.
        world.resolvers(&[["9.9.9.9", "1.1.1.1"][round % 2]]);
    }
    world.ask("example.net", RecordType::A);
    let names = world.exchanges().into_iter().map(|exchange| {
        let query = Query::parse(&exchange.message).unwrap();
        query.name.to_string()
    });
    assert!(names.count() >= 900);
}

#[test]
fn a_long_answer_is_cut_for_udp() {
    let mut world = World::new("");
    world.ask("example.org", RecordType::A);
    let exchange = world.exchange();
    let many: Vec<Data> = (0..180).map(|n| Data::A([192, 0, 2, n].into())).collect();
    world.reply(&exchange, 60, &many);
    let packet = world.client.poll_packet().unwrap();
    let answer = Answer::parse(Packet::parse(packet).unwrap().payload().to_vec()).unwrap();
    assert!(answer.is_truncated());
    assert_eq!(answer.bytes()[4..10], [0, 1, 0, 0, 0, 0]);
}

#[test]
fn too_many_questions_are_refused_and_the_rest_still_answered() {
    let mut world = World::new("");
    for number in 0..65_535_u32 {
        let name = Name::parse(&format!("n{number}.example.org")).unwrap();
        let query = Query::new(&name, RecordType::A).to_upstream(number as u16, true);
        world.send(&query, "100.64.0.1:4000", SENTINEL);
    }
    let mut refused = 0;
    while let Some(answer) = world.answer() {
        assert_eq!(
            (answer.rcode(), error_code(&answer)),
            (Rcode::SERVFAIL, Some(0))
        );
        refused += 1;
    }
    assert_eq!(refused, 65_535 - 4_096);
    let mut carried = 0;
    loop {
        let exchanges = world.exchanges();
        if exchanges.is_empty() {
            break;
        }
        assert!(exchanges.len() <= 900, "carriers take no more at once");
        carried += exchanges.len();
        for exchange in exchanges {
            world.reply(&exchange, 60, &[Data::A([192, 0, 2, 7].into())]);
        }
    }
    let answers = std::iter::from_fn(|| world.answer());
    assert_eq!((carried, answers.count()), (4_096, 4_096));
}

#[test]
fn questions_survive_a_change_of_network_and_servers() {
    let mut world = World::new("");
    world.ask("example.org", RecordType::A);
    let lost = world.exchange();
    world.client.network_changed(world.now);
    world.drain();
    let again = world.exchange();
    world.reply(&lost, 60, &[Data::A([192, 0, 2, 1].into())]);
    assert!(world.answer().is_none(), "it was of another network");
    world.resolvers(&["9.9.9.9"]);
    world.reply(&again, 60, &[Data::A([192, 0, 2, 2].into())]);
    assert!(world.answer().is_none(), "that one counts no longer");
    let last = world.exchange();
    assert_eq!(last.server, Server::Plain(server("9.9.9.9")));
    world.reply(&last, 60, &[Data::A([192, 0, 2, 7].into())]);
    assert_eq!(addresses(&world.answer().unwrap()), ["192.0.2.7"]);
}

#[test]
fn a_server_of_the_portal_behind_a_resource_is_asked_through_the_tunnel_and_the_systems_never() {
    let lan = cidr(OTHER, "9.9.9.0/24");
    let mut world = World::new(&lan);
    world.resolvers(&["9.9.9.9"]);
    let sentinel = world.sentinels().remove(0);
    world.ask_at("example.org", RecordType::A, &sentinel);
    assert_eq!((world.exchanges().len(), world.requests()), (1, 0));

    world.init(
        &lan,
        r#","upstream_do53":[{"ip":"9.9.9.9"},{"ip":"8.8.8.8"}]"#,
    );
    let sentinel = world.sentinels().remove(0);
    world.ask_at("example.com", RecordType::A, &sentinel);
    assert_eq!(
        (world.exchanges().len(), world.requests()),
        (0, 1),
        "the resource is asked for"
    );
}

#[test]
fn an_invalid_pattern_is_listed_and_matches_nothing() {
    let mut world = World::new(&dns(WIKI, "a[b.test", "dual"));
    assert_eq!(world.client.status(world.now).resources.len(), 1);
    world.ask("a[b.test", RecordType::A);
    assert_eq!(world.exchanges().len(), 1);
}
