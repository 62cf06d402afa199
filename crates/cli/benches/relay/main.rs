//! Loads a relay: greedy clients, requests meanwhile, ten thousand allocations, a flood of strangers, and coturn beside it.
//! `cargo bench -p connlib-cli --bench relay` prints what was seen beside its goal, and takes about five minutes. It needs root, and
//! coturn's `turnserver` in `PATH` for the rows about it.
//!
//! `SECONDS_EACH` says how long each load lasts [default: 10], `ROWS` which groups are taken, of `busy,many,strangers,beside`.
//!
//! The relay is a process of its own, and relay, clients and peers are each in a namespace of their own. One thread of this
//! process is all clients and peers.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stdout, reason = "figures are printed")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a figure that can't be taken ends the run"
)]

mod beside;
mod busy;
mod client;
mod flood;
mod load;
mod many;
mod network;
mod pace;
mod probe;
mod seen;
mod server;
mod strangers;

#[path = "../../tests/support/program.rs"]
#[expect(dead_code, reason = "tests use the rest")]
mod program;
#[path = "../../src/bench/stats.rs"]
#[expect(dead_code, reason = "`connlib bench` uses the rest")]
#[expect(unused_imports, reason = "its tests are not run here")]
mod shares;
#[path = "../control_plane/stats.rs"]
mod stats;
#[path = "../../tests/support/vitals.rs"]
#[expect(dead_code, reason = "tests use the rest")]
mod vitals;

use std::time::Duration;

use network::Network;

fn main() {
    let seconds = std::env::var("SECONDS_EACH").map_or(10, |text| text.parse().unwrap());
    let each = Duration::from_secs(seconds);
    let groups = std::env::var("ROWS").unwrap_or_else(|_| "busy,many,strangers,beside".into());
    let network = Network::lay();
    let mut rows = Vec::new();
    for group in groups.split(',') {
        rows.extend(match group {
            "busy" => busy::rows(&network, each),
            "many" => many::rows(&network),
            "strangers" => strangers::rows(&network, each),
            "beside" => beside::rows(&network, each),
            other => panic!("there is no group of rows `{other}`"),
        });
    }

    println!("\n{:<64} {:>24}  goal", "what", "seen");
    for row in rows {
        println!("{:<64} {:>24}  {}", row.what, row.seen, row.goal);
    }
}
