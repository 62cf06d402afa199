//! This machine as a router: packets of a tunnel are passed on, and leave under the machine's own addresses (gateway.md §13).

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use ipnet::IpNet;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use crate::parameters::{self, Parameters};

/// What was switched on for a tunnel, to be taken back.
#[derive(Debug, Default)]
pub struct Router {
    parameters: Parameters,
    /// How to take back the rules, if there are any.
    nft: Option<(PathBuf, String)>,
}

/// Whose packets leave under this machine's addresses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Masquerade {
    /// The tunnel's interface. What leaves by it keeps its addresses.
    pub interface: String,
    /// Where such packets come from.
    pub sources: Vec<IpNet>,
    /// The program that sets the rules.
    pub nft: PathBuf,
}

/// Why this machine doesn't pass packets on, or not under its own addresses.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RouterError {
    /// The kernel doesn't let us have it pass packets on.
    #[error("can't switch on forwarding by {path}: {source}; switch it on (sysctl) before the gateway starts", path = .path.display())]
    Forwarding {
        /// The parameter.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The program isn't there.
    #[error("the program {program} is missing: install the package `nftables`", program = .program.display())]
    Missing {
        /// The program.
        program: PathBuf,
    },
    /// It refused the rules, or never came to an end.
    #[error("{program} refuses the rules: {reason}", program = .program.display())]
    Refused {
        /// The program.
        program: PathBuf,
        /// What it says.
        reason: String,
    },
}

/// What makes the kernel pass packets on.
const FORWARD_V4: &str = "ipv4/ip_forward";
const FORWARD_V6: &str = "ipv6/conf/all/forwarding";

/// Long enough for a machine that is just starting.
const LIMIT: Duration = Duration::from_secs(5);

impl Router {
    /// Has the kernel pass IPv4 packets on between interfaces. If it does already, that stays so.
    ///
    /// # Errors
    ///
    /// [`RouterError::Forwarding`]; nothing has changed then.
    pub fn forward_v4(&mut self) -> Result<(), RouterError> {
        let path = parameters::path(FORWARD_V4);

        self.parameters.set(path, "1").map_err(forwarding)
    }

    /// The same for IPv6, if the machine has it. Interfaces that take their routes from routers' advertisements go on to do so,
    /// which they wouldn't by themselves (ip-sysctl, `accept_ra`).
    ///
    /// # Errors
    ///
    /// [`RouterError::Forwarding`]; what was changed for it is taken back.
    pub fn forward_v6(&mut self) -> Result<(), RouterError> {
        let path = parameters::path(FORWARD_V6);
        if !path.exists() || parameters::is(&path, "1") {
            return Ok(());
        }
        let before = self.parameters.changed();
        let result = self
            .keep_advertised_routes(&parameters::path("ipv6/conf"))
            .and_then(|()| self.parameters.set(path, "1"));

        result.map_err(|error| {
            self.parameters.restore_to(before);
            forwarding(error)
        })
    }

    /// Lets packets of a tunnel leave under this machine's addresses, so that answers find back. What an earlier run left behind
    /// is replaced, in one transaction.
    ///
    /// # Errors
    ///
    /// [`RouterError::Missing`] or [`RouterError::Refused`]; nothing has changed then.
    pub async fn masquerade(&mut self, wanted: &Masquerade) -> Result<(), RouterError> {
        let has_v6 = parameters::path("ipv6").exists();
        let (table, script) = rules(wanted, has_v6);
        run(&wanted.nft, &script).await?;
        self.nft = Some((wanted.nft.clone(), format!("delete table {table}\n")));

        Ok(())
    }

    /// Takes everything back. What fails is only told: there is nobody left to act.
    pub async fn tear_down(&mut self) {
        if let Some((program, script)) = self.nft.take()
            && let Err(error) = run(&program, &script).await
        {
            tracing::debug!(%error, "The rules stay");
        }
        self.parameters.restore_to(0);
    }

