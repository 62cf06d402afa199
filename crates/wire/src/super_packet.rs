//! What one read of a TUN device brings, and how it is cut into the packets that travel (io.md §3.3).
//!
//! A *super-packet* is up to 64 KiB of one flow under one header. It is routed, filtered and marked once, as a whole;
//! its segments are made last, each where it lies:
//!
//! ```text
//! read        | header | payload 0 | payload 1 | payload 2 |
//! segment 0   | header | payload 0 |
//! segment 1             · · | header | payload 1 |            the header takes the place of payload that was used up
//! segment 2                         · · | header | payload 2 |
//! ```
//!
//! A packet that is too large for the way, and may be cut by whoever passes it on, falls into fragments in the same manner.

mod fragments;

use std::net::IpAddr;

use crate::ecn::Ecn;
use crate::ip::checksum::{Sum, pseudo_header};
use crate::ip::{Packet, PacketError, Quoted, Transport, Version, protocol};
use crate::offload::VirtioHeader;
use fragments::Parts;

/// The most segments of one super-packet (io.md §3.3).
pub const MAX_SEGMENTS: usize = 256;

/// The longest IP and transport headers of a super-packet. IPv4 with every option and TCP with every option are 120.
const MAX_HEADERS: usize = 128;

/// Where the flags of TCP lie, and those that not every segment carries.
const TCP_FLAGS_AT: usize = 13;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// What one read of a TUN device brings: a packet, or up to 64 KiB of one flow under one header.
///
/// It may be of any size up to 65,535 bytes. Whoever sends its segments sees to it that they [fit](Self::fit_into)
/// [`MAX_PACKET`](crate::MAX_PACKET).
#[derive(Clone, Debug)]
pub struct SuperPacket<T> {
    packet: Packet<T>,
    cut: Cut,
}

/// How a super-packet falls into segments.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// The length of the headers that each segment repeats; zero where there is one segment.
    headers: usize,
    /// The payload of each segment but the last; the whole packet where there is one segment.
    size: usize,
    /// The number of segments, at least one.
    segments: usize,
    kind: Kind,
}

