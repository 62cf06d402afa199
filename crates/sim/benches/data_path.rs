//! What the shipped code costs between two system calls: client, gateway and relay joined by memory. `cargo bench -p
//! connlib-sim --bench data_path`.
#![allow(missing_docs, reason = "a bench has no one to reach")]

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

criterion_group!(data_path, ways);
criterion_main!(data_path);