    fn keep_advertised_routes(&mut self, interfaces: &Path) -> Result<(), (PathBuf, io::Error)> {
        let entries = fs::read_dir(interfaces).map_err(|source| (interfaces.into(), source))?;
        for entry in entries.flatten() {
            let path = entry.path().join("accept_ra");
            if entry.file_name() != "all" && parameters::is(&path, "1") {
                self.parameters.set(path, "2")?;
            }
        }

        Ok(())
    }
}

fn forwarding((path, source): (PathBuf, io::Error)) -> RouterError {
    RouterError::Forwarding { path, source }
}

/// The table's name, and a script that puts it in the place of the one that there may be.
fn rules(wanted: &Masquerade, has_v6: bool) -> (String, String) {
    let interface = &wanted.interface;
    let family = if has_v6 { "inet" } else { "ip" };
    let table = format!("{family} connlib-{interface}");
    let mut script = format!("add table {table}\ndelete table {table}\ntable {table} {{\n");
    script.push_str("\tchain postrouting {\n");
    script.push_str("\t\ttype nat hook postrouting priority srcnat; policy accept;\n");
    for source in &wanted.sources {
        let version = match source {
            IpNet::V4(_) => "ip",
            IpNet::V6(_) if has_v6 => "ip6",
            IpNet::V6(_) => continue,
        };
        // Writing to a text can't fail.
        let _ = writeln!(
            script,
            "\t\t{version} saddr {source} oifname != \"{interface}\" masquerade"
        );
    }
    script.push_str("\t}\n}\n");

    (table, script)
}

async fn run(program: &Path, script: &str) -> Result<(), RouterError> {
    let refused = |reason: String| RouterError::Refused {
        program: program.into(),
        reason,
    };
    let child = Command::new(program)
        .args(["-f", "-"])
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(RouterError::Missing {
                program: program.into(),
            });
        }
        Err(error) => return Err(refused(error.to_string())),
    };
    let talk = async {
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(script.as_bytes()).await?;
        }
        child.wait_with_output().await
    };
    let output = match timeout(LIMIT, talk).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(refused(error.to_string())),
        Err(_) => return Err(refused(format!("it hasn't ended after {LIMIT:?}"))),
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);

    Err(refused(match said.trim() {
        "" => output.status.to_string(),
        said => said.lines().next().unwrap_or(said).to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Masquerade {
        Masquerade {
            interface: "tun0".to_owned(),
            sources: ["100.64.0.0/11", "fd00:2021:1111::/107"]
                .map(|source| source.parse().unwrap())
                .to_vec(),
            nft: "/there/is/no/nft".into(),
        }
    }

    #[test]
    fn rules_replace_those_of_an_earlier_run_and_name_each_source() {
        let (table, script) = rules(&wanted(), true);
        assert_eq!(table, "inet connlib-tun0");
        assert_eq!(
            script,
            "add table inet connlib-tun0\ndelete table inet connlib-tun0\ntable inet connlib-tun0 {\n\
             \tchain postrouting {\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n\
             \t\tip saddr 100.64.0.0/11 oifname != \"tun0\" masquerade\n\
             \t\tip6 saddr fd00:2021:1111::/107 oifname != \"tun0\" masquerade\n\t}\n}\n"
        );
        let (table, script) = rules(&wanted(), false);
        assert_eq!(table, "ip connlib-tun0");
        assert!(!script.contains("ip6"));
    }

    fn refusal(wanted: &Masquerade) -> RouterError {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let mut router = Router::default();

        runtime.block_on(router.masquerade(wanted)).unwrap_err()
    }

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let error = refusal(&wanted());
        let text = error.to_string();
        assert!(
            text.contains("/there/is/no/nft") && text.contains("nftables"),
            "{text}"
        );
    }

    #[test]
    fn what_the_program_says_against_it_is_told() {
        let mut wanted = wanted();
        wanted.nft = "/bin/false".into();
        let error = refusal(&wanted);
        assert!(matches!(error, RouterError::Refused { .. }), "{error}");
    }
}
