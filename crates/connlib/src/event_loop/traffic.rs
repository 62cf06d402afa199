//! Packets and datagrams on their way through the loop.

use std::time::Instant;

use connlib_os::tun::Tun;
use connlib_wire::ip::flow_hash;
use connlib_wire::stun::Family;

use super::arrivals::Sender;
use super::budget::Budget;
use super::egress::{Egress, Report};
use super::errors::Errors;
use super::fair::Served;
use super::overtaking::{Origin, Overtaking};
use super::stats::{DropReason, Stats};
use super::tun::{Read, TunQueue};
use super::{Core, EventLoop, Io, Job, JobKind, PacketBatch, PerFamily, Told, Watched, Workers};

/// How many packets are read from the TUN device between two looks at the clock.
const TUN_BATCH: usize = 16;

/// How many bytes are sealed between two looks at the clock: about a super-packet. They leave at once, so that the kernel
/// and the other end have something to do while the next ones are sealed.
const SEND_BATCH: usize = 60 * 1024;

/// The most jobs of one kind under way: more of them would be a queue that nobody bounds in time.
pub(super) const MAX_JOBS: usize = 32;

/// So many packets in one train are of a flow that fills queues.
const BULK: usize = 4;

/// How many packets are sealed between two looks at the clock, however small.
const SEND_BATCH_PACKETS: usize = 64;

impl<C: Core> EventLoop<C> {
    pub(super) fn take_datagrams(
        &mut self,
        now: Instant,
        io: &mut impl Io<C>,
        family: Family,
        mut budget: Budget,
        errors: &mut Errors,
    ) {
        if let Some(socket) = io.udp(family) {
            let ingress = self.ingress.of_mut(family);
            let sender_of = |_| Sender::Known;
            ingress.receive(now, socket, sender_of, &mut self.stats, errors);
        }
        while self.jobs.opening < MAX_JOBS {
            let ingress = self.ingress.of_mut(family);
            let Some(next) = ingress.take(now, &mut self.stats) else {
                return;
            };
            let mut received = next.received;
            let arrival = received.arrival();
            let datagrams = arrival.datagrams().count();
            self.stats.datagrams_received += datagrams as u64;
            budget.spend(datagrams, arrival.bytes.len());
            self.housekeeping.traffic(now);
            let origin = next.overtakes.map(|place| (family, place));
            received.number = self.overtaking.begin(origin);
            self.core.begin_receive(now, received);
            self.tells += u32::from(next.tells);
            self.work(now, io, errors);
            if budget.is_spent(io.elapsed()) {
                return;
            }
        }
    }

    /// Whether packets of a lane can be sealed now: its socket takes some, and jobs are done as fast as they are made.
    pub(super) fn may_send(&self, now: Instant, lane: C::Lane) -> bool {
        may_send(&self.core, &self.egress, self.jobs.sealing, now, lane)
    }

    /// Reads what the device has, so that what waits, waits here; then seals as much as there is a budget for.
    pub(super) fn take_packets(
        &mut self,
        now: Instant,
        io: &mut impl Io<C>,
        budget: Budget,
        errors: &mut Errors,
    ) {
        let single = self.read_packets(now, io, errors);
        if let Some(single) = single {
            // When nothing waits, there is nothing to share.
            self.housekeeping.traffic(now);
            self.send(now, single);
            return;
        }
        self.send_packets(now, io, budget, errors);
    }

    /// Reads packets and adds them to those that wait. A single one, where none waited and none has to, is handed back
    /// instead.
    fn read_packets(
        &mut self,
        now: Instant,
        io: &mut impl Io<C>,
        errors: &mut Errors,
    ) -> Option<Served<C::Lane>> {
        let mut budget = Budget::for_reading();
        let mut single = None;
        'reading: loop {
            for _ in 0..TUN_BATCH {
                let mut report = Report {
                    stats: &mut self.stats,
                    said: &mut self.said,
                    errors,
                };
                let (header, bytes) = match self.tun.read(now, io.tun(), &mut report) {
                    Read::Packet(header, bytes) => (header, bytes),
                    Read::Failed => {
                        budget.spend(1, 0);
                        continue;
                    }
                    Read::Nothing => break 'reading,
                };
                budget.spend(1, bytes.len());
                let Some(mut packet) = self.core.admit(now, header, bytes) else {
                    continue;
                };
                let Some(lane) = self.core.route(now, &mut packet) else {
                    continue;
                };
                let served = Served {
                    lane,
                    packet,
                    skip: 0,
                    revision: self.core.revision(),
                };
                if self.fair.is_empty() && single.is_none() && self.may_send(now, lane) {
                    single = Some(served);
                } else {
                    for served in single.take().into_iter().chain([served]) {
                        self.wait_its_turn(now, served);
                    }
                }
            }
            if budget.is_spent(io.elapsed()) {
                break;
            }
        }

