//! What a loop counts.

use std::io;
use std::time::Duration;

use connlib_os::udp::Backlog;

/// Why a packet or datagram went nowhere, as far as the loop is to blame. Cores count their own reasons.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum DropReason {
    /// The TUN device takes nothing and enough waits for it.
    TunFull,
    /// The TUN device refused the packet.
    TunRefused,
    /// There is no socket of that IP version.
    NoSocket,
    /// The socket takes nothing and enough waits for it.
    SocketFull,
    /// The kernel had no memory for it, several times.
    NoBuffers,
    /// It is larger than the way carries (EMSGSIZE).
    TooLarge,
    /// There is no route, or a router said so (ENETUNREACH, EHOSTUNREACH).
    Unreachable,
    /// A firewall or policy of this machine forbids it (EPERM, EACCES).
    Forbidden,
    /// The kernel doesn't take it in this form (EINVAL, EADDRNOTAVAIL): its source address went away, for example.
    Invalid,
    /// Another error of the kernel.
    Other,
    /// Too much waits to be sealed, and most of it in this packet's flow.
    QueueFull,
    /// It waited to be sealed for longer than any packet may.
    WaitedTooLong,
    /// Its flow's queue stands, and its sender is to slow down.
    QueueStands,
    /// What its sender sent waits too long to be opened, and the sender is to slow down.
    SocketStands,
    /// Too much waits to be opened, and most of it is by its sender.
    ArrivalsFull,
}

impl DropReason {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::TunFull,
        Self::TunRefused,
        Self::NoSocket,
        Self::SocketFull,
        Self::NoBuffers,
        Self::TooLarge,
        Self::Unreachable,
        Self::Forbidden,
        Self::Invalid,
        Self::Other,
        Self::QueueFull,
        Self::WaitedTooLong,
        Self::QueueStands,
        Self::SocketStands,
        Self::ArrivalsFull,
    ];

    /// What an error of a send means for its datagram (io.md §8.3).
    pub(super) fn of_send(error: &io::Error) -> Self {
        let kind = error.kind();
        let is_any = |kinds: &[io::ErrorKind]| kinds.contains(&kind);

        if error.raw_os_error() == Some(libc::EMSGSIZE) {
            Self::TooLarge
        } else if is_any(&UNREACHABLE) {
            Self::Unreachable
        } else if is_any(&[io::ErrorKind::PermissionDenied]) {
            Self::Forbidden
        } else if is_any(&[io::ErrorKind::InvalidInput, io::ErrorKind::AddrNotAvailable]) {
            Self::Invalid
        } else {
            Self::Other
        }
    }
}

const UNREACHABLE: [io::ErrorKind; 3] = [
    io::ErrorKind::NetworkUnreachable,
    io::ErrorKind::HostUnreachable,
    io::ErrorKind::NetworkDown,
];

/// Whether an error says that the descriptor itself is of no use any more.
pub(super) fn is_lost(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EBADF | libc::EBADFD | libc::ENOTSOCK | libc::ENODEV | libc::EPIPE)
    )
}

/// Counters of a loop since it began.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// Turns taken.
    pub turns: u64,
    /// Packets read from the TUN device.
    pub packets_read: u64,
    /// Packets written to the TUN device.
    pub packets_written: u64,
    /// Datagrams received.
    pub datagrams_received: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// System calls that failed with anything but "try again later".
    pub errors: u64,
    /// Packets that were marked because a queue stood.
    pub marked: u64,
    /// How long packets waited to be sealed.
    pub waits: Histogram,
    /// How long trains waited to be opened, in their socket and beyond.
    pub stood: Histogram,
    /// How long turns took.
    pub turn_times: Histogram,
    /// How late the core's timer was served.
    pub timer_delays: Histogram,
    /// What stands in the sockets, IPv4's and IPv6's, where the kernel tells; looked at when a status is asked for.
    pub backlogs: [Option<Backlog>; 2],
    dropped: [u64; DropReason::ALL.len()],
}

