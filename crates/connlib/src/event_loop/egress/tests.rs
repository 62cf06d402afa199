use connlib_os::fake::FakeUdp;
use connlib_wire::buffer::Pool;
use connlib_wire::ecn::Ecn;

use super::*;

const LIMIT: usize = 10_000;

#[test]
fn control_goes_first_and_a_train_that_was_begun_goes_on_behind_it() {
    let mut rig = Rig::new();
    rig.push(b"aabbcc");
    rig.udp.device.limit_queue(1);
    rig.flush();
    rig.control(b"!!");
    rig.control(b"??");
    rig.push(b"dd");
    for room in [3, 4, 10] {
        rig.udp.device.limit_queue(room);
        rig.flush();
    }

    assert_eq!(rig.sent(), ["aa", "!!", "??", "bb", "cc", "dd"]);
    assert!(rig.egress.is_empty());
}

#[test]
fn data_beyond_twice_the_limit_is_dropped_and_control_is_not() {
    let mut rig = Rig::new();
    rig.udp.device.limit_queue(0);
    let train = vec![b'x'; LIMIT / 10 - DATAGRAM_COST];
    for _ in 0..30 {
        rig.push(&train);
    }
    rig.control(b"!!");

    let each = train.len() / 2;
    let dropped = rig.stats.dropped(DropReason::SocketFull);
    assert_eq!(dropped, 10 * each as u64);
    rig.udp.device.limit_queue(usize::MAX);
    rig.flush();
    let sent = rig.sent();
    assert_eq!(sent.len(), 20 * each + 1);
    assert_eq!(sent[0], "!!");
}

#[test]
fn who_fills_it_is_held_back_while_the_socket_moves_and_for_a_while_after() {
    let mut rig = Rig::new();
    rig.udp.device.limit_queue(0);
    rig.push(&[b'x'; LIMIT - DATAGRAM_COST]);
    assert!(!rig.egress.holds_back(rig.now));
    rig.push(b"yy");
    rig.flush();
    assert!(rig.egress.holds_back(rig.now));
    assert_eq!(rig.egress.due_at(rig.now), Some(rig.now + PATIENCE));

    rig.now += PATIENCE / 2;
    rig.udp.device.limit_queue(1);
    rig.flush();
    assert_eq!(
        rig.egress.due_at(rig.now),
        Some(rig.now + PATIENCE),
        "it moved"
    );
    rig.now += PATIENCE;
    assert!(!rig.egress.holds_back(rig.now));
    assert_eq!(rig.egress.due_at(rig.now), None);
}

#[test]
fn an_error_costs_what_shares_its_fate_and_nothing_behind_it() {
    for (errno, left) in [
        (libc::EMSGSIZE, vec!["b", "cc"]),
        (libc::ENETUNREACH, vec!["cc"]),
        (libc::EIO, vec!["aa", "b", "cc"]),
    ] {
        let mut rig = Rig::new();
        rig.push(b"aaaab");
        rig.push(b"cc");
        rig.fail(errno);
        rig.flush();

        assert_eq!(rig.sent(), left);
        assert_eq!(rig.stats.dropped_total() as usize, 4 - left.len());
        assert_eq!(rig.errors.drain().count(), 1);
    }
}

#[test]
fn what_was_too_large_is_told_once_with_its_size() {
    let mut rig = Rig::new();
    rig.push(b"aaaa");
    rig.fail(libc::EMSGSIZE);
    rig.flush();
    rig.errors.drain().count();

    assert_eq!(rig.egress.take_too_large(), Some((route(), 2)));
    assert_eq!(rig.egress.take_too_large(), None);
}

#[test]
fn a_datagram_without_contents_leaves_like_any_other() {
    let mut rig = Rig::new();
    for payload in [&b""[..], b"aa", b"", b"", b"bb", b""] {
        rig.push(payload);
    }
    rig.flush();

    assert_eq!(rig.sent(), ["", "aa", "", "", "bb", ""]);
    assert!(rig.egress.is_empty());
}

#[test]
fn discarding_counts_what_had_not_left() {
    let mut rig = Rig::new();
    rig.udp.device.limit_queue(1);
    rig.push(b"aabbcc");
    rig.flush();
    rig.control(b"!!");
    rig.egress.discard(DropReason::NoSocket, &mut rig.stats);

    assert_eq!(rig.stats.dropped(DropReason::NoSocket), 3);
    assert!(rig.egress.is_empty() && !rig.egress.holds_back(rig.now));
}

/// A queue and its socket; datagrams are of two bytes.
struct Rig {
    egress: Egress,
    udp: Watched<FakeUdp>,
    stats: Stats,
    said: Said,
    errors: Errors,
    now: Instant,
    pool: Pool,
}

impl Rig {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test has to begin at some time"
    )]
    fn new() -> Self {
        Self {
            egress: Egress::new(LIMIT),
            udp: Watched::new(FakeUdp::new("192.0.2.1:9".parse().unwrap())),
            stats: Stats::default(),
            said: Said::default(),
            errors: Errors::new(),
            now: Instant::now(),
            pool: Pool::new(LIMIT, 4),
        }
    }

    fn train(&self, payload: &[u8]) -> Transmit {
        Transmit {
            route: route(),
            segment_size: 2,
            payload: self.pool.copy(payload).unwrap(),
        }
    }

    fn push(&mut self, payload: &[u8]) {
        let train = self.train(payload);
        self.egress.push(train, &mut self.stats);
    }

    fn control(&mut self, payload: &[u8]) {
        let train = self.train(payload);
        self.egress.push_control(train, &mut self.stats);
    }

    fn fail(&mut self, errno: i32) {
        let error = io::Error::from_raw_os_error(errno);
        self.udp.device.fail_send(0, error);
    }

    fn flush(&mut self) {
        self.udp.ready.writable = true;
        let mut report = Report {
            stats: &mut self.stats,
            said: &mut self.said,
            errors: &mut self.errors,
        };
        self.egress.flush(self.now, &mut self.udp, &mut report);
    }

    fn sent(&self) -> Vec<&str> {
        let sent = self.udp.device.sent.iter();

        sent.flat_map(|train| train.datagrams())
            .map(|datagram| std::str::from_utf8(datagram).unwrap())
            .collect()
    }
}

fn route() -> Route {
    Route {
        src: None,
        dst: "192.0.2.2:9".parse().unwrap(),
        ecn: Ecn::NotEct,
    }
}
