//! The doors.

mod allocating;
mod control;
mod data;
mod lifecycle;
mod peers;
mod siblings;

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_wire::buffer::Pool;
use connlib_wire::stun::Family;
use connlib_wire::train::{Arrival, Transmit};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::allocation::Allocations;
use crate::auth::Authority;
use crate::conduct::Conduct;
use crate::config::{AllocationPort, Config};
use crate::deadlines::{Deadlines, Reason};
use crate::limits::{Buckets, Limits};
use crate::ports::Ports;
use crate::reservations::Reservations;
use crate::share::{Claim, Share};
use crate::stats::{DropReason, Stats};
use crate::verdict::{Kind, Verdict, Via, leading_run};

/// How many of the large buffers are kept when they aren't in use.
const LARGE_KEPT: usize = 4;

/// A STUN/TURN server. See the [crate's documentation](crate).
pub struct Server {
    config: Config,
    conduct: Conduct,
    limits: Limits,
    pool: Pool,
    /// For data that doesn't fit buffers of `pool`: each holds the longest datagram.
    large: Pool,
    rng: StdRng,
    authority: Authority,
    ports: Ports,
    share: Share,
    /// Empty where there are no other servers.
    claims: VecDeque<Claim>,
    allocations: Allocations,
    reservations: Reservations,
    deadlines: Deadlines,
    unproven: Buckets,
    transmits: VecDeque<Transmit>,
    /// Data that had to be copied.
    relayed: VecDeque<(Via, Transmit)>,
    commands: VecDeque<Queued>,
    stats: Stats,
    is_draining: bool,
    /// The latest time the caller spoke of.
    latest: Option<Instant>,
}

/// What the caller shall do with an allocation's port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Command {
    /// Bind a socket to it, and say whether that worked.
    OpenPort {
        /// Which port.
        port: AllocationPort,
        /// Which socket of that port.
        family: Family,
    },
    /// Close its socket.
    ClosePort {
        /// Which port.
        port: AllocationPort,
        /// Which socket of that port.
        family: Family,
    },
}

/// A command that waits for the caller.
#[derive(Debug)]
struct Queued {
    command: Command,
    /// The port that nothing holds any more once the caller has the command: it is not given to anybody before, so that
    /// closing it can't hit its next owner.
    frees: Option<AllocationPort>,
}

impl Server {
    /// Creates a server. `seed` makes it unpredictable to clients: ports and nonces come from it. Answers are written
    /// into buffers of `pool`.
    pub fn new(config: Config, seed: [u8; 32], pool: Pool) -> Self {
        let limits = Limits::default();
        let mut rng = StdRng::from_seed(seed);

        let failures = Buckets::of_failed(&limits);

        Self {
            authority: Authority::new(config.credentials.clone(), rng.random(), failures),
            rng,
            ports: Ports::new(config.ports.clone(), config.listen_port, Share::WHOLE),
            share: Share::WHOLE,
            claims: VecDeque::new(),
            conduct: Conduct::towards(&config.credentials),
            config,
            unproven: Buckets::of_unproven(&limits),
            limits,
            pool,
            large: Pool::new(usize::from(u16::MAX), LARGE_KEPT),
            allocations: Allocations::default(),
            reservations: Reservations::default(),
            deadlines: Deadlines::default(),
            transmits: VecDeque::new(),
            relayed: VecDeque::new(),
            commands: VecDeque::new(),
            stats: Stats::default(),
            is_draining: false,
            latest: None,
        }
    }

