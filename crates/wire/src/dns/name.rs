//! Domain names.

use std::borrow::Borrow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

/// The most octets of a name on the wire, lengths and the root's included (RFC 1035 §2.3.4).
const MAX_WIRE: usize = 255;

/// The most octets of a label (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;

/// A domain name as text in one canonical form, so that equal names are equal texts. Cloning is cheap.
///
/// ASCII is in lower case and there is no trailing dot; the root is empty. A dot or backslash inside a label has a
/// backslash in front, and an octet that isn't printable ASCII is `\DDD`, its value in decimal (RFC 1035 §5.1).
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Name(Arc<str>);

/// Why a text is no domain name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Two dots in a row, or one in front.
    #[error("a label is empty; write one dot between labels and none in front")]
    EmptyLabel,
    /// A label of more than 63 octets.
    #[error("a label has more than {MAX_LABEL} octets")]
    LongLabel,
    /// More than 255 octets.
    #[error("the name has more than {MAX_WIRE} octets on the wire")]
    TooLong,
    /// A backslash that escapes nothing.
    #[error(
        "a backslash must be followed by three digits up to 255 or by the character that it escapes"
    )]
    Escape,
    /// An octet that needs escaping.
    #[error(
        "{0:#04x} is not printable ASCII; write other letters as an A-label (xn--…), other octets as \\DDD"
    )]
    NotPrintable(u8),
}

impl Name {
    /// Reads a name, with or without its trailing dot; the root is `.` or nothing.
    ///
    /// # Errors
    ///
    /// [`NameError`], by what is wrong.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text == "." {
            return Ok(Self("".into()));
        }
        let mut writer = Writer::with_capacity(text.len());

        for token in Tokens(text.as_bytes()) {
            match token? {
                Token::Octet(octet) => writer.octet(octet)?,
                Token::Dot if writer.label == 0 => return Err(NameError::EmptyLabel),
                Token::Dot => writer.label = 0,
            }
        }

        Ok(writer.finish())
    }

    /// Makes a name of labels as they come off the wire.
    pub(super) fn from_labels<'a>(
        labels: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Self, NameError> {
        let mut writer = Writer::with_capacity(64);
        for label in labels {
            writer.label = 0;
            for octet in label {
                writer.octet(*octet)?;
            }
        }

        Ok(writer.finish())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its labels from left to right, each as it stands in the text; none for the root.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &str> + Clone {
        split_labels(self.as_str())
    }

    /// The name as it stands in a message, uncompressed.
    pub fn to_wire(&self) -> Vec<u8> {
        let mut wire = Vec::with_capacity(self.0.len() + 2);
        let (mut length_at, mut length) = (0, 0);
        wire.push(0);
        for token in Tokens(self.0.as_bytes()).flatten() {
            match token {
                Token::Octet(octet) => {
                    wire.push(octet);
                    length += 1;
                    if let Some(slot) = wire.get_mut(length_at) {
                        *slot = length;
                    }
                }
                Token::Dot => {
                    (length_at, length) = (wire.len(), 0);
                    wire.push(0);
                }
            }
        }
        if length > 0 {
            wire.push(0);
        }

        wire
    }

    /// Whether it is the root, the name without labels.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The address that a name below `in-addr.arpa` or `ip6.arpa` stands for; `None` for any other name, and where labels
    /// are missing or too many (RFC 1035 §3.5, RFC 3596 §2.5).
    pub fn reverse(&self) -> Option<IpAddr> {
        let mut labels = self.labels().rev();
        if labels.next()? != "arpa" {
            return None;
        }
        let address: IpAddr = match labels.next()? {
            "in-addr" => {
                let mut octets = [0; 4];
                for octet in &mut octets {
                    *octet = decimal(labels.next()?)?;
                }
                octets.into()
            }
            "ip6" => {
                let mut bits = 0_u128;
                for _ in 0..32 {
                    bits = bits << 4 | u128::from(nibble(labels.next()?)?);
                }
                IpAddr::V6(bits.into())
            }
            _ => return None,
        };

        labels.next().is_none().then_some(address)
    }
}

fn decimal(label: &str) -> Option<u8> {
    let digits = label.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = label.len() > 1 && label.starts_with('0');

    (digits && !leading_zero)
        .then(|| label.parse().ok())
        .flatten()
}

