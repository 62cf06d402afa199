//! A host that runs the shipped loop over the fakes of `os`.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib::event_loop::{Command, Core, Error, EventLoop, Inline, Io, Output, Wait, Watched};
use connlib_os::fake::{FakeTrain, FakeTun, FakeUdp, SentTrain};
use connlib_os::udp::Udp as _;
use connlib_wire::offload::VirtioHeader;
use connlib_wire::stun;
use connlib_wire::super_packet::SuperPacket;

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
    pub(crate) fn new(core: C, addr: SocketAddr, stalls_after: Option<u64>) -> Self {
        let mut udp = FakeUdp::new(addr);
        if let Some(sends) = stalls_after {
            udp.fail_send(sends, std::io::ErrorKind::WouldBlock.into());
        }

        Self {
            event_loop: EventLoop::new(core, 0),
            io: FakeIo {
                family: if addr.is_ipv4() {
                    Family::V4
                } else {
                    Family::V6
                },
                udp: Watched::new(udp),
                tun: Watched::new(FakeTun::new("tun0")),
                workers: Inline::default(),
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
        self.io.tun.device.push_packet(packet);
        self.io.tun.ready.readable = true;
        self.has_work = true;
    }

    /// The devices take something again.
    pub(crate) fn unstall(&mut self) {
        self.io.udp.ready.writable = true;
        self.io.tun.ready.writable = true;
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
                .outbox
                .drain(..)
                .flat_map(packets_of)
                .collect(),
            fatal,
            is_stalled: !self.io.udp.ready.writable || !self.io.tun.ready.writable,
        }
    }
}

struct FakeIo<C: Core> {
    family: Family,
    udp: Watched<FakeUdp>,
    tun: Watched<FakeTun>,
    workers: Inline<C::Job>,
    commands: VecDeque<Command<C::FromPortal>>,
    outputs: Vec<Output<C>>,
}

impl<C: Core> Io<C> for FakeIo<C> {
    type Udp = FakeUdp;
    type Tun = FakeTun;
    type Workers = Inline<C::Job>;

    fn udp(&mut self, family: stun::Family) -> Option<&mut Watched<FakeUdp>> {
        let ours = match self.family {
            Family::V4 => stun::Family::V4,
            Family::V6 => stun::Family::V6,
        };

        (family == ours).then_some(&mut self.udp)
    }

    fn tun(&mut self) -> &mut Watched<FakeTun> {
        &mut self.tun
    }

    fn workers(&mut self) -> &mut Inline<C::Job> {
        &mut self.workers
    }

    fn has_commands(&self) -> bool {
        !self.commands.is_empty()
    }

    fn next_command(&mut self) -> Option<Command<C::FromPortal>> {
        self.commands.pop_front()
    }

    fn has_room(&self) -> bool {
        true
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
