//! The TUN device's end of the loop.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::time::Instant;

use connlib_os::tun::Tun;
use connlib_wire::buffer::{Buffer, Pool};

use super::Watched;
use super::egress::Report;
use super::errors::{Degraded, Error, Fatal, PerPacket};
use super::ingress::Patience;
use super::stats::{DropReason, is_lost};

/// Packets that wait for the device, and the memory for one that comes from it.
pub(super) struct TunQueue {
    queue: VecDeque<Buffer>,
    bytes: usize,
    pool: Pool,
    memory: Box<[u8]>,
    patience: Patience,
}

/// The most bytes that wait for the device: four milliseconds at 1 Gbit/s.
pub(super) const MAX_WAITING: usize = 512 * 1024;

/// Any IP packet, whatever MTU an administrator gives the device.
const MAX_IP_PACKET: usize = 65_535;

impl TunQueue {
    pub(super) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            bytes: 0,
            pool: Pool::new(2_048, 256),
            memory: vec![0; MAX_IP_PACKET].into_boxed_slice(),
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

    /// Reads the next packet.
    pub(super) fn read<T: Tun>(
        &mut self,
        now: Instant,
        tun: &mut Watched<T>,
        report: &mut Report<'_>,
    ) -> Read<'_> {
        if !self.is_ready(now, tun.ready.readable) {
            return Read::Nothing;
        }
        let error = match tun.device.read(&mut self.memory) {
            Ok(len) => {
                self.patience.succeeded();
                report.stats.packets_read += 1;
                return Read::Packet(self.memory.get(..len).unwrap_or_default());
            }
            Err(error) => error,
        };
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

    /// Hands a packet to the device, behind those that wait.
    pub(super) fn write<T: Tun>(
        &mut self,
        tun: &mut Watched<T>,
        packet: &[u8],
        report: &mut Report<'_>,
    ) {
        let passed = self.queue.is_empty() && write_now(tun, packet, report);
        if passed {
            return;
        }
        let copy = (self.bytes + packet.len() <= MAX_WAITING)
            .then(|| self.pool.copy(packet))
            .flatten();
        let Some(copy) = copy else {
            report.stats.count_dropped(DropReason::TunFull, 1);
            return;
        };
        self.bytes += copy.len();
        self.queue.push_back(copy);
    }

    /// Hands to the device what waits, as far as it takes it.
    pub(super) fn flush<T: Tun>(&mut self, tun: &mut Watched<T>, report: &mut Report<'_>) {
        while let Some(packet) = self.queue.pop_front() {
            if !write_now(tun, &packet, report) {
                self.queue.push_front(packet);
                break;
            }
            self.bytes -= packet.len();
        }
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
pub(super) enum Read<'a> {
    /// A packet.
    Packet(&'a [u8]),
    /// An error that may not come again.
    Failed,
    /// Nothing, for now.
    Nothing,
}

/// Whether the packet is done with: taken or refused for good.
fn write_now<T: Tun>(tun: &mut Watched<T>, packet: &[u8], report: &mut Report<'_>) -> bool {
    while tun.ready.writable {
        let Err(error) = tun.device.write(packet) else {
            report.stats.packets_written += 1;
            return true;
        };
        if error.kind() == io::ErrorKind::WouldBlock {
            tun.ready.writable = false;
        } else if error.kind() != io::ErrorKind::Interrupted {
            refuse(tun, error, report);
            return true;
        }
    }

    false
}

fn refuse<T: Tun>(tun: &mut Watched<T>, error: io::Error, report: &mut Report<'_>) {
    let reason = DropReason::TunRefused;
    report.stats.errors += 1;
    report.stats.count_dropped(reason, 1);
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
