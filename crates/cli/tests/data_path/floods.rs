//! Floods of what is no use to anybody, at the gateway's port.

use std::process::Command;
use std::time::Duration;

use connlib_os::clock::Clock;
use connlib_wire::channel;

use crate::capture::{self, Capture};
use crate::traffic::{Flood, Noise, PATIENCE, Pace, Streams, Train, rest};
use crate::vitals::Memory;
use crate::{Stage, at_resource, median};

/// What legitimate traffic keeps of its rate (issue 3, "Bad input").
const KEPT: f64 = 0.7;

/// How often its rate is taken without and with a flood, by turns, so that a busy moment hits both alike.
const ROUNDS: usize = 5;

/// How long it is looked at each time, and what of that doesn't count because TCP finds its rate anew.
const SPAN: Duration = Duration::from_millis(1_200);
const LEAD: Duration = Duration::from_millis(400);

/// How much a process may grow by a flood, in KiB: the 16 MiB that may stand in `event_loop::arrivals`, and half as much for
/// trains on their way. All of it is given back later.
const GROWTH: u64 = 24 * 1_024;

/// The longest train that the kernel takes, in bytes and datagrams.
const TRAIN: usize = 60_000;
const SEGMENTS: usize = 64;

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn garbage_that_fills_half_of_the_link_leaves_others_their_rate() {
    let Some(stage) = Stage::set() else {
        return;
    };
    let trains = garbage();

    let flooded = Flooded::measure(&stage, &trains, |alone| alone / 2.0);
    flooded.assert_harmless();
    stage.close();
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_peer_that_sends_nothing_but_forged_handshakes_leaves_others_their_rate() {
    let Some(stage) = Stage::set() else {
        return;
    };
    let mut noise = Noise(1);
    let trains: Vec<_> = (0..64)
        .map(|_| {
            train_of(INITIATION_LEN, |bytes| {
                bytes.copy_from_slice(&noise.bytes(bytes.len()));
                bytes[..4].copy_from_slice(&[1, 0, 0, 0]);
            })
        })
        .collect();

    let flooded = Flooded::measure(&stage, &trains, half_as_many);
    flooded.assert_harmless();
    stage.close();
}

/// Their checksums are right, so that the gateway has to work for each: the client's own, sent again and again.
#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_peer_that_sends_nothing_but_replayed_handshakes_leaves_others_their_rate() {
    let Some(stage) = Stage::set() else {
        return;
    };
    let initiation = initiation(&stage);
    let train = train_of(INITIATION_LEN, |bytes| bytes.copy_from_slice(&initiation));

    let flooded = Flooded::measure(&stage, std::slice::from_ref(&train), half_as_many);
    flooded.assert_harmless();

    // It was not for nothing: whoever is flooded asks for cookies, and not without end.
    let portal = stage.demo.namespace("portal");
    let answers = Capture::start(&portal);
    let pace = Pace::of(half_as_many(2e8));
    let flood = Flood::start(&portal, stage.gateway(), vec![train], pace);
    rest(LONGER_THAN_A_SHARE);
    let sent = flood.sent();
    drop(flood);
    let cookies = cookies(&answers.stop());
    println!("{sent} more were answered by {cookies} cookies");
    assert!(cookies > 0, "they were not taken for a handshake");
    assert!(cookies <= MAX_COOKIES, "each of them has cost an answer");
    stage.close();
}

/// What a source is answered is counted by the second: so long that a second begins whose share no earlier flood has used up.
const LONGER_THAN_A_SHARE: Duration = Duration::from_millis(1_200);

/// What one source is answered in each of the three seconds that so long a time can touch.
const MAX_COOKIES: usize = 3 * 200;

/// How many of the frames are answers that ask for a cookie (the WireGuard paper, §5.4.7).
fn cookies(frames: &[Vec<u8>]) -> usize {
    let payloads = frames.iter().filter_map(|frame| capture::read(frame)?.udp);

    payloads
        .filter(|udp| udp.len() == 64 && udp.starts_with(&[3, 0, 0, 0]))
        .count()
}

/// A handshake's first message (the WireGuard paper, §5.4.2).
const INITIATION_LEN: usize = 148;

/// Half of the link, counted in datagrams: the rate of half as many handshakes as there are datagrams of the traffic that
/// they disturb.
fn half_as_many(alone: f64) -> f64 {
    /// What a packet of a stream carries in a tunnel of 1280 bytes: the headers and the option for timestamps take the rest.
    const SEGMENT: f64 = 1_228.0;

    alone / SEGMENT / 2.0 * INITIATION_LEN as f64
}

/// What a flood has done.
struct Flooded {
    /// The rates without and with it, by turns, in bytes per second.
    rates: [Vec<f64>; 2],
    sent: u64,
    /// What the gateway has counted as none of its datagrams.
    rejected: u64,
    memory: [Memory; 2],
}

