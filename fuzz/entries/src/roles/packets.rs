//! Packets of any kind, from bytes: mostly such as get somewhere, and every way of being wrong.

use std::net::IpAddr;

use super::strict::{self, ICMP, ICMPV6, TCP, UDP};
use crate::choices::Choices;

/// Addresses that mean something here, and some that mean something to every host.
const ADDRESSES: [&str; 40] = [
    super::CLIENT_V4,
    super::CLIENT_V6,
    super::ROGUE_V4,
    super::ROGUE_V6,
    super::GATEWAY_V4,
    super::GATEWAY_V6,
    "10.20.0.10",
    "10.20.0.10",
    "10.20.1.9",
    "10.21.0.1",
    "10.20.255.255",
    "fd20::10",
    "fd20::10",
    "fd20:1::1",
    "100.96.0.1",
    "100.96.0.2",
    "100.96.0.5",
    "100.96.0.9",
    "fd00:2021:1111:8000::",
    "fd00:2021:1111:8000::1",
    "fd00:2021:1111:8000::4",
    "100.100.111.1",
    "fd00:2021:1111:8000:100:100:111:0",
    "192.0.2.80",
    "198.51.100.80",
    "2001:db8::80",
    "8.8.8.8",
    "172.16.0.1",
    "100.64.0.200",
    "100.95.255.255",
    "fd00:2021:1111::200",
    "127.0.0.1",
    "169.254.169.254",
    "224.0.0.251",
    "255.255.255.255",
    "0.0.0.0",
    "::",
    "::1",
    "ff02::1",
    "::ffff:10.20.0.10",
];

const PORTS: [u16; 13] = [
    53, 80, 443, 55, 60, 53_535, 4_000, 61, 0, 65_535, 52, 81, 79,
];

/// An address out of those above, or any.
pub(super) fn address(choices: &mut Choices<'_>) -> IpAddr {
    match choices.byte() {
        byte if byte < 240 => ADDRESSES[usize::from(byte) % ADDRESSES.len()]
            .parse()
            .unwrap(),
        byte if byte & 1 == 0 => IpAddr::from(choices.array::<4>()),
        _ => IpAddr::from(choices.array::<16>()),
    }
}

/// A few bytes, seldom more.
fn payload<'a>(choices: &mut Choices<'a>) -> &'a [u8] {
    match choices.byte() {
        len @ 240.. => choices.bytes(usize::from(len)),
        len => choices.bytes(usize::from(len % 16)),
    }
}

/// A packet. Most are from `from`, of the family of where they go to, and most go to one of `to`.
pub(super) fn packet(choices: &mut Choices<'_>, from: [&str; 2], to: &[&str]) -> Vec<u8> {
    let destination = match choices.byte() % 4 {
        0 => address(choices),
        _ => choices.one_of(to).parse().unwrap(),
    };
    let usual = from[usize::from(destination.is_ipv6())].parse().unwrap();
    let mut source = match choices.byte() % 8 {
        0 => address(choices),
        _ => usual,
    };
    if source.is_ipv4() != destination.is_ipv4() {
        source = usual;
    }
    let mut bytes = right(choices, source, destination);
    for _ in 0..choices.byte().saturating_sub(192) % 8 {
        spoil(choices, &mut bytes);
    }

    bytes
}

