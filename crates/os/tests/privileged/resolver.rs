//! Resolver settings: a file that is a mount, and the real systemd-resolved. Both in namespaces of their own, so that the
//! machine's settings stay as they are.

use std::fs;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket as StdUdpSocket};
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::PoisonError;
use std::time::Duration;

use connlib_os::namespace::command_in;
use connlib_os::netlink::{Netlink, RouteSpec};
use connlib_os::poll::{Interest, Poller, Token};
use connlib_os::resolver::{HostResolver, Method, Paths, ResolverError, Wanted};
use connlib_os::tun::{Tun, TunDevice};
use tokio::time::{sleep, timeout};

use super::{PROCESSES, runtime};

const ORIGINAL: &str = "nameserver 192.0.2.1\n";

/// Says to a process that it is the one inside.
const INSIDE: &str = "CONNLIB_OS_TEST_INSIDE";

/// Longer than anything takes here.
const SOON: Duration = Duration::from_secs(10);

/// More than it takes to notice a change.
const A_WHILE: Duration = Duration::from_millis(400);

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_file_that_is_a_mount_is_rewritten_watched_and_restored() {
    run_inside(&["--mount"], "resolver::with_a_mount");
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn the_real_resolved_asks_whom_it_is_told_to() {
    let programs = ["dbus-daemon", "resolvectl", RESOLVED];
    let missing: Vec<_> = programs.iter().filter(|name| !is_there(name)).collect();
    if !missing.is_empty() {
        assert!(std::env::var_os("CI").is_none(), "{missing:?} are missing");
        // The harness would keep it to itself.
        let _ = writeln!(
            io::stderr(),
            "\nSKIPPED: nothing was tried with the real systemd-resolved, because {missing:?} are missing; \
             install systemd-resolved and dbus-daemon, and have /lib/systemd in PATH\n"
        );
        return;
    }
    let namespaces = ["--mount-proc", "--net", "--pid", "--fork", "--kill-child"];
    run_inside(&namespaces, "resolver::with_resolved");
}

/// What a test above runs in namespaces; it is no test of its own.
#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn with_a_mount() {
    let Some(directory) = std::env::var_os(INSIDE).map(PathBuf::from) else {
        return;
    };
    let (file, outside) = (directory.join("resolv.conf"), directory.join("outside"));
    let backup = directory.join("resolv.conf.before-connlib");
    fs::write(&file, "").unwrap();
    fs::write(&outside, ORIGINAL).unwrap();
    call("mount", &["-n", "--bind", text(&outside), text(&file)]);
    let paths = Paths {
        resolv_conf: file.clone(),
        ..Paths::default()
    };

    runtime().block_on(async {
        let replaced = fs::rename(directory.join("outside"), &file).unwrap_err();
        assert_eq!(replaced.kind(), io::ErrorKind::ResourceBusy, "a mount");

        let mut resolver = new(None, &paths).await.unwrap();
        assert_eq!(resolver.method(), Method::ResolvConf);
        resolver.apply(&wanted()).await.unwrap();
        let ours = fs::read_to_string(&outside).unwrap();
        assert!(ours.contains("nameserver 100.100.111.1\n"), "{ours}");
        assert_eq!(fs::read_to_string(&backup).unwrap(), ORIGINAL);
        assert!(is_quiet(&mut resolver).await);

        // Whoever manages the container writes where its directory tells nothing.
        let other = "nameserver 192.0.2.2\n";
        fs::write(&outside, other).unwrap();
        change(&mut resolver).await;
        resolver.apply(&wanted()).await.unwrap();
        resolver.revert().await.unwrap();
        assert_eq!(fs::read_to_string(&outside).unwrap(), other);

        call("mount", &["-n", "-o", "remount,bind,ro", text(&file)]);
        let error = new(Some(Method::ResolvConf), &paths).await.unwrap_err();
        assert!(matches!(&error, ResolverError::File { .. }), "{error}");
        let names = format!("can't write {}: Read-only file system", file.display());
        assert!(error.to_string().starts_with(&names), "{error}");
        let resolver = new(None, &paths).await.unwrap();
        assert_eq!(resolver.method(), Method::Off);

        // There is something to restore, and no way to.
        fs::write(&outside, ours).unwrap();
        let refused = new(Some(Method::ResolvConf), &paths).await;
        assert!(matches!(refused, Err(ResolverError::File { .. })));
        let resolver = new(None, &paths).await.unwrap();
        assert_eq!(resolver.method(), Method::Off);
    });
}

