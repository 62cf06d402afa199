//! Who has which port of a relay, and which channels, by what it has told them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_wire::channel::{self, ChannelNumber};
use connlib_wire::stun::{Message, Method};

use super::Asked;
use super::data::Arrived;
use crate::scenario::Place;

/// How long a channel lasts (RFC 8656 §12).
const CHANNEL: Duration = Duration::from_secs(600);

/// How late a loop may notice that something has ended.
const LATE: Duration = Duration::from_millis(200);

/// The port of each client's socket.
#[derive(Debug, Default)]
pub(super) struct Loans {
    by_client: BTreeMap<SocketAddr, Loan>,
    by_port: BTreeMap<u16, SocketAddr>,
    /// When the next one ends.
    next_end: Option<Instant>,
}

#[derive(Debug)]
struct Loan {
    port: u16,
    user: Option<String>,
    until: Instant,
    channels: BTreeMap<u16, Bound>,
}

#[derive(Debug)]
struct Bound {
    peer: SocketAddr,
    until: Instant,
}

impl Loan {
    fn number_of(&self, peer: SocketAddr) -> Option<u16> {
        let mut channels = self.channels.iter();
        let found = channels.find(|(_, bound)| bound.peer == peer);

        found.map(|(number, _)| *number)
    }
}

impl Loans {
    pub(super) fn len(&self) -> usize {
        self.by_client.len()
    }

    /// Whatever has ended is gone.
    pub(super) fn pass(&mut self, now: Instant) {
        if self.next_end.is_none_or(|end| end + LATE > now) {
            return;
        }
        let ended = |until: Instant| until + LATE <= now;
        for loan in self.by_client.values_mut() {
            loan.channels.retain(|_, bound| !ended(bound.until));
        }
        self.by_client.retain(|_, loan| !ended(loan.until));
        self.by_port.retain(|port, client| {
            let loan = self.by_client.get(client);
            loan.is_some_and(|loan| loan.port == *port)
        });
        let ends = self.by_client.values().flat_map(|loan| {
            let channels = loan.channels.values().map(|bound| bound.until);
            channels.chain([loan.until])
        });
        self.next_end = ends.min();
    }

    fn ends(&mut self, at: Instant) {
        self.next_end = Some(self.next_end.map_or(at, |end| end.min(at)));
    }

    fn remove(&mut self, client: SocketAddr) {
        if let Some(loan) = self.by_client.remove(&client) {
            self.by_port.remove(&loan.port);
        }
    }

    /// A relay has told `client` that it gets what it asked for.
    pub(super) fn granted(
        &mut self,
        now: Instant,
        client: SocketAddr,
        asked: &Asked,
        answer: &Message<'_>,
    ) -> Result<(), String> {
        let lifetime = answer.lifetime().unwrap_or_default();
        match asked.method {
            Method::Allocate => {
                let relayed = answer.relayed_addresses().next();
                let port = relayed.ok_or("lends no address")?.port();
                self.lends(now + lifetime, client, port, asked.user.clone())
            }
            Method::Refresh if lifetime.is_zero() => {
                self.remove(client);
                Ok(())
            }
            Method::Refresh => {
                let loan = self.by_client.get_mut(&client);
                let loan = loan.ok_or_else(|| format!("refreshes nothing of {client}"))?;
                loan.until = now + lifetime;
                self.ends(now + lifetime);
                Ok(())
            }
            Method::ChannelBind => {
                let loan = self.by_client.get_mut(&client);
                let loan = loan.ok_or_else(|| format!("binds a channel of {client}"))?;
                let (number, peer) = asked.channel.ok_or("binds no channel")?;
                let other = loan.number_of(peer).filter(|other| *other != number);
                let bound = loan.channels.get(&number);
                if other.is_some() || bound.is_some_and(|bound| bound.peer != peer) {
                    return Err(format!("binds {number:#x} of {client} to {peer} as well"));
                }
                let until = now + CHANNEL;
                loan.channels.insert(number, Bound { peer, until });
                self.ends(until);
                Ok(())
            }
            Method::Binding
            | Method::Send
            | Method::Data
            | Method::CreatePermission
            | Method::Other(_)
            | _ => Ok(()),
        }
    }

    /// A user who comes from another socket has its former allocation no longer (relay.md §8).
    fn lends(
        &mut self,
        until: Instant,
        client: SocketAddr,
        port: u16,
        user: Option<String>,
    ) -> Result<(), String> {
        if let Some(loan) = self.by_client.get(&client).filter(|loan| loan.port == port) {
            // The answer is said again.
            return match loan.user == user {
                true => Ok(()),
                false => Err(format!("gives {client} the port of another user")),
            };
        }
        let mut all = self.by_client.iter();
        let former = all.find(|(_, loan)| loan.user == user);
        let former = former.map(|(former, _)| *former);
        if let Some(former) = former {
            self.remove(former);
        }
        if let Some(other) = self.by_port.get(&port) {
            return Err(format!("gives {client} the port {port}, which {other} has"));
        }
        self.remove(client);
        self.by_port.insert(port, client);
        let channels = BTreeMap::new();
        let loan = Loan {
            port,
            user,
            until,
            channels,
        };
        self.by_client.insert(client, loan);
        self.ends(until);

        Ok(())
    }

    /// What a peer says to a port: to whom, and under which channel.
    pub(super) fn to_client(
        &self,
        port: u16,
        peer: SocketAddr,
        payload: &[u8],
    ) -> Option<(SocketAddr, Vec<u8>)> {
        let client = *self.by_port.get(&port)?;
        let number = self.by_client.get(&client)?.number_of(peer)?;
        let header = channel::header(ChannelNumber::new(number)?, payload.len())?;

        Some((client, [&header, payload].concat()))
    }

    /// What a client says under a channel that leads to the relay's own address: it leaves as it is if the port is lent no
    /// longer by the time that it is served.
    pub(super) fn leaves_for_own<'a>(
        &self,
        arrived: &'a Arrived,
        place: Place,
    ) -> Option<(u16, SocketAddr, &'a [u8])> {
        let (number, payload) = channel::decode(&arrived.bytes)?;
        let loan = self.by_client.get(&arrived.from)?;
        let peer = loan.channels.get(&number.number())?.peer;
        let is_own = place.ip(peer.is_ipv4()) == Some(peer.ip());

        is_own.then_some((loan.port, peer, payload))
    }

    /// What a client says under a channel: from which port, to whom, and what. Between two clients of one relay it stays there.
    pub(super) fn to_peer(
        &self,
        place: Place,
        client: SocketAddr,
        number: u16,
        payload: &[u8],
    ) -> Option<(u16, SocketAddr, Vec<u8>)> {
        let loan = self.by_client.get(&client)?;
        let peer = loan.channels.get(&number)?.peer;
        let is_own = place.ip(peer.is_ipv4()) == Some(peer.ip());
        if is_own && self.by_port.contains_key(&peer.port()) {
            let seen_as = SocketAddr::new(peer.ip(), loan.port);
            let (twin, framed) = self.to_client(peer.port(), seen_as, payload)?;
            return Some((super::PORT, twin, framed));
        }

        Some((loan.port, peer, payload.to_vec()))
    }
}
