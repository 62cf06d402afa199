//! Credentials: long-term keys, MESSAGE-INTEGRITY, FINGERPRINT, and the passwords a relay derives.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::{Digest as _, Md5};
use sha1::Sha1;
use sha2::Sha256;

use super::{FINGERPRINT_LEN, INTEGRITY_LEN, INTEGRITY_SHA256_LEN};
use crate::secret::Secret;

/// A long-term key: a digest of user name, realm and password (RFC 8489 §9.2.2). It can't be printed.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Key(Digested);

#[derive(Clone, Copy, Eq, PartialEq)]
enum Digested {
    Md5([u8; 16]),
    Sha256([u8; 32]),
}

impl Key {
    /// Derives the key of one user by MD5, as everybody does who doesn't say otherwise.
    pub fn long_term(username: &str, realm: &str, password: &Secret) -> Self {
        let mut hash = Md5::new();
        for part in [username, ":", realm, ":", password.expose()] {
            hash.update(part.as_bytes());
        }

        Self(Digested::Md5(hash.finalize().into()))
    }

    /// Derives the key of one user by SHA-256, which PASSWORD-ALGORITHM asks for (RFC 8489 §18.5.1.2). Realm and password
    /// are taken as they are: they have to be in the form that OpaqueString gives them (RFC 8265).
    pub fn long_term_sha256(username: &str, realm: &str, password: &Secret) -> Self {
        let mut hash = Sha256::new();
        for part in [username, ":", realm, ":", password.expose()] {
            hash.update(part.as_bytes());
        }

        Self(Digested::Sha256(hash.finalize().into()))
    }

    /// The bytes, for the cryptography alone: 16 of MD5, 32 of SHA-256.
    pub const fn expose(&self) -> &[u8] {
        match &self.0 {
            Digested::Md5(key) => key,
            Digested::Sha256(key) => key,
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// The password that belongs to the user name `<expiry>:<salt>` at the relay with this secret (relay.md §5).
///
/// The portal hands it out, the relay recomputes it: neither keeps a table of users.
pub fn relay_password(expiry: u64, salt: &str, relay_secret: &Secret) -> Secret {
    let mut hash = Sha256::new();
    for part in [
        expiry.to_string().as_str(),
        ":",
        relay_secret.expose(),
        ":",
        salt,
    ] {
        hash.update(part.as_bytes());
    }

    Secret::from(STANDARD_NO_PAD.encode(hash.finalize()))
}

/// The password of any user of a TURN server that shares `secret` with a web service, which hands it out: the Base64 of
/// HMAC-SHA-1 of the user name (draft-uberti-behave-turn-rest-00 §2.2).
pub fn rest_password(username: &str, secret: &Secret) -> Secret {
    // A key may have any length.
    let mac = Hmac::<Sha1>::new_from_slice(secret.expose().as_bytes());
    let digest = mac.map(|mac| mac.chain_update(username).finalize().into_bytes());

    Secret::from(
        digest
            .map(|digest| STANDARD.encode(digest))
            .unwrap_or_default(),
    )
}

pub(super) fn integrity(key: &[u8], covered: &[u8]) -> [u8; 20] {
    sha1(key, covered).map_or([0; 20], |mac| mac.finalize().into_bytes().into())
}

pub(super) fn integrity_matches(key: &[u8], covered: &[u8], expected: &[u8]) -> bool {
    sha1(key, covered).is_some_and(|mac| mac.verify_slice(expected).is_ok())
}

pub(super) fn integrity_sha256(key: &[u8], covered: &[u8]) -> [u8; 32] {
    sha256(key, covered).map_or([0; 32], |mac| mac.finalize().into_bytes().into())
}

pub(super) fn integrity_sha256_matches(key: &[u8], covered: &[u8], expected: &[u8]) -> bool {
    sha256(key, covered).is_some_and(|mac| mac.verify_slice(expected).is_ok())
}

/// The MAC covers everything in front of the attribute, under a header whose length already counts it
/// (RFC 8489 §14.5).
fn sha1(key: &[u8], covered: &[u8]) -> Option<Hmac<Sha1>> {
    let mut mac = Hmac::<Sha1>::new_from_slice(key).ok()?;
    let (start, rest) = header_with_length_of(covered, INTEGRITY_LEN)?;
    mac.update(&start);
    mac.update(rest);

    Some(mac)
}

/// The same with the longer attribute (RFC 8489 §14.6).
fn sha256(key: &[u8], covered: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    let (start, rest) = header_with_length_of(covered, INTEGRITY_SHA256_LEN)?;
    mac.update(&start);
    mac.update(rest);

    Some(mac)
}

/// The CRC-32 of everything in front of the attribute, under a length that counts it (RFC 8489 §14.7).
pub(super) fn fingerprint(covered: &[u8]) -> u32 {
    let Some((start, rest)) = header_with_length_of(covered, FINGERPRINT_LEN) else {
        return 0;
    };
    let mut crc = crc32fast::Hasher::new();
    crc.update(&start);
    crc.update(rest);

    crc.finalize() ^ 0x5354_554E
}

/// The first four bytes as they would read were the message `extra` bytes longer, and the rest.
fn header_with_length_of(covered: &[u8], extra: usize) -> Option<([u8; 4], &[u8])> {
    let ([t0, t1, _, _], rest) = covered.split_first_chunk::<4>()?;
    let length = (covered.len() + extra).checked_sub(super::HEADER_LEN)?;
    let [l0, l1] = u16::try_from(length).ok()?.to_be_bytes();

    Some(([*t0, *t1, l0, l1], rest))
}
