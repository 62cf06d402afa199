//! What it costs that encryption is a value, and whether other threads pay. `cargo bench -p connlib-sim --bench seam`.
//!
//! A gateway alone, in memory, seals super-packets for four peers: without the seam (jobs are run where they are made), with
//! the loop's own thread behind it, and with one and two others.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a bench has no one to reach, and stops at the first surprise"
)]

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use connlib::event_loop::{Inline, Workers};
use connlib_link::{FixedPeer, Job, Links, NotSent, Packets, PeerId, PrivateKey, Settings};
use connlib_sim::pipe::{Direction, Load, Shape};
use connlib_wire::buffer::Pool;
use connlib_wire::super_packet::SuperPacket;
use connlib_wire::train::Arrival;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use uuid::Uuid;

const PEERS: usize = 4;

/// Super-packets for each peer per round.
const READS: usize = 16;

/// The most jobs under way, as in the loop.
const MAX_JOBS: usize = 32;

const UNIX: Duration = Duration::from_secs(1_800_000_000);

fn seam(c: &mut Criterion) {
    let mut gateway = Gateway::connected();
    let bytes = gateway.seal(Gateway::run_here);
    let mut group = c.benchmark_group("seam");
    group.throughput(Throughput::Bytes(bytes));
    group.bench_function("none", |b| b.iter(|| gateway.seal(Gateway::run_here)));

    let mut inline = Inline::default();
    group.bench_function("the loop's own thread", |b| {
        b.iter(|| gateway.seal(|gateway, is_last| gateway.run_by(&mut inline, is_last)));
    });
    for count in [1, 2] {
        let mut threads = Threads::new(count);
        group.bench_function(format!("{count} other threads"), |b| {
            b.iter(|| gateway.seal(|gateway, is_last| gateway.run_by(&mut threads, is_last)));
        });
    }
}

/// A gateway with a session with each peer.
struct Gateway {
    links: Links,
    now: Instant,
    pool: Pool,
    under_way: usize,
}

impl Gateway {
    #[expect(
        clippy::disallowed_methods,
        reason = "instants can only be made from one; nothing depends on which it is"
    )]
    fn connected() -> Self {
        let now = Instant::now();
        let mut hosts: Vec<Links> = (0..=PEERS)
            .map(|host| {
                let settings = Settings { unix: UNIX };
                Links::with_key(now, [host as u8; 32], settings, &key(host))
            })
            .collect();
        let (gateway, peers) = hosts.split_first_mut().unwrap();
        for (peer, links) in (1..).zip(peers) {
            gateway.add_fixed(now, id(peer), described(peer)).unwrap();
            links.add_fixed(now, id(0), described(0)).unwrap();
        }
        let pool = Pool::new(65_535, 2 * MAX_JOBS);
        for peer in hosts.iter_mut().skip(1) {
            let packet = super_packet(&pool, &mut load());
            let sent = peer.begin_seal(now, id(0), packet, 0);
            assert_eq!(sent, Err(NotSent::Waiting), "for the session it asks for");
        }
        while carry(&mut hosts, now) {}

        Self {
            links: hosts.swap_remove(0),
            now,
            pool,
            under_way: 0,
        }
    }

    /// Seals a round, and returns how many bytes left.
    fn seal(&mut self, mut run: impl FnMut(&mut Self, bool)) -> u64 {
        let mut load = load();
        let mut bytes = 0;
        for _ in 0..READS {
            for peer in 1..=PEERS {
                let packet = super_packet(&self.pool, &mut load);
                self.links
                    .begin_seal(self.now, id(peer), packet, 0)
                    .unwrap();
                run(self, false);
                bytes += self.sent();
            }
        }
        run(self, true);

        bytes + self.sent()
    }

    fn run_here(&mut self, _: bool) {
        self.links.run_jobs();
    }

    /// Hands jobs over and takes back what is done; waits for it where the loop would.
    fn run_by(&mut self, workers: &mut impl Workers<Job>, is_last: bool) {
        while let Some(job) = self.links.poll_job() {
            workers.submit(job);
            self.under_way += 1;
        }
        let enough = if is_last { 0 } else { MAX_JOBS };
        loop {
            while let Some(job) = workers.finished() {
                self.links.commit(job);
                self.under_way -= 1;
            }
            if self.under_way <= enough {
                return;
            }
            thread::yield_now();
        }
    }

    fn sent(&mut self) -> u64 {
        std::iter::from_fn(|| self.links.poll_transmit())
            .map(|train| train.payload.len() as u64)
            .sum()
    }
}

fn load() -> Load {
    Load::new(Shape::StreamV4, Direction::Down, usize::MAX)
}

fn super_packet(pool: &Pool, load: &mut Load) -> SuperPacket<connlib_wire::buffer::Buffer> {
    let (header, bytes) = load.next_read().unwrap();

    SuperPacket::parse(header, pool.copy(bytes).unwrap()).unwrap()
}

/// Carries what all have sent; whether there was anything.
fn carry(hosts: &mut [Links], now: Instant) -> bool {
    let mut sent = Vec::new();
    for (number, host) in hosts.iter_mut().enumerate() {
        host.run_jobs();
        while let Some(train) = host.poll_transmit() {
            sent.push((number, train));
        }
        while host.poll_event().is_some() {}
    }
    for (from, train) in &sent {
        let to = (0..hosts.len()).find(|host| addr(*host) == train.route.dst);
        let arrival = Arrival {
            from: addr(*from),
            to: train.route.dst,
            ecn: train.route.ecn,
            stride: train.segment_size,
            bytes: &train.payload,
        };
        hosts[to.unwrap()].handle_arrival(now, &arrival, &mut Packets::new());
    }

    !sent.is_empty()
}

fn key(host: usize) -> PrivateKey {
    PrivateKey::new([host as u8 + 1; 32])
}

fn id(host: usize) -> PeerId {
    PeerId(Uuid::from_u128(host as u128))
}

fn addr(host: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host as u8 + 1], 51_820))
}

fn described(host: usize) -> FixedPeer {
    FixedPeer {
        public_key: key(host).public_key(),
        preshared_key: None,
        endpoint: Some(addr(host)),
        keepalive: None,
    }
}

/// Threads that take turns.
struct Threads {
    to: Vec<Sender<Job>>,
    done: Receiver<Job>,
    next: usize,
    under_way: usize,
}

impl Threads {
    fn new(count: usize) -> Self {
        let (give_back, done) = channel();
        let to = (0..count).map(|_| {
            let (to, jobs) = channel::<Job>();
            let give_back = give_back.clone();
            thread::spawn(move || {
                for mut job in jobs {
                    job.run();
                    if give_back.send(job).is_err() {
                        return;
                    }
                }
            });
            to
        });

        Self {
            to: to.collect(),
            done,
            next: 0,
            under_way: 0,
        }
    }
}

impl Workers<Job> for Threads {
    fn submit(&mut self, job: Job) {
        self.next = (self.next + 1) % self.to.len();
        self.to[self.next].send(job).unwrap();
        self.under_way += 1;
    }

    fn finished(&mut self) -> Option<Job> {
        let job = self.done.try_recv().ok()?;
        self.under_way -= 1;

        Some(job)
    }

    fn is_busy(&self) -> bool {
        self.under_way > 0
    }
}

criterion_group!(benches, seam);
criterion_main!(benches);
