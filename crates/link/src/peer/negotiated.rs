//! A peer that the portal introduces: which way it is reached, ICE finds out.

mod choice;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_wire::buffer::{Buffer, Pool};
use connlib_wire::id::RelayId;
use connlib_wire::key::{PresharedKey, PublicKey};
use connlib_wire::portal::IceCredentials;
use connlib_wire::stun::{Attribute, Builder, Class, Message, Method, TransactionId};

use super::liveness::{Liveness, Step};
use super::pace::{Change, Pace};
use super::{Health, PeerReason};
use crate::ice::{self, Connectivity};
use crate::path::{Path, PathKind};
use crate::role::Role;
pub(crate) use choice::Nomination;
use choice::{Held, Left};

/// How long a peer may go without telling a candidate (connections.md §8).
const CANDIDATE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long no pair may work before a link that never had a path has failed (connections.md §8).
const DISCONNECT_GRACE: Duration = Duration::from_secs(2);

/// How long nothing new may be learnt of the way to a peer that was never reached before the owner is told: it may know
/// another peer. Of a network that loses every third datagram each way, something is heard by then.
const MAX_WITHOUT_NEWS: Duration = Duration::from_secs(5);

/// The least time between two handshakes that an upsert asks for (connections.md §7.3).
const UPSERT_HANDSHAKE_INTERVAL: Duration = Duration::from_secs(20);

/// How often a relayed link looks for a direct way: at first, and at last.
const SEARCH_EVERY: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(300)];

/// What the portal says about a link. Two equal ones describe the same link.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerConfig {
    /// The peer's WireGuard key.
    pub public_key: PublicKey,
    /// The key both ends mix into their handshakes.
    pub preshared_key: PresharedKey,
    /// Our ICE credentials.
    pub local: IceCredentials,
    /// The peer's ICE credentials.
    pub remote: IceCredentials,
    /// Our part.
    pub role: Role,
}

impl PeerConfig {
    /// The USERNAME of the checks that the peer sends us (connections.md §4.1).
    pub(crate) fn check_username(&self) -> String {
        format!("{}:{}", self.local.username, self.remote.username)
    }
}

/// What belongs to such a peer alone.
pub(crate) struct Negotiated {
    pub(crate) config: PeerConfig,
    pub(crate) agent: ice::Agent,
    /// The relays whose addresses we offer to this peer.
    pub(crate) relays: Vec<RelayId>,
    pub(crate) liveness: Liveness,
    /// Until when a first candidate must have come.
    candidates_due_at: Option<Instant>,
    disconnected_at: Option<Instant>,
    handshake_asked_at: Option<Instant>,
    pace: Pace,
    rechecked_at: Option<Instant>,
    /// When pairs were last tried again because none was left.
    retried_at: Option<Instant>,
    held: Option<Held>,
    left: Option<Left>,
    search: Option<Search>,
    searched_at: Option<Instant>,
    network_changed_at: Option<Instant>,
    /// An address of the path in use is gone.
    is_withdrawn: bool,
    /// When the peer was last heard by any path.
    heard_at: Instant,
    /// While the controlling end has had no path yet: when something new was last learnt of it.
    news_at: Option<Instant>,
}

/// When a relayed link looks for a direct way next.
#[derive(Clone, Copy, Debug)]
struct Search {
    at: Instant,
    every: Duration,
}

/// What such a peer's timers ask for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Wanted {
    /// What the state of the path in use asks for.
    Step(Step),
    /// The way that was held back is to be used.
    Use(Path),
    /// All pairs are to be tried again, for there may be a better one.
    Search,
    /// The owner is to be told that there is no news of a peer that was never reached.
    TellUnanswered,
}

/// By which way a check or its answer came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum By {
    /// The one that is used.
    PathInUse,
    /// Another, and there is none in use, or it runs through a relay.
    Other { may_be_better: bool },
}

impl Negotiated {
    pub(super) fn new(now: Instant, config: PeerConfig, stream: u64) -> Self {
        let timings = ice::Timings::of(config.role);
        let agent = ice::Agent::new(
            now,
            stream,
            config.role,
            &config.local,
            &config.remote,
            timings,
        );
        let liveness = Liveness::new(now, agent.timeout() + DISCONNECT_GRACE);

        let is_controlling = config.role == Role::Controlling;

        Self {
            pace: Pace::new(now, config.role),
            config,
            agent,
            relays: Vec::new(),
            liveness,
            candidates_due_at: Some(now + CANDIDATE_TIMEOUT),
            disconnected_at: None,
            handshake_asked_at: None,
            rechecked_at: None,
            retried_at: None,
            held: None,
            left: None,
            search: None,
            searched_at: None,
            network_changed_at: None,
            is_withdrawn: false,
            heard_at: now,
            news_at: is_controlling.then_some(now),
        }
    }

