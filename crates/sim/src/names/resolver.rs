//! Programs that ask: what a system's library does for them, with one name server after the other.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use connlib_wire::buffer::Pool;
use connlib_wire::ip::{self, Packet, Transport};

use super::message::{Message, code, query, to_ip};
use super::tcp::{Heard, Tcp};
use crate::scenario::{Flow, FlowKind, RecordKind, Target, Via};

/// How long the library waits for a server, and how often it asks each (resolv.conf(5)).
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPTS: usize = 2;

/// How long a program waits before it tries again what its library has given up.
const PAUSE: Duration = Duration::from_secs(1);

/// Where questions are answered.
const PORT: u16 = 53;

/// A number that many programs use at the same time.
const COMMON_NUMBER: u16 = 33_333;

const FIRST_PORT: u16 = 20_000;
const PORTS: usize = 20_000;

/// All that programs ask.
pub(crate) struct Resolver {
    asks: Vec<Ask>,
    /// The latest question of each flow, and how many it took.
    latest: BTreeMap<usize, (usize, usize)>,
    hosts: BTreeMap<usize, HostSide>,
    pool: Pool,
}

/// What the programs of a host share.
struct HostSide {
    tcp: Tcp,
    /// The question of each connection.
    connections: BTreeMap<usize, usize>,
    /// What names were found to have, by family.
    cache: BTreeMap<(String, bool), Vec<IpAddr>>,
}

/// A question.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) flow: usize,
    pub(crate) host: usize,
    pub(crate) name: String,
    /// The name as the message has it.
    spelt: Vec<u8>,
    pub(crate) kind: u16,
    pub(crate) via: Via,
    /// Who is asked.
    pub(crate) server: IpAddr,
    source: SocketAddr,
    number: u16,
    pub(crate) asked_at: Instant,
    pub(crate) answer: Option<(Instant, Message)>,
    /// What the answer was found to be.
    pub(crate) verdict: Verdict,
}

/// Who must have known the answer, and whether there was one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// It is an answer, and right.
    #[default]
    Fine,
    /// So is it, and a server has said so.
    Said {
        /// Whether it was one of a site.
        at_site: bool,
    },
    /// Nobody said anything: that can be right, or not.
    Failed {
        /// Whether a site's servers were to be asked.
        at_site: bool,
    },
}

/// What a flow to a name does next.
pub(crate) enum Started {
    /// It has an address.
    At(IpAddr),
    /// It sends this, and asks another server after a while.
    Asks(usize, Vec<Vec<u8>>),
    /// It waits.
    Waits(Duration),
}

impl Resolver {
    pub(crate) fn new() -> Self {
        Self {
            asks: Vec::new(),
            latest: BTreeMap::new(),
            hosts: BTreeMap::new(),
            pool: Pool::new(2_048, 8),
        }
    }

    pub(crate) fn asks(&self) -> &[Ask] {
        &self.asks
    }

    pub(crate) fn ask_mut(&mut self, ask: usize) -> Option<&mut Ask> {
        self.asks.get_mut(ask)
    }

    /// The questions of a flow.
    pub(crate) fn of_flow(&self, flow: usize) -> impl Iterator<Item = &Ask> + Clone {
        self.asks.iter().filter(move |ask| ask.flow == flow)
    }

    /// When a client's programs asked for the addresses of a name, oldest first.
    pub(crate) fn times(&self, host: usize, name: &str) -> impl Iterator<Item = Instant> {
        let meant = self.asks.iter().filter(move |ask| {
            let is_address =
                [RecordKind::A, RecordKind::AAAA, RecordKind::ANY].contains(&RecordKind(ask.kind));
            is_address && ask.host == host && ask.name == name
        });

        meant.map(|ask| ask.asked_at)
    }

    /// Whether `ask` is what a flow waits for.
    pub(crate) fn is_latest(&self, flow: usize, ask: usize) -> bool {
        self.latest.get(&flow).map(|(latest, _)| *latest) == Some(ask)
            && self.asks.get(ask).is_some_and(|ask| ask.answer.is_none())
    }

