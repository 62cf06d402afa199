//! What stands at both ends of a loop: a state machine, and the outside.

use std::collections::VecDeque;
use std::fmt;
use std::hash::Hash;
use std::ops::Range;
use std::time::{Duration, Instant};

use connlib_os::tun::Tun;
use connlib_os::udp::Udp;
use connlib_tunnel::PortalState;
pub use connlib_tunnel::Told;
use connlib_tunnel::dns::{Exchange, ExchangeError, ExchangeId, Resolvers};
use connlib_tunnel::why::{Explanation, Question};
use connlib_wire::buffer::Buffer;
use connlib_wire::offload::VirtioHeader;
use connlib_wire::stun::Family;
use connlib_wire::super_packet::SuperPacket;
use connlib_wire::train::{Received, Route, Transmit};

use super::errors::Errors;
use super::stats::Stats;

/// A state machine that a loop can drive. The doors are those of [`connlib_tunnel`]'s roles.
#[expect(
    missing_docs,
    reason = "connlib_tunnel documents the doors; the names are theirs"
)]
pub trait Core {
    /// What the portal says.
    type FromPortal;
    /// What the portal is told.
    type ToPortal;
    /// What the operating system or a person should know.
    type Event;
    /// A description of the state.
    type Status;
    /// Whom a packet of the TUN device is for. Lanes get equal shares.
    type Lane: Copy + Eq + Hash + fmt::Debug;
    /// Encryption as a value.
    type Job: Job;
    /// Packets on their way to the TUN device.
    type Packets: PacketBatch;

    fn handle_message(&mut self, now: Instant, message: Self::FromPortal);
    fn handle_portal_state(&mut self, now: Instant, state: PortalState);
    fn admit(
        &mut self,
        now: Instant,
        header: VirtioHeader,
        bytes: Buffer,
    ) -> Option<SuperPacket<Buffer>>;
    fn route(&mut self, now: Instant, packet: &mut SuperPacket<Buffer>) -> Option<Self::Lane>;
    fn revision(&self) -> u64;
    fn family(&self, lane: Self::Lane) -> Option<Family>;
    fn begin_send(
        &mut self,
        now: Instant,
        lane: Self::Lane,
        packet: SuperPacket<Buffer>,
        skip: usize,
    );
    fn begin_receive(&mut self, now: Instant, received: Received);
    fn poll_job(&mut self) -> Option<Self::Job>;
    fn commit(&mut self, job: Self::Job);
    fn poll_opened(&mut self, now: Instant, packets: &mut Self::Packets) -> bool;
    fn handle_too_large(&mut self, now: Instant, route: &Route, datagram: usize);
    fn handle_timeout(&mut self, now: Instant);
    fn trim(&mut self);
    fn reset(&mut self, now: Instant);

    /// The system's name servers are known, or have changed. A core that asks none has no use for them.
    fn set_resolvers(&mut self, now: Instant, resolvers: &Resolvers) {
        let _ = (now, resolvers);
    }

    /// What would become of a packet, and why. A core that decides nothing has nothing to say.
    fn explain(&mut self, now: Instant, question: &Question) -> Vec<Explanation> {
        let _ = (now, question);
        Vec::new()
    }

    /// Whether what belongs to no other resource is to go to the Internet resource. Only a client has a choice.
    fn want_internet(&mut self, now: Instant, is_wanted: bool) {
        let _ = (now, is_wanted);
    }

    /// A question to be carried to a name server.
    fn poll_exchange(&mut self) -> Option<Exchange> {
        None
    }

    /// What became of one.
    fn handle_exchanged(
        &mut self,
        now: Instant,
        id: ExchangeId,
        outcome: Result<Vec<u8>, ExchangeError>,
    ) {
        let _ = (now, id, outcome);
    }

    /// The sockets were bound anew, because the network changed.
    fn network_changed(&mut self, now: Instant);
    fn shut_down(&mut self, now: Instant);
    fn poll_control(&mut self) -> Option<Transmit>;
    fn poll_transmit(&mut self) -> Option<Transmit>;
    fn poll_packet(&mut self) -> Option<Buffer>;
    fn poll_message(&mut self) -> Option<Self::ToPortal>;
    fn poll_event(&mut self) -> Option<Self::Event>;
    fn poll_timeout(&mut self) -> Option<Instant>;
    fn status(&self, now: Instant) -> Self::Status;
}

/// Packets that a [`Core`] has taken out of one train.
pub trait PacketBatch: Default {
    /// The memory that they lie in.
    fn memory(&self) -> &[u8];

    /// Where each lies, in order of arrival.
    fn ranges(&self) -> impl Iterator<Item = Range<usize>>;

    /// The number that their train had when it was received.
    fn number(&self) -> u64;

    /// Lets the first packet tell its sender to slow down.
    fn tell(&mut self) -> Told;

    /// Forgets them.
    fn clear(&mut self);
}

/// Work that needs nothing but itself, so that it can be done anywhere.
pub trait Job {
    /// Does it.
    fn run(&mut self);

    /// What kind of work it is: each has places of its own, so that neither keeps the other from being done.
    fn kind(&self) -> JobKind;
}

/// Which way the packets of a [`Job`] go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum JobKind {
    /// Into the tunnel.
    Seal,
    /// Out of it.
    Open,
}

/// Whoever runs jobs: the loop's own thread, or others.
pub trait Workers<J> {
    /// Takes a job.
    fn submit(&mut self, job: J);

    /// Gives back a job that is done; any order will do. Whoever waits for the loop's devices must be woken when there is
    /// one.
    fn finished(&mut self) -> Option<J>;

