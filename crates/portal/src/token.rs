//! The texts that open the portal's sockets.
//!
//! A token reads `.<id>.<secret>`: the leading dot is where every token begins that an admin hands out
//! (portal-protocol.md §1.2), the id says which hash to compare with, the secret is 32 random bytes in base64url.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use connlib_wire::secret::Secret;
use rand::Rng;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use uuid::Builder;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::model::{Token, TokenId, TokenKind};

/// Makes a token that opens `kind` from `unix` until `expires_at` (both in Unix seconds; `None` means for ever).
///
/// The text is nowhere else: what isn't handed over is lost.
pub fn mint(
    random: &mut impl Rng,
    kind: TokenKind,
    unix: u64,
    expires_at: Option<u64>,
) -> (Token, Secret) {
    let (mut id, mut salt, mut secret) = ([0; 16], [0; 16], [0; 32]);
    random.fill_bytes(&mut id);
    random.fill_bytes(&mut salt);
    random.fill_bytes(&mut secret);
    let id = TokenId(Builder::from_random_bytes(id).into_uuid());

    let token = Token {
        id,
        kind,
        hash: hash(&salt, &secret),
        salt,
        created_at: unix,
        expires_at,
        revoked_at: None,
    };
    let text = format!(".{id}.{}", URL_SAFE_NO_PAD.encode(secret));
    secret.zeroize();

    (token, text.into())
}

/// A token as it was shown, not yet compared with anything.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Shown {
    #[zeroize(skip)]
    id: TokenId,
    secret: [u8; 32],
}

impl Shown {
    /// Reads a token. `None` for any other text.
    pub fn parse(text: &Secret) -> Option<Self> {
        let (id, secret) = text.expose().strip_prefix('.')?.split_once('.')?;
        let mut bytes = URL_SAFE_NO_PAD.decode(secret).ok()?;
        let secret = bytes.as_slice().try_into().ok();
        bytes.zeroize();

        Some(Self {
            id: id.parse().ok()?,
            secret: secret?,
        })
    }

    /// The token it says it is.
    pub fn id(&self) -> TokenId {
        self.id
    }

    /// Whether this is `token`. Takes the same time wherever they differ.
    pub fn is(&self, token: &Token) -> bool {
        let same_hash = hash(&token.salt, &self.secret).ct_eq(&token.hash);

        self.id == token.id && bool::from(same_hash)
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shown({}, …)", self.id)
    }
}

fn hash(salt: &[u8; 16], secret: &[u8; 32]) -> [u8; 32] {
    Sha256::new()
        .chain_update(salt)
        .chain_update(secret)
        .finalize()
        .into()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn a_token_opens_what_it_was_made_for_and_nothing_else() {
        let mut random = StdRng::from_seed([1; 32]);
        let (first, text) = mint(&mut random, TokenKind::Relay, 5, Some(9));
        let (second, _) = mint(&mut random, TokenKind::Relay, 5, None);

        assert!(text.expose().starts_with('.'));
        assert!(text.expose().contains(&first.id.to_string()));
        let shown = Shown::parse(&text).unwrap();
        assert!(shown.is(&first));
        assert!(!shown.is(&second));

        let other_secret = Token {
            hash: second.hash,
            ..first
        };
        assert!(!shown.is(&other_secret));
        assert!(first.is_usable(8));
        assert!(!first.is_usable(9));
    }

    #[test]
    fn what_is_stored_does_not_open_anything() {
        let mut random = StdRng::from_seed([1; 32]);
        let (token, text) = mint(&mut random, TokenKind::Relay, 5, None);

        let hash = URL_SAFE_NO_PAD.encode(token.hash);
        assert!(!text.expose().contains(&hash));
        let shown = Shown::parse(&format!(".{}.{hash}", token.id).into()).unwrap();
        assert!(!shown.is(&token));
    }

    #[test]
    fn other_texts_are_no_tokens() {
        let id = "a0a0a0a0-0000-4000-8000-000000000001";
        for text in [
            String::new(),
            ".".to_owned(),
            "..".to_owned(),
            format!(".{id}"),
            format!(".{id}."),
            format!(".{id}.AAAA"),
            format!("{id}.{}", "A".repeat(43)),
            format!(".{id}.{}", "A".repeat(44)),
            format!(".{id}.{}.", "A".repeat(43)),
            format!(".nobody.{}", "A".repeat(43)),
        ] {
            assert!(Shown::parse(&text.clone().into()).is_none(), "{text}");
        }
        assert!(Shown::parse(&format!(".{id}.{}", "A".repeat(43)).into()).is_some());
    }
}
