//! A client, a gateway and a relay joined by memory that allocates nothing while packets flow: what the data path itself
//! allocates can be counted, and what it costs can be timed.
//!
//! Everything is the shipped code but the devices. A connection is made in virtual time, then time stands still, and as
//! many packets flow as are asked for.

mod devices;
mod hosts;
mod places;
mod portal;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib::event_loop::{Command, Core, Inline, Output, Workers};
use connlib_tunnel::client::Client;
use connlib_tunnel::gateway::Gateway;
use connlib_tunnel::{PortalState, Settings};

use devices::Cables;
use hosts::{Node, Relay};
use places::HostId;
use portal::{Portal, Says};

pub use devices::{Load, Shape};
pub use places::{Direct, Family};

/// The wall clock at the start.
const UNIX: Duration = Duration::from_secs(1_800_000_000);

/// The port of client and gateway.
const PORT: u16 = 52_625;

/// How long a connection may take to come up, in virtual time.
const UP_WITHIN: Duration = Duration::from_secs(30);

/// Which way packets flow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    /// From the client to the gateway's network.
    Up,
    /// From there to the client.
    Down,
}

/// What became of packets.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Carried {
    /// The packets that left the other end's TUN device, runs taken apart.
    pub packets: u64,
    /// The bytes of them and of their runs' headers.
    pub bytes: u64,
    /// The writes that they took.
    pub writes: u64,
}

/// A client, a gateway and a relay. See the [module](self).
#[derive(Debug)]
pub struct Pipe<W = Inline<connlib_tunnel::Job>> {
    cables: Cables,
    family: Family,
    direct: Direct,
    start: Instant,
    now: Instant,
    client: Node<Client, W>,
    gateway: Node<Gateway, W>,
    relay: Relay,
    portal: Portal,
}

impl Pipe {
    /// Connects a client and a gateway over IPv4 or IPv6, directly or through the relay.
    ///
    /// # Panics
    ///
    /// The connection doesn't come up.
    pub fn connect(family: Family, direct: Direct) -> Self {
        Self::with_workers(family, direct, Inline::default)
    }
}

impl<W: Workers<connlib_tunnel::Job>> Pipe<W> {
    /// The same with jobs run by others.
    ///
    /// # Panics
    ///
    /// The connection doesn't come up.
    #[expect(
        clippy::disallowed_methods,
        reason = "instants can only be made from one; nothing depends on which it is"
    )]
    pub fn with_workers(family: Family, direct: Direct, workers: impl Fn() -> W) -> Self {
        let start = Instant::now();
        let settings = Settings { unix: UNIX };
        let client = Client::new(start, [1; 32], settings);
        let gateway = Gateway::new(start, [2; 32], settings);
        let addr = |host: HostId, port| SocketAddr::new(host.ip(family), port);
        let cables = Cables::new();
        let relay = Relay::new(&cables, addr(HostId::Relay, hosts::RELAY_PORT));
        let portal = Portal::new(client.public_key(), gateway.public_key(), relay.addr());
        let ends = [addr(HostId::Client, PORT), addr(HostId::Gateway, PORT)];

        let mut pipe = Self {
            client: Node::new(client, &cables, ends[0], workers()),
            gateway: Node::new(gateway, &cables, ends[1], workers()),
            cables,
            family,
            direct,
            start,
            now: start,
            relay,
            portal,
        };
        pipe.come_up();

        pipe
    }

    /// Lets `reads` super-packets or packets of one `shape` flow, and says what came out.
    pub fn carry(&mut self, direction: Direction, shape: Shape, reads: usize) -> Carried {
        let load = Load::new(shape, direction, reads);
        match direction {
            Direction::Up => self.client.load(load),
            Direction::Down => self.gateway.load(load),
        }
        while self.turn_all() {}

        match direction {
            Direction::Up => self.gateway.take_carried(),
            Direction::Down => self.client.take_carried(),
        }
    }

    fn come_up(&mut self) {
        self.client
            .command(Command::PortalState(PortalState::Joined));
        self.gateway
            .command(Command::PortalState(PortalState::Joined));
        let says = [self.portal.init_client(), self.portal.init_gateway()];
        self.say(says);
        let mut asked = false;
        while self.now - self.start < UP_WITHIN {
            self.settle();
            let path = self.client.path(self.now);
            let wanted = match self.direct {
                Direct::Open => "direct",
                Direct::Blocked => "relayed",
            };
            if path == Some(wanted) && self.now - self.start > Duration::from_secs(8) {
                return;
            }
            if !asked && self.now - self.start > Duration::from_secs(1) {
                asked = true;
                self.client
                    .load(Load::new(Shape::Datagram, Direction::Up, 1));
            }
            self.now += Duration::from_millis(1);
        }
        panic!("the connection doesn't come up");
    }

    /// Turns until nothing moves at this instant.
    fn settle(&mut self) {
        loop {
            let moved = self.turn_all();
            let client = self.client.take_messages();
            let gateway = self.gateway.take_messages();
            if !moved && client.is_empty() && gateway.is_empty() {
                return;
            }
            for message in client {
                let says = self.portal.hears_client(message);
                self.say(says);
            }
            for message in gateway {
                let says = self.portal.hears_gateway(message);
                self.say(says);
            }
        }
    }

    fn say(&mut self, says: impl IntoIterator<Item = Says>) {
        for says in says {
            match says {
                Says::ToClient(message) => self.client.command(Command::Portal(message)),
                Says::ToGateway(message) => self.gateway.command(Command::Portal(message)),
            }
        }
    }

    /// One turn of whoever has something to do; false if nobody had.
    fn turn_all(&mut self) -> bool {
        let now = self.now;
        let mut moved = self.client.turn(now);
        moved |= self.gateway.turn(now);
        moved |= self.relay.turn(now, UNIX + (now - self.start));
        moved |= self.deliver();

        moved
    }

    /// Carries what was sent to where it goes.
    fn deliver(&mut self) -> bool {
        let mut moved = false;
        while let Some(train) = self.cables.next() {
            moved = true;
            let to = HostId::at(train.to.ip(), self.family);
            let from = HostId::at(train.from.ip(), self.family);
            let is_direct = to != Some(HostId::Relay) && from != Some(HostId::Relay);
            match to {
                _ if is_direct && self.direct == Direct::Blocked => self.cables.give_back(train),
                Some(HostId::Client) => self.client.receive(train),
                Some(HostId::Gateway) => self.gateway.receive(train),
                Some(HostId::Relay) => self.relay.receive(train),
                None => self.cables.give_back(train),
            }
        }

        moved
    }
}

/// What a node tells besides messages is not looked at.
fn message_of<C: Core>(output: Output<C>) -> Option<C::ToPortal> {
    match output {
        Output::Message(message) => Some(message),
        Output::Event(_) | Output::Status(..) | Output::Explained(_) | Output::Exchange(_) => None,
    }
}
