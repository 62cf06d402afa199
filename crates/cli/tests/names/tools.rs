//! Programs that ask, and what they print.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use connlib_os::clock::Clock;
use connlib_os::namespace::{Namespace, command_in};
use connlib_os::process;

use crate::program::WITH_MOUNTS;

/// Nothing that is waited for takes so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The right to run a world: beside another one, or alone.
#[expect(dead_code, reason = "they are held, and that is all")]
pub(crate) enum Turn {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

/// Begins a test of names that needs these programs, and those that every such test needs.
pub(crate) fn begin(programs: &[&str], is_measured: bool) -> Option<Turn> {
    let usual = ["unshare", "mount", "ip", "knotd", "unbound", "dnsmasq"];

    begin_with(&[&usual, programs].concat(), is_measured)
}

/// Begins a test that needs these programs, alone if it measures. `None`, and said so, where something is missing; in CI that
/// is a failure.
pub(crate) fn begin_with(programs: &[&str], is_measured: bool) -> Option<Turn> {
    static TURN: RwLock<()> = RwLock::new(());

    let mut missing: Vec<_> = programs
        .iter()
        .filter(|program| find(program).is_none())
        .map(|program| (*program).to_owned())
        .collect();
    if process::effective_uid() != 0 {
        missing.push("root".into());
    }
    if !Path::new("/dev/net/tun").exists() {
        missing.push("/dev/net/tun".into());
    }
    if !missing.is_empty() {
        assert!(std::env::var_os("CI").is_none(), "{missing:?} are missing");
        say(&format!(
            "SKIPPED: nothing was tried, because {missing:?} are missing; .ci/run installs what is needed"
        ));
        return None;
    }

    Some(match is_measured {
        true => Turn::Alone(TURN.write().unwrap_or_else(PoisonError::into_inner)),
        false => Turn::Shared(TURN.read().unwrap_or_else(PoisonError::into_inner)),
    })
}

/// Where a program is.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&path())
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

/// Where programs are looked for: also where administrators have theirs.
pub(crate) fn path() -> OsString {
    let given = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/lib/systemd"].map(PathBuf::from);

    std::env::join_paths(std::env::split_paths(&given).chain(more)).unwrap()
}

/// A command in a namespace, with an environment that says nothing, and that dies with the test.
pub(crate) fn command(namespace: &Namespace, program: &str) -> Command {
    let program = find(program).unwrap_or_else(|| panic!("{program} is missing"));
    let mut command = Command::new(program);
    command_in(&mut command, Some(namespace)).unwrap();
    command
        .env_clear()
        .env("PATH", path())
        .env("LC_ALL", "C")
        .env("HOME", "/nonexistent")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null());

    command
}

/// The same for a program that finds other files or directories at some places, in a mount namespace of its own.
pub(crate) fn command_with(
    namespace: &Namespace,
    mounts: &[(&Path, &str)],
    program: &Path,
) -> Command {
    let mut command = command(namespace, "unshare");
    command.args(["--mount", "sh", "-c", WITH_MOUNTS, "sh"]);
    for (what, place) in mounts {
        command.arg(what).arg(place);
    }
    command.arg("--").arg(program);

    command
}

/// Runs a command to its end, and returns what it has printed.
pub(crate) fn output(command: &mut Command) -> Output {
    command.output().unwrap()
}

/// The same for one that has to succeed.
pub(crate) fn stdout(command: &mut Command) -> String {
    let output = output(command);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}{errors}");

    text
}

/// Sends a process a signal, by its name.
pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .status();
    assert!(status.unwrap().success(), "{name} to {pid}");
}

/// Looks every few milliseconds until there is something.
pub(crate) fn wait_for<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let clock = Clock::new();
    let until = clock.now() + patience;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if clock.now() >= until {
            return None;
        }
        pause(Duration::from_millis(10));
    }
}

/// Says something to whoever runs the tests; what is printed the harness keeps to itself.
pub(crate) fn say(what: &str) {
    let _ = writeln!(io::stderr(), "\n{what}\n");
}

#[expect(
    clippy::disallowed_methods,
    reason = "time that passes is what is waited for"
)]
pub(crate) fn pause(span: Duration) {
    std::thread::sleep(span);
}

/// A server that runs until this is dropped.
pub(crate) struct Service {
    child: Child,
    log: PathBuf,
}

