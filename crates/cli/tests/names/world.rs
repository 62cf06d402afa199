//! The system with name servers on both of its ends: portal, relay, gateway and client around a router, resolvers on the
//! Internet, and a network behind the gateway with a host and the site's own name server.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use connlib_os::namespace::{Namespace, run_in, set_sysctl_net};
use serde_json::Value;
use tempfile::TempDir;

use crate::delay::Delay;
use crate::network::Network;
use crate::program::{Running, private_file, run, verdict};
use crate::servers::{self, Certificates};
use crate::tools::{
    PATIENCE, Said, Service, Tcpdump, Turn, begin, command, command_with, output, stdout, wait_for,
};

/// So much of each log is shown when a test fails.
const LAST_LINES: usize = 40;

/// The addresses of the host behind the gateway.
pub(crate) const HOST: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(10, 20, 0, 10)),
    IpAddr::V4(Ipv4Addr::new(10, 20, 0, 11)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x20, 0, 0, 0, 0, 0, 0x10)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x20, 0, 0, 0, 0, 0, 0x11)),
];

/// A name server at the site that is a resource itself.
pub(crate) const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 53);

const TOPOLOGY: &str = r#"
[[site]]
name = "office"

[[actor]]
name = "alice"
groups = ["staff"]
"#;

/// What alice may reach, besides.
const RESOURCES: [(&str, &str, &str); 6] = [
    ("corp", "*.corp.test", ""),
    ("deep", "**.deep.test", ""),
    ("exact", "only.exact.test", ""),
    ("four", "v4.fam.test", "ip_stack = \"ipv4_only\""),
    ("six", "v6.fam.test", "ip_stack = \"ipv6_only\""),
    ("inside", "10.20.0.53/32", ""),
];

/// What is special about a world.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Lines of the topology's table `[network]`.
    pub(crate) network: String,
    /// Another value of the client's `--dns` than `resolv-conf`.
    pub(crate) dns: Option<&'static str>,
    /// A zone that is signed is there, too.
    pub(crate) is_signed: bool,
    /// No other world runs beside it.
    pub(crate) is_measured: bool,
}

/// A world that runs. Fields end in this order.
pub(crate) struct World {
    parts: BTreeMap<&'static str, Running>,
    services: BTreeMap<&'static str, Service>,
    /// What ended parts have said that a person should look at.
    alarms: Vec<String>,
    /// What delv trusts, in a world with a signed zone.
    pub(crate) anchor: String,
    pub(crate) network: Network,
    /// How the client is started.
    pub(crate) client: Client,
    files: TempDir,
    machine: String,
    _turn: Turn,
}

/// How the client is started.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) arguments: Vec<String>,
    /// A process whose mounts it has, and the programs that are run beside it.
    pub(crate) mounts_of: Option<u32>,
    /// Another way to the portal.
    pub(crate) portal: Option<SocketAddr>,
}

impl World {
    /// Brings everything up, unless one of these programs is missing.
    pub(crate) fn new(programs: &[&str], plan: Plan) -> Option<Self> {
        let mut world = Self::without_client(programs, plan)?;
        world.start("client");
        world.wait_relays();

        Some(world)
    }

    /// Everything but the client, which has its token.
    pub(crate) fn without_client(programs: &[&str], plan: Plan) -> Option<Self> {
        let turn = begin(&[&["dig"], programs].concat(), plan.is_measured)?;
        let places = [
            "portal",
            "relay",
            "client",
            "resolver",
            "other-resolver",
            "slow",
        ];
        let network = Network::new(&places, &["gateway"]);
        let files = tempfile::tempdir().unwrap();
        let etc = files.path().join("etc");
        let dns = plan.dns.unwrap_or("resolv-conf");
        let client = Client {
            arguments: vec![
                format!("--dns={dns}"),
                format!("--resolv-conf={}", etc.join("resolv.conf").display()),
            ],
            mounts_of: None,
            portal: None,
        };
        let mut world = Self {
            parts: BTreeMap::new(),
            services: BTreeMap::new(),
            alarms: Vec::new(),
            anchor: String::new(),
            network,
            client,
            files,
            machine: machine(),
            _turn: turn,
        };
        world.lay_site();
        world.write_etc();
        world.start_servers(plan.is_signed);
        world.start("portal");
        world.apply(&plan.network);
        for (place, owner) in [
            ("relay", &["--relay"][..]),
            ("gateway", &["--gateway", "office"]),
            ("client", &["--client", "alice"]),
        ] {
            let admin = world.admin();
            let token = run(&[&["portal", "token", "create"], owner, &[&admin]].concat());
            assert!(token.status.success(), "{}", verdict(&token).1);
            private_file(&world.file(&format!("{place}.token")), &token.stdout);
            if place != "client" {
                world.start(place);
            }
        }

        Some(world)
    }

