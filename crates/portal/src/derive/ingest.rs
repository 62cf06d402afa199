//! The token that flow logs would be uploaded with (portal-protocol.md §8.4).
//!
//! This portal takes no flow logs, but peers drop an authorization whose token they can't read. So it makes real
//! ones that say that uploads are off.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use connlib_wire::id::{ClientId, GatewayId, ResourceId};
use connlib_wire::secret::Secret;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Serialize;
use sha2::Sha256;
use uuid::Uuid;

use super::FAR_FUTURE;
use crate::model::{ActorId, GrantId, PolicyId};

/// How long after the end of its authorization a token is good.
const GRACE_SECS: u64 = 30 * 24 * 60 * 60;

/// What a token says. The order of the members is the order on the wire.
#[derive(Clone, Debug, Serialize)]
pub struct Claims {
    /// The account of both ends.
    pub account_id: Uuid,
    /// When the token was made, in Unix seconds.
    pub iat: u64,
    /// When the token ends, in Unix seconds.
    pub exp: u64,
    /// Whether to upload at all.
    pub uploads_enabled: bool,
    /// Whose token it is.
    pub role: Role,
    /// The client.
    pub initiator_device_id: ClientId,
    /// The gateway.
    pub responder_device_id: GatewayId,
    /// The grant.
    pub policy_authorization_id: GrantId,
    /// The policy that decided.
    pub policy_id: PolicyId,
    /// What may be reached.
    pub resource_id: ResourceId,
    /// What people call it.
    pub resource_name: String,
    /// What it stands for; the Internet has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_address: Option<String>,
    /// Whose client it is.
    pub initiator_actor_id: ActorId,
    /// Their name.
    pub initiator_actor_name: String,
    /// When access was granted, in ISO 8601.
    pub authorized_at: String,
    /// When access ends, in ISO 8601.
    pub authorization_expires_at: String,
}

/// Whose token it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The client's.
    Initiator,
    /// The gateway's.
    Responder,
}

/// Until when a token is good whose authorization ends at `expires_at`; both in Unix seconds.
pub fn expiry(expires_at: Option<u64>) -> u64 {
    expires_at.unwrap_or(FAR_FUTURE).saturating_add(GRACE_SECS)
}

/// Signs `claims` into a compact JWT (RFC 7515 §3.1, HS256).
pub fn mint(key: &Secret, claims: &Claims) -> String {
    // Plain members with text keys: serde_json can't fail on them.
    let claims = serde_json::to_string(claims).unwrap_or_default();
    let header = r#"{"alg":"HS256","typ":"JWT"}"#;
    let signed = [header, &claims]
        .map(|part| URL_SAFE_NO_PAD.encode(part))
        .join(".");

    // HMAC takes keys of any length, so `None` is never met.
    let signature = Hmac::<Sha256>::new_from_slice(key.expose().as_bytes())
        .ok()
        .map(|mac| mac.chain_update(&signed).finalize().into_bytes());
    let signature = URL_SAFE_NO_PAD.encode(signature.unwrap_or_default());

    format!("{signed}.{signature}")
}

/// Writes Unix seconds as people read them, in UTC: `2023-11-14T22:13:20Z`.
pub fn iso_8601(unix: u64) -> String {
    let (days, second_of_day) = (unix / 86_400, unix % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (
        second_of_day / 3600,
        second_of_day / 60 % 60,
        second_of_day % 60,
    );

    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The date that lies `days` after 1970-01-01 in the Gregorian calendar.
///
/// Counts in eras of 400 years that begin on a 1st of March, so that the leap day comes last.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_PER_ERA: u64 = 146_097;
    const DAYS_FROM_ERA_TO_1970: u64 = 719_468;

    let shifted = days + DAYS_FROM_ERA_TO_1970;
    let (era, day_of_era) = (shifted / DAYS_PER_ERA, shifted % DAYS_PER_ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;

    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);

    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minimal_token_matches_the_vector() {
        let token = mint(&"portal-test-key".into(), &claims());

        let parts: Vec<&str> = token.split('.').collect();
        let [header, claims, signature] = parts[..] else {
            panic!("{token}");
        };
        let decode = |part| String::from_utf8(URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
        assert_eq!(decode(header), r#"{"alg":"HS256","typ":"JWT"}"#);
        assert_eq!(
            decode(claims),
            r#"{"account_id":"a0a0a0a0-0000-4000-8000-000000000001","iat":1700000000,"exp":1702592000,"uploads_enabled":false,"role":"initiator","initiator_device_id":"11111111-2222-4333-8444-555555555555","responder_device_id":"66666666-7777-4888-9999-aaaaaaaaaaaa","policy_authorization_id":"a0a0a0a0-0000-4000-8000-000000000002","policy_id":"a0a0a0a0-0000-4000-8000-000000000003","resource_id":"0d6f2a10-9c3b-4e51-b7a2-5f1c8e9d0a11","resource_name":"Wiki","initiator_actor_id":"a0a0a0a0-0000-4000-8000-000000000004","initiator_actor_name":"Ada","authorized_at":"2023-11-14T22:13:20Z","authorization_expires_at":"2023-11-14T23:13:20Z"}"#
        );
        assert_eq!(signature, "V-KEVAIWtHWFgDEpDqfz9LAvMT861AqGa69zr8Sc5yM");
    }

    #[test]
    fn dates_are_civil() {
        for (unix, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_700_003_600, "2023-11-14T23:13:20Z"),
            (FAR_FUTURE, "2038-01-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(iso_8601(unix), text);
        }
    }

    #[test]
    fn a_token_outlives_its_authorization() {
        assert_eq!(expiry(Some(1_700_000_000)), 1_702_592_000);
        assert!(expiry(None) > FAR_FUTURE);
        assert_eq!(expiry(Some(u64::MAX)), u64::MAX);
    }

    fn claims() -> Claims {
        Claims {
            account_id: "a0a0a0a0-0000-4000-8000-000000000001".parse().unwrap(),
            iat: 1_700_000_000,
            exp: expiry(Some(1_700_000_000)),
            uploads_enabled: false,
            role: Role::Initiator,
            initiator_device_id: "11111111-2222-4333-8444-555555555555".parse().unwrap(),
            responder_device_id: "66666666-7777-4888-9999-aaaaaaaaaaaa".parse().unwrap(),
            policy_authorization_id: "a0a0a0a0-0000-4000-8000-000000000002".parse().unwrap(),
            policy_id: "a0a0a0a0-0000-4000-8000-000000000003".parse().unwrap(),
            resource_id: "0d6f2a10-9c3b-4e51-b7a2-5f1c8e9d0a11".parse().unwrap(),
            resource_name: "Wiki".to_owned(),
            resource_address: None,
            initiator_actor_id: "a0a0a0a0-0000-4000-8000-000000000004".parse().unwrap(),
            initiator_actor_name: "Ada".to_owned(),
            authorized_at: iso_8601(1_700_000_000),
            authorization_expires_at: iso_8601(1_700_003_600),
        }
    }
}
