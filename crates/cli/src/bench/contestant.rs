//! Who is measured, and where their programs are.

use std::env;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::{Serialize, Serializer};

use crate::environment::Environment;
use crate::exit::{Exit, Failure};

/// A way to carry packets between the client and the gateway.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, ValueEnum)]
pub(crate) enum Contestant {
    /// This program: client, gateway, portal, relay.
    #[value(skip)]
    Ours,
    /// This project's data path with fixed peers.
    OursWireguard,
    WireguardGo,
    Gotatun,
    Boringtun,
    /// This program, but for the relay: coturn's. Takes part where packets are relayed.
    Turnserver,
    /// No tunnel at all: what the machine itself can do.
    Raw,
}

/// A contestant that takes part, with its program.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Entrant {
    pub(super) contestant: Contestant,
    /// `None` for those that need none but this one.
    pub(super) program: Option<PathBuf>,
}

/// A contestant that does not take part.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(super) struct Skipped {
    pub(super) name: Contestant,
    /// The command that brings its program.
    pub(super) install: &'static str,
}

/// How to find a program and, if that fails, how to get it.
struct Source {
    names: &'static [&'static str],
    install: &'static str,
}

/// Says where the program of `ours-wireguard` is, before any other place.
const WIREGUARD_PEER: &str = "CONNLIB_WIREGUARD_PEER";

impl Contestant {
    /// All that can be compared with.
    const OTHERS: [Self; 6] = [
        Self::OursWireguard,
        Self::WireguardGo,
        Self::Gotatun,
        Self::Boringtun,
        Self::Turnserver,
        Self::Raw,
    ];

    /// What reports and `--against` call it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::OursWireguard => "ours-wireguard",
            Self::WireguardGo => "wireguard-go",
            Self::Gotatun => "gotatun",
            Self::Boringtun => "boringtun",
            Self::Turnserver => "turnserver",
            Self::Raw => "raw",
        }
    }

    /// Whether this program carries packets at both ends, as a client and a gateway that a portal brings together.
    pub(super) const fn has_our_ends(self) -> bool {
        matches!(self, Self::Ours | Self::Turnserver)
    }

    /// Whether somebody else's program; what isn't is never the best peer.
    pub(super) const fn is_peer(self) -> bool {
        matches!(self, Self::WireguardGo | Self::Gotatun | Self::Boringtun)
    }

    const fn source(self) -> Option<Source> {
        let (names, install): (&[_], _) = match self {
            Self::Ours | Self::Raw => return None,
            Self::OursWireguard => (
                &["wireguard_peer"],
                "cargo build --release -p connlib --example wireguard_peer",
            ),
            Self::WireguardGo => (&["wireguard-go"], "apt-get install wireguard-go"),
            Self::Gotatun => (&["gotatun", "gotatun-cli"], "cargo install gotatun-cli"),
            Self::Boringtun => (&["boringtun-cli"], "cargo install boringtun-cli"),
            Self::Turnserver => (&["turnserver"], "apt-get install coturn"),
        };

        Some(Source { names, install })
    }

    /// Looks for its program.
    fn find(self, environment: &Environment) -> Result<Entrant, Skipped> {
        let Some(source) = self.source() else {
            return Ok(Entrant {
                contestant: self,
                program: None,
            });
        };
        let mut names = source.names.iter();
        let program = (self == Self::OursWireguard)
            .then(|| own_example(environment))
            .flatten();

        match program.or_else(|| names.find_map(|name| find_program(name, environment))) {
            Some(program) => Ok(Entrant {
                contestant: self,
                program: Some(program),
            }),
            None => Err(Skipped {
                name: self,
                install: source.install,
            }),
        }
    }
}

/// Sorts those who shall be compared with: who can be, and who is skipped. Ours comes first, whoever is named.
///
/// # Errors
///
/// Exit 1: a program that was named isn't there; the message says what brings it.
pub(super) fn enter(
    named: &[Contestant],
    environment: &Environment,
) -> Result<(Vec<Entrant>, Vec<Skipped>), Failure> {
    let is_wanted = |contestant: &Contestant| named.is_empty() || named.contains(contestant);
    let mut entrants = vec![Entrant {
        contestant: Contestant::Ours,
        program: None,
    }];
    let mut skipped = Vec::new();
    for contestant in Contestant::OTHERS.into_iter().filter(is_wanted) {
        match contestant.find(environment) {
            Ok(entrant) => entrants.push(entrant),
            Err(skip) if named.is_empty() => skipped.push(skip),
            Err(skip) => {
                return Err(Failure::new(
                    Exit::Failed,
                    format_args!(
                        "--against {contestant}: its program is not in PATH; bring it with `{}`",
                        skip.install
                    ),
                ));
            }
        }
    }

    Ok((entrants, skipped))
}

/// Looks for a program in PATH.
pub(super) fn find_program(name: &str, environment: &Environment) -> Option<PathBuf> {
    let path = environment.value("PATH")?;

    env::split_paths(path)
        .map(|directory| directory.join(name))
        .find(|path| is_program(path))
}

/// The example is built beside this program, and isn't installed.
fn own_example(environment: &Environment) -> Option<PathBuf> {
    if let Some(path) = environment.value(WIREGUARD_PEER) {
        return Some(PathBuf::from(path));
    }
    let program = env::current_exe().ok()?;
    let example = program.parent()?.join("examples").join("wireguard_peer");

    is_program(&example).then_some(example)
}

fn is_program(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

impl fmt::Display for Contestant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Contestant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};

    fn environment(path: &Path) -> Environment {
        Environment::of(&[("PATH", path.to_str().unwrap())], &[])
    }

    #[test]
    fn programs_that_are_not_there_are_skipped_with_advice() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("boringtun-cli");
        fs::write(&program, "").unwrap();
        let environment = environment(directory.path());

        let (_, skipped) = enter(&[], &environment).unwrap();
        let advice = skipped
            .iter()
            .find(|skip| skip.name == Contestant::Boringtun);
        assert_eq!(advice.unwrap().install, "cargo install boringtun-cli");

        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        let (entrants, _) = enter(&[], &environment).unwrap();
        assert!(entrants.iter().any(|entrant| {
            entrant.contestant == Contestant::Boringtun
                && entrant.program.as_ref() == Some(&program)
        }));
    }

    #[test]
    fn a_named_program_that_is_not_there_is_a_failure_with_advice() {
        let environment = environment(Path::new("/nowhere"));

        let failure = enter(&[Contestant::WireguardGo], &environment).unwrap_err();
        assert_eq!(failure.exit, Exit::Failed);
        assert!(failure.to_string().contains("apt-get install wireguard-go"));
    }

    #[test]
    fn ours_is_always_there_and_comes_first() {
        let environment = environment(Path::new("/nowhere"));

        let (entrants, skipped) = enter(&[Contestant::Raw], &environment).unwrap();
        let names: Vec<_> = entrants.iter().map(|entrant| entrant.contestant).collect();
        assert_eq!(names, [Contestant::Ours, Contestant::Raw]);
        assert_eq!(skipped, []);
    }
}
