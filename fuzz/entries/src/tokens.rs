//! Tokens and keys, as texts.
//!
//! * A token opens what it was made for; another text that reads as a token does not.
//! * A key that is read is written the same.

use std::sync::OnceLock;

use connlib_portal::model::{Token, TokenKind};
use connlib_portal::token::{Shown, mint};
use connlib_wire::key::{PresharedKey, PublicKey};
use connlib_wire::secret::Secret;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::choices::Choices;

/// A text; or, behind a byte below 32, changes to a good token: a place and a byte each.
pub fn tokens(bytes: &[u8]) {
    static GOOD: OnceLock<(Token, Secret)> = OnceLock::new();
    let (token, good) = GOOD.get_or_init(|| {
        let mut random = StdRng::from_seed([1; 32]);
        mint(&mut random, TokenKind::Relay, 5, Some(9))
    });

    let text = match bytes {
        [mode, changes @ ..] if *mode < 32 => {
            let mut text = good.expose().as_bytes().to_vec();
            let mut choices = Choices::new(changes);
            while !choices.is_over() {
                let at = usize::from(choices.byte()) % text.len();
                text[at] = choices.byte();
            }
            text
        }
        _ => bytes.to_vec(),
    };
    let Ok(text) = String::from_utf8(text) else {
        return;
    };

    keys(&text);
    let text = Secret::from(text);
    let Some(shown) = Shown::parse(&text) else {
        assert_ne!(&text, good);
        return;
    };
    // The id is read without regard to case.
    let is_good =
        text.expose().eq_ignore_ascii_case(good.expose()) && secret_of(&text) == secret_of(good);
    assert_eq!(shown.is(token), is_good);
    assert!(!format!("{shown:?}").contains(secret_of(&text)));
}

fn secret_of(text: &Secret) -> &str {
    text.expose().rsplit('.').next().unwrap_or_default()
}

fn keys(text: &str) {
    if let Ok(key) = text.parse::<PublicKey>() {
        assert_eq!(key.to_string(), text);
    }
    if let Ok(key) = text.parse::<PresharedKey>() {
        let written = serde_json::to_string(&key).expect("a key can be written");
        assert_eq!(written, format!("\"{text}\""));
        assert!(!format!("{key:?}").contains(text));
    }
}
