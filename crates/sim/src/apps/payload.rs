//! What programs send to each other: a stamp, and bytes that follow from it.

/// The bytes of a stamp.
pub(super) const LEN: usize = 12;

const MAGIC: [u8; 4] = *b"simu";

/// Says what a payload is part of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    pub(super) flow: usize,
    pub(super) number: u32,
    pub(super) attempt: u16,
}

impl Stamp {
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let (magic, rest) = payload.split_first_chunk::<4>()?;
        let (flow, rest) = rest.split_first_chunk::<2>()?;
        let (number, rest) = rest.split_first_chunk::<4>()?;
        let attempt = rest.first_chunk::<2>()?;

        (*magic == MAGIC).then(|| Self {
            flow: usize::from(u16::from_be_bytes(*flow)),
            number: u32::from_be_bytes(*number),
            attempt: u16::from_be_bytes(*attempt),
        })
    }

    /// The payload of a request.
    pub(super) fn request(self, size: usize) -> Vec<u8> {
        self.filled(size, 0)
    }

    /// The payload of the answer to a request for a piece.
    pub(super) fn piece(self, size: usize) -> Vec<u8> {
        self.filled(size, self.number)
    }

    fn filled(self, size: usize, first: u32) -> Vec<u8> {
        let mut payload = Vec::with_capacity(size.max(LEN));
        payload.extend_from_slice(&MAGIC);
        payload.extend_from_slice(&u16::try_from(self.flow).unwrap_or(u16::MAX).to_be_bytes());
        payload.extend_from_slice(&self.number.to_be_bytes());
        payload.extend_from_slice(&self.attempt.to_be_bytes());
        let mut next = first as u8;
        payload.resize_with(size.max(LEN), || {
            next = next.wrapping_add(1);
            next
        });

        payload
    }
}
