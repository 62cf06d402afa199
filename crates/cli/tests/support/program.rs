//! The program under test, as a process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use connlib_os::clock::Clock;
use connlib_os::namespace::command_in;
use connlib_os::process;

/// Nothing that is waited for takes so long; a test that waits longer fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A shell's words that mount what is named before `--`, each in the place that follows it, and become what is named behind it.
pub(crate) const WITH_MOUNTS: &str = r#"while [ "$1" != -- ]; do mount -n --bind "$1" "$2" || exit 97; shift 2; done; shift; exec "$@""#;

/// A command of the program with a clean environment; it dies with the test.
pub(crate) fn connlib(arguments: &[&str]) -> Command {
    let mut command = clean(env!("CARGO_BIN_EXE_connlib"));
    command.args(arguments);

    command
}

/// The same by a shell, which can leave descriptors open; `{}` stands for the program.
pub(crate) fn by_shell(line: &str) -> Command {
    let mut command = clean("/bin/sh");
    let line = line.replace("{}", env!("CARGO_BIN_EXE_connlib"));
    command.args(["-c", &format!("exec {line}")]);

    command
}

fn clean(program: &str) -> Command {
    let mut command = Command::new(program);
    command_in(&mut command, None).unwrap();
    command
        .env_clear()
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());

    command
}

/// Runs the program to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    connlib(arguments).output().unwrap()
}

/// The exit code and what was said on stderr.
pub(crate) fn verdict(output: &Output) -> (i32, String) {
    let code = output.status.code().unwrap_or(-1);

    (code, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A role that runs until it is told to stop; killed when dropped.
pub(crate) struct Running {
    child: Child,
    log: Receiver<String>,
    ready: UnixDatagram,
    seen: Vec<String>,
}

impl Running {
    /// Starts a role; `directory` gets a socket for its readiness.
    pub(crate) fn start(directory: &Path, command: &mut Command) -> Self {
        let path = free_path(directory);
        let ready = UnixDatagram::bind(&path).unwrap();
        ready.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut child = command.env("NOTIFY_SOCKET", &path).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, log) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });

        Self {
            child,
            log,
            ready,
            seen: Vec::new(),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it says that it is ready.
    pub(crate) fn wait_ready(&mut self) {
        let mut message = [0; 64];
        match self.ready.recv(&mut message) {
            Ok(len) => assert_eq!(&message[..len], b"READY=1\n"),
            Err(error) => panic!("not ready: {error}; {:?}", self.log_so_far()),
        }
    }

    /// Waits for a line of the log that holds `text`.
    pub(crate) fn wait_for_line(&mut self, text: &str) -> String {
        let clock = Clock::new();
        let end_at = clock.now() + PATIENCE;
        loop {
            let left = end_at.saturating_duration_since(clock.now());
            match self.log.recv_timeout(left) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => self.seen.push(line),
                Err(error) => panic!("no line with {text:?}: {error}; {:?}", self.seen),
            }
        }
    }

    /// Everything that was logged and not waited for.
    pub(crate) fn log_so_far(&mut self) -> &[String] {
        self.seen.extend(self.log.try_iter());

        &self.seen
    }

    /// Asks it to end, and waits for that.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        process::terminate(self.child.id()).unwrap();

        self.child.wait().unwrap()
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait(mut self) -> (i32, String) {
        let status = self.child.wait().unwrap();
        while let Ok(line) = self.log.recv_timeout(PATIENCE) {
            self.seen.push(line);
        }

        (status.code().unwrap_or(-1), self.seen.join("\n"))
    }

    /// Kills it as a crash would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It fails if the process has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A portal on loopback that keeps its state in `directory`.
pub(crate) struct Portal {
    pub(crate) process: Running,
    pub(crate) url: String,
    pub(crate) admin: String,
}

impl Portal {
    /// Starts it with an actor `alice` and a site `office`.
    pub(crate) fn start(directory: &Path) -> Self {
        let portal = Self::start_empty(directory, "127.0.0.1:0");
        let topology = directory.join("topology.toml");
        std::fs::write(
            &topology,
            "[[site]]\nname = \"office\"\n[[actor]]\nname = \"alice\"\ngroups = [\"staff\"]\n",
        )
        .unwrap();
        let applied = run(&["portal", "apply", topology.to_str().unwrap(), &portal.admin]);
        assert!(applied.status.success(), "{}", verdict(&applied).1);

        portal
    }

    pub(crate) fn start_empty(directory: &Path, listen: &str) -> Self {
        let admin = format!("--admin-socket={}", directory.join("admin.sock").display());
        let db = format!("--db={}", directory.join("portal.sqlite").display());
        let mut command = connlib(&["portal", "serve", "--listen", listen, &admin, &db]);
        let mut process = Running::start(directory, &mut command);
        process.wait_ready();
        let line = process.wait_for_line("listen=");
        let address = line.split("listen=").nth(1).unwrap();
        let address: SocketAddr = address.parse().unwrap();

        Self {
            process,
            url: format!("ws://{address}/"),
            admin,
        }
    }

    /// Makes a token and puts it into a private file.
    pub(crate) fn token(&self, directory: &Path, arguments: &[&str]) -> PathBuf {
        let created = run(&[&["portal", "token", "create"], arguments, &[&self.admin]].concat());
        assert!(created.status.success(), "{}", verdict(&created).1);
        let path = free_path(directory);
        private_file(&path, &created.stdout);

        path
    }
}

/// Writes a file that nobody else may read.
pub(crate) fn private_file(path: &Path, contents: &[u8]) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;

    std::fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .unwrap()
        .write_all(contents)
        .unwrap();
}

fn free_path(directory: &Path) -> PathBuf {
    (0..)
        .map(|number| directory.join(format!("{number}")))
        .find(|path| !path.exists())
        .unwrap()
}
