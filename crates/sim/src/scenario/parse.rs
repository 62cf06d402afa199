//! From a text to a [`Scenario`].

use super::lines::{Line, seed};
use super::parse_events::{event, expectation};
use super::parse_hosts::{drive, edge, error_host, faults, host, link, portal, resource};
use super::parse_names::{name, resolvers, server, upstream};
use super::quantity::span;
use super::{Drive, PortalLink, Scenario, Upstream};

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
            "error-host" => scenario.error_hosts.push(error_host(&mut line)?),
            "name" => scenario.names.push(name(&mut line)?),
            "dns" => {
                let server = server(scenario, &mut line)?;
                scenario.servers.push(server);
            }
            "resolvers" => {
                let resolvers = resolvers(scenario, &mut line)?;
                scenario.resolvers.push(resolvers);
            }
            "upstream" => scenario.upstream = upstream(&mut line)?,
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
        names: Vec::new(),
        servers: Vec::new(),
        error_hosts: Vec::new(),
        resolvers: Vec::new(),
        upstream: Upstream::default(),
        events: Vec::new(),
        expect: Vec::new(),
    }
}

pub(super) fn new_name(scenario: &Scenario, line: &mut Line<'_>) -> Result<String, String> {
    let name = line.word("a name")?;
    let is_taken = find_host(scenario, name).is_some() || edge_named(scenario, name).is_some();

    match is_taken {
        true => Err(format!("a second `{name}`")),
        false => Ok(name.to_owned()),
    }
}

pub(super) fn find_host(scenario: &Scenario, name: &str) -> Option<usize> {
    scenario.hosts.iter().position(|host| host.name == name)
}

pub(super) fn host_named(scenario: &Scenario, line: &mut Line<'_>) -> Result<usize, String> {
    let name = line.word("a host")?;

    find_host(scenario, name).ok_or_else(|| format!("there is no host `{name}`"))
}

pub(super) fn edge_named(scenario: &Scenario, name: &str) -> Option<usize> {
    scenario.edges.iter().position(|edge| edge.name == name)
}

pub(super) fn resource_named(scenario: &Scenario, line: &mut Line<'_>) -> Result<usize, String> {
    let name = line.word("a resource")?;
    let found = scenario
        .resources
        .iter()
        .position(|other| other.name == name);

    found.ok_or_else(|| format!("there is no resource `{name}`"))
}
