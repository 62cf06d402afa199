//! What may leave a relay: what somebody sent there, once for each time.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::time::Instant;

use connlib_wire::channel;

use super::{INSIDER, PORT, Seen};
use crate::limits::CONTROL;

/// How much data is remembered that nothing lets leave.
const UNDECIDED: usize = 4_096;

/// Stands for every port of a relay.
const ANY_PORT: u16 = 0;

/// Data at a port of a relay.
pub(super) struct Arrived {
    pub(super) port: u16,
    pub(super) from: SocketAddr,
    pub(super) bytes: Vec<u8>,
}

impl Seen {
    /// Data arrives: what it may become, it may once.
    pub(super) fn arrives(&mut self, arrived: Arrived) {
        if let Some((port, to, bytes)) = self.loans.leaves_for_own(&arrived, self.plan.place) {
            let key = (port, to, hash(bytes));
            *self.may_leave.entry(key).or_default() += 1;
        }
        let Some((port, to, bytes)) = self.becomes(&arrived) else {
            if self.undecided.len() >= UNDECIDED {
                self.undecided.pop_front();
            }
            self.undecided.push_back(arrived);
            return;
        };
        // One who comes and goes in an instant has another port by the time that its data is served.
        let is_fickle = arrived.from.ip().to_string() == INSIDER;
        let port = if is_fickle { ANY_PORT } else { port };
        let key = (port, to, hash(&bytes));
        *self.may_leave.entry(key).or_default() += 1;
    }

    /// Data leaves that may.
    pub(super) fn leaves(
        &mut self,
        now: Instant,
        data: (u16, SocketAddr, u64),
        length: usize,
    ) -> Result<(), String> {
        if self.may(data) {
            return Ok(());
        }
        if self.plan.is_full {
            self.early.push((now, data));
            return Ok(());
        }
        let (port, to, _) = data;

        Err(format!(
            "sends {length} bytes from port {port} to {to}, which nobody sent there"
        ))
    }

    /// Whether data may leave, once for each time that it was sent.
    fn may(&mut self, (port, to, hash): (u16, SocketAddr, u64)) -> bool {
        for port in [port, ANY_PORT] {
            let key = (port, to, hash);
            let Some(times) = self.may_leave.get_mut(&key) else {
                continue;
            };
            *times -= 1;
            if *times == 0 {
                self.may_leave.remove(&key);
            }
            return true;
        }

        false
    }

    /// What left before the answer that lets it leave has that answer in time.
    pub(super) fn are_justified(&mut self, now: Instant) -> Result<(), String> {
        let early = std::mem::take(&mut self.early);
        for (at, data) in early {
            if self.may(data) {
                continue;
            }
            let (port, to, _) = data;
            if now > at + CONTROL.holds {
                return Err(format!(
                    "has sent something from port {port} to {to}, which nobody sent there"
                ));
            }
            self.early.push((at, data));
        }

        Ok(())
    }

    /// Where data leaves, to whom, and in which form.
    fn becomes(&self, arrived: &Arrived) -> Option<(u16, SocketAddr, Vec<u8>)> {
        let Arrived { port, from, bytes } = arrived;
        if *port != PORT {
            let (client, framed) = self.loans.to_client(*port, *from, bytes)?;
            return Some((PORT, client, framed));
        }
        let (number, payload) = channel::decode(bytes)?;

        self.loans
            .to_peer(self.plan.place, *from, number.number(), payload)
    }
}

pub(super) fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);

    hasher.finish()
}