    /// Takes the next step to what `flow` talks to, or asks what it asks. `source` is the client's address of a family.
    pub(crate) fn step(
        &mut self,
        now: Instant,
        (number, flow): (usize, &Flow),
        servers: &[IpAddr],
        source: impl Fn(bool) -> Option<IpAddr>,
    ) -> Started {
        let Target::Name {
            name,
            is_ipv4,
            is_cached,
        } = &flow.to
        else {
            return Started::Waits(PAUSE);
        };
        let wanted = match flow.kind {
            FlowKind::Lookup(lookup) => (lookup.record.0, lookup.via),
            FlowKind::Ping { .. } | FlowKind::Fetch { .. } => {
                let kind = if *is_ipv4 {
                    RecordKind::A
                } else {
                    RecordKind::AAAA
                };
                (kind.0, Via::Udp)
            }
        };
        if *is_cached && let Some(ip) = self.pick(number, flow.host, name, *is_ipv4) {
            return Started::At(ip);
        }
        let attempt = self
            .latest
            .get(&number)
            .map_or(0, |(_, attempts)| *attempts);
        if attempt >= servers.len() * ATTEMPTS && attempt > 0 {
            self.latest.remove(&number);
            return Started::Waits(PAUSE);
        }
        let at = match flow.kind {
            FlowKind::Lookup(lookup) => lookup.server.min(servers.len().saturating_sub(1)),
            FlowKind::Ping { .. } | FlowKind::Fetch { .. } => attempt % servers.len().max(1),
        };
        let source = servers
            .get(at)
            .and_then(|server| Some((*server, source(server.is_ipv4())?)));
        match source {
            Some((server, source)) => {
                let (ask, packets) = self.ask(now, (number, flow), wanted, (server, source));
                self.latest.insert(number, (ask, attempt + 1));
                Started::Asks(ask, packets)
            }
            None => Started::Waits(Duration::from_millis(20)),
        }
    }

    fn ask(
        &mut self,
        now: Instant,
        (number, flow): (usize, &Flow),
        (kind, via): (u16, Via),
        (server, source): (IpAddr, IpAddr),
    ) -> (usize, Vec<Vec<u8>>) {
        let nth = self.asks.len();
        let own_port = FIRST_PORT + u16::try_from(nth % PORTS).unwrap_or_default();
        let common = match nth % 2 {
            0 => COMMON_NUMBER,
            _ => 40_000 + u16::try_from(nth % PORTS).unwrap_or_default(),
        };
        let (port, id) = match flow.kind {
            FlowKind::Lookup(lookup) => (flow.port, lookup.number),
            FlowKind::Ping { .. } | FlowKind::Fetch { .. } => (None, None),
        };
        let (port, id) = (port.unwrap_or(own_port), id.unwrap_or(common));
        let name = flow.to.name().unwrap_or_default().to_owned();
        let message = match flow.kind {
            FlowKind::Lookup(lookup) if lookup.is_mixed => query(id, &mixed(&name), kind),
            FlowKind::Lookup(_) | FlowKind::Ping { .. } | FlowKind::Fetch { .. } => {
                query(id, &name, kind)
            }
        };
        let spelt = Message::parse(&message).unwrap_or_default().spelt;
        let source = SocketAddr::new(source, port);
        self.asks.push(Ask {
            flow: number,
            host: flow.host,
            name,
            spelt,
            kind,
            via,
            server,
            source,
            number: id,
            asked_at: now,
            answer: None,
            verdict: Verdict::default(),
        });
        let to = SocketAddr::new(server, PORT);
        if via == Via::Tcp {
            let side = self.side(now, flow.host);
            if let Some(connection) = side.tcp.ask(source, to, &message) {
                side.connections.insert(connection, nth);
            }
            side.tcp.work(now);
            return (nth, side.tcp.take_packets());
        }
        let packet = ip::udp(&self.pool, source, to, &message);

        (
            nth,
            packet.map(|it| it.bytes().to_vec()).into_iter().collect(),
        )
    }

    /// Takes a packet of a name server's that left the TUN device of client `host`. Returns the questions that have their answer.
    ///
    /// # Errors
    ///
    /// It is none that may be there.
    pub(crate) fn handle_packet(
        &mut self,
        now: Instant,
        host: usize,
        packet: &Packet<&[u8]>,
    ) -> Result<Vec<usize>, String> {
        let (Some(from), Some(to)) = (packet.source_port(), packet.destination_port()) else {
            return Ok(Vec::new());
        };
        let (remote, local) = (
            SocketAddr::new(packet.source(), from),
            SocketAddr::new(packet.destination(), to),
        );
        if packet.transport() != Transport::Tcp {
            let answer = self.answer(now, host, (local, remote.ip()), packet.payload(), None)?;
            return Ok(vec![answer]);
        }
        let side = self.side(now, host);
        side.tcp
            .handle_packet((local, remote), packet.bytes(), false);
        let heard = side.tcp.work(now);

        self.hear(now, host, heard)
    }

    /// Lets a host's connections go on.
    pub(crate) fn work(&mut self, now: Instant, host: usize) -> Result<Vec<usize>, String> {
        let heard = self.side(now, host).tcp.work(now);

        self.hear(now, host, heard)
    }

