//! Worlds from chance, or from bytes in its place.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::draw_access::{access, ends, forgeries};
use super::draw_faults::faults;
use super::draw_names::names;
use super::events::{Flow, FlowKind};
use super::{
    Address, Dependence, Drive, Edge, EdgeKind, Event, Host, Link, Nat, PerMille, Place,
    PortalLink, Resource, Role, Scenario, Target, Upstream,
};
use crate::scenario::draw_events::disturb;

/// When programs begin: everybody knows the portal by then.
pub(super) const FLOWS_AT: Duration = Duration::from_secs(1);

/// How long nobody sends before the end.
pub(super) const QUIET: Duration = Duration::from_secs(2);

/// What decides: a generator, or bytes, which are zero where there are none left.
#[derive(Debug)]
pub struct Choices<'a> {
    rng: Option<StdRng>,
    bytes: &'a [u8],
}

impl<'a> Choices<'a> {
    /// Chance.
    pub fn from_seed(seed: u64) -> Self {
        Self {
            rng: Some(StdRng::seed_from_u64(seed)),
            bytes: &[],
        }
    }

    /// Bytes.
    pub fn from_bytes(bytes: &'a [u8]) -> Self {
        Self { rng: None, bytes }
    }

    /// A number below `bound`; zero if there is none.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        if bound <= 1 {
            return 0;
        }
        let drawn = match &mut self.rng {
            Some(rng) => rng.next_u64(),
            None => {
                let len = match bound {
                    0..=0x100 => 1,
                    0x101..=0x1_0000 => 2,
                    _ => 8,
                };
                let (taken, rest) = self.bytes.split_at(self.bytes.len().min(len));
                self.bytes = rest;
                taken
                    .iter()
                    .fold(0, |number, byte| number << 8 | u64::from(*byte))
            }
        };

        drawn % bound
    }

    /// A number of `range`; its start if it is empty.
    pub(super) fn range(&mut self, range: Range<u64>) -> u64 {
        range.start + self.below(range.end.saturating_sub(range.start))
    }

    /// True in so many of a hundred cases. Bytes that have come to an end say no.
    pub(super) fn percent(&mut self, share: u64) -> bool {
        self.below(100) + share >= 100
    }

    pub(super) fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.range(range))
    }

    /// A place in a list of `len`.
    pub(super) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or_default()
    }
}

/// Draws a world.
pub(super) fn scenario(seed: u64, choices: &mut Choices<'_>) -> Scenario {
    let seed = if choices.rng.is_some() {
        seed
    } else {
        choices.below(u64::MAX)
    };
    let mut scenario = Scenario {
        name: "drawn".to_owned(),
        seed,
        drive: match choices.below(10) {
            8 => Drive::Late,
            _ => Drive::Exact,
        },
        lasts: choices.millis(9..16) * 1_000,
        portal: portal(choices),
        edges: Vec::new(),
        hosts: Vec::new(),
        resources: Vec::new(),
        names: Vec::new(),
        servers: Vec::new(),
        error_hosts: Vec::new(),
        resolvers: Vec::new(),
        upstream: Upstream::default(),
        events: Vec::new(),
        expect: Vec::new(),
    };
    hosts(&mut scenario, choices);
    resources(&mut scenario, choices);
    flows(&mut scenario, choices);
    disturb(&mut scenario, choices);
    // These last, so that whatever else is drawn is drawn as it would be without.
    names(&mut scenario, choices);
    access(&mut scenario, choices);
    ends(&mut scenario, choices);
    forgeries(&mut scenario, choices);
    paces(&mut scenario, choices);
    scenario.events.sort_by_key(|(at, _)| *at);

    scenario
}

/// Some relays run on slow machines, or at slow networks; not those whose loop is called late as well.
fn paces(scenario: &mut Scenario, choices: &mut Choices<'_>) {
    if scenario.drive != Drive::Exact || !choices.percent(10) {
        return;
    }
    let rate = u32::try_from(choices.range(4_000..40_000)).ok();
    let is_machine = choices.percent(50);
    let relays = scenario.hosts.iter_mut();
    for relay in relays.filter(|host| host.role == Role::Relay) {
        match is_machine {
            true => relay.faults.pace = rate,
            false => relay.faults.wire = rate,
        }
    }
}

