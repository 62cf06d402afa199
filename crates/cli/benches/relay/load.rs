//! The load: one thread sends for everybody and receives at the far ends, so that the relay keeps a processor to itself where
//! there are two. Channel data leaves in trains (`UDP_SEGMENT`) and arrives in such (`UDP_GRO`): it costs about what the relay
//! pays.
//!
//! How long something took is told by the kernel's time of its arrival, so that the load's own delays don't count.

use std::time::{Duration, Instant};

use connlib_os::clock::Clock;
use connlib_os::poll::{Interest, Poller, Readiness, Token};
use connlib_os::udp::{MAX_TRAIN_BYTES, RecvBatch, Udp as _, UdpSocket};
use connlib_wire::buffer::Pool;
use connlib_wire::stun::Method;

use crate::client::{Client, Desk, bind, train_to};
use crate::flood::Flood;
use crate::network::{self, Network};
use crate::pace::{Direction, Pace, Sender, idle_for};
use crate::probe::Probe;
use crate::seen::{Pair, Seen};
use crate::server::{SERVER, Server};
use crate::vitals;

/// Trains of each receive.
const RECEIVES: usize = 8;

/// What a refresh asks for.
const LIFETIME: Duration = Duration::from_secs(600);

/// What is under way arrives within this time, or is lost.
const LATEST: Duration = Duration::from_millis(500);

/// What to do.
pub(crate) struct Plan<'a> {
    pub(crate) direction: Direction,
    /// Of each pair of client and peer.
    pub(crate) paces: &'a [Pace],
    pub(crate) duration: Duration,
    /// A stranger asks for its address, and where data goes up a busy client keeps its allocation.
    pub(crate) probes: bool,
    pub(crate) flood: Option<&'a mut Flood>,
}

/// Clients with their peers, and a stranger.
pub(crate) struct Load {
    ends: Vec<End>,
    stranger: UdpSocket,
    desk: Desk,
    clock: Clock,
}

struct End {
    client: Client,
    peer: UdpSocket,
}

/// Which sockets may have something.
struct Waiting {
    poller: Poller,
    events: Vec<Readiness>,
    readable: Vec<bool>,
    /// Several trains at once, and a single one whose time of arrival is told.
    many: RecvBatch,
    one: RecvBatch,
}

impl Load {
    /// Makes an allocation for each of so many clients, and gives it a channel to a peer of its own.
    pub(crate) fn prepare(network: &Network, pairs: u8) -> Self {
        let mut desk = Desk::new();
        let ends = (0..pairs).map(|number| {
            let here = (network::client(number), 40_000).into();
            let there = (network::peer(number), 50_000).into();
            let mut client = Client::bind(&network.clients, here, &format!("client{number}"));
            client.allocate(&mut desk).unwrap();
            client.bind_channel(&mut desk, there);
            End {
                client,
                peer: bind(&network.peers, there),
            }
        });
        let ends = ends.collect();

        Self {
            ends,
            stranger: bind(&network.clients, (network::client(pairs), 40_000).into()),
            desk,
            clock: Clock::new(),
        }
    }

    /// Carries out a plan.
    pub(crate) fn run(&mut self, server: &Server, mut plan: Plan<'_>) -> Seen {
        let probes_client = plan.probes && plan.direction == Direction::Up;
        let began = self.clock.now();
        let mut seen = Seen {
            pairs: vec![Pair::default(); plan.paces.len()],
            elapsed: Duration::ZERO,
            server: Duration::ZERO,
            load: Duration::ZERO,
            binding: plan.probes.then(|| Probe::binding(began)),
            refresh: probes_client.then(|| Probe::refresh(began)),
        };
        let mut senders: Vec<Sender> = (plan.paces.iter())
            .map(|pace| Sender::new(*pace, plan.direction, began))
            .collect();
        let mut waiting = self.wait_for_all(&plan);
        let own = std::process::id();
        let (server_before, load_before) = (server.busy(), vitals::busy(own));

        let until = began + plan.duration;
        let mut turn = 0;
        loop {
            let now = self.clock.now();
            if now >= until {
                break;
            }
            for number in 0..senders.len() {
                let number = (number + turn) % senders.len();
                let (sender, pair) = (&mut senders[number], &mut seen.pairs[number]);
                let trains = sender.trains_due(now, pair.sent.saturating_sub(pair.received));
                pair.sent += self.send(number, sender, trains, plan.direction, began);
            }
            turn += 1;
            self.ask(now, &mut seen);
            if let Some(flood) = &mut plan.flood {
                flood.send(now - began);
            }
            let idle = idle_for(&senders, plan.flood.is_some(), self.clock.now());
            waiting.wait(idle);
            self.receive(&mut waiting, &mut plan, began, &mut seen);
        }

        seen.elapsed = self.clock.now() - began;
        seen.server = server.busy() - server_before;
        seen.load = vitals::busy(own) - load_before;
        // What comes late isn't lost, but no part of the rate.
        let in_time = seen.pairs.clone();
        self.drain(&mut waiting, &mut plan, began, &mut seen);
        for (pair, in_time) in seen.pairs.iter_mut().zip(in_time) {
            pair.bytes = in_time.bytes;
        }

        seen
    }

