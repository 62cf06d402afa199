//! From a text to what happens in a world, and what is expected of it.

use super::Scenario;
use super::events::{Attack, Event, Expectation, Flow, FlowKind, Forgery, Gone, PathWanted};
use super::filters::Protocol;
use super::lines::{Line, number};
use super::names::Target;
use super::parse::{edge_named, host_named, resource_named};
use super::parse_hosts::{link, place};
use super::parse_names::{
    address, filters, lookup, manners_change, name, resolvers, said, target, upstream,
};
use super::quantity::{per_mille, span};

/// The largest fetch, in bytes.
const MAX_FETCH: u32 = 64 * 1024 * 1024;

/// The most requests of a flow.
const MAX_PINGS: u32 = 1_000_000;

/// The largest payload of a request, in bytes: it fits a packet with an IPv6 header.
const MAX_PING_SIZE: u16 = 1_200;

pub(super) fn event(
    scenario: &Scenario,
    flows: &mut Vec<String>,
    mut line: Line<'_>,
) -> Result<Event, String> {
    let keyword = line.word("an event")?;
    let event = match keyword {
        "ping" | "fetch" | "lookup" => flow(scenario, flows, keyword, &mut line)?,
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
        "portal-down" | "portal-up" | "portal-hangs" | "portal-goes-on" => {
            portal_event(keyword, host_named(scenario, &mut line)?)
        }
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
        "allow" | "revoke" | "change" | "internet" | "forge" => {
            access_event(scenario, keyword, &mut line)?
        }
        "name" | "dns" | "resolvers" | "upstream" => names_event(scenario, keyword, &mut line)?,
        "reset" => Event::Reset {
            host: host_named(scenario, &mut line)?,
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

fn portal_event(keyword: &str, host: usize) -> Event {
    match keyword {
        "portal-down" => Event::PortalDown { host },
        "portal-up" => Event::PortalUp { host },
        "portal-hangs" => Event::PortalHangs { host },
        _ => Event::PortalGoesOn { host },
    }
}

fn access_event(scenario: &Scenario, keyword: &str, line: &mut Line<'_>) -> Result<Event, String> {
    if keyword == "change" {
        return Ok(Event::Change {
            resource: resource_named(scenario, line)?,
            address: address(line)?,
            filters: filters(line)?,
            site: line.field("site", |site| Some(site.to_owned()))?,
        });
    }
    let host = host_named(scenario, line)?;

    Ok(match keyword {
        "allow" => Event::Allow {
            host,
            resource: resource_named(scenario, line)?,
        },
        "revoke" => Event::Revoke {
            host,
            resource: resource_named(scenario, line)?,
        },
        "forge" => Event::Forge {
            host,
            forgery: forgery(line.word("a forgery")?)?,
            count: line.field("count", number)?,
        },
        _ => Event::Internet {
            host,
            is_wanted: match line.word("on or off")? {
                "on" => true,
                "off" => false,
                other => return Err(format!("`{other}` is neither on nor off")),
            },
        },
    })
}

fn forgery(word: &str) -> Result<Forgery, String> {
    let mut named = Forgery::NAMED.into_iter();
    let found = named.find(|(name, _)| *name == word);

    found
        .map(|(_, forgery)| forgery)
        .ok_or_else(|| format!("`{word}` is no forgery"))
}

fn names_event(scenario: &Scenario, keyword: &str, line: &mut Line<'_>) -> Result<Event, String> {
    Ok(match keyword {
        "name" => Event::Name(name(line)?),
        "dns" => manners_change(scenario, line)?,
        "resolvers" => {
            let (host, servers) = resolvers(scenario, line)?;
            Event::Resolvers { host, servers }
        }
        _ => Event::Upstream(upstream(line)?),
    })
}

fn flow(
    scenario: &Scenario,
    flows: &mut Vec<String>,
    keyword: &str,
    line: &mut Line<'_>,
) -> Result<Event, String> {
    let host = host_named(scenario, line)?;
    let mut to = target(line)?;
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
        "lookup" => FlowKind::Lookup(lookup(line)?),
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
    if let Target::Name { is_cached, .. } = &mut to {
        *is_cached = line.flag("cached");
    }
    let port = line.maybe("port", number)?;
    let default = kind.default_service();
    let service = line.maybe("proto", number)?.unwrap_or(default);
    if matches!(kind, FlowKind::Fetch { .. }) && service.protocol != Protocol::Udp {
        return Err("whoever fetches does so by UDP".to_owned());
    }

    Ok(Event::Flow(Flow {
        name,
        host,
        to,
        port,
        service,
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
        "turn" => Ok(Attack::Turn),
        "flood" => Ok(Attack::Flood),
        other => Err(format!("`{other}` is no attack")),
    }
}

pub(super) fn expectation(
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
        "said" => {
            let flow = flow(line)?;
            Expectation::Said(said(flow, line)?)
        }
        "reaches" => Expectation::Reaches {
            flow: flow(line)?,
            ip: line.field("ip", number)?,
        },
        "fair" => Expectation::Fair {
            flows: line.field("flows", |names| {
                let numbers = names
                    .split(',')
                    .map(|name| flows.iter().position(|flow| flow == name));
                numbers.collect()
            })?,
            least: line.field("least", per_mille)?,
            from: line.span("from")?,
            until: line.span("until")?,
        },
        "quiet" => Expectation::Quiet {
            from: line.span("from")?,
            until: line.span("until")?,
            most: line.field("most", number)?,
        },
        other => return Err(format!("`{other}` is no expectation")),
    })
}
