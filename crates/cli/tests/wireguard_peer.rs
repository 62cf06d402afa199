//! The example `wireguard_peer` against other WireGuard programs: two namespaces, a cable between them, TCP through the
//! tunnel both ways.
//!
//! `CONNLIB_SOAK=1` makes the streams last: 10 GiB or 300 s, whichever takes longer, with at least two rekeys.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::print_stdout,
    reason = "a test says what it has measured, or why it is skipped"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use connlib_os::clock::Clock;
use connlib_os::namespace::{Namespace, command_in, run_in};
use connlib_os::netlink::Netlink;
use connlib_os::process;
use sha2::{Digest, Sha256};
use socket2::{Domain, SockFilter, Socket, Type};
use tempfile::TempDir;

const MIB: u64 = 1024 * 1024;

const WIREGUARD_GO: Program = Program {
    name: "wireguard-go",
    arguments: &["-f"],
    install: "apt install wireguard-go",
};

const GOTATUN: Program = Program {
    name: "gotatun",
    arguments: &["-f", "--disable-drop-privileges"],
    install: "cargo install gotatun-cli",
};

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn streams_to_and_from_wireguard_go_stay_intact() {
    let _alone = alone();
    let Some(pair) = Pair::start(&WIREGUARD_GO, FirstWord::Ours) else {
        return;
    };
    pair.stream(Length::of(256 * MIB));
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn streams_to_and_from_gotatun_stay_intact() {
    let _alone = alone();
    let Some(pair) = Pair::start(&GOTATUN, FirstWord::Ours) else {
        return;
    };
    pair.stream(Length::of(1_024 * MIB));
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_peer_that_speaks_first_is_answered() {
    let _alone = alone();
    for program in [&WIREGUARD_GO, &GOTATUN] {
        let Some(pair) = Pair::start(program, FirstWord::Theirs) else {
            continue;
        };
        pair.stream(Length {
            bytes: 8 * MIB,
            span: Duration::ZERO,
            rekeys: 0,
        });
    }
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_bad_file_is_refused_with_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("peer.conf");
    fs::write(&file, "[Interface]\nDNS = 10.0.0.1\n").unwrap();
    let output = Command::new(wireguard_peer()).arg(&file).output().unwrap();

    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("peer.conf:2: DNS"), "{said}");
}

/// Whose program knows where the other one is, and so speaks first.
#[derive(Clone, Copy, Eq, PartialEq)]
enum FirstWord {
    Ours,
    Theirs,
}

/// Another WireGuard program, configured by its socket.
struct Program {
    name: &'static str,
    arguments: &'static [&'static str],
    install: &'static str,
}

impl Program {
    fn path(&self) -> Option<PathBuf> {
        let places = [
            std::env::var_os("CONNLIB_PEERS_PATH"),
            std::env::var_os("PATH"),
        ];
        let places = places.into_iter().flatten();
        let directories: Vec<_> = places
            .flat_map(|places| std::env::split_paths(&places).collect::<Vec<_>>())
            .collect();
        let found = directories
            .iter()
            .map(|place| place.join(self.name))
            .find(|path| path.is_file());
        if found.is_none() {
            println!(
                "SKIPPED: {} is not there; install it with `{}`, or name its directory in CONNLIB_PEERS_PATH",
                self.name, self.install
            );
        }

        found
    }
}

/// How much is sent at least, for how long at least, and how many rekeys must be seen.
struct Length {
    bytes: u64,
    span: Duration,
    rekeys: usize,
}

impl Length {
    fn of(bytes: u64) -> Self {
        if std::env::var_os("CONNLIB_SOAK").is_some_and(|soak| soak == "1") {
            return Self {
                bytes: 10 * 1_024 * MIB,
                span: Duration::from_secs(300),
                rekeys: 2,
            };
        }

        Self {
            bytes,
            span: Duration::ZERO,
            rekeys: 0,
        }
    }
}

/// Keys made up for these tests, in the forms of both configurations.
struct Key {
    private_base64: &'static str,
    private_hex: &'static str,
    public_base64: &'static str,
    public_hex: &'static str,
}

