//! The system in a network: portal, relays, gateways and one client, each a process in a place of its own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use connlib_os::clock::Clock;
use connlib_os::namespace::command_in;
use serde_json::Value;
use tempfile::TempDir;

use crate::network::Network;
use crate::probe::{Echo, first_reply};
use crate::program::{Running, WITH_MOUNTS, private_file, run, verdict};

/// Nothing that is waited for takes so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// So much of each log is shown when a scene fails.
const LAST_LINES: usize = 40;

pub(crate) const TOPOLOGY: &str = r#"[[site]]
name = "office"

[[actor]]
name = "alice"
groups = ["staff"]

[[resource]]
name = "office lan"
address = "10.20.0.0/16"
sites = ["office"]

[[policy]]
group = "staff"
resource = "office lan"
"#;

/// What differs from one world to another.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    /// What the portal knows.
    pub(crate) topology: &'static str,
    /// The site of a gateway.
    pub(crate) site_of: fn(&str) -> &'static str,
    /// What else the client is told.
    pub(crate) client: &'static [&'static str],
    /// What else gateways are told.
    pub(crate) gateway: &'static [&'static str],
    /// What else relays are told.
    pub(crate) relay: &'static [&'static str],
    /// What gateways find in `/etc/hosts`, and have no name servers; empty for what this machine has.
    pub(crate) hosts: &'static str,
    /// Whether gateways find no `nft` here.
    pub(crate) hides_nft: bool,
    /// Who reaches the portal by IPv6.
    pub(crate) by_ipv6: &'static [&'static str],
    /// Whether relays don't answer the client.
    pub(crate) lacks_relays: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            topology: TOPOLOGY,
            site_of: |_| "office",
            client: &[],
            gateway: &["--masquerade=off"],
            relay: &[],
            hosts: "",
            hides_nft: false,
            by_ipv6: &[],
            lacks_relays: false,
        }
    }
}

/// A world that runs.
pub(crate) struct World {
    pub(crate) network: Network,
    plan: Plan,
    pub(crate) clock: Clock,
    pub(crate) parts: BTreeMap<&'static str, Running>,
    /// What ended parts have said that a person should look at.
    pub(crate) alarms: Vec<String>,
    files: TempDir,
    _echoes: Vec<Echo>,
}

/// How the client reaches its gateway.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Path {
    pub(crate) kind: String,
    pub(crate) why: String,
    pub(crate) age: Duration,
    pub(crate) local: String,
    pub(crate) remote: String,
}

impl World {
    /// Brings everything up; places that are called `relay…` and `gateway…` are those.
    pub(crate) fn new(relays: &[&'static str], gateways: &[&'static str]) -> Self {
        Self::prepared(relays, gateways, |_| {})
    }

