//! The public ports that clients hold.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_wire::stun::TransactionId;

use crate::address::{Families, Lacking};
use crate::answer::{Asker, Seal};
use crate::channel::Channels;
use crate::config::AllocationPort;
use crate::deadlines::Due;
use crate::permissions::Permissions;
use crate::reservations::Token;

/// The time that the caller has to open a port.
pub(crate) const OPENING: Duration = Duration::from_secs(5);

/// One client's port, and the channels on it.
#[derive(Debug)]
pub(crate) struct Allocation {
    pub(crate) port: AllocationPort,
    pub(crate) client: SocketAddr,
    /// The address of ours that the client talks to, so that data reaches it from there.
    pub(crate) server: SocketAddr,
    /// Whose it is.
    pub(crate) user: String,
    pub(crate) families: Families,
    /// The family that it was to have as well.
    pub(crate) lacks: Option<Lacking>,
    /// What names the next port, if that was kept with it.
    pub(crate) token: Option<Token>,
    /// The lifetime that the first answer stated.
    pub(crate) granted: Duration,
    /// The request that made it: its repetitions get the same answer.
    pub(crate) made_by: TransactionId,
    /// When that request came.
    pub(crate) begun_at: Instant,
    pub(crate) state: State,
    pub(crate) channels: Channels,
    /// Empty for the portal's clients, who need none.
    pub(crate) permissions: Permissions,
}

#[derive(Debug)]
pub(crate) enum State {
    /// Some ports are not bound yet; the answer waits for them.
    Opening {
        missing: Families,
        asker: Asker,
        seal: Seal,
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

/// All allocations: one per client socket and per port.
#[derive(Debug, Default)]
pub(crate) struct Allocations {
    // Looked up, never iterated.
    by_port: HashMap<AllocationPort, Allocation>,
    by_client: HashMap<SocketAddr, AllocationPort>,
    by_user: HashMap<String, BTreeSet<AllocationPort>>,
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

    /// One that a user has.
    pub(crate) fn port_of_user(&self, user: &str) -> Option<AllocationPort> {
        self.by_user.get(user)?.first().copied()
    }

    /// How many a user has.
    pub(crate) fn count_of(&self, user: &str) -> usize {
        self.by_user.get(user).map_or(0, BTreeSet::len)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_port.len()
    }

    pub(crate) fn insert(&mut self, allocation: Allocation) {
        let port = allocation.port;
        self.by_client.insert(allocation.client, port);
        let of_user = self.by_user.entry(allocation.user.clone()).or_default();
        of_user.insert(port);
        self.by_port.insert(port, allocation);
    }

    pub(crate) fn remove(&mut self, port: AllocationPort) -> Option<Allocation> {
        let allocation = self.by_port.remove(&port)?;
        self.by_client.remove(&allocation.client);
        if let Some(of_user) = self.by_user.get_mut(&allocation.user) {
            of_user.remove(&port);
            if of_user.is_empty() {
                self.by_user.remove(&allocation.user);
            }
        }

        Some(allocation)
    }
}
