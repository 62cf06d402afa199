//! Who may use the relay (relay.md §5).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use connlib_wire::secret::Secret;
use connlib_wire::stun::{Key, relay_password};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;

use crate::answer::Refusal;
use crate::config::Credentials;
use crate::nonce::{Check, Nonces};
use crate::request::Request;

/// The realm of every relay; clients take it for granted.
pub const REALM: &str = "firezone";

/// A user who proved to be one.
#[derive(Debug)]
pub(crate) struct User<'a> {
    pub(crate) name: &'a str,
    pub(crate) key: Key,
    expires_at: Duration,
}

impl<'a> User<'a> {
    /// What the server knows about anybody of this name; `None` if the name hasn't the scheme's form.
    fn named(name: &'a str, credentials: &Credentials) -> Option<Self> {
        let (expiry, password) = match credentials {
            Credentials::Stamped(secret) => {
                let (expiry, salt) = name.split_once(':')?;
                if salt.contains(':') {
                    return None;
                }
                let expiry = expiry.parse().ok()?;
                (expiry, relay_password(expiry, salt, secret))
            }
            Credentials::Rest(secret) => {
                let expiry = name.split(':').next()?.parse().ok()?;
                (expiry, rest_password(name, secret)?)
            }
        };

        Some(Self {
            name,
            key: Key::long_term(name, REALM, &password),
            expires_at: Duration::from_secs(expiry),
        })
    }
}

/// Why a request is not believed.
#[derive(Debug)]
pub(crate) enum Denial {
    /// Say so and offer a nonce; signed if the user is known, so that an honest client can trust it.
    Challenge(Refusal, Option<Key>),
    /// Stay silent: an unsigned answer to a named user would be worth nothing.
    Silence,
}

/// Checks who sent a request.
pub(crate) fn authenticate<'a>(
    now: Instant,
    unix: Duration,
    client: SocketAddr,
    request: &Request<'a>,
    credentials: &Credentials,
    nonces: &mut Nonces,
) -> Result<User<'a>, Denial> {
    let Some(username) = request.username else {
        return Err(Denial::Challenge(Refusal::Unauthorized, None));
    };
    let user = User::named(username, credentials).ok_or(Denial::Silence)?;
    let challenge = |refusal| Err(Denial::Challenge(refusal, Some(user.key)));

    if !request.message.has_integrity() {
        return challenge(Refusal::Unauthorized);
    }
    let Some(nonce) = request.nonce else {
        return challenge(Refusal::Unauthorized);
    };
    match nonces.check(now, client, nonce) {
        Check::Valid => {}
        Check::Stale => return challenge(Refusal::StaleNonce),
        Check::Malformed => return challenge(Refusal::Unauthorized),
    }
    let is_expired = user.expires_at.as_secs() < unix.as_secs();
    if is_expired || !request.message.verify(user.key.expose()) {
        return challenge(Refusal::Unauthorized);
    }

    Ok(user)
}

fn rest_password(username: &str, secret: &Secret) -> Option<Secret> {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.expose().as_bytes()).ok()?;
    mac.update(username.as_bytes());

    Some(Secret::from(STANDARD.encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamped(secret: &str, name: &str) -> Option<[u8; 16]> {
        let credentials = Credentials::Stamped(Secret::from(secret));
        User::named(name, &credentials).map(|user| user.key.expose().try_into().unwrap())
    }

    #[test]
    fn keys_are_those_of_the_portal() {
        assert_eq!(
            stamped(&"0".repeat(64), "1700000000:saltsalt"),
            Some(0xf8b2_4b4b_c82c_a889_aab8_5785_09f9_d059_u128.to_be_bytes())
        );
        assert_eq!(
            stamped(
                &"1".repeat(64),
                "2145916800:u1qLupMXpfUY8nvwohOwS0r6C7mjK6Vz0FysWUB2Jd4"
            ),
            Some(0x291e_7d45_01c0_37cb_d849_6532_2b54_198e_u128.to_be_bytes())
        );
    }

    #[test]
    fn names_of_another_form_have_no_key() {
        for name in ["foobar", "1:2:3", "abc:salt", ":salt", "-1:x", ""] {
            assert_eq!(stamped("secret", name), None, "{name}");
        }
    }

    #[test]
    fn rest_passwords_are_those_of_other_turn_servers() {
        // printf 1700000000:alice | openssl dgst -sha1 -hmac north -binary | base64
        assert_eq!(
            rest_password("1700000000:alice", &Secret::from("north")),
            Some(Secret::from("Cd/49soE35ICqcJF/bCTn8Z4OyE="))
        );
        let credentials = Credentials::Rest(Secret::from("north"));
        assert!(User::named("1700000000", &credentials).is_some());
        assert!(User::named("1700000000:a:b", &credentials).is_some());
        assert!(User::named("alice", &credentials).is_none());
    }
}
