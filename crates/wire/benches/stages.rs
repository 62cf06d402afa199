//! What each stage of the data path costs that is about bytes alone: `cargo bench -p connlib-wire`.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a bench has no one to reach, and stops at the first surprise"
)]

use std::hint::black_box;
use std::net::SocketAddr;

use connlib_wire::buffer::Pool;
use connlib_wire::ip::checksum::Sum;
use connlib_wire::ip::{Packet, flow_hash, udp};
use connlib_wire::offload::VirtioHeader;
use connlib_wire::runs::{Joins, Runs};
use connlib_wire::super_packet::SuperPacket;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const SEGMENTS: usize = 49;
const PAYLOAD: usize = 1_228;

fn checksum(c: &mut Criterion) {
    let bytes = vec![0x5A; PAYLOAD];
    let mut group = c.benchmark_group("checksum");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("payload of one segment", |b| {
        b.iter(|| Sum::default().bytes(black_box(&bytes)).folded());
    });
}

fn split(c: &mut Criterion) {
    let bytes = stream();
    let mut group = c.benchmark_group("split");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("super-packet of 49 segments", |b| {
        b.iter_batched_ref(
            || bytes.clone(),
            |bytes| {
                let mut packet = SuperPacket::parse(header(), bytes.as_mut_slice()).unwrap();
                let mut segments = packet.split();
                while let Some(segment) = segments.next_segment() {
                    black_box(segment);
                }
            },
            BatchSize::LargeInput,
        );
    });
}

fn join(c: &mut Criterion) {
    let (memory, ranges) = segments();
    let joins = Joins {
        tcp: true,
        udp: true,
    };
    let mut runs = Runs::new();
    let mut group = c.benchmark_group("join");
    group.throughput(Throughput::Bytes(memory.len() as u64));
    group.bench_function("49 segments into a run", |b| {
        b.iter(|| {
            runs.clear();
            for range in &ranges {
                runs.push(&memory, range.clone(), joins);
            }
            assert_eq!(runs.len(), 1);
            runs.with_parts(0, &memory, |header, parts| black_box((header, parts.len())))
        });
    });
}

fn look_up(c: &mut Criterion) {
    let (from, to): (SocketAddr, SocketAddr) = (
        "100.64.0.1:4000".parse().unwrap(),
        "10.20.0.10:5000".parse().unwrap(),
    );
    let packet = udp(&Pool::new(2_048, 1), from, to, &[0xA5; 1_200]).unwrap();
    c.bench_function("parse a packet", |b| {
        b.iter(|| Packet::parse(black_box(packet.bytes())).unwrap().source());
    });
    c.bench_function("number of a flow", |b| {
        b.iter(|| flow_hash(black_box(&packet), 7));
    });
    let pool = Pool::new(65_535, 4);
    c.bench_function("take a buffer and give it back", |b| {
        b.iter(|| drop(black_box(pool.take(0))));
    });
}

/// A super-packet of TCP over IPv4.
fn stream() -> Vec<u8> {
    let payload = SEGMENTS * PAYLOAD;
    let [l0, l1] = ((40 + payload) as u16).to_be_bytes();
    let mut bytes = vec![0x45, 0, l0, l1, 0, 1, 0x40, 0, 64, 6, 0, 0];
    bytes.extend([100, 64, 0, 1, 10, 20, 0, 10]);
    bytes.extend([0x0F, 0xA0, 0x13, 0x88, 0, 0, 0, 0, 0, 0, 0, 1, 0x50, 0x10]);
    bytes.extend([0xFF, 0xFF, 0, 0, 0, 0]);
    bytes.extend(std::iter::repeat_n(0x5A, payload));

    bytes
}

fn header() -> VirtioHeader {
    VirtioHeader {
        flags: VirtioHeader::NEEDS_CSUM,
        gso_type: VirtioHeader::GSO_TCPV4,
        hdr_len: 40,
        gso_size: PAYLOAD as u16,
        csum_start: 20,
        csum_offset: 16,
    }
}

/// Its segments, one behind the other.
fn segments() -> (Vec<u8>, Vec<std::ops::Range<usize>>) {
    let mut packet = SuperPacket::parse(header(), stream()).unwrap();
    let (mut memory, mut ranges) = (Vec::new(), Vec::new());
    let mut segments = packet.split();
    while let Some(segment) = segments.next_segment() {
        let start = memory.len();
        memory.extend_from_slice(segment);
        ranges.push(start..memory.len());
    }

    (memory, ranges)
}

criterion_group!(stages, checksum, split, join, look_up);
criterion_main!(stages);
