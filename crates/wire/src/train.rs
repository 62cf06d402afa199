//! Datagrams that travel together: what one system call sends or receives.
//!
//! A *train* is a run of datagrams of one size (the last may be shorter) between one pair of addresses with one ECN
//! codepoint. The kernel splits it on the way out (`UDP_SEGMENT`) and joins it on the way in (`UDP_GRO`). A train of no bytes
//! is one datagram without contents, which UDP carries like any other (RFC 768).

use std::net::SocketAddr;

use crate::buffer::Buffer;
use crate::ecn::Ecn;

/// The most datagrams one send may carry (Linux' `UDP_MAX_SEGMENTS` was 64 until 6.9).
pub const MAX_SEGMENTS: usize = 64;

/// Where a datagram goes, from where, and how it is marked.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Route {
    /// The address to send from. `None` leaves the choice to the operating system.
    pub src: Option<SocketAddr>,
    /// The address to send to.
    pub dst: SocketAddr,
    /// The outer header's mark.
    pub ecn: Ecn,
}

/// A train that is ready to leave.
#[derive(Debug)]
pub struct Transmit {
    /// Where it goes.
    pub route: Route,
    /// The size of each datagram but the last, which may be shorter. Never zero.
    pub segment_size: usize,
    /// The datagrams, one behind the other.
    pub payload: Buffer,
}

impl Transmit {
    /// A train of one datagram.
    pub fn single(route: Route, payload: Buffer) -> Self {
        Self {
            route,
            segment_size: payload.len().max(1),
            payload,
        }
    }

    /// The number of datagrams, at least one.
    pub fn segments(&self) -> usize {
        segments(self.payload.len(), self.segment_size)
    }

    /// The datagrams, in order.
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        datagrams(&self.payload, self.segment_size)
    }
}

/// A train that has arrived.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The sender.
    pub from: SocketAddr,
    /// Our address that it was sent to.
    pub to: SocketAddr,
    /// The outer header's mark.
    pub ecn: Ecn,
    /// The size of each datagram but the last. Zero stands for one datagram of any size.
    pub stride: usize,
    /// The datagrams, one behind the other.
    pub bytes: &'a [u8],
}

impl<'a> Arrival<'a> {
    /// The datagrams, in order.
    pub fn datagrams(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let stride = match self.stride {
            0 => self.bytes.len(),
            stride => stride,
        };

        datagrams(self.bytes, stride)
    }
}

/// A train that has arrived, with the memory that it lies in: it can go to another thread, or wait.
#[derive(Debug)]
pub struct Received {
    /// The sender.
    pub from: SocketAddr,
    /// Our address that it was sent to.
    pub to: SocketAddr,
    /// The outer header's mark.
    pub ecn: Ecn,
    /// The size of each datagram but the last. Zero stands for one datagram of any size.
    pub stride: usize,
    /// The datagrams, one behind the other.
    pub bytes: Buffer,
    /// What its receiver calls it, to know its packets again; zero if it doesn't.
    pub number: u64,
}

impl Received {
    /// The same, borrowed.
    pub fn arrival(&self) -> Arrival<'_> {
        Arrival {
            from: self.from,
            to: self.to,
            ecn: self.ecn,
            stride: self.stride,
            bytes: &self.bytes,
        }
    }
}

/// The number of datagrams in a train of `len` bytes, each but the last of `size`.
pub fn segments(len: usize, size: usize) -> usize {
    len.div_ceil(size.max(1)).max(1)
}

/// The datagrams in the bytes of a train, each but the last of `size`.
pub fn datagrams(bytes: &[u8], size: usize) -> impl Iterator<Item = &[u8]> {
    let without_contents = bytes.is_empty().then_some(bytes);

    bytes.chunks(size.max(1)).chain(without_contents)
}

/// The most bytes one send to `dst` may carry in segments of `segment_size`.
///
/// The largest IP packet less its largest headers; beyond that the kernel answers EMSGSIZE (io.md §2.3).
pub fn max_len(dst: SocketAddr, segment_size: usize) -> usize {
    let overhead = if dst.is_ipv4() { 60 + 8 } else { 40 + 8 };
    let segment_size = segment_size.max(1);

    segment_size * MAX_SEGMENTS.min((usize::from(u16::MAX) - overhead) / segment_size)
}

#[cfg(test)]
mod tests;
