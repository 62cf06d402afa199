//! A relay that is told to end: with `--drain` it serves those who have an allocation, and nobody else. And what it tells of
//! itself over HTTP meanwhile.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use connlib_os::process;
use connlib_wire::buffer::Pool;
use connlib_wire::secret::Secret;
use connlib_wire::stun::{
    Attribute, Builder, Class, Key, Message, Method, TRANSPORT_UDP, TransactionId, rest_password,
};

use crate::free_udp_port;
use crate::program::{Running, connlib};

const SECRET: &str = "north";

/// In 2038, and whose it is.
const USER: &str = "2145916800:alice";

#[test]
fn a_relay_that_drains_serves_whom_it_serves_until_they_leave() {
    let directory = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(directory.path(), &["--drain=600"]);
    assert_eq!(relay.health("/healthz"), 200);
    assert_eq!(relay.health("/readyz"), 200);
    assert_eq!(relay.counted("connlib_relay_allocations"), "0");

    let mut stays = Client::new(relay.addr);
    assert_eq!(stays.allocate(), Ok(()));
    assert_eq!(relay.counted("connlib_relay_allocations"), "1");
    let made = "connlib_relay_responses_total{message_type=\"allocate\",response_class=\"success\",error_code=\"\"}";
    assert_eq!(relay.counted(made), "1");

    process::terminate(relay.running.pid()).unwrap();
    relay.running.wait_for_line("Draining");
    assert_eq!(relay.health("/readyz"), 503);
    assert_eq!(relay.health("/healthz"), 200);
    assert_eq!(Client::new(relay.addr).allocate(), Err(508));
    assert_eq!(stays.refresh(600), Ok(()));
    assert_eq!(stays.refresh(0), Ok(()));

    let (code, log) = relay.running.wait();
    assert_eq!(code, 0, "{log}");
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

#[test]
fn a_second_signal_ends_a_relay_that_drains() {
    let directory = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(directory.path(), &["--drain=1h"]);
    assert_eq!(Client::new(relay.addr).allocate(), Ok(()));

    process::terminate(relay.running.pid()).unwrap();
    relay.running.wait_for_line("Draining");
    process::terminate(relay.running.pid()).unwrap();

    assert_eq!(relay.running.wait().0, 0);
}

#[test]
fn a_relay_waits_no_longer_than_it_may() {
    let directory = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(directory.path(), &["--drain", "1"]);
    assert_eq!(Client::new(relay.addr).allocate(), Ok(()));

    process::terminate(relay.running.pid()).unwrap();
    relay
        .running
        .wait_for_line("Ending though some still have allocations");

    assert_eq!(relay.running.wait().0, 0);
}

#[test]
fn a_relay_ends_at_once_by_default() {
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::start(directory.path(), &[]);
    assert_eq!(Client::new(relay.addr).allocate(), Ok(()));

    assert!(relay.running.terminate().success());
}

#[test]
fn limits_and_refused_peers_are_what_the_operator_says() {
    let directory = tempfile::tempdir().unwrap();
    let limits = [
        "--max-allocations=2",
        "--max-allocations-per-user=1",
        "--refuse-private-peers",
    ];
    let relay = Relay::start(directory.path(), &limits);

    let mut first = Client::new(relay.addr);
    assert_eq!(first.allocate(), Ok(()));
    assert_eq!(Client::new(relay.addr).allocate(), Err(486));
    assert_eq!(Client::named(relay.addr, "bob").allocate(), Ok(()));
    assert_eq!(Client::named(relay.addr, "carol").allocate(), Err(508));
    assert_eq!(first.permit("10.1.2.3:9"), Err(403));
    assert_eq!(first.permit("192.0.2.7:9"), Ok(()));
}

/// One that stands alone on the loopback device.
struct Relay {
    running: Running,
    addr: SocketAddr,
    health: SocketAddr,
    metrics: SocketAddr,
}

impl Relay {
    fn start(directory: &Path, arguments: &[&str]) -> Self {
        let addr = SocketAddr::from(([127, 0, 0, 1], free_udp_port().parse().unwrap()));
        let [health, metrics] = free_tcp_addresses();
        let mut command: Command = connlib(&["relay", "--public-ip4=127.0.0.1"]);
        command
            .args(["--secret", SECRET, "--allow-loopback-peers"])
            .arg(format!("--listen-port={}", addr.port()))
            .arg(format!("--health={health}"))
            .arg(format!("--metrics={metrics}"))
            .arg("--socket")
            .arg(directory.join("relay.sock"))
            .args(arguments);
        let mut running = Running::start(directory, &mut command);
        running.wait_ready();

        Self {
            running,
            addr,
            health,
            metrics,
        }
    }

    /// The status of an answer.
    fn health(&self, path: &str) -> u16 {
        get(self.health, path).0
    }

    /// The value of a metric.
    fn counted(&self, metric: &str) -> String {
        assert_eq!(get(self.health, "/metrics").0, 404, "it has its own port");
        let (status, text) = get(self.metrics, "/metrics");
        assert_eq!(status, 200);
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));

        value.unwrap_or_else(|| panic!("{text}")).to_owned()
    }
}