/// What a test above runs in namespaces; it is no test of its own.
#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn with_resolved() {
    let Some(directory) = std::env::var_os(INSIDE).map(PathBuf::from) else {
        return;
    };
    let file = directory.join("resolv.conf");
    symlink("/run/systemd/resolve/stub-resolv.conf", &file).unwrap();
    let paths = Paths {
        resolv_conf: file,
        ..Paths::default()
    };

    runtime().block_on(async {
        let mut tun = TunDevice::create(LINK).unwrap();
        let mut netlink = Netlink::new().unwrap();
        netlink.add_veth("up", "up-far").await.unwrap();
        for link in ["lo", "up", "up-far", LINK] {
            netlink.set_up(link).await.unwrap();
        }
        let address = "192.0.2.100/24".parse().unwrap();
        netlink.add_address("up", address).await.unwrap();
        let address = "100.64.0.1/32".parse().unwrap();
        netlink.add_address(LINK, address).await.unwrap();
        let route = RouteSpec::by_dev("100.100.111.0/24".parse().unwrap(), LINK);
        netlink.add_route(&route).await.unwrap();
        let up = netlink.link_index("up").await.unwrap();
        let _services = timeout(SOON, Services::start()).await.unwrap();

        // What it says about the system.
        let mut resolver = new(None, &paths).await.unwrap();
        assert_eq!(resolver.method(), Method::Resolved);
        assert_eq!(servers(&mut resolver).await, ["192.0.2.53:53"]);
        call("resolvectl", &["dns", "up", "192.0.2.1", "fe80::1%up"]);
        call("resolvectl", &["domain", "up", "home.test"]);
        change(&mut resolver).await;
        let uplink = [
            "192.0.2.53:53".to_owned(),
            "192.0.2.1:53".into(),
            format!("[fe80::1%{up}]:53"),
        ];
        assert_eq!(servers(&mut resolver).await, uplink);
        assert_eq!(resolver.system().await.unwrap().search, ["home.test"]);

        // What is set, and who is asked then.
        for _ in 0..2 {
            resolver.apply(&wanted()).await.unwrap();
            assert_eq!(setting("dns"), "100.100.111.1 fd00::1");
            assert_eq!(setting("domain"), "corp.test ~.");
            assert_eq!(setting("default-route"), "yes");
            assert_eq!(setting("llmnr"), "no");
            assert_eq!(
                servers(&mut resolver).await,
                uplink,
                "ours are not among them"
            );
            assert!(is_quiet(&mut resolver).await, "we set that");
        }
        ask("wiki.example.test");
        assert!(is_asked_at(&mut tun, "wiki.example.test"));
        resolver.flush().await;

        // Somebody takes it away.
        call("resolvectl", &["revert", LINK]);
        change(&mut resolver).await;
        resolver.apply(&wanted()).await.unwrap();
        assert_eq!(setting("dns"), "100.100.111.1 fd00::1");

        resolver.revert().await.unwrap();
        assert_eq!(setting("dns"), "");
        assert_eq!(setting("domain"), "");
        assert_eq!(servers(&mut resolver).await, uplink);

        // The link goes, and the settings with it.
        resolver.apply(&wanted()).await.unwrap();
        drop(tun);
        change(&mut resolver).await;
        let error = resolver.apply(&wanted()).await.unwrap_err();
        assert!(matches!(error, ResolverError::Refused { .. }), "{error}");
        resolver.revert().await.unwrap();
        assert_eq!(servers(&mut resolver).await, uplink);
    });
}

const LINK: &str = "tun-test";
/// Usually in no directory that programs are looked for in.
const RESOLVED: &str = "systemd-resolved";

/// Runs one of the functions above in namespaces of these kinds, with a directory that is removed afterwards.
pub(crate) fn run_inside(namespaces: &[&str], function: &str) {
    let _alone = PROCESSES.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    command
        .args(namespaces)
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", function])
        .env(INSIDE, directory.path());
    command_in(&mut command, None).unwrap();

    let output = command.output().unwrap();

    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{errors}"
    );
}

/// Whether this process is the one that was begun so.
pub(crate) fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// A system bus and systemd-resolved, with `/run` and `/etc` of their own.
struct Services(Vec<Child>);

