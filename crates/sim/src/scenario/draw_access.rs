//! What decides about packets in drawn worlds: filters, networks that overlap, and the Internet.

use std::time::Duration;

use super::draw::{FLOWS_AT, QUIET};
use super::draw_names::{clients, has_site};
use super::events::{Flow, FlowKind, Forgery};
use super::filters::{Filter, HostError, Service};
use super::names::{Address, Target};
use super::{Choices, Event, Resource, Role, Scenario};

/// Networks that lie in each other, or are the same.
const NETWORKS: [&str; 7] = [
    "10.40.0.0/16",
    "10.40.1.0/24",
    "10.40.1.0/24",
    "10.40.1.7/32",
    "2001:db8:40::/48",
    "2001:db8:40:1::/64",
    "203.0.113.128/25",
];

/// What may pass to them.
const FILTERS: [&str; 9] = [
    "",
    "",
    "udp/7",
    "udp/1-9,icmp",
    "tcp/80",
    "tcp,udp/53-60",
    "icmp",
    "udp/10-65535",
    "tcp/79-81,udp/7-7",
];

/// Hosts in these networks, in some of them, and in none.
const HOSTS: [&str; 10] = [
    "10.40.1.7",
    "10.40.1.8",
    "10.40.2.1",
    "2001:db8:40:1::7",
    "2001:db8:40:2::1",
    "203.0.113.200",
    "198.51.100.77",
    "2001:db8:77::7",
    "10.99.0.1",
    "192.168.7.7",
];

/// Some of which answer by errors; the last ones have names.
const ERROR_HOSTS: [&str; 7] = [
    "10.40.1.8",
    "10.40.2.1",
    "2001:db8:40:2::1",
    "198.51.100.77",
    "10.20.1.2",
    "10.20.1.5",
    "2001:db8:a::1:3",
];

/// What programs use there.
const SERVICES: [&str; 5] = ["udp/7", "tcp/80", "icmp", "udp/5000", "tcp/22"];

/// Draws what decides, or nothing.
pub(super) fn access(scenario: &mut Scenario, choices: &mut Choices<'_>) {
    if !choices.percent(40) {
        return;
    }
    let sites: &[&str] = match has_site(scenario, "B") {
        true => &["A", "B"],
        false => &["A"],
    };
    for resource in &mut scenario.resources {
        if matches!(resource.address, Address::Names { .. }) && choices.percent(30) {
            resource.filters = filters(choices);
        }
    }
    for nth in 0..1 + choices.below(4) {
        let address = address(choices);
        let resource = resource(scenario, choices, format!("F{}", nth + 1), address, sites);
        scenario.resources.push(resource);
    }
    if choices.percent(40) {
        let name = "I".to_owned();
        let internet = resource(scenario, choices, name, Address::Internet, sites);
        scenario.resources.push(Resource {
            filters: Vec::new(),
            ..internet
        });
        for host in clients(scenario) {
            if choices.percent(70) {
                let is_wanted = true;
                let at = choices.millis(500..4_000);
                let event = Event::Internet { host, is_wanted };
                scenario.events.push((at, event));
            }
        }
    }
    if choices.percent(60) {
        for _ in 0..2 + choices.below(3) {
            let ip = ERROR_HOSTS[choices.index(ERROR_HOSTS.len())].parse();
            let (_, error) = HostError::NAMED[choices.index(HostError::NAMED.len())];
            scenario.error_hosts.extend(ip.ok().map(|ip| (ip, error)));
        }
    }
    for host in clients(scenario) {
        for nth in 0..1 + choices.below(4) {
            flow(scenario, choices, host, nth);
        }
    }
    let mut at = choices.range(2_500..6_000);
    for _ in 0..choices.below(6) / 2 {
        let when = Duration::from_millis(at);
        if when + Duration::from_secs(3) < scenario.lasts {
            let event = event(scenario, choices, sites);
            scenario.events.extend(event.map(|event| (when, event)));
        }
        at += choices.range(500..5_000);
    }
}

