//! Telling flows apart by a number.

use std::net::IpAddr;

use super::{Packet, Transport, protocol};

/// An odd number whose bits look random: the golden ratio's.
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// A number that is the same for all packets of a flow: of addresses, ports and transport.
///
/// It spreads evenly over 32 bits. Without `seed`, which is to be random and secret, nobody can choose flows that collide.
/// The two directions of a connection differ.
pub fn flow_hash(packet: &Packet<impl AsRef<[u8]>>, seed: u64) -> u32 {
    let number = match packet.transport() {
        Transport::Icmp => protocol::ICMP,
        Transport::Tcp => protocol::TCP,
        Transport::Udp => protocol::UDP,
        Transport::Other(number) => number,
    };
    let port = |port: Option<u16>| u64::from(port.unwrap_or_default());
    let ends = u64::from(number) << 32
        | port(packet.source_port()) << 16
        | port(packet.destination_port());

    let hash = mixed(seed, ends);
    let hash = address(hash, packet.source());
    let hash = address(hash, packet.destination());
    let hash = mixed(hash, seed.rotate_left(32));

    // The upper half depends on everything.
    (hash >> 32) as u32
}

fn address(hash: u64, ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(ip) => mixed(hash, ip.to_bits().into()),
        IpAddr::V6(ip) => {
            let bits = ip.to_bits();
            mixed(mixed(hash, (bits >> 64) as u64), bits as u64)
        }
    }
}

/// Both halves of a product, so that each bit of it depends on many of what went in.
fn mixed(hash: u64, word: u64) -> u64 {
    let product = u128::from(hash ^ word) * u128::from(MULTIPLIER);

    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::ip::Version;
    use crate::samples::Sample;

    fn hash(sample: &Sample, seed: u64) -> u32 {
        flow_hash(&Packet::parse(sample.build()).unwrap(), seed)
    }

    #[test]
    fn packets_of_a_flow_hash_alike() {
        for version in [Version::V4, Version::V6] {
            let first = Sample::tcp(version, 5, 0, b"hello");
            let later = Sample::tcp(version, 9_999, 0, b"world!").with(|s| {
                s.id = 8;
                s.ttl = 3;
            });
            assert_eq!(hash(&first, 1), hash(&later, 1));
            assert_ne!(hash(&first, 1), hash(&first, 2), "by another seed");
        }
    }

    #[test]
    fn flows_differ_by_address_port_and_transport() {
        let mut hashes = HashSet::new();
        for version in [Version::V4, Version::V6] {
            for host in 0..=255 {
                for port in 1_000..1_010 {
                    let tcp = Sample::tcp(version, 5, 0, b"");
                    for sample in [tcp, Sample::udp(version, b"")] {
                        let sample = sample.with(|s| (s.host, s.port) = (host, port));
                        hashes.insert(hash(&sample, 0));
                    }
                }
            }
        }

        let flows = 2 * 256 * 10 * 2;
        assert!(hashes.len() >= flows - 2, "{} of {flows}", hashes.len());
    }

    #[test]
    fn flows_spread_evenly_whichever_bits_are_used() {
        for shift in [0, 8, 16, 24] {
            let mut buckets = [0; 256];
            for port in 0..16_384 {
                let sample = Sample::udp(Version::V4, b"").with(|s| s.port = port);
                buckets[(hash(&sample, 42) >> shift & 0xFF) as usize] += 1;
            }
            // 64 are expected in each; five standard deviations are 40.
            assert!(
                buckets.iter().all(|n| (24..=104).contains(n)),
                "{buckets:?}"
            );
        }
    }
}
