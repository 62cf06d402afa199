//! Explicit congestion notification: the two bits of RFC 3168.

/// The ECN field of an IP header.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Ecn {
    /// The sender doesn't take part.
    #[default]
    NotEct,
    /// ECN-capable, codepoint `01`.
    Ect1,
    /// ECN-capable, codepoint `10`.
    Ect0,
    /// Congestion experienced.
    Ce,
}

impl Ecn {
    /// Reads the two low bits of a TOS or traffic-class byte; the others don't matter.
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 0b11 {
            0b01 => Self::Ect1,
            0b10 => Self::Ect0,
            0b11 => Self::Ce,
            _ => Self::NotEct,
        }
    }

    /// The codepoint as the two low bits of a byte.
    pub const fn bits(self) -> u8 {
        match self {
            Self::NotEct => 0b00,
            Self::Ect1 => 0b01,
            Self::Ect0 => 0b10,
            Self::Ce => 0b11,
        }
    }

    /// What an inner packet carries after it left an outer header marked `outer` (gateway.md §16.5).
    ///
    /// An outer CE marks an ECN-capable inner packet; everything else stays as the sender wrote it.
    pub const fn merged_with_outer(self, outer: Self) -> Self {
        match (self, outer) {
            (Self::Ect0 | Self::Ect1, Self::Ce) => Self::Ce,
            (inner, _) => inner,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Ecn::{self, Ce, Ect0, Ect1, NotEct};

    #[test]
    fn merges_like_the_table_of_the_gateway_spec() {
        for inner in [NotEct, Ect0, Ect1, Ce] {
            for outer in [NotEct, Ect0, Ect1, Ce] {
                let expected = if outer == Ce && matches!(inner, Ect0 | Ect1) {
                    Ce
                } else {
                    inner
                };
                assert_eq!(inner.merged_with_outer(outer), expected);
            }
        }
    }

    #[test]
    fn bits_round_trip() {
        for bits in 0..=u8::MAX {
            assert_eq!(Ecn::from_bits(bits).bits(), bits & 0b11);
        }
    }
}
