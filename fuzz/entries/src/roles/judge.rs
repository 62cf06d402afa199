//! What came out of either role, held against the law.

use connlib_tunnel::Packets;
use connlib_wire::MAX_PACKET;
use connlib_wire::id::{ClientId, GatewayId};

use super::strict::{self, Seen};
use super::world::World;
use super::{ROGUE, ROGUE_GATEWAY};

impl World {
    /// Remembers how long a packet is that is wrong as it is put in. What lies behind it counts for padding, and what it lacks is
    /// padded.
    pub(super) fn note(&mut self, bytes: &[u8]) {
        let mut padded = bytes.to_vec();
        padded.resize(bytes.len().next_multiple_of(16), 0);
        let packet = unpadded(&padded);
        if !strict::read(packet).is_ok_and(|seen| seen.sums_are_right) {
            self.wrong.insert(packet.len());
        }
    }

    pub(super) fn left_gateway(&mut self, packets: &mut Packets) {
        packets.retain(|opened| {
            let seen = self.strict(opened.bytes, "passed on by the gateway");
            let client = ClientId(opened.peer.0);
            let may = self.law.may_leave(self.now, client, opened.bytes, &seen);
            self.hold(may, "passed on by the gateway", opened.bytes);
            self.counts.left_gateway += 1;
            true
        });
    }

    pub(super) fn entered_client(&mut self, packets: &mut Packets) {
        packets.retain(|opened| {
            let seen = self.strict(opened.bytes, "passed on by the client");
            let may = self.law.may_enter(GatewayId(opened.peer.0), &seen);
            self.hold(may, "passed on by the client", opened.bytes);
            self.counts.entered_client += 1;
            true
        });
    }

    pub(super) fn reached_rogue(&mut self, padded: &[u8]) {
        let packet = unpadded(padded);
        let seen = self.strict(packet, "sent by the gateway");
        self.counts.reached_rogue += 1;
        self.hold(
            self.law.may_arrive(self.now, ROGUE, &seen),
            "sent by the gateway",
            packet,
        );
    }

    pub(super) fn reached_rogue_gateway(&mut self, padded: &[u8]) {
        let packet = unpadded(padded);
        let seen = self.strict(packet, "sent by the client");
        self.counts.reached_rogue_gateway += 1;
        self.hold(
            self.law.may_ask(ROGUE_GATEWAY, &seen),
            "sent by the client",
            packet,
        );
    }

    /// Reads what came out as a stranger would. What went in with right checksums comes out so.
    pub(super) fn strict(&self, packet: &[u8], what: &str) -> Seen {
        assert!(packet.len() <= MAX_PACKET, "{what}: {} bytes", packet.len());
        let seen =
            strict::read(packet).unwrap_or_else(|why| panic!("{what}: {why}: {packet:02x?}"));
        assert!(
            seen.sums_are_right || self.wrong.contains(&packet.len()),
            "{what}: a checksum is wrong: {seen:?} {packet:02x?}"
        );

        seen
    }

    pub(super) fn hold(&self, may: Result<(), &str>, what: &str, packet: &[u8]) {
        if let Err(why) = may {
            let seen = strict::read(packet);
            let quoted = seen.ok().and_then(|seen| strict::quoted(packet, &seen));
            let (grants, served) = (&self.law.grants, &self.law.served);
            panic!(
                "{what}: {why}: {seen:?} {quoted:?} {packet:02x?}; granted {grants:?}, served {served:?}, at {:?}",
                self.now - self.start
            );
        }
    }
}

/// A packet without what WireGuard has put behind it.
fn unpadded(padded: &[u8]) -> &[u8] {
    let word = |at: usize| {
        let pair = padded.get(at..at + 2)?;
        Some(usize::from(u16::from_be_bytes([pair[0], pair[1]])))
    };
    let len = match padded.first().map(|first| first >> 4) {
        Some(4) => word(2),
        _ => word(4).map(|len| len + 40),
    };

    len.and_then(|len| padded.get(..len)).unwrap_or(padded)
}
