//! What a TUN device says about a packet, and is told about one: the `virtio_net_hdr` in front of it.
//!
//! With it a device hands over *super-packets*: up to 64 KiB of one flow under one header, to be cut into segments, and
//! takes such ones. Numbers and layout are those of Linux' `<linux/virtio_net.h>`; see io.md §3.3.

/// The header in front of each packet of a TUN device that has `IFF_VNET_HDR`.
///
/// It says what the kernel claims and is checked nowhere here: the splitter
/// judges it beside the packet. The default stands for a complete packet.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct VirtioHeader {
    /// [`NEEDS_CSUM`](Self::NEEDS_CSUM), [`DATA_VALID`](Self::DATA_VALID), or nothing.
    pub flags: u8,
    /// One of the `GSO_…` kinds, possibly with [`GSO_ECN`](Self::GSO_ECN) added.
    pub gso_type: u8,
    /// The length of all headers in bytes. A hint that is often wrong.
    pub hdr_len: u16,
    /// The length of each segment's payload in bytes but the last one's; zero where there are no segments.
    pub gso_size: u16,
    /// Where the checksum of a packet that needs one begins to count.
    pub csum_start: u16,
    /// Where that checksum goes, from there.
    pub csum_offset: u16,
}

impl VirtioHeader {
    /// Its length in bytes.
    pub const LEN: usize = 10;

    /// The packet's checksum field holds the sum of its pseudo-header only.
    pub const NEEDS_CSUM: u8 = 1;
    /// The packet's checksum was verified.
    pub const DATA_VALID: u8 = 2;

    /// No segments: one packet.
    pub const GSO_NONE: u8 = 0;
    /// Segments of TCP over IPv4.
    pub const GSO_TCPV4: u8 = 1;
    /// Segments of TCP over IPv6.
    pub const GSO_TCPV6: u8 = 4;
    /// Datagrams of UDP, over either.
    pub const GSO_UDP_L4: u8 = 5;
    /// A mark beside the kind: the first segment carries CWR.
    pub const GSO_ECN: u8 = 0x80;

    /// Reads it as the kernel writes it, in the machine's own byte order.
    pub const fn decode(bytes: [u8; Self::LEN]) -> Self {
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1] = bytes;

        Self {
            flags,
            gso_type,
            hdr_len: u16::from_ne_bytes([h0, h1]),
            gso_size: u16::from_ne_bytes([g0, g1]),
            csum_start: u16::from_ne_bytes([s0, s1]),
            csum_offset: u16::from_ne_bytes([o0, o1]),
        }
    }

    /// Writes it as the kernel reads it.
    pub const fn encode(self) -> [u8; Self::LEN] {
        let [h0, h1] = self.hdr_len.to_ne_bytes();
        let [g0, g1] = self.gso_size.to_ne_bytes();
        let [s0, s1] = self.csum_start.to_ne_bytes();
        let [o0, o1] = self.csum_offset.to_ne_bytes();

        [self.flags, self.gso_type, h0, h1, g0, g1, s0, s1, o0, o1]
    }

    /// The kind of segments, without the mark beside it.
    pub const fn gso_kind(self) -> u8 {
        self.gso_type & !Self::GSO_ECN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn headers_round_trip(bytes: [u8; VirtioHeader::LEN]) {
            proptest::prop_assert_eq!(VirtioHeader::decode(bytes).encode(), bytes);
        }
    }
}
