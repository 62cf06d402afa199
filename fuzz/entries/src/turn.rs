//! A TURN server for anybody's clients ([`Credentials::Rest`]), and whatever arrives at it.
//!
//! Beside the server there is a [law](law): what its clients hold, by what they asked and were told, from the standard. Bytes
//! decide what happens next: requests with all kinds of credentials, the same ones again and from other sockets, channel
//! data, Send indications, any datagrams, what peers say, ports that can't be opened or break, time, often exactly until
//! something ends. Then
//!
//! * data goes where the law says, and all of it: by a channel or a permission that holds at that instant, from a port that
//!   is open, in the form that its receiver expects;
//! * a request of a user has the outcome that the law says, one answer, signed as it was; any other changes nothing, and its
//!   sender gets few answers;
//! * what the server counts and which ports it has open is what the law says, after each step; time empties everything.

mod answers;
mod ask;
mod deliveries;
mod law;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use connlib_relay::{
    AllocationPort, Command, Config, Credentials, Limits, LoopbackPeers, PrivatePeers, Server,
};
use connlib_wire::buffer::Pool;
use connlib_wire::channel::{self, ChannelNumber};
use connlib_wire::secret::Secret;
use connlib_wire::stun::{Attribute, Builder, Class, Family, Method, TransactionId};
use connlib_wire::train::MAX_SEGMENTS;

use crate::choices::Choices;
use crate::relay::addr;
use ask::{Ask, Proof};
use deliveries::Certainty;
use law::{Law, Outcome};

const MAX_STEPS: usize = 96;
const SECRET: &str = "north";
const PUBLIC_V4: &str = "203.0.113.9";
const PUBLIC_V6: &str = "2001:db8::9";
const LISTEN: u16 = 3_478;
const UNIX: Duration = Duration::from_secs(1_700_000_000);
const FIRST_PORT: u16 = 50_000;
const PORTS: u16 = 5;

/// How many requests may be sent again.
const REMEMBERED: usize = 8;

/// The longest answer to who proved nothing: a challenge that names what it didn't understand.
const MAX_UNPROVEN: usize = 320;

/// How long a port may take to be opened.
const OPENING: Duration = Duration::from_secs(5);

const LIMITS: Limits = Limits {
    allocations: 4,
    allocations_per_user: 3,
    channels_per_allocation: 3,
    permissions_per_allocation: 3,
    unproven_burst: 8,
    unproven_per_sec: 4,
    failed_burst: 1_000_000, // nobody is shut out for it here
    failed_per_sec: 1_000,
};

/// Sockets of clients. The last one never has good credentials.
const CLIENTS: [&str; 5] = [
    "198.51.100.1:50000",
    "198.51.100.1:50001",
    "[2001:db8:1::1]:50000",
    "198.51.100.2:50000",
    "198.51.100.66:50000",
];
const STRANGER: &str = CLIENTS[4];

/// Addresses of peers, and some that are nobody's.
const PEERS: [&str; 16] = [
    "192.0.2.1:40404",
    "192.0.2.1:40405",
    "192.0.2.2:40404",
    "[2001:db8:2::1]:40404",
    "203.0.113.9:50000",
    "203.0.113.9:50001",
    "203.0.113.9:50002",
    "203.0.113.9:3478",
    "[2001:db8::9]:50001",
    "10.0.0.1:40404",
    "[64:ff9b::a00:1]:40404",
    "192.0.2.1:0",
    "127.0.0.1:53",
    "0.0.0.0:1",
    "224.0.0.1:5",
    "[::ffff:127.0.0.1]:53",
];

/// What is done, as bytes say.
pub fn turn(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut scene = Scene::new(choices.byte());
    for _ in 0..MAX_STEPS {
        if choices.is_over() {
            break;
        }
        scene.step(&mut choices);
        scene.check();
    }

    scene.ends();
}

struct Scene {
    server: Server,
    start: Instant,
    now: Instant,
    law: Law,
    /// A port that is to be opened; nothing after it is carried out.
    pending: Option<(AllocationPort, Family)>,
    is_slow: bool,
    open: BTreeSet<(AllocationPort, Family)>,
    never_opened: BTreeSet<(AllocationPort, Family)>,
    /// The latest nonce that each client was given, and when.
    nonces: BTreeMap<SocketAddr, (String, Instant)>,
    /// Requests that may still be answered.
    asked: BTreeMap<(TransactionId, SocketAddr), (Ask, Proof, Outcome)>,
    past: VecDeque<Ask>,
    transactions: u64,
    /// How many answers each address got that proved nothing.
    unproven: BTreeMap<IpAddr, u32>,
    port_failed_at: Option<Instant>,
}

