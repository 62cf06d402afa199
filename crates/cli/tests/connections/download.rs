//! A TCP download at a moderate pace, and the longest time it stood still.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use connlib_os::clock::Clock;
use connlib_os::namespace::{Namespace, run_in};

use crate::network::RESOURCE;
use crate::world::pause;

const PORT: u16 = 80;

/// So much leaves every two milliseconds: 32 Mbit/s.
const PIECE: usize = 8 * 1024;
const EVERY: Duration = Duration::from_millis(2);

/// A stream that comes from the resource until it is stopped.
pub(crate) struct Download {
    is_over: Arc<AtomicBool>,
    sender: JoinHandle<()>,
    receiver: JoinHandle<Vec<Instant>>,
}

impl Download {
    pub(crate) fn start(client: &Namespace, resource: &Namespace) -> Self {
        let listen = || TcpListener::bind((IpAddr::from([0; 4]), PORT));
        let listener = run_in(resource, listen).unwrap().unwrap();
        let address = SocketAddr::new(RESOURCE.into(), PORT);
        let patience = Duration::from_secs(10);
        let connect = || TcpStream::connect_timeout(&address, patience);
        let mut near = run_in(client, connect).unwrap().unwrap();
        let (mut far, _) = listener.accept().unwrap();
        far.set_write_timeout(Some(patience)).unwrap();
        near.set_read_timeout(Some(patience)).unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&is_over);
        let sender = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) && far.write_all(&[7; PIECE]).is_ok() {
                pause(EVERY);
            }
        });
        let receiver = std::thread::spawn(move || {
            let clock = Clock::new();
            let mut arrivals = Vec::new();
            let mut piece = [0; 64 * 1024];
            while near.read(&mut piece).is_ok_and(|len| len > 0) {
                arrivals.push(clock.now());
            }
            arrivals
        });

        Self {
            is_over,
            sender,
            receiver,
        }
    }

    /// Ends it, and returns when something arrived.
    pub(crate) fn stop(self) -> Arrivals {
        self.is_over.store(true, Ordering::Relaxed);
        self.sender.join().unwrap();

        Arrivals(self.receiver.join().unwrap())
    }
}

/// When something arrived.
pub(crate) struct Arrivals(Vec<Instant>);

impl Arrivals {
    /// The longest time without anything that began between the two moments, or was under way at the first one; `None` if
    /// nothing came any more after that.
    pub(crate) fn gap(&self, from: Instant, until: Instant) -> Option<Duration> {
        let pairs = self.0.windows(2).map(|pair| (pair[0], pair[1]));
        let touched = pairs.filter(|(began_at, ended_at)| *ended_at > from && *began_at < until);

        touched
            .map(|(began_at, ended_at)| ended_at - began_at)
            .max()
    }
}
