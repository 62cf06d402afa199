//! Traffic of the tests' own: streams, a sparse flow, floods. All of it ends when it is dropped.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use connlib_os::clock::Clock;
use connlib_os::namespace::{Namespace, run_in};
use connlib_os::udp::{Outgoing, Payload, Udp, UdpConfig, UdpSocket as TrainSocket};
use connlib_wire::ecn::Ecn;
use connlib_wire::train::Route;

/// Nothing here waits longer for the other end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How much a stream reads and writes at once.
const PIECE: usize = 256 * 1024;

/// Between two looks at whether it is over.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Threads that go on until this is dropped.
struct Threads {
    is_over: Arc<AtomicBool>,
    handles: Vec<JoinHandle<()>>,
}

impl Threads {
    fn new() -> Self {
        Self {
            is_over: Arc::default(),
            handles: Vec::new(),
        }
    }

    fn spawn(&mut self, run: impl FnOnce(&AtomicBool) + Send + 'static) {
        let is_over = Arc::clone(&self.is_over);
        self.handles.push(thread::spawn(move || run(&is_over)));
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for handle in self.handles.drain(..) {
            // A thread that has panicked has said why, and a test that panics already must not do so again.
            let _ = handle.join();
        }
    }
}

/// TCP streams from one place to another, as fast as they go.
pub(crate) struct Streams {
    _threads: Threads,
    ends: Vec<TcpStream>,
    received: Arc<AtomicU64>,
}

impl Streams {
    /// Connects `count` streams from `near` to `address` in `far`, which sends.
    pub(crate) fn download(
        near: &Namespace,
        far: &Namespace,
        address: SocketAddr,
        count: usize,
    ) -> Self {
        Self::start(near, far, address, count, |near, far| (far, near))
    }

    /// Connects `count` streams from `near`, which sends, to `address` in `far`.
    pub(crate) fn upload(
        near: &Namespace,
        far: &Namespace,
        address: SocketAddr,
        count: usize,
    ) -> Self {
        Self::start(near, far, address, count, |near, far| (near, far))
    }

    fn start(
        near: &Namespace,
        far: &Namespace,
        address: SocketAddr,
        count: usize,
        sender_and_receiver: impl Fn(TcpStream, TcpStream) -> (TcpStream, TcpStream),
    ) -> Self {
        let listener = run_in(far, || TcpListener::bind(address)).unwrap().unwrap();
        let received = Arc::new(AtomicU64::new(0));
        let mut threads = Threads::new();
        let mut ends = Vec::new();
        for _ in 0..count {
            let connected = run_in(near, || TcpStream::connect_timeout(&address, PATIENCE));
            let (sender, receiver) =
                sender_and_receiver(connected.unwrap().unwrap(), listener.accept().unwrap().0);
            ends.extend([&sender, &receiver].map(|end| end.try_clone().unwrap()));
            threads.spawn(move |is_over| send(sender, is_over));
            let received = Arc::clone(&received);
            threads.spawn(move |is_over| receive(receiver, &received, is_over));
        }

        Self {
            _threads: threads,
            ends,
            received,
        }
    }

