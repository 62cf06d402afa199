//! UDP in trains: one call sends or receives up to 64 datagrams of one peer.

#[cfg(target_os = "linux")]
mod linux;

use std::fmt;
use std::io;
use std::net::SocketAddr;

use connlib_wire::MAX_DATAGRAM;
use connlib_wire::train::{Arrival, MAX_SEGMENTS, Transmit};

#[cfg(target_os = "linux")]
pub use linux::UdpSocket;

/// The most trains one [`Udp::recv`] returns; larger batches are of no use (io.md §2.2).
pub const MAX_TRAINS: usize = 32;

/// The most bytes a received train can have: as many of the largest datagrams as the kernel joins (io.md §2.2).
pub const MAX_TRAIN_BYTES: usize = MAX_SEGMENTS * MAX_DATAGRAM;

/// A bound, unconnected UDP socket that never blocks.
pub trait Udp {
    /// The address the socket is bound to; its port is the one datagrams come from.
    fn local_addr(&self) -> SocketAddr;

    /// Sends the datagrams of `train` from number `first` on, and returns how many of those were taken.
    ///
    /// They are taken in order, so the next call's `first` is this one's plus the result. Less than all is a success:
    /// what stopped the rest is the next call's error. A `first` behind the last datagram takes nothing and succeeds.
    ///
    /// # Errors
    ///
    /// Nothing was taken. `WouldBlock`: try again when the socket is writable. Anything else concerns the datagram
    /// `first` and those like it: drop them, the socket is as good as before.
    fn send(&mut self, train: &Transmit, first: usize) -> io::Result<usize>;

    /// Replaces the contents of `batch` by what has arrived and returns the number of trains.
    ///
    /// Zero is possible: something arrived and was unusable. Ask again, until `WouldBlock`.
    ///
    /// # Errors
    ///
    /// `WouldBlock`: nothing waits. Anything else: nothing was received this time; the socket is as good as before.
    fn recv(&mut self, batch: &mut RecvBatch) -> io::Result<usize>;
}

/// Memory for received trains, reused from call to call.
pub struct RecvBatch {
    memory: Box<[u8]>,
    bytes_each: usize,
    filled: Vec<Filled>,
}

impl RecvBatch {
    /// Allocates room for `trains` trains (1 to [`MAX_TRAINS`]) of `bytes_each` bytes.
    ///
    /// A train that is longer than its room is dropped by the receiver: give [`MAX_TRAIN_BYTES`] unless memory is short.
    pub fn new(trains: usize, bytes_each: usize) -> Self {
        let trains = trains.clamp(1, MAX_TRAINS);
        let bytes_each = bytes_each.max(1);

        Self {
            memory: vec![0; trains * bytes_each].into_boxed_slice(),
            bytes_each,
            filled: Vec::with_capacity(trains),
        }
    }

    /// The trains received last, in the order of their arrival.
    pub fn arrivals(&self) -> impl Iterator<Item = Arrival<'_>> {
        self.filled.iter().map(|filled| {
            let start = filled.slot * self.bytes_each;
            let bytes = self.memory.get(start..start + filled.len);

            Arrival {
                from: filled.from,
                to: filled.to,
                ecn: filled.ecn,
                stride: filled.stride,
                bytes: bytes.unwrap_or_default(),
            }
        })
    }

    /// Forgets the trains.
    pub fn clear(&mut self) {
        self.filled.clear();
    }

    /// The number of trains it holds.
    pub fn len(&self) -> usize {
        self.filled.len()
    }

    /// Whether it holds no train.
    pub fn is_empty(&self) -> bool {
        self.filled.is_empty()
    }

    /// The number of trains it has room for.
    pub fn capacity(&self) -> usize {
        self.memory.len() / self.bytes_each
    }

    /// The number of bytes it has room for in each train.
    pub fn bytes_each(&self) -> usize {
        self.bytes_each
    }

    /// Adds a copy of `arrival`, for implementations of [`Udp`] that have no kernel to write into the batch.
    ///
    /// # Errors
    ///
    /// [`BatchFull`] if all trains are in use or this one is longer than its room; the batch is as before.
    pub fn push(&mut self, arrival: Arrival<'_>) -> Result<(), BatchFull> {
        // Trains fill the slots from the front unless the kernel left gaps, so the slot after the last one is free.
        let slot = self.filled.last().map_or(0, |last| last.slot + 1);
        if slot >= self.capacity() || arrival.bytes.len() > self.bytes_each {
            return Err(BatchFull);
        }
        let start = slot * self.bytes_each;
        let Some(room) = self.memory.get_mut(start..start + arrival.bytes.len()) else {
            return Err(BatchFull);
        };

        room.copy_from_slice(arrival.bytes);
        self.filled.push(Filled {
            slot,
            from: arrival.from,
            to: arrival.to,
            ecn: arrival.ecn,
            stride: arrival.stride,
            len: arrival.bytes.len(),
        });

        Ok(())
    }
}

impl fmt::Debug for RecvBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvBatch")
            .field("trains", &self.len())
            .field("capacity", &self.capacity())
            .field("bytes_each", &self.bytes_each)
            .finish()
    }
}

/// A [`RecvBatch`] has no room for another train, or not for one of that length.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "the receive batch has no room for this train; take out what it holds or make its trains larger"
)]
pub struct BatchFull;

