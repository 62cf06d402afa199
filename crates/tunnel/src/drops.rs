//! Packets that went nowhere, counted by why.

use std::collections::BTreeMap;

/// Why a packet went nowhere.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum DropReason {
    /// It is no packet.
    Malformed,
    /// It is a part of a packet whose other parts never came, or contradict it.
    Incomplete,
    /// It doesn't come from whom it says.
    ForeignSource,
    /// It is for many, or for whoever sent it.
    NotForOthers,
    /// No resource has its address.
    NoResource,
    /// Its address is private, and only the Internet was left for it.
    NotInternet,
    /// The filters of every resource with its address are against it.
    Filtered,
    /// Access was refused, or there is none.
    NoAccess,
    /// It is larger than the way to the peer carries.
    TooBig,
    /// There is no session with the peer, and no room to wait for one.
    NotConnected,
    /// It is for an address of no client.
    NoClient,
    /// Its flow has ended, or a name has no address for it.
    NoFlow,
    /// Every port is taken, or there are too many flows.
    NoPort,
    /// It is an error about a packet of no flow.
    StrayError,
}

/// How many were dropped for which reason.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drops {
    counts: BTreeMap<DropReason, u64>,
}

impl DropReason {
    /// One or a few words, joined by hyphens, as `status` shows it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Incomplete => "incomplete",
            Self::ForeignSource => "foreign-source",
            Self::NotForOthers => "not-for-others",
            Self::NoResource => "no-resource",
            Self::NotInternet => "not-internet",
            Self::Filtered => "filtered",
            Self::NoAccess => "no-access",
            Self::TooBig => "too-big",
            Self::NotConnected => "not-connected",
            Self::NoClient => "no-client",
            Self::NoFlow => "no-flow",
            Self::NoPort => "no-port",
            Self::StrayError => "stray-error",
        }
    }
}

impl Drops {
    pub(crate) fn add(&mut self, reason: DropReason, packets: u64) {
        if packets > 0 {
            *self.counts.entry(reason).or_default() += packets;
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// What `status` shows; what never happened is left out.
    pub(crate) fn by_reason(&self) -> BTreeMap<&'static str, u64> {
        let counts = self.counts.iter();

        counts
            .map(|(reason, count)| (reason.as_str(), *count))
            .collect()
    }
}