/// What the segments are. Of one segment it says nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// Packets of one flow.
    Packets,
    /// Parts of one packet.
    Fragments,
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> SuperPacket<T> {
    /// Judges the kernel's header beside the packet.
    ///
    /// A packet that is no super-packet and needs its checksum gets it completed in place here; the segments of a
    /// super-packet get theirs in [`split`](Self::split).
    ///
    /// # Errors
    ///
    /// [`PacketError::Offload`] if the header doesn't fit the packet, the others as for [`Packet::parse`]. Size is none:
    /// what is too large for a tunnel can still be answered.
    pub fn parse(header: VirtioHeader, bytes: T) -> Result<Self, PacketError> {
        let mut packet = Packet::parse_any_size(bytes)?;
        let needs_checksum = header.flags & VirtioHeader::NEEDS_CSUM != 0;
        if needs_checksum {
            check_checksum_place(header, &packet)?;
        }

        let cut = match header.gso_kind() {
            VirtioHeader::GSO_NONE => None,
            kind => Some(cut(kind, header, &packet)?),
        };
        let cut = match cut {
            Some(cut) if cut.segments > 1 => cut,
            Some(_) | None => {
                if needs_checksum {
                    packet.complete_checksum();
                }
                Cut {
                    headers: 0,
                    size: packet.bytes().len(),
                    segments: 1,
                    kind: Kind::Packets,
                }
            }
        };

        Ok(Self { packet, cut })
    }

    /// Takes a single packet, or a part of one that was routed as a whole: it is sent as it is.
    ///
    /// # Errors
    ///
    /// As for [`Packet::parse`]; size is none.
    pub fn part(bytes: T) -> Result<Self, PacketError> {
        let packet = Packet::part(bytes)?;
        let cut = Cut {
            headers: 0,
            size: packet.bytes().len(),
            segments: 1,
            kind: Kind::Packets,
        };

        Ok(Self { packet, cut })
    }

    /// Sees to it that no segment is longer than `limit` bytes: a single packet that is falls into fragments, if its sender has
    /// nothing against that. False if there is no way.
    pub fn fit_into(&mut self, limit: usize) -> bool {
        if self.segment_len() <= limit {
            return true;
        }
        let is_single = self.cut.segments == 1 || self.cut.kind == Kind::Fragments;
        let cut = fragments::cut(&self.packet, limit).filter(|_| is_single);
        self.cut = cut.unwrap_or(self.cut);

        cut.is_some()
    }

    /// The whole as one packet, for routes and filters: addresses, ports, mark. Lengths are the whole's.
    pub fn packet(&self) -> Packet<&[u8]> {
        self.packet.view()
    }

    /// The number of segments, at least one.
    pub fn segments(&self) -> usize {
        self.cut.segments
    }

    /// The length in bytes of each segment but the last, IP header included.
    pub fn segment_len(&self) -> usize {
        self.cut.headers + self.cut.size
    }

    /// The length in bytes of the last segment, IP header included.
    pub fn last_segment_len(&self) -> usize {
        self.bytes().len() - (self.cut.segments - 1) * self.cut.size
    }

    /// The bytes of the whole.
    pub fn bytes(&self) -> &[u8] {
        self.packet.bytes()
    }

    /// Sets the congestion mark of each segment. To be called before [`split`](Self::split).
    pub fn set_ecn(&mut self, ecn: Ecn) {
        self.packet.set_ecn(ecn);
    }

    /// Sets the source address of each segment; no change if it is of the other family.
    ///
    /// Like every change to the headers, it is to be made before [`split`](Self::split). The checksums of several segments
    /// are made there, that of a single one is patched.
    pub fn set_source(&mut self, source: IpAddr) {
        self.packet.set_source(source);
    }

    /// Sets the destination address of each segment, as [`set_source`](Self::set_source) does the source.
    pub fn set_destination(&mut self, destination: IpAddr) {
        self.packet.set_destination(destination);
    }

    /// Sets the source port of each segment; no change if it is neither TCP nor UDP.
    pub fn set_source_port(&mut self, port: u16) {
        self.packet.set_source_port(port);
    }

    /// Sets the destination port of each segment; no change if it is neither TCP nor UDP.
    pub fn set_destination_port(&mut self, port: u16) {
        self.packet.set_destination_port(port);
    }

    /// [`Packet::clamp_segments`]; whoever begins a connection does so by a single packet.
    pub fn clamp_segments(&mut self, max_packet: usize) {
        self.packet.clamp_segments(max_packet);
    }

    /// Sets the id of an echo request or reply; no change for anything else.
    pub fn set_echo_id(&mut self, id: u16) {
        self.packet.set_echo_id(id);
    }

    /// [`Packet::rewrite_quoted`]; an ICMP error is always a single packet.
    pub fn rewrite_quoted(&mut self, new: &Quoted) -> bool {
        self.packet.rewrite_quoted(new)
    }

    /// Cuts it into its segments.
    ///
    /// This uses the contents up: headers are built in place. Afterwards only [`into_inner`](Self::into_inner) makes sense.
    pub fn split(&mut self) -> Split<'_> {
        let base = match self.cut.kind {
            _ if self.cut.segments == 1 => None,
            Kind::Packets => Base::new(&self.packet, self.cut).map(Headers::Packets),
            Kind::Fragments => Parts::new(&self.packet, self.cut).map(Headers::Fragments),
        };

        Split {
            bytes: self.packet.bytes_mut(),
            base,
            cut: self.cut,
            next: 0,
        }
    }

    /// Gives the bytes back.
    pub fn into_inner(self) -> T {
        self.packet.into_inner()
    }
}

/// The segments of a super-packet, in order.
#[derive(Debug)]
pub struct Split<'a> {
    bytes: &'a mut [u8],
    /// What segments are made from; `None` for a packet that is complete already.
    base: Option<Headers>,
    cut: Cut,
    next: usize,
}

/// What the headers of segments are made from, kept aside because segments are built over it.
#[derive(Debug)]
enum Headers {
    Packets(Base),
    Fragments(Parts),
}

impl Split<'_> {
    /// The next segment, contiguous and complete. It is lost with the call after.
    pub fn next_segment(&mut self) -> Option<&[u8]> {
        let index = self.next;
        if index >= self.cut.segments {
            return None;
        }
        self.next += 1;

        let start = index * self.cut.size;
        let end = if self.next == self.cut.segments {
            self.bytes.len()
        } else {
            start + self.cut.headers + self.cut.size
        };
        let segment = self.bytes.get_mut(start..end)?;
        if let Some(base) = &self.base {
            match base {
                Headers::Packets(base) => base.write(segment, index, self.cut)?,
                Headers::Fragments(parts) => parts.write(segment, index, self.cut)?,
            }
        }

        Some(segment)
    }
}

/// The headers of a super-packet.
#[derive(Debug)]
struct Base {
    /// Both headers, with their checksums zero.
    headers: [u8; MAX_HEADERS],
    version: Version,
    transport: Transport,
    transport_at: usize,
    /// The first segment's IPv4 identification.
    id: u16,
    /// The first segment's TCP sequence number.
    sequence: u32,
    /// The pseudo-header's sum without the length.
    pseudo_header: Sum,
}

