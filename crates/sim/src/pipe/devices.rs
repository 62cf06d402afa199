//! Devices that move bytes between buffers made beforehand.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use connlib_os::tun::{Joins, Tun};
use connlib_os::udp::{Backlog, Outgoing, Payload, RecvBatch, Udp};
use connlib_wire::buffer::Pool;
use connlib_wire::ecn::Ecn;
use connlib_wire::ip;
use connlib_wire::offload::VirtioHeader;
use connlib_wire::train::Arrival;

use super::portal::{CLIENT_V4, CLIENT_V6, GATEWAY_V6};
use super::{Carried, Direction};

/// How many trains may be on their way at once.
const TRAINS: usize = 512;

/// The longest train.
const TRAIN_BYTES: usize = 65_536;

/// What flows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shape {
    /// Super-packets of 49 segments of TCP over IPv4.
    StreamV4,
    /// The same over IPv6.
    StreamV6,
    /// Single datagrams of 1,200 bytes, over IPv4.
    Datagram,
}

/// The packets that a TUN device has to give.
#[derive(Debug)]
pub struct Load {
    header: VirtioHeader,
    bytes: Vec<u8>,
    /// Where the number of a stream's first byte lies.
    sequence_at: Option<usize>,
    payload_len: u32,
    left: usize,
}

/// Segments of a super-packet, and the payload of each: with IPv6's header it just fits.
const SEGMENTS: usize = 49;
const PAYLOAD: usize = 1_220;

/// A host in the network behind the gateway.
const HOST_V4: [u8; 4] = [10, 20, 0, 10];

impl Load {
    /// `reads` packets or super-packets of one flow.
    pub fn new(shape: Shape, direction: Direction, reads: usize) -> Self {
        let (client, host): (IpAddr, IpAddr) = match shape {
            Shape::StreamV4 | Shape::Datagram => (CLIENT_V4.into(), HOST_V4.into()),
            Shape::StreamV6 => (CLIENT_V6.into(), GATEWAY_V6.into()),
        };
        let (from, to) = match direction {
            Direction::Up => (client, host),
            Direction::Down => (host, client),
        };
        match shape {
            Shape::Datagram => {
                let packet = ip::udp(
                    &Pool::new(2_048, 1),
                    SocketAddr::new(from, 4_000),
                    SocketAddr::new(to, 5_000),
                    &[0xA5; 1_200],
                );
                Self {
                    header: VirtioHeader::default(),
                    bytes: packet
                        .map(|packet| packet.bytes().to_vec())
                        .unwrap_or_default(),
                    sequence_at: None,
                    payload_len: 0,
                    left: reads,
                }
            }
            Shape::StreamV4 | Shape::StreamV6 => Self::stream(from, to, reads),
        }
    }

    /// The next super-packet or packet; a stream goes on where the one before ended.
    pub fn next_read(&mut self) -> Option<(VirtioHeader, &[u8])> {
        self.left = self.left.checked_sub(1)?;
        if let Some(field) = self
            .sequence_at
            .and_then(|at| self.bytes.get_mut(at..at + 4))
        {
            let next = u32::from_be_bytes([field[0], field[1], field[2], field[3]])
                .wrapping_add(self.payload_len);
            field.copy_from_slice(&next.to_be_bytes());
        }

        Some((self.header, &self.bytes))
    }

    fn stream(from: IpAddr, to: IpAddr, reads: usize) -> Self {
        let payload = SEGMENTS * PAYLOAD;
        let transport_len = 20 + payload;
        let (mut bytes, gso_type) = match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let [l0, l1] = ((20 + transport_len) as u16).to_be_bytes();
                let mut header = vec![0x45, 0, l0, l1, 0, 1, 0x40, 0, 64, 6, 0, 0];
                header.extend(from.octets());
                header.extend(to.octets());
                (header, VirtioHeader::GSO_TCPV4)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let [l0, l1] = (transport_len as u16).to_be_bytes();
                let mut header = vec![0x60, 0, 0, 0, l0, l1, 6, 64];
                header.extend(from.octets());
                header.extend(to.octets());
                (header, VirtioHeader::GSO_TCPV6)
            }
            _ => panic!("both ends are of one family"),
        };
        let ip_len = bytes.len();
        // Ports, number, acknowledgement, offset and ACK, window, checksum, urgent pointer.
        bytes.extend([
            0x0F, 0xA0, 0x13, 0x88, 0, 0, 0, 0, 0, 0, 0, 1, 0x50, 0x10, 0xFF, 0xFF,
        ]);
        bytes.extend([0, 0, 0, 0]);
        bytes.extend(std::iter::repeat_n(0x5A, payload));

        Self {
            header: VirtioHeader {
                flags: VirtioHeader::NEEDS_CSUM,
                gso_type,
                hdr_len: (ip_len + 20) as u16,
                gso_size: PAYLOAD as u16,
                csum_start: ip_len as u16,
                csum_offset: 16,
            },
            bytes,
            sequence_at: Some(ip_len + 4),
            payload_len: payload as u32,
            left: reads,
        }
    }
}

