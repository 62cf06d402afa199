//! A peer that holds a session and seals what it likes: packets of any contents, and what is no packet at all.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_wire::key::PublicKey;
use sanstun::{
    Committed, Interface, PresharedKey, Received, ReceivedMessage, Tunnel, TunnelConfig,
};
use zeroize::Zeroizing;

/// One end of WireGuard, without anything around it.
pub(super) struct Rogue {
    interface: Interface,
    /// The session with the one peer that it has, and that peer's key.
    tunnel: Option<(PublicKey, Tunnel)>,
    /// Where it sends from.
    pub(super) at: SocketAddr,
}

/// What became of a datagram.
pub(super) enum Taken {
    /// This is to be sent back.
    Answer(Vec<u8>),
    /// It held this packet.
    Packet(Vec<u8>),
    /// Nothing.
    Nothing,
}

impl Rogue {
    pub(super) fn new(now: Instant, seed: u8, unix: Duration, at: &str) -> Self {
        Self {
            interface: Interface::new(Zeroizing::new([seed; 32]), now, unix),
            tunnel: None,
            at: at.parse().unwrap(),
        }
    }

    pub(super) fn public_key(&self) -> PublicKey {
        PublicKey(self.interface.static_public().to_bytes())
    }

    /// What asks `peer` for a session.
    pub(super) fn hello(
        &mut self,
        now: Instant,
        peer: PublicKey,
        psk: [u8; 32],
    ) -> Option<Vec<u8>> {
        if self.tunnel.as_ref().is_none_or(|(key, _)| *key != peer) {
            let psk = PresharedKey::from(Zeroizing::new(psk));
            let config = TunnelConfig::default().with_preshared_key(psk);
            let key = sanstun::PublicKey::from(peer.0);
            let tunnel = self.interface.new_tunnel(key, config, now).ok()?;
            self.tunnel = Some((peer, tunnel));
        }
        let (_, tunnel) = self.tunnel.as_mut()?;

        tunnel
            .restart_handshake(now)
            .map(|datagram| datagram.to_vec())
    }

    /// A datagram that holds `contents`, if there is a session that isn't old.
    pub(super) fn seal(
        &mut self,
        now: Instant,
        peer: PublicKey,
        contents: &[u8],
    ) -> Option<Vec<u8>> {
        let (key, tunnel) = self.tunnel.as_mut()?;
        let age = tunnel.time_since_last_handshake(now)?;
        if *key != peer || age > Duration::from_secs(60) {
            return None;
        }
        let sealing = tunnel.begin_encapsulate(now).ok()?;
        let mut datagram = vec![0; contents.len().next_multiple_of(16) + 32];
        sealing.encrypt(contents, &mut datagram).ok()?;

        Some(datagram)
    }

    pub(super) fn take(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Taken {
        let received = self.interface.receive(from, datagram, now);
        let (Ok(Received::Message(message)), Some((_, tunnel))) = (received, &mut self.tunnel)
        else {
            return Taken::Nothing;
        };
        let answer = match message {
            ReceivedMessage::HandshakeResponse(message) => {
                tunnel.handle_handshake_response(message, now).ok()
            }
            ReceivedMessage::HandshakeInitiation(message) => {
                tunnel.handle_handshake_initiation(message, now).ok()
            }
            ReceivedMessage::CookieReply(_) => None,
            ReceivedMessage::TransportData(message) => {
                return Self::open(now, tunnel, message, datagram)
                    .map_or(Taken::Nothing, Taken::Packet);
            }
        };

        answer.map_or(Taken::Nothing, |answer| Taken::Answer(answer.to_vec()))
    }

    fn open(
        now: Instant,
        tunnel: &mut Tunnel,
        message: sanstun::TransportData,
        datagram: &[u8],
    ) -> Option<Vec<u8>> {
        let opening = tunnel.begin_decapsulate(message, now).ok()?;
        let decrypted = opening.decrypt(datagram, vec![0; datagram.len()]);
        let decrypted = decrypted.map(|mut buffer, len| {
            buffer.truncate(len);
            buffer
        });

        match tunnel.commit_decapsulate(decrypted, now).ok()? {
            Committed::Data { buffer, .. } => Some(buffer),
            Committed::Keepalive => None,
        }
    }
}
