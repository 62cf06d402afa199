//! What happens when.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use connlib_wire::channel::ChannelNumber;

use crate::config::AllocationPort;
use crate::reservations::Token;

/// Why the server wants to be woken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Reason {
    /// Answers or commands wait to be polled.
    OutputWaits,
    /// A port was asked for long ago and nobody said whether it is open.
    PortNotOpened,
    /// An allocation's lifetime ends.
    AllocationExpires,
    /// A channel stops carrying data.
    ChannelExpires,
    /// A channel's number and peer become free again.
    ChannelCooledDown,
    /// A peer may no longer talk to an allocation.
    PermissionExpires,
    /// A port that was kept for a second allocation becomes free again.
    ReservationExpires,
}

/// Something that falls due. The order decides among those of one instant.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Due {
    Opening(AllocationPort),
    Allocation(AllocationPort),
    Channel(AllocationPort, ChannelNumber),
    CoolDown(AllocationPort, ChannelNumber),
    Permission(AllocationPort, IpAddr),
    Reservation(Token),
}

impl Due {
    fn reason(self) -> Reason {
        match self {
            Self::Opening(_) => Reason::PortNotOpened,
            Self::Allocation(_) => Reason::AllocationExpires,
            Self::Channel(..) => Reason::ChannelExpires,
            Self::CoolDown(..) => Reason::ChannelCooledDown,
            Self::Permission(..) => Reason::PermissionExpires,
            Self::Reservation(_) => Reason::ReservationExpires,
        }
    }
}

/// All that falls due, by time.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    queue: BTreeSet<(Instant, Due)>,
}

impl Deadlines {
    pub(crate) fn add(&mut self, at: Instant, due: Due) {
        self.queue.insert((at, due));
    }

    pub(crate) fn remove(&mut self, at: Instant, due: Due) {
        self.queue.remove(&(at, due));
    }

    pub(crate) fn next(&self) -> Option<(Instant, Reason)> {
        let (at, due) = self.queue.first()?;

        Some((*at, due.reason()))
    }

    pub(crate) fn pop(&mut self, now: Instant) -> Option<(Instant, Due)> {
        let (at, _) = self.queue.first()?;
        if *at > now {
            return None;
        }

        self.queue.pop_first()
    }
}
