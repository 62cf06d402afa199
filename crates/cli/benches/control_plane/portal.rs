//! The portal as a process of its own.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::sleep;

const CONNLIB: &str = env!("CARGO_BIN_EXE_connlib");

/// The resource that clients ask for.
pub(crate) const RESOURCE: &str = "office lan";

const NOUNS: &str = r#"
[[site]]
name = "hq"
[[actor]]
name = "alice"
groups = ["staff"]
[[resource]]
name = "office lan"
address = "10.20.0.0/16"
sites = ["hq"]
[[resource]]
name = "wiki"
address = "wiki.corp.test"
sites = ["hq"]
[[policy]]
group = "staff"
resource = "wiki"
"#;

/// With access to the resource, and without.
pub(crate) const TOPOLOGY: &str = "[[policy]]\ngroup = \"staff\"\nresource = \"office lan\"\n";
pub(crate) const WITHOUT_ACCESS: &str = "";

pub(crate) struct Portal {
    process: Child,
    addr: SocketAddr,
    home: TempDir,
}

/// Where it is.
#[derive(Clone, Copy)]
pub(crate) struct Contact {
    pub(crate) addr: SocketAddr,
}

impl Portal {
    pub(crate) fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let addr = free_port();
        let file = home.path().join("topology.toml");
        fs::write(&file, format!("{NOUNS}{TOPOLOGY}")).unwrap();
        let status = verb(&home, &["apply", file.to_str().unwrap()]).status();
        assert!(status.unwrap().success());
        let process = serve(&home, addr);
        let portal = Self {
            process,
            addr,
            home,
        };
        portal.wait_blocking();

        portal
    }

    pub(crate) fn contact(&self) -> Contact {
        Contact { addr: self.addr }
    }

    pub(crate) fn token(&self, whom: &[&str]) -> String {
        let output = verb(&self.home, &[&["token", "create"], whom].concat())
            .stdout(Stdio::piped())
            .output()
            .unwrap();

        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Applies a topology with these policies besides the others, on a thread of its own.
    pub(crate) fn apply(&self, policies: &str) -> JoinHandle<()> {
        let file = self.home.path().join("topology.toml");
        fs::write(&file, format!("{NOUNS}{policies}")).unwrap();
        let mut command = verb(&self.home, &["apply", file.to_str().unwrap()]);

        tokio::task::spawn_blocking(move || assert!(command.status().unwrap().success()))
    }

    /// Ends it as an admin does, and starts it once more.
    pub(crate) async fn restart(&mut self) {
        let pid = self.process.id().to_string();
        let status = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(status.unwrap().success());
        while self.process.try_wait().unwrap().is_none() {
            sleep(Duration::from_millis(5)).await;
        }
        self.process = serve(&self.home, self.addr);
    }

    pub(crate) fn rss_mb(&self) -> f64 {
        let status = fs::read_to_string(self.proc("status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib: f64 = (line.unwrap().split_whitespace().nth(1).unwrap())
            .parse()
            .unwrap();

        kib / 1024.0
    }

    /// How long it has been on a processor.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(self.proc("stat")).unwrap();
        let fields: Vec<&str> = (stat.rsplit_once(") ").unwrap().1)
            .split_whitespace()
            .collect();
        let ticks: u64 = (fields[11..13].iter())
            .map(|field| field.parse::<u64>().unwrap())
            .sum();

        // Linux tells programs in hundredths of a second.
        Duration::from_millis(ticks * 10)
    }

    fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.process.id()))
    }

    fn wait_blocking(&self) {
        while std::net::TcpStream::connect(self.addr).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Portal {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn serve(home: &TempDir, addr: SocketAddr) -> Child {
    verb(home, &["serve", "--listen", &addr.to_string()])
        .spawn()
        .unwrap()
}

/// A verb of the portal, its state in `home`, its log on ours.
fn verb(home: &TempDir, arguments: &[&str]) -> Command {
    let place = |name: &str| home.path().join(name);
    let mut command = Command::new(CONNLIB);
    command
        .arg("portal")
        .args(arguments)
        .arg("--db")
        .arg(place("portal.sqlite"))
        .arg("--admin-socket")
        .arg(place("admin.sock"))
        .stdout(Stdio::null())
        .env("RUST_LOG", "warn");

    command
}

fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();

    listener.local_addr().unwrap()
}