fn portal(choices: &mut Choices<'_>) -> PortalLink {
    let duplicates = match choices.percent(8) {
        true => PerMille(u16::try_from(choices.range(50..400)).unwrap_or_default()),
        false => PerMille(0),
    };

    PortalLink {
        latency: choices.millis(1..80),
        jitter: match choices.percent(30) {
            true => choices.millis(1..40),
            false => Duration::ZERO,
        },
        duplicates,
        // A channel keeps the order; saved scenarios try what happens if it doesn't.
        reorders: PerMille(0),
    }
}

fn hosts(scenario: &mut Scenario, choices: &mut Choices<'_>) {
    let is_lossy = choices.percent(30);
    let has_faults = choices.percent(40);
    let counts = [
        (1 + choices.below(8) / 6, "C"),
        (1 + choices.below(8) / 4, "G"),
        (1 + choices.below(8) / 5, "R"),
    ];
    let mut number = 0;
    for (count, letter) in counts {
        for nth in 1..=count {
            number += 1;
            let role = match letter {
                "C" => Role::Client {
                    token_ends_at: None,
                },
                "G" => Role::Gateway {
                    site: if nth == 3 { "B" } else { "A" }.to_owned(),
                },
                _ => Role::Relay,
            };
            let name = format!("{letter}{nth}");
            let is_node = letter != "R";
            let place = place(scenario, choices, number, is_node);
            let mut faults = match has_faults && is_node && choices.percent(60) {
                true => faults(choices),
                false => crate::faults::Faults::default(),
            };
            if scenario.drive == Drive::Late {
                // Each try would be 100 ms late, and nothing could be said about time.
                faults.sends_without_memory = 0..0;
            }
            let host = Host {
                faults,
                name,
                role,
                place,
                link: link(choices, is_lossy),
            };
            scenario.hosts.push(host);
        }
    }
}

/// Somewhere, behind something.
pub(super) fn place(
    scenario: &mut Scenario,
    choices: &mut Choices<'_>,
    number: u8,
    is_node: bool,
) -> Place {
    let public4 = Ipv4Addr::new(203, 0, 113, number);
    let ip6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into());
    // Relays have both, so that everybody can reach everybody.
    let (has_v4, has_v6) = match (is_node, choices.below(10)) {
        (false, _) | (true, 9) => (true, true),
        (true, 0..=7) => (true, false),
        (true, _) => (false, true),
    };
    let ip6 = has_v6.then_some(ip6);
    let plain = Place {
        ip4: has_v4.then_some(public4),
        ip6,
        behind: None,
    };
    if !is_node {
        return plain;
    }
    let private4 = Ipv4Addr::new(192, 168, number, 2);
    match choices.below(20) {
        7..15 if has_v4 => {
            let nat = nat(choices, public4);
            let behind = push_edge(scenario, EdgeKind::Nat(nat), None);
            Place {
                ip4: Some(private4),
                ip6,
                behind,
            }
        }
        15 | 16 if has_v4 => {
            let outer = nat(choices, public4);
            let outer = push_edge(scenario, EdgeKind::Nat(outer), None);
            let inner = nat(choices, Ipv4Addr::new(100, 127, 0, number));
            let behind = push_edge(scenario, EdgeKind::Nat(inner), outer);
            Place {
                ip4: Some(private4),
                ip6,
                behind,
            }
        }
        17 | 18 => {
            let expiry = choices.millis(40_000..120_000);
            let behind = push_edge(scenario, EdgeKind::Firewall { expiry }, None);
            Place { behind, ..plain }
        }
        19 => {
            let behind = push_edge(scenario, EdgeKind::OnlyPort(3_478), None);
            Place { behind, ..plain }
        }
        _ => plain,
    }
}

