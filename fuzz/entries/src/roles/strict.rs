//! Packets as a host reads them that believes nothing: written from the standards, and knowing nothing of `connlib-wire`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a packet says of itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Seen {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// What lies behind every header that a host would follow.
    pub(super) protocol: u8,
    /// Whether it is a part of a packet that doesn't begin here.
    pub(super) is_later_part: bool,
    /// Whether other parts follow it.
    has_more: bool,
    /// The ports of TCP and UDP.
    pub(super) ports: Option<(u16, u16)>,
    /// Type and code of ICMP.
    pub(super) icmp: Option<(u8, u8)>,
    /// Where its transport header lies.
    pub(super) transport_at: usize,
    /// Whether every checksum is right that this piece alone can tell.
    pub(super) sums_are_right: bool,
}

pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMPV6: u8 = 58;

/// Reads a whole packet, or says what is wrong with it.
pub(super) fn read(bytes: &[u8]) -> Result<Seen, &'static str> {
    if !states_its_length(bytes) {
        return Err("it states another length");
    }
    let seen = headers(bytes)?;
    let transport = &bytes[seen.transport_at..];
    let length_of = |at: usize| usize::from(word(transport, at).unwrap_or(0));
    if seen.is_later_part {
        return Ok(seen);
    }
    match seen.protocol {
        // What is missing lies in other parts.
        UDP if seen.has_more => {}
        UDP if length_of(4) != transport.len() => return Err("UDP's length is another"),
        TCP => {
            let header = transport
                .get(12)
                .map_or(0, |byte| usize::from(byte >> 4) * 4);
            if header < 20 || header > transport.len() {
                return Err("TCP's header doesn't fit");
            }
        }
        ICMP | ICMPV6 if (seen.protocol == ICMP) != seen.source.is_ipv4() => {
            return Err("ICMP of the other family");
        }
        ICMP | ICMPV6 if transport.len() < 8 => return Err("ICMP is cut"),
        _ => {}
    }

    Ok(seen)
}

/// What an ICMP error quotes: as much of a packet's headers as there is.
pub(super) fn quoted(bytes: &[u8], error: &Seen) -> Option<Seen> {
    let inner = bytes.get(error.transport_at + 8..)?;

    is_error(error).then(|| headers(inner).ok()).flatten()
}

/// Whether it reports about another packet.
pub(super) fn is_error(seen: &Seen) -> bool {
    match (seen.protocol, seen.icmp) {
        (ICMP, Some((kind, _))) => matches!(kind, 3 | 4 | 5 | 11 | 12),
        (ICMPV6, Some((kind, _))) => kind < 128,
        _ => false,
    }
}

/// The headers, whatever length they state where that is another one in a quote.
fn headers(bytes: &[u8]) -> Result<Seen, &'static str> {
    match bytes.first().map(|byte| byte >> 4) {
        Some(4) => v4(bytes),
        Some(6) => v6(bytes),
        _ => Err("neither IPv4 nor IPv6"),
    }
}

fn v4(bytes: &[u8]) -> Result<Seen, &'static str> {
    let fixed: [u8; 20] = first(bytes, 0).ok_or("IPv4's header is cut")?;
    let header = usize::from(fixed[0] & 15) * 4;
    if header < 20 || header > bytes.len() {
        return Err("IPv4's header doesn't fit");
    }
    let address = |at: usize| {
        let octets: [u8; 4] = first(bytes, at).unwrap_or_default();
        IpAddr::V4(Ipv4Addr::from(octets))
    };
    let part = word(bytes, 6).unwrap_or(0);
    let (offset, has_more) = (part & 0x1FFF, part & 0x2000 != 0);
    let seen = transport(
        bytes,
        (address(12), address(16)),
        (fixed[9], header),
        (offset > 0, has_more),
    );

    Ok(Seen {
        sums_are_right: seen.sums_are_right && sum(0, &bytes[..header]) == 0xFFFF,
        ..seen
    })
}