/// A TUN device that gives what it was loaded with and counts what it is given.
#[derive(Debug, Default)]
pub(super) struct PipeTun {
    load: Option<Load>,
    pub(super) carried: Carried,
}

impl PipeTun {
    pub(super) fn load(&mut self, load: Load) {
        self.load = Some(load);
    }
}

impl Tun for PipeTun {
    fn name(&self) -> &str {
        "pipe"
    }

    fn joins(&self) -> Joins {
        Joins {
            tcp: true,
            udp: true,
        }
    }

    fn read(&mut self, buf: &mut [u8]) -> io::Result<(VirtioHeader, usize)> {
        let Some((header, bytes)) = self.load.as_mut().and_then(Load::next_read) else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        buf[..bytes.len()].copy_from_slice(bytes);

        Ok((header, bytes.len()))
    }

    fn write(&mut self, header: VirtioHeader, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let packets = match usize::from(header.gso_size) {
            0 => 1,
            size => (len - usize::from(header.hdr_len)).div_ceil(size),
        };
        self.carried.writes += 1;
        self.carried.packets += packets as u64;
        self.carried.bytes += len as u64;

        Ok(())
    }
}

/// A train on its way.
#[derive(Debug)]
pub(super) struct Train {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    ecn: Ecn,
    stride: usize,
    bytes: Vec<u8>,
}

/// What lies between the sockets: trains on their way, and memory for others.
#[derive(Clone, Debug)]
pub(super) struct Cables(Rc<RefCell<Trains>>);

#[derive(Debug)]
struct Trains {
    on_their_way: VecDeque<Train>,
    spare: Vec<Train>,
}

impl Cables {
    pub(super) fn new() -> Self {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let spare = (0..TRAINS).map(|_| Train {
            from: nowhere,
            to: nowhere,
            ecn: Ecn::NotEct,
            stride: 0,
            bytes: Vec::with_capacity(TRAIN_BYTES),
        });

        Self(Rc::new(RefCell::new(Trains {
            on_their_way: VecDeque::with_capacity(TRAINS),
            spare: spare.collect(),
        })))
    }

    pub(super) fn next(&self) -> Option<Train> {
        self.0.borrow_mut().on_their_way.pop_front()
    }

    pub(super) fn give_back(&self, train: Train) {
        self.0.borrow_mut().spare.push(train);
    }

    fn blank(&self) -> Option<Train> {
        self.0.borrow_mut().spare.pop()
    }

    fn launch(&self, train: Train) {
        self.0.borrow_mut().on_their_way.push_back(train);
    }
}

/// A socket at the end of the cables.
#[derive(Debug)]
pub(super) struct PipeUdp {
    local: SocketAddr,
    cables: Cables,
    inbox: VecDeque<Train>,
}

impl PipeUdp {
    pub(super) fn new(local: SocketAddr, cables: &Cables) -> Self {
        Self {
            local,
            cables: cables.clone(),
            inbox: VecDeque::with_capacity(TRAINS),
        }
    }

    pub(super) fn receive(&mut self, train: Train) {
        self.inbox.push_back(train);
    }
}

impl Udp for PipeUdp {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn send(&mut self, trains: &[Outgoing<'_>]) -> io::Result<usize> {
        let mut taken = 0;
        for outgoing in trains {
            let Some(mut train) = self.cables.blank() else {
                break;
            };
            train.from = outgoing.route.src.unwrap_or(self.local);
            train.to = outgoing.route.dst;
            train.ecn = outgoing.route.ecn;
            train.stride = outgoing.segment_size;
            train.bytes.clear();
            match outgoing.payload {
                Payload::Contiguous(bytes) => {
                    let start = outgoing.first * outgoing.segment_size;
                    train
                        .bytes
                        .extend_from_slice(&bytes[start.min(bytes.len())..]);
                }
                Payload::Gathered {
                    parts,
                    per_datagram,
                } => {
                    for part in parts.iter().skip(outgoing.first * per_datagram) {
                        train.bytes.extend_from_slice(part);
                    }
                }
            }
            taken += outgoing.left();
            self.cables.launch(train);
        }
        if taken == 0 && !trains.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }

        Ok(taken)
    }

    fn recv(&mut self, batch: &mut RecvBatch) -> io::Result<usize> {
        batch.clear();
        if self.inbox.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        while batch.len() < batch.capacity() {
            let Some(train) = self.inbox.pop_front() else {
                break;
            };
            let arrival = Arrival {
                from: train.from,
                to: train.to,
                ecn: train.ecn,
                stride: train.stride,
                bytes: &train.bytes,
            };
            let pushed = batch.push(arrival);
            self.cables.give_back(train);
            pushed.map_err(io::Error::other)?;
        }

        Ok(batch.len())
    }

    fn backlog(&self) -> io::Result<Backlog> {
        Ok(Backlog::default())
    }
}
