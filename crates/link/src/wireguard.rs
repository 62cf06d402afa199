//! WireGuard: the crate `sanstun` behind names of our own, so that it can be replaced without touching its callers.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use connlib_wire::key::{PresharedKey, PublicKey};
use zeroize::Zeroizing;

use crate::handshakes::Handshakes;
use crate::peer::FixedPeer;
pub(crate) use sanstun::{Datagram, Error, TunnelId};

/// How long an unanswered handshake is tried before the link has failed; more than the ICE timeout, so that a link
/// can move to another path (connections.md §7.4).
const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(20);

/// How soon an unanswered initiation is repeated while a link comes up, so that one lost datagram costs no five
/// seconds.
const CONNECTING_REKEY_TIMEOUT: Duration = Duration::from_secs(1);

/// The same once the link is up: WireGuard's own value.
const REKEY_TIMEOUT: Duration = Duration::from_secs(5);

/// The secret half of a node's key. It can't be printed and is wiped when dropped.
#[derive(Clone)]
pub struct PrivateKey(sanstun::StaticSecret);

impl PrivateKey {
    /// Takes over key bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(sanstun::StaticSecret::from(Zeroizing::new(bytes)))
    }

    /// The other half.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(sanstun::PublicKey::from(&self.0).to_bytes())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

/// What encryption adds to a packet of `len` bytes, padding included.
pub(crate) const fn sealed_len(len: usize) -> usize {
    len.next_multiple_of(16) + connlib_wire::WIREGUARD_OVERHEAD
}

/// Our key and what protects it from floods.
pub(crate) struct Interface {
    inner: sanstun::Interface,
    handshakes: Handshakes,
}

/// What a datagram turned out to be.
pub(crate) enum Incoming {
    /// We are flooded: answer with this, and nothing else happened.
    Overloaded(Datagram),
    /// Someone who holds this key wants a session.
    Initiation(PublicKey, sanstun::HandshakeInitiation),
    /// The answer to our initiation.
    Response(TunnelId, sanstun::HandshakeResponse),
    /// The peer is flooded and wants a cookie echoed.
    Cookie(TunnelId, sanstun::CookieReply),
    /// A packet or a keep-alive.
    Data(TunnelId, sanstun::TransportData),
}

impl Interface {
    pub(crate) fn new(seed: Zeroizing<[u8; 32]>, now: Instant, unix: Duration) -> Self {
        Self {
            inner: sanstun::Interface::new(seed, now, unix),
            handshakes: Handshakes::default(),
        }
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        PublicKey(self.inner.static_public().to_bytes())
    }

    pub(crate) fn with_key(self, key: &PrivateKey) -> Self {
        Self {
            inner: self.inner.with_static_private(key.0.clone()),
            ..self
        }
    }

    pub(crate) fn new_tunnel(
        &mut self,
        peer: PublicKey,
        preshared_key: &PresharedKey,
        now: Instant,
    ) -> Result<Tunnel, Error> {
        let config = sanstun::TunnelConfig::default().with_preshared_key(secret(preshared_key));
        let mut tunnel = self
            .inner
            .new_tunnel(sanstun::PublicKey::from(peer.0), config, now)?;
        tunnel.set_rekey_attempt_time(REKEY_ATTEMPT_TIME);
        tunnel.set_rekey_timeout(CONNECTING_REKEY_TIMEOUT);

        Ok(Tunnel { inner: tunnel })
    }

    /// A tunnel with WireGuard's own timing.
    pub(crate) fn new_fixed_tunnel(
        &mut self,
        peer: &FixedPeer,
        now: Instant,
    ) -> Result<Tunnel, Error> {
        let mut config = sanstun::TunnelConfig::default();
        if let Some(preshared_key) = &peer.preshared_key {
            config = config.with_preshared_key(secret(preshared_key));
        }
        if let Some(keepalive) = peer.keepalive {
            config = config.with_persistent_keepalive(keepalive);
        }
        let key = sanstun::PublicKey::from(peer.public_key.0);

        Ok(Tunnel {
            inner: self.inner.new_tunnel(key, config, now)?,
        })
    }

    /// `from` is the peer's own address, also where a relay stands in between: cookies are bound to it.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<Incoming, Error> {
        use sanstun::{Received, ReceivedMessage};

        let is_handshake = Handshakes::is_one(datagram);
        if is_handshake && !self.handshakes.admits(now, from.ip()) {
            return Err(Error::RateLimited);
        }
        let received = self.inner.receive(from, datagram, now);
        if is_handshake {
            self.handshakes.count(from.ip(), &received);
        }

        Ok(match received? {
            Received::SendCookieReply(reply) => Incoming::Overloaded(reply),
            Received::Message(ReceivedMessage::HandshakeInitiation(message)) => {
                Incoming::Initiation(PublicKey(message.peer_static_public().to_bytes()), message)
            }
            Received::Message(ReceivedMessage::HandshakeResponse(message)) => {
                Incoming::Response(message.tunnel_id(), message)
            }
            Received::Message(ReceivedMessage::CookieReply(message)) => {
                Incoming::Cookie(message.tunnel_id(), message)
            }
            Received::Message(ReceivedMessage::TransportData(message)) => {
                Incoming::Data(message.tunnel_id(), message)
            }
        })
    }
}

