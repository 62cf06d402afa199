//! Who uses the network: programs on clients, and hosts behind gateways that answer them.

mod errors;
mod flows;
mod forged;
mod packets;
mod payload;
mod running;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use connlib_wire::buffer::Pool;
use connlib_wire::ip::Packet;

use crate::names::Resolver;
use crate::report::Outcome;
use crate::scenario::{Flow, FlowKind, Service, Target};
pub(crate) use errors::error_about;
pub(crate) use forged::{forged_packet, forger_of, service_of};
pub(crate) use packets::{Refusal, ip_packet};
use packets::{Way, ends, packet_of};
use payload::Stamp;

/// How long the host behind the gateway takes.
pub(crate) const ECHO_AFTER: Duration = Duration::from_millis(1);

/// How often a fetch looks for what is missing.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long a fetch waits before it asks for a piece again: at first, and at most.
const ASK_AGAIN: [Duration; 2] = [Duration::from_millis(400), Duration::from_secs(3)];

/// How many pieces a fetch asks for at a time.
const WINDOW: usize = 16;

/// The bytes of a piece.
const PIECE: u32 = 1_100;

const FIRST_OWN_PORT: u16 = 5_000;

/// All programs of a world.
pub(crate) struct Apps {
    flows: Vec<Running>,
    pool: Pool,
}

/// A program, and what became of what it sent.
pub(crate) struct Running {
    pub(crate) flow: Flow,
    /// The address that it talks to, once it knows it.
    pub(crate) to: Option<IpAddr>,
    /// Where its requests came out, of which gateway, and when first and last.
    pub(crate) arrivals: Vec<Arrival>,
    /// When it was told that it goes nowhere, and why.
    pub(crate) refused: Vec<(Instant, Refusal)>,
    own_port: u16,
    /// Of a ping: its requests, in order.
    pub(crate) probes: Vec<Probe>,
    /// When a fetch was complete.
    pub(crate) completed_at: Option<Instant>,
    pieces: BTreeMap<u32, Piece>,
    /// When each of them came.
    pub(crate) pieces_at: Vec<Instant>,
    missing: u32,
    /// Attempts that were seen on a gateway's TUN device, and on the client's.
    seen: [BTreeSet<(u32, u16)>; 2],
    /// The last number seen on either, for the order.
    last: [Option<u32>; 2],
}

/// A request that is sent once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    pub(crate) sent_at: Instant,
    /// When it was on a gateway's TUN device.
    pub(crate) arrived_at: Option<Instant>,
    /// The address that it was for there.
    pub(crate) arrived_to: Option<IpAddr>,
    pub(crate) replied_at: Option<Instant>,
}

/// Where requests of a flow came out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) gateway: usize,
    pub(crate) ip: IpAddr,
    /// The port that it came from, which may not be the flow's.
    pub(crate) port: u16,
    pub(crate) first_at: Instant,
    pub(crate) last_at: Instant,
}

#[derive(Default)]
struct Piece {
    attempts: u16,
    asked_at: Option<Instant>,
    is_there: bool,
}

/// A packet that a gateway hands to its network, and what it is part of.
pub(crate) struct Request {
    pub(crate) flow: usize,
    /// From which client it says it is.
    pub(crate) host: usize,
    pub(crate) source: IpAddr,
    pub(crate) to: IpAddr,
    /// From which port.
    pub(crate) port: u16,
    /// What it uses.
    pub(crate) service: Service,
    /// When it was sent, if it was sent once.
    pub(crate) sent_at: Option<Instant>,
    /// The answer.
    pub(crate) reply: Vec<u8>,
}

impl Apps {
    pub(crate) fn new(flows: impl Iterator<Item = Flow>) -> Self {
        let flows = flows.enumerate().map(|(number, flow)| Running {
            missing: match flow.kind {
                FlowKind::Ping { .. } | FlowKind::Lookup(_) => 0,
                FlowKind::Fetch { bytes } => bytes.div_ceil(PIECE),
            },
            to: match flow.to {
                Target::Ip(ip) => Some(ip),
                Target::Name { .. } => None,
            },
            arrivals: Vec::new(),
            refused: Vec::new(),
            own_port: flow.port.unwrap_or_else(|| own_port(number)),
            flow,
            probes: Vec::new(),
            completed_at: None,
            pieces: BTreeMap::new(),
            pieces_at: Vec::new(),
            seen: Default::default(),
            last: [None; 2],
        });

        Self {
            flows: flows.collect(),
            pool: Pool::new(2_048, 8),
        }
    }