    /// Replaces the default limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.unproven = Buckets::of_unproven(&limits);
        self.authority.set_failures(Buckets::of_failed(&limits));
        self.limits = limits;
        self
    }

    /// Takes what arrived on the listen port; `unix` is the wall clock, since 1970, for the expiry of credentials.
    ///
    /// A train of one channel's data costs one look-up. See [`Verdict`] for what the caller does next.
    pub fn handle_client(
        &mut self,
        now: Instant,
        unix: Duration,
        arrival: &Arrival<'_>,
    ) -> Verdict {
        self.handle_timeout(now);
        if arrival.from.port() == 0 {
            return self.drop_all(DropReason::SourcePortZero, arrival);
        }
        let Some((kind, length)) = leading_run(arrival) else {
            return self.drop_all(DropReason::UnknownProtocol, arrival);
        };
        if length < arrival.bytes.len() {
            return Verdict::Mixed;
        }

        match kind {
            Kind::Stun => self.handle_requests(now, unix, arrival),
            Kind::ChannelData {
                number,
                payload_len,
            } => self.forward_to_peer(arrival, number, payload_len),
            Kind::BrokenChannelData => self.drop_all(DropReason::MalformedChannelData, arrival),
            Kind::Unknown => self.drop_all(DropReason::UnknownProtocol, arrival),
        }
    }

    /// Takes what arrived on the socket of `port`: data from a peer. Never [`Verdict::Mixed`].
    pub fn handle_peer(
        &mut self,
        now: Instant,
        port: AllocationPort,
        arrival: &Arrival<'_>,
    ) -> Verdict {
        self.handle_timeout(now);
        if arrival.from.port() == 0 {
            return self.drop_all(DropReason::SourcePortZero, arrival);
        }

        self.forward_to_client(port, &self.as_known(arrival))
    }

    /// From now on nobody gets a new allocation: ALLOCATE is refused with 508. All else goes on.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Whether somebody has an allocation, or is about to have one.
    pub fn serves(&self, client: SocketAddr) -> bool {
        self.allocations.of_client(client).is_some()
    }

    /// Whether no allocation is left, not even one whose port is being opened: nobody notices if the server ends.
    pub fn is_empty(&self) -> bool {
        self.allocations.len() == 0
    }

    /// How the server behaves towards its clients.
    pub fn conduct(&self) -> Conduct {
        self.conduct
    }

    /// Lets time pass: whatever falls due by `now` happens.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.latest = Some(now);
        while let Some((at, due)) = self.deadlines.pop(now) {
            self.fall_due(at, due);
        }
    }

    /// The next answer to send, from the listen port.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next data to send that came or leaves in an indication, and the socket that sends it. Unlike answers it may wait
    /// behind other data. What came through one socket stays in order if it is polled before what comes next.
    pub fn poll_relayed(&mut self) -> Option<(Via, Transmit)> {
        self.relayed.pop_front()
    }

    /// The next thing to do with an allocation's port.
    pub fn poll_command(&mut self) -> Option<Command> {
        let Queued { command, frees } = self.commands.pop_front()?;
        if let Some(port) = frees {
            self.ports.give_back(port);
        }

        Some(command)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due, and why; at once while anything waits to be polled.
    pub fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        if self.transmits.is_empty() && self.relayed.is_empty() && self.commands.is_empty() {
            return self.deadlines.next();
        }

        self.latest.map(|latest| (latest, Reason::OutputWaits))
    }

    /// What was counted.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Control comes one datagram at a time even in a train; a train is dropped only if nothing in it was a request.
    fn handle_requests(&mut self, now: Instant, unix: Duration, arrival: &Arrival<'_>) -> Verdict {
        let mut verdict = None;
        for datagram in arrival.datagrams() {
            match self.handle_control(now, unix, arrival, datagram) {
                Ok(()) => verdict = Some(Verdict::Handled),
                Err(reason) => {
                    self.stats.count_dropped(reason, 1);
                    tracing::trace!(from = %arrival.from, ?reason, "Dropped a request");
                    verdict.get_or_insert(Verdict::Drop(reason));
                }
            }
        }

        verdict.unwrap_or(Verdict::Handled)
    }

    fn drop_all(&mut self, reason: DropReason, arrival: &Arrival<'_>) -> Verdict {
        self.stats
            .count_dropped(reason, arrival.datagrams().count());
        tracing::trace!(from = %arrival.from, ?reason, "Dropped datagrams");

        Verdict::Drop(reason)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("config", &self.config)
            .field("limits", &self.limits)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}
