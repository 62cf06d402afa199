//! ICMP echo (RFC 792) through the tunnel.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use connlib_os::clock::Clock;
use connlib_os::namespace::{Namespace, run_in};
use socket2::{Domain, Protocol, Socket, Type};

use crate::exit::Failure;

/// Sends echo requests to one host and waits for its replies, one at a time.
#[derive(Debug)]
pub(crate) struct Pinger {
    socket: Socket,
    clock: Clock,
    sequence: u16,
}

/// A reply.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reply {
    /// When the request left.
    pub(crate) sent_at: Instant,
    /// When the reply came.
    pub(crate) came_at: Instant,
}

impl Reply {
    pub(crate) fn rtt(&self) -> Duration {
        self.came_at - self.sent_at
    }
}

/// What each echo carries. It is on no wire but inside of the tunnel.
pub(crate) const MARKER: &[u8; 32] = b"connlib demo: inner bytes, clear";

/// Tells our echoes from others'.
const ID: u16 = 0xc0;

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;

/// Type, code, checksum, identifier, sequence number.
const HEADER_LEN: usize = 8;

impl Pinger {
    /// Opens a socket inside `namespace`.
    ///
    /// # Errors
    ///
    /// Exit 5: raw sockets are not allowed, or there is no route to the host.
    pub(crate) fn open(namespace: &Namespace, host: Ipv4Addr) -> Result<Self, Failure> {
        let open = || {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
            socket.connect(&SocketAddr::new(IpAddr::V4(host), 0).into())?;
            Ok(socket)
        };
        let socket = run_in(namespace, open)?
            .map_err(|error: io::Error| Failure::os(format_args!("ping {host}"), &error))?;

        Ok(Self {
            socket,
            clock: Clock::new(),
            sequence: 0,
        })
    }

    /// Sends one request and waits for its reply; `None` if there is none in time.
    ///
    /// # Errors
    ///
    /// The socket failed. That the host can't be reached now is none.
    pub(crate) fn ping(&mut self, patience: Duration) -> io::Result<Option<Reply>> {
        self.sequence = self.sequence.wrapping_add(1);
        let sent_at = self.clock.now();
        let deadline = sent_at + patience;
        match self.socket.write(&request(self.sequence)) {
            Err(error) if is_unreachable(&error) => {}
            result => drop(result?),
        }

        let mut packet = [0; 1_500];
        loop {
            let left = deadline.saturating_duration_since(self.clock.now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left))?;
            let len = match self.socket.read(&mut packet) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if is_unreachable(&error) => continue,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            };
            let came_at = self.clock.now();
            if sequence_of_reply(packet.get(..len).unwrap_or_default()) == Some(self.sequence) {
                return Ok(Some(Reply { sent_at, came_at }));
            }
        }
    }
}

fn is_unreachable(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::PermissionDenied
    )
}

fn request(sequence: u16) -> Vec<u8> {
    let message = |checksum: u16| {
        [
            &[ECHO_REQUEST, 0],
            &checksum.to_be_bytes()[..],
            &ID.to_be_bytes(),
            &sequence.to_be_bytes(),
            MARKER,
        ]
        .concat()
    };

    message(checksum(&message(0)))
}

/// The sequence number of a reply to one of our requests; `packet` begins with its IPv4 header.
fn sequence_of_reply(packet: &[u8]) -> Option<u16> {
    let header_len = usize::from(packet.first()? & 0xf) * 4;
    let message = packet.get(header_len..)?;
    let (&[kind, _, _, _, id_high, id_low, high, low], payload) =
        message.split_first_chunk::<HEADER_LEN>()?;
    let is_ours = kind == ECHO_REPLY
        && u16::from_be_bytes([id_high, id_low]) == ID
        && payload == MARKER
        && checksum(message) == 0;

    is_ours.then(|| u16::from_be_bytes([high, low]))
}

/// The internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        let high = pair.first().copied().unwrap_or_default();
        let low = pair.get(1).copied().unwrap_or_default();
        sum += u32::from(u16::from_be_bytes([high, low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }

    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_to_our_request_is_known_by_its_number() {
        let mut reply = request(7);
        reply[0] = ECHO_REPLY;
        reply[2..4].fill(0);
        let sum = checksum(&reply);
        reply[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut packet = vec![0x45; 20];
        packet.extend(&reply);

        assert_eq!(sequence_of_reply(&packet), Some(7));
        for len in 0..packet.len() {
            assert_eq!(sequence_of_reply(&packet[..len]), None);
        }
        packet[20] = ECHO_REQUEST;
        assert_eq!(sequence_of_reply(&packet), None);
    }
}
