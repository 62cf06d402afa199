//! Eight clients that send all they can, one that doesn't, and requests meanwhile.

use std::time::Duration;

use crate::load::{Load, Plan};
use crate::network::Network;
use crate::pace::{Direction, Pace};
use crate::probe::Probe;
use crate::seen::Seen;
use crate::server::{Kind, Server};
use crate::shares::jain;
use crate::stats::{Row, millis, percentile};

/// How much more comes than the relay carries without a loss. As much as a program can send would take both processors, and what is
/// measured then is how long the relay waits for one.
const OVERLOAD: f64 = 1.5;

/// Pairs of client and peer.
pub(crate) const PAIRS: u8 = 8;

pub(crate) fn rows(network: &Network, each: Duration) -> Vec<Row> {
    let server = Server::start(Kind::Ours, network);
    let mut load = Load::prepare(network, PAIRS);
    let mut rows = Vec::new();
    for direction in [Direction::Up, Direction::Down] {
        let (row, best) = calm(&mut load, &server, direction, each);
        rows.push(row);
        let pressing = Pace::pressing(best * OVERLOAD / f64::from(PAIRS));
        let plan = Plan {
            paces: &[pressing; PAIRS as usize],
            ..all_greedy(direction, each)
        };
        let seen = load.run(&server, plan);
        tell(&format!("{PAIRS} clients {}", direction.name()), &seen);
        rows.extend(equal(direction, &seen));
        rows.extend(one_against_many(
            &mut load, &server, direction, each, pressing,
        ));
    }

    rows
}

/// What carrying costs where nothing is lost, and how many bytes a second that were.
fn calm(load: &mut Load, server: &Server, direction: Direction, each: Duration) -> (Row, f64) {
    let plan = Plan {
        paces: &[Pace::Windowed; PAIRS as usize],
        ..all_greedy(direction, each)
    };
    let seen = load.run(server, plan);
    let way = direction.name();
    tell(&format!("{PAIRS} clients {way}, each with a window"), &seen);

    let row = Row::new(
        format!("{PAIRS} clients {way}, no overload: rate, CPU seconds per GB"),
        format!("{:.2} Gbit/s, {:.3}", seen.gbps(), cost(&seen)),
        "–",
    );

    (row, seen.total_bytes() / seen.elapsed.as_secs_f64())
}

/// What saturates a relay.
pub(crate) fn all_greedy(direction: Direction, duration: Duration) -> Plan<'static> {
    Plan {
        direction,
        paces: &[Pace::Greedy; PAIRS as usize],
        duration,
        probes: true,
        flood: None,
    }
}

/// Prints what the table has no room for.
pub(crate) fn tell(what: &str, seen: &Seen) {
    let (server, load) = seen.cores();
    println!(
        "{what}: {:.2} Gbit/s, {:.0} % of what was sent; the server took {:.0} % of a core, the load {:.0} %",
        seen.gbps(),
        seen.carried() * 100.0,
        server * 100.0,
        load * 100.0,
    );
    for (name, probe) in [("BINDING", &seen.binding), ("REFRESH", &seen.refresh)] {
        let Some(probe) = probe.as_ref().filter(|probe| !probe.trips.is_empty()) else {
            continue;
        };
        println!(
            "  {name}: p50 {:?}, p99 {:?}, longest {:?}; {} of {} lost, {} refused",
            percentile(&probe.trips, 0.5),
            percentile(&probe.trips, 0.99),
            percentile(&probe.trips, 1.0),
            probe.lost(),
            probe.sent,
            probe.refused,
        );
    }
}

/// Seconds of the server's processor for a GB of payload.
pub(crate) fn cost(seen: &Seen) -> f64 {
    seen.server.as_secs_f64() / (seen.total_bytes() / 1e9)
}

fn equal(direction: Direction, seen: &Seen) -> Vec<Row> {
    let way = direction.name();
    let megabytes: Vec<String> = (seen.bytes().iter())
        .map(|bytes| format!("{:.0}", bytes / 1e6))
        .collect();
    println!("  MB of each: {}", megabytes.join(" "));
    let index = jain(&seen.bytes()).unwrap_or_default();
    let mut rows = vec![
        Row::new(
            format!("{PAIRS} clients {way}: Jain's index"),
            format!("{index:.3}"),
            "≥ 0.95",
        ),
        Row::new(
            format!("{PAIRS} clients {way}: rate of all"),
            format!("{:.2} Gbit/s", seen.gbps()),
            "–",
        ),
        Row::new(
            format!("{PAIRS} clients {way}: CPU seconds per GB"),
            format!("{:.3}", cost(seen)),
            "–",
        ),
    ];
    let probes = [
        ("BINDING of a ninth", &seen.binding),
        ("REFRESH of a busy client", &seen.refresh),
    ];
    for (name, probe) in probes {
        if let Some(probe) = probe {
            rows.extend(answers(&format!("{name} meanwhile, {way}"), probe));
        }
    }

    rows
}

fn answers(what: &str, probe: &Probe) -> [Row; 2] {
    let [p50, p99] = quantiles(&probe.trips);

    [
        Row::new(
            format!("{what}: p50 / p99"),
            format!("{p50} / {p99}"),
            "p99 5 ms",
        ),
        Row::new(
            format!("{what}: not answered"),
            format!("{} of {}", probe.sent - probe.trips.len(), probe.sent),
            "none",
        ),
    ]
}

/// All but one send what they can, and that one is sparse.
fn one_against_many(
    load: &mut Load,
    server: &Server,
    direction: Direction,
    duration: Duration,
    pressing: Pace,
) -> [Row; 2] {
    let mut paces = [pressing; PAIRS as usize];
    paces[paces.len() - 1] = Pace::SPARSE;
    let plan = Plan {
        direction,
        paces: &paces,
        duration,
        probes: false,
        flood: None,
    };
    let seen = load.run(server, plan);
    let way = direction.name();
    tell(&format!("7 clients {way} against one of 1 Mbit/s"), &seen);
    let sparse = &seen.pairs[paces.len() - 1];
    let lost = sparse.sent - sparse.received;
    let [p50, p99] = quantiles(&sparse.delays);

    [
        Row::new(
            format!("1 Mbit/s beside 7 greedy, {way}: lost"),
            format!("{lost} of {}", sparse.sent),
            "–",
        ),
        Row::new(
            format!("1 Mbit/s beside 7 greedy, {way}: delay p50 / p99"),
            format!("{p50} / {p99}"),
            "–",
        ),
    ]
}

fn quantiles(values: &[Duration]) -> [String; 2] {
    [0.5, 0.99].map(|share| match values {
        [] => "–".into(),
        values => millis(percentile(values, share)),
    })
}

impl Direction {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}
