//! Who waits for whom where the device is full.

use std::io::{ErrorKind, Read};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use connlib_os::clock::Clock;
use connlib_os::namespace::{Namespace, run_in};
use connlib_os::netlink::{Netlink, RouteSpec};
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

use crate::demo::Demo;
use crate::traffic::{
    Echo, Flood, Pace, SPARSE_INTERVAL, SPARSE_LENS, Train, rest, sparse_flow, sparse_len,
};
use crate::vitals::Handed;
use crate::{Stage, TUN, at_resource, millis, runtime};

/// An address of the office's where the gateway's kernel drops what the gateway has opened: nobody needs it.
const NOWHERE: [u8; 4] = [10, 20, 0, 99];

/// What the flood's sender hands to the device at once, in datagrams and in bytes of each: not more than the device takes.
const SEGMENTS: usize = 48;
const SEGMENT: usize = 1_200;

/// The flood begins at so many bytes per second, and becomes faster by this factor until in so many steps in a row so much
/// of it is dropped. As fast as its sender can would measure the kernel: while our thread waits for a processor, any device
/// overflows.
const SLOW: f64 = 20e6;
const FASTER: f64 = 1.25;
const STEP: Duration = Duration::from_millis(300);
const STEPS: usize = 3;
const OVERLOAD: f64 = 0.2;

/// Packets of the sparse flow: 5 s of them.
const PACKETS: usize = 250;

/// Of the sparse flow nothing is lost. The processor may still be taken from the client for longer than the device has room.
const MAX_LOST: usize = 2;

/// The most that the device may drop, for each packet that our own queue drops.
const BY_DEVICE: f64 = 0.02;

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn in_a_full_device_a_sparse_flow_does_not_wait_with_the_bulk() {
    let Some(stage) = Stage::set() else {
        return;
    };
    let demo = &stage.demo;
    prohibit_nowhere(demo);
    let (client, pid) = (demo.namespace("client"), stage.pid("client"));
    let echo = at_resource(7);
    let _echo = Echo::start(&demo.namespace("resource"), echo);

    let bulk = Train {
        size: SEGMENT,
        bytes: vec![0x5a; SEGMENTS * SEGMENT],
    };
    let pace = Pace::of(SLOW);
    let flood = Flood::start(&client, (NOWHERE, 9).into(), vec![bulk], pace.clone());
    let rate = overload(demo, &flood, &pace);

    let sightings = Sightings::start(&demo.namespace("router"), stage.gateway().ip());
    let (device, ours, sent) = (Handed::to(pid, TUN), dropped(demo), flood.sent());
    let sparse = sparse_flow(&client, echo, PACKETS);
    let sent = flood.sent() - sent;
    let (device, ours) = (Handed::to(pid, TUN).since(device), dropped(demo) - ours);
    drop(flood);
    let seen = sightings.stop();

    // The device counts trains.
    let by_device = device.dropped * SEGMENTS as u64;
    println!("bulk: {:.0} MB/s, {sent} datagrams", rate / 1e6);
    println!("dropped by our queue {ours}, by the device {by_device}");
    assert!(ours as f64 > OVERLOAD / 2.0 * sent as f64, "it isn't full");
    assert!(by_device as f64 <= BY_DEVICE * ours as f64);

    let waits = &demo.status("client")["load"]["wait_ms"];
    // It is rounded up to a power of two, so at least half of it is true.
    let bulk_waited = waits["p50"].as_f64().unwrap() / 2.0;
    let mut passed: Vec<_> = through_client(&sparse.sent_at, &seen).map(millis).collect();
    passed.sort_unstable_by(f64::total_cmp);
    let quantile = |share: f64| passed[(passed.len() as f64 * share) as usize];
    println!("the client kept half of the bulk for more than {bulk_waited:.1} ms: {waits}");
    println!(
        "it kept the sparse flow for p50 {:.2} p90 {:.2} p99 {:.2} ms, and {} of {PACKETS} for ever",
        quantile(0.5),
        quantile(0.9),
        quantile(0.99),
        PACKETS - passed.len()
    );
    println!(
        "the flow's own round trips, with what the gateway adds: p50 {:.2} p99 {:.2} ms, {} lost",
        millis(sparse.percentile(50)),
        millis(sparse.percentile(99)),
        sparse.lost()
    );
    assert!(passed.len() >= PACKETS - MAX_LOST, "lost in the client");
    assert!(quantile(0.5) < bulk_waited / 2.0);
    assert!(quantile(0.9) < bulk_waited);
    stage.close();
}

fn prohibit_nowhere(demo: &Demo) {
    let gateway = demo.namespace("gateway");
    let route = RouteSpec::prohibit(IpAddr::from(NOWHERE).into());

    runtime().block_on(async {
        let mut netlink = Netlink::new_in(&gateway).unwrap();
        netlink.add_route(&route).await.unwrap();
    });
}

