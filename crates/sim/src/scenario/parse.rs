//! From a text to a [`Scenario`].

use std::net::IpAddr;

use super::events::{Attack, Event, Expectation, Flow, FlowKind, Gone, PathWanted};
use super::lines::{Line, number, seed};
use super::quantity::{per_mille, rate, span};
use super::{
    Dependence, Drive, Edge, EdgeKind, Host, Link, Nat, PerMille, Place, PortalLink, Resource,
    Role, Scenario,
};
use crate::faults::Faults;
use crate::world::MAX_HOSTS;

/// The largest fetch, in bytes.
const MAX_FETCH: u32 = 64 * 1024 * 1024;

/// The most requests of a flow.
const MAX_PINGS: u32 = 1_000_000;

/// The largest payload of a request, in bytes: it fits a packet with an IPv6 header.
const MAX_PING_SIZE: u16 = 1_200;

/// A text that is no scenario.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ParseError {
    /// The line's number, from one.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    ///
    /// The first line that can't be understood.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut reader = Reader::default();
        let mut last = 0;
        for (index, line) in text.lines().enumerate() {
            last = index + 1;
            let line = line.split_once('#').map_or(line, |(line, _)| line).trim();
            if !line.is_empty() {
                let at = |what| ParseError { line: last, what };
                reader.line(line).map_err(at)?;
            }
        }

        reader
            .finish()
            .map_err(|what| ParseError { line: last, what })
    }
}

#[derive(Default)]
struct Reader {
    scenario: Option<Scenario>,
    flows: Vec<String>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), String> {
        if let Some(rest) = line.strip_prefix("scenario v1 ") {
            let name = rest
                .trim()
                .strip_prefix('"')
                .and_then(|rest| rest.strip_suffix('"'));
            let name = name.filter(|name| !name.contains('"'));
            let name =
                name.ok_or("the scenario's name must stand in quotes, and have none itself")?;
            if self.scenario.replace(empty(name)).is_some() {
                return Err("a second scenario".to_owned());
            }
            return Ok(());
        }
        let scenario = self.scenario.as_mut();
        let scenario = scenario.ok_or("a scenario begins with `scenario v1 \"name\"`")?;
        if let Some(rest) = line.strip_prefix("t=") {
            let (at, rest) = rest
                .split_once(char::is_whitespace)
                .ok_or("an event is missing")?;
            let at = span(at).ok_or_else(|| format!("`{at}` is no time"))?;
            let event = event(scenario, &mut self.flows, Line::new(rest)?)?;
            scenario.events.push((at, event));
            return Ok(());
        }

        let mut line = Line::new(line)?;
        match line.word("a keyword")? {
            "seed" => scenario.seed = seed(line.word("a seed")?).ok_or("the seed is no number")?,
            "lasts" => {
                scenario.lasts = span(line.word("a duration")?).ok_or("that is no duration")?;
            }
            "drive" => scenario.drive = drive(line.word("exact, every-milli or late")?)?,
            "portal" => scenario.portal = portal(&mut line)?,
            "edge" => {
                let edge = edge(scenario, &mut line)?;
                scenario.edges.push(edge);
            }
            "host" => {
                let host = host(scenario, &mut line)?;
                scenario.hosts.push(host);
            }
            "link" => {
                let host = host_named(scenario, &mut line)?;
                let link = link(&mut line)?;
                if let Some(host) = scenario.hosts.get_mut(host) {
                    host.link = link;
                }
            }
            "faults" => {
                let host = host_named(scenario, &mut line)?;
                let faults = faults(&mut line)?;
                if let Some(host) = scenario.hosts.get_mut(host) {
                    host.faults = faults;
                }
            }
            "res" => {
                let resource = resource(scenario, &mut line)?;
                scenario.resources.push(resource);
            }
            "expect" => {
                let expectation = expectation(scenario, &self.flows, &mut line)?;
                scenario.expect.push(expectation);
            }
            other => return Err(format!("`{other}` is no keyword")),
        }

        line.end()
    }

    fn finish(self) -> Result<Scenario, String> {
        let scenario = self.scenario.ok_or("there is no scenario")?;
        if scenario.lasts.is_zero() {
            return Err("`lasts` is missing".to_owned());
        }

        Ok(scenario)
    }
}

fn empty(name: &str) -> Scenario {
    Scenario {
        name: name.to_owned(),
        seed: 0,
        drive: Drive::Exact,
        lasts: std::time::Duration::ZERO,
        portal: PortalLink::default(),
        edges: Vec::new(),
        hosts: Vec::new(),
        resources: Vec::new(),
        events: Vec::new(),
        expect: Vec::new(),
    }
}