    fn wait_for_all(&self, plan: &Plan<'_>) -> Waiting {
        let poller = Poller::new().unwrap();
        let clients = self.ends.iter().map(|end| &end.client.socket);
        let peers = self.ends.iter().map(|end| &end.peer);
        let strangers = plan.flood.iter().flat_map(|flood| flood.sockets());
        let all = clients
            .chain(peers)
            .chain([&self.stranger])
            .chain(strangers);
        let mut count = 0;
        for socket in all {
            poller
                .register(socket, Token(count), Interest::Read)
                .unwrap();
            count += 1;
        }

        Waiting {
            poller,
            events: Vec::new(),
            readable: vec![false; count],
            many: RecvBatch::new(Pool::new(MAX_TRAIN_BYTES, RECEIVES), RECEIVES),
            one: RecvBatch::new(Pool::new(MAX_TRAIN_BYTES, 1), 1),
        }
    }

    /// Lets one of the pairs send so many trains; returns how many datagrams that were.
    fn send(
        &mut self,
        number: usize,
        sender: &mut Sender,
        trains: u32,
        direction: Direction,
        began: Instant,
    ) -> u64 {
        let End { client, peer } = &mut self.ends[number];
        let (socket, to) = match direction {
            Direction::Up => (&mut client.socket, SERVER),
            Direction::Down => {
                let relayed = client.relayed();
                (peer, relayed)
            }
        };
        let mut sent = 0;
        for _ in 0..trains {
            sender.stamp(self.clock.now() - began);
            let train = train_to(to, &sender.train, sender.segment);
            // A full socket takes none, and the load goes on: it is the sender's loss.
            sent += socket.send(&[train]).unwrap_or_default() as u64;
        }

        sent
    }

    /// Sends the probes that are due.
    fn ask(&mut self, now: Instant, seen: &mut Seen) {
        if let Some(probe) = &mut seen.binding
            && probe.is_due(now)
        {
            let request = self.desk.builder(Method::Binding).finish().unwrap();
            probe.ask(&self.clock, &mut self.stranger, &request);
        }
        if let Some(probe) = &mut seen.refresh
            && probe.is_due(now)
        {
            let client = &mut self.ends[0].client;
            let request = client.refresh_request(&self.desk, LIFETIME);
            probe.ask(&self.clock, &mut client.socket, &request);
        }
    }

    /// One receive of each socket that has something.
    fn receive(
        &mut self,
        waiting: &mut Waiting,
        plan: &mut Plan<'_>,
        began: Instant,
        seen: &mut Seen,
    ) {
        let pairs = self.ends.len();
        for token in 0..waiting.readable.len() {
            if !waiting.readable[token] {
                continue;
            }
            let (socket, number) = match token {
                token if token < pairs => (&mut self.ends[token].client.socket, token),
                token if token < 2 * pairs => (&mut self.ends[token - pairs].peer, token - pairs),
                token if token == 2 * pairs => (&mut self.stranger, 0),
                token => {
                    let flood = plan.flood.as_mut().unwrap();
                    waiting.readable[token] =
                        flood.receive(token - 2 * pairs - 1, &mut waiting.many);
                    continue;
                }
            };
            let is_far_end = match plan.direction {
                Direction::Up => (pairs..2 * pairs).contains(&token),
                Direction::Down => token < pairs,
            };
            let is_timed = !is_far_end || plan.paces.get(number).is_some_and(Pace::is_steady);
            let batch = if is_timed {
                &mut waiting.one
            } else {
                &mut waiting.many
            };
            waiting.readable[token] = socket.recv(batch).is_ok();
            if !waiting.readable[token] {
                continue;
            }
            let came_at = self.clock.now() - batch.stood_for().unwrap_or_default();
            for arrival in batch.arrivals() {
                if is_far_end {
                    let pair = &mut seen.pairs[number];
                    pair.note(
                        plan.direction,
                        arrival.datagrams(),
                        came_at - began,
                        is_timed,
                    );
                } else {
                    let probes = [&mut seen.binding, &mut seen.refresh];
                    for probe in probes.into_iter().flatten() {
                        arrival
                            .datagrams()
                            .for_each(|answer| probe.hear(came_at, answer));
                    }
                }
            }
        }
    }

    /// Receives until nothing comes any more.
    fn drain(
        &mut self,
        waiting: &mut Waiting,
        plan: &mut Plan<'_>,
        began: Instant,
        seen: &mut Seen,
    ) {
        let mut quiet_since = self.clock.now();
        while self.clock.now() - quiet_since < LATEST {
            waiting.wait(Some(LATEST));
            if waiting.readable.contains(&true) {
                quiet_since = self.clock.now();
            }
            self.receive(waiting, plan, began, seen);
        }
    }
}

impl Waiting {
    fn wait(&mut self, timeout: Option<Duration>) {
        let timeout = match self.readable.contains(&true) {
            true => Some(Duration::ZERO),
            false => timeout,
        };
        self.poller.wait(timeout, &mut self.events).unwrap();
        for event in &self.events {
            self.readable[event.token.0] |= event.readable;
        }
    }
}
