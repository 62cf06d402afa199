//! What becomes of a train of datagrams.

use std::net::SocketAddr;

use connlib_wire::channel::{self, ChannelNumber};
use connlib_wire::ecn::Ecn;
use connlib_wire::stun::{self, Family};
use connlib_wire::train::{Arrival, Route};

use crate::config::AllocationPort;
use crate::stats::DropReason;

/// What becomes of a train.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use = "data moves only if the caller moves it"]
pub enum Verdict {
    /// It held requests or indications, or leaves in indications: answers, commands and copied data may wait to be polled.
    Handled,
    /// It is data: send all of it on.
    Forward(Forward),
    /// It goes nowhere.
    Drop(DropReason),
    /// Its datagrams differ and nothing was done yet: hand over each of its [`runs`] instead. A single datagram never
    /// gets this verdict, nor does a run.
    Mixed,
}

/// Where data goes, and in what shape.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Forward {
    /// The socket that sends it.
    pub via: Via,
    /// The address to send from; `None` leaves the choice to the operating system.
    pub src: Option<SocketAddr>,
    /// The address to send to.
    pub to: SocketAddr,
    /// The mark of the train, carried on in both directions.
    pub ecn: Ecn,
    /// How many bytes to take off the front of each datagram: zero, or a channel header.
    pub strip: usize,
    /// The channel whose header goes in front of each payload.
    pub channel: Option<ChannelNumber>,
    /// The length in bytes of each payload but the last, which may be shorter.
    pub segment_size: usize,
}

/// One of the caller's sockets.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Via {
    /// The one on the listen port.
    Listen(Family),
    /// The one on an allocation's port.
    Allocation(AllocationPort, Family),
}

impl Forward {
    /// The payloads of the `arrival` that this verdict was given for, in order: headers and padding are left out.
    pub fn payloads<'a>(&self, arrival: &Arrival<'a>) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let strip = self.strip;

        arrival.datagrams().filter_map(move |datagram| {
            if strip == 0 {
                Some(datagram)
            } else {
                channel::decode(datagram).map(|(_, payload)| payload)
            }
        })
    }

    /// The header in front of one of the payloads; `None` if the datagrams go without.
    pub fn header(&self, payload: &[u8]) -> Option<[u8; channel::HEADER_LEN]> {
        channel::header(self.channel?, payload.len())
    }

    /// Where it goes, in the form of a [`Transmit`](connlib_wire::train::Transmit).
    pub fn route(&self) -> Route {
        Route {
            src: self.src,
            dst: self.to,
            ecn: self.ecn,
        }
    }
}

/// Splits a train from a client into runs of datagrams that get the same verdict, in order.
///
/// ```
/// use connlib_relay::runs;
/// # use connlib_wire::{ecn::Ecn, train::Arrival};
///
/// let arrival = Arrival {
///     from: "198.51.100.7:50000".parse()?,
///     to: "203.0.113.9:3478".parse()?,
///     ecn: Ecn::NotEct,
///     stride: 5,
///     bytes: b"\x40\x00\x00\x01a\x40\x00\x00\x01b\x40\x01\x00\x01c",
/// };
/// let lengths: Vec<_> = runs(&arrival).map(|run| run.bytes.len()).collect();
/// assert_eq!(lengths, [10, 5]);
/// # Ok::<_, std::net::AddrParseError>(())
/// ```
pub fn runs<'a>(arrival: &Arrival<'a>) -> impl Iterator<Item = Arrival<'a>> + use<'a> {
    let mut rest = *arrival;

    std::iter::from_fn(move || {
        if rest.bytes.is_empty() {
            return None;
        }
        let (_, length) = leading_run(&rest)?;
        let (bytes, left) = rest.bytes.split_at_checked(length)?;
        rest.bytes = left;

        Some(Arrival { bytes, ..rest })
    })
}

/// The first bytes that channel data may have: those of all numbers that channels had in the standard (RFC 5766 §11). RFC 7983
/// leaves fewer of them, but no other protocol comes to a relay.
const CHANNELS: std::ops::RangeInclusive<u8> = 0x40..=0x7F;

/// What the datagrams of a run have in common.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Stun,
    ChannelData {
        number: ChannelNumber,
        payload_len: usize,
    },
    BrokenChannelData,
    Unknown,
}

impl Kind {
    fn of(datagram: &[u8]) -> Self {
        if stun::is_stun_prefix(datagram) {
            return Self::Stun;
        }
        let first = datagram.first().copied().unwrap_or_default();
        if !CHANNELS.contains(&first) {
            return Self::Unknown;
        }

        channel::decode(datagram).map_or(Self::BrokenChannelData, |(number, payload)| {
            Self::ChannelData {
                number,
                payload_len: payload.len(),
            }
        })
    }
}

/// The kind of the first run and its length in bytes; `None` if nothing is left.
///
/// Channel data forms a run as long as the payloads can leave as one train: equal in size, only the last one shorter. An
/// empty payload would vanish in a train and so is always a run of its own.
pub(crate) fn leading_run(arrival: &Arrival<'_>) -> Option<(Kind, usize)> {
    let mut datagrams = arrival.datagrams();
    let first = datagrams.next()?;
    let kind = Kind::of(first);
    let mut length = first.len();

    for datagram in datagrams {
        let next = Kind::of(datagram);
        if next == kind && !is_empty_data(kind) {
            length += datagram.len();
            continue;
        }
        if ends_run(kind, next) {
            length += datagram.len();
        }
        break;
    }

    Some((kind, length))
}

fn is_empty_data(kind: Kind) -> bool {
    matches!(kind, Kind::ChannelData { payload_len: 0, .. })
}

fn ends_run(run: Kind, last: Kind) -> bool {
    let (
        Kind::ChannelData {
            number,
            payload_len,
        },
        Kind::ChannelData {
            number: last_number,
            payload_len: last_len,
        },
    ) = (run, last)
    else {
        return false;
    };

    number == last_number && (1..payload_len).contains(&last_len)
}
