//! The TUN device's end of the loop.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::time::Instant;

use connlib_os::tun::{self, Tun};
use connlib_wire::buffer::{Buffer, Pool};
use connlib_wire::offload::VirtioHeader;
use connlib_wire::runs::{Joins, Runs};
use connlib_wire::super_packet::SuperPacket;

use super::Watched;
use super::egress::Report;
use super::errors::{Degraded, Error, Fatal, PerPacket};
use super::ingress::Patience;
use super::stats::{DropReason, is_lost};

/// What is read, what waits to be written, and the memory for both.
pub(super) struct TunQueue {
    queue: VecDeque<Waiting>,
    bytes: usize,
    /// Memory for super-packets.
    large: Pool,
    /// Memory for ordinary packets, so that each of them doesn't pin as much as a super-packet.
    small: Pool,
    /// Where the next packet is read to.
    reading: Option<Buffer>,
    runs: Runs,
    /// A run was refused: from then on packets are written one by one.
    joins_refused: bool,
    patience: Patience,
}

/// A run that the device didn't take yet.
#[derive(Debug)]
struct Waiting {
    header: VirtioHeader,
    bytes: Buffer,
}

/// The most bytes that wait for the device: four milliseconds at 1 Gbit/s.
pub(super) const MAX_WAITING: usize = 512 * 1024;

/// Any IP packet, whatever MTU an administrator gives the device.
const MAX_IP_PACKET: usize = 65_535;

/// An ordinary packet.
const SMALL: usize = 2_048;

/// How many buffers of each kind are kept for the next packets.
const IDLE_LARGE: usize = 160;
const IDLE_SMALL: usize = 4_096;

impl TunQueue {
    pub(super) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            bytes: 0,
            large: Pool::new(MAX_IP_PACKET, IDLE_LARGE),
            small: Pool::new(SMALL, IDLE_SMALL),
            reading: None,
            runs: Runs::new(),
            joins_refused: false,
            patience: Patience::default(),
        }
    }

    /// Whether a turn at `now` would read anything.
    pub(super) fn is_ready(&self, now: Instant, is_readable: bool) -> bool {
        is_readable && self.patience.is_ready(now)
    }

    /// When to ask a device again that only fails.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.patience.paused_until
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Lets memory go that a load has left behind.
    pub(super) fn trim(&mut self) {
        self.large.trim();
        self.small.trim();
    }

    /// Reads the next packet.
    pub(super) fn read<T: Tun>(
        &mut self,
        now: Instant,
        tun: &mut Watched<T>,
        report: &mut Report<'_>,
    ) -> Read {
        if !self.is_ready(now, tun.ready.readable) {
            return Read::Nothing;
        }
        let mut buffer = self.reading.take().unwrap_or_else(|| self.large.take(0));
        let room = match buffer.extend(MAX_IP_PACKET) {
            Some(room) => room,
            None => &mut [],
        };
        let error = match tun.device.read(room) {
            Ok((header, len)) => {
                self.patience.succeeded();
                report.stats.packets_read += 1;
                buffer.truncate(len);
                return Read::Packet(header, self.fitting(buffer));
            }
            Err(error) => error,
        };
        buffer.truncate(0);
        self.reading = Some(buffer);
        if error.kind() == io::ErrorKind::WouldBlock {
            self.patience.succeeded();
            tun.ready.readable = false;
            return Read::Nothing;
        }

        report.stats.errors += 1;
        if is_lost(&error) {
            tun.ready.readable = false;
            report
                .errors
                .push(Error::Fatal(Fatal::TunGone { source: error }));
            return Read::Nothing;
        }
        tracing::debug!(%error, "Nothing was read from the TUN device this time");
        report
            .errors
            .push(Error::Degraded(Degraded::NotRead { source: error }));

        if self.patience.failed(now) {
            Read::Failed
        } else {
            Read::Nothing
        }
    }

    /// Hands the packets at `ranges` of `memory` to the device, those of a flow joined as far as the device takes that, behind
    /// those that wait.
    pub(super) fn write_all<T: Tun>(
        &mut self,
        tun: &mut Watched<T>,
        memory: &[u8],
        ranges: impl Iterator<Item = Range<usize>>,
        report: &mut Report<'_>,
    ) {
        let tun::Joins { tcp, udp } = match self.joins_refused {
            true => tun::Joins::default(),
            false => tun.device.joins(),
        };
        let mut runs = std::mem::take(&mut self.runs);
        runs.clear();
        for range in ranges {
            runs.push(memory, range, Joins { tcp, udp });
        }
        for number in 0..runs.len() {
            let written = runs.with_parts(number, memory, |header, parts| {
                self.write_parts(tun, header, parts, report)
            });
            if written == Some(Written::RunRefused) {
                for range in runs.packets(number) {
                    self.write(tun, memory.get(range).unwrap_or_default(), report);
                }
            }
        }
        self.runs = runs;
    }

    /// Hands one packet to the device, behind those that wait.
    pub(super) fn write<T: Tun>(
        &mut self,
        tun: &mut Watched<T>,
        packet: &[u8],
        report: &mut Report<'_>,
    ) {
        self.write_parts(
            tun,
            VirtioHeader::default(),
            &[IoSlice::new(packet)],
            report,
        );
    }

    /// Hands to the device what waits, as far as it takes it.
    pub(super) fn flush<T: Tun>(&mut self, tun: &mut Watched<T>, report: &mut Report<'_>) {
        while let Some(waiting) = self.queue.pop_front() {
            let parts = [IoSlice::new(&waiting.bytes)];
            match write_now(tun, waiting.header, &parts, report) {
                Written::Done => self.bytes -= waiting.bytes.len(),
                Written::Blocked => {
                    self.queue.push_front(waiting);
                    break;
                }
                Written::RunRefused => {
                    self.refuse_joins();
                    self.bytes -= waiting.bytes.len();
                    self.take_apart(waiting, report);
                }
            }
        }
    }

    fn refuse_joins(&mut self) {
        if !std::mem::replace(&mut self.joins_refused, true) {
            tracing::info!("The TUN device refuses joined packets; writing them one by one");
        }
    }

    /// Puts the packets of a run that was refused where the run was.
    fn take_apart(&mut self, run: Waiting, report: &mut Report<'_>) {
        let Ok(mut run) = SuperPacket::parse(run.header, run.bytes) else {
            return;
        };
        let before = self.queue.len();
        let mut packets = run.split();
        while let Some(packet) = packets.next_segment() {
            if let Some(bytes) = self.copy(&[IoSlice::new(packet)]) {
                self.bytes += bytes.len();
                let header = VirtioHeader::default();
                self.queue.push_back(Waiting { header, bytes });
            } else {
                report.stats.count_dropped(DropReason::TunFull, 1);
            }
        }
        self.queue.rotate_left(before);
    }

    fn write_parts<T: Tun>(
        &mut self,
        tun: &mut Watched<T>,
        header: VirtioHeader,
        parts: &[IoSlice<'_>],
        report: &mut Report<'_>,
    ) -> Written {
        let written = match self.queue.is_empty() {
            true => write_now(tun, header, parts, report),
            false => Written::Blocked,
        };
        match written {
            Written::Done => return Written::Done,
            Written::RunRefused => {
                self.refuse_joins();
                return Written::RunRefused;
            }
            Written::Blocked => {}
        }

        if let Some(bytes) = self.copy(parts) {
            self.bytes += bytes.len();
            self.queue.push_back(Waiting { header, bytes });
        } else {
            let packets = packets_of(header, parts);
            report.stats.count_dropped(DropReason::TunFull, packets);
        }

        Written::Done
    }

    /// Copies a run that has to wait, unless too much waits already.
    fn copy(&self, parts: &[IoSlice<'_>]) -> Option<Buffer> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if self.bytes + len > MAX_WAITING {
            return None;
        }
        let pool = if len <= SMALL {
            &self.small
        } else {
            &self.large
        };
        let mut copy = pool.take(0);
        for part in parts {
            copy.extend(part.len())?.copy_from_slice(part);
        }

        Some(copy)
    }

    /// Moves an ordinary packet to a buffer of its size.
    fn fitting(&mut self, mut packet: Buffer) -> Buffer {
        if packet.len() > SMALL {
            return packet;
        }
        let Some(copy) = self.small.copy(&packet) else {
            return packet;
        };
        packet.truncate(0);
        self.reading = Some(packet);

        copy
    }
}