/// Lets access end while somebody can't be told, or nothing.
pub(super) fn ends(scenario: &mut Scenario, choices: &mut Choices<'_>) {
    let hosts = scenario.hosts.iter().enumerate();
    let gateways = hosts.filter(|(_, host)| matches!(host.role, Role::Gateway { .. }));
    let gateways: Vec<usize> = gateways.map(|(number, _)| number).collect();
    let clients = clients(scenario);
    let (Some(gateway), Some(client)) = (
        gateways.get(choices.index(gateways.len())).copied(),
        clients.get(choices.index(clients.len())).copied(),
    ) else {
        return;
    };
    if choices.percent(10) {
        let resource = choices.index(scenario.resources.len());
        let at = choices.millis(3_000..6_000);
        let back_at = at + choices.millis(500..3_000);
        let host = gateway;
        scenario.events.extend([
            (at, Event::PortalDown { host }),
            (
                at + choices.millis(0..400),
                Event::Revoke {
                    host: client,
                    resource,
                },
            ),
            (back_at, Event::PortalUp { host }),
        ]);
    }
    let mut events = scenario.events.iter();
    let has_steps = events.any(|(_, event)| matches!(event, Event::ClockSteps { .. }));
    if has_steps || !choices.percent(5) {
        return;
    }
    let ends_at = Duration::from_secs(choices.range(4..10));
    if let Some(host) = scenario.hosts.get_mut(client) {
        host.role = Role::Client {
            token_ends_at: Some(ends_at),
        };
    }
    if choices.percent(60) {
        for host in [gateway, client] {
            let at = ends_at.saturating_sub(choices.millis(500..2_000));
            scenario.events.push((at, Event::PortalDown { host }));
            let back_at = at + choices.millis(1_000..6_000);
            scenario.events.push((back_at, Event::PortalUp { host }));
        }
    }
}

/// Lets clients send what they must not, or nothing.
pub(super) fn forgeries(scenario: &mut Scenario, choices: &mut Choices<'_>) {
    if !choices.percent(30) {
        return;
    }
    let clients = clients(scenario);
    let last = u64::try_from(scenario.lasts.saturating_sub(QUIET).as_millis());
    for _ in 0..1 + choices.below(4) {
        let Some(host) = clients.get(choices.index(clients.len())).copied() else {
            return;
        };
        let (_, forgery) = Forgery::NAMED[choices.index(Forgery::NAMED.len())];
        let count = 1 + u32::try_from(choices.below(40)).unwrap_or_default();
        let at = choices.millis(2_000..last.unwrap_or_default());
        let event = Event::Forge {
            host,
            forgery,
            count,
        };
        scenario.events.push((at, event));
    }
}

fn address(choices: &mut Choices<'_>) -> Address {
    let network = NETWORKS[choices.index(NETWORKS.len())];

    network.parse().map_or(Address::Internet, Address::Network)
}

fn filters(choices: &mut Choices<'_>) -> Vec<Filter> {
    let text = FILTERS[choices.index(FILTERS.len())];

    text.split(',').filter_map(|it| it.parse().ok()).collect()
}

fn resource(
    scenario: &Scenario,
    choices: &mut Choices<'_>,
    name: String,
    address: Address,
    sites: &[&str],
) -> Resource {
    let clients = clients(scenario).into_iter();

    Resource {
        name,
        address,
        filters: filters(choices),
        site: sites[choices.index(sites.len())].to_owned(),
        clients: clients.filter(|_| !choices.percent(10)).collect(),
    }
}

fn flow(scenario: &mut Scenario, choices: &mut Choices<'_>, host: usize, nth: u64) {
    let Ok(to) = HOSTS[choices.index(HOSTS.len())].parse() else {
        return;
    };
    let service = SERVICES[choices.index(SERVICES.len())].parse();
    let every = choices.millis(200..800);
    let at = FLOWS_AT + choices.millis(0..5_000);
    let left = scenario.lasts.saturating_sub(at + QUIET);
    let count = u32::try_from(left.as_millis() / every.as_millis()).unwrap_or_default();
    let flow = Flow {
        name: format!("d{host}-{nth}"),
        host,
        to: Target::Ip(to),
        port: None,
        service: service.unwrap_or(Service::udp(7)),
        kind: FlowKind::Ping {
            count,
            every,
            size: u16::try_from(choices.range(12..900)).unwrap_or_default(),
        },
    };
    scenario.events.push((at, Event::Flow(flow)));
}

/// Something changes that packets are decided by.
fn event(scenario: &Scenario, choices: &mut Choices<'_>, sites: &[&str]) -> Option<Event> {
    let clients = clients(scenario);
    let host = *clients.get(choices.index(clients.len()))?;
    let ours = scenario.resources.iter().enumerate();
    let ours: Vec<usize> = ours
        .filter(|(_, it)| it.name.starts_with(['F', 'I']))
        .map(|(number, _)| number)
        .collect();
    let resource = *ours.get(choices.index(ours.len()))?;
    let (was, site) = (
        scenario.resources[resource].address.clone(),
        scenario.resources[resource].site.clone(),
    );
    let is_internet = was == Address::Internet;

    Some(match choices.below(10) {
        0..4 if !is_internet => Event::Change {
            resource,
            address: was,
            filters: filters(choices),
            site,
        },
        4 | 5 if !is_internet => Event::Change {
            resource,
            address: address(choices),
            filters: filters(choices),
            site: sites[choices.index(sites.len())].to_owned(),
        },
        6 | 7 => Event::Revoke { host, resource },
        8 => Event::Allow { host, resource },
        _ => Event::Internet {
            host,
            is_wanted: choices.percent(40),
        },
    })
}
