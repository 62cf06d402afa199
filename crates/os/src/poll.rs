//! Waiting for many descriptors, a deadline and other threads at once.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::sys;
use crate::sys::epoll::Timeouts;

/// What a caller calls a registered descriptor.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Token(pub usize);

/// What to wait for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Interest {
    /// There is something to read.
    Read,
    /// There is room to write.
    Write,
    /// Either.
    ReadWrite,
}

/// What a descriptor has become ready for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Readiness {
    /// Which descriptor.
    pub token: Token,
    /// A read would make progress, if only by returning an error.
    pub readable: bool,
    /// A write would make progress, if only by returning an error.
    pub writable: bool,
}

/// Waits for registered descriptors (epoll, edge-triggered).
///
/// A readiness is reported once: after it, read or write until `WouldBlock`, or remember that there is more. A
/// descriptor that is ready when it is registered is reported by the next wait.
pub struct Poller {
    epoll: OwnedFd,
    timeouts: Timeouts,
    ready: Box<[libc::epoll_event]>,
}

impl Poller {
    /// Creates one that waits for nothing yet.
    ///
    /// # Errors
    ///
    /// The process has too many open files.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: sys::epoll::create()?,
            timeouts: Timeouts::Nanoseconds,
            ready: vec![libc::epoll_event { events: 0, u64: 0 }; MAX_READY].into_boxed_slice(),
        })
    }

    /// Begins to wait for `fd`; closing it ends that.
    ///
    /// # Errors
    ///
    /// It is registered already, or of a kind that can't be waited for, such as a regular file.
    pub fn register(&self, fd: &impl AsFd, token: Token, interest: Interest) -> io::Result<()> {
        let events = libc::EPOLLET
            | match interest {
                Interest::Read => libc::EPOLLIN | libc::EPOLLRDHUP,
                Interest::Write => libc::EPOLLOUT,
                Interest::ReadWrite => libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLOUT,
            };

        sys::epoll::add(
            self.epoll.as_fd(),
            fd.as_fd(),
            events.cast_unsigned(),
            token.0 as u64,
        )
    }

    /// Ends to wait for `fd`.
    ///
    /// # Errors
    ///
    /// It is not registered.
    pub fn deregister(&self, fd: &impl AsFd) -> io::Result<()> {
        sys::epoll::remove(self.epoll.as_fd(), fd.as_fd())
    }

    /// Waits until something is ready or `timeout` is over, and replaces the contents of `events` by what is ready.
    ///
    /// `None` waits without limit, zero not at all. It may also return early with nothing, because a signal arrived.
    /// The time that the machine is suspended doesn't count.
    ///
    /// # Errors
    ///
    /// None is known.
    pub fn wait(
        &mut self,
        timeout: Option<Duration>,
        events: &mut Vec<Readiness>,
    ) -> io::Result<()> {
        events.clear();
        let count = sys::epoll::wait(
            self.epoll.as_fd(),
            &mut self.ready,
            timeout,
            &mut self.timeouts,
        );
        let count = match count {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };

        events.extend(self.ready.iter().take(count).map(|&event| {
            let happened = |kinds: i32| event.events & kinds.cast_unsigned() != 0;
            let failed = libc::EPOLLERR | libc::EPOLLHUP;

            Readiness {
                token: Token(usize::try_from(event.u64).unwrap_or(usize::MAX)),
                readable: happened(libc::EPOLLIN | libc::EPOLLRDHUP | failed),
                writable: happened(libc::EPOLLOUT | failed),
            }
        }));

        Ok(())
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller")
            .field("epoll", &self.epoll)
            .finish_non_exhaustive()
    }
}

/// Ends another thread's wait. The clones wake the same one.
///
/// A wake that the last clone doesn't outlive may be lost.
#[derive(Clone, Debug)]
pub struct Waker {
    event: Arc<OwnedFd>,
}

impl Waker {
    /// Creates one whose wakes `poller` reports as `token` being readable.
    ///
    /// # Errors
    ///
    /// The process has too many open files.
    pub fn new(poller: &Poller, token: Token) -> io::Result<Self> {
        let event = sys::epoll::event()?;
        poller.register(&event, token, Interest::Read)?;

        Ok(Self {
            event: Arc::new(event),
        })
    }