/// How a UDP socket is to be bound.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UdpConfig {
    /// The address to bind to. Port 0 lets the operating system choose.
    pub addr: SocketAddr,
    /// The firewall mark of what the socket sends, which policy rules can tell apart. Needs CAP_NET_ADMIN.
    pub mark: Option<u32>,
    /// The kernel's buffer for what leaves, in bytes.
    pub send_buffer: usize,
    /// The kernel's buffer for what arrives, in bytes.
    pub recv_buffer: usize,
}

impl UdpConfig {
    /// A socket at `addr` without a mark, with buffers for 10 Gbit/s: a millisecond of sending and ten of receiving,
    /// rounded up to powers of two (io.md §2.9).
    pub fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            mark: None,
            send_buffer: 2 * 1024 * 1024,
            recv_buffer: 16 * 1024 * 1024,
        }
    }

    /// Marks what the socket sends.
    #[must_use]
    pub fn with_mark(mut self, mark: u32) -> Self {
        self.mark = Some(mark);
        self
    }

    /// Changes the sizes of the kernel's buffers, in bytes.
    #[must_use]
    pub fn with_buffers(mut self, send: usize, recv: usize) -> Self {
        self.send_buffer = send;
        self.recv_buffer = recv;
        self
    }
}

/// How much a socket has dropped of what it received, by reason. Counted in trains.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct UdpStats {
    /// It had no contents.
    pub empty: u64,
    /// The kernel didn't say who sent it or to which of our addresses.
    pub unaddressed: u64,
    /// The size of its datagrams can't be true.
    pub bad_stride: u64,
    /// It, or what the kernel says about it, was longer than its room.
    pub truncated: u64,
}

/// Why a UDP socket was not bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UdpError {
    /// Somebody else has the port.
    #[error(
        "can't bind UDP {addr}: another program uses that port; stop it or choose another port"
    )]
    AddrInUse {
        /// The address that was asked for.
        addr: SocketAddr,
    },
    /// The address is none of this machine's.
    #[error(
        "can't bind UDP {addr}: no interface of this machine has that address; use one of its own or the unspecified one"
    )]
    AddrNotAvailable {
        /// The address that was asked for.
        addr: SocketAddr,
    },
    /// Only privileged programs may have the port.
    #[error("can't bind UDP {addr}: not permitted; choose a port from 1024 up or run as root")]
    PermissionDenied {
        /// The address that was asked for.
        addr: SocketAddr,
    },
    /// The machine doesn't speak this version of IP.
    #[error(
        "can't bind UDP {addr}: this machine has no such address family; use the other IP version"
    )]
    FamilyUnsupported {
        /// The address that was asked for.
        addr: SocketAddr,
    },
    /// The mark was refused, without which our own traffic could be routed into our own tunnel.
    #[error(
        "can't mark a UDP socket with {mark:#x}; run as root or grant CAP_NET_ADMIN (`setcap cap_net_admin+ep` on the program)"
    )]
    Mark {
        /// The mark that was asked for.
        mark: u32,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The kernel refused for another reason.
    #[error("can't bind UDP {addr}: {source}; look into the kernel's log")]
    Os {
        /// The address that was asked for.
        addr: SocketAddr,
        /// What the kernel answered.
        source: io::Error,
    },
}

impl UdpError {
    #[cfg(target_os = "linux")]
    fn from_os(addr: SocketAddr, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::EADDRINUSE) => Self::AddrInUse { addr },
            Some(libc::EADDRNOTAVAIL) => Self::AddrNotAvailable { addr },
            Some(libc::EACCES | libc::EPERM) => Self::PermissionDenied { addr },
            Some(libc::EAFNOSUPPORT) => Self::FamilyUnsupported { addr },
            _ => Self::Os { addr, source },
        }
    }
}

/// What is known about the train in one slot of a batch.
#[derive(Clone, Copy, Debug)]
struct Filled {
    slot: usize,
    from: SocketAddr,
    to: SocketAddr,
    ecn: connlib_wire::ecn::Ecn,
    stride: usize,
    len: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use connlib_wire::ecn::Ecn;

    #[test]
    fn a_batch_gives_back_what_was_pushed() {
        let mut batch = RecvBatch::new(2, 8);

        batch.push(arrival(3, b"abcdefgh")).unwrap();
        batch.push(arrival(0, b"ij")).unwrap();

        let trains = batch
            .arrivals()
            .map(|arrival| arrival.datagrams().collect::<Vec<_>>())
            .collect::<Vec<_>>();
        assert_eq!(trains, [vec![&b"abc"[..], b"def", b"gh"], vec![b"ij"]]);
    }

    #[test]
    fn a_full_batch_takes_no_more_until_it_is_cleared() {
        let mut batch = RecvBatch::new(1, 4);
        assert_eq!(batch.push(arrival(0, b"12345")), Err(BatchFull), "too long");

        batch.push(arrival(0, b"1234")).unwrap();
        assert_eq!(batch.push(arrival(0, b"5")), Err(BatchFull), "no slot left");

        batch.clear();
        assert!(batch.is_empty());
        batch.push(arrival(0, b"5")).unwrap();
    }

    fn arrival(stride: usize, bytes: &[u8]) -> Arrival<'_> {
        Arrival {
            from: "192.0.2.1:1".parse().unwrap(),
            to: "192.0.2.2:2".parse().unwrap(),
            ecn: Ecn::Ect0,
            stride,
            bytes,
        }
    }
}