/// A packet that is right in itself, or meant to be.
fn right(choices: &mut Choices<'_>, source: IpAddr, destination: IpAddr) -> Vec<u8> {
    let is_v4 = source.is_ipv4();
    let icmp = if is_v4 { ICMP } else { ICMPV6 };
    let (protocol, transport) = match choices.byte() % 8 {
        0 | 1 => (UDP, udp(choices)),
        2 | 3 => (TCP, tcp(choices)),
        4 => {
            let kind = choices.one_of(if is_v4 { &[8, 0] } else { &[128, 129] });
            let id = choices.one_of(&PORTS).to_be_bytes();
            (icmp, vec![kind, 0, 0, 0, id[0], id[1], 0, choices.byte()])
        }
        5 => (icmp, error(choices, (source, destination))),
        6 => (icmp, [&choices.array::<8>(), payload(choices)].concat()),
        _ => {
            let protocol = choices.one_of(&[47, 50, 132, 255, 59, 4, 41, ICMP, ICMPV6, 2]);
            (protocol, payload(choices).to_vec())
        }
    };
    let transport = with_sum(protocol, transport, (source, destination));
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let (options, part) = v4_extras(choices);
            let header = 20 + options.len();
            let total = u16::try_from(header + transport.len()).unwrap_or(u16::MAX);
            let mut bytes = vec![0x40 | (header / 4) as u8, choices.byte() & 3];
            bytes.extend(total.to_be_bytes());
            bytes.extend([0, 1]);
            bytes.extend(part.to_be_bytes());
            bytes.extend([choices.byte() | 1, protocol, 0, 0]);
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
            bytes.extend(options);
            let sum = !strict::sum(0, &bytes);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
            bytes.extend(transport);
            bytes
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let (next, extensions) = v6_extras(choices, protocol);
            let length = u16::try_from(extensions.len() + transport.len()).unwrap_or(u16::MAX);
            let mut bytes = vec![0x60, (choices.byte() & 3) << 4, 0, 0];
            bytes.extend(length.to_be_bytes());
            bytes.extend([next, choices.byte() | 1]);
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
            bytes.extend(extensions);
            bytes.extend(transport);
            bytes
        }
        _ => Vec::new(),
    }
}

/// Options, and which part of a packet this is.
fn v4_extras(choices: &mut Choices<'_>) -> (Vec<u8>, u16) {
    match choices.byte() % 8 {
        0 => (vec![1; usize::from(choices.byte() % 11) * 4], 0x4000),
        // A loose source route.
        1 => (vec![131, 7, 4, 10, 20, 0, 11, 0], 0),
        2 => (Vec::new(), choices.word() & 0x3FFF),
        3 => (Vec::new(), 0x2000),
        _ => (Vec::new(), 0x4000),
    }
}

/// What comes first, and the extension headers.
fn v6_extras(choices: &mut Choices<'_>, protocol: u8) -> (u8, Vec<u8>) {
    let mut headers = Vec::new();
    let mut next = protocol;
    for _ in 0..choices.byte().saturating_sub(160) % 4 {
        let kind = choices.one_of(&[0, 43, 44, 60, 51, 135, 139, 140]);
        let mut header = match kind {
            44 => {
                let part = choices.one_of(&[0, 1, 8, 9, choices.clone().word()]);
                let [high, low] = part.to_be_bytes();
                vec![next, 0, high, low, 0, 0, 0, 1]
            }
            51 => vec![next, 0, 0, 0, 0, 0, 0, 0],
            _ => vec![next, 0, 1, 4, 0, 0, 0, 0],
        };
        header.append(&mut headers);
        (next, headers) = (kind, header);
    }

    (next, headers)
}

fn ports(choices: &mut Choices<'_>) -> Vec<u8> {
    [choices.one_of(&PORTS), choices.one_of(&PORTS)]
        .map(u16::to_be_bytes)
        .concat()
}

fn udp(choices: &mut Choices<'_>) -> Vec<u8> {
    let ports = ports(choices);
    let payload = payload(choices);
    // Some are as large as a tunnel carries, and larger.
    let more = vec![7; usize::from(choices.byte().saturating_sub(224)) * 48];
    let length = u16::try_from(8 + payload.len() + more.len()).unwrap_or(0);

    [&*ports, &length.to_be_bytes(), &[0, 0], payload, &more].concat()
}

fn tcp(choices: &mut Choices<'_>) -> Vec<u8> {
    let ports = ports(choices);
    let flags = choices.one_of(&[2, 0x12, 0x10, 0x11, 4, 0x14, 0xFF, 0]);
    let rest = [0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xFF, 0xFF, 0, 0, 0, 0];

    [&*ports, &rest, payload(choices)].concat()
}