fn get(addr: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(addr).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();

    (status, answer)
}

/// Two that nobody listens at: they were free together a moment ago.
fn free_tcp_addresses() -> [SocketAddr; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());

    listeners.map(|listener| listener.local_addr().unwrap())
}

/// A client that asks one thing at a time.
struct Client {
    socket: UdpSocket,
    user: String,
    nonce: String,
    realm: String,
    pool: Pool,
    transactions: u8,
}

/// The code of a refusal.
type Answered = Result<(), u16>;

impl Client {
    fn new(relay: SocketAddr) -> Self {
        Self::of(relay, USER.to_owned())
    }

    fn named(relay: SocketAddr, name: &str) -> Self {
        Self::of(relay, USER.replace("alice", name))
    }

    fn of(relay: SocketAddr, user: String) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(relay).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();

        Self {
            socket,
            user,
            nonce: String::new(),
            realm: String::new(),
            pool: Pool::new(2_048, 1),
            transactions: 0,
        }
    }

    fn allocate(&mut self) -> Answered {
        let transport = [Attribute::RequestedTransport(TRANSPORT_UDP)];
        assert_eq!(self.ask(Method::Allocate, &transport), Err(401));

        self.ask(Method::Allocate, &transport)
    }

    fn refresh(&mut self, seconds: u64) -> Answered {
        let lifetime = Attribute::Lifetime(Duration::from_secs(seconds));

        self.ask(Method::Refresh, &[lifetime])
    }

    fn permit(&mut self, peer: &str) -> Answered {
        let peer = Attribute::XorPeerAddress(peer.parse().unwrap());

        self.ask(Method::CreatePermission, &[peer])
    }

    /// Asks, with credentials once it knows the nonce.
    fn ask(&mut self, method: Method, attributes: &[Attribute<'_>]) -> Answered {
        self.transactions += 1;
        let id = TransactionId([self.transactions; 12]);
        let mut builder = Builder::new(self.pool.take(0), method, Class::Request, id);
        for attribute in attributes {
            builder = builder.attribute(*attribute);
        }
        let request = if self.nonce.is_empty() {
            builder.finish().unwrap()
        } else {
            let password = rest_password(&self.user, &Secret::from(SECRET));
            let key = Key::long_term(&self.user, &self.realm, &password);
            builder
                .attribute(Attribute::Username(&self.user))
                .attribute(Attribute::Realm(&self.realm))
                .attribute(Attribute::Nonce(&self.nonce))
                .integrity(key.expose())
                .finish()
                .unwrap()
        };
        self.socket.send(&request).unwrap();

        let mut answer = [0; 1_500];
        let len = self.socket.recv(&mut answer).unwrap();
        let answer = Message::parse(&answer[..len]).unwrap();
        assert_eq!(answer.transaction_id(), id);
        if let (Some(nonce), Some(realm)) = (answer.nonce(), answer.realm()) {
            self.nonce = nonce.to_owned();
            self.realm = realm.to_owned();
        }

        match answer.error_code() {
            Some(code) => Err(code),
            None => Ok(()),
        }
    }
}