impl Scene {
    #[expect(clippy::disallowed_methods, reason = "a start of virtual time")]
    fn new(seed: u8) -> Self {
        let start = Instant::now();
        let (has_v6, takes_private) = (seed & 1 == 0, seed & 2 == 0);
        let config = Config {
            public_v4: Some(PUBLIC_V4.parse().unwrap()),
            public_v6: has_v6.then(|| PUBLIC_V6.parse().unwrap()),
            listen_port: LISTEN,
            ports: FIRST_PORT..=FIRST_PORT + PORTS - 1,
            credentials: Credentials::Rest(Secret::from(SECRET)),
            loopback_peers: LoopbackPeers::Refused,
            private_peers: match takes_private {
                true => PrivatePeers::Allowed,
                false => PrivatePeers::Refused,
            },
        };

        Self {
            server: Server::new(config, [seed; 32], Pool::new(2_048, 16)).with_limits(LIMITS),
            start,
            now: start,
            law: Law::new(has_v6, takes_private),
            pending: None,
            is_slow: false,
            open: BTreeSet::new(),
            never_opened: BTreeSet::new(),
            nonces: BTreeMap::new(),
            asked: BTreeMap::new(),
            past: VecDeque::new(),
            transactions: 0,
            unproven: BTreeMap::new(),
            port_failed_at: None,
        }
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.byte() % 16 {
            0 => {
                let (from, stride) = (client(choices), usize::from(choices.byte()));
                let bytes = choices.chunk();
                self.arrive(from, stride, bytes, Certainty::AtMost);
            }
            1..=6 => {
                let id = self.next_id();
                let ask = ask::ask(self, choices, id);
                let from = ask.from;
                self.ask(ask, from);
            }
            7 => {
                let which = usize::from(choices.byte());
                let elsewhere = choices.byte().is_multiple_of(4).then(|| client(choices));
                if let Some(ask) = self.past.get(which % REMEMBERED).cloned() {
                    let from = elsewhere.unwrap_or(ask.from);
                    self.ask(ask, from);
                }
            }
            8 | 9 => self.channel_data(choices),
            10 => self.send_indication(choices),
            11 | 12 => {
                let port = AllocationPort(FIRST_PORT + u16::from(choices.byte()) % PORTS);
                let (from, stride) = (peer(choices), usize::from(choices.byte()));
                self.arrive_from_peer(port, from, stride, choices.chunk());
            }
            13 => self.pass(Duration::from_millis(u64::from(choices.word()) * 30)),
            14 => {
                // To the very end of something, or to just before it.
                let early = Duration::from_nanos(u64::from(choices.byte() & 1));
                if let Some(at) = self.law.next_end(self.now) {
                    self.pass((at - early).saturating_duration_since(self.now));
                }
            }
            _ => match choices.byte() {
                0..=127 => self.is_slow = !self.is_slow,
                128..=223 => {
                    let open = self
                        .open
                        .iter()
                        .nth(usize::from(choices.byte() % 4))
                        .copied();
                    if let Some((port, family)) = open.filter(|_| self.pending.is_none()) {
                        self.breaks(port, family);
                    }
                }
                224..=239 => {
                    self.server.drain();
                    self.law.is_draining = true;
                }
                _ => self.pass(OPENING),
            },
        }
    }

    fn next_id(&mut self) -> TransactionId {
        self.transactions += 1;
        let mut id = [0; 12];
        id[4..].copy_from_slice(&self.transactions.to_be_bytes());

        TransactionId(id)
    }

    fn ask(&mut self, ask: Ask, from: SocketAddr) {
        let unix = ask::unix(self.start, self.now);
        let proof = ask.proof(self.now, unix, from);
        let is_settled = self.pending.is_none() && self.law.opening.is_empty();
        let outcome = self.law.outcome(&ask, from, is_settled);
        let key = (ask.id, from);
        // One that waits already gets one answer for both.
        let waits = self.asked.contains_key(&key);
        self.asked
            .entry(key)
            .or_insert_with(|| (ask.clone(), proof, outcome));

        let before = self.server.stats().allocations;
        self.arrive(from, 0, &ask.bytes, Certainty::Exact);
        let is_unanswered = self.asked.contains_key(&key);
        let has_begun = self.server.stats().allocations > before;
        let is_user = proof == Proof::Holds && !ask.is_broken && ask.wish_is_for_users();
        if has_begun {
            assert!(proof != Proof::Fails && !ask.is_broken, "{ask:?} {proof:?}");
            assert!(matches!(outcome, Outcome::Later | Outcome::RefusalOrLater));
            self.law.begin(self.now, &ask, from);
        } else if is_user {
            assert_ne!(
                is_unanswered,
                outcome != Outcome::Later,
                "{ask:?} {outcome:?}"
            );
        }
        if is_unanswered && !has_begun && !waits {
            self.asked.remove(&key);
        }
        self.past.push_front(ask);
        self.past.truncate(REMEMBERED);
    }