fn nibble(label: &str) -> Option<u32> {
    let mut chars = label.chars();
    let digit = chars.next()?.to_digit(16)?;

    chars.next().is_none().then_some(digit)
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_str() {
            "" => f.write_str("."),
            text => f.write_str(text),
        }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

/// Writes the canonical text, and minds the limits of the wire.
struct Writer {
    text: String,
    wire: usize,
    /// The octets of the label being written.
    label: usize,
}

impl Writer {
    fn with_capacity(bytes: usize) -> Self {
        Self {
            text: String::with_capacity(bytes),
            wire: 1,
            label: 0,
        }
    }

    fn octet(&mut self, octet: u8) -> Result<(), NameError> {
        if self.label == 0 {
            self.wire += 1;
            if !self.text.is_empty() {
                self.text.push('.');
            }
        }
        self.label += 1;
        self.wire += 1;
        if self.label > MAX_LABEL {
            return Err(NameError::LongLabel);
        }
        if self.wire > MAX_WIRE {
            return Err(NameError::TooLong);
        }
        match octet {
            b'.' | b'\\' => self.text.extend(['\\', octet.into()]),
            0x21..=0x7E => self.text.push(octet.to_ascii_lowercase().into()),
            _ => {
                let digit = |n: u8| char::from(b'0' + n % 10);
                let digits = [digit(octet / 100), digit(octet / 10), digit(octet)];
                self.text.push('\\');
                self.text.extend(digits);
            }
        }

        Ok(())
    }

    fn finish(self) -> Name {
        Name(self.text.into())
    }
}

enum Token {
    Octet(u8),
    Dot,
}

/// What a text says, with its escapes undone.
struct Tokens<'a>(&'a [u8]);

impl Iterator for Tokens<'_> {
    type Item = Result<Token, NameError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (token, rest) = match self.0 {
            [] => return None,
            [b'.', rest @ ..] => (Ok(Token::Dot), rest),
            [
                b'\\',
                a @ b'0'..=b'9',
                b @ b'0'..=b'9',
                c @ b'0'..=b'9',
                rest @ ..,
            ] => {
                let value = [a, b, c]
                    .iter()
                    .fold(0, |sum, digit| sum * 10 + u16::from(**digit - b'0'));
                let octet = u8::try_from(value).map_err(|_| NameError::Escape);
                (octet.map(Token::Octet), rest)
            }
            [b'\\', octet, rest @ ..] if octet.is_ascii_graphic() && !octet.is_ascii_digit() => {
                (Ok(Token::Octet(*octet)), rest)
            }
            [b'\\', rest @ ..] => (Err(NameError::Escape), rest),
            [octet, rest @ ..] if octet.is_ascii_graphic() => (Ok(Token::Octet(*octet)), rest),
            [octet, rest @ ..] => (Err(NameError::NotPrintable(*octet)), rest),
        };
        self.0 = rest;

        Some(token)
    }
}

/// The labels of a text, cut at each dot that isn't escaped; none if it is empty.
pub(crate) fn split_labels(text: &str) -> impl DoubleEndedIterator<Item = &str> + Clone {
    Labels(Some(text).filter(|text| !text.is_empty()))
}

/// What is still to be cut.
#[derive(Clone)]
struct Labels<'a>(Option<&'a str>);

impl<'a> Iterator for Labels<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = self.0?;
        let mut escaped = false;
        let dot = text.bytes().position(|byte| {
            let here = byte == b'.' && !escaped;
            escaped = byte == b'\\' && !escaped;
            here
        });
        let Some(dot) = dot else {
            return self.0.take();
        };
        self.0 = text.get(dot + 1..);

        text.get(..dot)
    }
}

impl<'a> DoubleEndedIterator for Labels<'a> {
    fn next_back(&mut self) -> Option<&'a str> {
        let text = self.0?;
        let bytes = text.as_bytes();
        let mut end = bytes.len();
        loop {
            let before = bytes.get(..end).unwrap_or_default();
            let Some(dot) = before.iter().rposition(|byte| *byte == b'.') else {
                return self.0.take();
            };
            let backslashes = before.iter().take(dot).rev();
            if backslashes.take_while(|byte| **byte == b'\\').count() % 2 == 0 {
                self.0 = text.get(..dot);
                return text.get(dot + 1..);
            }
            end = dot;
        }
    }
}
