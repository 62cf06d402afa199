//! Datagrams on their way out.

use std::net::SocketAddr;

use connlib_os::fake::SentTrain;
use connlib_wire::MAX_DATAGRAM;

use super::host::Role;
use super::{Happening, World};

impl World {
    /// Lets the trains that `host` sends leave.
    pub(super) fn launch(
        &mut self,
        host: usize,
        trains: Vec<(SocketAddr, SentTrain)>,
        is_relay: bool,
    ) {
        if is_relay {
            self.relay_sends(host, &trains);
        }
        for (local, train) in trains {
            let to = train.route.dst;
            let default = self.network.source(host, to.is_ipv4());
            let wanted = train.route.src.unwrap_or(local);
            let ip = if wanted.ip().is_unspecified() {
                default
            } else {
                Some(wanted.ip())
            };
            let Some(ip) = ip else {
                continue;
            };
            let from = SocketAddr::new(ip, local.port());
            let datagrams: Vec<&[u8]> = train.datagrams().collect();
            self.note(host, from, to, &datagrams, is_relay);
            self.network.carry(
                self.now,
                host,
                (from, to),
                train.route.ecn,
                &datagrams,
                &mut self.deliveries,
            );
            self.deliver();
        }
    }

    /// Posts what arrives.
    pub(super) fn deliver(&mut self) {
        let mut deliveries = std::mem::take(&mut self.deliveries);
        for delivery in deliveries.drain(..) {
            self.post_at(
                delivery.at,
                Happening::Arrives(delivery.host, delivery.train, delivery.origin),
            );
        }
        self.deliveries = deliveries;
    }

    /// What leaves a relay is what the oracle lets it send.
    fn relay_sends(&mut self, host: usize, trains: &[(SocketAddr, SentTrain)]) {
        let allocations = match self.hosts.get(host).map(|entry| &entry.role) {
            Some(Role::Relay(node)) => node.stats().allocations,
            Some(Role::Client(_) | Role::Gateway(_) | Role::Down) | None => return,
        };
        let sent = trains.iter().flat_map(|(local, train)| {
            let to = train.route.dst;
            train
                .datagrams()
                .map(move |datagram| (*local, to, datagram))
        });
        if let Err(what) = self.relays.sends(self.now, host, sent, allocations) {
            let name = self.scenario.host(host);
            let what = format!("{name} {what}");
            self.violate(what);
        }
    }

    fn note(
        &mut self,
        host: usize,
        from: SocketAddr,
        to: SocketAddr,
        datagrams: &[&[u8]],
        is_relay: bool,
    ) {
        let at = self.elapsed();
        let place = self.scenario.host(host);
        for datagram in datagrams {
            self.trace.add(at, place, datagram);
        }
        self.watch.sent(at, datagrams.len() as u64, is_relay);
        let checks = datagrams
            .iter()
            .filter(|datagram| is_stun(datagram))
            .count();
        let checks = u32::try_from(checks).unwrap_or(u32::MAX);
        if !is_relay && checks > 0 && !self.watch.checked(at, host, checks) {
            let what = format!("{place} sends STUN messages without end");
            self.watch.violate(at, what);
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.sent(at, host, (from, to), datagrams);
        }
        self.overheard.hear(from, to, datagrams);
        if let Some(long) = datagrams
            .iter()
            .find(|datagram| datagram.len() > MAX_DATAGRAM)
        {
            let what = format!("a datagram of {} bytes", long.len());
            self.violate(what);
        }
    }
}

/// Whether a datagram bears the magic cookie (RFC 8489 §5).
fn is_stun(datagram: &[u8]) -> bool {
    datagram.get(4..8) == Some(&[0x21, 0x12, 0xa4, 0x42])
}