const OURS: Key = Key {
    private_base64: "ARERERERERERERERERERERERERERERERERERERERERE=",
    private_hex: "0111111111111111111111111111111111111111111111111111111111111111",
    public_base64: "W1vaWferLjowf9D8/kU57AUiePFg1THCSBTGzmLP4hQ=",
    public_hex: "5b5bda59f7ab2e3a307fd0fcfe4539ec052278f160d531c24814c6ce62cfe214",
};

const THEIRS: Key = Key {
    private_base64: "AiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiI=",
    private_hex: "0222222222222222222222222222222222222222222222222222222222222222",
    public_base64: "RMh/bvaVvHSa+vYvvdCYApOphnf82E4fhUU9iRlGWSo=",
    public_hex: "44c87f6ef695bc749afaf62fbdd0980293a98677fcd84e1f85453d891946592a",
};

/// Both programs at the two ends of a cable.
struct Pair {
    ours: Namespace,
    theirs: Namespace,
    peer: Running,
    other: Running,
    control: PathBuf,
    responses: Responses,
    first: FirstWord,
    /// The other program's name and version, as it says it.
    version: String,
    _files: TempDir,
}

impl Pair {
    /// `None` if the other program isn't there.
    fn start(program: &Program, first: FirstWord) -> Option<Self> {
        let path = program.path()?;
        let version = version(&path);
        let number = std::process::id();
        let (ours, theirs) = cable();
        let responses = Responses::watch(&ours);
        let files = tempfile::tempdir().unwrap();

        let name = format!("wgt{number}");
        let control = PathBuf::from(format!("/var/run/wireguard/{name}.sock"));
        let mut command = Command::new(path);
        command
            .args(program.arguments)
            .arg(&name)
            .env("LOG_LEVEL", "error");
        let other = Running::start(&mut command, &theirs);
        configure(&control, first);
        runtime().block_on(async {
            let mut netlink = Netlink::new_in(&theirs).unwrap();
            netlink.set_mtu(&name, 1_280).await.unwrap();
            for address in ["10.7.0.2/24", "fd07::2/64"] {
                netlink
                    .add_address(&name, address.parse().unwrap())
                    .await
                    .unwrap();
            }
            netlink.set_up(&name).await.unwrap();
        });

        let file = files.path().join("peer.conf");
        let endpoint = match first {
            FirstWord::Ours => "Endpoint = 192.0.2.2:51820\n",
            FirstWord::Theirs => "",
        };
        let text = format!(
            "[Interface]\nPrivateKey = {}\nListenPort = 51820\nAddress = 10.7.0.1/24, fd07::1/64\n\
             [Peer]\nPublicKey = {}\n{endpoint}AllowedIPs = 10.7.0.2, fd07::2\n",
            OURS.private_base64, THEIRS.public_base64
        );
        fs::write(&file, text).unwrap();
        let mut command = Command::new(wireguard_peer());
        command.args(["--tun", &format!("wgo{number}")]).arg(&file);
        let mut peer = Running::start(&mut command, &ours);
        assert_eq!(peer.line(), "ready");

        Some(Self {
            ours,
            theirs,
            peer,
            other,
            control,
            responses,
            first,
            version,
            _files: files,
        })
    }

