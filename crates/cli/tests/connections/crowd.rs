//! A thousand clients in one process: the library's state machines, each with a socket and a connection to the portal of
//! its own. They have no TUN device; each sends one packet, and then is as quiet as its state machine lets it be.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use connlib_os::clock::Clock;
use connlib_os::namespace::{Namespace, run_in};
use connlib_os::random;
use connlib_tunnel::client::{Client, Event};
use connlib_tunnel::{Packets, PortalState, Settings};
use connlib_wire::buffer::Pool;
use connlib_wire::ecn::Ecn;
use connlib_wire::ip;
use connlib_wire::portal::client::{FromPortal, TOPIC, ToPortal};
use connlib_wire::portal::phoenix::{self, Control, Envelope};
use connlib_wire::portal::{Capabilities, Empty};
use connlib_wire::train::{Arrival, Transmit};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{interval, sleep};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::network::{Net, RESOURCE};
use crate::probe::PORT;
use crate::world::pause;

/// So many open their connection at the same time.
const AT_ONCE: usize = 24;

/// How often a packet is sent until one comes back.
const KNOCK_EVERY: Duration = Duration::from_secs(3);

/// As any client does (portal-protocol.md §3.2).
const HEARTBEAT_EVERY: Duration = Duration::from_secs(10);

const PACKET: usize = 1_280;

/// Clients that are there until this is dropped.
pub(crate) struct Crowd {
    connected: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What all of them know.
struct Shared {
    portal: SocketAddr,
    token: String,
    here: Ipv4Addr,
    clock: Clock,
    opening: Semaphore,
    connected: Arc<AtomicUsize>,
}

struct Member<'a> {
    shared: &'a Shared,
    core: Client,
    socket: UdpSocket,
    portal: WebSocketStream<TcpStream>,
    local: SocketAddr,
    address: Option<Ipv4Addr>,
    /// Held until the connection is open.
    permit: Option<SemaphorePermit<'a>>,
    next_reference: u64,
    packets: Packets,
}

impl Crowd {
    /// Lets `count` clients come, in the namespace of the network `here`.
    pub(crate) fn start(
        namespace: &Namespace,
        here: Net,
        portal: SocketAddr,
        token: String,
        count: usize,
    ) -> Self {
        let connected = Arc::new(AtomicUsize::new(0));
        let is_over = Arc::new(AtomicBool::new(false));
        let shared = Shared {
            portal,
            token,
            here: here.host_v4(),
            clock: Clock::new(),
            opening: Semaphore::new(AT_ONCE),
            connected: Arc::clone(&connected),
        };
        let told = Arc::clone(&is_over);
        // It stays in the namespace that it is begun in.
        let spawn = || std::thread::spawn(move || run(shared, count, &told));
        let thread = run_in(namespace, spawn).unwrap();

        Self {
            connected,
            is_over,
            thread: Some(thread),
        }
    }

    /// How many have got an answer from the resource.
    pub(crate) fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }

    /// Waits until that many have.
    pub(crate) fn wait_connected(&self, count: usize, patience: Duration) -> bool {
        let clock = Clock::new();
        let until = clock.now() + patience;
        while self.connected() < count && clock.now() < until {
            pause(Duration::from_millis(50));
        }

        self.connected() >= count
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(shared: Shared, count: usize, is_over: &AtomicBool) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let shared = Arc::new(shared);
    runtime.block_on(async {
        for number in 0..count {
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                let permit = shared.opening.acquire().await.unwrap();
                let mut member = Member::join(&shared, number, permit).await;
                member.live().await;
            });
        }
        while !is_over.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(50)).await;
        }
    });
    runtime.shutdown_background();
}

impl<'a> Member<'a> {
    async fn join(shared: &'a Shared, number: usize, permit: SemaphorePermit<'a>) -> Self {
        let unix = shared.clock.unix();
        let core = Client::new(
            shared.clock.now(),
            random::seed().unwrap(),
            Settings { unix },
        );
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let key = core.public_key().to_string();
        let key = key
            .replace('+', "%2B")
            .replace('/', "%2F")
            .replace('=', "%3D");
        let portal = shared.portal;
        let url = format!(
            "ws://{portal}/client/v2/websocket?external_id=crowd-{number}&name=crowd&public_key={key}"
        );
        let mut request = url.into_client_request().unwrap();
        let token = HeaderValue::from_str(&format!("Bearer {}", shared.token)).unwrap();
        let headers = request.headers_mut();
        headers.insert("x-authorization", token);
        let agent = HeaderValue::from_static("Linux/6 headless-client/1.5.12");
        headers.insert("user-agent", agent);
        let stream = TcpStream::connect(portal).await.unwrap();
        let (portal, _) = client_async(request, stream).await.unwrap();

        Self {
            shared,
            core,
            socket,
            portal,
            local: SocketAddr::new(shared.here.into(), port),
            address: None,
            permit: Some(permit),
            next_reference: 1,
            packets: Packets::new(),
        }
    }

