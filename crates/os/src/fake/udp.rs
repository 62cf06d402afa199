//! A UDP socket in memory.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use connlib_wire::ecn::Ecn;
use connlib_wire::train::{self, Arrival, Route};

use super::faults::Faults;
use super::joined;
use crate::udp::{Backlog, MAX_SENDS, Outgoing, Payload, RecvBatch, Udp};

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

impl FakeTrain {
    /// The datagrams, in order.
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        let stride = match self.stride {
            0 => self.bytes.len(),
            stride => stride,
        };

        train::datagrams(&self.bytes, stride)
    }
}

/// What one [`Udp::send`] took of one train.
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
        train::datagrams(&self.payload, self.segment_size)
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
    backlog: Backlog,
    stood_for: Option<Duration>,
    is_gone: bool,
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
            backlog: Backlog::default(),
            stood_for: None,
            is_gone: false,
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

    /// Lets the next `sends` ones be answered with `WouldBlock`, whatever room there is.
    pub fn storm_send(&mut self, sends: u64) {
        self.send_faults.storm(sends);
    }

    /// Lets the next `receives` ones be answered with `WouldBlock`, whatever waits.
    pub fn storm_recv(&mut self, receives: u64) {
        self.recv_faults.storm(receives);
    }

    /// Lets sends take datagrams only while fewer than `datagrams` lie in [`sent`](Self::sent).
    pub fn limit_queue(&mut self, datagrams: usize) {
        self.queue_limit = datagrams;
    }

    /// Lets each send take at most `datagrams` datagrams (at least one), of all its trains together.
    pub fn limit_accept(&mut self, datagrams: usize) {
        self.accept_limit = datagrams.max(1);
    }

    /// Changes what [`backlog`](Udp::backlog) says; at first it is all zero.
    pub fn set_backlog(&mut self, backlog: Backlog) {
        self.backlog = backlog;
    }

    /// Answers each call from now on as if the socket had been closed.
    pub fn vanish(&mut self) {
        self.is_gone = true;
    }

    /// Changes how long what is received from now on stood in the socket.
    pub fn set_stood_for(&mut self, stood_for: Option<Duration>) {
        self.stood_for = stood_for;
    }

    /// The number of datagrams that lie in [`sent`](Self::sent).
    pub fn queued(&self) -> usize {
        self.sent
            .iter()
            .map(|train| train.datagrams().count())
            .sum()
    }

    fn check_presence(&self) -> io::Result<()> {
        if self.is_gone {
            return Err(io::Error::from_raw_os_error(EBADF));
        }

        Ok(())
    }

    /// Takes at most `room` of the datagrams that are left of `train`, and returns how many.
    fn take(&mut self, train: &Outgoing<'_>, room: usize) -> io::Result<usize> {
        let taken = train.left().min(room);
        if !train.suits(self.local) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if taken == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let payload = match train.slice(train.first..train.first.saturating_add(taken)) {
            Some(Payload::Contiguous(bytes)) => bytes.to_vec(),
            Some(Payload::Gathered { parts, .. }) => joined(parts),
            None => return Err(io::ErrorKind::InvalidInput.into()),
        };
        self.sent.push_back(SentTrain {
            route: train.route,
            segment_size: train.segment_size,
            payload,
        });

        Ok(taken)
    }
}

/// What Linux answers about a socket that was closed.
const EBADF: i32 = 9;

impl Udp for FakeUdp {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn send(&mut self, trains: &[Outgoing<'_>]) -> io::Result<usize> {
        self.check_presence()?;
        self.send_faults.check()?;
        let free = match self.queue_limit {
            usize::MAX => usize::MAX,
            limit => limit.saturating_sub(self.queued()),
        };
        let room = free.min(self.accept_limit);

        let mut taken = 0;
        for train in trains
            .iter()
            .take(MAX_SENDS)
            .filter(|train| train.left() > 0)
        {
            match self.take(train, room - taken) {
                Ok(datagrams) => taken += datagrams,
                Err(_) if taken > 0 => break,
                Err(error) => return Err(error),
            }
        }

        Ok(taken)
    }

    fn recv(&mut self, batch: &mut RecvBatch) -> io::Result<usize> {
        batch.clear();
        let mut refused = 0;
        self.check_presence()?;
        self.recv_faults.check()?;
        if self.inbox.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }

        while batch.len() < batch.capacity() {
            let Some(train) = self.inbox.pop_front() else {
                break;
            };
            // Like the kernel, which knows no such train.
            if train.stride > train.bytes.len() {
                continue;
            }
            let arrival = Arrival {
                from: train.from,
                to: train.to,
                ecn: train.ecn,
                stride: train.stride,
                bytes: &train.bytes,
            };
            refused += usize::from(batch.push(arrival).is_err());
        }
        batch.told(self.inbox.is_empty(), refused, self.stood_for);

        Ok(batch.len())
    }

