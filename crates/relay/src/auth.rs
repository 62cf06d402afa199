//! Who may use the relay (relay.md §5; RFC 8489 §9.2).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_wire::secret::Secret;
use connlib_wire::stun::{ALGORITHM_MD5, ALGORITHM_SHA256, Key, relay_password, rest_password};

use crate::answer::{Refusal, Seal};
use crate::conduct::Conduct;
use crate::config::Credentials;
use crate::limits::Buckets;
use crate::nonce::{Check, Nonces};
use crate::request::Request;
use crate::stats::DropReason;

/// The realm of every relay; clients take it for granted.
pub const REALM: &str = "firezone";

/// The value of PASSWORD-ALGORITHMS: what we like best first.
pub(crate) const PASSWORD_ALGORITHMS: [u8; 8] = {
    let ([s0, s1], [m0, m1]) = (ALGORITHM_SHA256.to_be_bytes(), ALGORITHM_MD5.to_be_bytes());
    [s0, s1, 0, 0, m0, m1, 0, 0]
};

/// A user who proved to be one.
#[derive(Debug)]
pub(crate) struct User<'a> {
    /// Who it is, whichever of its credentials it used: allocations belong to that.
    pub(crate) identity: &'a str,
    /// What makes answers worth something to it.
    pub(crate) seal: Seal,
}

/// What the server knows about anybody of a name.
struct Account<'a> {
    name: &'a str,
    identity: &'a str,
    password: Secret,
    expires_at: Duration,
}

impl<'a> Account<'a> {
    /// `None` if the name hasn't the scheme's form.
    fn named(name: &'a str, credentials: &Credentials) -> Option<Self> {
        match credentials {
            Credentials::Stamped(secret) => {
                let (expiry, salt) = name.split_once(':')?;
                if salt.contains(':') {
                    return None;
                }
                let expiry = expiry.parse().ok()?;
                Some(Self {
                    name,
                    identity: name,
                    password: relay_password(expiry, salt, secret),
                    expires_at: Duration::from_secs(expiry),
                })
            }
            Credentials::Rest(secret) => {
                let (expiry, user) = name.split_once(':').unwrap_or((name, ""));
                Some(Self {
                    name,
                    // Fresh credentials of the same user are the same user, as long as it has a name.
                    identity: if user.is_empty() { name } else { user },
                    password: rest_password(name, secret),
                    expires_at: Duration::from_secs(expiry.parse().ok()?),
                })
            }
        }
    }

    fn key(&self) -> Key {
        Key::long_term(self.name, REALM, &self.password)
    }

    fn is_expired(&self, unix: Duration) -> bool {
        self.expires_at.as_secs() < unix.as_secs()
    }
}

/// Why a request is not believed.
#[derive(Debug)]
pub(crate) enum Denial {
    /// Say so and offer a nonce; signed if the user is known, so that an honest client can trust it.
    Challenge(Refusal, Option<Seal>),
    /// Say so, and no more.
    Refuse(Refusal),
    /// Stay silent.
    Silence(DropReason),
}

/// Checks who sent a request.
pub(crate) struct Authority {
    credentials: Credentials,
    conduct: Conduct,
    pub(crate) nonces: Nonces,
    /// Those who gave wrong credentials under a nonce of theirs. A nonce is bound to its socket, so that nobody is held
    /// responsible for what others send in its name.
    failures: Buckets,
}

/// Whether the sender of a request holds an allocation: it may fail as often as it likes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Standing {
    Guest,
    Stranger,
}

impl Authority {
    pub(crate) fn new(credentials: Credentials, secret: [u8; 32], failures: Buckets) -> Self {
        let conduct = Conduct::towards(&credentials);

        Self {
            credentials,
            conduct,
            nonces: Nonces::new(secret, conduct),
            failures,
        }
    }

    pub(crate) fn set_failures(&mut self, failures: Buckets) {
        self.failures = failures;
    }

    /// Whether a nonce is one that `client` may use now.
    pub(crate) fn has_nonce(&mut self, now: Instant, client: SocketAddr, nonce: &str) -> bool {
        self.nonces.check(now, client, nonce) == Check::Valid
    }

