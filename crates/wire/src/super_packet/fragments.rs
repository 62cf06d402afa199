//! How a single packet falls into fragments (RFC 791 §3.2, RFC 8200 §4.5).

use super::{Cut, Kind, MAX_HEADERS, MAX_SEGMENTS, put, word};
use crate::ip::fragment::{
    V4_FLAGS_AT, V4_MORE, V6_HEADER, V6_MORE, V6_OFFSET_AT, complete_v4_checksum, may_be_cut,
    v6_fragment_header_at,
};
use crate::ip::{Packet, Version};

/// The headers that all fragments repeat.
#[derive(Debug)]
pub(super) struct Parts {
    headers: [u8; MAX_HEADERS],
    version: Version,
}

/// How a packet is cut so that no fragment is longer than `limit`; `None` if it is not to be.
pub(super) fn cut<T: AsRef<[u8]>>(packet: &Packet<T>, limit: usize) -> Option<Cut> {
    let bytes = packet.bytes();
    if !may_be_cut(packet.version(), bytes) {
        return None;
    }
    let headers = match packet.version() {
        Version::V4 => packet.transport_at(),
        Version::V6 => v6_fragment_header_at(bytes)? + V6_HEADER,
    };
    // Offsets count in eights.
    let size = limit.checked_sub(headers)? & !7;
    if size == 0 || headers > MAX_HEADERS {
        return None;
    }
    let segments = bytes.len().checked_sub(headers)?.div_ceil(size);

    (2..=MAX_SEGMENTS).contains(&segments).then_some(Cut {
        headers,
        size,
        segments,
        kind: Kind::Fragments,
    })
}

impl Parts {
    pub(super) fn new<T: AsRef<[u8]>>(packet: &Packet<T>, cut: Cut) -> Option<Self> {
        let mut headers = [0; MAX_HEADERS];
        headers
            .get_mut(..cut.headers)?
            .copy_from_slice(packet.bytes().get(..cut.headers)?);

        Some(Self {
            headers,
            version: packet.version(),
        })
    }

    /// Writes the headers of fragment `index` in front of its payload.
    pub(super) fn write(&self, fragment: &mut [u8], index: usize, cut: Cut) -> Option<()> {
        let len = fragment.len();
        let headers = fragment.get_mut(..cut.headers)?;
        headers.copy_from_slice(self.headers.get(..cut.headers)?);
        let offset = word(index * cut.size)?;
        let has_more = index + 1 < cut.segments;

        match self.version {
            Version::V4 => {
                let more = if has_more { V4_MORE } else { 0 };
                put(headers, 2, word(len)?.to_be_bytes())?;
                put(headers, V4_FLAGS_AT, ((offset / 8) | more).to_be_bytes())?;
                complete_v4_checksum(headers)
            }
            Version::V6 => {
                let more = if has_more { V6_MORE } else { 0 };
                let at = cut.headers - V6_HEADER + V6_OFFSET_AT;
                put(headers, 4, word(len.checked_sub(40)?)?.to_be_bytes())?;
                put(headers, at, (offset | more).to_be_bytes())
            }
        }
    }
}
