//! Packets of one batch, joined into runs that a TUN device takes in one write (io.md §3.4).
//!
//! The kernel's stack then walks once per run instead of once per packet. A run is given as parts that lie where they were
//! opened: one header, made here, and the payload of each packet.
//!
//! # What a receiver can notice
//!
//! Nothing: cut again, a run is the packets it was made of, but for the IPv4 identification, and the IPv6 flow label if
//! the sender changed it on the way. A device doesn't check what it is told to complete, so a packet joins a run only
//! after its own checksums were verified.
//!
//! # Order
//!
//! Runs are written in the order in which they were begun. A packet joins the most recent run of its flow or begins a
//! new one, so all that its flow had before lies in front of it: in the same run, or in runs begun earlier. That holds
//! too where the most recent run lies too far back to be looked for: the packet begins a run, and the search from the
//! end finds that one first from then on. What can't be joined is a run of its own that nothing joins, and so holds
//! back what follows it in its flow.

use std::io::IoSlice;
use std::net::IpAddr;
use std::ops::Range;

use crate::ip::checksum::{Sum, pseudo_header};
use crate::ip::{Packet, Transport, Version, protocol};
use crate::offload::VirtioHeader;

/// The most packets of a run: what Linux takes of UDP (`UDP_MAX_SEGMENTS`).
pub const MAX_PACKETS: usize = 128;

/// The most bytes of a run, headers included: what an IPv4 header can state.
const MAX_LEN: usize = 65_535;

/// The longest headers of a run: IPv6 and TCP with every option are 100.
const MAX_HEADERS: usize = 128;

/// How many runs a packet is compared with, from the most recent one.
const LOOK_BACK: usize = 16;

const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// Which runs a device takes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Joins {
    /// Runs of TCP.
    pub tcp: bool,
    /// Runs of UDP.
    pub udp: bool,
}

/// Packets of a batch, joined into runs. Reused: no allocation in the steady state.
#[derive(Clone, Debug, Default)]
pub struct Runs {
    runs: Vec<Run>,
    packets: Vec<Link>,
}

/// A packet's place in memory and in its run.
#[derive(Clone, Debug)]
struct Link {
    range: Range<usize>,
    /// The next packet of its run.
    next: Option<usize>,
}

#[derive(Clone, Debug)]
struct Run {
    flow: Option<Flow>,
    /// Its first packet; all that join have the same headers but for what the kernel counts up.
    first: usize,
    last: usize,
    count: usize,
    /// What the next packet has to be like; `None` if nothing may join any more.
    open: Option<Open>,
    shape: Shape,
    /// Whether its last packet asked to be handed on at once.
    psh: bool,
    /// The length of the whole as one packet.
    len: usize,
}

/// The lengths that all packets of a run share. Meaningless for what can't be joined.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Shape {
    transport_at: usize,
    /// IP and transport header.
    headers: usize,
}

/// What a run that still grows knows of its next packet.
#[derive(Clone, Copy, Debug)]
struct Open {
    /// The largest payload.
    size: usize,
    /// The TCP sequence number; zero for UDP.
    sequence: u32,
}

/// What stays the same in a flow. What differs most comes first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Flow {
    ports: (Option<u16>, Option<u16>),
    transport: Transport,
    source: IpAddr,
    destination: IpAddr,
}

impl Runs {
    /// Creates it empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets all packets and keeps the memory.
    pub fn clear(&mut self) {
        self.runs.clear();
        self.packets.clear();
    }

    /// Adds the packet that lies at `range` of `memory`, the batch's memory.
    ///
    /// The order of adding is the order of arrival. Nothing is added if `memory` has no such range. Until
    /// [`clear`](Self::clear), all calls have to see the same bytes in what was added.
    pub fn push(&mut self, memory: &[u8], range: Range<usize>, joins: Joins) {
        let Some(bytes) = memory.get(range.clone()) else {
            return;
        };
        let packet = Packet::parse_any_size(bytes).ok();
        let flow = packet.as_ref().and_then(Flow::of);
        let candidate = packet.as_ref().and_then(|p| Candidate::judge(p, joins));

        let link = self.packets.len();
        let next = None;
        if let (Some(flow), Some(candidate)) = (&flow, &candidate)
            && let Some(run) = self.latest_run(memory, flow, candidate, bytes)
        {
            let before = run.last;
            run.add(link, candidate);
            if let Some(before) = self.packets.get_mut(before) {
                before.next = Some(link);
            }
        } else {
            self.runs.push(Run::new(link, flow, candidate, bytes.len()));
        }
        self.packets.push(Link { range, next });
    }

