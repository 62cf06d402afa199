//! Our relay and coturn's `turnserver` under the same load, in turns.

use std::time::Duration;

use crate::busy::{PAIRS, all_greedy, tell};
use crate::load::Load;
use crate::network::Network;
use crate::pace::Direction;
use crate::server::{Kind, Server, has_turnserver};
use crate::shares::{jain, median};
use crate::stats::Row;

const ROUNDS: usize = 3;

/// What a server did in one direction, round by round.
#[derive(Default)]
struct Record {
    /// MB of payload per second of its processor.
    worth: Vec<f64>,
    gbps: Vec<f64>,
    jain: Vec<f64>,
}

pub(crate) fn rows(network: &Network, each: Duration) -> Vec<Row> {
    if !has_turnserver() {
        println!("SKIPPED: there is no turnserver; install the package `coturn`");
        return Vec::new();
    }
    // [ours, turnserver], each [up, down].
    let mut records: [[Record; 2]; 2] = Default::default();
    for round in 1..=ROUNDS {
        for (kind, records) in [Kind::Ours, Kind::Turnserver].into_iter().zip(&mut records) {
            let server = Server::start(kind, network);
            let mut load = Load::prepare(network, PAIRS);
            for (direction, record) in [Direction::Up, Direction::Down].into_iter().zip(records) {
                let seen = load.run(&server, all_greedy(direction, each));
                tell(
                    &format!("round {round}, {kind:?}, {}", direction.name()),
                    &seen,
                );
                let busy = seen.server.as_secs_f64();
                record.worth.push(seen.total_bytes() / 1e6 / busy);
                record.gbps.push(seen.gbps());
                record.jain.push(jain(&seen.bytes()).unwrap_or_default());
            }
        }
    }

    let [ours, theirs] = &records;
    let directions = [Direction::Up, Direction::Down];
    directions
        .into_iter()
        .zip(ours.iter().zip(theirs))
        .flat_map(|(direction, (ours, theirs))| compared(direction, ours, theirs))
        .collect()
}

fn compared(direction: Direction, ours: &Record, theirs: &Record) -> [Row; 3] {
    let way = direction.name();
    let middle = |values: &[f64]| median(values).unwrap();
    let (our_worth, their_worth) = (middle(&ours.worth), middle(&theirs.worth));

    [
        Row::new(
            format!("beside turnserver, {way}: MB per CPU second, ours / its"),
            format!(
                "{our_worth:.0} / {their_worth:.0} ({:.1}×)",
                our_worth / their_worth
            ),
            "≥ 3×",
        ),
        Row::new(
            format!("beside turnserver, {way}: Gbit/s, ours / its"),
            format!("{:.2} / {:.2}", middle(&ours.gbps), middle(&theirs.gbps)),
            "–",
        ),
        Row::new(
            format!("beside turnserver, {way}: Jain's index, ours / its"),
            format!("{:.3} / {:.3}", middle(&ours.jain), middle(&theirs.jain)),
            "–",
        ),
    ]
}
