//! The UDP socket of Linux.

mod send;

use std::fmt;
use std::io;
use std::iter;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use connlib_wire::train::Received;

use self::send::{Chunk, Chunks};
use super::{Backlog, MAX_SENDS, Outgoing, RecvBatch, Udp, UdpConfig, UdpError, UdpStats};
use crate::clock::Clock;
use crate::sys;

/// A UDP socket of Linux with segmentation offload both ways.
pub struct UdpSocket {
    fd: OwnedFd,
    local: SocketAddr,
    segmentation: Segmentation,
    stats: UdpStats,
}

impl UdpSocket {
    /// Binds a socket as `config` says. Port 0 lets the operating system choose.
    ///
    /// An IPv6 socket takes no IPv4 traffic. The don't-fragment bit is set on all that leaves. Buffers that can't be as
    /// large as asked for are as large as allowed.
    ///
    /// # Errors
    ///
    /// See [`UdpError`]; nothing is left open.
    pub fn bind(config: &UdpConfig) -> Result<Self, UdpError> {
        let addr = config.addr;
        let refused = |source| UdpError::from_os(addr, source);
        let fd = sys::socket::udp(family(addr)).map_err(refused)?;

        if let Some(mark) = config.mark {
            set(&fd, libc::SOL_SOCKET, libc::SO_MARK, mark.cast_signed())
                .map_err(|source| UdpError::Mark { mark, source })?;
        }
        if config.shares_port {
            set(&fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1).map_err(refused)?;
        }
        set_required(&fd, addr).map_err(refused)?;
        set_wanted(&fd, addr);
        enlarge_buffer(&fd, Direction::Send, config.send_buffer);
        enlarge_buffer(&fd, Direction::Receive, config.recv_buffer);
        sys::socket::bind(fd.as_fd(), addr).map_err(refused)?;
        let local = sys::socket::local_addr(fd.as_fd()).map_err(refused)?;

        // Reading the option is the test for the feature: it changes nothing.
        let segmentation = match sys::socket::option(fd.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT) {
            Ok(_) => Segmentation::On,
            Err(_) => Segmentation::Off,
        };
        tracing::debug!(%local, ?segmentation, "bound a UDP socket");

        Ok(Self {
            fd,
            local,
            segmentation,
            stats: UdpStats::default(),
        })
    }

    /// Binds a socket as `config` says, or to another port of the same address if that one is not to be had.
    ///
    /// # Errors
    ///
    /// As those of [`bind`](Self::bind) with port 0.
    pub fn bind_preferred(config: &UdpConfig) -> Result<Self, UdpError> {
        match Self::bind(config) {
            Err(error @ (UdpError::AddrInUse { .. } | UdpError::PermissionDenied { .. }))
                if config.addr.port() != 0 =>
            {
                tracing::debug!(%error, "the preferred port is not to be had; any other will do");
                let mut any_port = config.clone();
                any_port.addr.set_port(0);
                Self::bind(&any_port)
            }
            result => result,
        }
    }

    /// What was dropped so far, and why.
    pub fn stats(&self) -> UdpStats {
        self.stats
    }

    /// The size of the kernel's send and receive buffers in bytes, its own bookkeeping included.
    ///
    /// # Errors
    ///
    /// None is known for a socket that is open.
    pub fn buffer_sizes(&self) -> io::Result<(usize, usize)> {
        let size = |option| {
            sys::socket::option(self.fd.as_fd(), libc::SOL_SOCKET, option)
                .map(|size| usize::try_from(size).unwrap_or_default())
        };

        Ok((size(libc::SO_SNDBUF)?, size(libc::SO_RCVBUF)?))
    }

