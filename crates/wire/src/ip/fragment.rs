//! Parts of packets, as hosts make them of what is larger than their link carries (RFC 791 §3.2, RFC 8200 §4.5).

use std::net::IpAddr;

use super::{Version, protocol};
use crate::ecn::Ecn;
use crate::ip::checksum::Sum;

/// One part of a packet. Its length fields agree with the number of its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Fragment<'a> {
    /// What it shares with the other parts of its packet.
    pub of: Datagram,
    /// Where its payload lies in that of the whole, in bytes; a multiple of eight.
    pub offset: usize,
    /// Whether others follow behind it.
    pub has_more: bool,
    /// The congestion mark.
    pub ecn: Ecn,
    /// What all parts repeat: the IP header; of IPv6 also the extension headers up to that of the fragment.
    pub headers: &'a [u8],
    /// The rest.
    pub payload: &'a [u8],
}

/// By what the parts of one packet are known.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Datagram {
    /// Who sent it.
    pub source: IpAddr,
    /// Who is to get it.
    pub destination: IpAddr,
    /// What it carries; of IPv6 the header behind that of the fragment.
    pub protocol: u8,
    /// The number that its sender gave it.
    pub id: u32,
}

/// Where the field of flags and offset lies in an IPv4 header, and its flags.
pub(crate) const V4_FLAGS_AT: usize = 6;
pub(crate) const V4_DONT_FRAGMENT: u16 = 0x4000;
pub(crate) const V4_MORE: u16 = 0x2000;

/// The length of IPv6's fragment header, where offset and flag lie in it, and the flag.
pub(crate) const V6_HEADER: usize = 8;
pub(crate) const V6_OFFSET_AT: usize = 2;
pub(crate) const V6_MORE: u16 = 0x0001;

/// The longest an IPv4 packet, or the payload of an IPv6 one, can be.
const MAX_LEN: usize = 65_535;

impl<'a> Fragment<'a> {
    /// `None` if it is a whole packet, or none at all.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => Self::parse_v4(bytes),
            6 => Self::parse_v6(bytes),
            _ => None,
        }
    }

    fn parse_v4(bytes: &'a [u8]) -> Option<Self> {
        let field = u16_at(bytes, V4_FLAGS_AT)?;
        // More fragments, or an offset.
        if field & 0x3FFF == 0 {
            return None;
        }
        let header = bytes.first_chunk::<20>()?;
        let [first, second, _, _, _, _, _, _, _, protocol, ..] = *header;
        let header_len = usize::from(first & 0x0F) * 4;
        if header_len < 20 || usize::from(u16_at(bytes, 2)?) != bytes.len() {
            return None;
        }
        let (headers, payload) = bytes.split_at_checked(header_len)?;

        Some(Self {
            of: Datagram {
                source: IpAddr::from(*bytes.get(12..)?.first_chunk::<4>()?),
                destination: IpAddr::from(*bytes.get(16..)?.first_chunk::<4>()?),
                protocol,
                id: u16_at(bytes, 4)?.into(),
            },
            offset: usize::from(field & 0x1FFF) * 8,
            has_more: field & V4_MORE != 0,
            ecn: Ecn::from_bits(second),
            headers,
            payload,
        })
    }

    fn parse_v6(bytes: &'a [u8]) -> Option<Self> {
        let at = v6_fragment_header_at(bytes)?;
        let field = u16_at(bytes, at + V6_OFFSET_AT)?;
        // Without either it is whole (RFC 6946).
        if field & 0xFFF9 == 0 || usize::from(u16_at(bytes, 4)?) + 40 != bytes.len() {
            return None;
        }
        let (headers, payload) = bytes.split_at_checked(at + V6_HEADER)?;

        Some(Self {
            of: Datagram {
                source: IpAddr::from(*bytes.get(8..)?.first_chunk::<16>()?),
                destination: IpAddr::from(*bytes.get(24..)?.first_chunk::<16>()?),
                protocol: *bytes.get(at)?,
                id: u32::from_be_bytes(*bytes.get(at + 4..)?.first_chunk()?),
            },
            offset: usize::from(field & 0xFFF8),
            has_more: field & V6_MORE != 0,
            ecn: Ecn::from_bits(bytes.get(1)? >> 4),
            headers,
            payload,
        })
    }

    /// Where it ends in the payload of the whole; `None` beyond what any packet holds, or where what follows couldn't begin.
    pub fn end(&self) -> Option<usize> {
        let end = self.offset + self.payload.len();
        let is_even = !self.has_more || self.payload.len().is_multiple_of(8);

        (is_even && !self.payload.is_empty() && end <= MAX_LEN).then_some(end)
    }
}

/// Makes the headers of a first part those of the whole packet, `payload` bytes following them; `None` if no packet is so long.
///
/// Of IPv6 the whole keeps the fragment header, as an atomic fragment: it says that the packet may be cut again, and by which
/// number. IPv4 says so by not forbidding it.
pub fn make_whole(headers: &mut [u8], payload: usize) -> Option<()> {
    let len = headers.len() + payload;
    if headers.first()? >> 4 == 4 {
        put(headers, 2, u16::try_from(len).ok()?)?;
        put(headers, V4_FLAGS_AT, 0)?;
        return complete_v4_checksum(headers);
    }
    put(headers, 4, u16::try_from(len.checked_sub(40)?).ok()?)?;
    let at = headers.len().checked_sub(V6_HEADER)?;

    put(headers, at + V6_OFFSET_AT, 0)
}

/// Where IPv6's fragment header lies, if there is one.
pub(crate) fn v6_fragment_header_at(bytes: &[u8]) -> Option<usize> {
    let (mut next, mut at) = (*bytes.get(6)?, 40);
    while let 0 | 43 | 60 = next {
        let [following, length] = *bytes.get(at..)?.first_chunk()?;
        at += 8 + usize::from(length) * 8;
        next = following;
    }

    (next == protocol::FRAGMENT).then_some(at)
}

/// Whether a packet of which nothing was cut yet may be cut on its way: its sender has nothing against it.
pub(crate) fn may_be_cut(version: Version, bytes: &[u8]) -> bool {
    match version {
        Version::V4 => {
            u16_at(bytes, V4_FLAGS_AT).is_some_and(|field| field & V4_DONT_FRAGMENT == 0)
        }
        Version::V6 => v6_fragment_header_at(bytes).is_some(),
    }
}

/// Computes the checksum of an IPv4 header anew.
pub(crate) fn complete_v4_checksum(header: &mut [u8]) -> Option<()> {
    put(header, 10, 0)?;
    let checksum = Sum::default().bytes(header).checksum();

    put(header, 10, checksum)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..)?.first_chunk()?;

    Some(u16::from_be_bytes(*pair))
}

pub(crate) fn put(bytes: &mut [u8], at: usize, value: u16) -> Option<()> {
    *bytes.get_mut(at..)?.first_chunk_mut()? = value.to_be_bytes();

    Some(())
}

#[cfg(test)]
mod tests;
