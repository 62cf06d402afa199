//! Names in drawn worlds: about half of them have some.

use std::net::IpAddr;
use std::time::Duration;

use super::draw::{FLOWS_AT, QUIET};
use super::events::{Flow, FlowKind};
use super::filters::Service;
use super::names::{
    Address, Lookup, Manners, NameEntry, NameServer, RecordKind, ServerAt, Stack, Target, Upstream,
    Via,
};
use super::{Choices, Event, PerMille, Resource, Role, Scenario};

/// What names of site A match, the broader ones last.
const PATTERNS_A: [&str; 7] = [
    "wiki.corp.test",
    "*.corp.test",
    "**.corp.test",
    "?it.corp.test",
    "*.lab.corp.test",
    "git.**.corp.test",
    "WIKI.corp.test",
];

/// What names of site B match.
const PATTERNS_B: [&str; 3] = ["*.b.test", "db.b.test", "**.corp.test"];

/// Names that exist at a site, or nowhere.
const NAMES: [&str; 7] = [
    "wiki.corp.test",
    "git.corp.test",
    "corp.test",
    "git.lab.corp.test",
    "db.b.test",
    "www.example",
    "nowhere.example",
];

const TYPES: [RecordKind; 12] = [
    RecordKind::A,
    RecordKind::AAAA,
    RecordKind::TXT,
    RecordKind::SRV,
    RecordKind::HTTPS,
    RecordKind::ANY,
    RecordKind::SVCB,
    RecordKind::A,
    RecordKind(15),
    RecordKind(2),
    RecordKind(5),
    RecordKind(6),
];

/// The first addresses that stand for a name, backwards.
const REVERSE_V4: &str = "1.0.96.100.in-addr.arpa";
const REVERSE_V6: &str = "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.1.1.1.1.1.2.0.2.0.0.d.f.ip6.arpa";

/// What Firefox asks before it asks servers of its own.
const CANARY: &str = "use-application-dns.net";

/// Servers of everybody.
const OUTSIDE: [&str; 4] = [
    "192.0.2.53",
    "192.0.2.54",
    "2001:db8:53::53",
    "2001:db8:53::54",
];
const URLS: [&str; 2] = ["https://dns.example/dns-query", "tls://dns.example"];

/// Servers of the sites.
const INSIDE: [(&str, &str); 2] = [("A", "10.20.0.53"), ("B", "10.30.0.53")];

/// How long a world with names goes on when all programs have begun: as long as a question may take outside, and some more.
const ANSWERED_WITHIN: Duration = Duration::from_secs(8);

/// Draws names, or none.
pub(super) fn names(scenario: &mut Scenario, choices: &mut Choices<'_>) {
    if !choices.percent(50) {
        return;
    }
    let has_b = has_site(scenario, "B");
    resources(scenario, choices, has_b);
    for entry in entries(choices, has_b) {
        scenario.names.push(entry);
    }
    servers(scenario, choices, has_b);
    for host in 0..scenario.hosts.len() {
        flows(scenario, choices, host);
    }
    let mut at = choices.range(2_000..6_000);
    for _ in 0..choices.below(8) / 2 {
        let when = Duration::from_millis(at);
        if when + Duration::from_secs(3) < scenario.lasts {
            let event = event(scenario, choices);
            scenario.events.extend(event.map(|event| (when, event)));
        }
        at += choices.range(500..4_000);
    }
    // Whoever asks late has an answer, or must have had one, before the end.
    scenario.lasts += ANSWERED_WITHIN;
}

pub(super) fn has_site(scenario: &Scenario, site: &str) -> bool {
    let mut hosts = scenario.hosts.iter();

    hosts.any(|host| matches!(&host.role, Role::Gateway { site: other } if other == site))
}

pub(super) fn clients(scenario: &Scenario) -> Vec<usize> {
    let hosts = scenario.hosts.iter().enumerate();
    let clients = hosts.filter(|(_, host)| matches!(host.role, Role::Client { .. }));

    clients.map(|(number, _)| number).collect()
}

fn resources(scenario: &mut Scenario, choices: &mut Choices<'_>, has_b: bool) {
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    for _ in 0..1 + choices.below(3) {
        wanted.push((PATTERNS_A[choices.index(PATTERNS_A.len())], "A"));
    }
    if has_b {
        wanted.push((PATTERNS_B[choices.index(PATTERNS_B.len())], "B"));
    }
    for (number, (pattern, site)) in wanted.into_iter().enumerate() {
        let clients = clients(scenario).into_iter();
        let resource = Resource {
            name: format!("N{}", number + 1),
            address: Address::Names {
                pattern: pattern.to_owned(),
                stack: stack(choices),
            },
            filters: Vec::new(),
            site: site.to_owned(),
            clients: clients.filter(|_| !choices.percent(4)).collect(),
        };
        scenario.resources.push(resource);
    }
}

