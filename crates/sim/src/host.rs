//! A host that runs the shipped loop over the fakes of `os`.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
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
use crate::scenario::Place;

/// The port that nodes use where it is free.
const NODE_PORT: u16 = 52_625;

/// A role and its devices.
pub(crate) struct Node<C: Core> {
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

impl<C: Core> Node<C> {
    pub(crate) fn new(core: C, place: &Place, faults: &Faults, is_tun_here: bool) -> Self {
        let mut tun = FakeTun::new("tun0");
        let mut sockets = bind(place);
        // What is planned for the socket hits the one of the first family that is there.
        if let Some(socket) = sockets.iter_mut().flatten().next() {
            faults.plan(&mut socket.device, &mut tun);
        }

        Self {
            event_loop: EventLoop::new(core, 0),
            io: FakeIo {
                sockets,
                tun: Watched::new(LateTun {
                    tun,
                    is_here: is_tun_here,
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

    /// The sockets are new, as the shipped edge makes them, and the loop is told why, as it is there.
    pub(crate) fn rebind(&mut self, place: &Place, why: Command<C::FromPortal>) {
        self.io.sockets = bind(place);
        self.command(why);
    }

    pub(crate) fn receive(&mut self, train: FakeTrain) {
        if let Some(socket) = self.io.socket(train.to.is_ipv4()) {
            socket.device.inbox.push_back(train);
            socket.ready.readable = true;
            self.has_work = true;
        }
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
        for socket in self.io.sockets.iter_mut().flatten() {
            socket.ready = Ready::BOTH;
        }
        self.io.tun.ready = Ready::BOTH;
        self.has_work = true;
    }

    pub(crate) fn has_work(&self) -> bool {
        self.has_work
    }

    /// What stood in the sockets is gone: the host stood still for longer than they hold anything.
    pub(crate) fn lose_arrivals(&mut self) {
        for socket in self.io.sockets.iter_mut().flatten() {
            socket.device.inbox.clear();
        }
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
        let mut trains = Vec::new();
        for socket in self.io.sockets.iter_mut().flatten() {
            let local = socket.device.local_addr();
            trains.extend(socket.device.sent.drain(..).map(|train| (local, train)));
        }
        let outbox = self.io.tun.device.tun.outbox.drain(..);

        Turned {
            trains,
            outputs: std::mem::take(&mut self.io.outputs),
            packets: outbox.flat_map(packets_of).collect(),
            fatal,
            is_stalled: self.is_stalled(),
        }
    }

    /// Whether the world has to come back to it, because a fault hides what there is to do.
    fn is_stalled(&self) -> bool {
        let tun = &self.io.tun;
        let hides_packets = !tun.ready.readable && !tun.device.tun.inbox.is_empty();
        let is_hidden = self.io.sockets.iter().flatten().any(|udp| {
            let hides_datagrams = !udp.ready.readable && !udp.device.inbox.is_empty();
            hides_datagrams || !udp.ready.writable
        });

        is_hidden
            || (hides_packets && tun.device.is_here)
            || !tun.ready.writable
            || !self.io.has_room()
            || self.io.workers.is_busy()
    }
}

/// The sockets of a host: one of each family that it has an address of, bound to all addresses.
fn bind(place: &Place) -> [Option<Watched<FakeUdp>>; 2] {
    let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];

    any.map(|ip| {
        place.ip(ip.is_ipv4())?;
        Some(Watched::new(FakeUdp::new(SocketAddr::new(ip, NODE_PORT))))
    })
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
    /// IPv4, IPv6.
    sockets: [Option<Watched<FakeUdp>>; 2],
    tun: Watched<LateTun>,
    workers: AnyOrder<C::Job>,
    outputs_are_slow: bool,
    turns: u64,
    commands: VecDeque<Command<C::FromPortal>>,
    outputs: Vec<Output<C>>,
}

impl<C: Core> FakeIo<C> {
    fn socket(&mut self, is_ipv4: bool) -> Option<&mut Watched<FakeUdp>> {
        let [v4, v6] = &mut self.sockets;

        if is_ipv4 { v4.as_mut() } else { v6.as_mut() }
    }
}

impl<C: Core> Io<C> for FakeIo<C> {
    type Udp = FakeUdp;
    type Tun = LateTun;
    type Workers = AnyOrder<C::Job>;

    fn udp(&mut self, family: stun::Family) -> Option<&mut Watched<FakeUdp>> {
        self.socket(family == stun::Family::V4)
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
