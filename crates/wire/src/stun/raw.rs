//! Where the attributes of a message lie.

use super::{HEADER_LEN, StunError};

/// One attribute as it lies in its message.
pub(super) struct RawAttribute<'a> {
    pub(super) at: usize,
    pub(super) attribute: u16,
    pub(super) value: &'a [u8],
}

/// Walks type, length, value; the value is padded to four bytes.
pub(super) struct RawAttributes<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> RawAttributes<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self {
            rest: body,
            at: HEADER_LEN,
        }
    }
}

impl<'a> Iterator for RawAttributes<'a> {
    type Item = Result<RawAttribute<'a>, StunError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }

        let at = self.at;
        let whole = std::mem::take(&mut self.rest);
        let Some(([t0, t1, l0, l1], body)) = whole.split_first_chunk::<4>() else {
            return Some(Err(StunError::Truncated { at }));
        };
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        let (Some(value), Some(rest)) =
            (body.get(..length), body.get(length.next_multiple_of(4)..))
        else {
            return Some(Err(StunError::Truncated { at }));
        };
        self.rest = rest;
        self.at += 4 + length.next_multiple_of(4);

        Some(Ok(RawAttribute {
            at,
            attribute: u16::from_be_bytes([*t0, *t1]),
            value,
        }))
    }
}