    /// Sends both ways at once, over IPv4 and over IPv6, and ends both programs.
    fn stream(mut self, length: Length) {
        let to_theirs: SocketAddr = "10.7.0.2:9".parse().unwrap();
        let to_ours: SocketAddr = "[fd07::1]:9".parse().unwrap();
        let arrived = AtomicU64::new(0);
        let is_over = AtomicBool::new(false);
        let clock = Clock::new();
        let began_at = clock.now();

        thread::scope(|scope| {
            let forth = || connect(&self.ours, &self.theirs, to_theirs);
            let back = || connect(&self.theirs, &self.ours, to_ours);
            let streams = match self.first {
                FirstWord::Ours => [forth(), back()],
                FirstWord::Theirs => [back(), forth()],
            };
            let flows = streams.map(|(sender, receiver)| {
                let sends = scope.spawn(|| send(sender, &is_over));
                let receives = scope.spawn(|| receive(receiver, &arrived));
                (sends, receives)
            });
            loop {
                let span = clock.now() - began_at;
                let bytes = arrived.load(Ordering::Relaxed);
                let is_stuck = flows
                    .iter()
                    .any(|flow| flow.0.is_finished() || flow.1.is_finished());
                if is_stuck || (span >= length.span && bytes >= length.bytes) {
                    break;
                }
                rest(Duration::from_millis(500));
            }
            is_over.store(true, Ordering::Relaxed);
            for (sends, receives) in flows {
                let (sent, bytes) = sends.join().unwrap();
                assert_eq!(receives.join().unwrap(), sent);
                assert!(bytes > 0);
            }
        });
        let span = clock.now() - began_at;
        let bytes = arrived.load(Ordering::Relaxed);
        let handshakes = self.responses.count();
        println!(
            "{}: {} MiB in {:.1} s, {} handshakes, {:.2} Gbit/s",
            self.version,
            bytes / MIB,
            span.as_secs_f64(),
            handshakes,
            bytes as f64 * 8.0 / span.as_secs_f64() / 1e9
        );
        assert!(bytes >= length.bytes);
        assert!(handshakes > length.rekeys, "{handshakes} handshakes");

        assert!(self.peer.end().is_some_and(|code| code == 0));
        self.other.end();
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // A program that was killed leaves it.
        let _ = fs::remove_file(&self.control);
    }
}

/// The handshakes that were answered, as they are seen on the cable; the programs need not be asked.
struct Responses(Socket);

impl Responses {
    /// The kernel keeps what is seen until it is counted.
    fn watch(namespace: &Namespace) -> Self {
        /// In network byte order (if_ether.h: ETH_P_ALL); of one protocol alone, what leaves is not shown.
        const ALL_PROTOCOLS: i32 = (3_u16.to_be()) as i32;
        // Of IPv4's packets without options: is it UDP, and as long as a response, 8 + 92 bytes? (bpf(4): ldb, jeq, ldh)
        let filter = [
            SockFilter::new(0x30, 0, 0, 9),
            SockFilter::new(0x15, 0, 3, 17),
            SockFilter::new(0x28, 0, 0, 24),
            SockFilter::new(0x15, 0, 1, 100),
            SockFilter::new(0x06, 0, 0, u32::MAX),
            SockFilter::new(0x06, 0, 0, 0),
        ];
        let open = || Socket::new(Domain::PACKET, Type::DGRAM, Some(ALL_PROTOCOLS.into()));
        let socket = run_in(namespace, open).unwrap().unwrap();
        socket.attach_filter(&filter).unwrap();
        socket.set_nonblocking(true).unwrap();

        Self(socket)
    }

    fn count(&mut self) -> usize {
        let mut packet = [0; 256];
        let packets = std::iter::from_fn(|| self.0.read(&mut packet).ok().map(|_| packet[28]));

        packets.filter(|kind| *kind == 2).count()
    }
}

/// A process, killed when dropped.
struct Running {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Running {
    fn start(command: &mut Command, namespace: &Namespace) -> Self {
        command_in(command, Some(namespace)).unwrap();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());

        Self { child, stdout }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();

        line.trim_end().to_owned()
    }

