//! What is on the cables of a namespace: a packet(7) socket that sees every frame.

use std::io::{ErrorKind, Read};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use connlib_os::namespace::{Namespace, run_in};
use connlib_wire::channel;
use connlib_wire::stun::Message;
use socket2::{Domain, Protocol, Socket, Type};

/// Every protocol, in network byte order (if_ether.h: ETH_P_ALL).
const ALL_PROTOCOLS: i32 = (3_u16.to_be()) as i32;

/// Two addresses and the protocol of what follows.
const ETHERNET_HEADER: usize = 14;

const IPV6_HEADER: usize = 40;

/// The protocol's number.
const UDP: u8 = 17;

/// Ports, length, checksum.
const UDP_HEADER: usize = 8;

/// What a path of 1500 bytes carries in one datagram at most.
const MAX_DATAGRAM: usize = 1_472;

/// Reads frames on a thread of its own until it is stopped.
pub(crate) struct Capture {
    stop: Arc<AtomicBool>,
    frames: JoinHandle<Vec<Vec<u8>>>,
}

impl Capture {
    /// Begins to read on all interfaces of `namespace`.
    pub(crate) fn start(namespace: &Namespace) -> Self {
        let open = || {
            Socket::new(
                Domain::PACKET,
                Type::RAW,
                Some(Protocol::from(ALL_PROTOCOLS)),
            )
        };
        let mut socket = run_in(namespace, open).unwrap().unwrap();
        socket.set_recv_buffer_size(8 << 20).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let frames = std::thread::spawn(move || {
            let mut frames = Vec::new();
            let mut buf = vec![0; 1 << 17];
            loop {
                match socket.read(&mut buf) {
                    Ok(len) => frames.push(buf[..len].to_vec()),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        if stopped.load(Ordering::Relaxed) {
                            return frames;
                        }
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        });

        Self { stop, frames }
    }

    /// What was on the cables.
    pub(crate) fn stop(self) -> Vec<Vec<u8>> {
        self.stop.store(true, Ordering::Relaxed);

        self.frames.join().unwrap()
    }
}

/// An IP packet in a frame, as far as it matters here.
#[derive(Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// What a UDP packet carries; the kernel shows a train of datagrams as one packet of up to 64 KiB.
    pub(crate) udp: Option<&'a [u8]>,
}

/// Reads a frame; `None` for ARP, and it is an error to be anything else but IP.
pub(crate) fn read(frame: &[u8]) -> Option<Seen<'_>> {
    let packet = &frame[ETHERNET_HEADER..];
    let u16_at = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    match [frame[12], frame[13]] {
        [0x08, 0x06] => None,
        [0x08, 0x00] => {
            let address = |at: usize| <[u8; 4]>::try_from(&packet[at..at + 4]).unwrap().into();
            let header_len = usize::from(packet[0] & 0xf) * 4;
            assert_eq!(u16_at(6) & 0x3fff, 0, "a fragment");
            Some(Seen {
                source: address(12),
                destination: address(16),
                udp: udp_of(packet[9], &packet[header_len..usize::from(u16_at(2))]),
            })
        }
        [0x86, 0xdd] => {
            let address = |at: usize| <[u8; 16]>::try_from(&packet[at..at + 16]).unwrap().into();
            let end = IPV6_HEADER + usize::from(u16_at(4));
            Some(Seen {
                source: address(8),
                destination: address(24),
                udp: udp_of(packet[6], &packet[IPV6_HEADER..end]),
            })
        }
        other => panic!("a frame of the protocol {other:02x?}"),
    }
}

fn udp_of(protocol: u8, bytes: &[u8]) -> Option<&[u8]> {
    (protocol == UDP).then(|| &bytes[UDP_HEADER..])
}

/// The kinds of the datagrams that a UDP packet carries.
pub(crate) fn kinds_of(payload: &[u8]) -> Vec<Kind> {
    let kind = |datagram: &[u8]| {
        kind_of(datagram).unwrap_or_else(|| {
            let start = &datagram[..datagram.len().min(32)];
            panic!("{} bytes of nothing known: {start:02x?}", datagram.len())
        })
    };

    datagrams(payload).map(kind).collect()
}

/// What a datagram is; it is an error to be none of these.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Kind {
    Stun,
    ChannelData,
    WireGuard,
}

fn kind_of(datagram: &[u8]) -> Option<Kind> {
    if Message::parse(datagram).is_ok() {
        return Some(Kind::Stun);
    }
    if is_wireguard(datagram) {
        return Some(Kind::WireGuard);
    }

    // What a relay carries is one of the others.
    let (_, inner) = channel::decode(datagram)?;
    (Message::parse(inner).is_ok() || is_wireguard(inner)).then_some(Kind::ChannelData)
}

/// By kind and length (the WireGuard paper, §5.4).
fn is_wireguard(datagram: &[u8]) -> bool {
    match (datagram.first_chunk::<4>(), datagram.len()) {
        (Some([1, 0, 0, 0]), 148) | (Some([2, 0, 0, 0]), 92) | (Some([3, 0, 0, 0]), 64) => true,
        (Some([4, 0, 0, 0]), len) => len >= 32,
        _ => false,
    }
}

/// Splits what may be a train: equal datagrams, the last one maybe shorter.
fn datagrams(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    let step = match payload.len() > MAX_DATAGRAM {
        true => segment_len(payload),
        false => payload.len(),
    };

    payload.chunks(step.max(1))
}

fn segment_len(train: &[u8]) -> usize {
    if let Some(&[0x40..=0x7f, _, high, low]) = train.first_chunk::<4>() {
        return channel::HEADER_LEN + usize::from(u16::from_be_bytes([high, low]));
    }

    // All data messages of a session begin with the same kind and receiver.
    let head = &train[..8];
    let next = train[1..].windows(8).position(|bytes| bytes == head);
    next.map_or(train.len(), |position| position + 1)
}
