//! Settings: where each value comes from, and which one counts (cli.md "Settings").
//!
//! Flag > `CONNLIB_…` > Firezone's name > configuration file > default.

mod file;
mod names;

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use connlib_wire::secret::Secret;

use crate::environment::Environment;
use crate::exit::{Exit, Failure};

use file::ConfigFile;
pub(crate) use names::{Role, name, own_variable};

/// The settings of one role.
#[derive(Debug)]
pub(crate) struct Settings<'a> {
    role: Role,
    environment: &'a Environment,
    file: Option<ConfigFile>,
    shown: Vec<Shown>,
}

/// Where a value came from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Origin {
    Flag(&'static str),
    Environment(&'static str),
    File { file: PathBuf, line: usize },
    Default,
}

/// A value that has not been understood yet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Found {
    pub(crate) text: String,
    pub(crate) origin: Origin,
}

/// A line of `--print-config`.
#[derive(Debug)]
struct Shown {
    name: &'static str,
    /// Absent for secrets.
    text: Option<String>,
    /// Absent for what isn't given.
    origin: Option<Origin>,
}

impl<'a> Settings<'a> {
    /// Reads the configuration file, if there is one.
    ///
    /// # Errors
    ///
    /// The file can't be read, is no TOML, or has a key that `role` doesn't have in this version; or the environment sets
    /// something that this version doesn't have.
    pub(crate) fn open(
        role: Role,
        config: Option<&Path>,
        environment: &'a Environment,
    ) -> Result<Self, Failure> {
        let file = config
            .map(|path| ConfigFile::read(path, role))
            .transpose()?;
        for later in role.later() {
            let variable = own_variable(later);
            if environment.value(&variable).is_some() {
                return Err(Failure::later(variable));
            }
        }

        Ok(Self {
            role,
            environment,
            file,
            shown: Vec::new(),
        })
    }