    /// Whether jobs are under way.
    fn is_busy(&self) -> bool;
}

/// Runs each job at once.
#[derive(Debug)]
pub struct Inline<J> {
    finished: Option<J>,
    queue: VecDeque<J>,
}

impl<J> Default for Inline<J> {
    fn default() -> Self {
        Self {
            finished: None,
            queue: VecDeque::new(),
        }
    }
}

impl<J: Job> Workers<J> for Inline<J> {
    fn submit(&mut self, mut job: J) {
        job.run();
        if let Some(former) = self.finished.replace(job) {
            self.queue.push_back(former);
        }
    }

    fn finished(&mut self) -> Option<J> {
        self.queue.pop_front().or_else(|| self.finished.take())
    }

    fn is_busy(&self) -> bool {
        self.finished.is_some()
    }
}

/// What the outside gives a loop: sockets, a device, commands, a clock for its budget.
pub trait Io<C: Core> {
    /// Its sockets.
    type Udp: Udp;
    /// Its TUN device.
    type Tun: Tun;
    /// Who runs its jobs.
    type Workers: Workers<C::Job>;

    /// The socket of one IP version, if the machine has it.
    fn udp(&mut self, family: Family) -> Option<&mut Watched<Self::Udp>>;

    /// The TUN device.
    fn tun(&mut self) -> &mut Watched<Self::Tun>;

    /// Who runs the core's jobs.
    fn workers(&mut self) -> &mut Self::Workers;

    /// Whether [`next_command`](Self::next_command) has one.
    fn has_commands(&self) -> bool;

    /// Takes the next command.
    fn next_command(&mut self) -> Option<Command<C::FromPortal>>;

    /// Whether there is room for an [`Output`]. While there is none the loop keeps them; a turn must follow when there is
    /// some again.
    fn has_room(&self) -> bool;

    /// Takes an output. Called only while there is room.
    fn deliver(&mut self, output: Output<C>);

    /// How long the turn has taken. The loop's budget of time is measured with it; a simulation may say zero always.
    fn elapsed(&self) -> Duration;
}

/// Something to do, from outside.
#[derive(Debug)]
pub enum Command<Message> {
    /// The portal said something.
    Portal(Message),
    /// The portal's channel was joined or lost.
    PortalState(PortalState),
    /// The network changed, and the sockets are new: go on.
    NetworkChanged,
    /// The sockets are new: start over.
    Reset,
    /// Say goodbye to everybody.
    ShutDown,
    /// Describe the state.
    Status,
    /// These are the system's name servers now.
    Resolvers(Resolvers),
    /// Tell what would become of a packet.
    Explain(Question),
    /// The Internet resource is to be used, or no longer.
    Internet(bool),
    /// A name server answered, or didn't.
    Exchanged(ExchangeId, Result<Vec<u8>, ExchangeError>),
}

/// Something for the outside.
pub enum Output<C: Core> {
    /// For the portal.
    Message(C::ToPortal),
    /// For the operating system or a person.
    Event(C::Event),
    /// The answer to [`Command::Status`]; answers come in the order of the commands.
    Status(C::Status, Box<Stats>),
    /// The answer to [`Command::Explain`], in one order with those to [`Command::Status`].
    Explained(Vec<Explanation>),
    /// For a name server. The outcome comes back as [`Command::Exchanged`].
    Exchange(Exchange),
}

impl<C: Core> fmt::Debug for Output<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Message(_) => "Message",
            Self::Event(_) => "Event",
            Self::Status(..) => "Status",
            Self::Explained(_) => "Explained",
            Self::Exchange(_) => "Exchange",
        })
    }
}

/// A device and what is known about its readiness.
///
/// Flags are set by whoever waits for the device, when it tells; the loop clears them when the device would block. A new
/// device may be ready for anything.
#[derive(Debug)]
pub struct Watched<T> {
    /// The device.
    pub device: T,
    /// What it is ready for.
    pub ready: Ready,
}

impl<T> Watched<T> {
    /// A device that nothing is known about yet.
    pub fn new(device: T) -> Self {
        Self {
            device,
            ready: Ready::BOTH,
        }
    }
}

/// Two directions of a device.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Ready {
    /// From the device.
    pub readable: bool,
    /// To the device.
    pub writable: bool,
}

impl Ready {
    /// Both directions.
    pub const BOTH: Self = Self {
        readable: true,
        writable: true,
    };
}

/// What ends a wait early, besides commands and room for outputs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Interest {
    /// The IPv4 socket.
    pub udp_v4: Ready,
    /// The IPv6 socket.
    pub udp_v6: Ready,
    /// The TUN device.
    pub tun: Ready,
}

impl Interest {
    pub(super) fn udp(&mut self, family: Family) -> &mut Ready {
        match family {
            Family::V4 => &mut self.udp_v4,
            Family::V6 => &mut self.udp_v6,
        }
    }
}

/// What to do between two turns.
#[derive(Debug)]
#[must_use = "it says when to come back, and what went wrong"]
pub struct Wait {
    /// The latest time of the next turn; a time that has come means at once, `None` that only `interest` counts.
    pub until: Option<Instant>,
    /// How long to leave the devices alone first, because packets come so fast that it pays to let them gather. Only for
    /// whoever is woken by each of them: a simulation has no use for it.
    pub pause: Option<Duration>,
    /// A load has ended, and what it needed was freed: a good time to give memory back to the system. For whoever shares a
    /// machine with others.
    pub load_is_over: bool,
    /// What makes the next turn worthwhile before that.
    pub interest: Interest,
    /// What went wrong in this turn.
    pub errors: Errors,
}