fn stack(choices: &mut Choices<'_>) -> Stack {
    match choices.below(10) {
        8 => Stack::V4,
        9 => Stack::V6,
        _ => Stack::Dual,
    }
}

fn entries(choices: &mut Choices<'_>, has_b: bool) -> Vec<NameEntry> {
    let mut entries = Vec::new();
    for name in &NAMES[..4] {
        entries.push(entry(choices, name, Some("A")));
    }
    if has_b {
        for name in [NAMES[4], NAMES[0]] {
            entries.push(entry(choices, name, Some("B")));
        }
    }
    entries.push(entry(choices, "www.example", None));
    if choices.percent(30) {
        entries.push(entry(choices, "wiki.corp.test", None));
    }

    entries
}

/// A name with some addresses, of which others may have the same.
pub(super) fn entry(choices: &mut Choices<'_>, name: &str, site: Option<&str>) -> NameEntry {
    let (v4, v6) = match site {
        Some("A") => ("10.20.1.", "2001:db8:a::1:"),
        Some(_) => ("10.30.1.", "2001:db8:b::1:"),
        None => ("198.51.100.20", "2001:db8:e::1:"),
    };
    let (has_v4, has_v6) = match choices.below(10) {
        8 => (true, false),
        9 => (false, true),
        _ => (true, true),
    };
    let mut ips: Vec<IpAddr> = Vec::new();
    for (has, stem) in [(has_v4, v4), (has_v6, v6)] {
        for _ in 0..if has { 1 + choices.below(3) } else { 0 } {
            let ip = format!("{stem}{}", choices.below(6) + 1).parse();
            ips.extend(ip.ok().filter(|ip| !ips.contains(ip)));
        }
    }
    let text = choices
        .percent(50)
        .then(|| u16::try_from(choices.range(10..2_500)).unwrap_or_default());

    NameEntry {
        name: name.to_owned(),
        site: site.map(str::to_owned),
        ips,
        text,
        srv: choices.percent(30).then(|| (443, name.to_owned())),
    }
}

fn servers(scenario: &mut Scenario, choices: &mut Choices<'_>, has_b: bool) {
    let count = if has_b { 2 } else { 1 };
    for (site, ip) in &INSIDE[..count] {
        let manners = match choices.percent(12) {
            true => manners(choices, scenario.lasts),
            false => Manners {
                latency: choices.millis(1..10),
                ..Manners::default()
            },
        };
        scenario.servers.extend(ip.parse().map(|ip| NameServer {
            at: ServerAt::Ip(ip),
            site: Some((*site).to_owned()),
            manners,
        }));
    }
    for ip in OUTSIDE {
        let manners = manners(choices, scenario.lasts);
        scenario.servers.extend(ip.parse().map(|ip| NameServer {
            at: ServerAt::Ip(ip),
            site: None,
            manners,
        }));
    }
    for url in URLS {
        let manners = manners(choices, scenario.lasts);
        scenario.servers.push(NameServer {
            at: ServerAt::Url(url.to_owned()),
            site: None,
            manners,
        });
    }
    for host in 0..scenario.hosts.len() {
        let servers = match &scenario.hosts[host].role {
            Role::Client { .. } => outside(choices),
            Role::Gateway { site } => INSIDE
                .iter()
                .filter(|(other, _)| other == site)
                .filter_map(|(_, ip)| ip.parse().ok())
                .collect(),
            Role::Relay => continue,
        };
        scenario.resolvers.push((host, servers));
    }
    if choices.percent(50) {
        scenario.upstream = upstream(choices);
    }
}

/// Some servers of everybody, perhaps none.
fn outside(choices: &mut Choices<'_>) -> Vec<IpAddr> {
    let first = choices.index(OUTSIDE.len());
    let count = match choices.below(10) {
        0..5 => 1,
        5..8 => 2,
        8 => 3,
        _ => 0,
    };
    let servers = OUTSIDE.iter().cycle().skip(first).take(count);

    servers.filter_map(|ip| ip.parse().ok()).collect()
}

fn upstream(choices: &mut Choices<'_>) -> Upstream {
    let mut upstream = Upstream {
        search: choices.percent(40).then(|| "corp.test".to_owned()),
        ..Upstream::default()
    };
    let [https, tls] = URLS.map(|url| vec![url.to_owned()]);
    match choices.below(8) {
        0..3 => upstream.plain = outside(choices),
        3 => upstream.https = https,
        4 => upstream.tls = tls,
        5 => upstream.plain.extend(INSIDE[0].1.parse::<IpAddr>()),
        _ => {}
    }

    upstream
}