    /// Whether a second description may cause a handshake, which shows who is still there.
    pub(super) fn may_refresh(&mut self, now: Instant) -> bool {
        let asked_lately = self
            .handshake_asked_at
            .is_some_and(|at| now.saturating_duration_since(at) < UPSERT_HANDSHAKE_INTERVAL);
        if self.config.role == Role::Controlled || asked_lately {
            return false;
        }
        self.handshake_asked_at = Some(now);

        true
    }

    pub(crate) fn add_remote(&mut self, now: Instant, candidate: is::Candidate) {
        self.candidates_due_at = None;
        if !self.agent.remotes().any(|known| known == candidate) {
            self.seek(now);
        }
        self.agent.add_remote(candidate);
    }

    /// Adds an address of ours; the candidate's line if the peer is to be told of it.
    pub(crate) fn add_local(&mut self, now: Instant, candidate: is::Candidate) -> Option<String> {
        let line = self.agent.add_local(candidate)?;
        self.seek(now);

        Some(line)
    }

    /// The peer answered or said something by some path.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard_at = now;
        self.learnt(now);
    }

    fn learnt(&mut self, now: Instant) {
        self.news_at = self.news_at.map(|_| now);
    }

    /// There may be something new to be found: pairs are checked quickly again.
    fn seek(&mut self, now: Instant) {
        let often = self.pace.seek(now);
        self.agent.check_every(often);
        self.learnt(now);
    }

    pub(crate) fn connectivity_changed(
        &mut self,
        now: Instant,
        connectivity: Connectivity,
        path: Option<Path>,
    ) {
        match connectivity {
            // The path in use may work all the same: the peer is asked by it, and all pairs are tried again.
            Connectivity::Disconnected if path.is_some() => {
                self.liveness.doubt(now);
                // With no address left to pair up, the agent is back here in the same instant.
                if self.retried_at.replace(now) != Some(now) {
                    self.seek(now);
                    self.agent.recheck(now);
                }
            }
            Connectivity::Disconnected => {
                self.disconnected_at.get_or_insert(now);
            }
            Connectivity::Checking | Connectivity::Connected => self.disconnected_at = None,
        }
    }

    /// A packet came or went: the link isn't idle.
    pub(crate) fn active(&mut self, now: Instant) {
        if self.pace.active(now) {
            self.seek(now);
            self.agent.handle_timeout(now);
        }
    }

    /// A check arrived at an address of ours that no relay has shown us: it is one all the same. Its line, if the peer
    /// is to be told.
    pub(crate) fn discover_local(
        &mut self,
        local: SocketAddr,
        check: &Message<'_>,
    ) -> Option<String> {
        if self.agent.knows_local(local) {
            return None;
        }
        let password = &self.config.local.password;
        if !check.verify(password.expose().as_bytes()) {
            return None;
        }

        self.agent
            .add_local(is::Candidate::host(local, "udp").ok()?)
    }

    /// Lets ICE say what follows from a check or its answer, unless it rests, or nothing can follow: most of them only say
    /// again what is known, and looking at all pairs each time would be most of the work.
    pub(crate) fn tick(&mut self, now: Instant, message: &Message<'_>, by: By) {
        let is_request = message.class() == Class::Request;
        if self.pace.is_resting() {
            let is_controlled = self.config.role == Role::Controlled;
            if self.pace.is_idle() || !is_controlled || !is_request || by == By::PathInUse {
                return;
            }
            // The peer seeks: it may have lost the path, and can't pass our NAT unless we seek, too.
            self.seek(now);
        }
        let is_news = match message.class() {
            Class::Request => message.use_candidate() && by != By::PathInUse,
            Class::Success | Class::Error | Class::Indication => match by {
                By::PathInUse => false,
                // Who is controlled may wait for this answer to use a pair that was nominated.
                By::Other { may_be_better } => {
                    may_be_better || self.pace.is_seeking() || self.config.role == Role::Controlled
                }
            },
        };
        if is_news || self.agent.is_due(now) {
            self.agent.handle_timeout(now);
        }
    }

    /// Our network changed: whether the path in use still works is asked at once.
    pub(crate) fn network_changed(&mut self, now: Instant) {
        self.network_changed_at = Some(now);
        self.active(now);
        self.liveness.doubt(now);
    }

    /// An address of the path in use is gone.
    pub(crate) fn path_withdrawn(&mut self, now: Instant) {
        self.is_withdrawn = true;
        self.active(now);
        self.liveness.lose(now);
    }

    /// Tries all pairs from the start.
    pub(crate) fn recheck(&mut self, now: Instant) {
        self.active(now);
        self.seek(now);
        self.rechecked_at = Some(now);
        self.agent.recheck(now);
    }

    /// A question that shows whether the peer is there: a check as its agent expects it (connections.md §4.1).
    pub(crate) fn question(&self, id: TransactionId, pool: &Pool) -> Option<Buffer> {
        let (local, remote) = (&self.config.local, &self.config.remote);
        let username = format!("{}:{}", remote.username, local.username);
        let tie_breaker = self.agent.tie_breaker();
        let is_controlling = self.config.role == Role::Controlling;
        let role = if is_controlling {
            Attribute::IceControlling(tie_breaker)
        } else {
            Attribute::IceControlled(tie_breaker)
        };

        Builder::new(pool.take(0), Method::Binding, Class::Request, id)
            .attribute(Attribute::Username(&username))
            .attribute(role)
            .attribute(Attribute::Priority(QUESTION_PRIORITY))
            .maybe(is_controlling.then_some(Attribute::UseCandidate))
            .integrity(remote.password.expose().as_bytes())
            .fingerprint()
            .finish()
            .ok()
    }

    /// Whether the link can still come up, or go on.
    pub(super) fn health(&self, now: Instant) -> Health {
        if self.candidates_due_at.is_some_and(|at| at <= now) {
            return Health::Failed("the peer told no candidate");
        }
        if self.grace_ends_at().is_some_and(|at| at <= now) {
            return Health::Failed("no path works");
        }
        if self.ends_at().is_some_and(|at| at <= now) {
            return Health::Failed("the peer was not heard");
        }

        Health::Alive
    }

    /// Lets time pass. `path` is the kind of the path in use, if packets could flow by it, whether they do or not.
    pub(super) fn handle_timeout(
        &mut self,
        now: Instant,
        path: Option<PathKind>,
    ) -> Option<Wanted> {
        if !self.pace.is_resting() && self.agent.is_due(now) {
            self.agent.handle_timeout(now);
        }
        if let Some(step) = self.liveness.handle_timeout(now) {
            return Some(Wanted::Step(step));
        }
        if self.unanswered_at().is_some_and(|at| at <= now) {
            self.learnt(now);
            return Some(Wanted::TellUnanswered);
        }
        if let Some(held) = self.held.filter(|held| held.until <= now) {
            self.held = None;
            if self.liveness.heard_at() < held.since {
                return Some(Wanted::Use(held.path));
            }
        }
        let path = path.filter(|_| !self.liveness.is_lost() && self.held.is_none());
        match self.pace.handle_timeout(now, path) {
            Some(Change::Slower(often)) => self.agent.check_every(often),
            Some(Change::Ask) => self.liveness.doubt(now),
            Some(Change::Rest) => self.agent.rest(),
            None => {}
        }
        if let Some(search) = &mut self.search
            && !self.pace.is_resting()
            && search.at <= now
        {
            search.every = (search.every * 2).min(SEARCH_EVERY[1]);
            search.at = now + search.every;
            // Whoever isn't heard any more is not searched for: to try all pairs anew would keep it alive for ever.
            if !self.liveness.is_quiet(now, SEARCH_EVERY[0]) {
                self.searched_at = Some(now);
                return Some(Wanted::Search);
            }
        }

        None
    }

    pub(super) fn poll_timeout(&mut self) -> Option<(Instant, PeerReason)> {
        let ice = match self.pace.is_resting() {
            true => [None, None],
            false => [self.agent.poll_timeout(), self.search.map(|it| it.at)],
        };
        let own = [self.pace.poll_timeout(), self.ends_at()];
        let paced = ice.into_iter().chain(own).flatten();
        let paced = paced.map(|at| (at, PeerReason::Ice));
        let candidates = self
            .candidates_due_at
            .map(|at| (at, PeerReason::Candidates));
        let grace = self.grace_ends_at().map(|at| (at, PeerReason::Grace));
        let liveness = self.liveness.poll_timeout();
        let held = self.held.map(|held| held.until);
        let path = liveness
            .into_iter()
            .chain(held)
            .chain(self.unanswered_at())
            .map(|at| (at, PeerReason::Path));

        paced.chain(candidates).chain(grace).chain(path).min()
    }

    fn grace_ends_at(&self) -> Option<Instant> {
        self.disconnected_at.map(|at| at + DISCONNECT_GRACE)
    }

    fn unanswered_at(&self) -> Option<Instant> {
        self.news_at.map(|at| at + MAX_WITHOUT_NEWS)
    }

    fn ends_at(&self) -> Option<Instant> {
        self.pace.ends_at(self.liveness.heard_at())
    }
}

/// The priority of a peer-reflexive address made from an IPv4 host address (connections.md §13.1 no. 1): what the peer
/// would take us for if the address that the question comes from were new to it.
const QUESTION_PRIORITY: u32 = 1_862_270_719;