    /// Sends as many messages as one system call takes, from the datagram on that `skip` datagrams precede.
    fn send_some(&mut self, trains: &[Outgoing<'_>], skip: usize) -> io::Result<Progress> {
        let mut chunks = Chunks::new(trains, skip, self.local, self.segmentation);
        let Some(first) = chunks.next().transpose()? else {
            return Ok(Progress::Done { datagrams: 0 });
        };
        let second = chunks.next().and_then(Result::ok);

        let sent = match second {
            None => sys::udp::send::<1>(self.fd.as_fd(), iter::once(first.message)).map(|_| {
                Progress::Done {
                    datagrams: first.datagrams,
                }
            }),
            Some(second) => self.send_several(first, second, chunks),
        };
        match sent {
            Err(error) if first.datagrams > 1 && may_refuse_segmentation(&error) => {
                // Either the device can't segment or the datagram itself is at fault: a single one tells.
                let mut chunks = Chunks::new(trains, skip, self.local, Segmentation::Off);
                let Some(single) = chunks.next().transpose()? else {
                    return Err(error);
                };
                sys::udp::send::<1>(self.fd.as_fd(), iter::once(single.message))?;
                self.segmentation = Segmentation::Off;
                tracing::info!("the device refuses UDP segmentation; sending one by one");

                Ok(Progress::More {
                    datagrams: single.datagrams,
                })
            }
            result => result,
        }
    }

    fn send_several<'a>(
        &self,
        first: Chunk<'a>,
        second: Chunk<'a>,
        others: Chunks<'_, 'a>,
    ) -> io::Result<Progress> {
        let mut sizes = [0; MAX_SENDS];
        let mut count = 0;
        let chunks = [first, second]
            .into_iter()
            .chain(others.map_while(Result::ok))
            .zip(&mut sizes)
            .map(|(chunk, size)| {
                *size = chunk.datagrams;
                count += 1;
                chunk.message
            });
        let sent = sys::udp::send::<MAX_SENDS>(self.fd.as_fd(), chunks)?;

        let datagrams = sizes.iter().take(sent).sum();
        Ok(if sent == count && count == MAX_SENDS {
            Progress::More { datagrams }
        } else {
            Progress::Done { datagrams }
        })
    }
}

