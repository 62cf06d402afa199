//! Questions on their way to name servers: those that programs with sockets carry, and those that come out of gateways.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use connlib::event_loop::Command;
use connlib_tunnel::dns::{Carrier, Exchange, ExchangeError, ExchangeId, Server};
use connlib_wire::buffer::Pool;
use connlib_wire::dns::is_answer_to;
use connlib_wire::ip::{self, Packet, Transport};

use super::host::Role;
use super::names::PORT;
use super::{Happening, World};
use crate::names::{Heard, Reply, Tcp};
use crate::oracle::{Arriving, Destination};
use crate::scenario::{self, Protocol, ServerAt, Service, Via};

/// How much earlier than it is heard of something may have left a client: what is lost is sent again for so long.
const UNDER_WAY: Duration = Duration::from_secs(5);

/// How long a network takes to say that there is no way.
const NO_WAY_AFTER: Duration = Duration::from_millis(1);

/// What a carrier brings back, and to whom.
#[derive(Debug)]
pub(super) struct Exchanged {
    host: usize,
    life: u32,
    moves: u32,
    id: ExchangeId,
    outcome: Result<Vec<u8>, ExchangeError>,
    /// How long is left of its time.
    left: Duration,
}

impl World {
    /// Carries a question outside of the tunnel.
    pub(super) fn carry(&mut self, host: usize, exchange: Exchange) {
        self.trace
            .add(self.elapsed(), "for a name server", &exchange.message);
        let is_client = matches!(
            self.hosts.get(host).map(|entry| &entry.role),
            Some(Role::Client(_))
        );
        if is_client && let Err(what) = self.names.may_leave(self.now, host, &exchange.message) {
            let name = self.scenario.host(host);
            self.violate(format!("{name}: {what}"));
        }
        if is_client
            && let Server::Plain(at) = exchange.server
            && let Err(what) = self.names.may_be_asked_outside(self.now, host, at)
        {
            let name = self.scenario.host(host);
            self.violate(format!("{name}: {what}"));
        }
        let Some(entry) = self.hosts.get(host) else {
            return;
        };
        let (life, moves) = (entry.life, entry.moves);
        let (after, outcome) = match self.ask(host, &exchange) {
            Reply::Says(after, messages) => {
                let is_it = |message: &Vec<u8>| is_answer_to(&exchange.message, message);
                let answer = messages.into_iter().find(is_it);
                match answer.filter(|_| after <= exchange.within) {
                    Some(answer) => (after, Ok(answer)),
                    None => (exchange.within, Err(ExchangeError::TimedOut)),
                }
            }
            Reply::Resets(after) => {
                let why = "it ended the connection".to_owned();
                (after, Err(ExchangeError::Unreachable(why)))
            }
            Reply::Nothing => (exchange.within, Err(ExchangeError::TimedOut)),
        };
        let exchanged = Exchanged {
            host,
            life,
            moves,
            id: exchange.id,
            outcome,
            left: exchange.within.saturating_sub(after),
        };
        self.post(after, Happening::Exchanged(Box::new(exchanged)));
    }

