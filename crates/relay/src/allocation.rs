//! The public ports that clients hold.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_wire::stun::{Key, TransactionId};

use crate::address::Families;
use crate::answer::Asker;
use crate::channel::Channels;
use crate::config::AllocationPort;
use crate::deadlines::Due;

/// What a client gets that doesn't say how long it wants it (RFC 8656 §3.2).
const DEFAULT_LIFETIME: Duration = Duration::from_secs(600);

/// The most a client gets at a time (RFC 8656 §7.2).
const MAX_LIFETIME: Duration = Duration::from_secs(3_600);

/// The time that the caller has to open a port.
pub(crate) const OPENING: Duration = Duration::from_secs(5);

/// The lifetime that a request is granted.
pub(crate) fn granted_lifetime(requested: Option<Duration>) -> Duration {
    requested.unwrap_or(DEFAULT_LIFETIME).min(MAX_LIFETIME)
}

/// One client's port, and the channels on it.
#[derive(Debug)]
pub(crate) struct Allocation {
    pub(crate) port: AllocationPort,
    pub(crate) client: SocketAddr,
    /// The address of ours that the client talks to, so that data reaches it from there.
    pub(crate) server: SocketAddr,
    pub(crate) username: String,
    pub(crate) families: Families,
    /// The lifetime that the first answer stated.
    pub(crate) granted: Duration,
    /// The request that made it: its repetitions get the same answer.
    pub(crate) made_by: TransactionId,
    pub(crate) state: State,
    pub(crate) channels: Channels,
}

#[derive(Debug)]
pub(crate) enum State {
    /// Some ports are not bound yet; the answer waits for them.
    Opening {
        missing: Families,
        asker: Asker,
        key: Key,
        until: Instant,
    },
    Open {
        expires_at: Instant,
    },
}

impl Allocation {
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// What happens next to it, and when.
    pub(crate) fn due(&self) -> (Instant, Due) {
        match self.state {
            State::Opening { until, .. } => (until, Due::Opening(self.port)),
            State::Open { expires_at } => (expires_at, Due::Allocation(self.port)),
        }
    }
}

/// All allocations: one per client socket, per user and per port.
#[derive(Debug, Default)]
pub(crate) struct Allocations {
    // Looked up, never iterated.
    by_port: HashMap<AllocationPort, Allocation>,
    by_client: HashMap<SocketAddr, AllocationPort>,
    by_username: HashMap<String, AllocationPort>,
}

impl Allocations {
    pub(crate) fn at(&self, port: AllocationPort) -> Option<&Allocation> {
        self.by_port.get(&port)
    }

    pub(crate) fn at_mut(&mut self, port: AllocationPort) -> Option<&mut Allocation> {
        self.by_port.get_mut(&port)
    }

    pub(crate) fn of_client(&self, client: SocketAddr) -> Option<&Allocation> {
        self.at(*self.by_client.get(&client)?)
    }

    /// The one that the client knows of: its ALLOCATE was answered.
    pub(crate) fn open_of_client(&mut self, client: SocketAddr) -> Option<&mut Allocation> {
        let port = *self.by_client.get(&client)?;

        self.at_mut(port).filter(|allocation| allocation.is_open())
    }

    pub(crate) fn port_of_user(&self, username: &str) -> Option<AllocationPort> {
        self.by_username.get(username).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_port.len()
    }

    pub(crate) fn insert(&mut self, allocation: Allocation) {
        self.by_client.insert(allocation.client, allocation.port);
        self.by_username
            .insert(allocation.username.clone(), allocation.port);
        self.by_port.insert(allocation.port, allocation);
    }

    pub(crate) fn remove(&mut self, port: AllocationPort) -> Option<Allocation> {
        let allocation = self.by_port.remove(&port)?;
        self.by_client.remove(&allocation.client);
        self.by_username.remove(&allocation.username);

        Some(allocation)
    }
}