fn manners(choices: &mut Choices<'_>, lasts: Duration) -> Manners {
    let mut manners = Manners {
        latency: choices.millis(1..80),
        ttl: u32::try_from(choices.range(2..8)).unwrap_or_default(),
        ..Manners::default()
    };
    match choices.below(24) {
        14 => manners.loss = PerMille(u16::try_from(choices.range(50..400)).unwrap_or_default()),
        15..18 => manners.lies = true,
        18 => manners.truncates = true,
        19 => manners.refuses = true,
        20 => manners.fails = true,
        21 => manners.resets = true,
        22 | 23 => {
            let from = choices.millis(0..9_000);
            let until = (from + choices.millis(500..9_000)).min(lasts);
            manners.silent = (from < until).then_some((from, until));
        }
        _ => {}
    }

    manners
}

fn flows(scenario: &mut Scenario, choices: &mut Choices<'_>, host: usize) {
    if !matches!(scenario.hosts[host].role, Role::Client { .. }) {
        return;
    }
    let spans = scenario.lasts.saturating_sub(FLOWS_AT + QUIET);
    let port = choices.percent(40).then_some(7_777);
    let mut name = NAMES[0];
    for nth in 0..1 + choices.below(2) {
        if nth == 0 || choices.percent(60) {
            name = NAMES[choices.index(5)];
        }
        let every = choices.millis(200..700);
        // Some begin when names have moved.
        let latest = if nth > 0 { 9_000 } else { 3_000 };
        let at = FLOWS_AT + choices.millis(0..latest);
        let left = spans.saturating_sub(at);
        let count = u32::try_from(left.as_millis() / every.as_millis()).unwrap_or_default();
        let flow = Flow {
            name: format!("n{host}-{nth}"),
            host,
            to: Target::Name {
                name: name.to_owned(),
                is_ipv4: choices.below(10) < 7,
                is_cached: nth > 0 && choices.percent(30),
            },
            // The same for several: gateways must tell them apart.
            port: port.map(|port| port + u16::from(choices.percent(20))),
            service: Service::udp(7),
            kind: match choices.percent(8) {
                true => FlowKind::Fetch {
                    bytes: u32::try_from(choices.range(1_000..30_000)).unwrap_or_default(),
                },
                false => FlowKind::Ping {
                    count: count.min(20),
                    every,
                    size: u16::try_from(choices.range(12..600)).unwrap_or_default(),
                },
            },
        };
        let flow = Flow {
            service: flow.kind.default_service(),
            ..flow
        };
        scenario.events.push((at, Event::Flow(flow)));
    }
    let last = scenario.lasts.saturating_sub(QUIET);
    for nth in 0..2 + choices.below(6) {
        let record = TYPES[choices.index(TYPES.len())];
        let (name, record) = match choices.below(30) {
            27 => (REVERSE_V4, RecordKind::PTR),
            28 => (REVERSE_V6, RecordKind::PTR),
            29 => (CANARY, record),
            _ => (NAMES[choices.index(NAMES.len())], record),
        };
        let flow = Flow {
            name: format!("q{host}-{nth}"),
            host,
            to: Target::Name {
                name: name.to_owned(),
                is_ipv4: true,
                is_cached: false,
            },
            port: None,
            service: Service::udp(7),
            kind: FlowKind::Lookup(Lookup {
                record,
                via: if choices.percent(30) {
                    Via::Tcp
                } else {
                    Via::Udp
                },
                server: choices.index(2),
                number: None,
                is_mixed: choices.percent(25),
            }),
        };
        let most = u64::try_from(last.as_millis()).unwrap_or_default();
        let at = choices.millis(900..most);
        scenario.events.push((at, Event::Flow(flow)));
    }
}

/// Something changes that has to do with names.
fn event(scenario: &Scenario, choices: &mut Choices<'_>) -> Option<Event> {
    let clients = clients(scenario);
    let host = *clients.get(choices.index(clients.len()))?;
    let named = scenario.resources.iter().enumerate();
    let named: Vec<usize> = named
        .filter(|(_, it)| matches!(it.address, Address::Names { .. }))
        .map(|(number, _)| number)
        .collect();
    let resource = *named.get(choices.index(named.len()))?;

    Some(match choices.below(12) {
        10 | 11 | 0..3 => {
            let name = NAMES[choices.index(4)];
            Event::Name(entry(choices, name, Some("A")))
        }
        3 => Event::Resolvers {
            host,
            servers: outside(choices),
        },
        4 => Event::Upstream(upstream(choices)),
        5 => Event::Manners {
            server: choices.index(scenario.servers.len()),
            manners: manners(choices, scenario.lasts),
        },
        6 => Event::Revoke { host, resource },
        7 => Event::Allow { host, resource },
        8 => Event::Reset { host },
        _ => {
            let pattern = PATTERNS_A[choices.index(PATTERNS_A.len())].to_owned();
            let site = if has_site(scenario, "B") && choices.percent(30) {
                "B"
            } else {
                "A"
            };
            Event::Change {
                resource,
                address: Address::Names {
                    pattern,
                    stack: stack(choices),
                },
                filters: Vec::new(),
                site: site.to_owned(),
            }
        }
    })
}