    /// Makes the portal's topology this one: what alice may reach, with these lines about the network.
    pub(crate) fn apply(&self, network: &str) {
        self.apply_without("", network);
    }

    /// The same but for one resource that nobody may reach.
    pub(crate) fn apply_without(&self, forbidden: &str, network: &str) {
        let mut text = format!("[network]\n{network}\n{TOPOLOGY}");
        for (name, address, more) in RESOURCES {
            text.push_str(&format!(
                "[[resource]]\nname = \"{name}\"\naddress = \"{address}\"\nsites = [\"office\"]\n{more}\n"
            ));
            if name != forbidden {
                text.push_str(&format!(
                    "[[policy]]\ngroup = \"staff\"\nresource = \"{name}\"\n"
                ));
            }
        }
        let file = self.file("topology.toml");
        fs::write(&file, text).unwrap();
        let applied = run(&["portal", "apply", file.to_str().unwrap(), &self.admin()]);
        assert!(applied.status.success(), "{}", verdict(&applied).1);
    }

    /// Starts what belongs at a place, and waits until it is ready.
    pub(crate) fn start(&mut self, place: &'static str) {
        let here = self.network.net(place);
        let file = |suffix: &str| {
            self.file(&format!("{place}.{suffix}"))
                .display()
                .to_string()
        };
        let portal = self.portal();
        let mut arguments = match place {
            "portal" => vec![
                "portal".into(),
                "serve".into(),
                format!("--listen={portal}"),
                "--insecure-plaintext".into(),
                format!("--db={}", file("sqlite")),
                self.admin(),
            ],
            "relay" => vec![
                "relay".into(),
                format!("--public-ip4={}", here.host_v4()),
                format!("--public-ip6={}", here.host_v6()),
            ],
            "gateway" => vec![
                "gateway".into(),
                format!("--id={place}"),
                "--masquerade=off".into(),
                format!("--resolv-conf={}", self.gateway_resolv_conf().display()),
            ],
            _ => [
                vec!["client".into(), format!("--id={place}")],
                self.client.arguments.clone(),
            ]
            .concat(),
        };
        if place != "portal" {
            let url = match place {
                "client" => format!("--api-url=ws://{}/", self.client.portal.unwrap_or(portal)),
                _ => format!("--api-url=ws://{portal}/"),
            };
            arguments.extend([
                url,
                format!("--token-file={}", file("token")),
                format!("--name={place}"),
                format!("--socket={}", file("sock")),
            ]);
        }
        let namespace = self.network.namespace(place);
        let program = program();
        let program = Path::new(&program);
        let mut command = match place {
            // Its own static names count, and not the machine's.
            "gateway" => command_with(namespace, &[(&self.file("site-etc"), "/etc")], program),
            "client" => self.beside_client(program),
            _ => {
                let mut command = command(namespace, "env");
                command.arg(program);
                command
            }
        };
        command
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        if let Some(filter) = std::env::var_os("RUST_LOG") {
            command.env("RUST_LOG", filter);
        }
        let directory = self.file(&format!("{place}.ready"));
        fs::create_dir_all(&directory).unwrap();
        let mut part = Running::start(&directory, &mut command);
        part.wait_ready();
        self.parts.insert(place, part);
    }

    /// A program in the client's place, with the client's mounts where it has any of its own.
    pub(crate) fn beside_client(&self, program: &Path) -> Command {
        let namespace = self.network.namespace("client");
        let Some(pid) = self.client.mounts_of else {
            let mut command = command(namespace, "env");
            command.arg(program);
            return command;
        };
        let mut command = command(namespace, "nsenter");
        command
            .arg(format!("--mount=/proc/{pid}/ns/mnt"))
            .arg("--")
            .arg(program);

        command
    }

