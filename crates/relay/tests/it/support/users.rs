//! Who knows which password.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use connlib_relay::REALM;
use connlib_wire::secret::Secret;
use connlib_wire::stun::{Key, relay_password};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;

use super::SECRET;

#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) key: Key,
}

/// A user of the portal's scheme whose credentials last until 2038.
pub(crate) fn user(salt: &str) -> User {
    user_until(2_145_916_800, salt)
}

pub(crate) fn user_until(expiry: u64, salt: &str) -> User {
    let name = format!("{expiry}:{salt}");
    let password = relay_password(expiry, salt, &Secret::from(SECRET));

    User {
        key: Key::long_term(&name, REALM, &password),
        name,
    }
}

/// A user of the usual TURN REST scheme whose credentials last until 2038.
pub(crate) fn rest_user(name: &str) -> User {
    rest_user_until(2_145_916_800, name)
}

pub(crate) fn rest_user_until(expiry: u64, name: &str) -> User {
    let (name, password) = rest_credentials(expiry, name);

    User {
        key: Key::long_term(&name, REALM, &password),
        name,
    }
}

/// A user name and its password.
pub(crate) fn rest_credentials(expiry: u64, name: &str) -> (String, Secret) {
    let name = format!("{expiry}:{name}");
    let mut mac = Hmac::<Sha1>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(name.as_bytes());
    let password = Secret::from(STANDARD.encode(mac.finalize().into_bytes()));

    (name, password)
}
