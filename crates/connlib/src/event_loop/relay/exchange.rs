//! What lies between a relay's sockets: the server's verdicts carried out, and a queue for each socket.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use connlib_os::udp::{Outgoing, Payload, Udp as _};
use connlib_relay::{AllocationPort, Command, Forward, Server, Verdict, Via, runs};
use connlib_wire::buffer::Pool;
use connlib_wire::channel;
use connlib_wire::stun::Family;
use connlib_wire::train::{Arrival, MAX_SEGMENTS, Transmit, max_len};

use super::super::egress::{Egress, Report};
use super::super::errors::{Degraded, Error, Errors};
use super::super::ingress::MAX_FAILURES;
use super::super::stats::{DropReason, Said, Stats, is_lost};
use super::backlog::Backlog;
use super::rounds::{Key, Rounds};
use super::{PerFamily, RelayIo};

/// The most bytes that wait for a listen socket, which all clients share.
pub(super) const MAX_LISTEN_WAITING: usize = 2 * 1024 * 1024;

/// The most bytes of those that have had their turn: enough for one call of the system.
const LISTEN_WINDOW: usize = 256 * 1024;

/// The most bytes that should wait for an allocation's socket; twice that many never do.
pub(super) const MAX_ALLOCATION_WAITING: usize = 128 * 1024;

/// What is between the sockets: all but the memory that received trains lie in.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) server: Server,
    pool: Pool,
    pub(super) rounds: Rounds,
    /// How often in a row an allocation's socket has failed.
    failures: HashMap<Key, u32>,
    /// Looked up, never iterated.
    egress: HashMap<Via, Egress>,
    /// Before the queues of the listen sockets, which have room for little.
    backlogs: PerFamily<Backlog>,
    /// The sockets that something waits for.
    waiting: BTreeSet<Via>,
    pub(super) stats: Stats,
    said: Said,
}

impl Exchange {
    pub(super) fn new(server: Server) -> Self {
        Self {
            server,
            pool: Pool::new(usize::from(u16::MAX), 64),
            rounds: Rounds::default(),
            failures: HashMap::new(),
            egress: HashMap::new(),
            backlogs: PerFamily {
                v4: Backlog::new(MAX_LISTEN_WAITING),
                v6: Backlog::new(MAX_LISTEN_WAITING),
            },
            waiting: BTreeSet::new(),
            stats: Stats::default(),
            said: Said::default(),
        }
    }

    /// Lets pooled memory go that was not needed lately.
    pub(super) fn trim(&self) {
        self.pool.trim();
    }

