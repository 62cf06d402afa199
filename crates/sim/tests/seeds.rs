//! Many worlds, each from a seed.
//!
//! `SEEDS=n` says how many (100 by default), `FIRST=s` where to begin, `REPRO=s` runs one world and prints what it did.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it measured"
)]

use std::time::Duration;

#[test]
fn every_world_holds() {
    if let Some(seed) = number("REPRO") {
        let report = connlib_sim::run(seed).unwrap_or_else(|failure| panic!("{failure}"));
        println!("{report:#?}");
        return;
    }

    let (first, count) = (number("FIRST").unwrap_or(0), number("SEEDS").unwrap_or(100));
    let mut first_replies = Vec::new();
    let mut datagrams = 0;
    for seed in first..first + count {
        let report = connlib_sim::run(seed).unwrap_or_else(|failure| panic!("{failure}"));
        first_replies.push(report.first_reply_after);
        datagrams += report.datagrams;
    }
    first_replies.sort();
    let quantile = |percent: usize| first_replies[(first_replies.len() - 1) * percent / 100];
    println!(
        "{count} worlds, {datagrams} datagrams; first reply p50 {:?}, p95 {:?}, max {:?}",
        quantile(50),
        quantile(95),
        quantile(100)
    );
}

#[test]
fn the_same_seed_gives_the_same_trace_twice() {
    for seed in 0..number("SEEDS").unwrap_or(100).div_ceil(20) {
        let run = || connlib_sim::run(seed).unwrap_or_else(|failure| panic!("{failure}"));
        let (one, two) = (run(), run());
        assert_eq!(one, two, "seed {seed}");
        assert!(one.trace.entries() > 50);
    }
}

#[test]
fn another_seed_gives_another_trace() {
    let traces = [1, 2].map(|seed| {
        connlib_sim::run(seed)
            .unwrap_or_else(|failure| panic!("{failure}"))
            .trace
    });
    assert_ne!(traces[0], traces[1]);
}

#[test]
fn an_open_network_answers_within_a_few_round_trips() {
    let mut scenario = connlib_sim::Scenario::from_seed(1);
    scenario.direct = connlib_sim::Direct::Open;
    scenario.loss = 0;
    scenario.faults = Default::default();
    scenario.latency = [Duration::from_millis(1); 3];
    scenario.portal_latency = Duration::from_millis(1);
    let report = connlib_sim::World::new(scenario)
        .run()
        .unwrap_or_else(|failure| panic!("{failure}"));

    assert!(
        report.first_reply_after < Duration::from_millis(300),
        "{:?}",
        report.first_reply_after
    );
}

#[test]
fn jobs_that_are_done_in_any_order_have_the_same_outcome() {
    for seed in 0..number("SEEDS").unwrap_or(100).div_ceil(5) {
        let run = |workers: Option<u64>| {
            let mut scenario = connlib_sim::Scenario::from_seed(seed);
            scenario.loss = 0;
            scenario.faults = Default::default();
            for faults in &mut scenario.faults {
                faults.workers = workers;
            }
            let report = connlib_sim::World::new(scenario).run();
            report.unwrap_or_else(|failure| panic!("{failure}"))
        };

        assert_eq!(run(None).replies, run(Some(seed)).replies, "seed {seed}");
    }
}

#[test]
fn a_tun_device_that_vanishes_is_the_end_and_says_so() {
    for seed in 0..5 {
        let mut scenario = connlib_sim::Scenario::from_seed(seed);
        scenario.faults[0].tun_vanishes_at = Some(Duration::from_secs(1));
        let failure = connlib_sim::World::new(scenario).run().unwrap_err();

        assert!(failure.what.contains("the TUN device is gone"), "{failure}");
        assert!(failure.at >= Duration::from_secs(1), "{failure}");
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;

    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} must be a number, not {text}")),
    )
}