    pub(crate) fn flows(&self) -> &[Running] {
        &self.flows
    }

    /// A flow talks to an address from here on.
    pub(crate) fn set_target(&mut self, flow: usize, ip: IpAddr) {
        if let Some(running) = self.flows.get_mut(flow) {
            running.to = Some(ip);
        }
    }

    /// A request of a flow came out.
    pub(crate) fn arrived(&mut self, now: Instant, gateway: usize, request: &Request) {
        let Some(running) = self.flows.get_mut(request.flow) else {
            return;
        };
        let (ip, port) = (request.to, request.port);
        let is_same = |it: &Arrival| (it.gateway, it.ip, it.port) == (gateway, ip, port);
        match running.arrivals.last_mut() {
            Some(last) if is_same(last) => last.last_at = now,
            Some(_) | None => running.arrivals.push(Arrival {
                gateway,
                ip,
                port,
                first_at: now,
                last_at: now,
            }),
        }
    }

    /// What became of each.
    pub(crate) fn outcomes(&self, resolver: &Resolver) -> Vec<Outcome> {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let outcomes = self.flows.iter().enumerate().map(|(number, running)| {
            if let FlowKind::Lookup(_) = running.flow.kind {
                let asks = resolver.of_flow(number);
                return Outcome {
                    flow: running.flow.name.clone(),
                    sent: count(asks.clone().count()),
                    answered: count(asks.filter(|ask| ask.answer.is_some()).count()),
                };
            }
            let pieces = running.pieces.values();
            let replied = running
                .probes
                .iter()
                .filter(|probe| probe.replied_at.is_some());
            Outcome {
                flow: running.flow.name.clone(),
                sent: count(running.probes.len() + running.pieces.len()),
                answered: count(replied.count() + pieces.filter(|piece| piece.is_there).count()),
            }
        });

        outcomes.collect()
    }

    /// What a program sends from `source` at `now`, and when it wants to be asked again.
    pub(crate) fn step(
        &mut self,
        now: Instant,
        flow: usize,
        source: IpAddr,
    ) -> (Vec<Vec<u8>>, Option<Duration>) {
        let Some((running, to)) = self
            .flows
            .get_mut(flow)
            .and_then(|running| running.to.map(|to| (running, to)))
        else {
            return (Vec::new(), None);
        };
        let (stamps, size, again) = match running.flow.kind {
            FlowKind::Ping { count, every, size } => {
                let number = u32::try_from(running.probes.len()).unwrap_or(u32::MAX);
                if number >= count {
                    return (Vec::new(), None);
                }
                running.probes.push(Probe {
                    sent_at: now,
                    arrived_at: None,
                    arrived_to: None,
                    replied_at: None,
                });
                let again = (number + 1 < count).then_some(every);
                (vec![(number, 0)], usize::from(size), again)
            }
            FlowKind::Fetch { .. } => {
                let again = (running.missing > 0).then_some(LOOK_EVERY);
                (running.ask(now), payload::LEN, again)
            }
            FlowKind::Lookup(_) => return (Vec::new(), None),
        };
        let ends = ((source, running.own_port), (to, running.flow.service));
        let packets = stamps.into_iter().filter_map(|(number, attempt)| {
            let stamp = Stamp {
                flow,
                number,
                attempt,
            };
            let payload = stamp.request(size);
            packet_of(&self.pool, Way::Request, ends, number, &payload)
        });

        (packets.collect(), again)
    }

