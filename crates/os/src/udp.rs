//! UDP in trains: one call sends or receives up to 64 datagrams of one peer, and several trains at once.

#[cfg(target_os = "linux")]
mod linux;
mod outgoing;
mod recv;

use std::io;
use std::net::SocketAddr;

use connlib_wire::MAX_DATAGRAM;
use connlib_wire::train::MAX_SEGMENTS;

#[cfg(target_os = "linux")]
pub use linux::UdpSocket;
pub use outgoing::{Outgoing, Payload};
pub use recv::{BatchFull, RecvBatch};

/// The most trains one [`Udp::recv`] returns; larger batches are of no use (io.md §2.2).
pub const MAX_TRAINS: usize = 32;

/// The most bytes a received train can have: as many of the largest datagrams as the kernel joins (io.md §2.2).
pub const MAX_TRAIN_BYTES: usize = MAX_SEGMENTS * MAX_DATAGRAM;

/// The most trains one [`Udp::send`] looks at; the others are left for the next call.
pub const MAX_SENDS: usize = 16;

/// A bound, unconnected UDP socket that never blocks.
pub trait Udp {
    /// The address the socket is bound to; its port is the one datagrams come from.
    fn local_addr(&self) -> SocketAddr;

    /// Sends what is left of the `trains` and returns how many datagrams were taken, of all trains together.
    ///
    /// They are taken in order: all that are left of the first train, then those of the second, and so on, of
    /// [`MAX_SENDS`] trains at most. Less than all is a success: what stopped the rest is the next call's error. Trains
    /// of which nothing is left take nothing and are no error.
    ///
    /// # Errors
    ///
    /// Nothing was taken. `WouldBlock`: try again when the socket is writable. Anything else concerns the first datagram
    /// that hasn't left, and those that [`Outgoing::lost_to`] counts beside it: drop them and go on with the next one,
    /// the socket is as good as before.
    ///
    /// `EMSGSIZE` is the answer to a train whose datagrams don't fit through the path, before any of them has left: all
    /// datagrams of full size share that fate, and only a shorter last one may still pass.
    fn send(&mut self, trains: &[Outgoing<'_>]) -> io::Result<usize>;

    /// Replaces the contents of `batch` by what has arrived and returns the number of trains.
    ///
    /// Zero is possible: something arrived and was unusable. Ask again, until `WouldBlock`.
    ///
    /// # Errors
    ///
    /// `WouldBlock`: nothing waits. Anything else: nothing was received this time; the socket is as good as before.
    fn recv(&mut self, batch: &mut RecvBatch) -> io::Result<usize>;

    /// What stands in the socket's receive buffer, and what the kernel has dropped.
    ///
    /// # Errors
    ///
    /// The kernel doesn't tell (before Linux 4.12), or the socket is gone.
    fn backlog(&self) -> io::Result<Backlog>;
}

/// What stands in a socket's receive buffer, and what the kernel has dropped.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Backlog {
    /// The bytes of the buffer that are in use, the kernel's bookkeeping included. That is up to a quarter of the limit
    /// more than what waits: the kernel gives room back in portions of that size, or when nothing waits (measured).
    pub bytes: usize,
    /// The size of the buffer in bytes.
    pub limit: usize,
    /// The packets (trains, where the kernel joined them) dropped since the socket was bound. The kernel's counter has 32
    /// bits and begins anew behind them.
    pub dropped: u64,
}

/// How a UDP socket is to be bound.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UdpConfig {
    /// The address to bind to. Port 0 lets the operating system choose.
    pub addr: SocketAddr,
    /// The firewall mark of what the socket sends, which policy rules can tell apart. Needs CAP_NET_ADMIN.
    pub mark: Option<u32>,
    /// Whether other sockets of this user may have the same address, each of which gets what some senders send
    /// (SO_REUSEPORT).
    pub shares_port: bool,
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
            shares_port: false,
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

    /// Lets others have the same address, too.
    #[must_use]
    pub fn with_shared_port(mut self) -> Self {
        self.shares_port = true;
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