        single
    }

    fn wait_its_turn(&mut self, now: Instant, served: Served<C::Lane>) {
        let hash = flow_hash(&served.packet.packet(), self.flow_seed);
        self.fair.push(
            now,
            served.lane,
            hash,
            served.packet,
            served.revision,
            &mut self.stats,
        );
    }

    /// Seals packets that wait, in fair shares, and sends them.
    fn send_packets(
        &mut self,
        now: Instant,
        io: &mut impl Io<C>,
        mut budget: Budget,
        errors: &mut Errors,
    ) {
        loop {
            let (mut packets, mut bytes) = (0, 0);
            while packets < SEND_BATCH_PACKETS && bytes < SEND_BATCH {
                let (core, egress, jobs) = (&self.core, &self.egress, self.jobs.sealing);
                let may_go = |lane| may_send(core, egress, jobs, now, lane);
                let Some(served) = self.fair.pop(now, may_go, &mut self.stats) else {
                    break;
                };
                packets += 1;
                bytes += served.packet.bytes().len();
                self.send(now, served);
            }
            if packets == 0 {
                return;
            }
            self.housekeeping.traffic(now);
            self.work(now, io, errors);
            self.flush(now, io, errors);
            budget.spend(packets, bytes);
            if budget.is_spent(io.elapsed()) {
                return;
            }
        }
    }

    fn send(&mut self, now: Instant, served: Served<C::Lane>) {
        let Served {
            lane,
            mut packet,
            skip,
            revision,
        } = served;
        // What was allowed when it was read may not be any more.
        let lane = match self.core.revision() == revision {
            true => Some(lane),
            false => self.core.route(now, &mut packet),
        };
        if let Some(lane) = lane {
            self.core.begin_send(now, lane, packet, skip);
        }
    }

    /// Lets jobs be run, takes back those that are done, and hands what they opened to the TUN device.
    pub(super) fn work(&mut self, now: Instant, io: &mut impl Io<C>, errors: &mut Errors) {
        while let Some(job) = self.core.poll_job() {
            *self.jobs.of(job.kind()) += 1;
            io.workers().submit(job);
        }
        while let Some(job) = io.workers().finished() {
            let under_way = self.jobs.of(job.kind());
            *under_way = under_way.saturating_sub(1);
            self.core.commit(job);
        }
        while self.core.poll_opened(now, &mut self.packets) {
            let mut report = Report {
                stats: &mut self.stats,
                said: &mut self.said,
                errors,
            };
            if let Some(origin) = self.overtaking.opened(self.packets.number()) {
                let_overtake(
                    now,
                    &mut self.overtaking,
                    &mut self.tun,
                    origin,
                    &self.packets,
                    io.tun(),
                    &mut report,
                );
                self.packets.clear();
                continue;
            }
            tell_one(&mut self.tells, &mut self.packets, report.stats);
            let (memory, ranges) = (self.packets.memory(), self.packets.ranges());
            for range in self.packets.ranges() {
                let packet = memory.get(range).unwrap_or_default();
                self.overtaking.note(now, packet);
            }
            self.tun.write_all(io.tun(), memory, ranges, &mut report);
            self.packets.clear();
        }
        self.release(now, io, errors);
    }

    /// Writes packets that had to wait for those before them.
    fn release(&mut self, now: Instant, io: &mut impl Io<C>, errors: &mut Errors) {
        if !self.overtaking.holds_any() || self.jobs.opening > 0 {
            return;
        }
        let ingress = &self.ingress;
        let mut report = Report {
            stats: &mut self.stats,
            said: &mut self.said,
            errors,
        };
        let is_past = |(family, place)| ingress.of(family).is_past(place);
        while let Some(packet) = self.overtaking.release(is_past) {
            self.overtaking.note(now, &packet);
            self.tun.write(io.tun(), &packet, &mut report);
        }
    }
}

/// Writes those packets that may go before others, and keeps the rest.
fn let_overtake<T: Tun>(
    now: Instant,
    overtaking: &mut Overtaking,
    queue: &mut TunQueue,
    origin: Origin,
    packets: &impl PacketBatch,
    tun: &mut Watched<T>,
    report: &mut Report<'_>,
) {
    let memory = packets.memory();
    for range in packets.ranges() {
        let packet = memory.get(range.clone()).unwrap_or_default();
        if overtaking.may_leave(now, packet) || !overtaking.hold(origin, memory, range) {
            queue.write(tun, packet, report);
        }
    }
}

/// Lets one packet of a bulk flow tell its sender that its queue stands, if one is to.
fn tell_one(tells: &mut u32, packets: &mut impl PacketBatch, stats: &mut Stats) {
    if *tells == 0 || packets.ranges().count() < BULK {
        return;
    }
    *tells -= 1;
    match packets.tell() {
        Told::Marked => stats.marked += 1,
        Told::Dropped => stats.count_dropped(DropReason::SocketStands, 1),
    }
}

/// Jobs that were handed out and have not come back.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct UnderWay {
    pub(super) sealing: usize,
    pub(super) opening: usize,
}

impl UnderWay {
    fn of(&mut self, kind: JobKind) -> &mut usize {
        match kind {
            JobKind::Seal => &mut self.sealing,
            JobKind::Open => &mut self.opening,
        }
    }
}

/// See [`EventLoop::may_send`]. A lane without a way yet waits with the links, not here.
fn may_send<C: Core>(
    core: &C,
    egress: &PerFamily<Egress>,
    jobs: usize,
    now: Instant,
    lane: C::Lane,
) -> bool {
    let is_held_back = core
        .family(lane)
        .is_some_and(|family| egress.of(family).holds_back(now));

    jobs < MAX_JOBS && !is_held_back
}
