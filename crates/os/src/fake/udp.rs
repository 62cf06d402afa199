//! A UDP socket in memory.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use connlib_wire::ecn::Ecn;
use connlib_wire::train::{Arrival, Route, Transmit};

use super::faults::Faults;
use crate::udp::{RecvBatch, Udp};

/// A train on its way to a [`FakeUdp`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FakeTrain {
    /// The sender.
    pub from: SocketAddr,
    /// The socket's address that it is sent to.
    pub to: SocketAddr,
    /// The outer header's mark.
    pub ecn: Ecn,
    /// The size of each datagram but the last. Zero stands for one datagram of any size.
    pub stride: usize,
    /// The datagrams, one behind the other.
    pub bytes: Vec<u8>,
}

/// What one [`Udp::send`] took.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SentTrain {
    /// Where it goes, from where, and how it is marked.
    pub route: Route,
    /// The size of each datagram but the last.
    pub segment_size: usize,
    /// The datagrams, one behind the other.
    pub payload: Vec<u8>,
}

impl SentTrain {
    /// The datagrams, in order.
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        self.payload.chunks(self.segment_size.max(1))
    }
}

/// A UDP socket in memory, for simulations and tests.
#[derive(Debug)]
pub struct FakeUdp {
    /// The trains that have arrived and were not received yet, oldest first.
    pub inbox: VecDeque<FakeTrain>,
    /// The trains that were sent, oldest first. They count against the limit until they are taken out.
    pub sent: VecDeque<SentTrain>,
    local: SocketAddr,
    send_faults: Faults,
    recv_faults: Faults,
    queue_limit: usize,
    accept_limit: usize,
}

impl FakeUdp {
    /// Creates a socket that says it is bound to `local`, without faults or limits.
    pub fn new(local: SocketAddr) -> Self {
        Self {
            inbox: VecDeque::new(),
            sent: VecDeque::new(),
            local,
            send_faults: Faults::default(),
            recv_faults: Faults::default(),
            queue_limit: usize::MAX,
            accept_limit: usize::MAX,
        }
    }

    /// Lets the send after the next `sends` ones fail with `error`; zero means the next one.
    pub fn fail_send(&mut self, sends: u64, error: io::Error) {
        self.send_faults.plan(sends, error);
    }

    /// Lets the receive after the next `receives` ones fail with `error`; zero means the next one.
    pub fn fail_recv(&mut self, receives: u64, error: io::Error) {
        self.recv_faults.plan(receives, error);
    }

    /// Lets sends take datagrams only while fewer than `datagrams` lie in [`sent`](Self::sent).
    pub fn limit_queue(&mut self, datagrams: usize) {
        self.queue_limit = datagrams;
    }

    /// Lets each send take at most `datagrams` datagrams (at least one).
    pub fn limit_accept(&mut self, datagrams: usize) {
        self.accept_limit = datagrams.max(1);
    }

    /// The number of datagrams that lie in [`sent`](Self::sent).
    pub fn queued(&self) -> usize {
        self.sent
            .iter()
            .map(|train| train.datagrams().count())
            .sum()
    }
}

impl Udp for FakeUdp {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn send(&mut self, train: &Transmit, first: usize) -> io::Result<usize> {
        self.send_faults.check()?;
        let waiting = train.segments().saturating_sub(first);
        if waiting == 0 {
            return Ok(0);
        }
        if train.route.dst.is_ipv4() != self.local.is_ipv4() {
            return Err(io::ErrorKind::InvalidInput.into());
        }

        let free = self.queue_limit.saturating_sub(self.queued());
        let taken = waiting.min(self.accept_limit).min(free);
        if taken == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let payload = train.datagrams().skip(first).take(taken);
        self.sent.push_back(SentTrain {
            route: train.route,
            segment_size: train.segment_size,
            payload: payload.flatten().copied().collect(),
        });

        Ok(taken)
    }

    fn recv(&mut self, batch: &mut RecvBatch) -> io::Result<usize> {
        batch.clear();
        self.recv_faults.check()?;
        if self.inbox.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }

        while batch.len() < batch.capacity() {
            let Some(train) = self.inbox.pop_front() else {
                break;
            };
            // Like the kernel, which skips trains without contents and cuts those that are too long.
            if train.bytes.is_empty() || train.stride > train.bytes.len() {
                continue;
            }
            let arrival = Arrival {
                from: train.from,
                to: train.to,
                ecn: train.ecn,
                stride: train.stride,
                bytes: &train.bytes,
            };
            if batch.push(arrival).is_err() {
                continue;
            }
        }