impl Service {
    /// Starts it; what it says goes to `log`.
    pub(crate) fn start(command: &mut Command, log: PathBuf) -> Self {
        let file = File::create(&log).unwrap();
        let child = command
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();

        Self { child, log }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// It does nothing any more, and nobody is told.
    pub(crate) fn freeze(&self) {
        signal(self.pid(), "STOP");
    }

    pub(crate) fn thaw(&self) {
        signal(self.pid(), "CONT");
    }

    /// Asks it to end, and waits for that.
    pub(crate) fn end(mut self) {
        process::terminate(self.pid()).unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Both fail if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is on a cable, in a file as `tcpdump -w` makes it.
pub(crate) struct Tcpdump {
    service: Service,
    file: PathBuf,
}

impl Tcpdump {
    /// Begins; nothing that comes from now on is missed.
    pub(crate) fn start(namespace: &Namespace, interface: &str, file: PathBuf) -> Self {
        let mut command = command(namespace, "tcpdump");
        command
            .args(["-i", interface, "-n", "-U", "-s", "0", "-B", "65536"])
            .args(["--immediate-mode", "-Z", "root", "-w"])
            .arg(&file);
        let service = Service::start(&mut command, file.with_extension("log"));
        let listens = wait_for(PATIENCE, || {
            service.log().contains("listening on").then_some(())
        });
        assert!(listens.is_some(), "{}", service.log());

        Self { service, file }
    }

    /// Ends it, and returns the file's bytes.
    pub(crate) fn stop(self) -> Vec<u8> {
        // What the kernel still holds is written on the way out.
        self.service.end();

        fs::read(self.file).unwrap()
    }
}

/// The frames of a capture (pcap-savefile(5)), as this machine writes it.
pub(crate) fn frames(capture: &[u8]) -> Vec<&[u8]> {
    const FILE_HEADER: usize = 24;
    const HEADER: usize = 16;

    let mut frames = Vec::new();
    let mut rest = &capture[FILE_HEADER..];
    while let Some((header, after)) = rest.split_at_checked(HEADER) {
        let len = u32::from_ne_bytes(header[8..12].try_into().unwrap()) as usize;
        // The last one may be cut off.
        let Some((frame, after)) = after.split_at_checked(len) else {
            break;
        };
        frames.push(frame);
        rest = after;
    }

    frames
}

/// An answer as dig or kdig prints it.
#[derive(Debug)]
pub(crate) struct Said(pub(crate) String);

/// A record of an answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) ttl: u32,
    pub(crate) kind: String,
    pub(crate) data: String,
}

impl Said {
    /// Runs what asks.
    pub(crate) fn by(command: &mut Command) -> Self {
        Self(String::from_utf8(output(command).stdout).unwrap())
    }

    /// `NOERROR` and the like; none if there was no answer.
    pub(crate) fn status(&self) -> Option<&str> {
        let (_, rest) = self.0.split_once("status: ")?;

        rest.split([',', ';']).next()
    }

    pub(crate) fn flags(&self) -> BTreeSet<&str> {
        let line = self.0.lines().find_map(|line| {
            let of_dig = line.strip_prefix(";; flags: ");
            of_dig.or_else(|| line.strip_prefix(";; Flags: "))
        });
        let line = line.unwrap_or_else(|| panic!("{self}"));

        line.split(';').next().unwrap().split(' ').collect()
    }

    /// The line about EDNS, if the answer has an OPT record.
    pub(crate) fn edns(&self) -> Option<&str> {
        let is_it =
            |line: &&str| line.starts_with("; EDNS: version") || line.starts_with(";; Version: 0;");

        self.0.lines().find(is_it)
    }

    /// The codes and texts of extended errors.
    pub(crate) fn reasons(&self) -> Vec<(u16, &str)> {
        let lines = self.0.lines();
        let reasons = lines.filter_map(|line| line.split_once("EDE: "));

        reasons
            .map(|(_, rest)| {
                let code = rest.split(' ').next().unwrap().parse().unwrap();
                (code, rest)
            })
            .collect()
    }

    /// The question as it was repeated.
    pub(crate) fn question(&self) -> &str {
        let (_, rest) = self.0.split_once(";; QUESTION SECTION:\n").unwrap();

        rest.lines().next().unwrap()
    }

    pub(crate) fn answers(&self) -> Vec<Record> {
        let Some((_, rest)) = self.0.split_once(";; ANSWER SECTION:\n") else {
            return Vec::new();
        };
        let lines = rest.lines().take_while(|line| !line.is_empty());

        lines.map(Record::parse).collect()
    }

    /// The answers' contents.
    pub(crate) fn data(&self) -> Vec<String> {
        self.answers().into_iter().map(|it| it.data).collect()
    }

    /// How many bytes the answer had.
    pub(crate) fn size(&self) -> usize {
        let size = self.0.split_once("MSG SIZE  rcvd: ");
        let size = size.or_else(|| self.0.split_once(";; Received "));
        let (_, rest) = size.unwrap_or_else(|| panic!("{self}"));

        rest.split([' ', '\n']).next().unwrap().parse().unwrap()
    }

    #[track_caller]
    pub(crate) fn assert_status(&self, status: &str) {
        assert_eq!(self.status(), Some(status), "{self}");
    }

    #[track_caller]
    pub(crate) fn assert_answered(&self) {
        assert!(self.status().is_some(), "{self}");
    }

    #[track_caller]
    pub(crate) fn assert_reason(&self, code: u16, text: &str) {
        let reasons = self.reasons();
        let is_it = |(said, line): &(u16, &str)| *said == code && line.contains(text);
        assert!(reasons.len() == 1 && reasons.iter().all(is_it), "{self}");
    }

    #[track_caller]
    pub(crate) fn assert_data(&self, data: &[&str]) {
        assert_eq!(self.data(), data, "{self}");
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Record {
    fn parse(line: &str) -> Self {
        let mut words = line.split_ascii_whitespace();
        let mut next = || words.next().unwrap_or_else(|| panic!("{line}"));
        let (name, ttl, _class, kind) = (next(), next(), next(), next());

        Self {
            name: name.into(),
            ttl: ttl.parse().unwrap(),
            kind: kind.into(),
            data: words.collect::<Vec<_>>().join(" "),
        }
    }
}
