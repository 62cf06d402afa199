//! The configuration file: TOML with the flags' names as keys.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::names::{Role, name};
use super::{Found, Origin};
use crate::exit::{Exit, Failure};

/// A configuration file of a role; all its keys are known.
#[derive(Debug)]
pub(super) struct ConfigFile {
    path: PathBuf,
    values: BTreeMap<&'static str, Value>,
}

#[derive(Debug)]
struct Value {
    text: String,
    line: usize,
}

impl ConfigFile {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// It can't be read, is no TOML, or has a key or a value that `role` doesn't know. The message names file, line and
    /// key.
    pub(super) fn read(path: &Path, role: Role) -> Result<Self, Failure> {
        let text = fs::read_to_string(path).map_err(|error| {
            Failure::new(
                Exit::WrongUse,
                format_args!(
                    "can't read the configuration file {}: {error}",
                    path.display()
                ),
            )
        })?;

        Self::parse(path, &text, role)
    }

    fn parse(path: &Path, text: &str, role: Role) -> Result<Self, Failure> {
        let wrong = |line: usize, problem: String| {
            Failure::new(
                Exit::WrongUse,
                format_args!("{}:{line}: {problem}", path.display()),
            )
        };
        let line_of = |offset: usize| 1 + text.bytes().take(offset).filter(|&b| b == b'\n').count();
        let table = DeTable::parse(text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            wrong(
                line_of(offset),
                format!("this is no TOML: {}", error.message()),
            )
        })?;

        let mut values = BTreeMap::new();
        for (key, value) in table.get_ref() {
            let line = line_of(key.span().start);
            let key = key.get_ref().as_ref();
            let known = known_key(key, role).map_err(|problem| wrong(line, problem))?;
            let text = text_of(value).ok_or_else(|| {
                wrong(
                    line,
                    format!("`{key}` must be a text, a number, true or false"),
                )
            })?;
            if values.insert(known, Value { text, line }).is_some() {
                return Err(wrong(line, format!("`{key}` is given twice")));
            }
        }

        Ok(Self {
            path: path.to_owned(),
            values,
        })
    }

    /// What the file says about a setting.
    pub(super) fn find(&self, name: &str) -> Option<Found> {
        let value = self.values.get(name)?;

        Some(Found {
            text: value.text.clone(),
            origin: Origin::File {
                file: self.path.clone(),
                line: value.line,
            },
        })
    }
}

/// The setting that a key stands for; `api_url` is as good as `api-url`.
fn known_key(key: &str, role: Role) -> Result<&'static str, String> {
    let dashed = key.replace('_', "-");
    if [name::TOKEN, name::SECRET].contains(&dashed.as_str()) {
        let instead = match dashed == name::TOKEN {
            true => "name a file that holds it alone with `token-file`",
            false => "use the variable CONNLIB_SECRET",
        };
        return Err(format!(
            "`{key}` is secret and has no place in a configuration file; {instead}"
        ));
    }
    if role.later().contains(&dashed.as_str()) {
        return Err(format!("`{key}` is not in this version; leave it out"));
    }

    let known = role.names().iter().find(|spec| spec.name == dashed);
    known.map(|spec| spec.name).ok_or_else(|| {
        let names: Vec<_> = role.names().iter().map(|spec| spec.name).collect();
        format!(
            "the key `{key}` is unknown; a {role} knows {}",
            names.join(", ")
        )
    })
}

fn text_of(value: &Spanned<DeValue<'_>>) -> Option<String> {
    match value.get_ref() {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Boolean(on) => Some(on.to_string()),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ConfigFile, Failure> {
        ConfigFile::parse(Path::new("/etc/c.toml"), text, Role::Client)
    }

    #[test]
    fn values_of_all_plain_kinds_are_read_with_their_lines() {
        let file = parse("# x\napi_url = \"wss://p\"\nready-fd = 7\n").unwrap();

        let found = file.find("api-url").unwrap();
        assert_eq!(found.text, "wss://p");
        assert_eq!(found.origin.to_string(), "/etc/c.toml:2");
        assert_eq!(file.find("ready-fd").unwrap().text, "7");
        assert_eq!(file.find("name"), None);
    }

    #[test]
    fn what_is_wrong_is_named_with_file_line_and_key() {
        for (text, expected) in [
            ("id = \"a\"\ntypo = 1", "/etc/c.toml:2: the key `typo`"),
            ("\n\nname = [", "/etc/c.toml:3: this is no TOML"),
            ("name = [\"x\"]", "/etc/c.toml:1: `name` must be"),
            ("api-url = \"a\"\napi_url = \"b\"", "is given twice"),
            ("token = \"t\"", "`token-file`"),
            (
                "check = \"on\"",
                "/etc/c.toml:1: `check` is not in this version",
            ),
            ("listen-port = 3478", "the key `listen-port` is unknown"),
        ] {
            let failure = parse(text).unwrap_err();
            assert_eq!(failure.exit, Exit::WrongUse);
            assert!(failure.to_string().contains(expected), "{failure}");
        }
    }

    #[test]
    fn a_secret_in_a_file_is_not_repeated_in_the_message() {
        let failure = parse("token = \"hush\"").unwrap_err();

        assert!(!failure.to_string().contains("hush"));
    }
}
