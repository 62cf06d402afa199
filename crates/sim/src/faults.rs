//! What goes wrong in the devices of a host, drawn from a seed.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::time::Duration;

use connlib::event_loop::{Job, Workers};
use connlib_os::fake::{FakeTun, FakeUdp};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// What goes wrong in the devices of a host.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Faults {
    /// The sends that find the socket full.
    pub sends_blocked: Range<u64>,
    /// The receives that find nothing though something is there.
    pub receives_blocked: Range<u64>,
    /// The writes that find the TUN device full.
    pub writes_blocked: Range<u64>,
    /// The reads that find nothing though something is there.
    pub reads_blocked: Range<u64>,
    /// The most datagrams that one send takes.
    pub accepts: Option<usize>,
    /// Sends that fail, by number and errno; the datagram that they concern is lost.
    pub send_errors: Vec<(u64, i32)>,
    /// Sends for which the kernel has no memory; nothing is lost.
    pub sends_without_memory: Range<u64>,
    /// Receives that fail, by number and errno; nothing is lost.
    pub receive_errors: Vec<(u64, i32)>,
    /// The TUN device refuses joined packets.
    pub refuses_runs: bool,
    /// When there is a TUN device at last.
    pub tun_comes_at: Duration,
    /// When somebody removes the TUN device. Never drawn: it is the end.
    pub tun_vanishes_at: Option<Duration>,
    /// Whoever takes outputs takes them every other turn only.
    pub outputs_are_slow: bool,
    /// Jobs are done late and in another order, which this seed chooses.
    pub workers: Option<u64>,
    /// How many datagrams a relay's machine can send in a second. It stands in nobody's way by default.
    pub pace: Option<u32>,
    /// How many datagrams its network takes in a second: what its sockets have no room for, they refuse. It takes any number by
    /// default.
    pub wire: Option<u32>,
}

/// Out of memory, for now.
const ENOBUFS: i32 = 105;

impl Faults {
    /// Whether a datagram is lost to them.
    pub(crate) fn lose(&self) -> bool {
        !self.send_errors.is_empty()
    }

    /// Plans them for a host's socket and TUN device.
    pub(crate) fn plan(&self, udp: &mut FakeUdp, tun: &mut FakeTun) {
        let blocked = || io::Error::from(io::ErrorKind::WouldBlock);
        for nth in self.sends_without_memory.clone() {
            udp.fail_send(nth, io::Error::from_raw_os_error(ENOBUFS));
        }
        for nth in self.sends_blocked.clone() {
            udp.fail_send(nth, blocked());
        }
        for nth in self.receives_blocked.clone() {
            udp.fail_recv(nth, blocked());
        }
        for nth in self.writes_blocked.clone() {
            tun.fail_write(nth, blocked());
        }
        for nth in self.reads_blocked.clone() {
            tun.fail_read(nth, blocked());
        }
        for (nth, errno) in &self.send_errors {
            udp.fail_send(*nth, io::Error::from_raw_os_error(*errno));
        }
        for (nth, errno) in &self.receive_errors {
            udp.fail_recv(*nth, io::Error::from_raw_os_error(*errno));
        }
        if let Some(datagrams) = self.accepts {
            udp.limit_accept(datagrams);
        }
        if self.refuses_runs {
            tun.refuse_runs();
        }
    }
}

/// Runs jobs at once, or late and in any order.
#[derive(Debug)]
pub(crate) struct AnyOrder<J> {
    rng: Option<StdRng>,
    done: VecDeque<J>,
}

impl<J> AnyOrder<J> {
    pub(crate) fn new(seed: Option<u64>) -> Self {
        Self {
            rng: seed.map(StdRng::seed_from_u64),
            done: VecDeque::new(),
        }
    }
}

impl<J: Job> Workers<J> for AnyOrder<J> {
    fn submit(&mut self, mut job: J) {
        job.run();
        self.done.push_back(job);
    }

    fn finished(&mut self) -> Option<J> {
        let Some(rng) = &mut self.rng else {
            return self.done.pop_front();
        };
        if self.done.is_empty() || rng.random_bool(0.5) {
            return None;
        }

        self.done.remove(rng.random_range(0..self.done.len()))
    }

    fn is_busy(&self) -> bool {
        !self.done.is_empty()
    }
}