    pub(super) fn take_timeout(&mut self, now: Instant) {
        if self.server.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.server.handle_timeout(now);
        }
    }

    pub(super) fn handle_client(
        &mut self,
        now: Instant,
        unix: Duration,
        io: &mut impl RelayIo,
        arrival: &Arrival<'_>,
        errors: &mut Errors,
    ) {
        self.stats.datagrams_received += arrival.datagrams().count() as u64;
        match self.server.handle_client(now, unix, arrival) {
            Verdict::Forward(forward) => self.forward(now, io, arrival, &forward, errors),
            Verdict::Mixed => {
                for run in runs(arrival) {
                    // A run is never mixed.
                    if let Verdict::Forward(forward) = self.server.handle_client(now, unix, &run) {
                        self.forward(now, io, &run, &forward, errors);
                    }
                    // Before the next run, which may be for the same peer.
                    self.pass_on(now, io, errors);
                }
            }
            Verdict::Handled => self.pass_on(now, io, errors),
            Verdict::Drop(_) => {}
        }
        // Before the next train, which may be for a port that was asked for just now.
        self.carry_out(now, io, errors);
    }

    pub(super) fn handle_peer(
        &mut self,
        now: Instant,
        io: &mut impl RelayIo,
        port: AllocationPort,
        arrival: &Arrival<'_>,
        errors: &mut Errors,
    ) {
        self.stats.datagrams_received += arrival.datagrams().count() as u64;
        match self.server.handle_peer(now, port, arrival) {
            Verdict::Forward(forward) => self.forward(now, io, arrival, &forward, errors),
            Verdict::Handled => self.pass_on(now, io, errors),
            Verdict::Drop(_) | Verdict::Mixed => {}
        }
    }

    /// Sends what the server copied from or into indications: data like all other.
    fn pass_on(&mut self, now: Instant, io: &mut impl RelayIo, errors: &mut Errors) {
        while let Some((via, train)) = self.server.poll_relayed() {
            self.send(now, io, via, train, errors);
        }
    }

    /// An allocation's socket works.
    pub(super) fn has_received(&mut self, port: AllocationPort, family: Family) {
        self.failures.remove(&(port, family));
    }

    pub(super) fn handle_peer_error(
        &mut self,
        now: Instant,
        io: &mut impl RelayIo,
        (port, family): (AllocationPort, Family),
        source: io::Error,
        errors: &mut Errors,
    ) {
        self.stats.errors += 1;
        if is_lost(&source) {
            // The allocation ends, and its client makes another one.
            self.close(io, port, family);
            self.server.handle_port_failed(now, port, family);
        } else {
            let failures = self.failures.entry((port, family)).or_default();
            *failures += 1;
            if *failures < MAX_FAILURES {
                // One of possibly many that wait in the socket.
                self.rounds.list((port, family));
            } else if let Some(socket) = io.socket(Via::Allocation(port, family)) {
                // It only fails: it is asked again when something arrives.
                socket.ready.readable = false;
                self.failures.remove(&(port, family));
            }
        }
        errors.push(Error::Degraded(Degraded::NotReceived { family, source }));
    }

    /// Opens and closes ports, then sends the server's answers.
    pub(super) fn carry_out(&mut self, now: Instant, io: &mut impl RelayIo, errors: &mut Errors) {
        while let Some(command) = self.server.poll_command() {
            match command {
                Command::OpenPort { port, family } => match io.open(port, family) {
                    Ok(()) => self.server.handle_port_opened(now, port, family),
                    Err(error) => {
                        tracing::debug!(%port, ?family, %error, "An allocation's port can't be opened");
                        self.server.handle_port_failed(now, port, family);
                    }
                },
                Command::ClosePort { port, family } => self.close(io, port, family),
            }
        }
        while let Some(answer) = self.server.poll_transmit() {
            let via = Via::Listen(Family::of(answer.route.dst));
            let Self { egress, stats, .. } = self;
            egress_of(egress, via).push_control(answer, stats);
            self.flush_one(now, io, via, errors);
        }
    }

    fn close(&mut self, io: &mut impl RelayIo, port: AllocationPort, family: Family) {
        io.close(port, family);
        self.egress.remove(&Via::Allocation(port, family));
        self.waiting.remove(&Via::Allocation(port, family));
        self.failures.remove(&(port, family));
    }

    /// Sends data on, in trains like the one it came in. Headers are left out or put in between by listing the parts: the
    /// bytes stay where they were received.
    fn forward(
        &mut self,
        now: Instant,
        io: &mut impl RelayIo,
        arrival: &Arrival<'_>,
        forward: &Forward,
        errors: &mut Errors,
    ) {
        let header_len = forward.channel.map_or(0, |_| channel::HEADER_LEN);
        let segment_size = (forward.segment_size + header_len).max(1);
        let limit = max_len(forward.to, segment_size).min(self.pool.buffer_size());
        let per_train = (limit / segment_size).clamp(1, MAX_SEGMENTS);
        let mut payloads = forward.payloads(arrival).peekable();
        while payloads.peek().is_some() {
            let mut headers = [[0; channel::HEADER_LEN]; MAX_SEGMENTS];
            let mut datagrams: [&[u8]; MAX_SEGMENTS] = [&[]; MAX_SEGMENTS];
            let mut count = 0;
            let slots = headers.iter_mut().zip(&mut datagrams).take(per_train);
            for ((header, datagram), payload) in slots.zip(&mut payloads) {
                *header = forward.header(payload).unwrap_or_default();
                *datagram = payload;
                count += 1;
            }

            let mut parts = [IoSlice::new(&[]); 2 * MAX_SEGMENTS];
            let mut used = 0;
            for (header, datagram) in headers.iter().zip(&datagrams).take(count) {
                let header = (header_len > 0).then(|| IoSlice::new(header));
                for part in header.into_iter().chain([IoSlice::new(datagram)]) {
                    if let Some(slot) = parts.get_mut(used) {
                        *slot = part;
                        used += 1;
                    }
                }
            }
            let outgoing = Outgoing {
                route: forward.route(),
                segment_size,
                payload: Payload::Gathered {
                    parts: parts.get(..used).unwrap_or_default(),
                    per_datagram: if header_len > 0 { 2 } else { 1 },
                },
                first: 0,
            };
            self.send_gathered(now, io, forward.via, outgoing, count, errors);
        }
    }

    /// Sends a train from where it lies; what the socket doesn't take now is copied and waits.
    fn send_gathered(
        &mut self,
        now: Instant,
        io: &mut impl RelayIo,
        via: Via,
        outgoing: Outgoing<'_>,
        count: usize,
        errors: &mut Errors,
    ) {
        let waits = self
            .egress
            .get(&via)
            .is_some_and(|egress| !egress.is_empty());
        let socket = io.socket(via).filter(|socket| socket.ready.writable);
        let sent = match socket {
            // Whatever is wrong, the queue finds out, and deals with it one datagram at a time.
            Some(socket) if !waits => socket.device.send(&[outgoing]).unwrap_or_default(),
            Some(_) | None => 0,
        };
        self.stats.datagrams_sent += sent as u64;
        if sent >= count {
            return;
        }
        let Payload::Gathered {
            parts,
            per_datagram,
        } = outgoing.payload
        else {
            return;
        };
        let mut payload = self.pool.take(0);
        for part in parts.iter().skip(sent * per_datagram) {
            if let Some(room) = payload.extend(part.len()) {
                room.copy_from_slice(part);
            }
        }
        let train = Transmit {
            route: outgoing.route,
            segment_size: outgoing.segment_size,
            payload,
        };
        self.send(now, io, via, train, errors);
    }

    fn send(
        &mut self,
        now: Instant,
        io: &mut impl RelayIo,
        via: Via,
        train: Transmit,
        errors: &mut Errors,
    ) {
        let Self { egress, stats, .. } = self;
        match via {
            Via::Listen(family) => self.backlogs.of_mut(family).push(train, stats),
            Via::Allocation(..) => egress_of(egress, via).push(train, stats),
        }
        self.flush_one(now, io, via, errors);
    }

    pub(super) fn flush(&mut self, now: Instant, io: &mut impl RelayIo, errors: &mut Errors) {
        let waiting: Vec<_> = self.waiting.iter().copied().collect();
        for via in waiting {
            self.flush_one(now, io, via, errors);
        }
    }

    fn flush_one(&mut self, now: Instant, io: &mut impl RelayIo, via: Via, errors: &mut Errors) {
        let egress = egress_of(&mut self.egress, via);
        let mut backlog = match via {
            Via::Listen(family) => Some(self.backlogs.of_mut(family)),
            Via::Allocation(..) => None,
        };
        let mut report = Report {
            stats: &mut self.stats,
            said: &mut self.said,
            errors,
        };
        loop {
            let Some(socket) = io.socket(via) else {
                egress.discard(DropReason::NoSocket, report.stats);
                if let Some(backlog) = backlog {
                    backlog.discard(DropReason::NoSocket, report.stats);
                }
                break;
            };
            while egress.bytes() < LISTEN_WINDOW
                && let Some(train) = backlog.as_mut().and_then(|backlog| backlog.pop())
            {
                egress.push(train, report.stats);
            }
            egress.flush(now, socket, &mut report);
            // What is left of it waits for the socket; else the backlog may have more.
            if !egress.is_empty() || backlog.as_ref().is_none_or(|backlog| backlog.is_empty()) {
                break;
            }
        }
        if egress.is_empty() {
            self.waiting.remove(&via);
        } else {
            self.waiting.insert(via);
        }
    }

    pub(super) fn is_busy(&self, now: Instant, io: &mut impl RelayIo) -> bool {
        let can_flush = |via: &Via| {
            let wants_to = self
                .egress
                .get(via)
                .is_some_and(|egress| egress.wants_to_flush(now));
            wants_to && io.socket(*via).is_some_and(|socket| socket.ready.writable)
        };

        !self.rounds.is_empty() || self.waiting.iter().any(can_flush)
    }

    pub(super) fn due_at(&self, now: Instant) -> Option<Instant> {
        let timer = self.server.poll_timeout().map(|(at, _)| at);
        let retries = self
            .waiting
            .iter()
            .filter_map(|via| self.egress.get(via)?.due_at(now));

        timer.into_iter().chain(retries).min()
    }
}

fn egress_of(egress: &mut HashMap<Via, Egress>, via: Via) -> &mut Egress {
    egress.entry(via).or_insert_with(|| {
        Egress::new(match via {
            Via::Listen(_) => LISTEN_WINDOW,
            Via::Allocation(..) => MAX_ALLOCATION_WAITING,
        })
    })
}
