//! Keys and credentials, computed from what the portal knows (portal-protocol.md §8).
//!
//! Everything here is a function of its arguments: the same pair of devices gets the same keys after a lost answer, a
//! second request or a restart of the portal, and connections that work go on working.

pub mod ingest;

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use connlib_wire::id::{ClientId, GatewayId, RelayId};
use connlib_wire::key::{PresharedKey, PublicKey};
use connlib_wire::portal::IceCredentials;
use connlib_wire::portal::relay::Passwords;
use connlib_wire::secret::Secret;
use connlib_wire::stun::{relay_password, rest_password};
use sha2::{Digest as _, Sha256};
use uuid::{Builder, Uuid};

use crate::model::PskBase;

/// When TURN credentials end that must not change over reconnects: 2038-01-01T00:00:00Z (portal-protocol.md §8.3).
pub const FAR_FUTURE: u64 = 2_145_916_800;

/// The two ends of a link, as their keys are derived from.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// The device that asks.
    pub client: ClientId,
    /// Its current WireGuard key.
    pub client_key: PublicKey,
    /// The device that answers.
    pub gateway: GatewayId,
    /// Its current WireGuard key.
    pub gateway_key: PublicKey,
}

/// The ICE credentials of both ends of a link.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IcePair {
    /// The client's: local for the client, remote for the gateway.
    pub client: IceCredentials,
    /// The gateway's.
    pub gateway: IceCredentials,
}

/// What a peer shows to a relay (relay.md §5).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TurnCredentials {
    /// `<expiry>:<salt>`.
    pub username: String,
    /// The password for that user name.
    pub password: Secret,
}

impl Ends {
    /// The key that both ends mix into their handshakes (portal-protocol.md §8.1).
    pub fn preshared_key(&self, client_base: &PskBase, gateway_base: &PskBase) -> PresharedKey {
        let Self {
            client,
            client_key,
            gateway,
            gateway_key,
        } = self;
        let salt =
            format!("WG_PSK|C_ID:{client}|G_ID:{gateway}|C_PK:{client_key}|G_PK:{gateway_key}");
        let password = [*client_base.expose(), *gateway_base.expose()].concat();

        let mut key = [0; 32];
        pbkdf2::pbkdf2_hmac::<Sha256>(&password, salt.as_bytes(), 1, &mut key);

        PresharedKey::new(key)
    }

    /// The ICE credentials of both ends (portal-protocol.md §8.2).
    pub fn ice_credentials(&self) -> IcePair {
        let Self {
            client,
            client_key,
            gateway,
            gateway_key,
        } = self;
        let seed = format!("{client}:{client_key}:{gateway}:{gateway_key}");
        let text: Vec<char> = base32_lower(&Sha256::digest(seed)).collect();

        let take = |skip: usize, count: usize| -> String {
            text.iter().skip(skip).take(count).copied().collect()
        };
        let credentials = |skip: usize| IceCredentials {
            username: take(skip, 4),
            password: take(skip + 4, 22).into(),
        };

        IcePair {
            client: credentials(0),
            gateway: credentials(26),
        }
    }
}

/// What the peer with `key` shows to the relay that joined with such a secret (portal-protocol.md §8.3).
///
/// `expires_at` is in Unix seconds.
pub fn turn_credentials(
    key: &PublicKey,
    secret: &Secret,
    passwords: Passwords,
    expires_at: u64,
) -> TurnCredentials {
    let salt = STANDARD_NO_PAD.encode(Sha256::digest(key.to_string()));
    let username = format!("{expires_at}:{salt}");
    let password = match passwords {
        Passwords::Rest => rest_password(&username, secret),
        Passwords::Stamped | _ => relay_password(expires_at, &salt, secret),
    };

    TurnCredentials { username, password }
}

/// The id of the relay that joined with `stamp_secret` (portal-protocol.md §8.3).
pub fn relay_id(stamp_secret: &Secret) -> RelayId {
    let mut first_half = [0; 16];
    for (to, from) in first_half
        .iter_mut()
        .zip(Sha256::digest(stamp_secret.expose()))
    {
        *to = from;
    }

    RelayId(Builder::from_random_bytes(first_half).into_uuid())
}

/// The id of a TURN server that others run: several may share a secret, so their addresses count too.
pub fn turn_server_id(secret: &Secret, addresses: &[SocketAddr]) -> RelayId {
    let addresses: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();

    relay_id(&format!("{} {}", secret.expose(), addresses.join(" ")).into())
}

/// The `external_id` that a device with this locally stored id shows to the portal (portal-protocol.md §1.1).
///
/// A UUID is hashed as text, because devices of an older time stored the plain one; anything else goes as it is.
pub fn external_id(device_id: &str) -> String {
    if device_id.parse::<Uuid>().is_err() {
        return device_id.to_owned();
    }

    hex_lower(&Sha256::digest(device_id))
}

