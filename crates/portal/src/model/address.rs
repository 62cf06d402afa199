//! What a resource stands for, and what may pass, as people write them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use connlib_wire::portal::resource::{Filter, IpStack, PortRange};
use ipnet::IpNet;

/// The longest name that DNS can carry, in text form (RFC 1035 §2.3.4).
const MAX_NAME: usize = 253;

/// The longest label of a name (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;

/// What a resource stands for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Address {
    /// A network.
    Cidr(IpNet),
    /// Names.
    Dns {
        /// Which ones: `*` for a part of a label, `**` for any labels, `?` for one character (client.md §3).
        pattern: String,
        /// The address families they resolve to.
        ip_stack: IpStack,
    },
    /// Everything that no other resource covers.
    Internet,
}

/// A text that is neither a network, nor names, nor the Internet.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidAddress {
    /// It looks like an address or network and is none.
    #[error(
        "`{0}` is not an IP address or network; write `10.20.0.0/16`, `10.20.0.1` or `fd00::/64`"
    )]
    NotANetwork(String),
    /// The network has bits behind its prefix.
    #[error(
        "`{given}` has bits set behind its prefix; write `{network}` for the network or `{address}` for the host"
    )]
    HostBits {
        /// What was given.
        given: IpNet,
        /// The network that it is in.
        network: IpNet,
        /// The host that it names.
        address: IpAddr,
    },
    /// It is no pattern of names.
    #[error("`{pattern}` is not a pattern of DNS names: {problem}")]
    NotAPattern {
        /// What was given.
        pattern: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// A text that is no filter.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is not a filter; write `tcp/443`, `udp/1000-2000`, `tcp`, `udp` or `icmp`")]
pub struct InvalidFilter(String);

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        if text == "internet" {
            return Ok(Self::Internet);
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Cidr(address.into()));
        }
        if let Ok(given) = text.parse::<IpNet>() {
            let network = given.trunc();
            if given != network {
                return Err(InvalidAddress::HostBits {
                    given,
                    network,
                    address: given.addr(),
                });
            }
            return Ok(Self::Cidr(network));
        }
        let is_meant_as_network = text.contains(['/', ':'])
            || text
                .chars()
                .all(|character| character.is_ascii_digit() || character == '.');
        if is_meant_as_network {
            return Err(InvalidAddress::NotANetwork(text.to_owned()));
        }
        if let Err(problem) = check_pattern(text) {
            return Err(InvalidAddress::NotAPattern {
                pattern: text.to_owned(),
                problem,
            });
        }

        Ok(Self::Dns {
            pattern: text.to_owned(),
            ip_stack: IpStack::Dual,
        })
    }
}

/// Writes what [`Address::from_str`] reads.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cidr(network) => network.fmt(f),
            Self::Dns { pattern, .. } => f.write_str(pattern),
            Self::Internet => f.write_str("internet"),
        }
    }
}

/// Reads `tcp/80-443`, `udp/53`, `tcp`, `udp` or `icmp`.
///
/// # Errors
///
/// [`InvalidFilter`], also for a range that ends before it begins.
pub fn parse_filter(text: &str) -> Result<Filter, InvalidFilter> {
    let invalid = || InvalidFilter(text.to_owned());
    let (protocol, ports) = match text.split_once('/') {
        Some((protocol, ports)) => (protocol, Some(ports)),
        None => (text, None),
    };
    let range = || parse_ports(ports).ok_or_else(invalid);

    match (protocol, ports) {
        ("icmp", None) => Ok(Filter::Icmp),
        ("tcp", _) => range().map(Filter::Tcp),
        ("udp", _) => range().map(Filter::Udp),
        _ => Err(invalid()),
    }
}

/// Writes what [`parse_filter`] reads.
pub fn filter_text(filter: &Filter) -> String {
    let (protocol, ports) = match filter {
        Filter::Tcp(ports) => ("tcp", ports),
        Filter::Udp(ports) => ("udp", ports),
        Filter::Icmp => return "icmp".to_owned(),
        Filter::Unknown | _ => return "unknown".to_owned(),
    };
    let PortRange {
        port_range_start,
        port_range_end,
    } = ports;

    match (*port_range_start, *port_range_end) {
        (0, u16::MAX) => protocol.to_owned(),
        (start, end) if start == end => format!("{protocol}/{start}"),
        (start, end) => format!("{protocol}/{start}-{end}"),
    }
}