impl Flooded {
    /// Downloads through the tunnel while nobody, and somebody, sends `trains` to the gateway.
    fn measure(stage: &Stage, trains: &[Train], pace: impl Fn(f64) -> f64) -> Self {
        let demo = &stage.demo;
        let [client, resource, portal] =
            ["client", "resource", "portal"].map(|place| demo.namespace(place));
        let pid = stage.pid("gateway");
        let gateway = stage.gateway();
        let rejected = || {
            demo.status("gateway")["rejected_datagrams"]
                .as_u64()
                .unwrap()
        };
        let streams = Streams::download(&client, &resource, at_resource(5_201), 4);
        let rate = || {
            rest(LEAD);
            streams.rate(SPAN)
        };

        let mut flooded = Self {
            rates: [vec![rate()], Vec::new()],
            sent: 0,
            rejected: rejected(),
            memory: [Memory::of(pid); 2],
        };
        for _ in 0..ROUNDS {
            let alone = rate();
            flooded.rates[0].push(alone);
            let flood = Flood::start(&portal, gateway, trains.to_vec(), Pace::of(pace(alone)));
            flooded.rates[1].push(rate());
            flooded.sent += flood.sent();
        }
        flooded.rejected = rejected() - flooded.rejected;
        flooded.memory[1] = Memory::of(pid);

        flooded
    }

    fn assert_harmless(&self) {
        let [alone, beside] = [0, 1].map(|which| median(self.rates[which].clone()));
        let [before, after] = self.memory.map(|memory| memory.resident);
        let seconds = (SPAN + LEAD).as_secs_f64() * ROUNDS as f64;
        println!(
            "{:.0} Mbit/s alone, {:.0} beside the flood: {:.0} % kept",
            alone * 8e-6,
            beside * 8e-6,
            beside / alone * 1e2
        );
        println!(
            "flood: {} datagrams, {:.0} each second, {} rejected by the gateway, which grew from {before} to {after} KiB",
            self.sent,
            self.sent as f64 / seconds,
            self.rejected
        );

        assert!(self.rejected > self.sent / 10, "the flood has not arrived");
        assert!(beside >= KEPT * alone, "{:?}", self.rates);
        assert!(
            after <= before + GROWTH,
            "grown from {before} to {after} KiB"
        );
    }
}

/// Trains of all that comes to a port that the world knows, of all sizes.
fn garbage() -> Vec<Train> {
    const STUN_BINDING: [u8; 8] = [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    const SIZES: [usize; 24] = [
        1, 2, 3, 4, 8, 16, 19, 20, 31, 32, 33, 64, 92, 148, 256, 512, 700, 1_024, 1_280, 1_316,
        1_317, 1_400, 1_471, 1_472,
    ];
    // Nothing; a handshake's parts and data for receivers that don't exist; a request; a relay's channels.
    let heads: [&[u8]; 8] = [
        &[],
        &[1, 0, 0, 0],
        &[2, 0, 0, 0],
        &[3, 0, 0, 0],
        &[4, 0, 0, 0],
        &STUN_BINDING,
        &[1, 1, 0, 0],
        &[0x40, 0],
    ];
    let mut noise = Noise(7);

    SIZES
        .iter()
        .flat_map(|&size| heads.map(|head| (size, head)))
        .map(|(size, head)| {
            train_of(size, |bytes| {
                bytes.copy_from_slice(&noise.bytes(size));
                let head = &head[..head.len().min(size)];
                bytes[..head.len()].copy_from_slice(head);
            })
        })
        .collect()
}

/// As many datagrams of one size as fit a train.
fn train_of(size: usize, mut fill: impl FnMut(&mut [u8])) -> Train {
    let mut bytes = vec![0; size * SEGMENTS.min(TRAIN / size)];
    bytes.chunks_exact_mut(size).for_each(&mut fill);

    Train { size, bytes }
}

/// A handshake's first message of the client's, which it sends when it hears that its network changed.
fn initiation(stage: &Stage) -> Vec<u8> {
    let on_router = Capture::start(&stage.demo.namespace("router"));
    let hang_up = format!("kill -HUP {}", stage.pid("client"));
    assert!(
        Command::new("sh")
            .args(["-c", &hang_up])
            .status()
            .unwrap()
            .success()
    );
    let clock = Clock::new();
    let end_at = clock.now() + PATIENCE;
    let links = || {
        stage.demo.status("client")["peers"]
            .as_array()
            .unwrap()
            .len()
    };
    while links() > 0 {
        assert!(clock.now() < end_at, "the client doesn't begin anew");
    }
    while stage.demo.fetch(1).is_none()
        || stage.demo.status("client")["peers"][0]["path"] != "direct"
    {
        assert!(clock.now() < end_at, "no way after the network has changed");
    }

    let frames = on_router.stop();
    let packets = frames.iter().filter_map(|frame| capture::read(frame)?.udp);
    // On the direct path, or in a relay's channel.
    let mut initiations = packets.filter_map(|udp| {
        let message = [udp, udp.get(channel::HEADER_LEN..)?];
        message
            .into_iter()
            .find(|message| message.len() == INITIATION_LEN && message.starts_with(&[1, 0, 0, 0]))
    });

    initiations
        .next()
        .expect("the client shakes hands anew")
        .to_vec()
}