/// RFC 4648 §6 in lower case and without padding.
fn base32_lower(bytes: &[u8]) -> impl Iterator<Item = char> {
    bytes.chunks(5).flat_map(|chunk| {
        let value = (0..5).fold(0_u64, |value, index| {
            value << 8 | u64::from(chunk.get(index).copied().unwrap_or_default())
        });
        let digits = (chunk.len() * 8).div_ceil(5);

        (0..digits).map(move |digit| {
            let five_bits = (value >> (35 - 5 * digit) & 0x1f) as u8;
            let letter = match five_bits {
                0..26 => b'a' + five_bits,
                _ => b'2' + five_bits - 26,
            };
            char::from(letter)
        })
    })
}

fn hex_lower(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pair_keys_match_the_vectors() {
        let ends = ends();

        let key = ends.preshared_key(&PskBase::new([1; 32]), &PskBase::new([2; 32]));
        assert_eq!(
            key,
            "fbhQuvG3cc9d7VL2dkA+/HbYodKAYHHZKfhgEMjz3RA="
                .parse()
                .unwrap()
        );

        let ice = ends.ice_credentials();
        let joined = [&ice.client, &ice.gateway]
            .map(|half| format!("{}{}", half.username, half.password.expose()))
            .concat();
        assert_eq!(
            joined,
            "jecyemusg567onwyvjd4ftcwvn4t4vdca3gaikungjb76okj3jlq"
        );
        assert_eq!(ice.client.username, "jecy");
        assert_eq!(ice.gateway.username, "4t4v");
    }

    #[test]
    fn turn_credentials_match_the_vectors() {
        let secret = Secret::from(hex_lower(&bytes(0)));
        let Ends {
            client_key,
            gateway_key,
            ..
        } = ends();

        let client = turn_credentials(&client_key, &secret, Passwords::Stamped, 1_893_456_000);
        assert_eq!(
            client.username,
            "1893456000:kF8o3vGOqsBa5vErLDRSdEr69ibaE0PVezlbVE4FGbY"
        );
        assert_eq!(
            client.password.expose(),
            "2yaSXDR/lZxvyA7ei6gYbNs7mEBWULYYfARQ/jaEU2E"
        );

        let gateway = turn_credentials(&gateway_key, &secret, Passwords::Stamped, FAR_FUTURE);
        assert_eq!(
            gateway.username,
            "2145916800:uRn9aO+q3ZLJ+WSCwUd6KAg+lKk/p+EL5iN8qCTCKgY"
        );
        assert_eq!(
            gateway.password.expose(),
            "noe44dxqMUby/iak1UEFqxTJFu4titMvikc2ltqMn0k"
        );
    }

    #[test]
    fn other_turn_servers_check_passwords_of_their_own_kind() {
        let (key, secret) = (ends().client_key, Secret::from("north"));

        let shown = turn_credentials(&key, &secret, Passwords::Rest, 1_700_000_000);

        let stamped = turn_credentials(&key, &secret, Passwords::Stamped, 1_700_000_000);
        assert_eq!(shown.username, stamped.username);
        assert_eq!(shown.password, rest_password(&shown.username, &secret));
        assert_ne!(shown.password, stamped.password);
    }

    #[test]
    fn turn_servers_that_share_a_secret_have_ids_of_their_own() {
        let secret = Secret::from("north");
        let of = |address: &str| turn_server_id(&secret, &[address.parse().unwrap()]);

        assert_eq!(of("192.0.2.1:3478"), of("192.0.2.1:3478"));
        assert_ne!(of("192.0.2.1:3478"), of("192.0.2.1:3479"));
        assert_ne!(of("192.0.2.1:3478"), relay_id(&secret));
    }

    #[test]
    fn a_relays_id_follows_from_its_secret() {
        let id = |secret: String| relay_id(&secret.into()).to_string();

        assert_eq!(
            id(hex_lower(&bytes(0))),
            "6c86c6aa-c5fb-44bc-b5d9-939cb7d7d564"
        );
        assert_eq!(id("0".repeat(64)), "60e05bd1-b195-4f2f-9411-2fa7197a5c88");
    }

    #[test]
    fn only_uuids_are_hashed_into_external_ids() {
        assert_eq!(
            external_id("3f2c1a9e-5b7d-4e60-8a1f-0c9d8e7f6a5b"),
            "f21811a1a7d0805258189d268804636c84e9995e90efc749f6cf761eaea94de8"
        );
        assert_eq!(external_id("not-a-uuid"), "not-a-uuid");
    }

    fn ends() -> Ends {
        Ends {
            client: "11111111-2222-4333-8444-555555555555".parse().unwrap(),
            client_key: PublicKey(bytes(0)),
            gateway: "66666666-7777-4888-9999-aaaaaaaaaaaa".parse().unwrap(),
            gateway_key: PublicKey(bytes(0x20)),
        }
    }

    fn bytes(from: u8) -> [u8; 32] {
        std::array::from_fn(|index| from + index as u8)
    }
}
