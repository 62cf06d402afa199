//! Patterns of domain names (client.md §3): which names a resource is about, and which of several resources comes first.
//!
//! Client and gateway must agree on them: a gateway refuses a name that doesn't match its resource.

mod index;

pub use index::PatternIndex;

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use crate::dns::{Name, split_labels};

/// The longest pattern: as long as the longest name in text, each of whose octets is escaped.
const MAX_LEN: usize = 1_016;

/// A pattern of domain names.
///
/// Its labels match those of a name, ASCII case aside. `?` stands for one character, `*` for any number of them inside a
/// label, and `**`, which must be a label of its own, for any number of labels. `*.` in front of a domain also matches
/// the domain itself.
///
/// Patterns are ordered by how specific they are, most specific first.
#[derive(Clone)]
pub struct Pattern {
    /// In lower case, without the trailing dot.
    text: Arc<str>,
    /// From left to right.
    labels: Arc<[Label]>,
}

/// What a label of a pattern stands for.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Label {
    /// Itself.
    Literal(Box<str>),
    /// `*`: any label.
    Any,
    /// `**`: any number of labels.
    Deep,
    /// Some labels, by the wildcards in it.
    Glob(Box<str>),
}

/// Why a text is no pattern.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// Nothing to match.
    #[error("the pattern is empty; write `**` to match every name")]
    Empty,
    /// Two dots in a row, or one in front.
    #[error("a label of `{0}` is empty; write one dot between labels and none in front")]
    EmptyLabel(String),
    /// `**` as a part of a label.
    #[error(
        "`**` in `{0}` must be a label of its own, as in `**.example.com`; write `*` for a part of a label"
    )]
    DoubleStar(String),
    /// A class of characters.
    #[error(
        "`{0}` has a character class, which is not supported; write `?` for any one character, or one pattern for each"
    )]
    CharacterClass(String),
    /// A letter outside of ASCII.
    #[error("`{0}` is not ASCII; write it as an A-label (`xn--…`)")]
    NotAscii(String),
    /// A space or a control character.
    #[error("`{0}` has a space or a control character; remove it, or write it as `\\DDD`")]
    NotPrintable(String),
    /// A backslash that escapes nothing.
    #[error("a backslash in `{0}` must be followed by three digits, a dot or a backslash")]
    Escape(String),
    /// Longer than any name.
    #[error("{0} characters are more than the {MAX_LEN} that a name can have")]
    TooLong(usize),
}

impl Pattern {
    /// Reads a pattern, with or without its trailing dot.
    ///
    /// # Errors
    ///
    /// [`PatternError`], which says what to write instead.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let mut labels: Vec<&str> = split_labels(text).collect();
        if labels.len() > 1 && labels.last() == Some(&"") {
            labels.pop();
        }
        if text.len() > MAX_LEN {
            return Err(PatternError::TooLong(text.len()));
        }
        match labels.as_slice() {
            [] | [""] => return Err(PatternError::Empty),
            _ => {}
        }
        if labels.contains(&"") {
            return Err(PatternError::EmptyLabel(text.into()));
        }

        let text = labels.join(".").to_ascii_lowercase();
        let labels: Result<_, _> = split_labels(&text).map(Label::parse).collect();

        Ok(Self {
            labels: labels?,
            text: text.into(),
        })
    }

    /// The text in lower case, without the trailing dot.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether `name` is one of those it stands for.
    pub fn matches(&self, name: &Name) -> bool {
        let labels: Vec<&str> = name.labels().collect();
        let is_deep = |label: &Label| *label == Label::Deep;

        wildcard(&self.labels, &labels, is_deep, |label, one| {
            label.matches(one)
        }) || self
            .domain_itself()
            .is_some_and(|domain| domain == name.as_str())
    }

    /// What `*.` stands in front of, if that has no wildcards itself.
    fn domain_itself(&self) -> Option<&str> {
        let (Label::Any, domain) = self.labels.split_first()? else {
            return None;
        };
        let literal = |label| matches!(label, &Label::Literal(_));

        domain
            .iter()
            .all(literal)
            .then(|| self.text.strip_prefix("*."))
            .flatten()
    }

    /// How much its characters match, from the last to the first. What ends early matches least.
    fn breadth(&self) -> impl Iterator<Item = u16> {
        self.text.bytes().rev().map(|byte| match byte {
            b'*' => 0x101,
            b'?' => 0x100,
            // Arbitrary, but the same everywhere.
            literal => 0xFF - u16::from(literal),
        })
    }
}

impl Label {
    fn parse(label: &str) -> Result<Self, PatternError> {
        if !label.is_ascii() {
            return Err(PatternError::NotAscii(label.into()));
        }
        if label.contains(|c: char| !c.is_ascii_graphic()) {
            return Err(PatternError::NotPrintable(label.into()));
        }
        if label.contains(['[', ']']) {
            return Err(PatternError::CharacterClass(label.into()));
        }
        if !escapes_fit(label.as_bytes()) {
            return Err(PatternError::Escape(label.into()));
        }
        match label {
            "*" => Ok(Self::Any),
            "**" => Ok(Self::Deep),
            _ if label.contains("**") => Err(PatternError::DoubleStar(label.into())),
            _ if label.contains(['*', '?']) => Ok(Self::Glob(label.into())),
            _ => Ok(Self::Literal(label.into())),
        }
    }

    /// Whether it matches one label of a name.
    fn matches(&self, label: &str) -> bool {
        match self {
            Self::Literal(literal) => **literal == *label,
            Self::Any | Self::Deep => true,
            Self::Glob(glob) => glob_matches(glob, label),
        }
    }
}

fn glob_matches(glob: &str, label: &str) -> bool {
    let is_star = |byte: &u8| *byte == b'*';

    wildcard(glob.as_bytes(), label.as_bytes(), is_star, |byte, one| {
        *byte == b'?' || byte == one
    })
}

/// Whether each backslash escapes something.
fn escapes_fit(mut label: &[u8]) -> bool {
    while let Some(at) = label.iter().position(|byte| *byte == b'\\') {
        let len = match label.get(at + 1..) {
            Some([b'.' | b'\\', ..]) => 2,
            Some([b'0'..=b'9', b'0'..=b'9', b'0'..=b'9', ..]) => 4,
            _ => return false,
        };
        label = label.get(at + len..).unwrap_or_default();
    }

    true
}

/// Whether `items` match `pattern`, in which a star stands for any number of items and anything else for `one`.
///
/// Only the last star is ever tried again: if what stands behind it fits further right, it fits there for the stars before
/// as well. So this takes the product of both lengths at most.
fn wildcard<P, I>(
    pattern: &[P],
    items: &[I],
    is_star: impl Fn(&P) -> bool,
    matches: impl Fn(&P, &I) -> bool,
) -> bool {
    let (mut pattern, mut items) = (pattern, items);
    let mut last_star = None;
    loop {
        match (pattern.split_first(), items.split_first()) {
            (Some((first, behind)), _) if is_star(first) => {
                last_star = Some((behind, items));
                pattern = behind;
                continue;
            }
            (None, None) => return true,
            (Some((first, behind)), Some((item, rest))) if matches(first, item) => {
                (pattern, items) = (behind, rest);
                continue;
            }
            _ => {}
        }
        // The star takes one item more.
        let Some((behind, [_, rest @ ..])) = last_star else {
            return false;
        };
        last_star = Some((behind, rest));
        (pattern, items) = (behind, rest);
    }
}

impl Ord for Pattern {
    fn cmp(&self, other: &Self) -> Ordering {
        self.breadth().cmp(other.breadth())
    }
}

impl PartialOrd for Pattern {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests;