fn drive(word: &str) -> Result<Drive, String> {
    match word {
        "exact" => Ok(Drive::Exact),
        "every-milli" => Ok(Drive::EveryMilli),
        "late" => Ok(Drive::Late),
        other => Err(format!("`{other}` is no way to drive")),
    }
}

fn portal(line: &mut Line<'_>) -> Result<PortalLink, String> {
    let default = PortalLink::default();

    Ok(PortalLink {
        latency: line.maybe("latency", span)?.unwrap_or(default.latency),
        jitter: line.maybe("jitter", span)?.unwrap_or_default(),
        duplicates: line.maybe("dup", per_mille)?.unwrap_or_default(),
        reorders: line.maybe("reorder", per_mille)?.unwrap_or_default(),
    })
}

fn edge(scenario: &Scenario, line: &mut Line<'_>) -> Result<Edge, String> {
    let name = new_name(scenario, line)?;
    let expiry = |line: &mut Line<'_>| line.span("expiry");
    let kind = match line.word("nat, firewall, only-port or blocked")? {
        "nat" => EdgeKind::Nat(Nat {
            ip4: line.field("ip4", number)?,
            mapping: line.field("map", dependence)?,
            filtering: line.field("filter", dependence)?,
            expiry: expiry(line)?,
            keeps_ports: line.flag("keeps-ports"),
            hairpin: line.flag("hairpin"),
        }),
        "firewall" => EdgeKind::Firewall {
            expiry: expiry(line)?,
        },
        "only-port" => EdgeKind::OnlyPort(line.field("port", number)?),
        "blocked" => EdgeKind::Blocked,
        other => return Err(format!("`{other}` is no edge")),
    };
    let behind = line.maybe("behind", |name| edge_named(scenario, name))?;

    Ok(Edge { name, kind, behind })
}

fn dependence(text: &str) -> Option<Dependence> {
    match text {
        "endpoint" => Some(Dependence::Endpoint),
        "address" => Some(Dependence::Address),
        "port" => Some(Dependence::AddressAndPort),
        _ => None,
    }
}

fn host(scenario: &Scenario, line: &mut Line<'_>) -> Result<Host, String> {
    if scenario.hosts.len() >= MAX_HOSTS {
        return Err(format!("more than {MAX_HOSTS} hosts"));
    }
    let name = new_name(scenario, line)?;
    let role = match line.word("client, gateway or relay")? {
        "client" => Role::Client {
            token_ends_at: line.maybe("token-ends", span)?,
        },
        "gateway" => Role::Gateway {
            site: line.field("site", |site| Some(site.to_owned()))?,
        },
        "relay" => Role::Relay,
        other => return Err(format!("`{other}` is no role")),
    };

    Ok(Host {
        name,
        role,
        place: place(scenario, line)?,
        link: Link::default(),
        faults: Faults::default(),
    })
}

fn place(scenario: &Scenario, line: &mut Line<'_>) -> Result<Place, String> {
    Ok(Place {
        ip4: line.maybe("ip4", number)?,
        ip6: line.maybe("ip6", number)?,
        behind: line.maybe("behind", |name| edge_named(scenario, name))?,
    })
}

fn link(line: &mut Line<'_>) -> Result<Link, String> {
    let default = Link::default();
    let mut share = |key| line.maybe(key, per_mille).map(Option::unwrap_or_default);
    let (loss, duplicates): (PerMille, PerMille) = (share("loss")?, share("dup")?);
    let (reorders, corrupts) = (share("reorder")?, share("corrupt")?);

    Ok(Link {
        latency: line.maybe("latency", span)?.unwrap_or(default.latency),
        jitter: line.maybe("jitter", span)?.unwrap_or_default(),
        loss,
        duplicates,
        reorders,
        corrupts,
        mtu: line.maybe("mtu", number)?.unwrap_or(default.mtu),
        rate: line.maybe("rate", rate)?,
        queue: line.maybe("queue", span)?.unwrap_or(default.queue),
    })
}