    /// What becomes of a question that leaves a host's own network.
    fn ask(&mut self, host: usize, exchange: &Exchange) -> Reply {
        let at = match &exchange.server {
            Server::Plain(at) if at.port() == PORT => ServerAt::Ip(at.ip()),
            Server::Plain(_) => return Reply::Nothing,
            Server::Tls { host, port: 853 } => ServerAt::Url(format!("tls://{host}")),
            Server::Tls { host, port } => ServerAt::Url(format!("tls://{host}:{port}")),
            Server::Https(url) => ServerAt::Url(url.clone()),
        };
        let Some(server) = self.servers.find(&at) else {
            return Reply::Nothing;
        };
        let site = self.servers.get(server).and_then(|it| it.site.as_ref());
        let own = match self.scenario.hosts.get(host).map(|plan| &plan.role) {
            Some(scenario::Role::Gateway { site }) => Some(site),
            Some(scenario::Role::Client { .. } | scenario::Role::Relay) | None => None,
        };
        // A site's own network has both families, whatever its gateways are reached by.
        let is_at_site = site.is_some() && site == own;
        let place = self.network.place(host).unwrap_or_default();
        let is_attached = self.network.is_attached(host);
        if let ServerAt::Ip(ip) = at
            && !is_at_site
            && (place.ip(ip.is_ipv4()).is_none() || !is_attached)
        {
            return Reply::Resets(NO_WAY_AFTER);
        }
        if !is_attached || site.is_some() && !is_at_site {
            return Reply::Nothing;
        }
        let via = match (&exchange.server, exchange.carrier) {
            (Server::Plain(_), Carrier::Udp) => Via::Udp,
            (Server::Plain(_), Carrier::Tcp) | (Server::Tls { .. } | Server::Https(_), _) => {
                Via::Tcp
            }
        };
        let question = (exchange.message.as_slice(), via);

        (self.servers).reply(self.now, server, question, &self.zones, &mut self.rng)
    }

    /// A carrier is back, or would be.
    pub(super) fn exchanged(&mut self, exchanged: Box<Exchanged>) {
        let now = self.now;
        let is_attached = self.network.is_attached(exchanged.host);
        let Some(entry) = self.hosts.get_mut(exchanged.host) else {
            return;
        };
        if entry.life != exchanged.life {
            return;
        }
        if let Some(until) = entry.asleep_until.filter(|until| *until > now) {
            return self.post_at(until, Happening::Exchanged(exchanged));
        }
        let is_lost = !is_attached || entry.moves != exchanged.moves;
        if is_lost && exchanged.outcome.is_ok() {
            let left = exchanged.left;
            let late = Exchanged {
                outcome: Err(ExchangeError::TimedOut),
                left: Duration::ZERO,
                ..*exchanged
            };
            return self.post(left, Happening::Exchanged(Box::new(late)));
        }
        let (id, outcome) = (exchanged.id, exchanged.outcome);
        match &mut entry.role {
            Role::Client(node) => node.command(Command::Exchanged(id, outcome)),
            Role::Gateway(node) => node.command(Command::Exchanged(id, outcome)),
            Role::Relay(_) | Role::Down => {}
        }
    }

    /// Whether a packet of a gateway's TUN device is for a name server of its site; if so, it is dealt with here.
    pub(super) fn ask_site(&mut self, gateway: usize, bytes: &[u8]) -> bool {
        let Ok(packet) = Packet::parse(bytes) else {
            return false;
        };
        let (Some(from), Some(to)) = (packet.source_port(), packet.destination_port()) else {
            return false;
        };
        let (remote, local) = (
            SocketAddr::new(packet.source(), from),
            SocketAddr::new(packet.destination(), to),
        );
        if to != PORT || self.servers.at_ip(local.ip()).is_none() {
            return false;
        }
        let verdict = self.may_ask(gateway, &packet, local);
        if let Err(what) = verdict {
            self.violate(what);
        }
        if packet.transport() == Transport::Tcp {
            let opens = packet
                .tcp_flags()
                .is_some_and(|it| it.is_syn() && !it.is_ack());
            let (now, seed) = (self.now, gateway as u64);
            let tcp = self.site_streams.entry(gateway);
            let tcp = tcp.or_insert_with(|| Tcp::new(now, seed));
            tcp.handle_packet((local, remote), packet.bytes(), opens);
            self.work_at_site(gateway);
            return true;
        }
        if let Reply::Says(after, messages) = self.answer_at_site(local, packet.payload(), Via::Udp)
        {
            let pool = Pool::new(2_048, 1);
            for message in messages {
                let answer = ip::udp(&pool, local, remote, &message);
                if let Some(answer) = answer {
                    let answer = answer.bytes().to_vec();
                    self.post(after, Happening::Echo(gateway, answer));
                }
            }
        }

        true
    }

