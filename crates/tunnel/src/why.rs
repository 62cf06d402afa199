//! What would become of a packet, and why, told to people (cli.md, "Looking inside").

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use connlib_link::{Links, PeerId};
use connlib_wire::buffer::{Buffer, Pool};
use connlib_wire::dns::Name;
use connlib_wire::id::GatewayId;
use connlib_wire::ip::{self, Echo, IcmpError, Packet, Transport};
use connlib_wire::portal::resource::Filter;
use serde::Serialize;

/// A packet that somebody asks about: `ADDRESS|NAME[:PORT][/tcp|udp|icmp]`. With a port and no protocol it is TCP, with neither
/// an echo.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Question {
    /// Where it goes.
    pub to: Target,
    /// Its protocol: TCP, UDP or ICMP.
    pub transport: Transport,
    /// The port it goes to.
    pub port: Option<u16>,
}

/// Where a packet goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    /// To an address.
    Address(IpAddr),
    /// To a name.
    Name(Name),
}

/// Why a text describes no packet.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum QuestionError {
    /// What stands behind the slash is no protocol.
    #[error("`{0}` is no protocol: write tcp, udp or icmp")]
    Protocol(String),
    /// What stands behind the colon is no port.
    #[error("`{0}` is no port: write a number from 1 to 65535")]
    Port(String),
    /// TCP and UDP have ports.
    #[error("{0} needs a port: write ADDRESS:PORT/{0}")]
    NoPort(&'static str),
    /// ICMP has none.
    #[error("icmp has no ports: leave the port out")]
    PortOfIcmp,
    /// What stands in front is neither.
    #[error("`{0}` is neither an address nor a name")]
    Target(String),
}

impl FromStr for Question {
    type Err = QuestionError;

    fn from_str(text: &str) -> Result<Self, QuestionError> {
        let (rest, protocol) = match text.rsplit_once('/') {
            Some((rest, protocol)) => (rest, Some(protocol)),
            None => (text, None),
        };
        let (to, port) = split_port(rest);
        let port = match port {
            Some(port) => {
                let number: Option<u16> = port.parse().ok().filter(|number| *number > 0);
                Some(number.ok_or_else(|| QuestionError::Port(port.to_owned()))?)
            }
            None => None,
        };
        let transport = match (protocol, port) {
            (Some("tcp"), None) => return Err(QuestionError::NoPort("tcp")),
            (Some("udp"), None) => return Err(QuestionError::NoPort("udp")),
            (Some("icmp"), Some(_)) => return Err(QuestionError::PortOfIcmp),
            (Some("tcp") | None, Some(_)) => Transport::Tcp,
            (Some("udp"), Some(_)) => Transport::Udp,
            (Some("icmp") | None, None) => Transport::Icmp,
            (Some(other), _) => return Err(QuestionError::Protocol(other.to_owned())),
        };
        let to = match to.parse() {
            Ok(ip) => Target::Address(ip),
            Err(_) => Target::Name(
                Name::parse(to)
                    .ok()
                    .filter(|name| !name.as_str().is_empty() && !to.contains([':', '[', ' ']))
                    .ok_or_else(|| QuestionError::Target(to.to_owned()))?,
            ),
        };

        Ok(Self {
            to,
            transport,
            port,
        })
    }
}

/// An address or a name, and what stands behind its colon. An IPv6 address with a port has brackets.
fn split_port(text: &str) -> (&str, Option<&str>) {
    if text.parse::<Ipv6Addr>().is_ok() {
        return (text, None);
    }
    if let Some(bare) = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
    {
        return (bare, None);
    }
    match text.rsplit_once(':') {
        Some((to, port)) => (
            to.strip_prefix('[')
                .and_then(|to| to.strip_suffix(']'))
                .unwrap_or(to),
            Some(port),
        ),
        None => (text, None),
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.to, self.port) {
            (Target::Address(ip), Some(port)) => SocketAddr::new(*ip, port).fmt(f)?,
            (Target::Address(ip), None) => ip.fmt(f)?,
            (Target::Name(name), Some(port)) => write!(f, "{}:{port}", name.as_str())?,
            (Target::Name(name), None) => f.write_str(name.as_str())?,
        }

        write!(f, "/{}", word(self.transport))
    }
}

/// What would become of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It would arrive at once, as far as is known here.
    Passes,
    /// It would be kept until something is there: access, a connection, an address.
    Waits,
    /// It would not arrive, and its sender would be told.
    Refused,
    /// It is none of ours.
    Outside,
}

/// What would become of a packet, and why.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The packet.
    pub packet: String,
    /// On a gateway: the client that would send it.
    pub client: Option<String>,
    /// What would become of it.
    pub verdict: Verdict,
    /// Why, in a sentence.
    pub why: String,
    /// The address that it would go to, where that stands for a name or was found for one.
    pub address: Option<IpAddr>,
    /// The resource that it belongs to.
    pub resource: Option<ExplainedResource>,
    /// What may pass to that resource, where that isn't everything.
    pub filters: Vec<String>,
    /// The gateway that it would go through.
    pub gateway: Option<String>,
    /// The way to that gateway or client: `direct` or `relayed`.
    pub path: Option<&'static str>,
    /// The seconds until access ends, if it does and that is known.
    pub ends_in_secs: Option<u64>,
}