    /// Asks it to end; its exit code.
    fn end(&mut self) -> Option<i32> {
        process::terminate(self.child.id()).unwrap();

        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two namespaces with a cable between them.
fn cable() -> (Namespace, Namespace) {
    let (ours, theirs) = (Namespace::create().unwrap(), Namespace::create().unwrap());
    runtime().block_on(async {
        let mut netlink = Netlink::new_in(&ours).unwrap();
        netlink.add_veth("a", "b").await.unwrap();
        netlink.move_to_namespace("b", &theirs).await.unwrap();
        let mut there = Netlink::new_in(&theirs).unwrap();
        netlink
            .add_address("a", "192.0.2.1/24".parse().unwrap())
            .await
            .unwrap();
        there
            .add_address("b", "192.0.2.2/24".parse().unwrap())
            .await
            .unwrap();
        // The second one waits until both are.
        netlink.set_up("a").await.unwrap();
        there.set_up("b").await.unwrap();
        netlink.set_up("a").await.unwrap();
    });

    (ours, theirs)
}

/// Tells the other program who it is and who we are (wireguard.com/xplatform).
fn configure(control: &Path, first: FirstWord) {
    let endpoint = match first {
        FirstWord::Ours => "",
        FirstWord::Theirs => "endpoint=192.0.2.1:51820\n",
    };
    let answer = ask(
        control,
        &format!(
            "set=1\nprivate_key={}\nlisten_port=51820\nreplace_peers=true\npublic_key={}\n{endpoint}\
             replace_allowed_ips=true\nallowed_ip=10.7.0.1/32\nallowed_ip=fd07::1/128\n\n",
            THEIRS.private_hex, OURS.public_hex
        ),
    );
    assert!(answer.contains("errno=0"), "{answer}");
}

fn ask(control: &Path, request: &str) -> String {
    let mut socket = (0..100)
        .find_map(|_| {
            UnixStream::connect(control)
                .inspect_err(|_| rest(Duration::from_millis(100)))
                .ok()
        })
        .expect("the program listens on its socket");
    socket.write_all(request.as_bytes()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    for line in BufReader::new(socket).lines().map_while(Result::ok) {
        if line.is_empty() {
            break;
        }
        answer.push_str(&line);
        answer.push('\n');
    }

    answer
}

/// A connection from one namespace to `to` in the other one: both of its ends.
fn connect(from: &Namespace, at: &Namespace, to: SocketAddr) -> (TcpStream, TcpStream) {
    let any: IpAddr = to.ip();
    let listener = run_in(at, || TcpListener::bind((any, to.port())))
        .unwrap()
        .unwrap();
    let sender = run_in(from, || TcpStream::connect_timeout(&to, PATIENCE))
        .unwrap()
        .unwrap();
    let (receiver, _) = listener.accept().unwrap();
    for stream in [&sender, &receiver] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
    }

    (sender, receiver)
}

/// Sends until told to stop: the hash of what left, and how much that was.
fn send(mut stream: TcpStream, is_over: &AtomicBool) -> (Vec<u8>, u64) {
    let mut hash = Sha256::new();
    let mut bytes = 0_u64;
    let mut block = vec![0; 256 * 1_024];
    // Any numbers will do that don't repeat soon (Marsaglia's xorshift).
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for word in block.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    while !is_over.load(Ordering::Relaxed) {
        block[..8].copy_from_slice(&bytes.to_le_bytes());
        stream.write_all(&block).unwrap();
        hash.update(&block);
        bytes += block.len() as u64;
    }
    stream.shutdown(Shutdown::Write).unwrap();

    (hash.finalize().to_vec(), bytes)
}

/// The hash of all that arrives.
fn receive(mut stream: TcpStream, arrived: &AtomicU64) -> Vec<u8> {
    let mut hash = Sha256::new();
    let mut block = vec![0; 256 * 1_024];
    loop {
        let len = stream.read(&mut block).unwrap();
        if len == 0 {
            return hash.finalize().to_vec();
        }
        hash.update(&block[..len]);
        arrived.fetch_add(len as u64, Ordering::Relaxed);
    }
}

/// The example, which cargo builds along with the workspace's tests; CONNLIB_WIREGUARD_PEER names another build.
fn wireguard_peer() -> PathBuf {
    if let Some(path) = std::env::var_os("CONNLIB_WIREGUARD_PEER") {
        return path.into();
    }
    let own = std::env::current_exe().unwrap();
    let path = own
        .ancestors()
        .nth(2)
        .unwrap()
        .join("examples/wireguard_peer");
    assert!(
        path.is_file(),
        "{} is not there; build it with `cargo build -p connlib --example wireguard_peer` (and --release, if this test is)",
        path.display()
    );

    path
}

/// Longer than any handshake or retransmission here takes.
const PATIENCE: Duration = Duration::from_secs(60);

#[expect(
    clippy::disallowed_methods,
    reason = "other programs don't tell when they are ready"
)]
fn rest(span: Duration) {
    thread::sleep(span);
}

/// The first line of what a program says about its version.
fn version(program: &Path) -> String {
    let output = Command::new(program).arg("--version").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();

    said.lines().next().unwrap_or_default().to_owned()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Interfaces and sockets are named by the process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());

    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