    /// A program on the client's machine, whose `/etc/resolv.conf` is what the client has written.
    pub(crate) fn on_client(&self, program: &str) -> Command {
        let program = crate::tools::find(program).unwrap();

        command_with(
            self.network.namespace("client"),
            &[(&self.file("etc"), "/etc")],
            &program,
        )
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

    /// A server that others wrote.
    pub(crate) fn service(&self, name: &str) -> &Service {
        &self.services[name]
    }

    pub(crate) fn keep(&mut self, name: &'static str, service: Service) {
        self.services.insert(name, service);
    }

    pub(crate) fn end(&mut self, name: &str) {
        self.services.remove(name).unwrap();
    }

    /// What a part says about itself.
    pub(crate) fn status(&self, place: &str) -> Value {
        connlib::status::query(&self.file(&format!("{place}.sock"))).unwrap()
    }

    /// The addresses of a part in the tunnel, IPv4 first.
    pub(crate) fn tunnel_addresses(&self, place: &str) -> Vec<IpAddr> {
        let status = self.status(place);
        let addresses = status["addresses"].as_array().unwrap().iter();
        let mut addresses: Vec<IpAddr> = addresses
            .map(|address| address.as_str().unwrap().parse().unwrap())
            .collect();
        addresses.sort_unstable();

        addresses
    }

    /// A resolver's address.
    pub(crate) fn resolver(&self, name: &str) -> Ipv4Addr {
        self.network.net(name).host_v4()
    }

    /// The client's cable.
    pub(crate) fn uplink(&self) -> String {
        let [_, _, number, _] = self.network.net("client").host_v4().octets();

        format!("net{number}")
    }

    /// Captures what is on the client's cable.
    pub(crate) fn capture_uplink(&self) -> Tcpdump {
        let file = self.file("uplink.pcap");

        Tcpdump::start(self.network.namespace("client"), &self.uplink(), file)
    }

    /// Captures what comes to the host behind the gateway.
    pub(crate) fn capture_site(&self) -> Tcpdump {
        let file = self.file("site.pcap");

        Tcpdump::start(self.network.resource("gateway"), "uplink", file)
    }

    /// Moves the client's machine behind a link with that round trip, until what is returned is dropped.
    pub(crate) fn slow_down(&self, round_trip: Duration) -> Delay {
        const LINK: &str = "slow";

        let [client, slow] = ["client", "slow"].map(|place| self.network.namespace(place));
        let delay = Delay::lay([client, slow], LINK, round_trip / 2);
        // Another address of the network at the far end, which answers for it.
        let mut octets = self.network.net("slow").host_v4().octets();
        octets[3] = 20;
        let address = Ipv4Addr::from(octets);
        run_in(slow, || {
            for parameter in ["ipv4/ip_forward", "ipv4/conf/all/proxy_arp"] {
                set_sysctl_net(parameter, "1").unwrap();
            }
        })
        .unwrap();
        ip(slow, &format!("link set {LINK} up"));
        ip(slow, &format!("route add {address} dev {LINK}"));
        ip(client, &format!("link set {} down", self.uplink()));
        ip(client, &format!("address add {address} dev {LINK}"));
        ip(client, &format!("link set {LINK} up"));
        ip(client, &format!("route add default dev {LINK}"));

        delay
    }

    /// The file that says whom programs on the client's machine ask.
    pub(crate) fn resolv_conf(&self) -> PathBuf {
        self.file("etc").join("resolv.conf")
    }

    /// Where programs on the client's machine ask, once that is the client.
    pub(crate) fn sentinels(&self) -> Vec<IpAddr> {
        let sentinels = || {
            let text = fs::read_to_string(self.resolv_conf()).unwrap();
            let is_ours = text.starts_with("# BEGIN connlib DNS configuration\n");
            let servers = text
                .lines()
                .filter_map(|line| line.strip_prefix("nameserver "));

            is_ours.then(|| servers.map(|ip| ip.parse().unwrap()).collect())
        };

        wait_for(PATIENCE, sentinels).expect("the client is not asked")
    }

    /// Waits until programs ask elsewhere than at `before`.
    pub(crate) fn other_sentinels(&self, before: &[IpAddr]) -> Vec<IpAddr> {
        wait_for(PATIENCE, || {
            Some(self.sentinels()).filter(|now| now != before)
        })
        .expect("the client is asked where it was before")
    }

    /// Asks the client by dig.
    pub(crate) fn dig(&self, words: &[&str]) -> Said {
        let at = self.sentinels()[0];

        self.dig_at(at, words)
    }

    /// Asks somebody by dig from the client's machine.
    pub(crate) fn dig_at(&self, at: IpAddr, words: &[&str]) -> Said {
        Said::by(&mut self.asking("dig", at, words))
    }

    /// Asks the client by kdig.
    pub(crate) fn kdig(&self, words: &[&str]) -> Said {
        Said::by(&mut self.asking("kdig", self.sentinels()[0], words))
    }

    /// Asks the client many things without waiting in between.
    pub(crate) fn at_once<const N: usize>(
        &self,
        program: &str,
        questions: &[[&str; N]],
    ) -> Vec<Said> {
        let at = self.sentinels()[0];
        let spawn = |words: &[&str; N]| {
            let mut asking = self.asking(program, at, words);
            asking.stdout(Stdio::piped()).spawn().unwrap()
        };
        let asked: Vec<_> = questions.iter().map(spawn).collect();
        let said = asked
            .into_iter()
            .map(|asked| asked.wait_with_output().unwrap());

        said.map(|output| Said(String::from_utf8(output.stdout).unwrap()))
            .collect()
    }

    /// dig or kdig, with a question for somebody, on the client's machine.
    fn asking(&self, program: &str, at: IpAddr, words: &[&str]) -> Command {
        let mut asking = command(self.network.namespace("client"), program);
        asking.arg(format!("@{at}"));
        match program {
            "dig" => asking.args(["+tries=1", "+time=15"]),
            _ => asking.args(["+edns", "+retry=0", "+timeout=15"]),
        };
        asking.args(words);

        asking
    }

    /// Fetches from an address or a name on the client's machine; returns the address that the host was reached at, or
    /// curl's exit code.
    pub(crate) fn curl(&self, words: &[&str]) -> Result<String, i32> {
        let mut curl = self.on_client("curl");
        curl.args(["-q", "--silent", "--max-time", "20"])
            .args(words);
        let output = output(&mut curl);
        let body = String::from_utf8(output.stdout).unwrap();

        match output.status.code() {
            Some(0) => Ok(body),
            code => Err(code.unwrap_or(-1)),
        }
    }

    /// Nobody has said anything that a person should look at.
    pub(crate) fn assert_calm(mut self) {
        let places: Vec<_> = self.parts.keys().copied().collect();
        for place in places {
            drop(self.take(place));
        }
        assert!(self.alarms.is_empty(), "{:#?}", self.alarms);
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// The client may start to connect.
    pub(crate) fn wait_relays(&self) {
        let has_answers = || {
            let status = self.status("client");
            let relays = status["relays"].as_array()?;
            let have = relays.iter().all(|relay| {
                relay["relayed"]
                    .as_array()
                    .is_some_and(|lent| !lent.is_empty())
            });
            (have && !relays.is_empty()).then_some(())
        };
        let answered = wait_for(PATIENCE, has_answers);
        assert!(answered.is_some(), "{}", self.status("client"));
    }

    /// Where the portal listens.
    pub(crate) fn portal(&self) -> SocketAddr {
        SocketAddr::new(self.network.net("portal").host_v4().into(), 80)
    }

    fn take(&mut self, place: &'static str) -> Running {
        let mut part = self.parts.remove(place).unwrap();
        let alarms = part.log_so_far().iter().filter(|line| is_alarm(line));
        self.alarms
            .extend(alarms.map(|line| format!("{place}: {line}")));

        part
    }

    pub(crate) fn admin(&self) -> String {
        format!("--admin-socket={}", self.file("admin.sock").display())
    }

    fn gateway_resolv_conf(&self) -> PathBuf {
        self.file("site-etc").join("resolv.conf")
    }

    /// Gives the network behind the gateway IPv6 and more hosts.
    fn lay_site(&self) {
        let gateway = self.network.namespace("gateway");
        run_in(gateway, || {
            set_sysctl_net("ipv6/conf/all/forwarding", "1").unwrap();
        })
        .unwrap();
        let site = self.network.resource("gateway");
        ip(gateway, "address add fd00:20::1/64 dev lan nodad");
        for address in &HOST[1..] {
            let (length, nodad) = if address.is_ipv4() {
                (24, "")
            } else {
                (64, " nodad")
            };
            ip(
                site,
                &format!("address add {address}/{length} dev uplink{nodad}"),
            );
        }
        ip(site, &format!("address add {INSIDE}/24 dev uplink"));
        ip(site, "route add default via fd00:20::1");
        serve(site);
    }

    /// Two copies of this machine's settings, in which names are looked for in the file and by DNS.
    fn write_etc(&self) {
        for name in ["etc", "site-etc"] {
            let etc = self.file(name);
            stdout(
                Command::new("cp")
                    .args(["--archive", "/etc"])
                    .arg(&etc)
                    .stdin(Stdio::null()),
            );
            for file in ["resolv.conf", "hosts", "nsswitch.conf"] {
                // It may be a link to anywhere, or not be there.
                let _ = fs::remove_file(etc.join(file));
            }
            fs::write(etc.join("nsswitch.conf"), "hosts: files dns\n").unwrap();
        }
        fs::write(self.file("etc/hosts"), "127.0.0.1 localhost\n").unwrap();
        fs::write(self.resolv_conf(), self.original()).unwrap();
        let hosts = "127.0.0.1 localhost\n10.20.0.11 hosted.corp.test\n";
        fs::write(self.file("site-etc/hosts"), hosts).unwrap();
        let servers = format!("nameserver {}\n", HOST[0]);
        fs::write(self.gateway_resolv_conf(), servers).unwrap();
    }

    /// What stands in the client's file at first.
    pub(crate) fn original(&self) -> String {
        format!(
            "# by hand\nnameserver {}\noptions timeout:3\n",
            self.resolver("resolver")
        )
    }

    fn start_servers(&mut self, is_signed: bool) {
        let certificates = Certificates::create(self.files.path());
        let ca = certificates.ca.display();
        self.client.arguments.push(format!("--ca={ca}"));
        let site = [HOST[0], HOST[2], INSIDE.into()];
        let knot = servers::site(
            self.network.resource("gateway"),
            &self.file("site-knot"),
            &site,
        );
        self.keep("site", knot);
        if is_signed {
            let here = self.network.namespace("resolver");
            let (knot, anchor) = servers::signing(here, &self.file("signing-knot"));
            self.keep("signing", knot);
            self.anchor = anchor;
        }
        let [resolver, other] = ["resolver", "other-resolver"].map(|name| self.network.net(name));
        let unbound = servers::unbound(
            self.network.namespace("resolver"),
            &self.file("unbound"),
            &[resolver.host_v4().into(), resolver.host_v6().into()],
            &certificates,
        );
        self.keep("resolver", unbound);
        let dnsmasq = servers::dnsmasq(
            self.network.namespace("other-resolver"),
            &self.file("dnsmasq"),
            other.host_v4().into(),
        );
        self.keep("other-resolver", dnsmasq);
    }
}

/// What explains a test that failed, and that the machine's own settings are what they were.
impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(machine(), self.machine, "this machine's settings changed");
            return;
        }
        for (place, part) in &mut self.parts {
            let lines = part.log_so_far();
            for line in lines.iter().skip(lines.len().saturating_sub(LAST_LINES)) {
                println!("{place}: {line}");
            }
        }
        for (name, service) in &self.services {
            println!("{name}: {}", service.log());
        }
    }
}

