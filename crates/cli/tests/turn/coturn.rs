//! `turnserver`, a TURN server that others wrote.

use std::fs;
use std::process::{Child, Command, Stdio};

use connlib_os::namespace::{Namespace, command_in};
use tempfile::{NamedTempFile, TempDir};

use crate::scene::is_there;

/// A server that runs until it is dropped.
pub(crate) struct TurnServer {
    log: NamedTempFile,
    _files: TempDir,
    process: Child,
}

impl TurnServer {
    /// Starts one that shares `secret` with whoever makes credentials; `None`, and said so, where there is none.
    pub(crate) fn start(place: &Namespace, addresses: &[String], secret: &str) -> Option<Self> {
        if !have("turnserver") {
            return None;
        }
        let (log, files) = (NamedTempFile::new().unwrap(), tempfile::tempdir().unwrap());
        let mut command = Command::new("turnserver");
        command_in(&mut command, Some(place)).unwrap();
        for address in addresses {
            command.args(["--listening-ip", address, "--relay-ip", address]);
        }
        let process = command
            .args([
                "-n",
                "--no-cli",
                "--no-tls",
                "--no-dtls",
                "--no-tcp",
                "--no-stdout-log",
            ])
            .args(["--realm=firezone", "--use-auth-secret"])
            .arg(format!("--static-auth-secret={secret}"))
            .args(["--pidfile", "/dev/null", "--userdb"])
            .arg(files.path().join("users"))
            .args(["--verbose", "--simple-log", "--log-file"])
            .arg(log.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();

        Some(Self {
            log,
            _files: files,
            process: process.unwrap(),
        })
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Kills it as a crash would.
    pub(crate) fn kill(mut self) -> String {
        self.process.kill().unwrap();
        self.process.wait().unwrap();

        self.log()
    }
}

impl Drop for TurnServer {
    fn drop(&mut self) {
        // It fails if the process has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            println!("{}", self.log());
        }
    }
}

/// Whether a program of coturn is there.
pub(crate) fn have(program: &str) -> bool {
    is_there(program, "coturn")
}

/// The version of all of coturn's programs; the server alone tells it.
pub(crate) fn version() -> String {
    let output = Command::new("turnserver").arg("--version").output();
    let said = output.unwrap().stdout;

    String::from_utf8_lossy(&said).trim().to_owned()
}
