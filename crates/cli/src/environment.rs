//! The environment of the process, read once.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};

use connlib_os::process;
use connlib_wire::secret::Secret;

use crate::exit::{Exit, Failure};

/// The variables that hold a secret, and are taken out of the environment before anything else happens.
const SECRET_NAMES: [&str; 3] = ["CONNLIB_TOKEN", "FIREZONE_TOKEN", "CONNLIB_SECRET"];

/// The environment as it was at the start, with its secrets apart.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    plain: BTreeMap<OsString, OsString>,
    secrets: BTreeMap<&'static str, Secret>,
}

impl Environment {
    /// Reads the environment and takes the secrets out of it.
    ///
    /// The process must have a single thread.
    ///
    /// # Errors
    ///
    /// A secret is no text, or can't be taken out.
    pub(crate) fn take() -> Result<Self, Failure> {
        let mut secrets = BTreeMap::new();
        for name in SECRET_NAMES {
            let taken = process::take_env(name).map_err(|error| {
                Failure::os(format_args!("take {name} out of the environment"), &error)
            })?;
            let Some(text) = taken.filter(|text| !text.is_empty()) else {
                continue;
            };
            let text = text.into_string().map_err(|_| {
                Failure::new(
                    Exit::NotAuthorised,
                    format_args!("{name} is malformed: it is not UTF-8; set it anew"),
                )
            })?;
            secrets.insert(name, Secret::from(text.trim().to_owned()));
        }

        Ok(Self {
            plain: env::vars_os().collect(),
            secrets,
        })
    }

    /// A variable that is set to something.
    pub(crate) fn value(&self, name: &str) -> Option<&OsStr> {
        self.plain
            .get(OsStr::new(name))
            .map(OsString::as_os_str)
            .filter(|value| !value.is_empty())
    }

    /// One of the variables that hold a secret.
    pub(crate) fn secret(&self, name: &str) -> Option<&Secret> {
        self.secrets.get(name)
    }

    #[cfg(test)]
    pub(crate) fn of(plain: &[(&str, &str)], secrets: &[(&'static str, &str)]) -> Self {
        Self {
            plain: plain
                .iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            secrets: secrets
                .iter()
                .map(|(name, value)| (*name, Secret::from(*value)))
                .collect(),
        }
    }
}
