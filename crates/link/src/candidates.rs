//! Which addresses a peer may be tried at: what it tells is a stranger's word, forwarded by the portal.

use std::net::{IpAddr, SocketAddr};

use is::{Candidate, CandidateKind, Protocol};

/// The most addresses of one peer that are tried: its hosts, what NATs make of them and two relays, in both families, and
/// room for a network change.
pub(crate) const MAX_REMOTES: usize = 24;

/// The most guesses that one new address of a peer brings about (connections.md §4.7).
const MAX_GUESSES: usize = 2;

/// Why an address is not tried.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Refusal {
    /// It can't be read, or no peer can be there: loopback, multicast, unspecified, link-local, inside the tunnel.
    Unusable,
    /// It is an address of ours.
    Ours,
    /// The peer has told enough.
    TooMany,
}

/// Reads a candidate that the portal forwarded (connections.md §4.4).
pub(crate) fn parse(line: &str) -> Result<Candidate, Refusal> {
    let candidate = Candidate::from_sdp_string(line).map_err(|_| Refusal::Unusable)?;
    let is_usable = candidate.proto() == Protocol::Udp && is_somewhere(candidate.addr());

    is_usable.then_some(candidate).ok_or(Refusal::Unusable)
}

/// Whether a peer can be at an address.
fn is_somewhere(addr: SocketAddr) -> bool {
    let is_nowhere = match addr.ip() {
        IpAddr::V4(ip) => {
            ip.is_unspecified()
                || ip.is_loopback()
                || ip.is_multicast()
                || ip.is_broadcast()
                || ip.is_link_local()
        }
        IpAddr::V6(ip) => {
            ip.is_unspecified()
                || ip.is_loopback()
                || ip.is_multicast()
                || ip.is_unicast_link_local()
        }
    };

    addr.port() != 0 && !is_nowhere
}

/// Where the peer may be as well, given all that it told: behind a NAT whose administrator forwards the port that the peer
/// listens at (connections.md §4.7). IPv4 only.
pub(crate) fn guesses(known: &[Candidate]) -> Vec<Candidate> {
    let of_kind = |kind| {
        known
            .iter()
            .filter(move |candidate| candidate.kind() == kind && candidate.addr().is_ipv4())
            .map(Candidate::addr)
    };
    let mut guesses: Vec<Candidate> = Vec::new();
    for outside in of_kind(CandidateKind::ServerReflexive) {
        for host in of_kind(CandidateKind::Host) {
            let addr = SocketAddr::new(outside.ip(), host.port());
            let is_known = known
                .iter()
                .chain(&guesses)
                .any(|known| known.addr() == addr);
            if is_known {
                continue;
            }
            if guesses.len() >= MAX_GUESSES {
                return guesses;
            }
            guesses.extend(Candidate::server_reflexive(addr, host, "udp"));
        }
    }

    guesses
}

/// Whether a channel is worth binding before the first check: not for host addresses, which are often private.
pub(crate) fn wants_channel(candidate: &Candidate) -> bool {
    candidate.kind() != CandidateKind::Host
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(addr: &str) -> Candidate {
        Candidate::host(addr.parse().unwrap(), "udp").unwrap()
    }

    fn reflexive(addr: &str) -> Candidate {
        let base = "10.0.0.1:52625".parse().unwrap();
        Candidate::server_reflexive(addr.parse().unwrap(), base, "udp").unwrap()
    }

    fn addresses(candidates: &[Candidate]) -> Vec<String> {
        candidates
            .iter()
            .map(|candidate| candidate.addr().to_string())
            .collect()
    }

    /// connections.md §13.1 no. 10.
    #[test]
    fn a_forwarded_port_is_guessed_twice_at_most_and_never_for_ipv6() {
        let mut known = vec![host("10.0.0.1:52625"), reflexive("1.1.1.1:40000")];
        assert_eq!(addresses(&guesses(&known)), ["1.1.1.1:52625"]);

        known.extend([reflexive("2.2.2.2:40000"), reflexive("3.3.3.3:40000")]);
        assert_eq!(
            addresses(&guesses(&known)),
            ["1.1.1.1:52625", "2.2.2.2:52625"]
        );
        let host = host("[2001:db8::1]:52625");
        let base = host.addr();
        let outside = "[2001:db8::2]:40000".parse().unwrap();
        let reflexive = Candidate::server_reflexive(outside, base, "udp").unwrap();
        assert!(guesses(&[host, reflexive]).is_empty());
    }

    #[test]
    fn nobody_is_at_addresses_that_lead_nowhere() {
        for addr in [
            "127.0.0.1 1000",
            "0.0.0.0 1000",
            "224.0.0.1 1000",
            "255.255.255.255 1000",
            "169.254.1.1 1000",
            "192.0.2.1 0",
            "::1 1000",
            ":: 1000",
            "ff02::1 1000",
            "fe80::1 1000",
        ] {
            let line = format!("candidate:1 1 udp 1 {addr} typ host");
            assert_eq!(parse(&line).err(), Some(Refusal::Unusable), "{addr}");
        }
        assert!(parse("candidate:1 1 udp 1 192.0.2.1 1000 typ host").is_ok());
        // connections.md §13.1 no. 5.
        for line in [
            "1 1 udp 1 192.0.2.1 1000 typ host",
            "candidate:1 1 tcp 1 192.0.2.1 1000 typ host",
            "candidate:1 1 udp 1 999.1.1.1 1000 typ host",
            "",
        ] {
            assert_eq!(parse(line).err(), Some(Refusal::Unusable), "{line}");
        }
    }
}