fn faults(line: &mut Line<'_>) -> Result<Faults, String> {
    let range = |text: &str| {
        let (start, end) = text.split_once("..")?;
        let (start, end): (u64, u64) = (start.parse().ok()?, end.parse().ok()?);

        (start <= end && end - start <= 10_000).then_some(start..end)
    };
    let error = |text: &str| {
        let (nth, errno) = text.split_once(':')?;
        Some((nth.parse().ok()?, errno.parse().ok()?))
    };
    let mut span_of = |key| line.maybe(key, range).map(|range| range.unwrap_or(0..0));

    Ok(Faults {
        sends_blocked: span_of("sends-blocked")?,
        receives_blocked: span_of("receives-blocked")?,
        writes_blocked: span_of("writes-blocked")?,
        reads_blocked: span_of("reads-blocked")?,
        sends_without_memory: span_of("no-memory")?,
        accepts: line.maybe("accepts", number)?,
        send_errors: line.maybe("send-error", error)?.into_iter().collect(),
        receive_errors: line.maybe("receive-error", error)?.into_iter().collect(),
        refuses_runs: line.flag("refuses-runs"),
        tun_comes_at: line.maybe("tun-comes", span)?.unwrap_or_default(),
        tun_vanishes_at: line.maybe("tun-vanishes", span)?,
        outputs_are_slow: line.flag("slow-outputs"),
        workers: line.maybe("workers", number)?,
    })
}

fn resource(scenario: &Scenario, line: &mut Line<'_>) -> Result<Resource, String> {
    let name = line.word("a name")?.to_owned();
    if scenario.resources.iter().any(|other| other.name == name) {
        return Err(format!("a second `{name}`"));
    }
    let network: ipnet::IpNet = line.field("cidr", number)?;
    let clients = |text: &str| {
        let names = text.split(',').filter(|name| *name != "nobody");
        names
            .map(|name| find_host(scenario, name))
            .collect::<Option<Vec<usize>>>()
    };
    let all = || {
        let hosts = scenario.hosts.iter().enumerate();
        hosts
            .filter(|(_, host)| matches!(host.role, Role::Client { .. }))
            .map(|(host, _)| host)
    };

    Ok(Resource {
        name,
        network: network.trunc(),
        site: line.field("site", |site| Some(site.to_owned()))?,
        clients: line
            .maybe("for", clients)?
            .unwrap_or_else(|| all().collect()),
    })
}

fn event(
    scenario: &Scenario,
    flows: &mut Vec<String>,
    mut line: Line<'_>,
) -> Result<Event, String> {
    let keyword = line.word("an event")?;
    let event = match keyword {
        "ping" | "fetch" => flow(scenario, flows, keyword, &mut line)?,
        "detach" => Event::Detach {
            host: host_named(scenario, &mut line)?,
        },
        "attach" => Event::Attach {
            host: host_named(scenario, &mut line)?,
            place: place(scenario, &mut line)?,
        },
        "stop" | "kill" => Event::End {
            host: host_named(scenario, &mut line)?,
            how: if keyword == "stop" {
                Gone::Stopped
            } else {
                Gone::Killed
            },
        },
        "start" => Event::Start {
            host: host_named(scenario, &mut line)?,
            keeps_secret: !line.flag("new-secret"),
        },
        "link" => Event::Link {
            host: host_named(scenario, &mut line)?,
            link: link(&mut line)?,
        },
        "block" => Event::Block {
            hosts: [
                host_named(scenario, &mut line)?,
                host_named(scenario, &mut line)?,
            ],
        },
        "unblock" => Event::Unblock {
            hosts: [
                host_named(scenario, &mut line)?,
                host_named(scenario, &mut line)?,
            ],
        },
        "portal-down" => Event::PortalDown {
            host: host_named(scenario, &mut line)?,
        },
        "portal-up" => Event::PortalUp {
            host: host_named(scenario, &mut line)?,
        },
        "portal-hangs" => Event::PortalHangs {
            host: host_named(scenario, &mut line)?,
        },
        "portal-goes-on" => Event::PortalGoesOn {
            host: host_named(scenario, &mut line)?,
        },
        "portal-restarts" => Event::PortalRestarts {
            after: line.span("after")?,
        },
        "suspend" => Event::Suspend {
            host: host_named(scenario, &mut line)?,
            time: line.span("for")?,
        },
        "clock-steps" => Event::ClockSteps {
            seconds: line.field("seconds", number)?,
        },
        "forget" => Event::Forget {
            edge: edge_named(scenario, line.word("an edge")?).ok_or("there is no such edge")?,
        },
        "allow" => Event::Allow {
            host: host_named(scenario, &mut line)?,
            resource: resource_named(scenario, &mut line)?,
        },
        "revoke" => Event::Revoke {
            host: host_named(scenario, &mut line)?,
            resource: resource_named(scenario, &mut line)?,
        },
        "attack" => Event::Attack {
            host: host_named(scenario, &mut line)?,
            attack: attack(line.word("an attack")?)?,
            count: line.field("count", number)?,
        },
        other => return Err(format!("`{other}` is no event")),
    };
    line.end()?;

    Ok(event)
}

