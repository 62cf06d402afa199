//! ICMP errors of hosts behind gateways, and of those that pretend to be such.

use std::net::IpAddr;

use connlib_wire::ip::checksum::{Sum, pseudo_header};

use super::packets::ip_packet;
use crate::scenario::HostError;

/// How much of a packet is quoted at most (RFC 1812 §4.3.2.3, RFC 4443 §3.1).
const MAX_QUOTED: [usize; 2] = [520, 1_232];

/// What fits where a packet is too large.
const MTU: [u8; 4] = 1_200_u32.to_be_bytes();

/// Makes an ICMP error about a packet.
pub(crate) fn error_about(
    (from, to): (IpAddr, IpAddr),
    error: HostError,
    about: &[u8],
) -> Option<Vec<u8>> {
    let (is_ipv4, [v4, v6]) = (from.is_ipv4(), MAX_QUOTED);
    let kind = match (error, is_ipv4) {
        (HostError::Unreachable, true) => [3, 1],
        (HostError::Unreachable, false) => [1, 4],
        (HostError::TooBig, true) => [3, 4],
        (HostError::TooBig, false) => [2, 0],
        (HostError::Expired, true) => [11, 0],
        (HostError::Expired, false) => [3, 0],
    };
    let rest = match error {
        HostError::TooBig => MTU,
        HostError::Unreachable | HostError::Expired => [0; 4],
    };
    let mut message = kind.to_vec();
    message.extend_from_slice(&[0; 2]);
    message.extend_from_slice(&rest);
    let most = if is_ipv4 { v4 } else { v6 };
    message.extend(about.iter().take(most));

    let (protocol, sum) = match is_ipv4 {
        true => (1, Sum::default()),
        false => (58, pseudo_header(from, to, 58, message.len())),
    };
    let checksum = sum.bytes(&message).checksum();
    message
        .get_mut(2..4)?
        .copy_from_slice(&checksum.to_be_bytes());

    ip_packet((from, to), protocol, &message)
}