    /// A train of channel data.
    fn channel_data(&mut self, choices: &mut Choices<'_>) {
        let from = client(choices);
        let number = ChannelNumber::new(number(choices.byte())).unwrap();
        let count = usize::from(choices.byte()) % MAX_SEGMENTS + 1;
        let payload = choices.chunk();
        let header = channel::header(number, payload.len()).expect("it is short");
        let datagram = [&header, payload].concat();
        let mut train = datagram.repeat(count);
        train.truncate(train.len() - usize::from(choices.byte()) % datagram.len());
        self.arrive(from, datagram.len(), &train, Certainty::Exact);
    }

    fn send_indication(&mut self, choices: &mut Choices<'_>) {
        let (from, to, flags) = (client(choices), peer(choices), choices.byte());
        let id = self.next_id();
        let buffer = Pool::new(2_048, 1).take(0);
        let builder = Builder::new(buffer, Method::Send, Class::Indication, id)
            .attribute(Attribute::XorPeerAddress(to))
            .attribute(Attribute::Data(choices.chunk()))
            .maybe((flags & 3 == 1).then_some(Attribute::DontFragment));
        let indication = match flags >> 2 & 3 {
            1 => builder.fingerprint(),
            _ => builder,
        };
        let indication = indication.finish().expect("it fits");
        self.arrive(from, 0, &indication, Certainty::Exact);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.server.handle_timeout(self.now);
        self.answers(usize::MAX);
        self.law.pass(self.now);
        self.take_commands();
        if let Some((at, reason)) = self.server.poll_timeout() {
            assert!(at > self.now || self.pending.is_some(), "{reason:?} is due");
        }
    }

    /// Carries out what the server wants, up to a port that is to be opened.
    fn take_commands(&mut self) {
        while self.pending.is_none() {
            match self.server.poll_command() {
                None => return,
                Some(Command::ClosePort { port, family }) => {
                    // It may have been given up before it turned out that it can't be opened.
                    let was_open = self.open.remove(&(port, family));
                    let was_waited_for = self.never_opened.remove(&(port, family));
                    assert!(was_open || was_waited_for, "{port:?} is closed");
                }
                Some(Command::OpenPort { port, family }) => {
                    let is_new = !self.open.contains(&(port, family));
                    assert!(is_new, "{port:?} is open already");
                    assert!((FIRST_PORT..FIRST_PORT + PORTS).contains(&port.0));
                    self.pending = Some((port, family));
                }
            }
        }
    }

    /// Opens the port that is waited for, or fails to.
    fn carry_out(&mut self) {
        let Some((port, family)) = self.pending.take() else {
            return;
        };
        if (self.transactions + u64::from(port.0)).is_multiple_of(7) {
            self.port_failed_at = Some(self.now);
            self.never_opened.insert((port, family));
            self.server.handle_port_failed(self.now, port, family);
        } else {
            self.open.insert((port, family));
            self.server.handle_port_opened(self.now, port, family);
        }
        self.answers(1);
    }

    /// An open port's socket breaks.
    fn breaks(&mut self, port: AllocationPort, family: Family) {
        self.open.remove(&(port, family));
        self.law.held.retain(|_, held| held.port != port.0);
        self.server.handle_port_failed(self.now, port, family);
        self.answers(0);
    }

    /// What holds after each step. A port that waits to be opened is opened now, unless that takes its time.
    fn check(&mut self) {
        self.take_commands();
        while self.pending.is_some() && !self.is_slow {
            self.carry_out();
            self.take_commands();
        }
        self.law.compare(self.now, self.server.stats());
        if self.pending.is_none() {
            let held = self.law.held.values();
            let ports = held.flat_map(|held| {
                let families = held.families.iter();
                families.map(|family| (AllocationPort(held.port), *family))
            });
            assert_eq!(self.open, ports.collect());
        }
    }

    fn ends(&mut self) {
        self.is_slow = false;
        for _ in 0..2 {
            self.check();
            self.pass(Duration::from_secs(3_600));
        }
        self.check();
        assert!(self.server.is_empty() && self.open.is_empty());
        assert!(self.law.opening.is_empty(), "somebody got no answer");
        assert_eq!(self.server.poll_timeout(), None);
    }
}

/// Few numbers, so that they meet.
fn number(choice: u8) -> u16 {
    [0x4000, 0x4001, 0x4002, 0x4003, 0x4FFF, 0x7FFF][usize::from(choice % 6)]
}

fn client(choices: &mut Choices<'_>) -> SocketAddr {
    addr(choices.one_of(&CLIENTS))
}

fn peer(choices: &mut Choices<'_>) -> SocketAddr {
    addr(choices.one_of(&PEERS))
}