    /// What has arrived so far, in bytes.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// What arrives within `span`, in bytes per second.
    pub(crate) fn rate(&self, span: Duration) -> f64 {
        let clock = Clock::new();
        let (before, began_at) = (self.received(), clock.now());
        rest(span);

        (self.received() - before) as f64 / (clock.now() - began_at).as_secs_f64()
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        // Whoever reads or writes now is woken by that; it fails where the other end was faster.
        for end in &self.ends {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

fn send(mut stream: TcpStream, is_over: &AtomicBool) {
    let piece = vec![0x5a; PIECE];
    while !is_over.load(Ordering::Relaxed) && stream.write_all(&piece).is_ok() {}
}

fn receive(mut stream: TcpStream, received: &AtomicU64, is_over: &AtomicBool) {
    let mut piece = vec![0; PIECE];
    while !is_over.load(Ordering::Relaxed) {
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return,
            Ok(len) => received.fetch_add(len as u64, Ordering::Relaxed),
        };
    }
}

/// A place that sends UDP packets back to whoever sent them.
pub(crate) struct Echo {
    _threads: Threads,
}

impl Echo {
    pub(crate) fn start(namespace: &Namespace, address: SocketAddr) -> Self {
        let socket = run_in(namespace, || UdpSocket::bind(address))
            .unwrap()
            .unwrap();
        socket.set_read_timeout(Some(LOOK_EVERY)).unwrap();
        let mut threads = Threads::new();
        threads.spawn(move |is_over| {
            let mut packet = [0; 2_048];
            while !is_over.load(Ordering::Relaxed) {
                // Nothing has come, or the sender can't be reached: neither is an end.
                if let Ok((len, sender)) = socket.recv_from(&mut packet) {
                    let _ = socket.send_to(&packet[..len], sender);
                }
            }
        });

        Self { _threads: threads }
    }
}

/// What a sparse flow has seen.
#[derive(Debug)]
pub(crate) struct RoundTrips {
    /// When each packet was sent.
    pub(crate) sent_at: Vec<Instant>,
    /// Of those that came back, the shortest first.
    pub(crate) times: Vec<Duration>,
}

impl RoundTrips {
    /// What `percent` of them took no longer than.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.times.len() * percent).div_ceil(100).saturating_sub(1);

        self.times[rank]
    }

    pub(crate) fn lost(&self) -> usize {
        self.sent_at.len() - self.times.len()
    }
}

/// Between two packets of a sparse flow.
pub(crate) const SPARSE_INTERVAL: Duration = Duration::from_millis(20);

/// So many lengths its packets have by turns, by which they can be told from their neighbours when they are sealed.
pub(crate) const SPARSE_LENS: usize = 8;

/// The payload of a sparse flow's packet.
pub(crate) fn sparse_len(number: usize) -> usize {
    64 + 16 * (number % SPARSE_LENS)
}

/// Sends a packet each 20 ms to an [`Echo`], `count` in all, and times what comes back.
pub(crate) fn sparse_flow(namespace: &Namespace, echo: SocketAddr, count: usize) -> RoundTrips {
    const LATE: Duration = Duration::from_secs(1);

    let clock = Clock::new();
    let socket = connected_udp(namespace, echo);
    let mut sent_at = Vec::new();
    let mut waiting: Vec<Option<Instant>> = Vec::new();
    let mut times = Vec::new();
    let mut collect = |waiting: &mut [Option<Instant>], until: Instant| {
        let mut packet = [0; 256];
        loop {
            let left = until.saturating_duration_since(clock.now());
            if left.is_zero() || waiting.iter().all(Option::is_none) && left > SPARSE_INTERVAL {
                return;
            }
            socket.set_read_timeout(Some(left)).unwrap();
            if socket.recv(&mut packet).is_err() {
                continue;
            }
            let number = u32::from_be_bytes(*packet.first_chunk().unwrap()) as usize;
            if let Some(sent_at) = waiting[number].take() {
                times.push(clock.now() - sent_at);
            }
        }
    };

    let began_at = clock.now();
    for number in 0..count {
        let mut packet = vec![0; sparse_len(number)];
        packet[..4].copy_from_slice(&(number as u32).to_be_bytes());
        let now = clock.now();
        sent_at.push(now);
        waiting.push(Some(now));
        // What can't be sent now is lost.
        let _ = socket.send(&packet);
        collect(
            &mut waiting,
            began_at + SPARSE_INTERVAL * (number as u32 + 1),
        );
    }
    collect(&mut waiting, clock.now() + LATE);
    times.sort_unstable();

    RoundTrips { sent_at, times }
}

/// A UDP socket in `namespace` that sends to `address`.
pub(crate) fn connected_udp(namespace: &Namespace, address: SocketAddr) -> UdpSocket {
    let open = || {
        let socket = UdpSocket::bind((unspecified(address), 0))?;
        socket.connect(address)?;
        Ok::<_, std::io::Error>(socket)
    };

    run_in(namespace, open).unwrap().unwrap()
}

/// Datagrams of one size that are sent at once.
#[derive(Clone, Debug)]
pub(crate) struct Train {
    /// The size of each but the last, which may be shorter.
    pub(crate) size: usize,
    pub(crate) bytes: Vec<u8>,
}

/// How fast a flood goes, in bytes of payload per second.
#[derive(Clone, Debug)]
pub(crate) struct Pace(Arc<AtomicU64>);

impl Pace {
    pub(crate) fn of(rate: f64) -> Self {
        let pace = Self(Arc::default());
        pace.set(rate);

        pace
    }