fn secret(preshared_key: &PresharedKey) -> sanstun::PresharedKey {
    sanstun::PresharedKey::from(Zeroizing::new(*preshared_key.expose()))
}

/// What a tunnel wants of its owner.
pub(crate) enum Event {
    /// Send this on the path in use.
    Send(Datagram),
    /// Send this, too: it asks for a new session.
    Initiate(Datagram),
    /// The first session is confirmed.
    Established,
    /// All keys are gone; the tunnel is dead.
    Expired,
}

/// The sessions with one peer.
pub(crate) struct Tunnel {
    inner: sanstun::Tunnel,
}

impl Tunnel {
    pub(crate) fn id(&self) -> TunnelId {
        self.inner.id()
    }

    /// Whether it has given up and is of no use any more.
    pub(crate) fn is_expired(&self) -> bool {
        self.inner.is_expired()
    }

    /// Starts a handshake unless one is under way.
    pub(crate) fn initiate(&mut self, now: Instant) -> Option<Datagram> {
        self.inner.initiate_handshake(now)
    }

    /// How far away the peer is, before there is a session: an answer must not find that the next question has taken its
    /// place already.
    pub(crate) fn connects_over(&mut self, rtt: Duration) {
        let timeout = (rtt * 2).clamp(CONNECTING_REKEY_TIMEOUT, REKEY_TIMEOUT);
        self.inner.set_rekey_timeout(timeout);
    }

    /// Starts a handshake anew: the former initiation may have gone down a path that is no more.
    pub(crate) fn restart(&mut self, now: Instant) -> Option<Datagram> {
        self.inner.restart_handshake(now)
    }

    pub(crate) fn handle_initiation(
        &mut self,
        now: Instant,
        message: sanstun::HandshakeInitiation,
    ) -> Result<Datagram, Error> {
        self.inner.handle_handshake_initiation(message, now)
    }

    pub(crate) fn handle_response(
        &mut self,
        now: Instant,
        message: sanstun::HandshakeResponse,
    ) -> Result<Datagram, Error> {
        self.inner.handle_handshake_response(message, now)
    }

    pub(crate) fn handle_cookie(
        &mut self,
        now: Instant,
        message: sanstun::CookieReply,
    ) -> Result<(), Error> {
        self.inner.handle_cookie_reply(message, now)
    }

    /// Takes the next counter: where it is sealed, and when, makes no difference.
    pub(crate) fn begin_seal(&mut self, now: Instant) -> Result<Sealing, Error> {
        self.inner.begin_encapsulate(now).map(Sealing)
    }

    /// Finds the key of a data message.
    pub(crate) fn begin_open(
        &self,
        now: Instant,
        message: sanstun::TransportData,
    ) -> Result<Opening, Error> {
        self.inner.begin_decapsulate(message, now).map(Opening)
    }

    /// Believes an opened message unless it is forged or was here before; where its packet lies, or `None` for a
    /// keep-alive.
    pub(crate) fn commit_open(
        &mut self,
        now: Instant,
        opened: Opened,
    ) -> Result<Option<Range<usize>>, Error> {
        Ok(match self.inner.commit_decapsulate(opened.0, now)? {
            sanstun::Committed::Data { buffer, .. } => Some(buffer),
            sanstun::Committed::Keepalive => None,
        })
    }

    /// How long the session in use has existed.
    pub(crate) fn session_age(&self, now: Instant) -> Option<Duration> {
        self.inner.time_since_last_handshake(now)
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.inner.handle_timeout(now);
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        Some(match self.inner.poll_event()? {
            sanstun::Event::SendHandshakeInitiation(datagram) => Event::Initiate(datagram),
            sanstun::Event::SendKeepalive(datagram) => Event::Send(datagram),
            sanstun::Event::Established { .. } => {
                self.inner.set_rekey_timeout(REKEY_TIMEOUT);
                Event::Established
            }
            sanstun::Event::ConnectionExpired => Event::Expired,
        })
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.inner.poll_timeout()
    }
}

/// A packet's counter and key.
#[derive(Debug)]
pub(crate) struct Sealing(sanstun::PendingEncapsulate);

impl Sealing {
    /// Seals `packet` into `slot`, which must hold [`sealed_len`] bytes.
    pub(crate) fn seal(self, packet: &[u8], slot: &mut [u8]) -> Result<(), Error> {
        self.0.encrypt(packet, slot).map(drop)
    }
}

/// The key that a data message is opened with.
#[derive(Debug)]
pub(crate) struct Opening(sanstun::PendingDecapsulate);

impl Opening {
    /// Opens `datagram` into `slot`, which lies at `start` of a larger piece of memory.
    pub(crate) fn open(self, datagram: &[u8], slot: &mut [u8], start: usize) -> Opened {
        let decrypted = self.0.decrypt(datagram, slot);

        Opened(decrypted.map(|_, len| start..start + len))
    }
}

/// An opened message that nobody believes yet, and where its packet lies, padding included.
#[derive(Debug)]
pub(crate) struct Opened(sanstun::Decrypted<Range<usize>>);

impl Opened {
    /// Where the packet ends, if there is one.
    pub(crate) fn end(&self) -> Option<usize> {
        self.0.plaintext().map(|range| range.end)
    }
}