    /// Whether a client may send that to a server behind a gateway: it was let in, and asks for nothing that others must not know.
    fn may_ask(
        &self,
        gateway: usize,
        packet: &Packet<&[u8]>,
        server: SocketAddr,
    ) -> Result<(), String> {
        if !packet.checksums_match() {
            return Err("a packet on a gateway's TUN has a wrong checksum".to_owned());
        }
        let client = self.asker(packet.source())?;
        let protocol = match packet.transport() {
            Transport::Udp => Protocol::Udp,
            Transport::Tcp | Transport::Icmp | Transport::Other(_) => Protocol::Tcp,
        };
        if protocol == Protocol::Udp {
            self.may_be_asked(client, packet.payload())?;
        }

        self.may_come_out(
            gateway,
            &Arriving {
                what: "a question",
                client,
                to: Destination::Ip(server.ip()),
                service: Service {
                    protocol,
                    port: server.port(),
                },
            },
        )
    }

    /// The client that a question which came out of a gateway is from.
    fn asker(&self, source: IpAddr) -> Result<usize, String> {
        let mut hosts = 0..self.scenario.hosts.len();
        let client = hosts.find(|host| {
            let entry = self.hosts.get(*host);
            entry.and_then(|entry| entry.address(source.is_ipv4())) == Some(source)
        });

        client.ok_or_else(|| format!("a question came out from {source}"))
    }

    /// Whether a client may ask a server behind a gateway that: nothing of it is a resource's name.
    fn may_be_asked(&self, client: usize, question: &[u8]) -> Result<(), String> {
        let sent_at = self.now.checked_sub(UNDER_WAY).unwrap_or(self.now);

        self.names.may_leave(sent_at, client, question)
    }

    fn answer_at_site(&mut self, at: SocketAddr, question: &[u8], via: Via) -> Reply {
        let question = (question, via);

        match self.servers.at_ip(at.ip()) {
            Some(server) => {
                (self.servers).reply(self.now, server, question, &self.zones, &mut self.rng)
            }
            None => Reply::Nothing,
        }
    }

    /// The connections of a site's name servers go on.
    pub(super) fn work_at_site(&mut self, gateway: usize) {
        let now = self.now;
        let heard = match self.site_streams.get_mut(&gateway) {
            Some(tcp) => tcp.work(now),
            None => return,
        };
        for heard in heard {
            let Heard::Message(number, local, message) = heard else {
                continue;
            };
            let remote = self
                .site_streams
                .get(&gateway)
                .and_then(|tcp| tcp.remote(number));
            let verdict = remote.map_or(Ok(()), |remote| {
                self.may_be_asked(self.asker(remote.ip())?, &message)
            });
            if let Err(what) = verdict {
                self.violate(what);
            }
            match self.answer_at_site(local, &message, Via::Tcp) {
                Reply::Says(after, messages) => {
                    for message in messages {
                        self.post(after, Happening::SiteSays(gateway, number, message));
                    }
                }
                Reply::Resets(_) => {
                    if let Some(tcp) = self.site_streams.get_mut(&gateway) {
                        tcp.abort(now, number);
                    }
                }
                Reply::Nothing => {}
            }
        }
        let tcp = self.site_streams.get_mut(&gateway);
        let (packets, due_at) = match tcp {
            Some(tcp) => (tcp.take_packets(), tcp.due_at(now)),
            None => return,
        };
        for packet in packets {
            self.post(Duration::ZERO, Happening::Echo(gateway, packet));
        }
        if let Some(at) = due_at {
            self.post_at(at, Happening::SiteStreams(gateway));
        }
    }

    pub(super) fn site_says(&mut self, gateway: usize, number: usize, message: &[u8]) {
        if let Some(tcp) = self.site_streams.get_mut(&gateway) {
            tcp.send(number, message);
        }
        self.work_at_site(gateway);
    }
}