/// The resource that a packet belongs to.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct ExplainedResource {
    /// Its id.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Its network or pattern.
    pub address: Option<String>,
}

impl Explanation {
    pub(crate) fn new(question: &Question, verdict: Verdict, why: impl Into<String>) -> Self {
        Self {
            packet: question.to_string(),
            client: None,
            verdict,
            why: why.into(),
            address: None,
            resource: None,
            filters: Vec::new(),
            gateway: None,
            path: None,
            ends_in_secs: None,
        }
    }

    /// Adds by which way a peer is reached, if there is one.
    pub(crate) fn find_path(&mut self, links: &Links, peer: PeerId) {
        let kind = links.path_kind(peer);
        self.path = kind.map(|kind| match kind.is_relayed() {
            true => "relayed",
            false => "direct",
        });
    }

    pub(crate) fn through(mut self, gateway: GatewayId) -> Self {
        self.gateway = Some(gateway.to_string());
        self
    }

    pub(crate) fn with_filters(mut self, filters: &[Filter]) -> Self {
        self.filters = filters.iter().map(described).collect();
        self
    }
}

/// A packet like the one that is asked about.
pub(crate) fn probe(
    pool: &Pool,
    question: &Question,
    source: IpAddr,
    destination: IpAddr,
) -> Option<Packet<Buffer>> {
    /// A port that programs get from the system.
    const OWN_PORT: u16 = 50_000;
    let ends = |port| {
        (
            SocketAddr::new(source, OWN_PORT),
            SocketAddr::new(destination, port),
        )
    };
    match (question.transport, question.port) {
        (Transport::Udp, Some(port)) => {
            let (from, to) = ends(port);
            ip::udp(pool, from, to, &[])
        }
        (Transport::Tcp, Some(port)) => {
            let (from, to) = ends(port);
            ip::syn(pool, from, to)
        }
        _ => ip::echo(
            pool,
            (source, destination),
            Echo::Request,
            (OWN_PORT, 1),
            &[],
        ),
    }
}

/// What a packet's sender is told.
pub(crate) fn told(error: IcmpError) -> &'static str {
    match error {
        IcmpError::Prohibited => "its sender is told that this is prohibited",
        IcmpError::Unreachable | IcmpError::TooBig { .. } | _ => {
            "its sender is told that it can't be reached"
        }
    }
}

fn described(filter: &Filter) -> String {
    let (word, range) = match filter {
        Filter::Tcp(range) => ("tcp", Some(range)),
        Filter::Udp(range) => ("udp", Some(range)),
        Filter::Icmp => ("icmp", None),
        Filter::Unknown | _ => ("another protocol", None),
    };
    match range.map(|range| (range.port_range_start, range.port_range_end)) {
        Some((0, u16::MAX)) | None => word.to_owned(),
        Some((first, last)) if first == last => format!("{word}/{first}"),
        Some((first, last)) => format!("{word}/{first}-{last}"),
    }
}

pub(crate) fn word(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
        Transport::Icmp => "icmp",
        Transport::Other(_) => "another protocol",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_described_in_every_form_and_printed_in_one() {
        for (text, printed) in [
            ("10.0.0.1", "10.0.0.1/icmp"),
            ("10.0.0.1/icmp", "10.0.0.1/icmp"),
            ("10.0.0.1:80", "10.0.0.1:80/tcp"),
            ("10.0.0.1:53/udp", "10.0.0.1:53/udp"),
            ("2001:db8::1", "2001:db8::1/icmp"),
            ("[2001:db8::1]", "2001:db8::1/icmp"),
            ("[2001:db8::1]:443", "[2001:db8::1]:443/tcp"),
            ("Wiki.corp.test:443", "wiki.corp.test:443/tcp"),
            ("wiki.corp.test./icmp", "wiki.corp.test/icmp"),
            ("wiki:1/tcp", "wiki:1/tcp"),
        ] {
            let question: Question = text.parse().unwrap();
            assert_eq!(question.to_string(), printed, "{text}");
            assert_eq!(printed.parse(), Ok(question), "{text}");
        }
    }

    #[test]
    fn what_describes_no_packet_says_what_is_wrong() {
        for (text, complaint) in [
            ("", "neither an address nor a name"),
            (":80", "neither an address nor a name"),
            ("two words", "neither an address nor a name"),
            ("[::1", "neither an address nor a name"),
            ("10.0.0.1:0", "`0` is no port"),
            ("10.0.0.1:65536", "`65536` is no port"),
            ("10.0.0.1:http", "`http` is no port"),
            ("10.0.0.1/tcp", "tcp needs a port"),
            ("10.0.0.1/udp", "udp needs a port"),
            ("10.0.0.1:1/icmp", "icmp has no ports"),
            ("10.0.0.1:1/sctp", "`sctp` is no protocol"),
            ("10.0.0.0/8", "`8` is no protocol"),
        ] {
            let error = text.parse::<Question>().unwrap_err().to_string();
            assert!(error.contains(complaint), "{text}: {error}");
        }
    }
}
