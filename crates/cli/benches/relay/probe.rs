//! Requests at a steady rate, and how long their answers take.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use connlib_os::clock::Clock;
use connlib_os::udp::UdpSocket;
use connlib_wire::buffer::Buffer;
use connlib_wire::stun::{Class, Message, Method, TransactionId};

use crate::client::send_one;

/// From one request to the next: 200 a second.
const EVERY: Duration = Duration::from_millis(5);

pub(crate) struct Probe {
    method: Method,
    next_at: Instant,
    asked: HashMap<TransactionId, Instant>,
    pub(crate) sent: usize,
    pub(crate) trips: Vec<Duration>,
    /// Answers that were errors.
    pub(crate) refused: usize,
}

impl Probe {
    /// Asks for the own address.
    pub(crate) fn binding(at: Instant) -> Self {
        Self::of(Method::Binding, at)
    }

    /// Keeps an allocation.
    pub(crate) fn refresh(at: Instant) -> Self {
        Self::of(Method::Refresh, at)
    }

    fn of(method: Method, next_at: Instant) -> Self {
        Self {
            method,
            next_at,
            asked: HashMap::new(),
            sent: 0,
            trips: Vec::new(),
            refused: 0,
        }
    }

    /// Whether it is time for a request; it is counted as sent then.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.next_at <= now;
        if is_due {
            self.next_at += EVERY;
            self.sent += 1;
        }

        is_due
    }

    pub(crate) fn ask(&mut self, clock: &Clock, socket: &mut UdpSocket, request: &Buffer) {
        let id = Message::parse(request).unwrap().transaction_id();
        self.asked.insert(id, clock.now());
        // What isn't sent isn't answered, and counts as lost.
        let _ = send_one(socket, request);
    }

    /// Takes an answer in, if it is to one of its requests.
    pub(crate) fn hear(&mut self, came_at: Instant, answer: &[u8]) {
        let Ok(answer) = Message::parse(answer) else {
            return;
        };
        if answer.method() != self.method {
            return;
        }
        let Some(asked_at) = self.asked.remove(&answer.transaction_id()) else {
            return;
        };
        match answer.class() {
            Class::Success => self.trips.push(came_at.saturating_duration_since(asked_at)),
            Class::Request | Class::Indication | Class::Error => self.refused += 1,
        }
    }

    pub(crate) fn lost(&self) -> usize {
        self.sent - self.trips.len() - self.refused
    }
}
