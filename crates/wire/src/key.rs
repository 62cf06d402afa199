//! WireGuard keys in the form the portal's messages carry them: standard base64 with padding, exactly 32 bytes
//! (portal-protocol.md §4).

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroize;

/// A text that is not the base64 of 32 bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a key must be 44 characters of base64 with padding, for exactly 32 bytes")]
pub struct InvalidKey;

/// The public half of a WireGuard key pair.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        decode(text).map(Self)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The key that both ends of a link mix into their handshakes. It can't be printed and is wiped when dropped.
#[derive(Clone, Eq, PartialEq)]
pub struct PresharedKey([u8; 32]);

impl PresharedKey {
    /// Takes over key bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the cryptography alone.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Drop for PresharedKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(…)")
    }
}

impl FromStr for PresharedKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        decode(text).map(Self)
    }
}

impl Serialize for PresharedKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for PresharedKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut text = String::deserialize(deserializer)?;
        let key = text.parse().map_err(serde::de::Error::custom);
        text.zeroize();

        key
    }
}

fn decode(text: &str) -> Result<[u8; 32], InvalidKey> {
    let bytes = STANDARD.decode(text).map_err(|_| InvalidKey)?;

    bytes.try_into().map_err(|_| InvalidKey)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_another_length_or_without_padding_are_refused() {
        let padded = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        assert_eq!(padded.parse::<PublicKey>().unwrap().to_string(), padded);

        let short = STANDARD.encode([0; 31]);
        let long = STANDARD.encode([0; 33]);
        for text in [short.as_str(), &long, padded.trim_end_matches('='), ""] {
            assert_eq!(text.parse::<PublicKey>(), Err(InvalidKey), "{text}");
        }
    }

    #[test]
    fn a_preshared_key_does_not_print() {
        assert_eq!(
            format!("{:?}", PresharedKey::new([7; 32])),
            "PresharedKey(…)"
        );
    }
}
