//! A host that runs the shipped loop over the fakes of `os`.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib::event_loop::{
    Command, Core, Error, EventLoop, Io, Output, Ready, Wait, Watched, Workers as _,
};
use connlib_os::fake::{FakeTrain, FakeTun, FakeUdp, SentTrain};
use connlib_os::tun::{Joins, Tun};
use connlib_os::udp::Udp as _;
use connlib_wire::offload::VirtioHeader;
use connlib_wire::stun;
use connlib_wire::super_packet::SuperPacket;

use crate::faults::{AnyOrder, Faults};
use crate::scenario::Family;

/// A role and its devices.
pub(crate) struct Host<C: Core> {
    event_loop: EventLoop<C>,
    io: FakeIo<C>,
    /// The latest time of its next turn.
    pub(crate) due_at: Option<Instant>,
    /// Whether something came that a turn can serve.
    has_work: bool,
}

/// What happened in a turn.
pub(crate) struct Turned<C: Core> {
    pub(crate) outputs: Vec<Output<C>>,
    /// The address they leave from where the train doesn't say, and the trains.
    pub(crate) trains: Vec<(SocketAddr, SentTrain)>,
    /// Packets that the TUN device hands to the host.
    pub(crate) packets: Vec<Vec<u8>>,
    /// What went wrong and can't be mended.
    pub(crate) fatal: Option<String>,
    /// Whether a device took nothing and must be told when it does again.
    pub(crate) is_stalled: bool,
}

impl<C: Core> Host<C> {
    pub(crate) fn new(core: C, addr: SocketAddr, faults: &Faults) -> Self {
        let (mut udp, mut tun) = (FakeUdp::new(addr), FakeTun::new("tun0"));
        faults.plan(&mut udp, &mut tun);

        Self {
            event_loop: EventLoop::new(core, 0),
            io: FakeIo {
                family: if addr.is_ipv4() {
                    Family::V4
                } else {
                    Family::V6
                },
                udp: Watched::new(udp),
                tun: Watched::new(LateTun {
                    tun,
                    is_here: faults.tun_comes_at.is_zero(),
                }),
                workers: AnyOrder::new(faults.workers),
                outputs_are_slow: faults.outputs_are_slow,
                turns: 0,
                commands: VecDeque::new(),
                outputs: Vec::new(),
            },
            due_at: None,
            has_work: true,
        }
    }

    pub(crate) fn core(&self) -> &C {
        self.event_loop.core()
    }

    pub(crate) fn command(&mut self, command: Command<C::FromPortal>) {
        self.io.commands.push_back(command);
        self.has_work = true;
    }

    pub(crate) fn receive(&mut self, train: FakeTrain) {
        self.io.udp.device.inbox.push_back(train);
        self.io.udp.ready.readable = true;
        self.has_work = true;
    }

    pub(crate) fn send_packet(&mut self, packet: Vec<u8>) {
        self.io.tun.device.tun.push_packet(packet);
        self.io.tun.ready.readable = true;
        self.has_work = true;
    }

    /// The TUN device is there.
    pub(crate) fn tun_comes(&mut self) {
        self.io.tun.device.is_here = true;
        self.unstall();
    }

    /// Somebody removes the TUN device.
    pub(crate) fn tun_vanishes(&mut self) {
        self.io.tun.device.tun.vanish();
        self.unstall();
    }

    /// The devices may take and give something again.
    pub(crate) fn unstall(&mut self) {
        self.io.udp.ready = Ready::BOTH;
        self.io.tun.ready = Ready::BOTH;
        self.has_work = true;
    }

    pub(crate) fn wants_turn(&self, now: Instant) -> bool {
        self.has_work || self.due_at.is_some_and(|at| at <= now)
    }