    async fn live(&mut self) {
        let join = phoenix::push(TOPIC, phoenix::JOIN, &Empty {}, Some(0));
        self.portal.send(Message::text(join)).await.unwrap();
        let mut knock = interval(KNOCK_EVERY);
        let mut heartbeat = interval(HEARTBEAT_EVERY);
        let mut datagram = vec![0; 2_048];
        loop {
            self.flush().await;
            let now = self.shared.clock.now();
            let deadline = self.core.poll_timeout().map(|(at, _)| at);
            let left = deadline.map(|at| at.saturating_duration_since(now));
            tokio::select! {
                () = sleep(left.unwrap_or(HEARTBEAT_EVERY)), if left.is_some() => {
                    self.core.handle_timeout(self.shared.clock.now());
                }
                received = self.socket.recv_from(&mut datagram) => {
                    // An error is about something that was sent before.
                    if let Ok((len, from)) = received {
                        self.handle_datagram(from, &datagram[..len]);
                    }
                }
                message = self.portal.next() => match message {
                    Some(Ok(Message::Text(text))) => self.handle_text(&text).await,
                    Some(Ok(_)) => {}
                    // The world ends.
                    Some(Err(_)) | None => return,
                },
                _ = knock.tick(), if self.permit.is_some() => self.knock(),
                _ = heartbeat.tick() => {
                    let text = phoenix::heartbeat(self.reference());
                    if self.portal.send(Message::text(text)).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn handle_text(&mut self, text: &str) {
        let now = self.shared.clock.now();
        let envelope = Envelope::parse(text).unwrap();
        match Control::parse(&envelope) {
            Some(Control::Ok { reference: 0 }) if envelope.topic == TOPIC => {
                let greeting = ToPortal::SetCapabilities(Capabilities { iceless: false });
                self.say(&greeting).await;
                self.core.handle_portal_state(now, PortalState::Joined);
            }
            Some(_) => {}
            None => {
                let message = FromPortal::parse(&envelope.event, envelope.payload()).unwrap();
                self.core.handle_message(now, message);
            }
        }
    }

    fn handle_datagram(&mut self, from: SocketAddr, bytes: &[u8]) {
        let arrival = Arrival {
            from,
            to: self.local,
            ecn: Ecn::NotEct,
            stride: 0,
            bytes,
        };
        let now = self.shared.clock.now();
        self.core.handle_arrival(now, &arrival, &mut self.packets);
        if self.packets.ranges().next().is_some() && self.permit.take().is_some() {
            self.shared.connected.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn knock(&mut self) {
        let Some(address) = self.address else {
            return;
        };
        let (from, to) = (IpAddr::from(address), IpAddr::from(RESOURCE));
        let pool = Pool::new(PACKET, 1);
        let packet = ip::udp(&pool, (from, 4_000).into(), (to, PORT).into(), b"knock");
        let now = self.shared.clock.now();
        self.core.handle_packet(now, packet.unwrap().bytes());
    }

    async fn flush(&mut self) {
        while let Some(event) = self.core.poll_event() {
            if let Event::InterfaceChanged(interface) = event {
                let is_first = self.address.replace(interface.ipv4).is_none();
                if is_first {
                    self.knock();
                }
            }
        }
        while let Some(message) = self.core.poll_message() {
            self.say(&message).await;
        }
        while self.core.poll_packet().is_some() {}
        while let Some(train) = self.next_train() {
            for datagram in train.datagrams() {
                // There is no IPv6 socket.
                let _ = self.socket.send_to(datagram, train.route.dst).await;
            }
        }
    }

    fn next_train(&mut self) -> Option<Transmit> {
        self.core
            .poll_control()
            .or_else(|| self.core.poll_transmit())
    }

    async fn say(&mut self, message: &ToPortal) {
        let reference = self.reference();
        let text = phoenix::push(TOPIC, message.event(), message, Some(reference));
        // Whoever doesn't hear it has ended.
        let _ = self.portal.send(Message::text(text)).await;
    }

    fn reference(&mut self) -> u64 {
        self.next_reference += 1;

        self.next_reference
    }
}

/// How long something took on a processor, as a share of one.
pub(crate) fn share(busy: Duration, began_at: Instant, ended_at: Instant) -> f64 {
    busy.as_secs_f64() / (ended_at - began_at).as_secs_f64()
}
