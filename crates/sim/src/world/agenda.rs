//! What is going to happen.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use connlib_os::fake::FakeTrain;

use super::exchanges::Exchanged;
use crate::network::Origin;
use crate::portal::{ChannelId, Hello, Says};

/// Something that is going to happen.
#[derive(Debug)]
pub(super) enum Happening {
    Arrives(usize, FakeTrain, Origin),
    /// A host opens a channel.
    PortalOpens(ChannelId, Box<Hello>),
    PortalHears(ChannelId, String),
    PortalHearsPong(ChannelId),
    PortalLoses(ChannelId),
    PortalBegins,
    /// Something of the portal arrives at a host.
    HostHears(ChannelId, Says),
    /// A host's attempt to open a channel failed.
    HostRefused(ChannelId),
    /// A host tries to open a channel.
    HostConnects(ChannelId),
    Heartbeat(ChannelId),
    /// A program goes on.
    App(usize),
    /// The host behind a gateway answers.
    Echo(usize, Vec<u8>),
    /// A program has waited for an answer to a question.
    Unanswered(usize, usize),
    /// Connections of programs to name servers go on.
    Streams(usize),
    /// A question that was carried outside of a tunnel has its outcome.
    Exchanged(Box<Exchanged>),
    /// Connections to name servers behind a gateway go on.
    SiteStreams(usize),
    /// Such a server answers on one of them.
    SiteSays(usize, usize, Vec<u8>),
    Unstall(usize),
    TunComes(usize),
    TunVanishes(usize),
    Wakes(usize),
    /// A host that says goodbye has had time for it.
    IsGone(usize, u32),
    Event(usize),
    /// An expectation looks.
    Look(usize),
    Epilogue(u32),
}

/// Happenings by time; of those at one instant, what was posted first comes first.
#[derive(Default)]
pub(super) struct Agenda {
    /// When, in which order, and where it lies: a heap moves its entries about, so they are small.
    order: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    happenings: Vec<Option<Happening>>,
    free: Vec<usize>,
    posted: u64,
}

impl Agenda {
    pub(super) fn post(&mut self, at: Instant, happening: Happening) {
        let place = self.free.pop().unwrap_or(self.happenings.len());
        match self.happenings.get_mut(place) {
            Some(free) => *free = Some(happening),
            None => self.happenings.push(Some(happening)),
        }
        self.posted += 1;
        self.order.push(Reverse((at, self.posted, place)));
    }

    /// When the next thing happens.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.order.peek().map(|Reverse((at, ..))| *at)
    }

    /// Takes out the next thing that has happened by `now`.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Happening> {
        if self.next_at()? > now {
            return None;
        }
        let Reverse((.., place)) = self.order.pop()?;
        self.free.push(place);

        self.happenings.get_mut(place)?.take()
    }
}