/// What of this machine no test may change.
fn machine() -> String {
    let directory = fs::read_dir("/etc").unwrap().flatten();
    let mut names: Vec<_> = directory
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("resolv.conf") || name == "hosts")
        .collect();
    names.sort_unstable();
    let contents = names
        .iter()
        .map(|name| fs::read_to_string(Path::new("/etc").join(name)).unwrap_or_default());

    contents
        .zip(&names)
        .map(|(text, name)| format!("{name}:\n{text}"))
        .collect()
}

fn ip(namespace: &Namespace, line: &str) {
    stdout(command(namespace, "ip").args(line.split(' ')));
}

/// Answers whoever connects to the host with the address that was connected to, until this process ends.
fn serve(site: &Namespace) {
    let listener = run_in(site, || TcpListener::bind("[::]:80"))
        .unwrap()
        .unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever goes away is no concern of ours.
            let _ = answer(&stream);
        }
    });
}

fn answer(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let lines = BufReader::new(stream).lines();
    for line in lines.map_while(Result::ok) {
        if line.is_empty() {
            break;
        }
    }
    let body = format!("{}\n", stream.local_addr()?.ip().to_canonical());
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// The program that was built with the tests, or the one that `CONNLIB` names: figures of a release build.
fn program() -> OsString {
    std::env::var_os("CONNLIB").unwrap_or_else(|| env!("CARGO_BIN_EXE_connlib").into())
}

fn is_alarm(line: &str) -> bool {
    [" WARN ", " ERROR ", "panicked at"]
        .iter()
        .any(|word| line.contains(word))
}
