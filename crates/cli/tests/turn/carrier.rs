//! aioice as a process that carries the datagrams of a WireGuard node.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use connlib_link::{Links, NotSent, Packets, PeerId, PrivateKey, Role, Settings};
use connlib_os::clock::Clock;
use connlib_os::namespace::command_in;
use connlib_wire::buffer::Pool;
use connlib_wire::ecn::Ecn;
use connlib_wire::ip;
use connlib_wire::portal::IceCredentials;
use connlib_wire::secret::Secret;
use connlib_wire::train::Arrival;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::aioice::PYTHON;
use crate::scene::Scene;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/turn/aioice_peer.py");

/// What the node calls the other end.
pub(crate) const US: PeerId = PeerId(Uuid::from_u128(2));

/// Where the node believes to be talking to: aioice knows better.
pub(crate) const SOMEWHERE: &str = "192.0.2.1:51820";

/// Nothing that is waited for takes so long.
const PATIENCE: Duration = Duration::from_secs(40);

/// aioice, and the WireGuard node whose datagrams it carries.
pub(crate) struct Stranger {
    pub(crate) links: Links,
    process: Child,
    orders: ChildStdin,
    lines: Receiver<Value>,
    pub(crate) version: String,
    pub(crate) credentials: IceCredentials,
    pub(crate) candidates: Vec<String>,
    /// The pair it uses: its own address and the other end's.
    pub(crate) pair: Option<[String; 2]>,
    /// All pairs that were nominated.
    pub(crate) nominated: Vec<[String; 2]>,
    received: Vec<Vec<u8>>,
    /// Kind and length of the first datagram that aioice gave us.
    pub(crate) first: Option<(u8, usize)>,
}

impl Stranger {
    pub(crate) fn start(scene: &Scene, our_role: Role) -> Self {
        let role = match our_role {
            Role::Controlling => "controlled",
            Role::Controlled => "controlling",
        };
        let mut command = Command::new(PYTHON);
        command_in(&mut command, Some(scene.network.namespace("peer"))).unwrap();
        let mut process = command
            .args([SCRIPT, role])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap();
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        let hello = lines.recv_timeout(PATIENCE).unwrap();

        let clock = Clock::new();
        let settings = Settings { unix: clock.unix() };
        let key = PrivateKey::new([9; 32]);
        Self {
            links: Links::with_key(clock.now(), [8; 32], settings, &key),
            orders: process.stdin.take().unwrap(),
            process,
            lines,
            version: hello["version"].as_str().unwrap().to_owned(),
            credentials: IceCredentials {
                username: hello["username"].as_str().unwrap().to_owned(),
                password: Secret::from(hello["password"].as_str().unwrap()),
            },
            candidates: strings(&hello["candidates"]),
            pair: None,
            nominated: Vec::new(),
            received: Vec::new(),
            first: None,
        }
    }

    pub(crate) fn say(&mut self, value: &Value) {
        writeln!(self.orders, "{value}").unwrap();
    }

    /// Carries what there is between the node and aioice.
    pub(crate) fn turn(&mut self, clock: &Clock) {
        while let Ok(said) = self.lines.try_recv() {
            if let Some(pair) = said.get("pair") {
                self.pair = Some(ends(pair));
                let nominated = said["nominated"].as_array().unwrap();
                self.nominated = nominated.iter().map(ends).collect();
            }
            if let Some(bytes) = said["received"].as_str().map(bytes_of) {
                self.first.get_or_insert((bytes[0], bytes.len()));
                let end = SOMEWHERE.parse().unwrap();
                let mut packets = Packets::new();
                self.links
                    .handle_arrival(clock.now(), &arrival(end, end, &bytes), &mut packets);
                self.received.extend(packets.iter().map(<[u8]>::to_vec));
            }
        }
        self.links.handle_timeout(clock.now());
        while let Some(transmit) = self.links.poll_transmit() {
            for datagram in transmit.datagrams() {
                self.say(&json!({ "send": hex_of(datagram) }));
            }
        }
        while self.links.poll_event().is_some() {}
    }

    pub(crate) fn send(&mut self, clock: &Clock, payload: &[u8]) {
        let sent = self.links.encapsulate(clock.now(), US, &packet(payload));
        assert!(matches!(sent, Ok(()) | Err(NotSent::Waiting)), "{sent:?}");
        self.turn(clock);
    }

    pub(crate) fn has_session(&self, clock: &Clock) -> bool {
        let peer = self.links.peers(clock.now()).next();

        peer.is_some_and(|peer| peer.handshake_age.is_some())
    }

    pub(crate) fn has(&self, payload: &[u8]) -> bool {
        self.received.contains(&packet(payload))
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        // It fails if the process has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn packet(payload: &[u8]) -> Vec<u8> {
    let (source, destination) = ("100.64.0.1:1000", "10.20.0.10:2000");
    let packet = ip::udp(
        &Pool::new(2_048, 1),
        source.parse().unwrap(),
        destination.parse().unwrap(),
        payload,
    );

    packet.unwrap().bytes().to_vec()
}

pub(crate) fn arrival(from: SocketAddr, to: SocketAddr, bytes: &[u8]) -> Arrival<'_> {
    Arrival {
        from,
        to,
        ecn: Ecn::NotEct,
        stride: 0,
        bytes,
    }
}

fn strings(value: &Value) -> Vec<String> {
    let values = value.as_array().unwrap().iter();

    values
        .map(|value| value.as_str().unwrap().to_owned())
        .collect()
}

/// The two ends of a pair.
fn ends(pair: &Value) -> [String; 2] {
    strings(pair).try_into().unwrap()
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);

    digits
        .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
        .collect()
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