        Ok(batch.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use connlib_wire::buffer::Pool;

    #[test]
    fn a_send_is_kept_with_its_route_and_boundaries() {
        let mut udp = socket();

        assert_eq!(udp.send(&train(b"aabbc", 2), 0).unwrap(), 3);

        let sent = udp.sent.pop_front().unwrap();
        assert_eq!(sent.route, route());
        assert_eq!(
            sent.datagrams().collect::<Vec<_>>(),
            [&b"aa"[..], b"bb", b"c"]
        );
    }

    #[test]
    fn a_partial_accept_is_resumed_without_loss_or_repetition() {
        let mut udp = socket();
        udp.limit_accept(2);
        let train = train(b"aabbccdde", 2);

        assert_eq!(udp.send(&train, 0).unwrap(), 2);
        assert_eq!(udp.send(&train, 2).unwrap(), 2);
        assert_eq!(udp.send(&train, 4).unwrap(), 1);
        assert_eq!(udp.send(&train, 5).unwrap(), 0, "nothing is left");

        let bytes = udp.sent.iter().flat_map(|sent| sent.payload.clone());
        assert_eq!(bytes.collect::<Vec<_>>(), b"aabbccdde");
    }

    #[test]
    fn a_full_queue_blocks_until_something_is_taken_out() {
        let mut udp = socket();
        udp.limit_queue(3);
        let train = train(b"aabb", 2);

        assert_eq!(udp.send(&train, 0).unwrap(), 2);
        assert_eq!(udp.send(&train, 0).unwrap(), 1);
        let blocked = udp.send(&train, 1).unwrap_err();
        assert_eq!(blocked.kind(), io::ErrorKind::WouldBlock);

        udp.sent.pop_front();
        assert_eq!(udp.send(&train, 1).unwrap(), 1);
    }

    #[test]
    fn planned_faults_hit_the_call_they_are_planned_for() {
        let mut udp = socket();
        udp.fail_send(1, io::ErrorKind::NetworkUnreachable.into());
        udp.fail_recv(0, io::ErrorKind::ConnectionRefused.into());
        udp.inbox.push_back(arrival(0, b"x"));
        let train = train(b"a", 1);
        let mut batch = RecvBatch::new(4, 16);

        assert!(udp.send(&train, 0).is_ok());
        let refused = udp.send(&train, 0).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::NetworkUnreachable);
        assert!(udp.send(&train, 0).is_ok());

        let refused = udp.recv(&mut batch).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(udp.recv(&mut batch).unwrap(), 1, "the train is still there");
    }

    #[test]
    fn receiving_fills_the_batch_and_skips_what_is_unusable() {
        let mut udp = socket();
        udp.inbox.push_back(arrival(0, b""));
        udp.inbox.push_back(arrival(9, b"short"));
        udp.inbox.push_back(arrival(2, b"aab"));
        udp.inbox.push_back(arrival(0, b"longer than the room"));
        udp.inbox.push_back(arrival(0, b"c"));
        udp.inbox.push_back(arrival(0, b"d"));
        let mut batch = RecvBatch::new(2, 8);

        assert_eq!(udp.recv(&mut batch).unwrap(), 2);
        let trains = batch.arrivals().map(|arrival| arrival.bytes);
        assert_eq!(trains.collect::<Vec<_>>(), [&b"aab"[..], b"c"]);

        assert_eq!(udp.recv(&mut batch).unwrap(), 1);
        let blocked = udp.recv(&mut batch).unwrap_err();
        assert_eq!(blocked.kind(), io::ErrorKind::WouldBlock);
        assert!(
            batch.is_empty(),
            "a failed receive leaves nothing stale behind"
        );
    }

    #[test]
    fn the_other_family_is_refused() {
        let mut udp = FakeUdp::new("[::1]:9".parse().unwrap());

        let refused = udp.send(&train(b"a", 1), 0).unwrap_err();

        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    }

    fn socket() -> FakeUdp {
        FakeUdp::new("192.0.2.1:1000".parse().unwrap())
    }

    fn route() -> Route {
        Route {
            src: None,
            dst: "192.0.2.2:2000".parse().unwrap(),
            ecn: Ecn::Ect0,
        }
    }

    fn train(payload: &[u8], segment_size: usize) -> Transmit {
        Transmit {
            route: route(),
            segment_size,
            payload: Pool::new(64, 1).copy(payload).unwrap(),
        }
    }

    fn arrival(stride: usize, bytes: &[u8]) -> FakeTrain {
        FakeTrain {
            from: "192.0.2.2:2000".parse().unwrap(),
            to: "192.0.2.1:1000".parse().unwrap(),
            ecn: Ecn::NotEct,
            stride,
            bytes: bytes.to_vec(),
        }
    }
}