    /// Answers a packet that left a gateway's TUN device.
    ///
    /// # Errors
    ///
    /// It is none that may be there.
    pub(crate) fn request(
        &mut self,
        now: Instant,
        bytes: &[u8],
        keeps_order: bool,
    ) -> Result<Request, String> {
        let packet = checked("a gateway's TUN", bytes)?;
        let (source, to) = (packet.source(), packet.destination());
        let strange = || format!("a packet from {source} to {to} that nobody sent left a gateway");
        let stamp = Stamp::read(packet.payload()).ok_or_else(strange)?;
        let keeps_order = keeps_order && !self.mixes(now, stamp);
        let (port, service) = ends(&packet, Way::Request).ok_or_else(strange)?;
        // What goes to a name has another address here, and perhaps another port; the addresses are judged elsewhere.
        let running = self.flows.get(stamp.flow).ok_or_else(strange)?;
        let is_its = port == running.own_port || self.is_taken(running);
        let is_there = running.name().is_some() || (running.to == Some(to) && is_its);
        if !is_there || running.flow.service != service {
            return Err(strange());
        }
        let running = self.flows.get_mut(stamp.flow).ok_or_else(strange)?;
        running.see(0, stamp, keeps_order)?;
        if let Some(probe) = running.probe(stamp.number) {
            probe.arrived_at.get_or_insert(now);
            probe.arrived_to.get_or_insert(to);
        }
        let payload = match running.flow.kind {
            FlowKind::Ping { .. } => packet.payload().to_vec(),
            FlowKind::Fetch { .. } => stamp.piece(PIECE as usize),
            FlowKind::Lookup(_) => return Err(strange()),
        };
        let host = running.flow.host;
        let sent_at = running.probe(stamp.number).map(|probe| probe.sent_at);
        let ends = ((source, port), (to, service));
        let reply = packet_of(&self.pool, Way::Reply, ends, stamp.number, &payload)
            .ok_or("a reply that doesn't fit")?;

        Ok(Request {
            flow: stamp.flow,
            host,
            source,
            to,
            port,
            service,
            sent_at,
            reply,
        })
    }

    /// Takes a packet that left the TUN device of client `host`. Returns the flow that may go on.
    ///
    /// # Errors
    ///
    /// It is none that may be there.
    pub(crate) fn reply(
        &mut self,
        now: Instant,
        host: usize,
        bytes: &[u8],
        keeps_order: bool,
    ) -> Result<Option<usize>, String> {
        let packet = checked("a client's TUN", bytes)?;
        if packet.is_icmp_error() {
            // Which requests may be refused, and which must be, is judged at the end.
            self.refuse(now, host, &packet);
            return Ok(None);
        }
        let source = packet.source();
        let strange = || format!("a packet from {source} that nobody asked for reached a client");
        let stamp = Stamp::read(packet.payload()).ok_or_else(strange)?;
        let keeps_order = keeps_order && !self.mixes(now, stamp);
        let running = self.flows.get_mut(stamp.flow).ok_or_else(strange)?;
        let own_ends = (running.own_port, running.flow.service);
        let is_own = ends(&packet, Way::Reply) == Some(own_ends);
        if running.flow.host != host || running.to != Some(source) || !is_own {
            return Err(strange());
        }
        running.see(1, stamp, keeps_order)?;
        let intact = match running.flow.kind {
            FlowKind::Ping { size, .. } => stamp.request(usize::from(size)),
            FlowKind::Fetch { .. } => stamp.piece(PIECE as usize),
            FlowKind::Lookup(_) => return Err(strange()),
        };
        if packet.payload() != intact {
            return Err(format!(
                "a reply to `{}` came back changed",
                running.flow.name
            ));
        }
        if let Some(probe) = running.probe(stamp.number) {
            probe.replied_at = Some(now);
        }

        Ok(running.take_piece(now, stamp.number).then_some(stamp.flow))
    }
}

fn own_port(flow: usize) -> u16 {
    FIRST_OWN_PORT + u16::try_from(flow).unwrap_or(u16::MAX - FIRST_OWN_PORT)
}

fn checked<'a>(place: &str, bytes: &'a [u8]) -> Result<Packet<&'a [u8]>, String> {
    let packet = Packet::parse(bytes).map_err(|error| format!("on {place}: {error}"))?;
    if bytes.len() > connlib_wire::MAX_PACKET {
        return Err(format!("a packet of {} bytes on {place}", bytes.len()));
    }

    match packet.checksums_match() {
        true => Ok(packet),
        false => Err(format!("a packet on {place} has a wrong checksum")),
    }
}
