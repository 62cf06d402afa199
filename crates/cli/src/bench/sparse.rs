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

/// What each packet asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Question {
    /// To be sent back by the server.
    Echo,
    /// What address it comes from, by STUN (RFC 8489): whoever asks needs no account.
    Binding(SocketAddr),
}

/// A STUN header: type, length, magic cookie, and a transaction id whose first bytes are a number.
const STUN_HEADER_LEN: usize = 20;
const BINDING_REQUEST: [u8; 8] = [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
const BINDING_SUCCESS: [u8; 2] = [1, 1];

impl Question {
    fn whom(self) -> SocketAddr {
        match self {
            Self::Echo => ECHO,
            Self::Binding(server) => server,
        }
    }

    fn packet(self, number: u32) -> Vec<u8> {
        let (head, len): (&[u8], _) = match self {
            Self::Echo => (&[], PACKET_LEN),
            Self::Binding(_) => (&BINDING_REQUEST, STUN_HEADER_LEN),
        };
        let mut packet = [head, &number.to_be_bytes()].concat();
        packet.resize(len, 0);

        packet
    }

    /// The number of the packet that this is the answer to.
    fn number_in(self, answer: &[u8]) -> Option<usize> {
        let rest = match self {
            Self::Echo => answer,
            Self::Binding(_) => {
                let (head, rest) = answer.split_at_checked(BINDING_REQUEST.len())?;
                head.starts_with(&BINDING_SUCCESS).then_some(rest)?
            }
        };

        usize::try_from(u32::from_be_bytes(*rest.first_chunk()?)).ok()
    }
}

/// Opens the sending end of a flow in `namespace`.
///
/// # Errors
///
/// Exit 5: there is no way to whom it asks.
pub(super) fn open(namespace: &Namespace, question: Question) -> Result<UdpSocket, Failure> {
    let whom = question.whom();
    let open = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(whom)?;
        Ok(socket)
    };

    run_in(namespace, open)?
        .map_err(|error: io::Error| Failure::os(format_args!("send to {whom}"), &error))
}

/// A way on which numbered questions go, and their answers come back.
pub(super) trait Way {
    /// Asks. What gets lost is no error.
    fn ask(&mut self, number: u32) -> io::Result<()>;

    /// The number of a question whose answer comes within so long, which is never zero. `None` may come earlier.
    fn next_answer(&mut self, within: Duration) -> io::Result<Option<usize>>;
}

/// UDP.
struct Datagrams<'a> {
    socket: &'a UdpSocket,
    question: Question,
}

impl Way for Datagrams<'_> {
    fn ask(&mut self, number: u32) -> io::Result<()> {
        // What can't be sent now is lost.
        let _ = self.socket.send(&self.question.packet(number));

        Ok(())
    }

    fn next_answer(&mut self, within: Duration) -> io::Result<Option<usize>> {
        let mut packet = [0; 2048];
        self.socket.set_read_timeout(Some(within))?;
        let Ok(len) = self.socket.recv(&mut packet) else {
            // In time, or refused; whoever asks looks at the clock.
            return Ok(None);
        };
        let answer = packet.get(..len).unwrap_or_default();

        Ok(self.question.number_in(answer))
    }
}

/// Sends for so long, and returns what has come back. It blocks.
///
/// # Errors
///
/// Exit 5: the socket failed.
pub(super) fn flow(
    socket: &UdpSocket,
    question: Question,
    duration: Duration,
) -> Result<RoundTrips, Failure> {
    exchange(&mut Datagrams { socket, question }, duration)
        .map_err(|error| Failure::os(format_args!("send to {}", question.whom()), &error))
}

/// Asks 50 times per second for so long, whether answers come or not. It blocks, for a second more if answers are missing.
///
/// # Errors
///
/// The way is at its end.
pub(super) fn exchange(way: &mut impl Way, duration: Duration) -> io::Result<RoundTrips> {
    let clock = Clock::new();
    let started_at = clock.now();
    let count = u32::try_from(duration.as_millis() / INTERVAL.as_millis()).unwrap_or(u32::MAX);
    let mut asked = Asked {
        way,
        clock,
        sent_at: Vec::new(),
        millis: Vec::new(),
    };

    for number in 0..count.max(1) {
        asked.sent_at.push(Some(clock.now()));
        asked.way.ask(number)?;
        asked.collect(started_at + INTERVAL * (number + 1))?;
    }
    let end_at = clock.now() + PATIENCE;
    while asked.sent_at.iter().any(Option::is_some) && clock.now() < end_at {
        asked.collect(clock.now() + INTERVAL)?;
    }

    Ok(RoundTrips {
        sent: asked.sent_at.len(),
        millis: asked.millis,
    })
}

/// Questions that are on their way, and how long others have taken.
struct Asked<'a, W> {
    way: &'a mut W,
    clock: Clock,
    sent_at: Vec<Option<Instant>>,
    millis: Vec<f64>,
}

impl<W: Way> Asked<'_, W> {
    /// Takes in what comes until `end_at`.
    fn collect(&mut self, end_at: Instant) -> io::Result<()> {
        loop {
            let left = end_at.saturating_duration_since(self.clock.now());
            if left.is_zero() {
                return Ok(());
            }
            let Some(number) = self.way.next_answer(left)? else {
                continue;
            };
            let came_at = self.clock.now();
            // A second copy of an answer is none.
            if let Some(sent_at) = self.sent_at.get_mut(number).and_then(Option::take) {
                self.millis.push((came_at - sent_at).as_secs_f64() * 1e3);
            }
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

        let trips = flow(&near, Question::Echo, INTERVAL * 5).unwrap();
        answering.join().unwrap();
        assert_eq!((trips.sent, trips.millis.len()), (5, 4));
    }
    #[test]
    fn an_answer_names_its_question() {
        let stun = Question::Binding(ECHO);
        let mut answer = stun.packet(7);
        assert_eq!(answer.len(), STUN_HEADER_LEN);
        assert_eq!(stun.number_in(&answer), None, "it is a question itself");
        answer[..2].copy_from_slice(&BINDING_SUCCESS);
        assert_eq!(stun.number_in(&answer), Some(7));
        for len in 0..12 {
            assert_eq!(stun.number_in(&answer[..len]), None);
        }

        let echo = Question::Echo.packet(9);
        assert_eq!(Question::Echo.number_in(&echo), Some(9));
        assert_eq!(echo.len(), PACKET_LEN);
    }
}