    /// The same, in a network that something is done to beforehand.
    pub(crate) fn prepared(
        relays: &[&'static str],
        gateways: &[&'static str],
        prepare: impl FnOnce(&mut Network),
    ) -> Self {
        Self::planned(Plan::default(), relays, gateways, prepare)
    }

    /// The same, by a plan of its own.
    pub(crate) fn planned(
        plan: Plan,
        relays: &[&'static str],
        gateways: &[&'static str],
        prepare: impl FnOnce(&mut Network),
    ) -> Self {
        let places = [&["portal", "client"], relays].concat();
        let mut network = Network::new(&places, gateways);
        prepare(&mut network);
        let echoes = gateways
            .iter()
            .map(|gateway| Echo::start(network.resource(gateway)))
            .collect();
        let mut world = Self {
            network,
            plan,
            clock: Clock::new(),
            parts: BTreeMap::new(),
            alarms: Vec::new(),
            files: tempfile::tempdir().unwrap(),
            _echoes: echoes,
        };
        world.start("portal");
        world.apply(plan.topology);
        let owners = relays
            .iter()
            .map(|relay| (*relay, vec!["--relay"]))
            .chain(
                gateways
                    .iter()
                    .map(|gateway| (*gateway, vec!["--gateway", (plan.site_of)(gateway)])),
            )
            .chain([("client", vec!["--client", "alice"])]);
        for (place, owner) in owners {
            let admin = world.admin();
            let create = [&["portal", "token", "create"], &owner[..], &[&admin]].concat();
            let token = run(&create);
            assert!(token.status.success(), "{}", verdict(&token).1);
            private_file(&world.file(&format!("{place}.token")), &token.stdout);
            world.start(place);
        }
        if !plan.lacks_relays {
            world.wait_relays("client");
        }

        world
    }

    /// Makes the portal's state this one.
    pub(crate) fn apply(&self, topology: &str) {
        let file = self.file("topology.toml");
        fs::write(&file, topology).unwrap();
        let applied = run(&["portal", "apply", file.to_str().unwrap(), &self.admin()]);
        assert!(applied.status.success(), "{}", verdict(&applied).1);
    }

    /// Starts what belongs at a place, and waits until it is ready.
    pub(crate) fn start(&mut self, place: &'static str) {
        self.start_slowly(place);
        self.parts.get_mut(place).unwrap().wait_ready();
    }

    /// Starts what belongs at a place.
    pub(crate) fn start_slowly(&mut self, place: &'static str) {
        let here = self.network.net(place);
        let file = |suffix: &str| {
            self.file(&format!("{place}.{suffix}"))
                .display()
                .to_string()
        };
        let mut arguments = match place {
            "portal" => vec![
                "portal".into(),
                "serve".into(),
                format!("--listen={}", self.listen()),
                "--insecure-plaintext".into(),
                format!("--db={}", file("sqlite")),
                self.admin(),
            ],
            relay if relay.starts_with("relay") => {
                let mut arguments = vec![
                    "relay".into(),
                    format!("--public-ip4={}", here.host_v4()),
                    format!("--public-ip6={}", here.host_v6()),
                ];
                arguments.extend(self.plan.relay.iter().copied().map(str::to_owned));
                arguments
            }
            gateway if gateway.starts_with("gateway") => {
                let mut arguments = vec!["gateway".into(), format!("--id={place}")];
                arguments.extend(self.plan.gateway.iter().copied().map(str::to_owned));
                arguments
            }
            // The machine's own resolver settings are none of a test's business.
            _ => {
                let mut arguments =
                    vec!["client".into(), format!("--id={place}"), "--dns=off".into()];
                arguments.extend(self.plan.client.iter().copied().map(str::to_owned));
                arguments
            }
        };
        if place != "portal" {
            arguments.extend([
                format!("--api-url=ws://{}/", self.portal_of(place)),
                format!("--token-file={}", file("token")),
                format!("--name={place}"),
                format!("--socket={}", file("sock")),
            ]);
        }
        let mounts = match place.starts_with("gateway") {
            true => self.in_place_of(&mut arguments),
            false => Vec::new(),
        };
        let mut command = match mounts.is_empty() {
            true => Command::new(program()),
            false => with_mounts(&mounts),
        };
        command_in(&mut command, Some(self.network.namespace(place))).unwrap();
        command
            .args(arguments)
            .env_clear()
            .env("NO_COLOR", "1")
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped());
        if let Some(filter) = std::env::var_os("RUST_LOG") {
            command.env("RUST_LOG", filter);
        }
        let directory = self.file(&format!("{place}.ready"));
        fs::create_dir_all(&directory).unwrap();
        let part = Running::start(&directory, &mut command);
        self.parts.insert(place, part);
    }

    /// What gateways find in place of what this machine has.
    fn in_place_of(&self, arguments: &mut Vec<String>) -> Vec<(PathBuf, &'static str)> {
        let mut mounts = Vec::new();
        if !self.plan.hosts.is_empty() {
            let (hosts, resolv_conf) = (self.file("hosts"), self.file("resolv.conf"));
            fs::write(&hosts, self.plan.hosts).unwrap();
            fs::write(&resolv_conf, "").unwrap();
            arguments.push(format!("--resolv-conf={}", resolv_conf.display()));
            mounts.push((hosts, "/etc/hosts"));
        }
        if self.plan.hides_nft {
            let empty = self.file("empty");
            fs::create_dir_all(&empty).unwrap();
            mounts.extend(["/usr/sbin", "/sbin"].map(|place| (empty.clone(), place)));
        }

        mounts
    }

    /// The process of a part.
    pub(crate) fn pid(&self, place: &str) -> u32 {
        self.parts[place].pid()
    }

    /// Where the portal is.
    pub(crate) fn portal(&self) -> SocketAddr {
        self.portal_of("portal")
    }

    fn portal_of(&self, place: &str) -> SocketAddr {
        let portal = self.network.net("portal");
        let ip = match self.plan.by_ipv6.contains(&place) {
            true => portal.host_v6().into(),
            false => portal.host_v4().into(),
        };

        SocketAddr::new(ip, 80)
    }

    fn listen(&self) -> SocketAddr {
        match self.plan.by_ipv6 {
            [] => self.portal(),
            // The same socket takes IPv4.
            _ => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 80),
        }
    }

    /// Asks a part to end, and waits for that.
    pub(crate) fn stop(&mut self, place: &'static str) {
        let part = self.take(place);
        assert!(part.terminate().success(), "{place}");
    }

    /// Kills a part as a crash would.
    pub(crate) fn kill(&mut self, place: &'static str) {
        self.take(place).kill();
    }

    /// Tells the client to start over, and waits until it is ready to connect.
    pub(crate) fn start_over(&mut self) {
        let client = self.parts.get_mut("client").unwrap();
        client.log_so_far();
        let pid = client.pid().to_string();
        assert!(
            Command::new("kill")
                .args(["-HUP", &pid])
                .status()
                .unwrap()
                .success()
        );
        client.wait_for_line("Joined the portal");
        self.wait_relays("client");
    }

    /// Waits for a line in a part's log that comes from now on or was not looked at yet.
    pub(crate) fn wait_for_line(&mut self, place: &str, text: &str) {
        self.parts.get_mut(place).unwrap().wait_for_line(text);
    }

    /// Opens a connection, and returns how long the first reply took.
    pub(crate) fn connect(&self) -> Duration {
        first_reply(self.network.namespace("client"), PATIENCE).expect("no reply")
    }

    /// What a part says about itself.
    pub(crate) fn status(&self, place: &str) -> Value {
        connlib::status::query(&self.file(&format!("{place}.sock"))).unwrap()
    }

    /// What `connlib status` shows people about a part.
    pub(crate) fn table(&self, place: &str) -> String {
        let socket = self.file(&format!("{place}.sock"));
        let output = run(&["status", "--socket", socket.to_str().unwrap()]);
        assert!(output.status.success(), "{}", verdict(&output).1);

        String::from_utf8(output.stdout).unwrap()
    }

    /// The client's path, if it has one to one gateway.
    pub(crate) fn path(&self) -> Option<Path> {
        let status = self.status("client");
        let peers = status["peers"].as_array()?;
        let peer = peers.iter().find(|peer| peer["path"].is_string())?;
        let text = |name: &str| peer[name].as_str().map(str::to_owned);

        Some(Path {
            kind: text("path")?,
            why: text("why")?,
            age: Duration::from_millis(peer["path_age_ms"].as_u64()?),
            local: text("local")?,
            remote: text("remote")?,
        })
    }

    /// Waits until the client's path is of that kind, and returns it.
    pub(crate) fn wait_path(&self, kind: &str, patience: Duration) -> Option<Path> {
        self.wait_for(patience, |world| {
            world.path().filter(|path| path.kind == kind)
        })
    }

    /// What `connlib status` tells of the client's path, to people and to programs alike: its kind, why it was chosen, and
    /// that it is so since `event_at` at the earliest.
    pub(crate) fn told_since(&self, kind: &str, event_at: Instant) -> Path {
        let path = self.told(kind);
        let since = self.clock.now() - path.age;
        // The age is told in whole milliseconds.
        assert!(since + Duration::from_millis(20) >= event_at, "{path}");

        path
    }

    /// The same, however long it has been so.
    pub(crate) fn told(&self, kind: &str) -> Path {
        let path = self.wait_path(kind, PATIENCE);
        let path = path.unwrap_or_else(|| panic!("{}", self.status("client")));
        let shown = self.table("client");
        let line = shown.lines().find(|line| line.starts_with("peer "));
        let line = line.unwrap_or_else(|| panic!("{shown}"));
        let has = |text: &str| line.contains(text);
        assert!(
            has(&format!("  {kind} ")) && has(" for ") && has(" s: "),
            "{line}"
        );

        path
    }

    /// Looks every few milliseconds.
    pub(crate) fn wait_for<T>(
        &self,
        patience: Duration,
        look: impl Fn(&Self) -> Option<T>,
    ) -> Option<T> {
        let until = self.clock.now() + patience;
        loop {
            if let Some(found) = look(self) {
                return Some(found);
            }
            if self.clock.now() >= until {
                return None;
            }
            pause(Duration::from_millis(10));
        }
    }

    /// Nobody has said anything that a person should look at.
    pub(crate) fn assert_calm(&mut self) {
        let places: Vec<_> = self.parts.keys().copied().collect();
        for place in places {
            let part = self.take(place);
            drop(part);
        }
        assert!(self.alarms.is_empty(), "{:#?}", self.alarms);
    }

    /// Waits until every relay has lent a part addresses.
    pub(crate) fn wait_relays(&self, place: &str) {
        let has_answers = |world: &Self| {
            let status = world.status(place);
            let relays = status["relays"].as_array()?;
            let have = relays.iter().all(|relay| {
                relay["relayed"]
                    .as_array()
                    .is_some_and(|lent| !lent.is_empty())
            });
            (have && !relays.is_empty()).then_some(())
        };
        let answered = self.wait_for(PATIENCE, has_answers);
        assert!(answered.is_some(), "{}", self.status(place));
    }

    fn take(&mut self, place: &'static str) -> Running {
        let mut part = self.parts.remove(place).unwrap();
        let alarms = part.log_so_far().iter().filter(|line| is_alarm(line));
        self.alarms
            .extend(alarms.map(|line| format!("{place}: {line}")));

        part
    }

    fn admin(&self) -> String {
        format!("--admin-socket={}", self.file("admin.sock").display())
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }
}

/// What explains a scene that failed.
impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for (place, part) in &mut self.parts {
            let lines = part.log_so_far();
            for line in lines.iter().skip(lines.len().saturating_sub(LAST_LINES)) {
                println!("{place}: {line}");
            }
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.kind, self.why)
    }
}

/// The program, as it finds other files or directories at some places.
fn with_mounts(mounts: &[(PathBuf, &str)]) -> Command {
    let mut command = Command::new("/usr/bin/unshare");
    command.args(["--mount", "/bin/sh", "-c", WITH_MOUNTS, "sh"]);
    for (what, place) in mounts {
        command.arg(what).arg(place);
    }
    command.arg("--").arg(program());

    command
}

fn is_alarm(line: &str) -> bool {
    [" WARN ", " ERROR ", "panicked at"]
        .iter()
        .any(|word| line.contains(word))
}

#[expect(
    clippy::disallowed_methods,
    reason = "time that passes is what is waited for"
)]
pub(crate) fn pause(span: Duration) {
    std::thread::sleep(span);
}

/// The program that was built with the tests, or the one that `CONNLIB` names: figures of a release build.
fn program() -> OsString {
    std::env::var_os("CONNLIB").unwrap_or_else(|| env!("CARGO_BIN_EXE_connlib").into())
}