impl Services {
    async fn start() -> Self {
        call("mount", &["-n", "-t", "tmpfs", "tmpfs", "/run"]);
        prepare_resolved();
        for directory in ["/run/dbus", "/run/systemd/resolved.conf.d"] {
            fs::create_dir_all(directory).unwrap();
        }
        let owned = ["-d", "-o", "systemd-resolve", "-g", "systemd-resolve"];
        call("install", &[&owned[..], &["/run/systemd/resolve"]].concat());
        // The first line forgets what this machine's own configuration says.
        let settings = "[Resolve]\nDNS=\nDNS=192.0.2.53\nDomains=\nDNSSEC=no\nMulticastDNS=no\n";
        fs::write("/run/systemd/resolved.conf.d/zz.conf", settings).unwrap();

        let mut services = Self(Vec::new());
        services.spawn("dbus-daemon", &["--system", "--nofork", "--nopidfile"]);
        while !Path::new("/run/dbus/system_bus_socket").exists() {
            sleep(Duration::from_millis(10)).await;
        }
        services.spawn(RESOLVED, &[]);
        while !Command::new("resolvectl")
            .output()
            .unwrap()
            .status
            .success()
        {
            sleep(Duration::from_millis(50)).await;
        }

        services
    }

    fn spawn(&mut self, program: &str, arguments: &[&str]) {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        self.0.push(command.spawn().unwrap());
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Lets systemd-resolved run even where its package is unpacked and not installed: its user, and its right to its name on the bus.
fn prepare_resolved() {
    let etc = "/run/etc";
    call("cp", &["-a", "/etc", etc]);
    for (file, line) in [
        (
            "passwd",
            "systemd-resolve:x:64998:64998::/:/usr/sbin/nologin\n",
        ),
        ("group", "systemd-resolve:x:64998:\n"),
    ] {
        let file = Path::new(etc).join(file);
        let mut text = fs::read_to_string(&file).unwrap();
        if !text.contains("\nsystemd-resolve:") {
            text.push_str(line);
            fs::write(file, text).unwrap();
        }
    }
    let policy = "dbus-1/system.d/org.freedesktop.resolve1.conf";
    let path = std::env::var_os("PATH").unwrap();
    let program = std::env::split_paths(&path)
        .map(|directory| directory.join(RESOLVED))
        .find(|file| file.exists())
        .unwrap();
    let packaged = program
        .ancestors()
        .map(|place| place.join("usr/share").join(policy))
        .find(|file| file.exists())
        .unwrap();
    let own = Path::new(etc).join(policy);
    fs::create_dir_all(own.parent().unwrap()).unwrap();
    fs::copy(packaged, own).unwrap();
    call("mount", &["-n", "--bind", etc, "/etc"]);
}

async fn new(method: Option<Method>, paths: &Paths) -> Result<HostResolver, ResolverError> {
    HostResolver::new(method, LINK, paths.clone()).await
}

fn wanted() -> Wanted {
    Wanted {
        servers: ["100.100.111.1", "fd00::1"]
            .map(|ip| ip.parse().unwrap())
            .to_vec(),
        search: Some("corp.test".into()),
    }
}

async fn servers(resolver: &mut HostResolver) -> Vec<String> {
    let system = resolver.system().await.unwrap();

    system.servers.iter().map(ToString::to_string).collect()
}

async fn change(resolver: &mut HostResolver) {
    timeout(SOON, resolver.changed())
        .await
        .expect("a change is told")
        .unwrap();
}

async fn is_quiet(resolver: &mut HostResolver) -> bool {
    timeout(A_WHILE, resolver.changed()).await.is_err()
}

/// What resolvectl says about a setting of our link.
fn setting(verb: &str) -> String {
    let listed = call("resolvectl", &[verb, LINK]);
    let (_, value) = listed.split_once("):").unwrap();

    value.trim().into()
}

/// Asks systemd-resolved for the IPv4 address of `name`, as programs do.
fn ask(name: &str) {
    let head = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let question = [0, 0, 1, 0, 1];
    let query = [&head[..], &labels(name), &question].concat();
    let stub = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), 53);

    let socket = StdUdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(&query, stub).unwrap();
}

/// Whether a question about `name` comes to the resolver behind the device.
fn is_asked_at(tun: &mut TunDevice, name: &str) -> bool {
    let mut poller = Poller::new().unwrap();
    poller
        .register(&tun.as_fd(), Token(0), Interest::Read)
        .unwrap();
    let labels = labels(name);
    let server = [100, 100, 111, 1];
    let mut packet = [0; 65_535];
    loop {
        match tun.read(&mut packet) {
            Ok((_, len)) => {
                let is_ours = packet[16..20] == server;
                if is_ours && packet[..len].windows(labels.len()).any(|it| it == labels) {
                    return true;
                }
            }
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                let mut events = Vec::new();
                poller.wait(Some(SOON), &mut events).unwrap();
                if events.is_empty() {
                    return false;
                }
            }
        }
    }
}

fn labels(name: &str) -> Vec<u8> {
    name.split('.')
        .flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat())
        .collect()
}

fn is_there(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}

pub(crate) fn call(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");

    String::from_utf8(output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
