//! Trains on their way out.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::ops::Range;

use connlib_wire::train::{self, Route, Transmit};

/// One train to send, or what is left of it.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Where it goes.
    pub route: Route,
    /// The size of each datagram but the last, which may be shorter. Never zero.
    pub segment_size: usize,
    /// The datagrams of the whole train.
    pub payload: Payload<'a>,
    /// The first datagram that hasn't left yet.
    pub first: usize,
}

/// Where the bytes of a train lie.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// All datagrams, one behind the other.
    Contiguous(&'a [u8]),
    /// Datagrams in parts, in order; nothing is copied to send them.
    Gathered {
        /// The parts of all datagrams.
        parts: &'a [IoSlice<'a>],
        /// How many parts each datagram has: one, or two (a header and a payload, say).
        per_datagram: usize,
    },
}

impl<'a> Outgoing<'a> {
    /// What is left of `train` from the datagram number `first` on.
    pub fn new(train: &'a Transmit, first: usize) -> Self {
        Self {
            route: train.route,
            segment_size: train.segment_size,
            payload: Payload::Contiguous(&train.payload),
            first,
        }
    }

    /// The number of datagrams of the whole train.
    pub fn segments(&self) -> usize {
        match self.payload {
            Payload::Contiguous(bytes) => train::segments(bytes.len(), self.segment_size),
            Payload::Gathered {
                parts,
                per_datagram,
            } => parts.len().div_ceil(per_datagram.max(1)),
        }
    }

    /// The number of datagrams that haven't left yet.
    pub fn left(&self) -> usize {
        self.segments().saturating_sub(self.first)
    }

    /// How many of the datagrams that are left an error of [`Udp::send`](super::Udp::send) concerns, if this is the
    /// first train of which any are left: so many to drop before the next attempt.
    ///
    /// All but a shorter last one if they are too large for the path; all if there is no way to where they go; none if
    /// the socket is full; one in any other case.
    pub fn lost_to(&self, error: &io::Error) -> usize {
        let left = self.left();
        if error.kind() == io::ErrorKind::WouldBlock {
            0
        } else if means_no_way(error) {
            left
        } else if is_too_large(error) && left > 1 {
            let last = self.datagram_len(self.segments().saturating_sub(1));
            left - usize::from(last < self.segment_size)
        } else {
            left.min(1)
        }
    }

    /// Whether its addresses are of the family of a socket that is bound to `local`.
    pub(crate) fn suits(&self, local: SocketAddr) -> bool {
        let same_family = |addr: SocketAddr| addr.is_ipv4() == local.is_ipv4();

        same_family(self.route.dst) && self.route.src.is_none_or(same_family)
    }

    /// The bytes of some of its datagrams; `None` if those don't have the sizes that a train's must have.
    pub(crate) fn slice(&self, range: Range<usize>) -> Option<Payload<'a>> {
        let size = self.segment_size.max(1);
        match self.payload {
            Payload::Contiguous(bytes) => {
                let end = range.end.saturating_mul(size).min(bytes.len());

                bytes
                    .get(range.start.saturating_mul(size)..end)
                    .map(Payload::Contiguous)
            }
            Payload::Gathered {
                parts,
                per_datagram,
            } => {
                let per_datagram = per_datagram.max(1);
                let end = range.end.saturating_mul(per_datagram).min(parts.len());
                let slice = parts.get(range.start.saturating_mul(per_datagram)..end)?;
                let last = self.segments().saturating_sub(1);
                // A datagram without contents is a train of its own.
                let least = usize::from(last > 0);
                let is_sound = range.zip(slice.chunks(per_datagram)).all(|(index, parts)| {
                    let len = len_of(parts);

                    len == size || (index == last && (least..size).contains(&len))
                });

                is_sound.then_some(Payload::Gathered {
                    parts: slice,
                    per_datagram,
                })
            }
        }
    }

    fn datagram_len(&self, index: usize) -> usize {
        match self.slice(index..index.saturating_add(1)) {
            Some(Payload::Contiguous(bytes)) => bytes.len(),
            Some(Payload::Gathered { parts, .. }) => len_of(parts),
            None => 0,
        }
    }
}