    /// Changes it for whoever has it.
    pub(crate) fn set(&self, rate: f64) {
        self.0.store(rate.to_bits(), Ordering::Relaxed);
    }

    fn rate(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// Trains of datagrams, round and round.
pub(crate) struct Flood {
    _threads: Threads,
    sent: Arc<AtomicU64>,
}

impl Flood {
    /// Sends from a port of its own in `namespace` to `address`.
    pub(crate) fn start(
        namespace: &Namespace,
        address: SocketAddr,
        trains: Vec<Train>,
        pace: Pace,
    ) -> Self {
        let config = UdpConfig::new(SocketAddr::new(unspecified(address), 0));
        let socket = run_in(namespace, || TrainSocket::bind(&config))
            .unwrap()
            .unwrap();
        let sent = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&sent);
        let mut threads = Threads::new();
        threads.spawn(move |is_over| flood(socket, address, &trains, &pace, &count, is_over));

        Self {
            _threads: threads,
            sent,
        }
    }

    /// How many datagrams have left so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

fn flood(
    mut socket: TrainSocket,
    dst: SocketAddr,
    trains: &[Train],
    pace: &Pace,
    count: &AtomicU64,
    is_over: &AtomicBool,
) {
    const FULL: Duration = Duration::from_micros(200);
    const AHEAD: Duration = Duration::from_millis(1);
    const BEHIND: Duration = Duration::from_millis(20);

    let clock = Clock::new();
    let mut due_at = clock.now();
    for train in trains.iter().cycle() {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let mut outgoing = Outgoing {
            route: Route {
                src: None,
                dst,
                ecn: Ecn::NotEct,
            },
            segment_size: train.size,
            payload: Payload::Contiguous(&train.bytes),
            first: 0,
        };
        while outgoing.left() > 0 && !is_over.load(Ordering::Relaxed) {
            match socket.send(&[outgoing]) {
                Ok(taken) => {
                    outgoing.first += taken;
                    count.fetch_add(taken as u64, Ordering::Relaxed);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => rest(FULL),
                // The rest of a train may be refused, too; the next one may not be.
                Err(_) => break,
            }
        }
        due_at += Duration::from_secs_f64(train.bytes.len() as f64 / pace.rate());
        // What it can't do in time it doesn't do later.
        due_at = due_at.max(clock.now() - BEHIND);
        while due_at > clock.now() + AHEAD && !is_over.load(Ordering::Relaxed) {
            rest(AHEAD);
        }
    }
}

fn unspecified(of: SocketAddr) -> IpAddr {
    match of {
        SocketAddr::V4(_) => IpAddr::from([0; 4]),
        SocketAddr::V6(_) => IpAddr::from([0_u16; 8]),
    }
}

/// Bytes that look random, and are the same each time (SplitMix64).
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);

        z ^ (z >> 31)
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let bytes = std::iter::repeat_with(|| self.next().to_le_bytes()).flatten();

        bytes.take(len).collect()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "time that passes is what is waited for"
)]
pub(crate) fn rest(span: Duration) {
    thread::sleep(span);
}