    /// The number of runs.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether there is no run.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Hands run `n` to `f`: the device's header, and the parts to write behind it, in order.
    ///
    /// The first part is the IP and transport header of the whole run, each other one a payload, at most
    /// [`MAX_PACKETS`]. A packet alone is one untouched part under the default header. `None` if there is no run `n`, or
    /// its packets don't lie in `memory`.
    pub fn with_parts<R>(
        &self,
        n: usize,
        memory: &[u8],
        f: impl FnOnce(VirtioHeader, &[IoSlice<'_>]) -> R,
    ) -> Option<R> {
        let run = self.runs.get(n)?;
        let first = memory.get(self.packets.get(run.first)?.range.clone())?;
        if run.count == 1 {
            return Some(f(VirtioHeader::default(), &[IoSlice::new(first)]));
        }

        let mut headers = [0; MAX_HEADERS];
        let headers = headers.get_mut(..run.shape.headers)?;
        headers.copy_from_slice(first.get(..run.shape.headers)?);
        let header = run.describe(headers, first.len() - run.shape.headers)?;

        let mut parts = [IoSlice::new(&[]); 1 + MAX_PACKETS];
        let (head, payloads) = parts.split_first_mut()?;
        *head = IoSlice::new(headers);
        for (part, range) in payloads.iter_mut().zip(self.packets(n)) {
            *part = IoSlice::new(memory.get(range.start + run.shape.headers..range.end)?);
        }

        Some(f(header, parts.get(..=run.count)?))
    }

    /// The packets of run `n`, for a device that refused it whole.
    pub fn packets(&self, n: usize) -> impl Iterator<Item = Range<usize>> {
        let link = |n: usize| self.packets.get(n);
        let first = self.runs.get(n).and_then(|run| link(run.first));

        std::iter::successors(first, move |before| before.next.and_then(link))
            .map(|link| link.range.clone())
    }

    /// The most recent run of `flow`, if the candidate fits behind it.
    fn latest_run(
        &mut self,
        memory: &[u8],
        flow: &Flow,
        candidate: &Candidate,
        bytes: &[u8],
    ) -> Option<&mut Run> {
        let mut recent = self.runs.iter_mut().rev().take(LOOK_BACK);
        let run = recent.find(|run| run.flow.as_ref() == Some(flow))?;
        let first = memory.get(self.packets.get(run.first)?.range.clone())?;

        (run.has_room_for(candidate) && same_headers(first, bytes, flow, run.shape)?).then_some(run)
    }
}

impl Run {
    fn new(link: usize, flow: Option<Flow>, candidate: Option<Candidate>, len: usize) -> Self {
        Self {
            flow,
            first: link,
            last: link,
            count: 1,
            open: candidate.as_ref().and_then(|c| c.followed_by(c.payload)),
            shape: candidate.as_ref().map(|c| c.shape).unwrap_or_default(),
            psh: candidate.is_some_and(|c| c.psh),
            len,
        }
    }

    fn has_room_for(&self, candidate: &Candidate) -> bool {
        self.open.is_some_and(|open| {
            candidate.payload <= open.size && candidate.sequence == open.sequence
        }) && candidate.shape == self.shape
            && self.len + candidate.payload <= MAX_LEN
            && self.count < MAX_PACKETS
    }

    fn add(&mut self, link: usize, candidate: &Candidate) {
        self.last = link;
        self.count += 1;
        self.len += candidate.payload;
        self.psh = candidate.psh;
        self.open = self.open.and_then(|open| candidate.followed_by(open.size));
    }

    /// Makes the headers of the whole out of the first packet's, and says what the device has to know.
    fn describe(&self, headers: &mut [u8], size: usize) -> Option<VirtioHeader> {
        let flow = self.flow?;
        let at = self.shape.transport_at;
        let transport_len = self.len.checked_sub(at)?;
        let number = match flow.transport {
            Transport::Tcp => protocol::TCP,
            Transport::Udp => protocol::UDP,
            Transport::Icmp | Transport::Other(_) => return None,
        };

        if flow.source.is_ipv4() {
            put(headers, 2, word(self.len)?)?;
            put(headers, 10, 0)?;
            let checksum = Sum::default().bytes(headers.get(..at)?).checksum();
            put(headers, 10, checksum)?;
        } else {
            put(headers, 4, word(transport_len)?)?;
        }

        let (kind, csum_offset) = match (flow.transport, flow.source) {
            (Transport::Tcp, source) => {
                if self.psh {
                    *headers.get_mut(at + 13)? |= PSH;
                }
                let kind = match source {
                    IpAddr::V4(_) => VirtioHeader::GSO_TCPV4,
                    IpAddr::V6(_) => VirtioHeader::GSO_TCPV6,
                };
                (kind, 16)
            }
            _ => {
                put(headers, at + 4, word(transport_len)?)?;
                (VirtioHeader::GSO_UDP_L4, 6)
            }
        };
        // Each segment's sum begins with it; the device adds the rest and takes the complement.
        let sum = pseudo_header(flow.source, flow.destination, number, transport_len).folded();
        put(headers, at + usize::from(csum_offset), sum)?;

        Some(VirtioHeader {
            flags: VirtioHeader::NEEDS_CSUM,
            gso_type: kind,
            hdr_len: word(self.shape.headers)?,
            gso_size: word(size)?,
            csum_start: word(at)?,
            csum_offset,
        })
    }
}

impl Flow {
    fn of(packet: &Packet<&[u8]>) -> Option<Self> {
        let transport = packet.transport();

        matches!(transport, Transport::Tcp | Transport::Udp).then(|| Self {
            ports: (packet.source_port(), packet.destination_port()),
            transport,
            source: packet.source(),
            destination: packet.destination(),
        })
    }
}

/// A packet that may be in a run: nothing about it would be lost there.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    shape: Shape,
    payload: usize,
    /// TCP's; zero for UDP.
    sequence: u32,
    psh: bool,
    is_tcp: bool,
}

impl Candidate {
    fn judge(packet: &Packet<&[u8]>, joins: Joins) -> Option<Self> {
        let is_tcp = match packet.transport() {
            Transport::Tcp if joins.tcp => true,
            Transport::Udp if joins.udp => false,
            Transport::Tcp | Transport::Udp | Transport::Icmp | Transport::Other(_) => return None,
        };
        let plain_at = match packet.version() {
            Version::V4 => 20,
            Version::V6 => 40,
        };
        let transport_at = packet.transport_at();
        let payload = packet.payload().len();
        if transport_at != plain_at || payload == 0 {
            return None;
        }

        let header = packet.transport_bytes();
        let (sequence, psh) = if is_tcp {
            let [_, _, _, _, s0, s1, s2, s3, _, _, _, _, offset, flags] = *header.first_chunk()?;
            if offset & 0x0F != 0 || flags & !PSH != ACK {
                return None;
            }
            (u32::from_be_bytes([s0, s1, s2, s3]), flags & PSH != 0)
        } else {
            // Zero says that there is no checksum to verify.
            let [_, _, _, _, _, _, c0, c1] = *header.first_chunk()?;
            if [c0, c1] == [0, 0] {
                return None;
            }
            (0, false)
        };

        packet.checksums_match().then(|| Self {
            shape: Shape {
                transport_at,
                headers: packet.bytes().len() - payload,
            },
            payload,
            sequence,
            psh,
            is_tcp,
        })
    }

