//! From a text to what happens in a world, and what is expected of it.

use std::net::IpAddr;

use super::Scenario;
use super::events::{Attack, Event, Expectation, Flow, FlowKind, Gone, PathWanted};
use super::lines::{Line, number};
use super::parse::{edge_named, host_named, resource_named};
use super::parse_hosts::{link, place};
use super::quantity::span;

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
        "quiet" => Expectation::Quiet {
            from: line.span("from")?,
            until: line.span("until")?,
            most: line.field("most", number)?,
        },
        other => return Err(format!("`{other}` is no expectation")),
    })
}
