//! A sparse flow: few small packets, each answered at once, that show how long packets wait under load.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use connlib_os::clock::Clock;
use connlib_os::namespace::{Namespace, run_in};

use super::stats::RoundTrips;
use crate::exit::Failure;
use crate::rig::plan::RESOURCE;

/// Where packets are sent back to whoever sent them; stops when dropped.
#[derive(Debug)]
pub(super) struct Echo {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// 50 packets per second.
const INTERVAL: Duration = Duration::from_millis(20);

/// The payload of a packet; its first bytes are a number.
const PACKET_LEN: usize = 64;

/// How long the last packets may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often the echo looks whether it is over.
const LOOK_EVERY: Duration = Duration::from_millis(200);

const ECHO: SocketAddr = SocketAddr::new(IpAddr::V4(RESOURCE), 7);

impl Echo {
    /// Begins to answer at the resource's host, in its namespace.
    ///
    /// # Errors
    ///
    /// Exit 5: the address can't be had, or there are no threads left.
    pub(super) fn start(namespace: &Namespace) -> Result<Self, Failure> {
        let refused = |error: io::Error| Failure::os(format_args!("answer at {ECHO}"), &error);
        let open = || {
            let socket = UdpSocket::bind(ECHO)?;
            socket.set_read_timeout(Some(LOOK_EVERY))?;
            Ok(socket)
        };
        let socket = run_in(namespace, open)?.map_err(refused)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_over);
        let thread = thread::Builder::new()
            .name("echo".into())
            .spawn(move || answer(&socket, &flag))
            .map_err(refused)?;

        Ok(Self {
            is_over,
            thread: Some(thread),
        })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing to tell.
            let _ = thread.join();
        }
    }
}

fn answer(socket: &UdpSocket, is_over: &AtomicBool) {
    let mut packet = [0; 2048];
    while !is_over.load(Ordering::Relaxed) {
        // Nothing has come, or the sender can't be reached: neither is an end.
        let Ok((len, sender)) = socket.recv_from(&mut packet) else {
            continue;
        };
        let _ = socket.send_to(packet.get(..len).unwrap_or_default(), sender);
    }
}

/// Opens the sending end of a flow in `namespace`.
///
/// # Errors
///
/// Exit 5: there is no way to the resource.
pub(super) fn open(namespace: &Namespace) -> Result<UdpSocket, Failure> {
    let open = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(ECHO)?;
        Ok(socket)
    };

    run_in(namespace, open)?
        .map_err(|error: io::Error| Failure::os(format_args!("send to {ECHO}"), &error))
}

/// Sends for so long, and returns what has come back. It blocks.
///
/// # Errors
///
/// Exit 5: the socket failed.
pub(super) fn flow(socket: &UdpSocket, duration: Duration) -> Result<RoundTrips, Failure> {
    exchange(socket, duration).map_err(|error| Failure::os(format_args!("send to {ECHO}"), &error))
}

fn exchange(socket: &UdpSocket, duration: Duration) -> io::Result<RoundTrips> {
    let clock = Clock::new();
    let started_at = clock.now();
    let count = u32::try_from(duration.as_millis() / INTERVAL.as_millis()).unwrap_or(u32::MAX);
    let mut sent_at: Vec<Option<Instant>> = Vec::new();
    let mut millis = Vec::new();

    for number in 0..count.max(1) {
        let mut packet = [0; PACKET_LEN];
        if let Some(place) = packet.first_chunk_mut::<4>() {
            *place = number.to_be_bytes();
        }
        sent_at.push(Some(clock.now()));
        // What can't be sent now is lost.
        let _ = socket.send(&packet);
        collect(
            socket,
            &clock,
            started_at + INTERVAL * (number + 1),
            &mut sent_at,
            &mut millis,
        )?;
    }
    let end_at = clock.now() + PATIENCE;
    while sent_at.iter().any(Option::is_some) && clock.now() < end_at {
        let soon = clock.now() + INTERVAL;
        collect(socket, &clock, soon, &mut sent_at, &mut millis)?;
    }

    Ok(RoundTrips {
        sent: sent_at.len(),
        millis,
    })
}

/// Takes in what comes until `end_at`.
fn collect(
    socket: &UdpSocket,
    clock: &Clock,
    end_at: Instant,
    sent_at: &mut [Option<Instant>],
    millis: &mut Vec<f64>,
) -> io::Result<()> {
    let mut packet = [0; 2048];
    loop {
        let left = end_at.saturating_duration_since(clock.now());
        if left.is_zero() {
            return Ok(());
        }
        socket.set_read_timeout(Some(left))?;
        let Ok(len) = socket.recv(&mut packet) else {
            // In time, or refused; the loop ends by the clock.
            continue;
        };
        let came_at = clock.now();
        let number = packet.get(..len).and_then(<[u8]>::first_chunk::<4>);
        let Some(number) =
            number.and_then(|bytes| usize::try_from(u32::from_be_bytes(*bytes)).ok())
        else {
            continue;
        };
        // A second copy of an answer is none.
        if let Some(sent_at) = sent_at.get_mut(number).and_then(Option::take) {
            millis.push((came_at - sent_at).as_secs_f64() * 1e3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_is_timed_and_what_does_not_is_lost() {
        let far = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let near = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        near.connect(far.local_addr().unwrap()).unwrap();
        let answering = thread::spawn(move || {
            let mut packet = [0; 2048];
            for number in 0..5 {
                let (len, sender) = far.recv_from(&mut packet).unwrap();
                if number != 2 {
                    far.send_to(&packet[..len], sender).unwrap();
                    far.send_to(&packet[..len], sender).unwrap();
                }
            }
        });

        let trips = exchange(&near, INTERVAL * 5).unwrap();
        answering.join().unwrap();
        assert_eq!((trips.sent, trips.millis.len()), (5, 4));
    }
}
