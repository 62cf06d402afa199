//! What `connlib status` shows.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use connlib_link::{Links, PathKind, PathWhy};
use serde::Serialize;

/// A role's state at one instant. Durations are in milliseconds, sizes in bytes (cli.md).
#[derive(Clone, Debug, Default, Serialize)]
pub struct Status {
    /// The tunnel addresses, once the portal has told them.
    pub addresses: Vec<IpAddr>,
    /// Where a client answers for name servers, and for which ones, in the order in which they are to be asked.
    pub name_servers: Vec<NameServerStatus>,
    /// Every link.
    pub peers: Vec<PeerStatus>,
    /// Every relay.
    pub relays: Vec<RelayStatus>,
    /// For how long no relay has answered, if none has since the network last changed: it may let no UDP out.
    pub relays_silent_ms: Option<u64>,
    /// Every resource.
    pub resources: Vec<ResourceStatus>,
    /// Packets that came from the TUN device and went nowhere.
    pub dropped_from_tun: u64,
    /// Packets that came from peers and were refused.
    pub dropped_from_peers: u64,
    /// The first of these by reason; see [`DropReason`](crate::DropReason).
    pub drops_from_tun: BTreeMap<&'static str, u64>,
    /// The others by reason.
    pub drops_from_peers: BTreeMap<&'static str, u64>,
    /// Datagrams that were none of ours.
    pub rejected_datagrams: u64,
}

/// One link.
#[derive(Clone, Debug, Serialize)]
pub struct PeerStatus {
    /// The peer's id.
    pub id: String,
    /// `direct`, `relayed`, or absent while it comes up.
    pub path: Option<&'static str>,
    /// Through which relays the path runs.
    pub via: Option<&'static str>,
    /// Our end.
    pub local: Option<SocketAddr>,
    /// The peer's end.
    pub remote: Option<SocketAddr>,
    /// How long it has been that path.
    pub path_age_ms: Option<u64>,
    /// Why it is that path, in one or two words; see [`connlib_link::PathWhy`].
    pub why: Option<&'static str>,
    /// The round-trip time of the checks on it.
    pub rtt_ms: Option<f64>,
    /// How long ago the keys in use were agreed.
    pub handshake_age_ms: Option<u64>,
    /// Bytes sent, sealed.
    pub sent_bytes: u64,
    /// Bytes received, sealed.
    pub received_bytes: u64,
}

/// One relay.
#[derive(Clone, Debug, Serialize)]
pub struct RelayStatus {
    /// The relay's id.
    pub id: String,
    /// The address in use, once it has answered.
    pub server: Option<SocketAddr>,
    /// The addresses it lends us.
    pub relayed: Vec<SocketAddr>,
    /// The round-trip time of requests to it.
    pub rtt_ms: Option<f64>,
}

/// One address at which a client answers questions.
#[derive(Clone, Debug, Serialize)]
pub struct NameServerStatus {
    /// The address.
    pub address: IpAddr,
    /// The server that is asked first for names that are no resources.
    pub upstream: String,
}

/// One resource.
#[derive(Clone, Debug, Serialize)]
pub struct ResourceStatus {
    /// The resource's id.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Its network or pattern.
    pub address: Option<String>,
    /// Whether it can be reached, as far as a client knows: `online`, `offline` or `unknown`.
    pub reach: Option<&'static str>,
    /// The gateway that serves it now.
    pub gateway: Option<String>,
    /// The clients that may use it now; gateways alone know.
    pub clients: Vec<String>,
}

impl Status {
    pub(crate) fn of_links(now: Instant, links: &Links) -> Self {
        let millis =
            |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let peers = links.peers(now).map(|peer| PeerStatus {
            id: peer.peer.to_string(),
            path: peer.path.map(|_| {
                if peer.kind.is_relayed() {
                    "relayed"
                } else {
                    "direct"
                }
            }),
            via: peer.path.and(match peer.kind {
                PathKind::Direct => None,
                PathKind::PeerRelay => Some("the peer's relay"),
                PathKind::OurRelay => Some("our relay"),
                PathKind::BothRelays => Some("both ends' relays"),
            }),
            local: peer.path.map(|path| path.local),
            remote: peer.path.map(|path| path.remote),
            path_age_ms: peer.path.map(|_| millis(peer.path_age)),
            why: peer.why.map(PathWhy::as_str),
            rtt_ms: peer.rtt.map(|rtt| rtt.as_secs_f64() * 1_000.0),
            handshake_age_ms: peer.handshake_age.map(millis),
            sent_bytes: peer.sent_bytes,
            received_bytes: peer.received_bytes,
        });
        let relays = links.relays().map(|relay| RelayStatus {
            id: relay.relay.to_string(),
            server: relay.server,
            relayed: relay.relayed,
            rtt_ms: relay.rtt.map(|rtt| rtt.as_secs_f64() * 1_000.0),
        });

        Self {
            peers: peers.collect(),
            relays: relays.collect(),
            relays_silent_ms: links.relays_silent_for(now).map(millis),
            rejected_datagrams: links.stats().rejected_datagrams,
            ..Self::default()
        }
    }
}
