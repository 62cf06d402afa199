//! Packets on their way out of the tunnel: opened, one behind the other.

use std::ops::Range;

use connlib_wire::buffer::Buffer;
use connlib_wire::ecn::Ecn;
use connlib_wire::ip::{Packet, stated_len};

use crate::peer::PeerId;

/// The packets of one received train.
#[derive(Debug, Default)]
pub struct Packets {
    number: u64,
    memory: Option<Buffer>,
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

/// How a sender was told to slow down.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Told {
    /// A packet of it carries a congestion mark now.
    Marked,
    /// A packet of it is lost.
    Dropped,
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

    /// The number that their train had when it was received.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The number of packets.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The memory that all packets lie in.
    pub fn memory(&self) -> &[u8] {
        self.memory.as_deref().unwrap_or_default()
    }

    /// Where each packet lies in the memory, in order of arrival.
    pub fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        self.entries.iter().map(|entry| entry.range.clone())
    }

    /// The packets' bytes, in order of arrival.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.ranges()
            .map(|range| self.memory().get(range).unwrap_or_default())
    }

    /// Looks at each packet and keeps those that `keep` says yes to.
    pub fn retain(&mut self, mut keep: impl FnMut(Opened<'_>) -> bool) {
        let memory = self.memory.as_deref_mut().unwrap_or_default();
        self.entries.retain(|entry| {
            memory.get_mut(entry.range.clone()).is_some_and(|bytes| {
                keep(Opened {
                    peer: entry.peer,
                    outer_ecn: entry.outer_ecn,
                    bytes,
                })
            })
        });
    }

    /// Lets the first packet tell its sender to slow down: by a mark if it can carry one, else by being lost.
    pub fn tell(&mut self) -> Told {
        let first = self.entries.first().map(|entry| entry.range.clone());
        let memory = self.memory.as_deref_mut().unwrap_or_default();
        let bytes = first.and_then(|range| memory.get_mut(range));
        if let Some(Ok(mut packet)) = bytes.map(Packet::parse)
            && matches!(packet.ecn(), Ecn::Ect0 | Ecn::Ect1)
        {
            packet.set_ecn(Ecn::Ce);
            return Told::Marked;
        }
        if !self.entries.is_empty() {
            self.entries.remove(0);
        }

        Told::Dropped
    }

    /// Forgets all packets.
    pub fn clear(&mut self) {
        self.memory = None;
        self.entries.clear();
    }

    /// Forgets all packets and takes the memory of those of another train; they are named by [`add`](Self::add).
    pub(crate) fn begin(&mut self, number: u64, memory: Buffer) {
        self.number = number;
        self.memory = Some(memory);
        self.entries.clear();
    }

    /// Adds the packet that lies at the front of `padded`; whether there is one.
    pub(crate) fn add(&mut self, peer: PeerId, outer_ecn: Ecn, padded: Range<usize>) -> bool {
        let bytes = self.memory().get(padded.clone());
        // WireGuard pads to sixteen bytes; the packet's own header knows its length.
        let len = bytes.and_then(stated_len);
        let Some(len) = len.filter(|len| *len <= padded.len()) else {
            return false;
        };
        self.entries.push(Entry {
            peer,
            outer_ecn,
            range: padded.start..padded.start + len,
        });

        true
    }
}

#[cfg(test)]
mod tests {
    use connlib_wire::buffer::Pool;

    use super::*;

    fn batch(stated: &[(u8, usize)]) -> (Packets, Vec<bool>) {
        let peer = PeerId(uuid::Uuid::from_u128(1));
        let mut memory = Pool::new(256, 1).take(0);
        for (stated, padded) in stated {
            let slot = memory.extend(*padded).unwrap();
            slot[..4].copy_from_slice(&[0x45, 0, 0, *stated]);
        }
        let mut packets = Packets::new();
        packets.begin(0, memory);
        let mut start = 0;
        let added = stated.iter().map(|(_, padded)| {
            start += padded;
            packets.add(peer, Ecn::NotEct, start - padded..start)
        });
        let added = added.collect();

        (packets, added)
    }

    #[test]
    fn padding_is_cut_and_lies_are_dropped() {
        let (packets, added) = batch(&[(20, 32), (40, 32), (32, 32)]);

        assert_eq!(added, [true, false, true], "one states more than there is");
        let lens: Vec<_> = packets.iter().map(<[u8]>::len).collect();
        assert_eq!(lens, [20, 32]);
    }

    #[test]
    fn only_what_is_kept_stays() {
        let (mut packets, _) = batch(&[(20, 32), (24, 32)]);
        packets.retain(|opened| opened.bytes.len() != 24);

        assert_eq!(packets.len(), 1);
        packets.clear();
        assert!(packets.is_empty());
    }
}
