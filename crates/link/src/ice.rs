//! ICE: the crate `is` behind names of our own, and a fence around its randomness.
//!
//! The agent draws transaction ids from a generator that belongs to the thread. Each [`Agent`] owns a stream of its
//! own, puts it in place before each call into the agent and takes it back after: the same seed gives the same bytes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_wire::portal::IceCredentials;
use is::stun::{StunMessage, StunPacket};
use is::{
    Candidate, CandidateKind, IceAgent, IceAgentEvent, IceConnectionState, IceCreds, Protocol,
};

use crate::candidates::MAX_REMOTES;
use crate::role::Role;

/// How often a check is repeated and when its silence counts (connections.md §4.2).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timings {
    pub(crate) initial_rto: Duration,
    pub(crate) max_rto: Duration,
    pub(crate) max_retransmits: usize,
}

impl Timings {
    /// The side that wants something fails fast; the one that serves is patient, because it can't reconnect.
    pub(crate) const fn of(role: Role) -> Self {
        match role {
            Role::Controlling => Self {
                initial_rto: Duration::from_millis(250),
                max_rto: Duration::from_millis(1_500),
                max_retransmits: 12,
            },
            Role::Controlled => Self {
                initial_rto: Duration::from_millis(250),
                max_rto: Duration::from_secs(15),
                max_retransmits: 45,
            },
        }
    }
}

/// Whether any pair of addresses works.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Connectivity {
    /// Not known yet.
    Checking,
    /// One does.
    Connected,
    /// None does, and none is left to try.
    Disconnected,
}

/// What an agent tells.
pub(crate) enum Event {
    Connectivity(Connectivity),
    /// Send from here to there from now on.
    Nominated {
        local: SocketAddr,
        remote: SocketAddr,
    },
}

/// A check that is to be sent.
pub(crate) struct Check {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) contents: Vec<u8>,
}

/// The agent of one peer.
pub(crate) struct Agent {
    inner: IceAgent,
    stream: u64,
    tie_breaker: u64,
}

impl Agent {
    pub(crate) fn new(
        now: Instant,
        stream: u64,
        role: Role,
        local: &IceCredentials,
        remote: &IceCredentials,
        timings: Timings,
    ) -> Self {
        let outside = fastrand::get_seed();
        fastrand::seed(stream);
        let mut inner = IceAgent::new(credentials(local));
        let tie_breaker = fastrand::u64(..);
        inner.set_control_tie_breaker(tie_breaker);
        let mut agent = Self {
            inner,
            stream: fastrand::get_seed(),
            tie_breaker,
        };
        fastrand::seed(outside);

        agent.fenced(|agent| {
            agent.set_controlling(role == Role::Controlling);
            agent.set_timing_advance(Duration::ZERO);
            agent.set_initial_stun_rto(timings.initial_rto);
            agent.set_max_stun_rto(timings.max_rto);
            agent.set_max_stun_retransmits(timings.max_retransmits);
            agent.set_remote_credentials(credentials(remote));
            agent.handle_timeout(now);
        });

        agent
    }

    /// Adds an address of ours; the candidate's line if the peer is to be told of it.
    pub(crate) fn add_local(&mut self, candidate: Candidate) -> Option<String> {
        self.fenced(|agent| {
            agent
                .add_local_candidate(candidate)
                .map(Candidate::to_sdp_string)
        })
    }

    /// Takes back an address of ours; whether it was in use.
    pub(crate) fn remove_local(&mut self, now: Instant, candidate: &Candidate) -> bool {
        self.fenced(|agent| {
            let was_used = agent.invalidate_candidate(candidate);
            // So that another pair is nominated at once.
            agent.handle_timeout(now);

            was_used
        })
    }

    /// Whether datagrams that arrive at `addr` are for this agent.
    pub(crate) fn knows_local(&self, addr: SocketAddr) -> bool {
        self.inner
            .local_candidates()
            .any(|candidate| candidate.addr() == addr)
    }

    /// Whether checks from `addr` are of use: it is known, or one more may be.
    pub(crate) fn has_room_for(&self, addr: SocketAddr) -> bool {
        let mut known = self.inner.remote_candidates();
        let is_known = known.any(|known| known.addr() == addr);

        is_known || self.inner.remote_candidates().count() < MAX_REMOTES
    }

    /// The addresses that the peer told, or was heard from.
    pub(crate) fn remotes(&self) -> impl Iterator<Item = Candidate> {
        self.inner.remote_candidates()
    }

    /// Forgets what is known about pairs, and tries all of them from the start.
    pub(crate) fn recheck(&mut self, now: Instant) {
        self.fenced(IceAgent::recreate_candidate_pairs);
        self.handle_timeout(now);
    }

