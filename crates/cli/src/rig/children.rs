//! The programs that a rig runs: each a process of its own, that dies with this one.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use connlib_os::namespace::{Namespace, command_in};
use connlib_os::process;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UnixDatagram;
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::Level;

use super::narration::Narration;
use crate::exit::{Exit, Failure};
use crate::logging::Alarms;

/// The processes that run, and how to start more.
#[derive(Debug)]
pub(crate) struct Children {
    program: PathBuf,
    directory: PathBuf,
    alarms: Alarms,
    narration: Narration,
    deaths: mpsc::UnboundedSender<Death>,
    stop: watch::Sender<Stop>,
    keepers: RefCell<JoinSet<()>>,
    joins: Arc<AtomicU64>,
}

/// A process that has ended by itself.
#[derive(Debug)]
pub(crate) struct Death {
    name: &'static str,
    status: io::Result<ExitStatus>,
    tail: Tail,
}

/// Whether the processes shall end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stop {
    NotYet,
    Now,
}

/// How long a program may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// How long a program may take to end when it is asked to.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// What roles log when they have joined the portal, at first and again.
const JOINED: &str = "Joined the portal";

/// How many lines of a log are kept to explain a death.
const TAIL_LINES: usize = 12;

impl Children {
    /// Starts with none. The receiver tells those that die.
    pub(crate) fn new(
        program: &Path,
        directory: &Path,
        alarms: Alarms,
        narration: Narration,
    ) -> (Self, mpsc::UnboundedReceiver<Death>) {
        let (deaths, receiver) = mpsc::unbounded_channel();
        let children = Self {
            program: program.to_owned(),
            directory: directory.to_owned(),
            alarms,
            narration,
            deaths,
            stop: watch::Sender::new(Stop::NotYet),
            keepers: RefCell::default(),
            joins: Arc::default(),
        };

        (children, receiver)
    }

    /// Starts a process that says nothing and only is there; returns its id.
    ///
    /// # Errors
    ///
    /// Exit 5: it can't be started.
    pub(crate) fn hold(&self, name: &'static str, namespace: &Namespace) -> Result<u32, Failure> {
        let process =
            self.spawn(&mut self.command(&self.program, Some(namespace), &["rig-hold".into()])?)?;
        let id = process.id().unwrap_or_default();
        self.keep(name, process);

        Ok(id)
    }

    /// Starts a role, waits until it is ready, and returns its process id.
    ///
    /// # Errors
    ///
    /// Exit 5: it can't be started. Exit 1: it isn't ready in time. If it dies the receiver of the deaths tells.
    pub(crate) async fn start(
        &self,
        name: &'static str,
        namespace: &Namespace,
        arguments: &[String],
    ) -> Result<u32, Failure> {
        let notify = self.directory.join(format!("{name}.notify"));
        let ready = UnixDatagram::bind(&notify)
            .map_err(|error| Failure::os(format_args!("listen on {}", notify.display()), &error))?;
        let mut command = self.command(&self.program, Some(namespace), arguments)?;
        command.env("NOTIFY_SOCKET", &notify);
        let process = self.spawn(&mut command)?;
        let id = process.id().unwrap_or_default();
        let tail = self.keep(name, process);

        match timeout(READY_WITHIN, until_ready(&ready)).await {
            Ok(Ok(())) => Ok(id),
            Ok(Err(error)) => Err(Failure::os(format_args!("hear from the {name}"), &error)),
            Err(_) => Err(Failure::new(
                Exit::Failed,
                format_args!(
                    "the {name} is not ready after {} s; it says:{tail}",
                    READY_WITHIN.as_secs()
                ),
            )),
        }
    }

    /// Starts another program, which is watched over like a role, and returns its process id. With `line` it is waited
    /// for until it prints that.
    ///
    /// # Errors
    ///
    /// Exit 5: it can't be started. Exit 1: it doesn't print the line in time.
    pub(crate) async fn launch(
        &self,
        name: &'static str,
        namespace: &Namespace,
        program: &Path,
        arguments: &[String],
        line: Option<&'static str>,
    ) -> Result<u32, Failure> {
        let mut command = self.command(program, Some(namespace), arguments)?;
        if line.is_some() {
            command.stdout(Stdio::piped());
        }
        let mut process = self.spawn(&mut command)?;
        let id = process.id().unwrap_or_default();
        let stdout = process.stdout.take();
        let tail = self.keep(name, process);
        let (Some(line), Some(stdout)) = (line, stdout) else {
            return Ok(id);
        };

        let (told, is_told) = oneshot::channel();
        tokio::spawn(read_until(stdout, line, told));
        match timeout(READY_WITHIN, is_told).await {
            Ok(Ok(())) => Ok(id),
            // It has ended, or goes on and says nothing.
            Ok(Err(_)) | Err(_) => Err(Failure::new(
                Exit::Failed,
                format_args!(
                    "the {name} does not print `{line}` within {} s; it says:{tail}",
                    READY_WITHIN.as_secs()
                ),
            )),
        }
    }

