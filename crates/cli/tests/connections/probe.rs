//! A packet every few milliseconds, and what comes back: what a change costs.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use connlib_os::clock::Clock;
use connlib_os::namespace::{Namespace, run_in};

use crate::network::RESOURCE;

/// Between two packets.
const EVERY: Duration = Duration::from_millis(5);

/// Where the echo is.
pub(crate) const PORT: u16 = 7;

/// What comes back of each packet, on a host behind a gateway, until it is dropped.
pub(crate) struct Echo {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    pub(crate) fn start(resource: &Namespace) -> Self {
        let socket = run_in(resource, || UdpSocket::bind((IpAddr::from([0; 4]), PORT)));
        let socket = socket.unwrap().unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let mut packet = [0; 64];
            while !told.load(Ordering::Relaxed) {
                if let Ok((len, from)) = socket.recv_from(&mut packet) {
                    // It may be that the way back is gone just now.
                    let _ = socket.send_to(&packet[..len], from);
                }
            }
        });

        Self {
            is_over,
            thread: Some(thread),
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sends packets and takes note of what comes back.
pub(crate) struct Probe {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Trace>,
}

/// What a probe has seen.
#[derive(Debug)]
pub(crate) struct Trace {
    sent: usize,
    /// When each echo came, in order.
    echoes: Vec<Instant>,
    /// When the last packet was sent.
    sent_at: Instant,
}

impl Probe {
    pub(crate) fn start(client: &Namespace) -> Self {
        let socket = socket(client);
        socket
            .set_read_timeout(Some(Duration::from_millis(1)))
            .unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || run(&socket, &told));

        Self { is_over, thread }
    }

    /// Ends it, and waits for what is still on its way.
    pub(crate) fn stop(self) -> Trace {
        self.is_over.store(true, Ordering::Relaxed);

        self.thread.join().unwrap()
    }
}

impl Trace {
    pub(crate) fn lost(&self) -> usize {
        self.sent - self.echoes.len()
    }

    /// The longest time in which nothing came back, also at the end.
    pub(crate) fn gap(&self) -> Duration {
        let between = self.echoes.windows(2).map(|pair| pair[1] - pair[0]);
        let last = self.echoes.last().expect("nothing came back");
        let at_the_end = self.sent_at.saturating_duration_since(*last);

        between.chain([at_the_end]).max().unwrap()
    }
}

fn run(socket: &UdpSocket, is_over: &AtomicBool) -> Trace {
    const LAST_WAIT: Duration = Duration::from_millis(500);

    let clock = Clock::new();
    let mut trace = Trace {
        sent: 0,
        echoes: Vec::new(),
        sent_at: clock.now(),
    };
    let mut send_at = clock.now();
    let mut end_at = None;
    let mut packet = [0; 64];
    loop {
        let now = clock.now();
        if end_at.is_none() && is_over.load(Ordering::Relaxed) {
            end_at = Some(now + LAST_WAIT);
        }
        if end_at.is_some_and(|end_at| end_at <= now || trace.lost() == 0) {
            return trace;
        }
        if end_at.is_none() && send_at <= now {
            send_at = (send_at + EVERY).max(now);
            trace.sent += 1;
            trace.sent_at = now;
            // What can't be sent is lost.
            let _ = socket.send(b"knock");
        }
        // An error is that nothing came in time, or what others say about packets that were lost.
        if socket.recv(&mut packet).is_ok() {
            trace.echoes.push(clock.now());
        }
    }
}

/// How long it takes until the first of several packets comes back, one of which is sent each second.
pub(crate) fn first_reply(client: &Namespace, patience: Duration) -> Option<Duration> {
    let socket = socket(client);
    let clock = Clock::new();
    let began_at = clock.now();
    let mut packet = [0; 64];
    while clock.now() - began_at < patience {
        let _ = socket.send(b"knock");
        socket
            .set_read_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        if socket.recv(&mut packet).is_ok() {
            return Some(clock.now() - began_at);
        }
    }

    None
}

fn socket(client: &Namespace) -> UdpSocket {
    let connect = || {
        let socket = UdpSocket::bind((IpAddr::from([0; 4]), 0))?;
        socket.connect(SocketAddr::new(RESOURCE.into(), PORT))?;
        Ok::<_, std::io::Error>(socket)
    };

    run_in(client, connect).unwrap().unwrap()
}