impl Base {
    fn new<T: AsRef<[u8]>>(packet: &Packet<T>, cut: Cut) -> Option<Self> {
        let bytes = packet.bytes();
        let mut headers = [0; MAX_HEADERS];
        headers
            .get_mut(..cut.headers)?
            .copy_from_slice(bytes.get(..cut.headers)?);
        if packet.version() == Version::V4 {
            put(&mut headers, 10, [0; 2])?;
        }
        put(&mut headers, packet.transport_checksum_at()?, [0; 2])?;

        let number = match packet.transport() {
            Transport::Tcp => protocol::TCP,
            Transport::Udp => protocol::UDP,
            Transport::Icmp | Transport::Other(_) => return None,
        };
        let transport_at = packet.transport_at();

        Some(Self {
            id: u16::from_be_bytes(*bytes.get(4..)?.first_chunk()?),
            sequence: u32::from_be_bytes(*bytes.get(transport_at + 4..)?.first_chunk()?),
            pseudo_header: pseudo_header(packet.source(), packet.destination(), number, 0),
            headers,
            version: packet.version(),
            transport: packet.transport(),
            transport_at,
        })
    }

    /// Writes the headers of segment `index` in front of its payload.
    fn write(&self, segment: &mut [u8], index: usize, cut: Cut) -> Option<()> {
        let len = segment.len();
        let transport_len = word(len.checked_sub(self.transport_at)?)?;
        segment
            .get_mut(..cut.headers)?
            .copy_from_slice(self.headers.get(..cut.headers)?);

        match self.version {
            Version::V4 => {
                put(segment, 2, word(len)?.to_be_bytes())?;
                // At most 256 segments: both casts keep the value.
                put(segment, 4, self.id.wrapping_add(index as u16).to_be_bytes())?;
                let sum = Sum::default().bytes(segment.get(..self.transport_at)?);
                put(segment, 10, sum.checksum().to_be_bytes())?;
            }
            Version::V6 => put(segment, 4, word(len.checked_sub(40)?)?.to_be_bytes())?,
        }

        let transport = segment.get_mut(self.transport_at..)?;
        let checksum_at = if self.transport == Transport::Tcp {
            let offset = (index * cut.size) as u32;
            put(
                transport,
                4,
                self.sequence.wrapping_add(offset).to_be_bytes(),
            )?;
            let flags = transport.get_mut(TCP_FLAGS_AT)?;
            if index > 0 {
                *flags &= !CWR;
            }
            if index + 1 < cut.segments {
                *flags &= !(FIN | PSH);
            }
            16
        } else {
            put(transport, 4, transport_len.to_be_bytes())?;
            6
        };
        let sum = self.pseudo_header.word(transport_len).bytes(transport);

        put(transport, checksum_at, sum.checksum().to_be_bytes())
    }
}

/// Whether the checksum that the kernel left to us is the one of the packet's transport.
fn check_checksum_place<T: AsRef<[u8]>>(
    header: VirtioHeader,
    packet: &Packet<T>,
) -> Result<(), PacketError> {
    let start = usize::from(header.csum_start);
    let at = start + usize::from(header.csum_offset);
    if start != packet.transport_at() || Some(at) != packet.transport_checksum_at() {
        return Err(PacketError::Offload {
            reason: "its checksum lies elsewhere",
        });
    }

    Ok(())
}

/// Judges a header that speaks of segments.
fn cut<T: AsRef<[u8]>>(
    kind: u8,
    header: VirtioHeader,
    packet: &Packet<T>,
) -> Result<Cut, PacketError> {
    let refused = |reason| Err(PacketError::Offload { reason });
    let fits = match (kind, packet.version(), packet.transport()) {
        (VirtioHeader::GSO_TCPV4, version, transport) => {
            (version, transport) == (Version::V4, Transport::Tcp)
        }
        (VirtioHeader::GSO_TCPV6, version, transport) => {
            (version, transport) == (Version::V6, Transport::Tcp)
        }
        (VirtioHeader::GSO_UDP_L4, _, transport) => transport == Transport::Udp,
        _ => return refused("its kind of segments is unknown"),
    };
    if !fits {
        return refused("its segments are of another family or protocol");
    }
    if header.flags & VirtioHeader::NEEDS_CSUM == 0 {
        return refused("it asks for segments but not for their checksums");
    }
    if header.gso_size == 0 {
        return refused("its segments are empty");
    }

    let payload = packet.payload().len();
    let size = usize::from(header.gso_size);
    let headers = packet.bytes().len() - payload;
    let segments = payload.div_ceil(size);
    if payload == 0 {
        return refused("there is nothing to cut");
    }
    if segments > MAX_SEGMENTS {
        return refused("it makes more than 256 segments");
    }
    if headers > MAX_HEADERS {
        return refused("it would repeat headers of more than 128 bytes");
    }

    Ok(Cut {
        headers,
        size,
        segments,
        kind: Kind::Packets,
    })
}

fn word(len: usize) -> Option<u16> {
    u16::try_from(len).ok()
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, new: [u8; N]) -> Option<()> {
    *bytes.get_mut(at..)?.first_chunk_mut()? = new;

    Some(())
}

#[cfg(test)]
mod tests;