    /// What may follow it in a run of payloads of `size`; nothing behind PSH or a short one.
    fn followed_by(&self, size: usize) -> Option<Open> {
        let sequence = if self.is_tcp {
            // Within one packet: the cast keeps the value.
            self.sequence.wrapping_add(self.payload as u32)
        } else {
            0
        };

        (!self.psh && self.payload == size).then_some(Open { size, sequence })
    }
}

/// Whether two packets of a flow agree in all that cutting a run doesn't restore.
fn same_headers(first: &[u8], bytes: &[u8], flow: &Flow, shape: Shape) -> Option<bool> {
    let same = |range: Range<usize>| Some(first.get(range.clone())? == bytes.get(range)?);
    let ip = if flow.source.is_ipv4() {
        // Traffic class; fragment flags, time to live.
        same(0..2)? && same(6..9)?
    } else {
        let class = |bytes: &[u8]| Some(u16::from_be_bytes(*bytes.first_chunk()?) & 0xFFF0);
        class(first)? == class(bytes)? && same(7..8)?
    };
    let at = shape.transport_at;
    // Acknowledgement and header length; window; urgent pointer and options.
    let tcp = flow.transport != Transport::Tcp
        || same(at + 8..at + 13)? && same(at + 14..at + 16)? && same(at + 18..shape.headers)?;

    Some(ip && tcp)
}

fn word(len: usize) -> Option<u16> {
    u16::try_from(len).ok()
}

fn put(bytes: &mut [u8], at: usize, value: u16) -> Option<()> {
    *bytes.get_mut(at..)?.first_chunk_mut()? = value.to_be_bytes();

    Some(())
}

#[cfg(test)]
mod tests;