fn push_edge(scenario: &mut Scenario, kind: EdgeKind, behind: Option<usize>) -> Option<usize> {
    let number = scenario.edges.len();
    scenario.edges.push(Edge {
        name: format!("E{}", number + 1),
        kind,
        behind,
    });

    Some(number)
}

fn nat(choices: &mut Choices<'_>, ip4: Ipv4Addr) -> Nat {
    use Dependence::{Address, AddressAndPort, Endpoint};

    // Real ones filter by as much as they map by, or by more. Saved scenarios try others.
    let (mapping, filtering) = match choices.below(6) {
        0 => (Endpoint, Endpoint),
        1 => (Endpoint, Address),
        2 => (Endpoint, AddressAndPort),
        3 => (Address, Address),
        4 => (Address, AddressAndPort),
        _ => (AddressAndPort, AddressAndPort),
    };

    Nat {
        ip4,
        mapping,
        filtering,
        expiry: choices.millis(40_000..120_000),
        keeps_ports: choices.percent(50),
        hairpin: choices.percent(50),
    }
}

pub(super) fn link(choices: &mut Choices<'_>, is_lossy: bool) -> Link {
    let mut link = Link {
        latency: choices.millis(1..60),
        ..Link::default()
    };
    if choices.percent(30) {
        link.jitter = choices.millis(1..15);
    }
    let mut share = |percent, most| match choices.percent(percent) {
        true => PerMille(u16::try_from(choices.range(1..most)).unwrap_or_default()),
        false => PerMille(0),
    };
    if is_lossy {
        link.loss = share(80, 50);
        link.corrupts = share(30, 20);
    }
    link.duplicates = share(15, 100);
    link.reorders = share(15, 100);

    link
}

fn resources(scenario: &mut Scenario, choices: &mut Choices<'_>) {
    let clients: Vec<usize> = (0..scenario.hosts.len())
        .filter(|host| matches!(scenario.hosts[*host].role, Role::Client { .. }))
        .collect();
    for (name, network, site) in [
        ("A4", "10.20.0.0/16", "A"),
        ("A6", "2001:db8:a::/48", "A"),
        ("B4", "10.30.0.0/16", "B"),
    ] {
        let has_site = scenario.hosts.iter().any(|host| match &host.role {
            Role::Gateway { site: other } => other == site,
            Role::Client { .. } | Role::Relay => false,
        });
        if let (Ok(network), true) = (network.parse(), has_site) {
            let clients = clients.iter().copied();
            scenario.resources.push(Resource {
                name: name.to_owned(),
                address: Address::Network(network),
                filters: Vec::new(),
                site: site.to_owned(),
                clients: clients.filter(|_| !choices.percent(4)).collect(),
            });
        }
    }
}

fn flows(scenario: &mut Scenario, choices: &mut Choices<'_>) {
    let targets = ["10.20.0.10", "2001:db8:a::10", "10.30.0.10"];
    let spans = scenario.lasts.saturating_sub(FLOWS_AT + QUIET);
    for host in 0..scenario.hosts.len() {
        if !matches!(scenario.hosts[host].role, Role::Client { .. }) {
            continue;
        }
        for nth in 0..1 + choices.below(3) / 2 {
            let target = targets[choices.index(scenario.resources.len())];
            let Ok(to) = target.parse() else {
                continue;
            };
            let is_fetch = nth > 0 && choices.percent(60);
            let every = choices.millis(100..600);
            let count = u32::try_from(spans.as_millis() / every.as_millis().max(1)).unwrap_or(1);
            let kind = match is_fetch {
                true => FlowKind::Fetch {
                    bytes: u32::try_from(choices.range(1_000..100_000)).unwrap_or_default(),
                },
                false => FlowKind::Ping {
                    count,
                    every,
                    size: u16::try_from(choices.range(12..1_200)).unwrap_or_default(),
                },
            };
            let flow = Flow {
                name: format!("f{host}-{nth}"),
                host,
                to: Target::Ip(to),
                port: None,
                service: kind.default_service(),
                kind,
            };
            let at = FLOWS_AT + choices.millis(0..500);
            scenario.events.push((at, Event::Flow(flow)));
        }
    }
}