    /// Runs a program to its end and returns what it prints.
    ///
    /// # Errors
    ///
    /// It fails: its own exit code and message.
    pub(crate) async fn run(&self, arguments: &[String]) -> Result<String, Failure> {
        let mut command = self.command(&self.program, None, arguments)?;
        let command = command.stdout(Stdio::piped());
        let output = self.spawn(command)?.wait_with_output().await;
        let output = output.map_err(|error| Failure::os("run a program", &error))?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        for line in complaint.lines() {
            self.alarms.count(level_of(line));
        }
        if !output.status.success() {
            let complaint = complaint.trim();
            let complaint = complaint.strip_prefix("connlib: ").unwrap_or(complaint);
            return Err(Failure::new(exit_of(output.status), complaint));
        }

        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// How often any of them has joined the portal, as their logs have it.
    pub(crate) fn joins(&self) -> u64 {
        self.joins.load(Ordering::Relaxed)
    }

    /// Ends all of them and waits for that.
    pub(crate) async fn stop(self) {
        self.stop.send_replace(Stop::Now);
        let mut keepers = self.keepers.into_inner();
        while keepers.join_next().await.is_some() {}
    }

    /// A command that runs inside `namespace`, in a clean environment, and dies with us.
    ///
    /// # Errors
    ///
    /// Exit 5: there are too many open files.
    pub(crate) fn command(
        &self,
        program: &Path,
        namespace: Option<&Namespace>,
        arguments: &[String],
    ) -> Result<Command, Failure> {
        let mut command = std::process::Command::new(program);
        command_in(&mut command, namespace)?;
        let mut command = Command::from(command);
        command
            .args(arguments)
            .current_dir(&self.directory)
            .env_clear()
            .env("NO_COLOR", "1")
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C is for us, who end them in order.
            .process_group(0)
            .kill_on_drop(true);
        if let Some(filter) = std::env::var_os("RUST_LOG") {
            command.env("RUST_LOG", filter);
        }

        Ok(command)
    }

    /// Starts a process on this thread, which lives as long as the program.
    fn spawn(&self, command: &mut Command) -> Result<Child, Failure> {
        command
            .spawn()
            .map_err(|error| Failure::os(format_args!("start {}", self.program.display()), &error))
    }

    /// Watches over a process: reads its log, tells its death, ends it when all shall end.
    fn keep(&self, name: &'static str, mut process: Child) -> Tail {
        let tail = Tail::default();
        let log = Log {
            name,
            tail: tail.clone(),
            alarms: self.alarms.clone(),
            narration: self.narration,
            joins: Arc::clone(&self.joins),
        };
        let reader = process.stderr.take().map(|lines| log.read(lines));
        let deaths = self.deaths.clone();
        let mut stop = self.stop.subscribe();
        let kept = tail.clone();
        self.keepers.borrow_mut().spawn(async move {
            let reader = reader.map(tokio::spawn);
            let told_to_stop = async { drop(stop.wait_for(|stop| *stop == Stop::Now).await) };
            let status = tokio::select! {
                status = process.wait() => status,
                () = told_to_stop => {
                    end(&mut process).await;
                    return;
                }
            };
            if let Some(reader) = reader {
                // What it has said last explains most.
                let _ = timeout(ENDS_WITHIN, reader).await;
            }
            // Nobody listens any more when all is ending anyway.
            let _ = deaths.send(Death {
                name,
                status,
                tail: kept,
            });
        });

        tail
    }
}

impl Death {
    /// What it means for whoever needs it.
    pub(crate) fn into_failure(self) -> Failure {
        let exit = self
            .status
            .as_ref()
            .map_or(Exit::Failed, |&status| exit_of(status));

        Failure::new(exit, format_args!("{self}"))
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} has ended ", self.name)?;
        match &self.status {
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => write!(f, "with exit code {code}")?,
                (None, Some(signal)) => write!(f, "by signal {signal}")?,
                (None, None) => write!(f, "({status})")?,
            },
            Err(error) => write!(f, "({error})")?,
        }