    /// Ends the current wait of the poller, or else its next one. Nothing has to be read for it.
    ///
    /// # Errors
    ///
    /// None is known.
    pub fn wake(&self) -> io::Result<()> {
        sys::epoll::signal(self.event.as_fd())
    }
}

/// The most descriptors one wait reports; the others come with the next.
const MAX_READY: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::thread;

    const SOCKET: Token = Token(3);
    const WAKE: Token = Token(usize::MAX);

    #[test]
    fn readiness_is_reported_once_per_edge() {
        let mut poller = Poller::new().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        poller.register(&socket, SOCKET, Interest::Read).unwrap();
        assert!(wait(&mut poller).is_empty());

        for _ in 0..2 {
            socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
            let expected = Readiness {
                token: SOCKET,
                readable: true,
                writable: false,
            };
            assert_eq!(wait(&mut poller), [expected]);
            assert!(wait(&mut poller).is_empty(), "it was reported already");
        }
    }

    #[test]
    fn what_is_ready_at_registration_is_reported() {
        let mut poller = Poller::new().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();

        poller
            .register(&socket, SOCKET, Interest::ReadWrite)
            .unwrap();

        let events = wait(&mut poller);
        assert!(events[0].readable && events[0].writable);
    }

    #[test]
    fn a_deregistered_or_closed_descriptor_is_silent() {
        let mut poller = Poller::new().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let closed = UdpSocket::bind("127.0.0.1:0").unwrap();
        poller.register(&socket, SOCKET, Interest::Write).unwrap();
        poller.register(&closed, SOCKET, Interest::Write).unwrap();

        poller.deregister(&socket).unwrap();
        drop(closed);

        assert!(wait(&mut poller).is_empty());
        assert!(poller.deregister(&socket).is_err());
    }

    #[test]
    fn a_wake_before_the_wait_ends_it_and_any_number_counts_once() {
        let mut poller = Poller::new().unwrap();
        let waker = Waker::new(&poller, WAKE).unwrap();

        for _ in 0..3 {
            waker.wake().unwrap();
            waker.wake().unwrap();
            let events = wait_forever(&mut poller);
            assert_eq!(events.len(), 1);
            assert_eq!(events[0].token, WAKE);
        }
        assert!(wait(&mut poller).is_empty());
    }

    #[test]
    fn a_wake_from_another_thread_ends_the_wait() {
        let mut poller = Poller::new().unwrap();
        let waker = Waker::new(&poller, WAKE).unwrap();

        let thread = thread::spawn(move || waker.wake().map(|()| waker));

        assert_eq!(wait_forever(&mut poller)[0].token, WAKE);
        thread.join().unwrap().unwrap();
    }

    #[test]
    fn a_full_event_counter_still_wakes() {
        let mut poller = Poller::new().unwrap();
        let waker = Waker::new(&poller, WAKE).unwrap();
        sys::epoll::fill(waker.event.as_fd()).unwrap();
        wait(&mut poller);

        waker.wake().unwrap();

        assert_eq!(wait_forever(&mut poller)[0].token, WAKE);
    }

    #[test]
    fn a_timeout_is_waited_out_with_either_system_call() {
        let clock = crate::clock::Clock::new();
        let timeout = Duration::from_micros(1_300);
        let mut poller = Poller::new().unwrap();

        for timeouts in [Timeouts::Nanoseconds, Timeouts::Milliseconds] {
            poller.timeouts = timeouts;
            let started_at = clock.now();
            poller.wait(Some(timeout), &mut Vec::new()).unwrap();
            assert!(clock.now() - started_at >= timeout);
        }
    }

    fn wait(poller: &mut Poller) -> Vec<Readiness> {
        let mut events = Vec::new();
        poller.wait(Some(Duration::ZERO), &mut events).unwrap();

        events
    }

    fn wait_forever(poller: &mut Poller) -> Vec<Readiness> {
        let mut events = Vec::new();
        poller.wait(None, &mut events).unwrap();

        events
    }
}
