//! The doors.

mod control;
mod lifecycle;

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use connlib_wire::buffer::Pool;
use connlib_wire::channel::{self, ChannelNumber};
use connlib_wire::stun::Family;
use connlib_wire::train::{Arrival, Transmit};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::allocation::Allocations;
use crate::config::{AllocationPort, Config};
use crate::deadlines::{Deadlines, Reason};
use crate::limits::{Buckets, Limits};
use crate::nonce::Nonces;
use crate::ports::Ports;
use crate::stats::{DropReason, Stats};
use crate::verdict::{Forward, Kind, Verdict, Via, datagrams, leading_run};

/// A STUN/TURN server. See the [crate's documentation](crate).
pub struct Server {
    config: Config,
    limits: Limits,
    pool: Pool,
    rng: StdRng,
    nonces: Nonces,
    ports: Ports,
    allocations: Allocations,
    deadlines: Deadlines,
    unproven: Buckets,
    transmits: VecDeque<Transmit>,
    commands: VecDeque<Queued>,
    stats: Stats,
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

        Self {
            nonces: Nonces::new(rng.random()),
            rng,
            ports: Ports::new(config.ports.clone(), config.listen_port),
            config,
            unproven: Buckets::new(&limits),
            limits,
            pool,
            allocations: Allocations::default(),
            deadlines: Deadlines::default(),
            transmits: VecDeque::new(),
            commands: VecDeque::new(),
            stats: Stats::default(),
            latest: None,
        }
    }

    /// Replaces the default limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.unproven = Buckets::new(&limits);
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
        let Some(allocation) = self.allocations.at(port) else {
            return self.drop_all(DropReason::NoAllocation, arrival);
        };
        let Some(number) = allocation.channels.number_of(arrival.from) else {
            return self.drop_all(DropReason::NoChannel, arrival);
        };

        let forward = Forward {
            via: Via::Listen(Family::of(allocation.client)),
            src: Some(allocation.server),
            to: allocation.client,
            ecn: arrival.ecn,
            strip: 0,
            channel: Some(number),
            segment_size: match arrival.stride {
                0 => arrival.bytes.len(),
                stride => stride.min(arrival.bytes.len()),
            },
        };
        self.stats
            .to_clients
            .add(datagrams(arrival).count(), arrival.bytes.len());

        Verdict::Forward(forward)
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
        if self.transmits.is_empty() && self.commands.is_empty() {
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

    fn forward_to_peer(
        &mut self,
        arrival: &Arrival<'_>,
        number: ChannelNumber,
        segment_size: usize,
    ) -> Verdict {
        let Some(allocation) = self.allocations.of_client(arrival.from) else {
            return self.drop_all(DropReason::NoAllocation, arrival);
        };
        let Some(peer) = allocation.channels.peer_of(number) else {
            return self.drop_all(DropReason::NoChannel, arrival);
        };

        let family = Family::of(peer);
        let mut forward = Forward {
            via: Via::Allocation(allocation.port, family),
            src: None,
            to: peer,
            ecn: arrival.ecn,
            strip: channel::HEADER_LEN,
            channel: None,
            segment_size,
        };
        let mut traffic = &mut self.stats.to_peers;

        // The peer may be an allocation of this very relay: then its client gets the data, as it would if the data had
        // left and come back, but no network has to bring our own address back to us.
        if self.config.public_ip(family) == Some(peer.ip())
            && let Some(twin) = self.allocations.at(AllocationPort(peer.port()))
        {
            let seen_as = (peer.ip(), allocation.port.0).into();
            let Some(number) = twin.channels.number_of(seen_as) else {
                return self.drop_all(DropReason::NoChannel, arrival);
            };
            forward.via = Via::Listen(Family::of(twin.client));
            forward.src = Some(twin.server);
            forward.to = twin.client;
            forward.channel = Some(number);
            traffic = &mut self.stats.between_clients;
        }

        let count = arrival.datagrams().count();
        let last = arrival.datagrams().last().and_then(channel::decode);
        let last_len = last.map_or(0, |(_, payload)| payload.len());
        traffic.add(count, segment_size * count.saturating_sub(1) + last_len);

        Verdict::Forward(forward)
    }

    fn drop_all(&mut self, reason: DropReason, arrival: &Arrival<'_>) -> Verdict {
        self.stats.count_dropped(reason, datagrams(arrival).count());
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
