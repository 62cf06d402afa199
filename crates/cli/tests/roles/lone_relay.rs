//! A relay that stands alone on the loopback device, and clients of it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use connlib_os::process;
use connlib_wire::buffer::Pool;
use connlib_wire::channel::{self, ChannelNumber};
use connlib_wire::secret::Secret;
use connlib_wire::stun::{
    Attribute, Builder, Class, Key, Message, Method, TRANSPORT_UDP, TransactionId, rest_password,
};

use crate::free_udp_port;
use crate::program::{Running, connlib};

const SECRET: &str = "north";

/// In 2038, and whose it is.
const USER: &str = "2145916800:alice";

const CHANNEL: ChannelNumber = ChannelNumber::MIN;

/// One that stands alone on the loopback device.
pub(crate) struct Relay {
    pub(crate) running: Running,
    pub(crate) addr: SocketAddr,
    pub(crate) health: SocketAddr,
    pub(crate) metrics: SocketAddr,
}

impl Relay {
    pub(crate) fn start(directory: &Path, arguments: &[&str]) -> Self {
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

    /// Tells it to end.
    pub(crate) fn begin_to_drain(&mut self) {
        process::terminate(self.running.pid()).unwrap();
        self.running.wait_for_line("Draining");
    }

    /// The status of an answer.
    pub(crate) fn health(&self, path: &str) -> u16 {
        get(self.health, path).0
    }

    /// The value of a metric.
    pub(crate) fn counted(&self, metric: &str) -> String {
        assert_eq!(get(self.health, "/metrics").0, 404, "it has its own port");
        let (status, text) = get(self.metrics, "/metrics");
        assert_eq!(status, 200);
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));

        value.unwrap_or_else(|| panic!("{text}")).to_owned()
    }
}

fn get(addr: SocketAddr, path: &str) -> (u16, String) {
    ask(
        addr,
        &format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\n\r\n"),
    )
}

/// Sends a request as it stands; the status of the answer, and all of it.
pub(crate) fn ask(addr: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(addr).unwrap();
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
pub(crate) struct Client {
    socket: UdpSocket,
    user: String,
    nonce: String,
    realm: String,
    pool: Pool,
    transactions: u8,
    /// The address that it was lent.
    relayed: Option<SocketAddr>,
}

/// The code of a refusal.
pub(crate) type Answered = Result<(), u16>;

impl Client {
    pub(crate) fn new(relay: SocketAddr) -> Self {
        Self::of(relay, USER.to_owned())
    }

    pub(crate) fn named(relay: SocketAddr, name: &str) -> Self {
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
            relayed: None,
        }
    }

    pub(crate) fn relayed(&self) -> SocketAddr {
        self.relayed.unwrap()
    }

    /// Binds its only channel.
    pub(crate) fn bind(&mut self, peer: SocketAddr) -> Answered {
        let attributes = [
            Attribute::ChannelNumber(CHANNEL.number()),
            Attribute::XorPeerAddress(peer),
        ];

        self.ask(Method::ChannelBind, &attributes)
    }

    /// Sends to the channel's peer.
    pub(crate) fn say(&self, payload: &[u8]) {
        let header = channel::header(CHANNEL, payload.len()).unwrap();
        self.socket.send(&[&header, payload].concat()).unwrap();
    }

    /// What came from the channel's peer.
    pub(crate) fn hear(&self) -> Vec<u8> {
        let mut datagram = [0; 1_500];
        let len = self.socket.recv(&mut datagram).unwrap();
        let (number, payload) = channel::decode(&datagram[..len]).unwrap();
        assert_eq!(number, CHANNEL);

        payload.to_vec()
    }

    pub(crate) fn allocate(&mut self) -> Answered {
        let transport = [Attribute::RequestedTransport(TRANSPORT_UDP)];
        assert_eq!(self.ask(Method::Allocate, &transport), Err(401));

        self.ask(Method::Allocate, &transport)
    }

    pub(crate) fn refresh(&mut self, seconds: u64) -> Answered {
        let lifetime = Attribute::Lifetime(Duration::from_secs(seconds));

        self.ask(Method::Refresh, &[lifetime])
    }

    pub(crate) fn permit(&mut self, peer: &str) -> Answered {
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
        self.relayed = answer.relayed_addresses().next().or(self.relayed);

        match answer.error_code() {
            Some(code) => Err(code),
            None => Ok(()),
        }
    }
}
