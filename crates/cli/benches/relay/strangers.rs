//! A hundred thousand unauthenticated requests a second beside one steady stream.

use std::time::Duration;

use crate::busy::tell;
use crate::flood::{Flood, From, What};
use crate::load::{Load, Plan};
use crate::network::Network;
use crate::pace::{Direction, Pace};
use crate::seen::Seen;
use crate::server::{Kind, Server};
use crate::stats::Row;

/// The share that the stream sends of what it could without loss.
const SHARE: f64 = 0.5;

pub(crate) fn rows(network: &Network, each: Duration) -> Vec<Row> {
    let best = {
        let (server, mut load) = scene(network);
        let seen = load.run(&server, stream(&[Pace::Windowed], each, None));
        tell("one client alone", &seen);
        seen.total_bytes() / seen.elapsed.as_secs_f64()
    };
    let paces = [Pace::bytes_per_second(best * SHARE)];
    let calm = {
        let (server, mut load) = scene(network);
        let seen = load.run(&server, stream(&paces, each, None));
        tell("the same at half of that", &seen);
        seen
    };

    let mut rows = vec![Row::new(
        "a stream of half the best rate, no strangers: rate, arrived".into(),
        format!("{:.2} Gbit/s, {:.1} %", calm.gbps(), calm.carried() * 100.0),
        "–",
    )];
    for what in [What::Allocate, What::Binding, What::Garbage] {
        for from in [From::OnePort, From::ManyAddresses] {
            // Each begins with strangers that nothing is known about.
            let (server, mut load) = scene(network);
            let mut flood = Flood::new(network, what, from);
            let seen = load.run(&server, stream(&paces, each, Some(&mut flood)));
            rows.extend(attacked(
                &format!("{what:?}, {}", from.name()),
                &calm,
                &seen,
                &flood,
            ));
        }
    }

    rows
}

fn attacked(name: &str, calm: &Seen, seen: &Seen, flood: &Flood) -> [Row; 3] {
    tell(name, seen);
    let per_second = flood.sent as f64 / seen.elapsed.as_secs_f64();
    let asked_bytes = flood.sent * flood.request_len() as u64;
    println!(
        "  {per_second:.0} requests/s of {} bytes, {} answers, the largest of {} bytes",
        flood.request_len(),
        flood.answers,
        flood.largest_answer,
    );
    let kept = seen.gbps() / calm.gbps();
    let (server, _) = seen.cores();
    let (calm_server, _) = calm.cores();

    [
        Row::new(
            format!("{name}: the stream keeps"),
            format!("{:.1} % (at {:.0} k/s)", kept * 100.0, per_second / 1e3),
            "≥ 90 % at 100 k/s",
        ),
        Row::new(
            format!("{name}: of a core, without / under it"),
            format!("{:.0} / {:.0} %", calm_server * 100.0, server * 100.0),
            "≤ 100 %",
        ),
        Row::new(
            format!("{name}: bytes answered / asked, largest"),
            format!(
                "{:.3}, {} → {} B",
                flood.answered_bytes as f64 / asked_bytes as f64,
                flood.request_len(),
                flood.largest_answer,
            ),
            "no more than asked",
        ),
    ]
}

fn scene(network: &Network) -> (Server, Load) {
    let server = Server::start(Kind::Ours, network);
    let load = Load::prepare(network, 1);

    (server, load)
}

fn stream<'a>(paces: &'a [Pace], duration: Duration, flood: Option<&'a mut Flood>) -> Plan<'a> {
    Plan {
        direction: Direction::Up,
        paces,
        duration,
        probes: false,
        flood,
    }
}

impl From {
    fn name(self) -> &'static str {
        match self {
            Self::OnePort => "one port",
            Self::ManyAddresses => "256 ports at 32 addresses",
        }
    }
}
