//! Packets that no program sends.

use std::net::IpAddr;

use connlib_wire::buffer::Pool;
use connlib_wire::ip::Packet;

use super::packets::{Way, ends, packet_of};
use crate::scenario::Service;

const MAGIC: [u8; 8] = *b"forgery!";

/// The first port that forged packets come from, which no program has.
const FIRST_PORT: u16 = 30_000;

/// Makes a packet that says who forged it.
pub(crate) fn forged_packet(
    forger: usize,
    (from, to): (IpAddr, IpAddr),
    service: Service,
    number: u16,
) -> Option<Vec<u8>> {
    let mut payload = MAGIC.to_vec();
    payload.extend_from_slice(&u16::try_from(forger).ok()?.to_be_bytes());
    payload.extend_from_slice(&number.to_be_bytes());
    let own = FIRST_PORT + number % 1_000;
    let ends = ((from, own), (to, service));

    packet_of(
        &Pool::new(2_048, 1),
        Way::Request,
        ends,
        number.into(),
        &payload,
    )
}

/// Who forged a packet, or what it quotes.
pub(crate) fn forger_of(bytes: &[u8]) -> Option<usize> {
    let at = bytes.windows(MAGIC.len()).position(|it| it == MAGIC)?;
    let forger = bytes.get(at + MAGIC.len()..)?.first_chunk::<2>()?;

    Some(u16::from_be_bytes(*forger).into())
}

/// What a forged packet uses of where it goes.
pub(crate) fn service_of(packet: &Packet<&[u8]>) -> Option<Service> {
    ends(packet, Way::Request).map(|(_, service)| service)
}
