//! The packet that an ICMP error is about, which is quoted in it (gateway.md §10.2, RFC 5508 §4.2).

use std::net::IpAddr;

use super::fields::{ECHO_ID_AT, is_echo};
use super::{Packet, Transport, Version, checksum, protocol, v6_transport};

/// The least of a transport header that is quoted (RFC 792).
const LEAST_TRANSPORT: usize = 8;

/// What an ICMP error says of the packet it is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Quoted {
    /// Where the packet came from.
    pub source: IpAddr,
    /// Where it went.
    pub destination: IpAddr,
    /// What it carried.
    pub transport: Transport,
    /// What tells it from others between the same addresses.
    pub ports_or_id: PortsOrId,
}

/// What tells apart what two addresses exchange.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PortsOrId {
    /// The ports of TCP or UDP.
    Ports {
        /// The sender's.
        source: u16,
        /// The receiver's.
        destination: u16,
    },
    /// The id of an echo request or reply.
    EchoId(u16),
    /// Nothing that we know of: another transport, or other ICMP.
    Neither,
}

/// Where in an ICMP error the quote lies.
#[derive(Clone, Copy)]
struct Place {
    header_at: usize,
    transport_at: usize,
    transport: Transport,
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// What it quotes, if it is an ICMP error: at least an IP header and the eight bytes behind it.
    ///
    /// The quote may end anywhere after these, whatever its header says. Redirects quote as well: which types are to be
    /// translated is up to the caller.
    pub fn quoted(&self) -> Option<Quoted> {
        let Place {
            header_at,
            transport_at,
            transport,
        } = self.quote()?;
        let (source, destination) = match self.version {
            Version::V4 => (
                self.array::<4>(header_at + 12).into(),
                self.array::<4>(header_at + 16).into(),
            ),
            Version::V6 => (
                self.array::<16>(header_at + 8).into(),
                self.array::<16>(header_at + 24).into(),
            ),
        };
        let [kind, code] = self.array(transport_at);
        let ports_or_id = match transport {
            Transport::Tcp | Transport::Udp => PortsOrId::Ports {
                source: self.u16_at(transport_at),
                destination: self.u16_at(transport_at + 2),
            },
            Transport::Icmp if is_echo(self.version, (kind, code)) => {
                PortsOrId::EchoId(self.u16_at(transport_at + ECHO_ID_AT))
            }
            Transport::Icmp | Transport::Other(_) => PortsOrId::Neither,
        };

        Some(Quoted {
            source,
            destination,
            transport,
            ports_or_id,
        })
    }

    fn quote(&self) -> Option<Place> {
        if !self.is_icmp_error() {
            return None;
        }
        let quote = self.payload();
        let header_at = self.bytes().len() - quote.len();
        let (number, header_len) = match (self.version, quote.first()? >> 4) {
            (Version::V4, 4) => {
                let [first, _, _, _, _, _, f0, f1, _, number, ..] = *quote.first_chunk::<20>()?;
                let header_len = usize::from(first & 0x0F) * 4;
                // Behind the first fragment there is no transport header.
                let offset = u16::from_be_bytes([f0, f1]) & 0x1FFF;
                if header_len < 20 || offset != 0 {
                    return None;
                }
                (number, header_len)
            }
            (Version::V6, 6) => v6_transport(quote).ok()?,
            _ => return None,
        };
        quote.get(header_len..)?.get(..LEAST_TRANSPORT)?;

        let transport = match (number, self.version) {
            (protocol::TCP, _) => Transport::Tcp,
            (protocol::UDP, _) => Transport::Udp,
            (protocol::ICMP, Version::V4) | (protocol::ICMPV6, Version::V6) => Transport::Icmp,
            (number, _) => Transport::Other(number),
        };

        Some(Place {
            header_at,
            transport_at: header_at + header_len,
            transport,
        })
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Makes the quoted packet say what `new` says, and patches every checksum that covers it: the quoted IPv4 header's,
    /// the quoted transport's as far as the quote reaches, and the ICMP error's own.
    ///
    /// Tells whether it did. Nothing changes if there is no quote, or one of another family or transport.
    pub fn rewrite_quoted(&mut self, new: &Quoted) -> bool {
        let (Some(place), Some(old)) = (self.quote(), self.quoted()) else {
            return false;
        };
        let same_kind = old.transport == new.transport
            && old.source.is_ipv4() == new.source.is_ipv4()
            && old.destination.is_ipv4() == new.destination.is_ipv4()
            && std::mem::discriminant(&old.ports_or_id) == std::mem::discriminant(&new.ports_or_id);
        if !same_kind {
            return false;
        }

        let source_at = match self.version {
            Version::V4 => place.header_at + 12,
            Version::V6 => place.header_at + 8,
        };
        self.set_quoted_ip(place, source_at, new.source);
        let len = if new.source.is_ipv4() { 4 } else { 16 };
        self.set_quoted_ip(place, source_at + len, new.destination);
        match new.ports_or_id {
            PortsOrId::Ports {
                source,
                destination,
            } => {
                self.set_quoted_u16(place, 0, source);
                self.set_quoted_u16(place, 2, destination);
            }
            PortsOrId::EchoId(id) => self.set_quoted_u16(place, ECHO_ID_AT, id),
            PortsOrId::Neither => {}
        }

        true
    }

    fn set_quoted_ip(&mut self, place: Place, at: usize, ip: IpAddr) {
        match ip {
            IpAddr::V4(ip) => {
                let old = self.replace_quoted(at, ip.octets());
                self.patch_quoted(place.header_at + 10, &old, &ip.octets());
                if place.transport != Transport::Icmp {
                    self.patch_quoted_transport(place, &old, &ip.octets());
                }
            }
            IpAddr::V6(ip) => {
                let old = self.replace_quoted(at, ip.octets());
                self.patch_quoted_transport(place, &old, &ip.octets());
            }
        }
    }

    fn set_quoted_u16(&mut self, place: Place, offset: usize, value: u16) {
        let old = self.replace_quoted(place.transport_at + offset, value.to_be_bytes());
        self.patch_quoted_transport(place, &old, &value.to_be_bytes());
    }

    fn patch_quoted_transport(&mut self, place: Place, old: &[u8], new: &[u8]) {
        let offset = match place.transport {
            Transport::Icmp => 2,
            Transport::Tcp => 16,
            Transport::Udp => 6,
            Transport::Other(_) => return,
        };
        let at = place.transport_at + offset;
        // A UDP checksum of zero says that there is none.
        let none = place.transport == Transport::Udp && self.u16_at(at) == 0;
        if !none && at + 2 <= self.bytes().len() {
            self.patch_quoted(at, old, new);
        }
    }

    /// Patches a checksum inside the quote.
    fn patch_quoted(&mut self, at: usize, old: &[u8], new: &[u8]) {
        if old != new {
            let patched = checksum::updated(self.u16_at(at), old, new);
            self.replace_quoted(at, patched.to_be_bytes());
        }
    }

    /// Writes over a part of the quote, keeps the error's own checksum right, and returns what was there.
    fn replace_quoted<const N: usize>(&mut self, at: usize, new: [u8; N]) -> [u8; N] {
        let old = self.array::<N>(at);
        if old != new {
            self.put(at, &new);
            self.patch_transport(&old, &new);
        }

        old
    }
}

#[cfg(test)]
mod tests;
