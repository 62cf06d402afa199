//! What the shipped code costs between two system calls: client, gateway and relay joined by memory. `cargo bench -p
//! connlib-sim`.
//!
//! `seam` compares jobs that the loop's own thread runs with jobs that one or two other threads run: what the seam itself
//! costs, and whether it pays.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a bench has no one to reach, and stops at the first surprise"
)]

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use connlib::event_loop::{Job, Workers};
use connlib_sim::pipe::{Direction, Pipe, Shape};
use connlib_sim::{Direct, Family};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Super-packets, or packets, per round.
const READS: usize = 64;

fn ways(c: &mut Criterion) {
    for (name, direct) in [("direct", Direct::Open), ("relayed", Direct::Blocked)] {
        let mut pipe = Pipe::connect(Family::V4, direct);
        let mut group = c.benchmark_group(name);
        for (name, direction, shape) in [
            ("stream up", Direction::Up, Shape::StreamV4),
            ("stream down", Direction::Down, Shape::StreamV4),
            ("datagrams up", Direction::Up, Shape::Datagram),
            ("datagrams down", Direction::Down, Shape::Datagram),
        ] {
            let bytes = pipe.carry(direction, shape, READS).bytes;
            group.throughput(Throughput::Bytes(bytes));
            group.bench_function(name, |b| b.iter(|| pipe.carry(direction, shape, READS)));
        }
    }
}

fn seam(c: &mut Criterion) {
    let mut group = c.benchmark_group("seam");
    let mut inline = Pipe::connect(Family::V4, Direct::Open);
    let bytes = inline.carry(Direction::Up, Shape::StreamV4, READS).bytes;
    group.throughput(Throughput::Bytes(bytes));
    group.bench_function("the loop's own thread", |b| {
        b.iter(|| inline.carry(Direction::Up, Shape::StreamV4, READS));
    });
    for count in [1, 2] {
        let mut pipe = Pipe::with_workers(Family::V4, Direct::Open, || Threads::new(count));
        group.bench_function(format!("{count} other threads"), |b| {
            b.iter(|| pipe.carry(Direction::Up, Shape::StreamV4, READS));
        });
    }
}

/// Threads that take turns.
struct Threads<J> {
    to: Vec<Sender<J>>,
    done: Receiver<J>,
    next: usize,
    under_way: usize,
}

impl<J: Job + Send + 'static> Threads<J> {
    fn new(count: usize) -> Self {
        let (give_back, done) = channel();
        let to = (0..count).map(|_| {
            let (to, jobs) = channel::<J>();
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

impl<J: Job> Workers<J> for Threads<J> {
    fn submit(&mut self, job: J) {
        self.next = (self.next + 1) % self.to.len();
        self.to[self.next].send(job).unwrap();
        self.under_way += 1;
    }

    fn finished(&mut self) -> Option<J> {
        let job = self.done.try_recv().ok()?;
        self.under_way -= 1;

        Some(job)
    }

    fn is_busy(&self) -> bool {
        self.under_way > 0
    }
}

criterion_group!(data_path, ways, seam);
criterion_main!(data_path);
