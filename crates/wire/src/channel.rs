//! TURN channel data: four bytes in front of a payload instead of a whole message (RFC 8656 §12.4).

use std::fmt;
use std::ops::RangeInclusive;

/// The length of the header in bytes.
pub const HEADER_LEN: usize = 4;

/// The numbers that RFC 8656 lets a channel have; our clients and relays use 0x4000–0x4FFF only.
pub const NUMBERS: RangeInclusive<u16> = 0x4000..=0x7FFF;

/// The name of a channel. Always within [`NUMBERS`].
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ChannelNumber(u16);

impl ChannelNumber {
    /// The lowest one.
    pub const MIN: Self = Self(0x4000);

    /// The highest one that the forerunner's relays take.
    pub const MAX: Self = Self(0x4FFF);

    /// Checks a number; `None` if no channel can have it.
    pub fn new(number: u16) -> Option<Self> {
        NUMBERS.contains(&number).then_some(Self(number))
    }

    /// The number.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The next one, back to [`MIN`](Self::MIN) after [`MAX`](Self::MAX).
    #[must_use]
    pub const fn next(self) -> Self {
        if self.0 >= Self::MAX.0 {
            Self::MIN
        } else {
            Self(self.0 + 1)
        }
    }
}

impl fmt::Debug for ChannelNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:04x}", self.0)
    }
}

/// Whether a datagram can be channel data of one of our channels: 0x40–0x4F (connections.md §5).
pub fn is_channel_prefix(datagram: &[u8]) -> bool {
    datagram
        .first()
        .is_some_and(|byte| (0x40..=0x4F).contains(byte))
}

/// Splits channel data into channel and payload; bytes beyond the stated length are padding and left out.
///
/// `None` if it is not channel data or shorter than it says.
pub fn decode(datagram: &[u8]) -> Option<(ChannelNumber, &[u8])> {
    let ([n0, n1, l0, l1], rest) = datagram.split_first_chunk::<HEADER_LEN>()?;
    let number = ChannelNumber::new(u16::from_be_bytes([*n0, *n1]))?;
    let length = usize::from(u16::from_be_bytes([*l0, *l1]));

    Some((number, rest.get(..length)?))
}

/// The header in front of `payload_len` bytes; `None` if the length field can't say so many.
pub fn header(number: ChannelNumber, payload_len: usize) -> Option<[u8; HEADER_LEN]> {
    let [n0, n1] = number.0.to_be_bytes();
    let [l0, l1] = u16::try_from(payload_len).ok()?.to_be_bytes();

    Some([n0, n1, l0, l1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_the_connection_spec() {
        assert!(decode(&[0x40, 0x00, 0x00]).is_none(), "three bytes");
        assert!(
            decode(&[0x40, 0x00, 0, 5, 1, 2, 3, 4]).is_none(),
            "one byte short"
        );
        assert!(decode(&[0x3F, 0xFF, 0, 0]).is_none());
        assert!(decode(&[0x80, 0x00, 0, 0]).is_none());
        assert_eq!(
            header(ChannelNumber::MIN, 6),
            Some([0x40, 0x00, 0x00, 0x06])
        );
    }

    #[test]
    fn padding_is_left_out() {
        let (number, payload) = decode(&[0x40, 0x01, 0, 1, 9, 0, 0, 0]).unwrap();
        assert_eq!((number.number(), payload), (0x4001, [9].as_slice()));
    }

    #[test]
    fn numbers_wrap_within_our_range() {
        assert_eq!(ChannelNumber::MAX.next(), ChannelNumber::MIN);
        assert_eq!(ChannelNumber::MIN.next().number(), 0x4001);
    }

    proptest::proptest! {
        #[test]
        fn header_and_payload_round_trip(number in 0x4000_u16..=0x7FFF, payload: Vec<u8>) {
            let number = ChannelNumber::new(number).unwrap();
            let mut datagram = header(number, payload.len()).unwrap().to_vec();
            datagram.extend_from_slice(&payload);
            proptest::prop_assert_eq!(decode(&datagram), Some((number, payload.as_slice())));
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            decode(&bytes);
        }
    }
}