fn v6(bytes: &[u8]) -> Result<Seen, &'static str> {
    let fixed: [u8; 40] = first(bytes, 0).ok_or("IPv6's header is cut")?;
    let address = |at: usize| {
        let octets: [u8; 16] = first(bytes, at).unwrap_or_default();
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    let (mut protocol, mut at) = (fixed[6], 40);
    let (mut is_later, mut has_more) = (false, false);
    // Hop-by-hop, routing and destination options, which any host follows; what lies behind others is a protocol of its own.
    while let 0 | 43 | 44 | 60 = protocol {
        if is_later {
            break;
        }
        let [next, length, o0, o1]: [u8; 4] =
            first(bytes, at).ok_or("an extension header is cut")?;
        at += match protocol {
            44 => {
                let offset = u16::from_be_bytes([o0, o1]);
                (is_later, has_more) = (offset >> 3 > 0, offset & 1 == 1);
                8
            }
            _ => (usize::from(length) + 1) * 8,
        };
        protocol = next;
        if at > bytes.len() {
            return Err("an extension header is longer than the packet");
        }
    }

    Ok(transport(
        bytes,
        (address(8), address(24)),
        (protocol, at),
        (is_later, has_more),
    ))
}

fn transport(
    bytes: &[u8],
    (source, destination): (IpAddr, IpAddr),
    (protocol, at): (u8, usize),
    (is_later_part, has_more): (bool, bool),
) -> Seen {
    let rest = &bytes[at..];
    let has_ports = matches!(protocol, TCP | UDP) && !is_later_part;
    let has_type = matches!(protocol, ICMP | ICMPV6) && !is_later_part;
    let ports = word(rest, 0).zip(word(rest, 2)).filter(|_| has_ports);
    let icmp = first(rest, 0)
        .map(|[kind, code]: [u8; 2]| (kind, code))
        .filter(|_| has_type);
    let sums_are_right = is_later_part || has_more || {
        let (offset, is_covered) = match (protocol, source) {
            (TCP, _) => (16, true),
            (UDP, _) => (6, true),
            (ICMP, IpAddr::V4(_)) => (2, false),
            (ICMPV6, IpAddr::V6(_)) => (2, true),
            _ => (0, false),
        };
        let has_none = protocol == UDP && source.is_ipv4() && word(rest, 6) == Some(0);
        let first = if is_covered {
            pseudo_header(source, destination, protocol, rest.len())
        } else {
            0
        };
        offset == 0 || has_none || sum(first, rest) == 0xFFFF
    };

    Seen {
        source,
        destination,
        protocol,
        is_later_part,
        has_more,
        ports,
        icmp,
        transport_at: at,
        sums_are_right,
    }
}

/// Whether the length that a packet states is the one that it has.
fn states_its_length(bytes: &[u8]) -> bool {
    let stated = match bytes.first().map(|byte| byte >> 4) {
        Some(4) => word(bytes, 2).map(usize::from),
        Some(6) => word(bytes, 4).map(|length| usize::from(length) + 40),
        _ => None,
    };

    stated == Some(bytes.len())
}

/// What a transport's checksum begins with.
pub(super) fn pseudo_header(from: IpAddr, to: IpAddr, protocol: u8, len: usize) -> u32 {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let addresses = [octets(from), octets(to)].concat();

    u32::from(sum(u32::from(protocol), &addresses)) + u32::try_from(len).unwrap_or(0)
}

/// The ones' complement sum of RFC 1071.
pub(super) fn sum(first: u32, bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        u32::from(u16::from_be_bytes([pair[0], low]))
    });
    let mut sum = first + words.sum::<u32>();
    while sum > 0xFFFF {
        sum = (sum >> 16) + (sum & 0xFFFF);
    }

    u16::try_from(sum).unwrap_or(0)
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    first(bytes, at).map(u16::from_be_bytes)
}

fn first<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}