impl Stats {
    /// How many packets or datagrams were dropped for one reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped
            .get(reason as usize)
            .copied()
            .unwrap_or_default()
    }

    /// How many packets or datagrams were dropped for any reason.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// Adds what another loop has dropped, and its errors.
    pub fn absorb_failures(&mut self, other: &Self) {
        self.errors += other.errors;
        for (ours, theirs) in self.dropped.iter_mut().zip(other.dropped) {
            *ours += theirs;
        }
    }

    pub(super) fn count_dropped(&mut self, reason: DropReason, count: usize) {
        if let Some(dropped) = self.dropped.get_mut(reason as usize) {
            *dropped += count as u64;
        }
    }
}

/// How often something took how long: a counter for each quarter between two powers of two of microseconds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Histogram {
    counts: [u64; Self::BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: [0; Self::BUCKETS],
        }
    }
}

impl Histogram {
    /// The last one counts everything from seven eighths of 2²³ µs, seven seconds.
    const BUCKETS: usize = 88;

    /// Counts one.
    pub fn record(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get_mut(Self::bucket(micros)) {
            *count += 1;
        }
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// What `share` of them (0 to 1) took no longer than, rounded up by less than a quarter; zero if there are none.
    pub fn quantile(&self, share: f64) -> Duration {
        let wanted = share.clamp(0.0, 1.0) * self.count() as f64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen > 0 && seen as f64 >= wanted {
                return Duration::from_micros(Self::most(bucket));
            }
        }

        Duration::ZERO
    }

    fn bucket(micros: u64) -> usize {
        let bucket = match micros.checked_ilog2() {
            // The two bits behind the first one are the quarter.
            Some(power @ 2..) => u64::from(power - 1) * 4 + ((micros >> (power - 2)) & 3),
            _ => micros,
        };

        usize::try_from(bucket).map_or(Self::BUCKETS - 1, |bucket| bucket.min(Self::BUCKETS - 1))
    }

    /// The most microseconds that a bucket counts.
    fn most(bucket: usize) -> u64 {
        let (power, quarter) = (bucket / 4, bucket as u64 % 4);
        match power.checked_sub(1) {
            Some(shift) => ((5 + quarter) << shift) - 1,
            None => quarter,
        }
    }
}

/// Logs the first of each kind of drop, so that a flood of them is one line.
#[derive(Debug, Default)]
pub(super) struct Said {
    said: [bool; DropReason::ALL.len()],
}

impl Said {
    pub(super) fn say(&mut self, reason: DropReason, error: &io::Error) {
        let Some(said) = self.said.get_mut(reason as usize) else {
            return;
        };
        if std::mem::replace(said, true) {
            return;
        }
        if reason == DropReason::Forbidden {
            tracing::info!(%error, "This machine forbids a datagram to leave; look into its firewall");
        } else {
            tracing::debug!(?reason, %error, "Dropped the first of its kind; more are only counted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_apart() {
        let mut stats = Stats::default();
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            stats.count_dropped(reason, index + 1);
        }

        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(stats.dropped(reason), index as u64 + 1, "{reason:?}");
        }
    }

    #[test]
    fn quantiles_are_rounded_up_by_less_than_a_quarter() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), Duration::ZERO);
        for micros in [0, 1, 3, 900, 1_000_000_000] {
            histogram.record(Duration::from_micros(micros));
        }
        assert_eq!(histogram.count(), 5);
        assert_eq!(histogram.quantile(0.0), Duration::ZERO);
        assert_eq!(histogram.quantile(0.6), Duration::from_micros(3));
        assert_eq!(histogram.quantile(0.8), Duration::from_micros(1_023));

        let mut before = 0;
        for micros in 0..7_000_000 {
            let bucket = Histogram::bucket(micros);
            let most = Histogram::most(bucket);
            assert!(bucket == before || bucket == before + 1, "{micros}");
            assert!((micros..=micros + micros / 4).contains(&most), "{micros}");
            before = bucket;
        }
    }

    #[test]
    fn send_errors_have_their_reasons() {
        for (errno, reason) in [
            (libc::EMSGSIZE, DropReason::TooLarge),
            (libc::ENETUNREACH, DropReason::Unreachable),
            (libc::EHOSTUNREACH, DropReason::Unreachable),
            (libc::EPERM, DropReason::Forbidden),
            (libc::EINVAL, DropReason::Invalid),
            (libc::EADDRNOTAVAIL, DropReason::Invalid),
            (libc::EIO, DropReason::Other),
        ] {
            let error = io::Error::from_raw_os_error(errno);
            assert_eq!(DropReason::of_send(&error), reason, "{error}");
        }
    }
}