    fn backlog(&self) -> io::Result<Backlog> {
        self.check_presence()?;

        Ok(self.backlog)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::IoSlice;

    use connlib_wire::buffer::Pool;
    use connlib_wire::train::Transmit;

    #[test]
    fn a_send_is_kept_with_its_route_and_boundaries() {
        let mut udp = socket();

        assert_eq!(
            udp.send(&[Outgoing::new(&train(b"aabbc", 2), 0)]).unwrap(),
            3
        );

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

        assert_eq!(udp.send(&[Outgoing::new(&train, 0)]).unwrap(), 2);
        assert_eq!(udp.send(&[Outgoing::new(&train, 2)]).unwrap(), 2);
        assert_eq!(udp.send(&[Outgoing::new(&train, 4)]).unwrap(), 1);
        assert_eq!(
            udp.send(&[Outgoing::new(&train, 5)]).unwrap(),
            0,
            "nothing is left"
        );

        let bytes = udp.sent.iter().flat_map(|sent| sent.payload.clone());
        assert_eq!(bytes.collect::<Vec<_>>(), b"aabbccdde");
    }

    #[test]
    fn a_full_queue_blocks_until_something_is_taken_out() {
        let mut udp = socket();
        udp.limit_queue(3);
        let train = train(b"aabb", 2);

        assert_eq!(udp.send(&[Outgoing::new(&train, 0)]).unwrap(), 2);
        assert_eq!(udp.send(&[Outgoing::new(&train, 0)]).unwrap(), 1);
        let blocked = udp.send(&[Outgoing::new(&train, 1)]).unwrap_err();
        assert_eq!(blocked.kind(), io::ErrorKind::WouldBlock);

        udp.sent.pop_front();
        assert_eq!(udp.send(&[Outgoing::new(&train, 1)]).unwrap(), 1);
    }

    #[test]
    fn planned_faults_hit_the_call_they_are_planned_for() {
        let mut udp = socket();
        udp.fail_send(1, io::ErrorKind::NetworkUnreachable.into());
        udp.fail_recv(0, io::ErrorKind::ConnectionRefused.into());
        udp.inbox.push_back(arrival(0, b"x"));
        let train = train(b"a", 1);
        let mut batch = RecvBatch::new(Pool::new(16, 4), 4);

        assert!(udp.send(&[Outgoing::new(&train, 0)]).is_ok());
        let refused = udp.send(&[Outgoing::new(&train, 0)]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::NetworkUnreachable);
        assert!(udp.send(&[Outgoing::new(&train, 0)]).is_ok());

        let refused = udp.recv(&mut batch).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(udp.recv(&mut batch).unwrap(), 1, "the train is still there");
    }

    #[test]
    fn receiving_fills_the_batch_and_skips_what_is_unusable() {
        let mut udp = socket();
        udp.inbox.push_back(arrival(9, b"short"));
        udp.inbox.push_back(arrival(2, b"aab"));
        udp.inbox.push_back(arrival(0, b"longer than the room"));
        udp.inbox.push_back(arrival(0, b"c"));
        udp.inbox.push_back(arrival(0, b""));
        let mut batch = RecvBatch::new(Pool::new(8, 2), 2);

        assert_eq!(udp.recv(&mut batch).unwrap(), 2);
        let trains = batch.arrivals().map(|arrival| arrival.bytes);
        assert_eq!(trains.collect::<Vec<_>>(), [&b"aab"[..], b"c"]);

        assert_eq!(udp.recv(&mut batch).unwrap(), 1, "without contents");
        let blocked = udp.recv(&mut batch).unwrap_err();
        assert_eq!(blocked.kind(), io::ErrorKind::WouldBlock);
        assert!(
            batch.is_empty(),
            "a failed receive leaves nothing stale behind"
        );
    }

    #[test]
    fn several_trains_leave_in_order_and_a_limit_cuts_across_them() {
        let mut udp = socket();
        udp.limit_accept(4);
        let (one, two) = (train(b"aabbc", 2), train(b"ddee", 2));
        let parts = [&b"f"[..], b"f", b"g", b"g"].map(IoSlice::new);
        let three = |first| Outgoing {
            route: route(),
            segment_size: 2,
            payload: Payload::Gathered {
                parts: &parts,
                per_datagram: 2,
            },
            first,
        };

        let trains = [Outgoing::new(&one, 1), Outgoing::new(&two, 0), three(0)];
        assert_eq!(udp.send(&trains).unwrap(), 4);
        let trains = [Outgoing::new(&one, 3), Outgoing::new(&two, 2), three(0)];
        assert_eq!(udp.send(&trains).unwrap(), 2);
        assert_eq!(udp.send(&[three(2)]).unwrap(), 0);
        assert_eq!(udp.send(&[]).unwrap(), 0);

        let payloads = udp.sent.iter().map(|sent| &*sent.payload);
        assert_eq!(
            payloads.collect::<Vec<_>>(),
            [&b"bbc"[..], b"ddee", b"ffgg"]
        );
    }

    #[test]
    fn a_bad_train_stops_those_behind_it_and_is_the_next_calls_error() {
        let mut udp = socket();
        let good = train(b"aa", 2);
        let mut bad = train(b"bb", 2);
        bad.route.dst = "[::1]:9".parse().unwrap();
        let trains = [
            Outgoing::new(&good, 0),
            Outgoing::new(&bad, 0),
            Outgoing::new(&good, 0),
        ];

        assert_eq!(udp.send(&trains).unwrap(), 1);
        let refused = udp.send(&trains[1..]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(udp.send(&trains[2..]).unwrap(), 1);
    }

    #[test]
    fn trains_behind_the_limit_of_a_call_are_left() {
        let mut udp = socket();
        let train = train(b"a", 1);
        let trains = [Outgoing::new(&train, 0); MAX_SENDS + 1];

        assert_eq!(udp.send(&trains).unwrap(), MAX_SENDS);
    }

    #[test]
    fn a_storm_blocks_as_many_calls_as_it_has_and_loses_nothing() {
        let mut udp = socket();
        udp.inbox.push_back(arrival(0, b"x"));
        udp.storm_send(1);
        udp.storm_recv(2);
        let train = train(b"a", 1);
        let mut batch = RecvBatch::new(Pool::new(16, 4), 4);

        let blocked = udp.send(&[Outgoing::new(&train, 0)]).unwrap_err();
        assert_eq!(blocked.kind(), io::ErrorKind::WouldBlock);
        assert!(udp.send(&[Outgoing::new(&train, 0)]).is_ok());
        for _ in 0..2 {
            let blocked = udp.recv(&mut batch).unwrap_err();
            assert_eq!(blocked.kind(), io::ErrorKind::WouldBlock);
        }
        assert_eq!(udp.recv(&mut batch).unwrap(), 1);
    }

    #[test]
    fn a_vanished_socket_answers_as_linux_does() {
        let mut udp = socket();
        udp.inbox.push_back(arrival(0, b"x"));
        let mut batch = RecvBatch::new(Pool::new(16, 4), 4);
        udp.vanish();

        let train = train(b"a", 1);
        for gone in [
            udp.send(&[Outgoing::new(&train, 0)]).unwrap_err(),
            udp.recv(&mut batch).unwrap_err(),
            udp.backlog().unwrap_err(),
        ] {
            assert_eq!(gone.raw_os_error(), Some(EBADF));
        }
    }

    #[test]
    fn the_backlog_is_what_it_was_set_to() {
        let mut udp = socket();
        assert_eq!(udp.backlog().unwrap(), Backlog::default());

        let backlog = Backlog {
            bytes: 1,
            limit: 2,
            dropped: 3,
        };
        udp.set_backlog(backlog);
        assert_eq!(udp.backlog().unwrap(), backlog);
    }

    #[test]
    fn the_other_family_is_refused() {
        let mut udp = FakeUdp::new("[::1]:9".parse().unwrap());

        let refused = udp.send(&[Outgoing::new(&train(b"a", 1), 0)]).unwrap_err();

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