    pub(crate) fn authenticate<'a>(
        &mut self,
        now: Instant,
        unix: Duration,
        client: SocketAddr,
        request: &Request<'a>,
        standing: Standing,
    ) -> Result<User<'a>, Denial> {
        if standing == Standing::Stranger && !self.failures.have_room(now, client.ip()) {
            return Err(Denial::Silence(DropReason::TooManyFailures));
        }

        match self.conduct {
            Conduct::Portal => self.authenticate_for_portal(now, unix, client, request),
            Conduct::Standard => self.authenticate_by_standard(now, unix, client, request),
        }
    }

    /// The checks and their order: relay.md §5.
    fn authenticate_for_portal<'a>(
        &mut self,
        now: Instant,
        unix: Duration,
        client: SocketAddr,
        request: &Request<'a>,
    ) -> Result<User<'a>, Denial> {
        let Some(username) = request.claim.username else {
            return Err(Denial::Challenge(Refusal::Unauthorized, None));
        };
        // An unsigned answer to a named user would be worth nothing.
        let account = Account::named(username, &self.credentials)
            .ok_or(Denial::Silence(DropReason::UnusableUsername))?;
        let seal = Seal::Sha1(account.key());
        let challenge = |refusal| Err(Denial::Challenge(refusal, Some(seal)));

        if !request.message.has_integrity() {
            return challenge(Refusal::Unauthorized);
        }
        let Some(nonce) = request.claim.nonce else {
            return challenge(Refusal::Unauthorized);
        };
        match self.nonces.check(now, client, nonce) {
            Check::Valid => {}
            Check::Stale => return challenge(Refusal::StaleNonce),
            Check::Malformed => return challenge(Refusal::Unauthorized),
        }
        if account.is_expired(unix) || !seal.verifies(&request.message) {
            self.failures.take(now, client.ip());
            return challenge(Refusal::Unauthorized);
        }

        Ok(User {
            identity: account.identity,
            seal,
        })
    }

    /// The checks and their order: RFC 8489 §9.2.4.
    fn authenticate_by_standard<'a>(
        &mut self,
        now: Instant,
        unix: Duration,
        client: SocketAddr,
        request: &Request<'a>,
    ) -> Result<User<'a>, Denial> {
        let message = &request.message;
        if !message.has_integrity() && !message.has_integrity_sha256() {
            return Err(Denial::Challenge(Refusal::Unauthorized, None));
        }
        let claim = request.claim;
        let (Some(username), Some(_), Some(nonce)) = (claim.username, claim.realm, claim.nonce)
        else {
            return Err(Denial::Refuse(Refusal::BadRequest));
        };
        // Who stripped our offer on its way can't put it back together: the nonce says that there was one.
        let algorithm = match (claim.algorithms, claim.algorithm) {
            (None, None) => ALGORITHM_MD5,
            (Some(list), Some(chosen @ (ALGORITHM_MD5 | ALGORITHM_SHA256)))
                if list == PASSWORD_ALGORITHMS =>
            {
                chosen
            }
            _ if self.nonces.makes(nonce) => return Err(Denial::Refuse(Refusal::BadRequest)),
            _ => ALGORITHM_MD5,
        };

        let check = self.nonces.check(now, client, nonce);
        let account =
            Account::named(username, &self.credentials).filter(|account| !account.is_expired(unix));
        let user = account.map(|account| {
            let key = if algorithm == ALGORITHM_SHA256 {
                Key::long_term_sha256(username, REALM, &account.password)
            } else {
                account.key()
            };
            let seal = if message.has_integrity_sha256() {
                Seal::Sha256(key)
            } else {
                Seal::Sha1(key)
            };
            User {
                identity: account.identity,
                seal,
            }
        });
        let Some(user) = user.filter(|user| user.seal.verifies(message)) else {
            if check == Check::Valid {
                self.failures.take(now, client.ip());
            }
            return Err(Denial::Challenge(Refusal::Unauthorized, None));
        };

        match check {
            Check::Valid => Ok(user),
            Check::Stale | Check::Malformed => {
                Err(Denial::Challenge(Refusal::StaleNonce, Some(user.seal)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamped(secret: &str, name: &str) -> Option<Vec<u8>> {
        let credentials = Credentials::Stamped(Secret::from(secret));
        Account::named(name, &credentials).map(|account| account.key().expose().to_vec())
    }

    #[test]
    fn keys_are_those_of_the_portal() {
        assert_eq!(
            stamped(&"0".repeat(64), "1700000000:saltsalt"),
            Some(
                0xf8b2_4b4b_c82c_a889_aab8_5785_09f9_d059_u128
                    .to_be_bytes()
                    .to_vec()
            )
        );
        assert_eq!(
            stamped(
                &"1".repeat(64),
                "2145916800:u1qLupMXpfUY8nvwohOwS0r6C7mjK6Vz0FysWUB2Jd4"
            ),
            Some(
                0x291e_7d45_01c0_37cb_d849_6532_2b54_198e_u128
                    .to_be_bytes()
                    .to_vec()
            )
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
            Secret::from("Cd/49soE35ICqcJF/bCTn8Z4OyE=")
        );
        let credentials = Credentials::Rest(Secret::from("north"));
        for (name, identity) in [
            ("1700000000", Some("1700000000")),
            ("1700000000:", Some("1700000000:")),
            ("1700000000:a:b", Some("a:b")),
            ("1800000000:a:b", Some("a:b")),
            ("alice", None),
        ] {
            let account = Account::named(name, &credentials);
            assert_eq!(account.map(|account| account.identity), identity, "{name}");
        }
    }
}
