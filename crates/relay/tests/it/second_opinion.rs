//! The server as `turn-client-proto` meets it, a TURN client that others wrote: it decides what is asked, when, and what of the answers
//! it believes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_relay::{AllocationPort, Verdict, Via};
use connlib_wire::stun::{Family, Message};
use turn_client_proto::api::{TurnConfig, TurnEvent, TurnRecvRet};
use turn_client_proto::prelude::*;
use turn_client_proto::stun::agent::Transmit;
use turn_client_proto::stun::types::message::IntegrityAlgorithm;
use turn_client_proto::stun::types::{AddressFamily, TransportType};
use turn_client_proto::types::TurnCredentials;
use turn_client_proto::udp::TurnClientUdp;

use crate::support::{PUBLIC_V4, Rig, client, peer, peer_v6, rest_credentials, secs, standard};

/// Longer than allocations, permissions and channels last that nobody refreshes.
const LONG: Duration = secs(3 * 3600);

#[test]
fn it_allocates_permits_binds_and_gives_back() {
    for integrity in [IntegrityAlgorithm::Sha1, IntegrityAlgorithm::Sha256] {
        // It counts channels of each family by themselves and from the same number on, so that it can have but one of both.
        for to in [peer(1), peer_v6(1)] {
            let mut meeting = Meeting::begin(integrity);
            let relayed = meeting.allocate();

            meeting.permit(to);
            meeting.carries_both_ways(relayed, to);
            assert!(meeting.in_indications, "{to}");
            meeting.bind(to);
            meeting.carries_both_ways(relayed, to);
            assert!(!meeting.in_indications, "{to}");

            let now = meeting.now();
            meeting.client.delete(now).unwrap();
            meeting.settle();
            assert!(meeting.rig.open.is_empty(), "{:?}", meeting.rig.open);
            assert_eq!(meeting.client.relayed_addresses().count(), 0);
            assert_eq!(meeting.ignored, 0);
            assert_eq!(meeting.last_integrity, Some(integrity));
        }
    }
}

#[test]
fn what_it_refreshes_lasts() {
    let mut meeting = Meeting::begin(IntegrityAlgorithm::Sha1);
    let relayed = meeting.allocate();
    let (permitted, bound) = (peer(1), peer(2));
    meeting.permit(permitted);
    meeting.bind(bound);

    let asked = meeting.asked;
    meeting.pass(LONG);

    assert!(
        meeting.asked > asked + 18,
        "an allocation alone is due every ten minutes"
    );
    meeting.carries_both_ways(relayed, permitted);
    meeting.carries_both_ways(relayed, bound);
    // Once an hour its nonce is stale: it asks again, and has forgotten one of its questions when the answer comes.
    assert!(meeting.ignored <= 3, "{}", meeting.ignored);
}

#[test]
fn a_wrong_password_gets_nothing() {
    let (name, _) = rest_credentials(2_145_916_800, "alice");
    let mut meeting = Meeting::with(
        TurnCredentials::new(&name, "guessed"),
        IntegrityAlgorithm::Sha1,
    );

    meeting.pass(secs(60));

    // It has nobody's word that it is the server who refuses, and asks on.
    assert!(meeting.asked > 2 && meeting.ignored == meeting.asked - 1);
    assert_eq!(meeting.client.relayed_addresses().count(), 0);
    assert!(meeting.rig.open.is_empty());
}

/// The client and our server, on virtual time.
struct Meeting {
    rig: Rig,
    start: Instant,
    client: TurnClientUdp,
    events: Vec<TurnEvent>,
    /// What peers sent, as the client understood it.
    received: Vec<(SocketAddr, Vec<u8>)>,
    /// Datagrams that were requests.
    asked: usize,
    /// By what the latest request was signed.
    last_integrity: Option<IntegrityAlgorithm>,
    /// Datagrams of the server's that it took no notice of.
    ignored: usize,
    /// Whether the latest data came and went in indications.
    in_indications: bool,
}

impl Meeting {
    fn begin(integrity: IntegrityAlgorithm) -> Self {
        let (name, password) = rest_credentials(2_145_916_800, "alice");

        Self::with(TurnCredentials::new(&name, password.expose()), integrity)
    }

    fn with(credentials: TurnCredentials, integrity: IntegrityAlgorithm) -> Self {
        let rig = Rig::with(standard());
        let mut config = TurnConfig::new(credentials);
        config.add_address_family(AddressFamily::IPV6);
        config.set_supported_integrity(integrity);

        Self {
            start: rig.now,
            client: TurnClientUdp::allocate(client(1), rig.arrival(client(1), &[]).to, config),
            rig,
            events: Vec::new(),
            received: Vec::new(),
            asked: 0,
            last_integrity: None,
            ignored: 0,
            in_indications: false,
        }
    }

