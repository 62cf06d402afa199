//! What each host sent and got, as a pcapng file that Wireshark reads.
//!
//! The packets have IP and UDP headers made for them: in the world there are only datagrams and addresses.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use connlib_os::fake::FakeTrain;

use crate::world::UNIX;

/// Packets begin with an IP header (LINKTYPE_RAW).
const LINKTYPE_RAW: u16 = 101;

/// Block types (pcapng, draft-ietf-opsawg-pcapng §4).
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const ENHANCED_PACKET: u32 = 6;

const BYTE_ORDER: u32 = 0x1a2b_3c4d;

/// Keeps every datagram, by host.
pub(crate) struct Recorder {
    hosts: Vec<(String, Vec<Packet>)>,
}

struct Packet {
    at: Duration,
    bytes: Vec<u8>,
}

impl Recorder {
    pub(crate) fn new(hosts: impl Iterator<Item = String>) -> Self {
        Self {
            hosts: hosts.map(|name| (name, Vec::new())).collect(),
        }
    }

    pub(crate) fn sent(
        &mut self,
        at: Duration,
        host: usize,
        (from, to): (SocketAddr, SocketAddr),
        datagrams: &[&[u8]],
    ) {
        if let Some((_, packets)) = self.hosts.get_mut(host) {
            packets.extend(datagrams.iter().map(|datagram| Packet {
                at,
                bytes: packet(from, to, datagram),
            }));
        }
    }

    pub(crate) fn received(&mut self, at: Duration, host: usize, train: &FakeTrain) {
        let datagrams: Vec<&[u8]> = train.datagrams().collect();
        self.sent(at, host, (train.from, train.to), &datagrams);
    }

    /// Writes a file for each host into `folder`, and returns their paths.
    pub(crate) fn write(&self, folder: &Path, stem: &str) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for (name, packets) in &self.hosts {
            let path = folder.join(format!("{stem}-{name}.pcapng"));
            let mut file = io::BufWriter::new(std::fs::File::create(&path)?);
            write(&mut file, packets)?;
            file.flush()?;
            paths.push(path);
        }

        Ok(paths)
    }
}

fn write(file: &mut impl Write, packets: &[Packet]) -> io::Result<()> {
    let mut section = BYTE_ORDER.to_le_bytes().to_vec();
    section.extend_from_slice(&1_u16.to_le_bytes());
    section.extend_from_slice(&0_u16.to_le_bytes());
    section.extend_from_slice(&u64::MAX.to_le_bytes());
    block(file, SECTION_HEADER, &section)?;
    let mut interface = LINKTYPE_RAW.to_le_bytes().to_vec();
    interface.extend_from_slice(&0_u16.to_le_bytes());
    interface.extend_from_slice(&0_u32.to_le_bytes());
    block(file, INTERFACE, &interface)?;

    for packet in packets {
        // Microseconds are the unit unless the interface says another.
        let micros = u64::try_from((UNIX + packet.at).as_micros()).unwrap_or(u64::MAX);
        let len = u32::try_from(packet.bytes.len()).unwrap_or(u32::MAX);
        let [high, low] = [(micros >> 32) as u32, micros as u32];
        let mut body = Vec::with_capacity(packet.bytes.len() + 20);
        for word in [0, high, low, len, len] {
            body.extend_from_slice(&word.to_le_bytes());
        }
        body.extend_from_slice(&packet.bytes);
        block(file, ENHANCED_PACKET, &body)?;
    }

    Ok(())
}

fn block(file: &mut impl Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let padding = body.len().next_multiple_of(4) - body.len();
    let len = u32::try_from(body.len() + padding + 12).unwrap_or(u32::MAX);
    file.write_all(&kind.to_le_bytes())?;
    file.write_all(&len.to_le_bytes())?;
    file.write_all(body)?;
    file.write_all(&[0; 3][..padding])?;

    file.write_all(&len.to_le_bytes())
}

/// An IP packet around a datagram.
fn packet(from: SocketAddr, to: SocketAddr, datagram: &[u8]) -> Vec<u8> {
    let short = |len: usize| u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
    let udp_len = datagram.len() + 8;
    let mut bytes = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = vec![0x45, 0];
            header.extend_from_slice(&short(udp_len + 20));
            header.extend_from_slice(&[0, 0, 0x40, 0, 64, 17, 0, 0]);
            header.extend_from_slice(&from.octets());
            header.extend_from_slice(&to.octets());
            let checksum = checksum(&header).to_be_bytes();
            header.splice(10..12, checksum);
            header
        }
        (from, to) => {
            let octets = |ip: IpAddr| match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                IpAddr::V6(ip) => ip.octets(),
            };
            let mut header = vec![0x60, 0, 0, 0];
            header.extend_from_slice(&short(udp_len));
            header.extend_from_slice(&[17, 64]);
            header.extend_from_slice(&octets(from));
            header.extend_from_slice(&octets(to));
            header
        }
    };
    bytes.extend_from_slice(&from.port().to_be_bytes());
    bytes.extend_from_slice(&to.port().to_be_bytes());
    bytes.extend_from_slice(&short(udp_len));
    // No checksum: Wireshark says so for IPv6, and reads on.
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(datagram);

    bytes
}

fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks(2).map(|pair| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(*high) << 8,
        _ => 0,
    });
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);

    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_file_has_one_block_for_each_datagram() {
        let mut recorder = Recorder::new(["C1".to_owned()].into_iter());
        let ends = (
            "192.0.2.1:1".parse().unwrap(),
            "192.0.2.2:2".parse().unwrap(),
        );
        recorder.sent(Duration::from_secs(1), 0, ends, &[b"hello", b"you"]);

        let mut file = Vec::new();
        write(&mut file, &recorder.hosts[0].1).unwrap();

        let mut kinds = Vec::new();
        let mut rest = &file[..];
        while !rest.is_empty() {
            let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
            let len = word(4) as usize;
            assert_eq!(word(len - 4) as usize, len);
            kinds.push(word(0));
            rest = &rest[len..];
        }
        let packets = [ENHANCED_PACKET; 2];
        assert_eq!(kinds, [&[SECTION_HEADER, INTERFACE][..], &packets].concat());
    }

    #[test]
    fn a_header_that_is_made_up_has_the_right_checksum() {
        let ends = (
            "192.0.2.1:1".parse().unwrap(),
            "192.0.2.2:2".parse().unwrap(),
        );
        let packet = packet(ends.0, ends.1, b"hello");

        let parsed = connlib_wire::ip::Packet::parse(&packet[..]).unwrap();
        assert_eq!(parsed.source(), ends.0.ip());
        assert_eq!(checksum(&packet[..20]), 0);
    }
}
