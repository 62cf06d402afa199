//! Packets on their way out of the tunnel: opened in place, one behind the other.

use std::ops::Range;

use connlib_wire::ecn::Ecn;
use connlib_wire::ip::stated_len;

use crate::peer::PeerId;

/// A batch of decrypted packets in one piece of memory that is used again and again.
#[derive(Debug, Default)]
pub struct Packets {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// One decrypted packet.
#[derive(Debug)]
pub struct Opened<'a> {
    /// Who sent it.
    pub peer: PeerId,
    /// The outer header's congestion mark.
    pub outer_ecn: Ecn,
    /// The packet as its header states its length. Its contents are authentic but unchecked.
    pub bytes: &'a mut [u8],
}

#[derive(Debug)]
struct Entry {
    peer: PeerId,
    outer_ecn: Ecn,
    range: Range<usize>,
}

impl Packets {
    /// Creates an empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of packets.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The packets' bytes from the one numbered `first` on, in order of arrival.
    pub fn from(&self, first: usize) -> impl Iterator<Item = &[u8]> {
        self.entries
            .iter()
            .skip(first)
            .map(|entry| self.bytes.get(entry.range.clone()).unwrap_or_default())
    }

    /// Looks at each packet from the one numbered `first` on and keeps those that `keep` says yes to.
    pub fn retain_from(&mut self, first: usize, mut keep: impl FnMut(Opened<'_>) -> bool) {
        let bytes = &mut self.bytes;
        let mut index = 0;
        self.entries.retain(|entry| {
            index += 1;
            if index <= first {
                return true;
            }
            bytes.get_mut(entry.range.clone()).is_some_and(|bytes| {
                keep(Opened {
                    peer: entry.peer,
                    outer_ecn: entry.outer_ecn,
                    bytes,
                })
            })
        });
    }

    /// Forgets all packets; the memory stays for the next batch.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }

    /// Lends `len` bytes at the end to `open`, which says how many of them it filled; `None` takes them back.
    pub(crate) fn open_with(
        &mut self,
        peer: PeerId,
        outer_ecn: Ecn,
        len: usize,
        open: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> bool {
        let start = self.bytes.len();
        self.bytes.resize(start + len, 0);
        let slot = self.bytes.get_mut(start..).unwrap_or_default();
        // WireGuard pads to sixteen bytes; the packet's own header knows its length.
        let kept = open(slot).and_then(|opened| {
            let plaintext = slot.get(..opened)?;
            stated_len(plaintext).filter(|stated| *stated <= opened)
        });

        let Some(kept) = kept else {
            self.bytes.truncate(start);
            return false;
        };
        self.bytes.truncate(start + kept);
        self.entries.push(Entry {
            peer,
            outer_ecn,
            range: start..start + kept,
        });

        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> PeerId {
        PeerId(uuid::Uuid::from_u128(1))
    }

    fn add(packets: &mut Packets, stated: u8, opened: usize) -> bool {
        packets.open_with(peer(), Ecn::NotEct, 64, |slot| {
            slot[..4].copy_from_slice(&[0x45, 0, 0, stated]);
            Some(opened)
        })
    }

    #[test]
    fn padding_is_cut_and_lies_are_dropped() {
        let mut packets = Packets::new();
        assert!(add(&mut packets, 20, 32));
        assert!(!add(&mut packets, 40, 32), "states more than there is");
        assert!(!packets.open_with(peer(), Ecn::NotEct, 64, |_| None));
        assert!(add(&mut packets, 32, 32));

        let lens: Vec<_> = packets.from(0).map(<[u8]>::len).collect();
        assert_eq!(lens, [20, 32]);
    }

    #[test]
    fn what_was_kept_before_is_not_looked_at_again() {
        let mut packets = Packets::new();
        add(&mut packets, 20, 32);
        add(&mut packets, 24, 32);
        packets.retain_from(1, |opened| opened.bytes.len() != 24);

        assert_eq!(packets.len(), 1);
        packets.clear();
        assert!(packets.is_empty());
    }
}