/// Says what is wrong with `name` as a plain DNS name.
pub(crate) fn check_name(name: &str) -> Result<(), &'static str> {
    check_pattern(name)?;
    if name.contains(['*', '?']) {
        return Err("a plain name has no wildcards");
    }

    Ok(())
}

fn check_pattern(pattern: &str) -> Result<(), &'static str> {
    if pattern.len() > MAX_NAME {
        return Err("it is longer than 253 characters");
    }
    for label in pattern.split('.') {
        check_label(label)?;
    }

    Ok(())
}

fn check_label(label: &str) -> Result<(), &'static str> {
    if label == "**" {
        return Ok(());
    }
    if label.is_empty() {
        return Err("it has an empty label");
    }
    if label.len() > MAX_LABEL {
        return Err("a label is longer than 63 characters");
    }
    if label.contains("**") {
        return Err("`**` must be a whole label");
    }
    let is_allowed =
        |character: char| character.is_ascii_alphanumeric() || "-_*?".contains(character);
    if !label.chars().all(is_allowed) {
        return Err(
            "only ASCII letters, digits, `-`, `_`, `*` and `?` may stand in a label (write other scripts as `xn--…`)",
        );
    }

    Ok(())
}

fn parse_ports(ports: Option<&str>) -> Option<PortRange> {
    let Some(ports) = ports else {
        return Some(PortRange {
            port_range_start: 0,
            port_range_end: u16::MAX,
        });
    };
    let (start, end) = ports.split_once('-').unwrap_or((ports, ports));
    let range = PortRange {
        port_range_start: parse_port(start)?,
        port_range_end: parse_port(end)?,
    };

    (range.port_range_start <= range.port_range_end).then_some(range)
}

fn parse_port(text: &str) -> Option<u16> {
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit());

    // `u16::from_str` takes a plus sign too.
    is_decimal.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_apart() {
        let cidr = |text: &str| Address::Cidr(text.parse().unwrap());
        assert_eq!("10.20.0.0/16".parse(), Ok(cidr("10.20.0.0/16")));
        assert_eq!("10.20.0.1".parse(), Ok(cidr("10.20.0.1/32")));
        assert_eq!("fd00::1".parse(), Ok(cidr("fd00::1/128")));
        assert_eq!("internet".parse(), Ok(Address::Internet));
        for pattern in [
            "wiki.corp.test",
            "*.corp.test",
            "**.corp.test",
            "app.f??.test",
            "*ample.com",
            "_srv.test",
            "intranet",
        ] {
            let Ok(Address::Dns { pattern: read, .. }) = pattern.parse() else {
                panic!("{pattern}");
            };
            assert_eq!(read, pattern);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "10.20.0.0/33",
            "10.20.0.300",
            "10.20.0.5/16",
            "fd00::/129",
            "fd00:::1",
            "",
            "a..b",
            ".corp.test",
            "corp.test.",
            "**x.corp.test",
            "***",
            "a[b.test",
            "wiki corp",
            "bücher.test",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
        let long = format!("{}.test", "a".repeat(64));
        assert!(long.parse::<Address>().is_err());
        assert!(check_name("*.corp.test").is_err());
        assert!(check_name("corp.test").is_ok());
    }

    #[test]
    fn filters_are_read_as_they_are_written() {
        for text in ["tcp/80-443", "udp/53", "icmp", "tcp", "udp", "tcp/0"] {
            assert_eq!(filter_text(&parse_filter(text).unwrap()), text);
        }
        for text in [
            "",
            "sctp/1",
            "icmp/1",
            "tcp/",
            "tcp/443-80",
            "tcp/65536",
            "tcp/+80",
            "tcp/-1",
            "tcp/1-2-3",
            "TCP/80",
        ] {
            assert!(parse_filter(text).is_err(), "{text}");
        }
    }
}
