//! What a client and a gateway decide: who may reach what, through whom, and until when.
//!
//! Floor 2 of connlib. [`client::Client`] and [`gateway::Gateway`] have the same doors; knowing one is knowing both:
//!
//! ```text
//!   handle_message  portal ──►┌──────────────┐──► poll_message   portal
//!   handle_packet   TUN    ──►│    Client    │──► poll_packet    TUN (made here)
//!   handle_arrival  UDP    ──►│  or Gateway  │──► its argument   TUN (opened)
//!   handle_timeout  time   ──►│              │──► poll_transmit  UDP
//!                             └──────────────┘──► poll_event     operating system, user
//! ```
//!
//! # Callers' duties
//!
//! * After any `handle_`, drain every `poll_`, then come back by `poll_timeout`. `now` must never go backwards.
//! * Tell [`handle_portal_state`](client::Client::handle_portal_state) when the portal's channel is joined and when it is
//!   lost: there are no acknowledgements, so what must not be lost is held back.

#![deny(clippy::indexing_slicing, clippy::panic)]

mod candidates;
pub mod client;
pub mod dns;
mod drops;
mod filter;
pub mod gateway;
mod networks;
mod ranges;
mod reassembly;
mod status;
pub mod why;

pub use connlib_link::{Job, Opened, Packets, PeerId, Told};
pub use drops::DropReason;
pub use ranges::TUNNEL;
pub use status::{NameServerStatus, PeerStatus, RelayStatus, ResourceStatus, Status};

use std::time::{Duration, Instant};

/// What a role is told once.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The Unix time at the `now` of its creation.
    pub unix: Duration,
}

/// Whether the portal hears us.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum PortalState {
    /// The channel is joined.
    Joined,
    /// It is not, or not yet.
    #[default]
    Away,
}

/// What a role waits for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Reason {
    /// Outputs wait to be taken.
    Output,
    /// A request is to be repeated or given up.
    Request,
    /// A grant ends.
    Expiry,
    /// A question for a name server is to be asked again or given up, or a connection to one ends.
    Names,
    /// A flow to a name ends.
    Flow,
    /// The links below.
    Link(connlib_link::Reason),
}

/// Turns the portal's Unix seconds into instants of the monotonic clock.
#[derive(Clone, Copy, Debug)]
struct Calendar {
    start: Instant,
    unix: Duration,
}

impl Calendar {
    /// The instant of a Unix time; one before the start is the start, one too far away to count is in a year.
    fn instant(&self, unix_secs: u64) -> Instant {
        let ahead = Duration::from_secs(unix_secs).saturating_sub(self.unix);

        self.start + ahead.min(Duration::from_secs(365 * 24 * 3_600))
    }
}
