//! A link on which everything takes its time. Not every kernel has netem.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use connlib_os::clock::Clock;
use connlib_os::namespace::{Namespace, run_in};
use connlib_os::poll::{Interest, Poller, Token};
use connlib_os::tun::{Tun as _, TunDevice};

/// Until this is dropped, two interfaces of different namespaces are the ends of one link.
pub(crate) struct Delay {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Delay {
    /// Makes the interface `name` at both ends; each packet takes `delay` from one to the other.
    pub(crate) fn lay(ends: [&Namespace; 2], name: &str, delay: Duration) -> Self {
        let ends = ends.map(|end| run_in(end, || TunDevice::create(name)).unwrap().unwrap());
        let is_over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&is_over);

        Self {
            is_over,
            thread: Some(std::thread::spawn(move || carry(ends, delay, &told))),
        }
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn carry(mut ends: [TunDevice; 2], delay: Duration, is_over: &AtomicBool) {
    /// How soon the end is noticed.
    const LOOK: Duration = Duration::from_millis(50);

    let clock = Clock::new();
    let mut poller = Poller::new().unwrap();
    for (number, end) in ends.iter().enumerate() {
        let token = Token(number as _);
        poller
            .register(&end.as_fd(), token, Interest::Read)
            .unwrap();
    }
    let mut under_way = VecDeque::new();
    let mut buffer = vec![0; 1 << 16];
    while !is_over.load(Ordering::Relaxed) {
        for (from, end) in ends.iter_mut().enumerate() {
            loop {
                match end.read(&mut buffer) {
                    Ok((header, len)) => {
                        let due_at = clock.now() + delay;
                        under_way.push_back((due_at, 1 - from, header, buffer[..len].to_vec()));
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        while let Some((due_at, to, header, packet)) = under_way.pop_front() {
            if due_at > clock.now() {
                under_way.push_front((due_at, to, header, packet));
                break;
            }
            // An end that is down takes nothing.
            let _ = ends[to].write(header, &[IoSlice::new(&packet)]);
        }
        let next = under_way.front().map_or(LOOK, |(due_at, ..)| {
            due_at.saturating_duration_since(clock.now()).min(LOOK)
        });
        poller.wait(Some(next), &mut Vec::new()).unwrap();
    }
}