    /// What the host's connections send.
    pub(crate) fn take_packets(&mut self, host: usize) -> Vec<Vec<u8>> {
        let side = self.hosts.get_mut(&host);

        side.map(|side| side.tcp.take_packets()).unwrap_or_default()
    }

    pub(crate) fn due_at(&mut self, now: Instant, host: usize) -> Option<Instant> {
        self.hosts.get_mut(&host)?.tcp.due_at(now)
    }

    fn hear(&mut self, now: Instant, host: usize, heard: Vec<Heard>) -> Result<Vec<usize>, String> {
        let mut answered = Vec::new();
        for heard in heard {
            let connection = match &heard {
                Heard::Message(connection, ..) | Heard::Over(connection) => *connection,
            };
            let Some(ask) = self
                .hosts
                .get(&host)
                .and_then(|side| side.connections.get(&connection))
                .copied()
            else {
                continue;
            };
            if let (Heard::Message(_, local, message), Some(asked)) = (heard, self.asks.get(ask)) {
                let ends = (local, asked.server);
                answered.push(self.answer(now, host, ends, &message, Some(ask))?);
                if let Some(side) = self.hosts.get_mut(&host) {
                    side.tcp.abort(now, connection);
                }
            }
        }

        Ok(answered)
    }

    /// Finds the question of an answer.
    fn answer(
        &mut self,
        now: Instant,
        host: usize,
        (local, server): (SocketAddr, IpAddr),
        bytes: &[u8],
        ask: Option<usize>,
    ) -> Result<usize, String> {
        let message = Message::parse(bytes).filter(Message::is_answer);
        let message = message.ok_or_else(|| format!("{server} said what is no answer"))?;
        let question = message.question.clone();
        let mut is_second = false;
        let found = self.asks.iter().enumerate().position(|(nth, asked)| {
            let is_it = (asked.host, asked.source, asked.server) == (host, local, server)
                && asked.number == message.id
                && question.as_ref() == Some(&(asked.name.clone(), asked.kind))
                && ask.is_none_or(|ask| ask == nth)
                && (ask.is_some() || asked.via == Via::Udp);
            is_second |= is_it && asked.answer.is_some();
            is_it && asked.answer.is_none()
        });
        let what = || format!("{server} answered {question:?} to {local}");
        match found.and_then(|nth| Some((nth, self.asks.get_mut(nth)?))) {
            // Whoever asks looks for its own spelling (client.md §4.2).
            Some((_, asked)) if asked.spelt != message.spelt => {
                Err(format!("{} in another spelling", what()))
            }
            Some((nth, asked)) => {
                asked.answer = Some((now, message));
                Ok(nth)
            }
            None if is_second => Err(format!("{} twice", what())),
            None => Err(format!("{}, which nobody asked", what())),
        }
    }

    /// What a program makes of an answer: an address, or nothing, after which it goes on at once or later.
    pub(crate) fn found(&mut self, ask: usize) -> Result<IpAddr, Duration> {
        let Some(asked) = self.asks.get(ask) else {
            return Err(PAUSE);
        };
        let Some((_, message)) = &asked.answer else {
            return Err(PAUSE);
        };
        let ips: Vec<IpAddr> = message
            .data(asked.kind)
            .into_iter()
            .filter_map(|data| to_ip(&data))
            .collect();
        let (flow, host, name) = (asked.flow, asked.host, asked.name.clone());
        if ips.is_empty() {
            return Err(match message.code() {
                code::NOERROR | code::NXDOMAIN => PAUSE * 2,
                _ => Duration::ZERO,
            });
        }
        let is_ipv4 = RecordKind(asked.kind) == RecordKind::A;
        let at = asked.asked_at;
        self.side(at, host)
            .cache
            .insert((name.clone(), is_ipv4), ips);

        self.pick(flow, host, &name, is_ipv4).ok_or(PAUSE)
    }

    /// One of the addresses that a name was found to have.
    fn pick(&self, flow: usize, host: usize, name: &str, is_ipv4: bool) -> Option<IpAddr> {
        let cache = &self.hosts.get(&host)?.cache;
        let ips = cache.get(&(name.to_owned(), is_ipv4))?;

        ips.get(flow % ips.len()).copied()
    }

    fn side(&mut self, now: Instant, host: usize) -> &mut HostSide {
        self.hosts.entry(host).or_insert_with(|| HostSide {
            tcp: Tcp::new(now, host as u64),
            connections: BTreeMap::new(),
            cache: BTreeMap::new(),
        })
    }
}

/// A name with every other letter in upper case.
fn mixed(name: &str) -> String {
    let letters = name.chars().enumerate();

    letters
        .map(|(nth, letter)| match nth % 2 {
            0 => letter.to_ascii_uppercase(),
            _ => letter,
        })
        .collect()
}
