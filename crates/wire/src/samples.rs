//! Packets for tests, field by field.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::ip::checksum::{Sum, pseudo_header};
use crate::ip::{Version, protocol};
use crate::offload::VirtioHeader;

pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const URG: u8 = 0x20;

/// A packet of TCP or UDP that a test describes.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) version: Version,
    /// TCP's own fields; without them it is UDP.
    pub(crate) tcp: Option<Tcp>,
    /// Tells flows apart.
    pub(crate) host: u8,
    pub(crate) port: u16,
    pub(crate) tos: u8,
    pub(crate) ttl: u8,
    pub(crate) id: u16,
    pub(crate) dont_fragment: bool,
    pub(crate) flow_label: u8,
    /// Bytes of IPv4 options or of an IPv6 extension header, in units of four or eight.
    pub(crate) ip_options: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

/// The fields of TCP.
#[derive(Clone, Debug)]
pub(crate) struct Tcp {
    pub(crate) sequence: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) options: Vec<u8>,
}

impl Sample {
    pub(crate) fn udp(version: Version, payload: &[u8]) -> Self {
        Self {
            version,
            tcp: None,
            host: 1,
            port: 40_000,
            tos: 0,
            ttl: 64,
            id: 7,
            dont_fragment: true,
            flow_label: 0,
            ip_options: Vec::new(),
            payload: payload.to_vec(),
        }
    }

    pub(crate) fn tcp(version: Version, sequence: u32, flags: u8, payload: &[u8]) -> Self {
        Self {
            tcp: Some(Tcp {
                sequence,
                ack: 99,
                flags: flags | ACK,
                window: 500,
                options: Vec::new(),
            }),
            ..Self::udp(version, payload)
        }
    }

    /// The same with a change.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The same with a change to its TCP header.
    pub(crate) fn with_tcp(self, change: impl FnOnce(&mut Tcp)) -> Self {
        self.with(|sample| change(sample.tcp.as_mut().unwrap()))
    }

    pub(crate) fn route(&self) -> (IpAddr, IpAddr) {
        match self.version {
            Version::V4 => (
                Ipv4Addr::new(10, 0, 0, self.host).into(),
                Ipv4Addr::new(10, 9, 9, 9).into(),
            ),
            Version::V6 => (
                Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, self.host.into()).into(),
                Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 9, 9).into(),
            ),
        }
    }

    pub(crate) fn number(&self) -> u8 {
        match self.tcp {
            Some(_) => protocol::TCP,
            None => protocol::UDP,
        }
    }

    pub(crate) fn transport_at(&self) -> usize {
        self.ip_options.len()
            + match self.version {
                Version::V4 => 20,
                Version::V6 => 40,
            }
    }

    pub(crate) fn checksum_at(&self) -> usize {
        self.transport_at() + if self.tcp.is_some() { 16 } else { 6 }
    }

    /// The complete packet.
    pub(crate) fn build(&self) -> Vec<u8> {
        let mut bytes = self.without_checksum();
        let transport = &bytes[self.transport_at()..];
        let (source, destination) = self.route();
        let sum = pseudo_header(source, destination, self.number(), transport.len());
        let checksum = sum.bytes(transport).checksum();
        let at = self.checksum_at();
        bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());

        bytes
    }

    /// The packet as the kernel hands it over to be cut into payloads of `size`; zero for one that only needs its checksum.
    pub(crate) fn to_be_cut(&self, size: u16) -> (VirtioHeader, Vec<u8>) {
        let mut bytes = self.without_checksum();
        let len = bytes.len() - self.transport_at();
        let (source, destination) = self.route();
        let sum = pseudo_header(source, destination, self.number(), len).folded();
        let at = self.checksum_at();
        bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());

        let kind = match (self.version, &self.tcp) {
            (Version::V4, Some(_)) => VirtioHeader::GSO_TCPV4,
            (Version::V6, Some(_)) => VirtioHeader::GSO_TCPV6,
            (_, None) => VirtioHeader::GSO_UDP_L4,
        };
        let header = VirtioHeader {
            flags: VirtioHeader::NEEDS_CSUM,
            gso_type: if size == 0 { 0 } else { kind },
            hdr_len: 0,
            gso_size: size,
            csum_start: self.transport_at() as u16,
            csum_offset: (at - self.transport_at()) as u16,
        };

        (header, bytes)
    }

    fn without_checksum(&self) -> Vec<u8> {
        let mut transport = vec![0x9c, 0x40, 0x01, 0xbb];
        transport[..2].copy_from_slice(&self.port.to_be_bytes());
        if let Some(tcp) = &self.tcp {
            let header_words = 5 + tcp.options.len() / 4;
            transport.extend_from_slice(&tcp.sequence.to_be_bytes());
            transport.extend_from_slice(&tcp.ack.to_be_bytes());
            transport.extend_from_slice(&[(header_words as u8) << 4, tcp.flags]);
            transport.extend_from_slice(&tcp.window.to_be_bytes());
            transport.extend_from_slice(&[0; 4]);
            transport.extend_from_slice(&tcp.options);
        } else {
            let len = (self.payload.len() + 8) as u16;
            transport.extend_from_slice(&len.to_be_bytes());
            transport.extend_from_slice(&[0; 2]);
        }
        transport.extend_from_slice(&self.payload);

        let mut bytes = match self.version {
            Version::V4 => self.v4_header(transport.len()),
            Version::V6 => self.v6_header(transport.len()),
        };
        bytes.extend_from_slice(&transport);
        bytes
    }

    fn v4_header(&self, transport_len: usize) -> Vec<u8> {
        let header_len = 20 + self.ip_options.len();
        let mut header = vec![0x40 | (header_len / 4) as u8, self.tos];
        header.extend_from_slice(&((header_len + transport_len) as u16).to_be_bytes());
        header.extend_from_slice(&self.id.to_be_bytes());
        let flags = if self.dont_fragment { 0x40 } else { 0 };
        header.extend_from_slice(&[flags, 0, self.ttl, self.number(), 0, 0]);
        for ip in [self.route().0, self.route().1] {
            let IpAddr::V4(ip) = ip else { unreachable!() };
            header.extend_from_slice(&ip.octets());
        }
        header.extend_from_slice(&self.ip_options);
        let checksum = Sum::default().bytes(&header).checksum();
        header[10..12].copy_from_slice(&checksum.to_be_bytes());

        header
    }

    fn v6_header(&self, transport_len: usize) -> Vec<u8> {
        let mut header = vec![0x60 | self.tos >> 4, self.tos << 4, 0, self.flow_label];
        let len = (self.ip_options.len() + transport_len) as u16;
        header.extend_from_slice(&len.to_be_bytes());
        let next = if self.ip_options.is_empty() {
            self.number()
        } else {
            60
        };
        header.extend_from_slice(&[next, self.ttl]);
        for ip in [self.route().0, self.route().1] {
            let IpAddr::V6(ip) = ip else { unreachable!() };
            header.extend_from_slice(&ip.octets());
        }
        if let [_, _, rest @ ..] = self.ip_options.as_slice() {
            header.extend_from_slice(&[self.number(), (self.ip_options.len() / 8 - 1) as u8]);
            header.extend_from_slice(rest);
        }

        header
    }
}