impl Udp for UdpSocket {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn send(&mut self, trains: &[Outgoing<'_>]) -> io::Result<usize> {
        let trains = trains.get(..MAX_SENDS).unwrap_or(trains);
        let mut taken = 0;
        loop {
            match self.send_some(trains, taken) {
                Ok(Progress::More { datagrams }) => taken += datagrams,
                Ok(Progress::Done { datagrams }) => return Ok(taken + datagrams),
                Err(_) if taken > 0 => return Ok(taken),
                Err(error) => return Err(error),
            }
        }
    }

    fn recv(&mut self, batch: &mut RecvBatch) -> io::Result<usize> {
        batch.refill();
        let RecvBatch {
            ready,
            trains,
            scratch,
            ..
        } = batch;
        let slots = ready.iter_mut().map(|buffer| &mut **buffer);
        let mut count = 0;
        let mut oldest_came_at = None;

        for received in sys::udp::recv(self.fd.as_fd(), slots, scratch)? {
            let Some(mut bytes) = ready.pop_front() else {
                break;
            };
            count += 1;
            oldest_came_at = oldest_came_at.or(received.came_at);
            match accept(self.local.port(), received, &mut self.stats) {
                Some(Accepted { from, to, stride }) => {
                    bytes.truncate(received.len);
                    trains.push_back(Received {
                        from,
                        to,
                        ecn: received.ecn,
                        stride,
                        bytes,
                        number: 0,
                    });
                }
                None => ready.push_back(bytes),
            }
        }
        let stood_for = oldest_came_at.map(|came_at| Clock::new().unix().saturating_sub(came_at));
        let refused = count - batch.trains.len();
        batch.told(count < batch.capacity(), refused, stood_for);

        Ok(batch.trains.len())
    }

    fn backlog(&self) -> io::Result<Backlog> {
        let figures = sys::socket::memory(self.fd.as_fd())?;
        let figure = |index| {
            usize::try_from(index)
                .ok()
                .and_then(|index: usize| figures.get(index).copied())
                .unwrap_or_default()
        };

        Ok(Backlog {
            bytes: figure(libc::SK_MEMINFO_RMEM_ALLOC) as usize,
            limit: figure(libc::SK_MEMINFO_RCVBUF) as usize,
            dropped: figure(libc::SK_MEMINFO_DROPS).into(),
        })
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpSocket")
            .field("local", &self.local)
            .field("segmentation", &self.segmentation)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

/// Whether the kernel splits what we send.
#[derive(Clone, Copy, Debug)]
enum Segmentation {
    On,
    Off,
}

/// How far a send has come.
#[derive(Clone, Copy, Debug)]
enum Progress {
    /// So many datagrams have left, and more may follow at once.
    More { datagrams: usize },
    /// So many datagrams have left, and nothing else is to be tried by this call.
    Done { datagrams: usize },
}

#[derive(Clone, Copy, Debug)]
enum Direction {
    Send,
    Receive,
}

/// What a train has that can be used.
#[derive(Clone, Copy, Debug)]
struct Accepted {
    from: SocketAddr,
    to: SocketAddr,
    stride: usize,
}

/// Accepts a train that can be used and counts one that can't.
fn accept(port: u16, train: &sys::udp::Received, stats: &mut UdpStats) -> Option<Accepted> {
    if train.truncated {
        stats.truncated += 1;
        return None;
    }
    let (Some(from), Some((ip, interface))) = (train.from, train.to) else {
        stats.unaddressed += 1;
        return None;
    };
    let stride = train.stride.unwrap_or(train.len);
    if stride > train.len || (stride == 0 && train.len > 0) {
        stats.bad_stride += 1;
        return None;
    }

    let mut to = SocketAddr::new(ip, port);
    if let SocketAddr::V6(to) = &mut to
        && to.ip().is_unicast_link_local()
    {
        to.set_scope_id(interface);
    }

    Some(Accepted { from, to, stride })
}

/// What the socket can't do its work without.
fn set_required(fd: &OwnedFd, addr: SocketAddr) -> io::Result<()> {
    match addr {
        SocketAddr::V4(_) => {
            set(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
            set(fd, libc::IPPROTO_IP, libc::IP_RECVTOS, 1)
        }
        SocketAddr::V6(_) => {
            set(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
            set(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
            set(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)
        }
    }
}

/// What makes the socket better where the kernel has it.
fn set_wanted(fd: &OwnedFd, addr: SocketAddr) {
    let want = |what: &str, level, option, value| {
        if let Err(error) = set(fd, level, option, value) {
            tracing::debug!(what, %error, "the kernel lacks a socket option");
        }
    };

    want("UDP_GRO", libc::SOL_UDP, libc::UDP_GRO, 1);
    want("SO_TIMESTAMPNS", libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1);
    // PROBE sets the don't-fragment bit and leaves the route's path MTU alone, which a forged ICMP message could lower.
    match addr {
        SocketAddr::V4(_) => want(
            "IP_MTU_DISCOVER",
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            libc::IP_PMTUDISC_PROBE,
        ),
        SocketAddr::V6(_) => {
            want(
                "IPV6_MTU_DISCOVER",
                libc::IPPROTO_IPV6,
                libc::IPV6_MTU_DISCOVER,
                libc::IPV6_PMTUDISC_PROBE,
            );
            // A temporary address that rotates away would change our address under every peer (io.md §2.6).
            want(
                "IPV6_ADDR_PREFERENCES",
                libc::IPPROTO_IPV6,
                libc::IPV6_ADDR_PREFERENCES,
                libc::IPV6_PREFER_SRC_PUBLIC,
            );
        }
    }
}

/// Makes a buffer as large as asked for, or as near to it as the kernel lets us.
fn enlarge_buffer(fd: &OwnedFd, direction: Direction, wanted: usize) {
    let (force, plain) = match direction {
        Direction::Send => (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
        Direction::Receive => (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
    };
    // The kernel doubles the value, so half of the range is all there is.
    let wanted = i32::try_from(wanted).unwrap_or(i32::MAX).min(i32::MAX / 2);
    if set(fd, libc::SOL_SOCKET, force, wanted).is_ok() {
        return;
    }

    let mut size = wanted;
    while let Err(error) = set(fd, libc::SOL_SOCKET, plain, size) {
        size /= 2;
        if size < SMALLEST_BUFFER {
            tracing::debug!(?direction, %error, "a socket buffer keeps its default size");
            return;
        }
    }
    // Without the privilege the kernel clamps to net.core.{r,w}mem_max and says nothing.
    let got = sys::socket::option(fd.as_fd(), libc::SOL_SOCKET, plain).unwrap_or_default() / 2;
    if got < wanted {
        tracing::debug!(
            ?direction,
            wanted,
            got,
            "a socket buffer is smaller than wanted"
        );
    }
}

/// Where halving a buffer's size ends (io.md §2.9).
const SMALLEST_BUFFER: i32 = 64 * 1024;

/// Whether an error may mean that segmentation is at fault: EIO comes from devices without checksum offload, EINVAL
/// from kernels and devices that refuse the option (io.md §2.4).
fn may_refuse_segmentation(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL))
}

fn set(fd: &OwnedFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    sys::socket::set_option(fd.as_fd(), level, option, value)
}

fn family(addr: SocketAddr) -> i32 {
    match addr {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    }
}

#[cfg(test)]
mod tests;
