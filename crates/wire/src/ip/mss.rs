//! The size of segments that TCP agrees on when a connection begins (RFC 9293 §3.7.1).

use super::{Packet, Transport, Version};

/// Kinds of TCP's options.
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MAX_SEGMENT: u8 = 2;

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Lets no end of a connection that begins here send segments of more than `max_packet` bytes, IP header included, so that
    /// it needn't be told later. Nothing changes for anything else, and sizes only shrink. Whoever names no size accepts 536
    /// or 1,220 bytes at most, which always fits.
    pub fn clamp_segments(&mut self, max_packet: usize) {
        if self.transport != Transport::Tcp || !self.tcp_flags().is_some_and(|flags| flags.is_syn())
        {
            return;
        }
        let headers = match self.version {
            Version::V4 => 20 + 20,
            Version::V6 => 40 + 20,
        };
        let max = u16::try_from(max_packet.saturating_sub(headers)).unwrap_or(u16::MAX);
        let Some(at) = self.segment_size_at() else {
            return;
        };
        let size = self.u16_at(at);
        if size <= max {
            return;
        }
        // The sum takes words at even places of the segment.
        if (at - self.transport_at).is_multiple_of(2) {
            self.set_transport_u16(at, max);
        } else {
            let old: [u8; 4] = self.array(at - 1);
            let [before, _, _, after] = old;
            let [high, low] = max.to_be_bytes();
            let new = [before, high, low, after];
            self.put(at - 1, &new);
            self.patch_transport(&old, &new);
        }
    }

    /// Where the largest size of segments stands among the options.
    fn segment_size_at(&self) -> Option<usize> {
        let headers_end = self.bytes().len() - self.payload().len();
        let mut at = self.transport_at + 20;
        while at < headers_end {
            let [kind] = self.array(at);
            match kind {
                END => return None,
                NO_OPERATION => at += 1,
                _ => {
                    let [len] = self.array(at + 1);
                    let len = usize::from(len);
                    if len < 2 || at + len > headers_end {
                        return None;
                    }
                    if kind == MAX_SEGMENT {
                        return (len == 4).then_some(at + 2);
                    }
                    at += len;
                }
            }
        }

        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Pool;
    use crate::ip::syn;

    /// A first segment with these options, which are padded with zeros.
    fn with_options(to: &str, options: &[u8]) -> Packet<Vec<u8>> {
        let from = if to.starts_with('[') {
            "[fd00::1]:1"
        } else {
            "100.64.0.1:1"
        };
        let bare = syn(
            &Pool::new(2_048, 1),
            from.parse().unwrap(),
            to.parse().unwrap(),
        );
        let bare = bare.unwrap();
        let (start, len) = (bare.transport_at, options.len().next_multiple_of(4));
        let mut bytes = bare.bytes()[..start + 20].to_vec();
        bytes.extend_from_slice(options);
        bytes.resize(start + 20 + len, 0);
        bytes[start + 12] = ((20 + len) as u8 / 4) << 4;
        let total = bytes.len() as u16;
        match bare.version() {
            Version::V4 => {
                bytes[2..4].copy_from_slice(&total.to_be_bytes());
                crate::ip::fragment::complete_v4_checksum(&mut bytes[..20]).unwrap();
            }
            Version::V6 => bytes[4..6].copy_from_slice(&(total - 40).to_be_bytes()),
        }
        bytes[start + 16..start + 18].fill(0);
        let mut packet = Packet::parse(bytes).unwrap();
        let sum = packet.pseudo_header().bytes(packet.transport_bytes());
        let at = packet.transport_checksum_at().unwrap();
        packet.put(at, &sum.checksum().to_be_bytes());
        assert!(packet.checksums_match());
        packet
    }

    fn clamped(to: &str, options: &[u8], max_packet: usize) -> Vec<u8> {
        let mut packet = with_options(to, options);
        packet.clamp_segments(max_packet);
        assert!(packet.checksums_match());
        let start = packet.transport_at + 20;

        packet.bytes()[start..start + options.len()].to_vec()
    }

    const V4: &str = "10.20.0.10:80";
    const V6: &str = "[fd00:20::10]:80";

    #[test]
    fn a_size_that_is_too_large_shrinks_and_no_other() {
        let size = |size: u16| [[2, 4], size.to_be_bytes()].concat();
        assert_eq!(clamped(V4, &size(1_460), 1_280), size(1_240));
        assert_eq!(clamped(V6, &size(1_440), 1_280), size(1_220));
        assert_eq!(clamped(V4, &size(1_240), 1_280), size(1_240));
        assert_eq!(clamped(V4, &size(536), 1_280), size(536));
        assert_eq!(clamped(V4, &size(1_240), 1_200), size(1_160));
    }

    #[test]
    fn the_option_is_found_where_it_stands_and_nothing_else_is_taken_for_it() {
        let odd = [1, 2, 4, 0x05, 0xB4, 1, 3, 3, 7];
        assert_eq!(clamped(V4, &odd, 1_280), [1, 2, 4, 0x04, 0xD8, 1, 3, 3, 7]);
        for none in [
            &[0, 2, 4, 0x05, 0xB4][..],
            &[2, 3, 0x05, 0xB4],
            &[2, 0, 0x05, 0xB4],
            &[3, 40, 2, 4, 0x05, 0xB4],
            &[8, 10, 2, 4, 0x05, 0xB4, 2, 4, 0x05, 0xB4],
            &[],
        ] {
            assert_eq!(clamped(V4, none, 1_280), none);
        }
    }

    #[test]
    fn segments_of_a_connection_that_is_up_are_let_alone() {
        let mut packet = with_options(V4, &[2, 4, 0x05, 0xB4]);
        let flags = packet.transport_at + 13;
        packet.put(flags, &[0x10]);
        let before = packet.bytes().to_vec();
        packet.clamp_segments(1_280);
        assert_eq!(packet.bytes(), before);
    }
}
