//! What programs of one client have to do with each other.

use std::time::{Duration, Instant};

use connlib_wire::ip::Packet;

use super::packets::{quoted_ends, refusal};
use super::payload::Stamp;
use super::{Apps, Arrival, Running};
use crate::scenario::FlowKind;

/// How late a packet is at least that has waited for something.
const WAITED: Duration = Duration::from_millis(500);

impl Apps {
    /// Whether a flow to a name comes out from the port that a flow to an address of the network has, to the same address: an
    /// answer to the one would be taken for one to the other, so that the gateway gives the second another port.
    pub(super) fn is_taken(&self, running: &Running) -> bool {
        self.flows.iter().any(|other| {
            let is_it = |it: &Arrival| (Some(it.ip), it.port) == (running.to, running.own_port);
            let is_named = other.name().is_some()
                && other.flow.host == running.flow.host
                && other.flow.service.protocol == running.flow.service.protocol;
            is_named && other.arrivals.iter().any(is_it)
        })
    }

    /// Notes which flow of a client an ICMP error is for.
    pub(super) fn refuse(&mut self, now: Instant, host: usize, error: &Packet<&[u8]>) {
        let Some(quoted) = error.quoted() else {
            return;
        };
        let Some((own, service)) = quoted_ends(&quoted) else {
            return;
        };
        let ends = (service, own, Some(quoted.destination));
        for running in &mut self.flows {
            if running.flow.host == host && running.source() == ends {
                running.refused.push((now, refusal(error)));
            }
        }
    }

    /// Whether the client of a flow has large packets under way, too: a small one at the end of a train of them may come
    /// out behind later small ones. Packets of pings travel in one train only where they have waited.
    pub(super) fn mixes(&self, now: Instant, stamp: Stamp) -> bool {
        let Some(running) = self.flows.get(stamp.flow) else {
            return false;
        };
        let number = usize::try_from(stamp.number).unwrap_or(usize::MAX);
        let probe = running.probes.get(number);
        let has_waited = probe.is_some_and(|probe| probe.sent_at + WAITED <= now);

        self.flows.iter().any(|other| {
            let is_larger = match (other.flow.kind, running.flow.kind) {
                (FlowKind::Fetch { .. }, _) => true,
                (FlowKind::Ping { size: other, .. }, FlowKind::Ping { size, .. }) => {
                    has_waited && other > size
                }
                (FlowKind::Ping { .. } | FlowKind::Lookup(_), _) => false,
            };
            is_larger && other.flow.host == running.flow.host
        })
    }
}