fn len_of(parts: &[IoSlice<'_>]) -> usize {
    parts.iter().map(|part| part.len()).sum()
}

/// Whether an error concerns whatever goes to the same address.
fn means_no_way(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::PermissionDenied
    )
}

/// Whether an error means that a datagram doesn't fit through the path (EMSGSIZE).
#[cfg(target_os = "linux")]
fn is_too_large(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EMSGSIZE)
}

#[cfg(not(target_os = "linux"))]
fn is_too_large(_: &io::Error) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use connlib_wire::ecn::Ecn;

    #[test]
    fn a_train_counts_its_datagrams_however_they_lie() {
        let parts = [&b"ab"[..], b"cd", b"ef", b"g"].map(IoSlice::new);

        for per_datagram in [1, 2] {
            let gathered = Payload::Gathered {
                parts: &parts,
                per_datagram,
            };
            let train = train(2 * per_datagram, gathered, 1);
            assert_eq!(train.segments(), 4 / per_datagram);
            assert_eq!(train.left(), 4 / per_datagram - 1);
        }
        assert_eq!(train(2, Payload::Contiguous(b"abc"), 0).segments(), 2);
        assert_eq!(train(2, Payload::Contiguous(b"abc"), 9).left(), 0);
        assert_eq!(train(0, Payload::Contiguous(b"abc"), 0).segments(), 3);
        assert_eq!(train(1, Payload::Contiguous(b""), 0).left(), 1);
        assert_eq!(train(1, Payload::Contiguous(b""), 1).left(), 0);
    }

    #[test]
    fn gathered_datagrams_of_untrue_sizes_are_no_train() {
        let sliced = |parts: &[&[u8]], per_datagram, segment_size| {
            let parts = parts.iter().map(|part| IoSlice::new(part));
            let parts = parts.collect::<Vec<_>>();
            let gathered = Payload::Gathered {
                parts: &parts,
                per_datagram,
            };
            let train = train(segment_size, gathered, 0);
            train.slice(0..train.segments()).is_some()
        };

        assert!(sliced(&[b"ab", b"c", b"de", b"f"], 2, 3));
        assert!(sliced(&[b"ab", b"c", b"de", b""], 2, 3), "a short last one");
        assert!(
            !sliced(&[b"ab", b"", b"de", b"f"], 2, 3),
            "a short first one"
        );
        assert!(
            !sliced(&[b"ab", b"c", b"de", b"fg"], 2, 3),
            "a long last one"
        );
        assert!(!sliced(&[b"abc", b""], 1, 3), "an empty last one");
        assert!(sliced(&[b""], 1, 1), "a single one without contents");
    }

    #[test]
    fn an_error_says_how_much_is_lost_to_it() {
        let short_last = train(2, Payload::Contiguous(b"aabbc"), 0);
        let only_last = train(2, Payload::Contiguous(b"aabbc"), 2);
        let all_full = train(2, Payload::Contiguous(b"aabb"), 0);

        let blocked = io::ErrorKind::WouldBlock.into();
        assert_eq!(short_last.lost_to(&blocked), 0);
        let unreachable = io::ErrorKind::NetworkUnreachable.into();
        assert_eq!(short_last.lost_to(&unreachable), 3);
        let other = io::ErrorKind::InvalidInput.into();
        assert_eq!(short_last.lost_to(&other), 1);
        #[cfg(target_os = "linux")]
        {
            let too_large = io::Error::from_raw_os_error(libc::EMSGSIZE);
            assert_eq!(short_last.lost_to(&too_large), 2);
            assert_eq!(only_last.lost_to(&too_large), 1);
            assert_eq!(all_full.lost_to(&too_large), 2);
        }
    }

    fn train(segment_size: usize, payload: Payload<'_>, first: usize) -> Outgoing<'_> {
        Outgoing {
            route: Route {
                src: None,
                dst: "192.0.2.1:1".parse().unwrap(),
                ecn: Ecn::NotEct,
            },
            segment_size,
            payload,
            first,
        }
    }
}