/// Lets the flood become faster until the client can't seal it all, step after step; a little more than its rate then.
fn overload(demo: &Demo, flood: &Flood, pace: &Pace) -> f64 {
    let is_too_much = || {
        let (before, sent) = (dropped(demo), flood.sent());
        rest(STEP);
        let (ours, sent) = (dropped(demo) - before, flood.sent() - sent);
        ours as f64 > OVERLOAD * sent as f64
    };

    let mut rate = SLOW;
    for _ in 0..30 {
        pace.set(rate);
        // One step may only have been a moment without the processor.
        let stays = (0..STEPS).all(|_| is_too_much());
        rate *= FASTER;
        if stays {
            pace.set(rate);
            return rate;
        }
    }

    panic!("the client seals all that can be sent")
}

/// What the client's own queue has dropped so far, because too much waited in it.
fn dropped(demo: &Demo) -> u64 {
    let load = &demo.status("client")["load"];
    let reasons = ["QueueFull", "QueueStands", "WaitedTooLong"];
    let counts = reasons.map(|reason| load["dropped"].get(reason).and_then(Value::as_u64));

    counts.into_iter().flatten().sum()
}

/// How long each packet of the sparse flow took to the other side of the client; what wasn't seen there, before the next
/// one of its length was sent, is left out.
fn through_client(sent_at: &[Instant], seen: &[Sighting]) -> impl Iterator<Item = Duration> {
    sent_at.iter().enumerate().filter_map(|(number, sent_at)| {
        let next_at = sent_at.checked_add(SPARSE_INTERVAL * SPARSE_LENS as u32)?;
        let mut seen = seen.iter().filter(|seen| seen.len == sealed_len(number));
        let seen = seen.find(|seen| (*sent_at..next_at).contains(&seen.at))?;

        Some(seen.at - *sent_at)
    })
}

/// A packet of IPv4 and UDP, filled up to whole blocks of 16, a header of 16 bytes before it and a tag of 16 behind it.
fn sealed_len(number: usize) -> usize {
    sealed(sparse_len(number))
}

fn sealed(payload: usize) -> usize {
    (payload + 28).next_multiple_of(16) + 32
}

/// A sealed packet of the sparse flow's, on the router.
#[derive(Clone, Copy, Debug)]
struct Sighting {
    at: Instant,
    len: usize,
}

/// Watches for them until it is stopped.
struct Sightings {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Sighting>>,
}

impl Sightings {
    fn start(router: &Namespace, gateway: IpAddr) -> Self {
        /// Every protocol, in network byte order (if_ether.h: ETH_P_ALL).
        const ALL_PROTOCOLS: i32 = (3_u16.to_be()) as i32;

        let protocol = Some(Protocol::from(ALL_PROTOCOLS));
        let open = || Socket::new(Domain::PACKET, Type::RAW, protocol);
        let mut socket = run_in(router, open).unwrap().unwrap();
        socket.set_recv_buffer_size(8 << 20).unwrap();
        socket.set_read_timeout(Some(STEP)).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let clock = Clock::new();
            let mut seen: Vec<Sighting> = Vec::new();
            // What follows the headers doesn't matter.
            let mut frame = [0; 96];
            while !stopped.load(Ordering::Relaxed) {
                match socket.read(&mut frame) {
                    Ok(read) => {
                        let lens = sparse_in(&frame[..read], gateway);
                        let at = clock.now();
                        seen.extend(lens.into_iter().flatten().map(|len| Sighting { at, len }));
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }

            seen
        });

        Self { stop, thread }
    }

    fn stop(self) -> Vec<Sighting> {
        self.stop.store(true, Ordering::Relaxed);

        self.thread.join().unwrap()
    }
}

/// The lengths of the sparse flow's packets in a frame, at most two: the kernel shows a train as one packet, and the last of
/// a train may be shorter than the others.
fn sparse_in(frame: &[u8], gateway: IpAddr) -> Option<Vec<usize>> {
    const ETHERNET_HEADER: usize = 14;
    const UDP_HEADER: usize = 8;

    let packet = frame.get(ETHERNET_HEADER..)?;
    let (to, udp) = match frame[12..ETHERNET_HEADER] {
        [0x08, 0x00] => (
            IpAddr::from(*packet[16..].first_chunk::<4>()?),
            packet.get(20..)?,
        ),
        [0x86, 0xdd] => (
            IpAddr::from(*packet[24..].first_chunk::<16>()?),
            packet.get(40..)?,
        ),
        _ => return None,
    };
    let len = u16::from_be_bytes([*udp.get(4)?, *udp.get(5)?]);
    let data = udp.get(UDP_HEADER..)?.starts_with(&[4, 0, 0, 0]);
    if to != gateway || !data {
        return None;
    }

    let beside_bulk = usize::from(len).checked_sub(UDP_HEADER)? % sealed(SEGMENT);
    let [shortest, longest] = [0, SPARSE_LENS - 1].map(sealed_len);
    if beside_bulk == longest + shortest {
        return Some(vec![longest, shortest]);
    }

    (0..SPARSE_LENS)
        .map(sealed_len)
        .find(|len| *len == beside_bulk)
        .map(|len| vec![len])
}