        write!(f, "; it says:{}", self.tail)
    }
}

/// The last lines of a log.
#[derive(Clone, Debug, Default)]
struct Tail {
    lines: Arc<Mutex<VecDeque<String>>>,
}

impl Tail {
    fn push(&self, line: String) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == TAIL_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

impl fmt::Display for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.is_empty() {
            return f.write_str(" nothing");
        }

        lines.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// The log of a process, as it is written.
struct Log {
    name: &'static str,
    tail: Tail,
    alarms: Alarms,
    narration: Narration,
    joins: Arc<AtomicU64>,
}

impl Log {
    async fn read(self, lines: ChildStderr) {
        let mut lines = BufReader::new(lines).split(b'\n');
        // An error is an end, too.
        while let Ok(Some(line)) = lines.next_segment().await {
            let line = String::from_utf8_lossy(&line).into_owned();
            self.alarms.count(level_of(&line));
            if line.contains(JOINED) {
                self.joins.fetch_add(1, Ordering::Relaxed);
            }
            self.narration.log_line(self.name, &line);
            self.tail.push(line);
        }
    }
}

/// The level of a line that [`logging`](crate::logging) has written, or what stands for one.
fn level_of(line: &str) -> Level {
    let is_panic = line.starts_with("thread '") && line.contains("panicked at");
    if is_panic || line.starts_with("connlib: ") {
        return Level::ERROR;
    }

    // The time, the level, the rest.
    let level = line.split_ascii_whitespace().nth(1);
    level
        .and_then(|word| word.parse().ok())
        .unwrap_or(Level::TRACE)
}

/// The end that a child's end means for us.
fn exit_of(status: ExitStatus) -> Exit {
    match status.code() {
        Some(2) => Exit::WrongUse,
        Some(3) => Exit::NotAuthorised,
        Some(4) => Exit::Network,
        Some(5) => Exit::Os,
        _ => Exit::Failed,
    }
}

/// Tells when a line has come, and goes on to read: a program that nobody reads from any more may end by that.
async fn read_until(stdout: ChildStdout, line: &str, told: oneshot::Sender<()>) {
    let mut told = Some(told);
    let mut lines = BufReader::new(stdout).split(b'\n');
    while let Ok(Some(read)) = lines.next_segment().await {
        if read.trim_ascii() == line.as_bytes()
            && let Some(told) = told.take()
        {
            // Nobody waits any more when it came too late.
            let _ = told.send(());
        }
    }
}

async fn until_ready(socket: &UnixDatagram) -> io::Result<()> {
    let mut message = [0; 256];
    loop {
        let len = socket.recv(&mut message).await?;
        let message = message.get(..len).unwrap_or_default();
        if message
            .split(|&byte| byte == b'\n')
            .any(|line| line == b"READY=1")
        {
            return Ok(());
        }
    }
}

/// Asks a process to end, and doesn't ask twice.
async fn end(process: &mut Child) {
    let asked = process.id().map(process::terminate);
    if matches!(asked, Some(Ok(()))) && timeout(ENDS_WITHIN, process.wait()).await.is_ok() {
        return;
    }
    // It fails if the process has ended by now.
    let _ = process.kill().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_of_a_line_is_its_second_word() {
        for (line, level) in [
            (
                "2026-11-23T15:55:00.1Z  WARN connlib: the portal is away",
                Level::WARN,
            ),
            ("2026-11-23T15:55:00.1Z ERROR connlib: gone", Level::ERROR),
            (
                "2026-11-23T15:55:00.1Z  INFO connlib: a WARN is none here",
                Level::INFO,
            ),
            ("connlib: can't start", Level::ERROR),
            ("thread 'main' panicked at src/main.rs:1:1:", Level::ERROR),
            ("", Level::TRACE),
            ("no level here", Level::TRACE),
        ] {
            assert_eq!(level_of(line), level, "{line}");
        }
    }

    #[test]
    fn a_tail_keeps_the_last_lines() {
        let tail = Tail::default();
        assert_eq!(tail.to_string(), " nothing");

        for number in 0..20 {
            tail.push(number.to_string());
        }

        let text = tail.to_string();
        assert_eq!(text.lines().count(), TAIL_LINES + 1);
        assert!(text.ends_with("\n  19"));
    }
}
