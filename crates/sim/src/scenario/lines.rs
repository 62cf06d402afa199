//! One line of a scenario, word by word.

use std::collections::BTreeMap;
use std::time::Duration;

use super::quantity::span;

/// What is left to read of a line.
pub(super) struct Line<'a> {
    words: std::vec::IntoIter<&'a str>,
    fields: BTreeMap<&'a str, &'a str>,
}

impl<'a> Line<'a> {
    /// Takes a line apart: words in order, and `key=value` in any order.
    pub(super) fn new(text: &'a str) -> Result<Self, String> {
        let (mut words, mut fields) = (Vec::new(), BTreeMap::new());
        for word in text.split_whitespace() {
            match word.split_once('=') {
                Some((key, value)) => {
                    if fields.insert(key, value).is_some() {
                        return Err(format!("`{key}` is there twice"));
                    }
                }
                None => words.push(word),
            }
        }

        Ok(Self {
            words: words.into_iter(),
            fields,
        })
    }

    /// The next word, which is `what`.
    pub(super) fn word(&mut self, what: &str) -> Result<&'a str, String> {
        self.words
            .next()
            .ok_or_else(|| format!("{what} is missing"))
    }

    /// Whether `flag` stands anywhere in the line; if so, it is read.
    pub(super) fn flag(&mut self, flag: &str) -> bool {
        let words: Vec<&str> = self.words.by_ref().collect();
        let is_there = words.contains(&flag);
        let rest: Vec<&str> = words.into_iter().filter(|word| *word != flag).collect();
        self.words = rest.into_iter();

        is_there
    }

    /// The value of `key`, if it is there and not `-`.
    pub(super) fn maybe<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let Some(value) = self.fields.remove(key).filter(|value| *value != "-") else {
            return Ok(None);
        };
        let read = read(value).ok_or_else(|| format!("`{value}` is no value of `{key}`"))?;

        Ok(Some(read))
    }

    /// The value of `key`.
    pub(super) fn field<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, String> {
        self.maybe(key, read)?
            .ok_or_else(|| format!("`{key}=` is missing"))
    }

    /// The duration of `key`.
    pub(super) fn span(&mut self, key: &str) -> Result<Duration, String> {
        self.field(key, span)
    }

    /// Nothing may be left.
    pub(super) fn end(mut self) -> Result<(), String> {
        if let Some(word) = self.words.next() {
            return Err(format!("`{word}` has no meaning here"));
        }

        match self.fields.keys().next() {
            Some(key) => Err(format!("`{key}=` has no meaning here")),
            None => Ok(()),
        }
    }
}

/// Reads a number.
pub(super) fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

/// Reads a number that may be written in hexadecimal digits.
pub(super) fn seed(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}