fn flow(
    scenario: &Scenario,
    flows: &mut Vec<String>,
    keyword: &str,
    line: &mut Line<'_>,
) -> Result<Event, String> {
    let host = host_named(scenario, line)?;
    let to: IpAddr = number(line.word("an address")?).ok_or("that is no address")?;
    let kind = match keyword {
        "ping" => FlowKind::Ping {
            count: line.field("count", |text| {
                number(text).filter(|count| *count <= MAX_PINGS)
            })?,
            every: line.field("every", |text| span(text).filter(|every| !every.is_zero()))?,
            size: line
                .maybe("size", |text| {
                    number(text).filter(|size| *size <= MAX_PING_SIZE)
                })?
                .unwrap_or(64),
        },
        _ => FlowKind::Fetch {
            bytes: line.field("bytes", |text| {
                number(text).filter(|bytes| *bytes <= MAX_FETCH)
            })?,
        },
    };
    let name: String = line.field("id", |name| Some(name.to_owned()))?;
    if flows.contains(&name) {
        return Err(format!("a second `{name}`"));
    }
    flows.push(name.clone());

    Ok(Event::Flow(Flow {
        name,
        host,
        to,
        kind,
    }))
}

fn attack(word: &str) -> Result<Attack, String> {
    match word {
        "replay" => Ok(Attack::Replay),
        "replay-elsewhere" => Ok(Attack::ReplayElsewhere),
        "garbage" => Ok(Attack::Garbage),
        "stun" => Ok(Attack::Stun),
        "handshakes" => Ok(Attack::Handshakes),
        other => Err(format!("`{other}` is no attack")),
    }
}

fn expectation(
    scenario: &Scenario,
    flows: &[String],
    line: &mut Line<'_>,
) -> Result<Expectation, String> {
    let flow = |line: &mut Line<'_>| {
        let name = line.word("a flow")?;
        let found = flows.iter().position(|flow| flow == name);
        found.ok_or_else(|| format!("there is no flow `{name}`"))
    };

    Ok(match line.word("an expectation")? {
        "complete" => Expectation::Complete {
            flow: flow(line)?,
            by: line.span("by")?,
        },
        "answered" => Expectation::Answered {
            flow: flow(line)?,
            least: line.field("least", number)?,
            most: line.maybe("most", number)?.unwrap_or(u32::MAX),
        },
        "path" => Expectation::Path {
            host: host_named(scenario, line)?,
            path: match line.word("direct, relayed or none")? {
                "direct" => PathWanted::Direct,
                "relayed" => PathWanted::Relayed,
                "none" => PathWanted::None,
                other => return Err(format!("`{other}` is no path")),
            },
            at: line.span("at")?,
        },
        "path-changes" => Expectation::PathChanges {
            host: host_named(scenario, line)?,
            most: line.field("most", number)?,
            from: line.maybe("from", span)?.unwrap_or_default(),
        },
        "gap" => Expectation::Gap {
            flow: flow(line)?,
            most: line.span("most")?,
            from: line.maybe("from", span)?.unwrap_or_default(),
        },
        "within" => Expectation::Within {
            flow: flow(line)?,
            most: line.span("most")?,
        },
        "quiet" => Expectation::Quiet {
            from: line.span("from")?,
            until: line.span("until")?,
            most: line.field("most", number)?,
        },
        other => return Err(format!("`{other}` is no expectation")),
    })
}

fn new_name(scenario: &Scenario, line: &mut Line<'_>) -> Result<String, String> {
    let name = line.word("a name")?;
    let is_taken = find_host(scenario, name).is_some() || edge_named(scenario, name).is_some();

    match is_taken {
        true => Err(format!("a second `{name}`")),
        false => Ok(name.to_owned()),
    }
}

fn find_host(scenario: &Scenario, name: &str) -> Option<usize> {
    scenario.hosts.iter().position(|host| host.name == name)
}

fn host_named(scenario: &Scenario, line: &mut Line<'_>) -> Result<usize, String> {
    let name = line.word("a host")?;

    find_host(scenario, name).ok_or_else(|| format!("there is no host `{name}`"))
}

fn edge_named(scenario: &Scenario, name: &str) -> Option<usize> {
    scenario.edges.iter().position(|edge| edge.name == name)
}

fn resource_named(scenario: &Scenario, line: &mut Line<'_>) -> Result<usize, String> {
    let name = line.word("a resource")?;
    let found = scenario
        .resources
        .iter()
        .position(|other| other.name == name);

    found.ok_or_else(|| format!("there is no resource `{name}`"))
}