    /// The time as the client counts it.
    fn now(&self) -> turn_client_proto::stun::Instant {
        turn_client_proto::stun::Instant::ZERO + (self.rig.now - self.start)
    }

    /// An address of each family on one port; that of IPv4.
    fn allocate(&mut self) -> SocketAddr {
        self.settle();

        let mut relayed: Vec<_> = self.client.relayed_addresses().collect();
        relayed.sort_by_key(|(_, address)| address.is_ipv6());
        let [(TransportType::Udp, v4), (TransportType::Udp, v6)] = relayed[..] else {
            panic!("{relayed:?} {:?}", self.events);
        };
        assert_eq!((v4.ip(), v4.port()), (PUBLIC_V4.into(), v6.port()));

        v4
    }

    fn permit(&mut self, to: SocketAddr) {
        let now = self.now();
        self.client
            .create_permission(TransportType::Udp, to.ip(), now)
            .unwrap();
        self.settle();

        assert!(self.client.have_permission(TransportType::Udp, to.ip()));
    }

    fn bind(&mut self, to: SocketAddr) {
        let now = self.now();
        self.client
            .bind_channel(TransportType::Udp, to, now)
            .unwrap();
        self.settle();

        let is_bound =
            |event: &TurnEvent| matches!(event, TurnEvent::ChannelCreated(_, at) if *at == to);
        assert!(self.events.iter().any(is_bound), "{:?}", self.events);
    }

    /// A datagram to the peer and its answer.
    fn carries_both_ways(&mut self, relayed: SocketAddr, to: SocketAddr) {
        let now = self.now();
        let built = self.client.send_to(TransportType::Udp, to, b"there", now);
        let sent = built.unwrap().unwrap().build();
        let verdict = self.rig.send(sent.from, &sent.data);
        let port = AllocationPort(relayed.port());
        let via = Via::Allocation(port, Family::of(to));
        self.in_indications = verdict == Verdict::Handled;
        if let Verdict::Forward(forward) = verdict {
            let payloads: Vec<_> = forward
                .payloads(&self.rig.arrival(sent.from, &sent.data))
                .collect();
            assert_eq!((forward.via, forward.to), (via, to));
            assert_eq!(payloads, [b"there"]);
        } else {
            let left = self.rig.relayed().pop().unwrap();
            assert_eq!(
                (left.via, left.to, &left.bytes[..]),
                (via, to, &b"there"[..])
            );
        }

        let back = match self.rig.send_from_peer(port, to, b"and back") {
            Verdict::Forward(forward) => {
                let header = forward.header(b"and back").unwrap();
                [&header[..], b"and back"].concat()
            }
            Verdict::Handled => self.rig.relayed().pop().unwrap().bytes,
            other @ (Verdict::Drop(_) | Verdict::Mixed) => panic!("{other:?}"),
        };
        self.give(back);
        assert_eq!(self.received.pop(), Some((to, b"and back".to_vec())));
    }

    /// Lets both speak for long enough: the client leaves some time between two requests.
    fn settle(&mut self) {
        for _ in 0..20 {
            self.speak();
            self.rig.pass(Duration::from_millis(50));
        }
        self.speak();
    }

    /// Carries what the client has to say now, and the answers.
    fn speak(&mut self) {
        let now = self.now();
        let _ = self.client.poll(now);
        while let Some(sent) = self.client.poll_transmit(now) {
            self.asked += 1;
            let request = sent.data.to_vec();
            let read = Message::parse(&request).unwrap();
            self.last_integrity = match (read.has_integrity(), read.has_integrity_sha256()) {
                (false, false) => None,
                (false, true) => Some(IntegrityAlgorithm::Sha256),
                (true, _) => Some(IntegrityAlgorithm::Sha1),
            };
            assert_eq!(self.rig.send(sent.from, &request), Verdict::Handled);
            for answer in self.rig.answers() {
                self.give(answer.bytes);
            }
            let _ = self.client.poll(now);
        }
        self.events
            .extend(std::iter::from_fn(|| self.client.poll_event()));
    }

    /// Hands a datagram of the server's to the client.
    fn give(&mut self, bytes: Vec<u8>) {
        let (from, to) = (self.client.remote_addr(), self.client.local_addr());
        let now = self.now();
        match self
            .client
            .recv(Transmit::new(bytes, TransportType::Udp, from, to), now)
        {
            TurnRecvRet::Handled => {}
            TurnRecvRet::Ignored(_) => self.ignored += 1,
            TurnRecvRet::PeerData(data) => self.received.push((data.peer, data.data().to_vec())),
            other => panic!("{other:?}"),
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.rig.now + time;
        while self.rig.now < end {
            self.rig.pass(secs(1));
            self.speak();
        }
    }
}
