//! Nonces without a memory.
//!
//! A nonce is a time bucket and a MAC over that bucket and the client's socket. Whoever presents it from another socket or
//! too late gets a fresh one; nothing is kept for those who only ask (relay.md §6, §23).

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use uuid::Uuid;

use crate::conduct::Conduct;

/// What the nonces of a standard server begin with: the cookie and the feature "password algorithms", the first of 24 bits
/// (RFC 8489 §9.2, §18.1).
const FEATURES: &str = "obMatJos2gAAA";

/// The span in which one socket gets the same nonce.
const BUCKET: Duration = Duration::from_secs(10 * 60);

/// How many buckets a nonce outlives its own: it is valid for 60 to 70 minutes.
const BUCKETS_VALID: u32 = 6;

/// Mints and checks nonces.
pub(crate) struct Nonces {
    secret: [u8; 32],
    /// What each begins with. It can't be left out on the way: such a nonce is none of ours.
    prefix: &'static str,
    /// When the first bucket began: a process' nonces needn't outlive it, so no wall clock is needed.
    began_at: Option<Instant>,
}

/// What a presented nonce turned out to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Check {
    Valid,
    /// Has the form of a nonce, but isn't one that this socket may use now.
    Stale,
    /// Not the form of a nonce.
    Malformed,
}

impl Nonces {
    pub(crate) fn new(secret: [u8; 32], conduct: Conduct) -> Self {
        Self {
            secret,
            prefix: match conduct {
                Conduct::Portal => "",
                Conduct::Standard => FEATURES,
            },
            began_at: None,
        }
    }

    /// The nonce that `client` shall use. It ends in the form of a UUID, like the forerunner's.
    pub(crate) fn mint(&mut self, now: Instant, client: SocketAddr) -> String {
        let bucket = self.bucket(now);

        self.uuid(bucket, client)
            .map(|uuid| format!("{}{uuid}", self.prefix))
            .unwrap_or_default()
    }

    pub(crate) fn check(&mut self, now: Instant, client: SocketAddr, nonce: &str) -> Check {
        let uuid = nonce.strip_prefix(self.prefix);
        let Some(uuid) = uuid.and_then(|uuid| Uuid::try_parse(uuid).ok()) else {
            return Check::Malformed;
        };
        let [b0, b1, b2, b3, mac @ ..] = uuid.into_bytes();
        let bucket = u32::from_be_bytes([b0, b1, b2, b3]);
        let is_current = self
            .bucket(now)
            .checked_sub(bucket)
            .is_some_and(|age| age <= BUCKETS_VALID);
        let is_ours = self
            .mac(bucket, client)
            .is_some_and(|expected| expected.verify_truncated_left(&mac).is_ok());

        if is_current && is_ours {
            Check::Valid
        } else {
            Check::Stale
        }
    }

    /// Whether a nonce looks like those that are made here.
    pub(crate) fn makes(&self, nonce: &str) -> bool {
        nonce.starts_with(self.prefix)
    }

    fn bucket(&mut self, now: Instant) -> u32 {
        let began_at = *self.began_at.get_or_insert(now);
        let age = now.saturating_duration_since(began_at).as_secs();

        u32::try_from(age / BUCKET.as_secs()).unwrap_or(u32::MAX)
    }

    fn uuid(&self, bucket: u32, client: SocketAddr) -> Option<Uuid> {
        let mac = self.mac(bucket, client)?.finalize().into_bytes();
        let mut bytes = [0; 16];
        let (head, tail) = bytes.split_first_chunk_mut::<4>()?;
        *head = bucket.to_be_bytes();
        tail.copy_from_slice(mac.get(..12)?);

        Some(Uuid::from_bytes(bytes))
    }

    fn mac(&self, bucket: u32, client: SocketAddr) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).ok()?;
        mac.update(&bucket.to_be_bytes());
        mac.update(&client.port().to_be_bytes());
        match client.ip() {
            IpAddr::V4(ip) => mac.update(&ip.octets()),
            IpAddr::V6(ip) => mac.update(&ip.octets()),
        }

        Some(mac)
    }
}