    /// The environment that the settings are read from.
    pub(crate) fn environment(&self) -> &'a Environment {
        self.environment
    }

    /// A setting that may be absent.
    ///
    /// # Errors
    ///
    /// What is given for it isn't understood.
    pub(crate) fn optional<T>(
        &mut self,
        name: &'static str,
        flag: Option<&str>,
    ) -> Result<Option<T>, Failure>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let found = self.find(name, flag)?;
        self.show(name, found.as_ref());

        found.map(|found| parse(name, &found)).transpose()
    }

    /// A setting with a default.
    ///
    /// # Errors
    ///
    /// What is given for it isn't understood.
    pub(crate) fn with_default<T>(
        &mut self,
        name: &'static str,
        flag: Option<&str>,
        default: &str,
    ) -> Result<T, Failure>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let found = self.find(name, flag)?.unwrap_or_else(|| Found {
            text: default.to_owned(),
            origin: Origin::Default,
        });
        self.show(name, Some(&found));

        parse(name, &found)
    }

    /// A path whose default depends on the user; `None` if there is no default for this one.
    ///
    /// # Errors
    ///
    /// What is given for it isn't understood.
    pub(crate) fn with_default_path(
        &mut self,
        name: &'static str,
        flag: Option<&str>,
        default: Option<PathBuf>,
    ) -> Result<Option<PathBuf>, Failure> {
        let default = default.and_then(|path| path.into_os_string().into_string().ok());

        match default {
            Some(default) => self.with_default(name, flag, &default).map(Some),
            None => self.optional(name, flag),
        }
    }

    /// A setting that is on when it is named.
    ///
    /// # Errors
    ///
    /// What is given for it isn't understood.
    pub(crate) fn switch(
        &mut self,
        name: &'static str,
        is_flag_given: bool,
    ) -> Result<bool, Failure> {
        let flag = is_flag_given.then_some("true");

        Ok(self.with_default::<Switch>(name, flag, "false")?.0)
    }

    /// Where a setting is given, before its text is understood.
    ///
    /// # Errors
    ///
    /// A variable isn't UTF-8.
    pub(crate) fn find(
        &self,
        name: &'static str,
        flag: Option<&str>,
    ) -> Result<Option<Found>, Failure> {
        if let Some(text) = flag {
            return Ok(Some(Found {
                text: text.to_owned(),
                origin: Origin::Flag(name),
            }));
        }
        let spec = self.role.name(name);
        for &variable in spec.variables {
            if let Some(found) = self.variable(variable)? {
                return Ok(Some(found));
            }
        }

        Ok(self.file.as_ref().and_then(|file| file.find(name)))
    }

    /// What an environment variable says.
    ///
    /// # Errors
    ///
    /// It isn't UTF-8.
    pub(crate) fn variable(&self, variable: &'static str) -> Result<Option<Found>, Failure> {
        let Some(text) = self.environment.value(variable) else {
            return Ok(None);
        };
        let text = text.to_str().ok_or_else(|| {
            Failure::new(
                Exit::WrongUse,
                format_args!("{variable} is malformed: it is not UTF-8; set it anew"),
            )
        })?;

        Ok(Some(Found {
            text: text.to_owned(),
            origin: Origin::Environment(variable),
        }))
    }

    /// Notes for `--print-config` what a setting is.
    pub(crate) fn show(&mut self, name: &'static str, found: Option<&Found>) {
        self.shown.push(Shown {
            name,
            text: found.map(|found| found.text.clone()),
            origin: found.map(|found| found.origin.clone()),
        });
    }

    /// Notes for `--print-config` that a secret is given.
    pub(crate) fn show_secret(&mut self, name: &'static str, origin: Origin) {
        self.shown.push(Shown {
            name,
            text: None,
            origin: Some(origin),
        });
    }

    /// A secret that may be given by a flag or the environment.
    ///
    /// # Errors
    ///
    /// None yet; a file is no place for it.
    pub(crate) fn secret(&mut self, name: &'static str, flag: Option<&str>) -> Option<Secret> {
        if let Some(text) = flag {
            self.show_secret(name, Origin::Flag(name));
            return Some(Secret::from(text));
        }
        let spec = self.role.name(name);
        let found = spec.variables.iter().find_map(|variable| {
            let secret = self.environment.secret(variable)?;
            Some((*variable, secret.clone()))
        });
        let Some((variable, secret)) = found else {
            self.show(name, None);
            return None;
        };
        self.show_secret(name, Origin::Environment(variable));

        Some(secret)
    }

    /// Each value and where it came from, as a configuration file that says the same.
    pub(crate) fn print(&self) -> String {
        let mut text = String::new();
        for Shown {
            name,
            text: value,
            origin,
        } in &self.shown
        {
            let line = match (value, origin) {
                (None, Some(origin)) => format!("# {name} = ***  # from {origin}"),
                (Some(value), Some(Origin::Default)) => format!("{name} = {value:?}  # default"),
                (Some(value), Some(origin)) => format!("{name} = {value:?}  # from {origin}"),
                (_, None) => format!("# {name} is not given"),
            };
            // Writing to a text can't fail.
            let _ = writeln!(text, "{line}");
        }

        text
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "--{name}"),
            Self::Environment(variable) => f.write_str(variable),
            Self::File { file, line } => write!(f, "{}:{line}", file.display()),
            Self::Default => f.write_str("the default"),
        }
    }
}

/// Understands a value.
///
/// # Errors
///
/// It isn't understood; the message names where it stands.
pub(crate) fn parse<T>(name: &str, found: &Found) -> Result<T, Failure>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    found.text.parse().map_err(|error| {
        Failure::new(
            Exit::WrongUse,
            format_args!(
                "{}: `{name}` can't be {:?}: {error}",
                found.origin, found.text
            ),
        )
    })
}

/// `true` or `false`, in the words that people use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Switch(pub(crate) bool);

impl FromStr for Switch {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "true" | "on" | "yes" | "1" => Ok(Self(true)),
            "false" | "off" | "no" | "0" => Ok(Self(false)),
            _ => Err("say on or off"),
        }
    }
}

#[cfg(test)]
mod tests;
