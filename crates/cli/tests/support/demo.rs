//! A demo that stays up.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use connlib_os::namespace::{Namespace, run_in};
use connlib_os::process;
use serde_json::Value;
use tempfile::{NamedTempFile, TempDir};

use crate::program::connlib;

/// The host behind the gateway (cli.md "Demo").
pub(crate) const RESOURCE: &str = "10.20.0.10:80";

/// `connlib demo --json --keep …`, up and reported.
pub(crate) struct Demo {
    child: Child,
    pub(crate) report: Value,
    files: TempDir,
    log: Option<NamedTempFile>,
}

impl Demo {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, None)
    }

    /// Starts it and keeps what its programs log.
    pub(crate) fn start_logged(arguments: &[&str]) -> Self {
        let arguments = [&["--verbose"], arguments].concat();

        Self::start_with(&arguments, Some(NamedTempFile::new().unwrap()))
    }

    fn start_with(arguments: &[&str], log: Option<NamedTempFile>) -> Self {
        let files = tempfile::tempdir().unwrap();
        let stderr = match &log {
            Some(log) => Stdio::from(log.reopen().unwrap()),
            None => Stdio::inherit(),
        };
        let mut child = connlib(&["demo", "--json", "--keep", "--size", "2"])
            .args(arguments)
            .env("TMPDIR", files.path())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();

        Self {
            child,
            report: serde_json::from_str(&line).unwrap_or_else(|error| {
                let said = log.as_ref().map(|log| fs::read_to_string(log.path()));
                panic!("no report: {error}; {said:?}")
            }),
            files,
            log,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The processes that hold the namespaces, by place.
    pub(crate) fn holders(&self) -> BTreeMap<String, u32> {
        let namespaces = self.report["namespaces"].as_object().unwrap().iter();

        namespaces
            .map(|(place, pid)| (place.clone(), pid.as_u64().unwrap().try_into().unwrap()))
            .collect()
    }

    pub(crate) fn namespace(&self, place: &str) -> Namespace {
        Namespace::of_pid(self.holders()[place]).unwrap()
    }

    /// A file of the demo's.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        let mut directories = fs::read_dir(self.files.path()).unwrap();
        let directory = directories.next().unwrap().unwrap().path();

        directory.join(name)
    }

    /// What the role says about itself.
    pub(crate) fn status(&self, role: &str) -> Value {
        connlib::status::query(&self.file(&format!("{role}.sock"))).unwrap()
    }

    /// The lines of a log, kept by [`start_logged`](Self::start_logged), that a person should look at.
    pub(crate) fn alarms(&self) -> Vec<String> {
        let log = fs::read_to_string(self.log.as_ref().unwrap().path()).unwrap();
        let is_alarm = |line: &&str| {
            [" WARN ", " ERROR ", "panicked at"]
                .iter()
                .any(|word| line.contains(word))
        };

        log.lines().filter(is_alarm).map(str::to_owned).collect()
    }

    /// Fetches so many MiB from inside the client's namespace; `None` if that doesn't work now.
    pub(crate) fn fetch(&self, mib: u32) -> Option<Vec<u8>> {
        let patience = Duration::from_secs(5);
        let resource: SocketAddr = RESOURCE.parse().unwrap();
        let client = self.namespace("client");
        let stream = run_in(&client, || TcpStream::connect_timeout(&resource, patience)).unwrap();
        let mut stream = stream.ok()?;
        stream.set_read_timeout(Some(patience)).unwrap();
        write!(stream, "GET /{mib} HTTP/1.1\r\nHost: {RESOURCE}\r\n\r\n").ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let body_at = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
        let body = answer.split_off(body_at);

        (body.len() == (mib as usize) << 20).then_some(body)
    }

    /// Asks it to end, waits for that, and returns where its files were.
    pub(crate) fn stop(mut self) -> (ExitStatus, TempDir) {
        process::terminate(self.child.id()).unwrap();
        let status = self.child.wait().unwrap();

        (status, self.take_files())
    }

    /// Kills it as a crash would, and returns where its files were.
    pub(crate) fn kill(mut self) -> TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();

        self.take_files()
    }

    fn take_files(&mut self) -> TempDir {
        std::mem::replace(&mut self.files, tempfile::tempdir().unwrap())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Both fail if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