impl fmt::Debug for TunQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunQueue")
            .field("packets", &self.queue.len())
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// What a read brought.
#[derive(Debug)]
pub(super) enum Read {
    /// A packet, and what the device says about it.
    Packet(VirtioHeader, Buffer),
    /// An error that may not come again.
    Failed,
    /// Nothing, for now.
    Nothing,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Written {
    /// The device took it, or refused it for good.
    Done,
    /// It takes nothing now.
    Blocked,
    /// It takes no runs; their packets it may.
    RunRefused,
}

fn write_now<T: Tun>(
    tun: &mut Watched<T>,
    header: VirtioHeader,
    parts: &[IoSlice<'_>],
    report: &mut Report<'_>,
) -> Written {
    while tun.ready.writable {
        let Err(error) = tun.device.write(header, parts) else {
            report.stats.packets_written += packets_of(header, parts) as u64;
            return Written::Done;
        };
        let is_run = header.gso_kind() != VirtioHeader::GSO_NONE;
        if error.kind() == io::ErrorKind::WouldBlock {
            tun.ready.writable = false;
        } else if is_run && error.kind() == io::ErrorKind::InvalidInput {
            return Written::RunRefused;
        } else if error.kind() != io::ErrorKind::Interrupted {
            refuse(tun, error, packets_of(header, parts), report);
            return Written::Done;
        }
    }

    Written::Blocked
}

fn refuse<T: Tun>(tun: &mut Watched<T>, error: io::Error, packets: usize, report: &mut Report<'_>) {
    let reason = DropReason::TunRefused;
    report.stats.errors += 1;
    report.stats.count_dropped(reason, packets);
    if is_lost(&error) {
        tun.ready.writable = false;
        report
            .errors
            .push(Error::Fatal(Fatal::TunGone { source: error }));
        return;
    }
    report.said.say(reason, &error);
    report.errors.push(Error::PerPacket(PerPacket {
        reason,
        source: error,
    }));
}

/// How many packets a run consists of.
fn packets_of(header: VirtioHeader, parts: &[IoSlice<'_>]) -> usize {
    let size = usize::from(header.gso_size);
    let len: usize = parts.iter().map(|part| part.len()).sum();
    match size {
        0 => 1,
        _ => len
            .saturating_sub(header.hdr_len.into())
            .div_ceil(size)
            .max(1),
    }
}