    pub(crate) fn turn(&mut self, now: Instant) -> Turned<C> {
        let Wait {
            until, mut errors, ..
        } = self.event_loop.turn(now, &mut self.io);
        self.due_at = until;
        self.has_work = false;
        self.io.turns += 1;
        let mut fatal = None;
        for error in errors.drain() {
            if let Error::Fatal(error) = error {
                fatal.get_or_insert_with(|| format!("{error}"));
            }
        }
        let local = self.io.udp.device.local_addr();
        let trains = self.io.udp.device.sent.drain(..);

        Turned {
            trains: trains.map(|train| (local, train)).collect(),
            outputs: std::mem::take(&mut self.io.outputs),
            packets: self
                .io
                .tun
                .device
                .tun
                .outbox
                .drain(..)
                .flat_map(packets_of)
                .collect(),
            fatal,
            is_stalled: self.is_stalled(),
        }
    }
}

impl<C: Core> Host<C> {
    /// Whether the world has to come back to it, because a fault hides what there is to do.
    fn is_stalled(&self) -> bool {
        let (udp, tun) = (&self.io.udp, &self.io.tun);
        let hides_datagrams = !udp.ready.readable && !udp.device.inbox.is_empty();
        let hides_packets = !tun.ready.readable && !tun.device.tun.inbox.is_empty();
        let is_full = !udp.ready.writable || !tun.ready.writable;

        hides_datagrams
            || (hides_packets && tun.device.is_here)
            || is_full
            || !self.io.has_room()
            || self.io.workers.is_busy()
    }
}

/// A TUN device that may have yet to come.
#[derive(Debug)]
struct LateTun {
    tun: FakeTun,
    is_here: bool,
}

impl Tun for LateTun {
    fn name(&self) -> &str {
        self.tun.name()
    }

    fn joins(&self) -> Joins {
        self.tun.joins()
    }

    fn read(&mut self, buf: &mut [u8]) -> io::Result<(VirtioHeader, usize)> {
        if !self.is_here {
            return Err(io::ErrorKind::WouldBlock.into());
        }

        self.tun.read(buf)
    }

    fn write(&mut self, header: VirtioHeader, parts: &[IoSlice<'_>]) -> io::Result<()> {
        if !self.is_here {
            // Nobody can have asked for it.
            return Ok(());
        }

        self.tun.write(header, parts)
    }
}

struct FakeIo<C: Core> {
    family: Family,
    udp: Watched<FakeUdp>,
    tun: Watched<LateTun>,
    workers: AnyOrder<C::Job>,
    outputs_are_slow: bool,
    turns: u64,
    commands: VecDeque<Command<C::FromPortal>>,
    outputs: Vec<Output<C>>,
}

impl<C: Core> Io<C> for FakeIo<C> {
    type Udp = FakeUdp;
    type Tun = LateTun;
    type Workers = AnyOrder<C::Job>;

    fn udp(&mut self, family: stun::Family) -> Option<&mut Watched<FakeUdp>> {
        let ours = match self.family {
            Family::V4 => stun::Family::V4,
            Family::V6 => stun::Family::V6,
        };

        (family == ours).then_some(&mut self.udp)
    }

    fn tun(&mut self) -> &mut Watched<LateTun> {
        &mut self.tun
    }

    fn workers(&mut self) -> &mut AnyOrder<C::Job> {
        &mut self.workers
    }

    fn has_commands(&self) -> bool {
        !self.commands.is_empty()
    }

    fn next_command(&mut self) -> Option<Command<C::FromPortal>> {
        self.commands.pop_front()
    }

    fn has_room(&self) -> bool {
        !self.outputs_are_slow || self.turns.is_multiple_of(2)
    }

    fn deliver(&mut self, output: Output<C>) {
        self.outputs.push(output);
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

/// What a host makes of a run that it gets from a TUN device.
fn packets_of((header, bytes): (VirtioHeader, Vec<u8>)) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    match SuperPacket::parse(header, bytes.clone()) {
        Ok(mut run) => {
            let mut segments = run.split();
            while let Some(segment) = segments.next_segment() {
                packets.push(segment.to_vec());
            }
        }
        // Let the oracles see it.
        Err(_) => packets.push(bytes),
    }

    packets
}
