//! What a relay's machine can do in a second.
//!
//! Sending is what it works on: each datagram takes its time, and a turn as long as all of its datagrams. The loop sees the time
//! pass while it takes its turn, as it does on a real machine; what arrives meanwhile waits for the next one.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use connlib_os::fake::FakeUdp;
use connlib_os::udp::{Backlog, Outgoing, RecvBatch, Udp};

/// The time that each datagram takes, and how many a turn has sent so far.
pub(super) struct Machine {
    each: Option<Duration>,
    sent: Rc<Cell<u32>>,
}

impl Machine {
    /// One that sends so many datagrams in a second, or any number in no time.
    pub(super) fn new(pace: Option<u32>) -> Self {
        Self {
            each: pace.map(|pace| Duration::from_secs(1) / pace.max(1)),
            sent: Rc::default(),
        }
    }

    pub(super) fn watches(&self, udp: FakeUdp) -> Socket {
        Socket {
            udp,
            sent: Rc::clone(&self.sent),
        }
    }

    /// How long the turn has taken.
    pub(super) fn elapsed(&self) -> Duration {
        self.each.unwrap_or_default() * self.sent.get()
    }

    /// How long it took in the end, if it took any time.
    pub(super) fn ends_turn(&self) -> Option<Duration> {
        let took = self.elapsed();
        self.sent.set(0);

        (!took.is_zero()).then_some(took)
    }
}

/// A socket whose sends take time.
pub(super) struct Socket {
    pub(super) udp: FakeUdp,
    sent: Rc<Cell<u32>>,
}

impl Udp for Socket {
    fn local_addr(&self) -> SocketAddr {
        self.udp.local_addr()
    }

    fn send(&mut self, trains: &[Outgoing<'_>]) -> io::Result<usize> {
        let taken = self.udp.send(trains)?;
        let count = u32::try_from(taken).unwrap_or(u32::MAX);
        self.sent.set(self.sent.get().saturating_add(count));

        Ok(taken)
    }

    fn recv(&mut self, batch: &mut RecvBatch) -> io::Result<usize> {
        self.udp.recv(batch)
    }

    fn backlog(&self) -> io::Result<Backlog> {
        self.udp.backlog()
    }
}
