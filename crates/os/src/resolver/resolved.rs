//! Control by systemd-resolved, through its tool.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::error::ResolverError;
use super::listing::{Section, sections};
use super::{Resolvers, Wanted};
use crate::sys;

/// The settings of one link.
#[derive(Debug)]
pub(super) struct Resolved {
    program: PathBuf,
    interface: String,
    limit: Duration,
    applied: Option<Wanted>,
}

/// Long enough for a machine that is just starting.
const LIMIT: Duration = Duration::from_secs(5);

/// All names that no link with a longer match claims (resolved.conf(5), `Domains=`).
const ALL_NAMES: &str = "~.";

impl Resolved {
    pub(super) fn new(program: &Path, interface: &str) -> Self {
        Self {
            program: program.into(),
            interface: interface.into(),
            limit: LIMIT,
            applied: None,
        }
    }

    /// Whether systemd-resolved answers.
    pub(super) async fn check(&self) -> Result<(), ResolverError> {
        self.call("dns", &[]).await.map(drop)
    }

    /// What is set everywhere but on our link.
    pub(super) async fn system(&self) -> Result<Resolvers, ResolverError> {
        let (servers, search) = (
            self.call("dns", &[]).await?,
            self.call("domain", &[]).await?,
        );
        let is_other = |section: &Section<'_>| !section.is_of(&self.interface);

        Ok(Resolvers {
            servers: sections(&servers)
                .iter()
                .filter(|section| is_other(section))
                .flat_map(Section::servers)
                .collect(),
            search: sections(&search)
                .iter()
                .filter(|section| is_other(section))
                .flat_map(Section::search)
                .map(String::from)
                .collect(),
        })
    }

    pub(super) async fn apply(&mut self, wanted: &Wanted) -> Result<(), ResolverError> {
        // From here on there is something to take back, even if it is half of it.
        let before = self.applied.replace(wanted.clone());
        let set = self.set(wanted).await;
        // Half of what is wanted would send names nowhere. Whoever does not answer need not be asked again.
        if let Err(error) = &set
            && before.is_none()
            && !matches!(error, ResolverError::TimedOut { .. })
            && let Err(error) = self.revert().await
        {
            tracing::debug!(%error, "what was set of the resolver settings stays");
        }

        set
    }

    pub(super) async fn revert(&mut self) -> Result<(), ResolverError> {
        if self.applied.is_none() {
            return Ok(());
        }
        match self.call("revert", &[&self.interface]).await {
            // The settings went with the link.
            Err(_) if sys::socket::interface_index(&self.interface).is_none() => {}
            result => drop(result?),
        }
        self.applied = None;

        Ok(())
    }

    pub(super) async fn flush(&self) -> Result<(), ResolverError> {
        self.call("flush-caches", &[]).await.map(drop)
    }

    /// Whether our link has the servers that were set, if any were.
    pub(super) async fn is_intact(&self) -> bool {
        let Some(applied) = &self.applied else {
            return true;
        };
        let Ok(servers) = self.call("dns", &[]).await else {
            return false;
        };
        let sections = sections(&servers);
        let set = sections
            .iter()
            .filter(|section| section.is_of(&self.interface))
            .flat_map(Section::servers)
            .map(|server| server.ip());

        set.eq(applied.servers.iter().copied())
    }

    async fn set(&self, wanted: &Wanted) -> Result<(), ResolverError> {
        let interface = self.interface.as_str();
        let servers: Vec<_> = wanted.servers.iter().map(ToString::to_string).collect();
        let servers = servers.iter().map(String::as_str);
        let domains = wanted.search.as_deref().into_iter().chain([ALL_NAMES]);

        self.call("dns", &after(interface, servers)).await?;
        self.call("domain", &after(interface, domains)).await?;
        self.call("default-route", &[interface, "true"]).await?;
        self.call("llmnr", &[interface, "false"]).await?;

        Ok(())
    }

    /// Calls the tool, and returns what it printed.
    async fn call(&self, verb: &str, arguments: &[&str]) -> Result<String, ResolverError> {
        let command = || match arguments.first() {
            Some(interface) => format!("resolvectl {verb} {interface}"),
            None => format!("resolvectl {verb}"),
        };
        let child = Command::new(&self.program)
            .arg(verb)
            .args(arguments)
            .env("LC_ALL", "C")
            .env("SYSTEMD_COLORS", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| ResolverError::NotStarted {
                program: self.program.clone(),
                source,
            })?;
        let output = match timeout(self.limit, child.wait_with_output()).await {
            Ok(Ok(output)) => output,
            Ok(Err(error)) => {
                return Err(ResolverError::Refused {
                    command: command(),
                    reason: error.to_string(),
                });
            }
            Err(_) => {
                return Err(ResolverError::TimedOut {
                    command: command(),
                    limit: self.limit,
                });
            }
        };
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let reason = match said.trim() {
                "" => output.status.to_string(),
                said => said.replace('\n', "; "),
            };
            return Err(ResolverError::Refused {
                command: command(),
                reason,
            });
        }

        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn after<'a>(interface: &'a str, rest: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    [interface].into_iter().chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_tool_that_hangs_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("resolvectl");
        let fake =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("src/resolver/resolved/fake-resolvectl");
        symlink(fake, &program).unwrap();
        fs::write(directory.path().join("hang-dns"), "").unwrap();
        let mut resolved = Resolved::new(&program, "lo");
        resolved.limit = Duration::from_millis(50);
        let wanted = Wanted {
            servers: vec!["100.100.111.1".parse().unwrap()],
            search: None,
        };

        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let error = runtime.block_on(resolved.apply(&wanted)).unwrap_err();

        assert_eq!(
            error.to_string(),
            "`resolvectl dns lo` took longer than 50 ms and was stopped; see whether systemd-resolved works"
        );
    }
}
