//! Relays as processes of their own: ours, and coturn's `turnserver`.

use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use connlib_os::namespace::command_in;
use tempfile::TempDir;

use crate::network::{Network, RELAY};
use crate::program::{Running, by_shell, connlib};
use crate::vitals;

/// What credentials are made from.
pub(crate) const SECRET: &str = "north";

/// Where every server listens.
pub(crate) const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(RELAY), 3_478);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Ours,
    /// Ours with the descriptors that a shell gives to what it starts.
    OursWithFewDescriptors,
    Turnserver,
}

/// A server that runs until it is dropped.
pub(crate) struct Server {
    process: Process,
    _files: TempDir,
}

enum Process {
    Ours(Running),
    Turnserver(Child),
}

impl Server {
    /// Starts one. That it listens is for its first client to find out.
    pub(crate) fn start(kind: Kind, network: &Network) -> Self {
        let files = tempfile::tempdir().unwrap();
        let process = match kind {
            Kind::Ours => Process::Ours(ours(connlib(&[]), network, &files)),
            Kind::OursWithFewDescriptors => {
                let shell = by_shell("prlimit --nofile=1024: {} \"$0\" \"$@\"");
                Process::Ours(ours(shell, network, &files))
            }
            Kind::Turnserver => Process::Turnserver(turnserver(network, &files)),
        };

        Self {
            process,
            _files: files,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        match &self.process {
            Process::Ours(running) => running.pid(),
            Process::Turnserver(child) => child.id(),
        }
    }

    /// How long its threads were on a processor.
    pub(crate) fn busy(&self) -> Duration {
        vitals::busy(self.pid())
    }

    /// What is in RAM of it, in MB of a million bytes.
    pub(crate) fn resident_mb(&self) -> f64 {
        vitals::Memory::of(self.pid()).resident as f64 * 1_024.0 / 1e6
    }

    /// What of it is its own and on no file: heap and stacks.
    pub(crate) fn anonymous_mb(&self) -> f64 {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid())).unwrap();
        let line = rollup
            .lines()
            .find_map(|line| line.strip_prefix("Anonymous:"));
        let kib = line.and_then(|line| line.split_whitespace().next());

        kib.unwrap().parse::<f64>().unwrap() * 1_024.0 / 1e6
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .unwrap()
            .count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Process::Turnserver(child) = &mut self.process {
            // It fails if the process has ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Whether there is a `turnserver`.
pub(crate) fn has_turnserver() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();

    std::env::split_paths(&path).any(|place| place.join("turnserver").exists())
}

fn ours(mut command: Command, network: &Network, files: &TempDir) -> Running {
    let socket = files.path().join("relay.sock");
    command
        .args(["relay", "--secret", SECRET])
        .arg(format!("--public-ip4={RELAY}"))
        .arg(format!("--socket={}", socket.display()));
    command_in(&mut command, Some(&network.relay)).unwrap();
    let mut relay = Running::start(files.path(), &mut command);
    relay.wait_ready();

    relay
}

fn turnserver(network: &Network, files: &TempDir) -> Child {
    let mut command = Command::new("turnserver");
    command_in(&mut command, Some(&network.relay)).unwrap();
    let address = RELAY.to_string();
    command
        .args(["--listening-ip", &address, "--relay-ip", &address])
        .args(["-n", "--no-cli", "--no-tls", "--no-dtls", "--no-tcp"])
        .args(["--realm=firezone", "--use-auth-secret"])
        .arg(format!("--static-auth-secret={SECRET}"))
        .args(["--pidfile", "/dev/null", "--no-stdout-log"])
        .args(["--simple-log", "--log-file"])
        .arg(files.path().join("log"))
        .arg("--userdb")
        .arg(files.path().join("users"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());

    command.spawn().unwrap()
}
