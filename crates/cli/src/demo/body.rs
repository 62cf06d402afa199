//! What the resource serves: bytes that both ends know without having seen them.

use std::io::{self, Write};

use sha2::{Digest, Sha256};

use crate::rig::ping::MARKER;

/// One MiB: what a size counts.
pub(super) const MIB: u64 = 1 << 20;

/// How often the marker is repeated: at least once in every other packet.
const BLOCK: usize = 1 << 10;

/// A SHA-256.
pub(super) type Hash = [u8; 32];

/// Writes `mib` MiB and stops at the first error.
pub(super) fn write(mib: u64, to: &mut impl Write) -> io::Result<()> {
    let mut piece = Piece::new();
    for number in 0..mib {
        to.write_all(piece.numbered(number))?;
    }

    Ok(())
}

/// The hash of `mib` MiB.
pub(super) fn hash(mib: u64) -> Hash {
    let mut hash = Sha256::new();
    let mut piece = Piece::new();
    for number in 0..mib {
        hash.update(piece.numbered(number));
    }

    hash.finalize().into()
}

/// One MiB of blocks: a marker, a number, and bytes that look random.
struct Piece {
    bytes: Vec<u8>,
}

impl Piece {
    fn new() -> Self {
        let mut bytes = Vec::with_capacity(MIB as usize);
        let mut state = 0_u64;
        while bytes.len() < MIB as usize {
            bytes.extend_from_slice(MARKER);
            let random = std::iter::repeat_with(|| split_mix(&mut state).to_le_bytes()).flatten();
            bytes.extend(random.take(BLOCK - MARKER.len()));
        }

        Self { bytes }
    }

    /// The piece at that place of the body. No two are the same, so that none can be lost or swapped unseen.
    fn numbered(&mut self, number: u64) -> &[u8] {
        for block in self.bytes.chunks_exact_mut(BLOCK) {
            let number_at = MARKER.len()..MARKER.len() + 8;
            if let Some(place) = block.get_mut(number_at) {
                place.copy_from_slice(&number.to_le_bytes());
            }
        }

        &self.bytes
    }
}

/// The generator SplitMix64 (Steele, Lea, Flood 2014).
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);

    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_know_the_same_bytes() {
        let mut body = Vec::new();
        write(3, &mut body).unwrap();

        assert_eq!(body.len(), 3 << 20);
        assert_eq!(hash(3), <Hash>::from(Sha256::digest(&body)));
        assert_ne!(body[..1 << 20], body[1 << 20..2 << 20]);
    }

    #[test]
    fn each_block_begins_with_the_marker() {
        let mut body = Vec::new();
        write(1, &mut body).unwrap();

        assert!(body.chunks(BLOCK).all(|block| block.starts_with(MARKER)));
    }

    #[test]
    fn the_generator_is_the_published_one() {
        // The first outputs for the seed 0, as in the reference implementation.
        let mut state = 0;

        assert_eq!(split_mix(&mut state), 0xe220_a839_7b1d_cdaf);
        assert_eq!(split_mix(&mut state), 0x6e78_9e6a_a1b9_65f4);
    }
}