/// An ICMP error that quotes a packet which may have come the other way, or anything.
fn error(choices: &mut Choices<'_>, (source, destination): (IpAddr, IpAddr)) -> Vec<u8> {
    let kinds: &[[u8; 2]] = match source.is_ipv4() {
        true => &[
            [3, 0],
            [3, 3],
            [3, 4],
            [3, 13],
            [11, 0],
            [5, 1],
            [12, 0],
            [4, 0],
        ],
        false => &[
            [1, 0],
            [1, 1],
            [1, 3],
            [2, 0],
            [3, 0],
            [4, 1],
            [1, 4],
            [127, 0],
        ],
    };
    let [kind, code] = choices.one_of(kinds);
    let rest = [0, 0, 5, choices.byte()];
    let quoted = match choices.byte() % 8 {
        0 => payload(choices).to_vec(),
        1 => {
            let (from, to) = (address(choices), address(choices));
            innermost(choices, from, to)
        }
        // It was sent by whom the error goes to, and to whom the error doesn't come from.
        2 | 3 => {
            let to = address(choices);
            innermost(choices, destination, to)
        }
        _ => innermost(choices, destination, source),
    };

    [&[kind, code, 0, 0][..], &rest, &quoted].concat()
}

fn innermost(choices: &mut Choices<'_>, from: IpAddr, to: IpAddr) -> Vec<u8> {
    let (protocol, transport) = match choices.byte() % 4 {
        0 => (TCP, tcp(choices)),
        1 if from.is_ipv4() => (ICMP, vec![8, 0, 0, 0, 0x0F, 0xA0, 0, 1]),
        1 => (ICMPV6, vec![128, 0, 0, 0, 0x0F, 0xA0, 0, 1]),
        _ => (UDP, udp(choices)),
    };
    let len = match choices.byte() % 4 {
        0 => usize::from(choices.byte()),
        _ => transport.len().min(600),
    };
    let transport = &transport[..len.min(transport.len())];
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = vec![0x45, 0, 0, 60, 0, 1, 0, 0, 60, protocol, 0, 0];
            header.extend(from.octets());
            header.extend(to.octets());
            [&*header, transport].concat()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut header = vec![0x60, 0, 0, 0, 0, 40, protocol, 60];
            header.extend(from.octets());
            header.extend(to.octets());
            [&*header, transport].concat()
        }
        _ => transport.to_vec(),
    }
}

fn with_sum(protocol: u8, mut transport: Vec<u8>, (from, to): (IpAddr, IpAddr)) -> Vec<u8> {
    let (at, is_covered) = match protocol {
        TCP => (16, true),
        UDP => (6, true),
        ICMP => (2, false),
        ICMPV6 => (2, true),
        _ => return transport,
    };
    if transport.len() < at + 2 {
        return transport;
    }
    transport[at..at + 2].fill(0);
    let first = match is_covered {
        true => strict::pseudo_header(from, to, protocol, transport.len()),
        false => 0,
    };
    let sum = match !strict::sum(first, &transport) {
        0 => 0xFFFF,
        sum => sum,
    };
    transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());

    transport
}

/// One change to a packet, after which its IPv4 header's checksum may be right again.
fn spoil(choices: &mut Choices<'_>, bytes: &mut Vec<u8>) {
    match choices.byte() % 6 {
        0 => bytes.truncate(usize::from(choices.word()) % (bytes.len() + 1)),
        1 => bytes.extend(payload(choices)),
        // Among the headers.
        2 | 3 => {
            let at = usize::from(choices.byte()) % 64;
            let value = choices.byte();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        4 => {
            let header = usize::from(bytes.first().map_or(0, |first| first & 15)) * 4;
            if bytes.first().is_some_and(|first| first >> 4 == 4)
                && header >= 20
                && bytes.len() >= header
            {
                bytes[10..12].fill(0);
                let sum = !strict::sum(0, &bytes[..header]);
                bytes[10..12].copy_from_slice(&sum.to_be_bytes());
            }
        }
        _ => {
            let at = usize::from(choices.word()) % bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= choices.byte() | 1;
            }
        }
    }
}