    /// Forgets what is known about pairs, which is most of what an agent holds, and tries none until time passes for it.
    pub(crate) fn rest(&mut self) {
        self.fenced(IceAgent::recreate_candidate_pairs);
    }

    /// What decides between two ends that both want to control (RFC 8445 §7.3.1.1).
    pub(crate) fn tie_breaker(&self) -> u64 {
        self.tie_breaker
    }

    /// How long no check may be answered before a pair is given up.
    pub(crate) fn timeout(&self) -> Duration {
        self.inner.ice_timeout()
    }

    pub(crate) fn add_remote(&mut self, candidate: Candidate) {
        self.fenced(|agent| agent.add_remote_candidate(candidate));
    }

    pub(crate) fn remove_remote(&mut self, now: Instant, candidate: &Candidate) {
        self.fenced(|agent| {
            agent.invalidate_candidate(candidate);
            // So that another pair is nominated at once.
            agent.handle_timeout(now);
        });
    }

    /// The lines of all our addresses, best first.
    pub(crate) fn local_lines(&self) -> Vec<String> {
        let mut candidates: Vec<_> = self.inner.local_candidates().collect();
        candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.prio()));

        candidates.iter().map(Candidate::to_sdp_string).collect()
    }

    /// Whether `remote` is an address that a relay gave the peer.
    pub(crate) fn is_relay_of_peer(&self, remote: SocketAddr) -> bool {
        let mut candidates = self.inner.remote_candidates();

        candidates.any(|candidate| {
            candidate.addr() == remote && candidate.kind() == CandidateKind::Relayed
        })
    }

    /// Hands over a STUN message that arrived at `local`; whether it was accepted.
    pub(crate) fn handle_stun(
        &mut self,
        now: Instant,
        from: SocketAddr,
        local: SocketAddr,
        bytes: &[u8],
    ) -> bool {
        let Ok(message) = StunMessage::parse(bytes) else {
            return false;
        };
        let packet = StunPacket {
            proto: Protocol::Udp,
            source: from,
            destination: local,
            message,
        };

        self.fenced(|agent| agent.handle_packet(now, packet))
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        // One call sends at most one check.
        for _ in 0..MAX_CHECKS_AT_ONCE {
            self.fenced(|agent| agent.handle_timeout(now));
            if self.inner.poll_timeout().is_none_or(|at| at > now) {
                break;
            }
        }
    }

    /// Whether a check is to be sent.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        self.poll_timeout().is_none_or(|at| at <= now)
    }

    /// How often at least a pair is checked.
    pub(crate) fn check_every(&mut self, often: Duration) {
        self.fenced(|agent| agent.set_max_stun_rto(often));
    }

    pub(crate) fn poll_check(&mut self) -> Option<Check> {
        let transmit = self.fenced(IceAgent::poll_transmit)?;

        Some(Check {
            local: transmit.source,
            remote: transmit.destination,
            contents: Vec::from(transmit.contents),
        })
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        loop {
            match self.fenced(IceAgent::poll_event)? {
                IceAgentEvent::IceConnectionStateChange(state) => {
                    return Some(Event::Connectivity(match state {
                        IceConnectionState::New | IceConnectionState::Checking => {
                            Connectivity::Checking
                        }
                        IceConnectionState::Connected | IceConnectionState::Completed => {
                            Connectivity::Connected
                        }
                        IceConnectionState::Disconnected => Connectivity::Disconnected,
                    }));
                }
                IceAgentEvent::NominatedSend {
                    source,
                    destination,
                    ..
                } => {
                    return Some(Event::Nominated {
                        local: source,
                        remote: destination,
                    });
                }
                // Restarts come from us, and who may send is WireGuard's to say.
                IceAgentEvent::IceRestart(_) | IceAgentEvent::DiscoveredRecv { .. } => {}
            }
        }
    }

    pub(crate) fn poll_timeout(&mut self) -> Option<Instant> {
        self.fenced(IceAgent::poll_timeout)
    }

    /// The round-trip time of the pair in use.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.inner.nominated_pair_rtt()
    }

    fn fenced<T>(&mut self, call: impl FnOnce(&mut IceAgent) -> T) -> T {
        let outside = fastrand::get_seed();
        fastrand::seed(self.stream);
        let result = call(&mut self.inner);
        self.stream = fastrand::get_seed();
        fastrand::seed(outside);

        result
    }
}

/// More pairs than the agent keeps (connections.md §4.6); a bound against a loop that never ends.
const MAX_CHECKS_AT_ONCE: usize = 128;

fn credentials(credentials: &IceCredentials) -> IceCreds {
    IceCreds {
        ufrag: credentials.username.clone(),
        pass: credentials.password.expose().to_owned(),
    }
}
